//! The public keys that verify Google's ID tokens (a JSON Web Key Set, RFC 7517), cached as the server allows.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::flight::{Flight, locked};
use super::http::{self, Http};
use super::{Error, Kind};

/// Google's own key set.
pub const URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

const OPERATION: &str = "fetch the token keys";
/// Google's two or three keys are about 1.5 KB.
const BODY_LIMIT: usize = 64 * 1024;
/// For one fetch, to the last byte.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// Without any keys: how often the task asks, and the least time between two tries on demand.
const EAGER: Duration = Duration::from_secs(4);
const EAGER_ON_DEMAND: Duration = Duration::from_secs(1);
/// With keys past their time whose renewal failed.
const AGAIN: Duration = Duration::from_secs(30);
/// Token after token with a made-up key id must not become fetch after fetch.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(60);
/// How long keys are good when the server does not say it, and the bounds of what it may say.
const DEFAULT_AGE: Duration = Duration::from_secs(3600);
const LEAST_AGE: Duration = Duration::from_secs(5);
const MOST_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long keys are used beyond their time while no new ones can be had.
const STALE_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Smaller moduli can be factored; larger ones aws-lc does not verify with.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why there is no key.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The set is there and has no such key: the token proves nothing.
    #[error("no key has that id")]
    Unknown,
    /// The set cannot be had now: nothing can be said about the token.
    #[error("the keys are not available: {0}")]
    Unavailable(Error),
}

/// The cached set. Clones share it.
#[derive(Clone)]
pub struct KeySet(Arc<Inner>);

struct Inner {
    http: Http,
    url: String,
    state: Mutex<State>,
    flight: Flight<Result<(), Error>>,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, DecodingKey>,
    fresh_until: Option<Instant>,
    /// When the last fetch ended, and how, if badly.
    asked: Option<Instant>,
    failed: Option<Error>,
    asked_for_unknown: Option<Instant>,
}

impl State {
    /// Keys that may be used, fresh or stale.
    fn usable(&self, now: Instant) -> bool {
        !self.keys.is_empty() && self.fresh_until.is_some_and(|until| now < until + STALE_LIMIT)
    }

    fn is_fresh(&self, now: Instant) -> bool {
        !self.keys.is_empty() && self.fresh_until.is_some_and(|until| now < until)
    }

    /// Whether to ask, seen from a request that wants this key.
    fn has_to_ask(&self, kid: &str, now: Instant) -> bool {
        let since = |time: Option<Instant>| time.map_or(Duration::MAX, |time| now.saturating_duration_since(time));
        match () {
            () if !self.usable(now) => since(self.asked) >= EAGER_ON_DEMAND,
            () if !self.is_fresh(now) && since(self.asked) >= AGAIN => true,
            () => !self.keys.contains_key(kid) && since(self.asked_for_unknown) >= UNKNOWN_KEY_PAUSE,
        }
    }
}

impl KeySet {
    /// An empty cache of the set at `url`; nothing is fetched yet.
    pub fn new(http: Http, url: impl Into<String>) -> Self {
        let inner = Inner {
            http,
            url: url.into(),
            state: Mutex::default(),
            flight: Flight::new(),
        };
        Self(Arc::new(inner))
    }

    /// Whether there are keys to verify with.
    pub fn loaded(&self) -> bool {
        locked(&self.0.state).usable(Instant::now())
    }

