//! From a job to checked output files in a directory.

mod fetch;
pub mod inspect;
mod run;

pub use fetch::{Document, Look, SourceObject, fetch, look};
pub use run::{Converted, ConvertedFile, convert_file, run};
