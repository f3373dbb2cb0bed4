//! From an HTTP request to a job: envelope, token, event, plan. Pure, except for the keys that verify a token.

pub mod verify;
