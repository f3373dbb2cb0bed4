//! Identity providers of others, and the pools that trust them.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{
    identity::{RsaKey, verified},
    server::lock,
};

/// How long a provider's tokens live.
const LIFETIME: TimeDelta = TimeDelta::hours(1);

/// The providers' keys, by the audience that federates them.
#[derive(Default)]
pub(super) struct Providers(Mutex<HashMap<String, Arc<RsaKey>>>);

impl Providers {
    /// Makes a pool trust an identity provider, whose key is made here.
    pub(super) fn add(&self, audience: &str) -> io::Result<()> {
        let key = Arc::new(RsaKey::generate()?);
        lock(&self.0).insert(audience.to_owned(), key);
        Ok(())
    }

    /// What the provider gives one of its own; empty where there is no such provider.
    pub(super) fn token(&self, now: DateTime<Utc>, audience: &str, subject: &str) -> String {
        let claims = json!({
            "iss": "https://issuer.example", "sub": subject, "aud": format!("https:{audience}"),
            "iat": now.timestamp(), "exp": (now + LIFETIME).timestamp(),
        });
        let key = lock(&self.0).get(audience).cloned();
        key.map(|key| key.jwt(&claims)).unwrap_or_default()
    }

    /// The principal that a provider's token proves, or OAuth's error and a sentence.
    pub(super) fn principal(
        &self,
        now: DateTime<Utc>,
        audience: &str,
        token: &str,
    ) -> Result<String, (&'static str, &'static str)> {
        let Some(key) = lock(&self.0).get(audience).cloned() else {
            return Err((
                "invalid_target",
                "The target service indicated by the \"audience\" parameters is invalid.",
            ));
        };
        let Some(claims) = verified(token, std::slice::from_ref(&key)) else {
            return Err((
                "invalid_grant",
                "Unable to verify the signature of the given JWT using keys.",
            ));
        };
        if claims["aud"] != format!("https:{audience}") {
            return Err((
                "invalid_grant",
                "The audience in ID Token does not match the expected audience.",
            ));
        }
        if claims["exp"].as_i64().is_none_or(|exp| exp <= now.timestamp()) {
            return Err(("invalid_grant", "ID Token issued is stale to sign-in."));
        }
        let pool = audience.split("/providers/").next().unwrap_or_default();
        let subject = claims["sub"].as_str().unwrap_or_default();
        Ok(format!("principal:{pool}/subject/{subject}"))
    }
}
