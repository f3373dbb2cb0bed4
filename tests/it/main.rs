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

mod architecture;
mod cli;
mod clients;
mod emulator;
mod engine;
mod engine_limits;
mod faults;
mod fonts;
mod formats;
mod google;
mod hostile;
mod http;
mod identity;
mod inspect;
mod keys;
mod local_cloud;
mod options;
mod outputs;
mod path;
mod sandbox;
mod setup;
mod sign;
mod soak;
mod stock;
mod warnings;
