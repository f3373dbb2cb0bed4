//! Tokens that have been verified: Pub/Sub sends the same one for up to an hour.
//!
//! What is remembered is that this key made this signature and that these claims were good for us. What can change
//! since then is checked at each look-up: the time, and that the key is still one of the issuer's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::verify::Caller;
use crate::google::keys::PublicKey;

/// One push subscription uses one token at a time, and only good tokens of accepted callers are kept.
const CAPACITY: usize = 1024;
/// How far clocks may differ, in seconds.
const SKEW: i64 = 10;

/// When a token is good, in seconds since 1970.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Times {
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
}

impl Times {
    pub(super) fn check(&self, now: i64) -> Result<(), &'static str> {
        if self.is_over(now) {
            return Err("the token has expired");
        }
        if self.iat > now + SKEW || self.nbf.is_some_and(|nbf| nbf > now + SKEW) {
            return Err("the token is from the future");
        }
        if self.iat < 0 || self.exp <= self.iat {
            return Err("the token's times contradict each other");
        }
        Ok(())
    }

    fn is_over(&self, now: i64) -> bool {
        self.exp.saturating_add(SKEW) <= now
    }
}

/// What is known about a verified token. Not the token: it is a secret that need not be kept.
pub(super) struct Known {
    pub(super) key_id: String,
    pub(super) key: PublicKey,
    pub(super) times: Times,
    pub(super) caller: Caller,
}

/// The SHA-256 of a token's text.
pub(super) type TokenDigest = [u8; 32];

/// The cache.
pub(super) struct Verified(Mutex<HashMap<TokenDigest, Arc<Known>>>);

impl Verified {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn digest(token: &str) -> TokenDigest {
        Sha256::digest(token.as_bytes()).into()
    }

    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Arc<Known>> {
        self.locked().get(digest).cloned()
    }

    /// Remembers a token. A full cache first forgets what has expired, then what expires first.
    pub(super) fn insert(&self, digest: TokenDigest, known: Known, now: i64) {
        let mut tokens = self.locked();
        if tokens.len() >= CAPACITY && !tokens.contains_key(&digest) {
            tokens.retain(|_, known| !known.times.is_over(now));
            let first = tokens.iter().min_by_key(|(_, known)| known.times.exp);
            if let (Some(first), true) = (first.map(|(digest, _)| *digest), tokens.len() >= CAPACITY) {
                tokens.remove(&first);
            }
        }
        tokens.insert(digest, Arc::new(known));
    }

    pub(super) fn len(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<TokenDigest, Arc<Known>>> {
        // Nothing that holds the lock panics half-way: the map is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
