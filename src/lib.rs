//! Platen turns "a document landed in a bucket" into "a signed PDF link is on a topic".
//!
//! Read the modules in this order; it is the order of the flow. ARCHITECTURE.md has the picture, the layers and what
//! must always hold; `tests/it/architecture.rs` keeps the arrows.
//!
//! ```text
//! main -> engine (the zygote's branch, before any thread)
//! main -> cli -> { serve, local_cloud }
//!                  serve -> pipeline -> { accept, convert, deliver } -> { google, engine } -> sandbox
//! ```

pub mod accept;
pub mod cli;
pub mod config;
pub mod convert;
pub mod deliver;
pub mod engine;
pub mod error;
mod failpoint;
pub mod google;
pub mod job;
#[cfg(feature = "local-cloud")]
pub mod local_cloud;
pub mod metrics;
pub mod pipeline;
pub mod sandbox;
pub mod secrets;
pub mod serve;
pub mod telemetry;
pub mod trace;
pub mod units;
