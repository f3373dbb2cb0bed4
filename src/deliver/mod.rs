//! From output files to a signed link on a topic.

pub mod sign;
