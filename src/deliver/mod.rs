//! From output files to a signed link on a topic.

pub mod disposition;
pub mod sign;
