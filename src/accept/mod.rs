//! From an HTTP request to a job: envelope, token, event, plan. Pure, except for the keys that verify a token.

mod decode;
mod plan;
mod push;
mod verified;
pub mod verify;

pub use crate::trace::Trace;
pub(crate) use decode::JOB_METADATA;
pub use decode::{Event, Glimpse, decode, glimpse};
pub use plan::{Ignored, Plan, Rules, plan};
pub use push::{Message, Payload, push};
