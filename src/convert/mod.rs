//! From a job to checked output files in a directory.

pub mod inspect;
