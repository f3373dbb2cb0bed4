//! How to talk to Google's APIs over HTTP. Knows no business words, and no other module of ours.
//!
//! One file an API ([`storage`], [`iam`], [`pubsub`], [`subscription`], [`kms`], [`keys`], [`cloud_run`]), and
//! [`inspect`] looks at settings, [`grant`] says what gives a right; what they share is below them: [`http`] (the client, status to kind), [`retry`] (one policy), [`token`] (credentials) and [`signing`]. Every base URL is given by the
//! caller, so a private endpoint, an emulator and Google differ in nothing else.

mod api;
pub mod cloud_run;
pub mod encode;
mod error;
pub(crate) mod flight;
pub mod grant;
pub mod http;
pub mod iam;
pub mod inspect;
pub mod keys;
pub mod kms;
pub mod pubsub;
pub mod retry;
pub mod secret;
pub mod signing;
pub mod storage;
pub mod subscription;
pub mod token;

pub use error::{Error, Kind};
