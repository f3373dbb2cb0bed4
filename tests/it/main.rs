//! One binary of tests through the front door.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing on anything else"
)]
#![allow(missing_docs, reason = "tests are read, not linked against")]

mod engine;
mod engine_limits;
mod sandbox;
