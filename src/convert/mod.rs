//! From a job to checked output files in a directory.

mod exceeded;
mod fetch;
mod finish;
pub mod inspect;
mod run;
mod settings;
mod warning;

pub use fetch::{Document, Look, SourceObject, fetch, look};
pub use finish::OutputPasswords;
pub use run::{Converted, ConvertedFile, Wanted, convert_file, run};
pub use warning::{Warning, WarningCode};
