//! One binary of tests through the front door.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

mod clients;
mod google;
mod identity;
mod keys;
mod local_cloud;
mod peer;
mod sign;