    /// The key with this id, fetched when that may help: however many ask at once, one fetches.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn key(&self, kid: &str) -> Result<DecodingKey, KeyError> {
        let ask = {
            let now = Instant::now();
            let mut state = locked(&self.0.state);
            let ask = state.has_to_ask(kid, now);
            match state.keys.get(kid) {
                Some(key) if !ask && state.usable(now) => return Ok(key.clone()),
                _ => {}
            }
            // Also while the set is stale: in an outage of the key set, made-up ids must not become a flood of requests.
            if ask && state.usable(now) && !state.keys.contains_key(kid) {
                state.asked_for_unknown = Some(now);
            }
            ask
        };
        // A failure is in the state, where those find it too who may not ask now.
        if ask {
            self.fetch().await.ok();
        } else {
            self.0.flight.join().await;
        }
        let state = locked(&self.0.state);
        match (state.usable(Instant::now()), state.keys.get(kid), &state.failed) {
            (true, Some(key), _) => Ok(key.clone()),
            (_, _, Some(error)) => Err(KeyError::Unavailable(error.clone())),
            (true, None, None) => Err(KeyError::Unknown),
            (false, _, None) => Err(KeyError::Unavailable(
                self.error(Kind::Unavailable, "the keys are too old"),
            )),
        }
    }

    /// Keeps the set fresh for as long as it is polled: asks at once, again when the time of the keys is over, and every
    /// few seconds while there are none.
    pub async fn keep_fresh(&self) {
        loop {
            let began = Instant::now();
            let outcome = self.fetch().await;
            let pause = {
                let now = Instant::now();
                let state = locked(&self.0.state);
                match (&outcome, state.usable(now)) {
                    (Ok(()), _) => state
                        .fresh_until
                        .map_or(EAGER, |until| until.saturating_duration_since(now)),
                    (Err(_), true) => AGAIN,
                    (Err(_), false) => EAGER,
                }
            };
            if let Err(error) = &outcome {
                tracing::warn!(%error, retry_in = ?pause, "the token keys could not be fetched");
            }
            // Counted from when the question was put: one that is never answered must not stretch the interval.
            match outcome {
                Ok(()) => sleep(pause).await,
                Err(_) => tokio::time::sleep_until(began + pause).await,
            }
        }
    }

    async fn fetch(&self) -> Result<(), Error> {
        self.0
            .flight
            .run(async {
                let outcome = match timeout(FETCH_TIME, self.request()).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(self.error(Kind::Unavailable, "no complete answer in 5 s")),
                };
                let now = Instant::now();
                let mut state = locked(&self.0.state);
                state.asked = Some(now);
                match outcome {
                    Ok((keys, age)) => {
                        *state = State {
                            keys,
                            fresh_until: Some(now + age),
                            failed: None,
                            ..std::mem::take(&mut *state)
                        };
                        Ok(())
                    }
                    Err(error) => {
                        state.failed = Some(error.clone());
                        Err(error)
                    }
                }
            })
            .await
    }

    async fn request(&self) -> Result<(HashMap<String, DecodingKey>, Duration), Error> {
        let response = http::send(OPERATION, &self.0.url, self.0.http.request(Method::GET, &self.0.url)).await?;
        if response.status() != StatusCode::OK {
            return Err(self.error(Kind::Unavailable, "the answer is not 200"));
        }
        let age = time_to_live(response.headers());
        let body = http::body(OPERATION, &self.0.url, response, BODY_LIMIT).await?;
        let keys = parse(&body).map_err(|why| self.error(Kind::Invalid, why))?;
        Ok((keys, age))
    }

    fn error(&self, kind: Kind, message: &str) -> Error {
        Error::new(kind, OPERATION, self.0.url.clone(), message)
    }
}

/// `max-age` minus `Age` (RFC 9111 section 4.2), within bounds.
fn time_to_live(headers: &HeaderMap) -> Duration {
    let directive = |value: &str| {
        value
            .split(',')
            .find_map(|part| part.trim().strip_prefix("max-age=")?.parse::<u64>().ok())
    };
    let max_age = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(directive);
    let age = headers
        .get(AGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse::<u64>().ok());
    max_age
        .map_or(DEFAULT_AGE, |max_age| {
            Duration::from_secs(max_age.saturating_sub(age.unwrap_or(0)))
        })
        .clamp(LEAST_AGE, MOST_AGE)
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
    kty: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Takes the keys that are RSA keys for RS256 signatures and leaves the others out. Two keys of one id make the whole
/// set worthless: it would depend on their order which one counts.
fn parse(body: &[u8]) -> Result<HashMap<String, DecodingKey>, &'static str> {
    let set: Set = serde_json::from_slice(body).map_err(|_| "the answer is not a JSON Web Key Set")?;
    let mut ids = HashSet::new();
    if !set
        .keys
        .iter()
        .filter_map(|key| key.kid.as_deref())
        .all(|kid| ids.insert(kid))
    {
        return Err("two keys have the same id");
    }
    let keys: HashMap<_, _> = set
        .keys
        .iter()
        .filter_map(|key| Some((key.kid.clone()?, usable(key)?)))
        .collect();
    if keys.is_empty() {
        return Err("none of the keys is an RSA key for RS256 signatures");
    }
    Ok(keys)
}

fn usable(key: &Key) -> Option<DecodingKey> {
    let is = |field: &Option<String>, wanted: &str| field.as_deref().is_none_or(|value| value == wanted);
    if key.kty.as_deref() != Some("RSA") || !is(&key.alg, "RS256") || !is(&key.purpose, "sig") {
        return None;
    }
    let (n, e) = (key.n.as_deref()?, key.e.as_deref()?);
    let modulus = URL_SAFE_NO_PAD.decode(n).ok()?;
    let leading = modulus.iter().position(|byte| *byte != 0)?;
    let bits = (modulus.len() - leading) * 8 - modulus[leading].leading_zeros() as usize;
    // 65537, the only exponent in use: with 1 every message would be its own signature.
    if !MODULUS_BITS.contains(&bits) || e != "AQAB" {
        return None;
    }
    DecodingKey::from_rsa_components(n, e).ok()
}
