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
mod credentials;
mod decoding;
mod emulator;
mod engine;
mod engine_limits;
mod faults;
mod fonts;
mod formats;
mod front_door;
mod google;
mod hostile;
mod http;
mod identity;
mod inspect;
mod key_set;
mod keys;
mod links;
mod local_cloud;
mod options;
mod outputs;
mod passwords;
mod path;
mod sandbox;
mod schema;
mod secrets;
mod setup;
mod sign;
mod sign_command;
mod soak;
mod stock;
mod submit;
mod verified_tokens;
mod waiting;
mod warnings;
mod wycheproof;
