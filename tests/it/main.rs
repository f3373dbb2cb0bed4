//! One binary of tests through the front door: real sockets, real processes, real LibreOffice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod harness;
mod peer;

mod path;
mod faults;
mod identity;
mod inspect;
mod engine;
mod engine_limits;
mod sandbox;
mod google;
mod keys;
mod sign;
