//! From output files to a signed link on a topic.

pub mod disposition;
mod link_cache;
mod links;
mod publish;
mod result;
pub mod sign;
mod signer;
mod store;

pub use links::Links;
pub use publish::{Results, publish};
pub use result::{End, OutputResult, Report, ResultMessage, SourceResult, Status, Timings, Worker, milliseconds};
pub use signer::{Discovered, NoSigner};
pub use store::{Found, Place, Stored, Target, find, judge, store};
