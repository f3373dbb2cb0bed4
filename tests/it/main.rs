//! One binary of tests through the front door.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

mod local_cloud;
