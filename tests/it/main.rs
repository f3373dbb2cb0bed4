//! One binary of tests through the front door: real sockets, real processes, real LibreOffice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

mod breaking_bucket;
mod browser;
mod harness;
mod peer;

mod admission;
mod architecture;
mod asyncapi;
mod backfill;
mod calls;
mod cli;
mod clients;
mod connections;
mod cost_model;
mod crash;
mod credentials;
mod deadlines;
mod decoding;
mod deploy;
mod doctor;
mod documentation;
mod emulator;
mod engine;
mod engine_limits;
mod exhausted;
mod faults;
mod flight;
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
mod local_command;
mod local_data;
mod local_page;
mod logs;
mod meanwhile;
mod metrics;
mod monitoring;
mod official;
mod options;
mod outputs;
mod page_holds;
mod pages;
mod passwords;
mod path;
mod poison;
mod redrive;
mod retries;
mod rights;
mod sandbox;
mod schema;
mod secrets;
mod setup;
mod shutdown;
mod sign;
mod sign_command;
mod soak;
mod states;
mod stock;
mod storage_contract;
mod storage_testbench;
mod storm;
mod submit;
mod testbench;
mod troubleshooting;
mod uploads_resumed;
mod verified_tokens;
mod waiting;
mod warnings;
mod worker_soak;
mod wycheproof;
