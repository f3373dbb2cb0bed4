//! One binary of tests through the front door.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod inspect;
mod keys;
mod peer;
mod sandbox;
mod sign;
