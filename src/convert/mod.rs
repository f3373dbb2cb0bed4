//! From a job to checked output files in a directory.

mod exceeded;
mod fetch;
mod filter_data;
pub mod inspect;
mod run;

pub use fetch::{Document, Look, SourceObject, fetch, look};
pub use run::{Converted, ConvertedFile, Wanted, convert_file, run};
