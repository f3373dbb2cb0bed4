//! The public keys that verify Google's ID tokens (a JSON Web Key Set, RFC 7517), cached as the server allows.

mod jwk;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};
use reqwest::{Method, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::flight::{Flight, locked};
use super::http::{self, Http};
use super::{Error, Kind};
use crate::metrics;

pub use jwk::PublicKey;

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
/// For how long a failure to renew says that the next try will fail too, so that nobody needs to wait for it.
const OUTAGE_KNOWN: Duration = Duration::from_secs(300);
/// Token after token with a made-up key id must not become fetch after fetch.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(60);
/// How long keys are good when the server does not say it, and the bounds of what it may say.
const DEFAULT_AGE: Duration = Duration::from_secs(3600);
const LEAST_AGE: Duration = Duration::from_secs(5);
const MOST_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long keys are used beyond their time while no new ones can be had.
const STALE_LIMIT: Duration = Duration::from_secs(24 * 3600);

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
    keys: HashMap<String, PublicKey>,
    fresh_until: Option<Instant>,
    /// When the last fetch ended, or was put beside a request, and how the last one ended, if badly.
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

    /// What a request that wants this key does first.
    fn next_step(&self, kid: &str, now: Instant) -> Step {
        let since = |time: Option<Instant>| time.map_or(Duration::MAX, |time| now.saturating_duration_since(time));
        if !self.usable(now) {
            return if since(self.asked) >= EAGER_ON_DEMAND {
                Step::Ask
            } else {
                Step::Join
            };
        }
        let ask_again = !self.is_fresh(now) && (self.failed.is_none() || since(self.asked) >= AGAIN);
        // Known since the keys went stale, and not long ago: a worker without a processor between two requests has
        // asked nobody for hours, and one of these keys may be gone.
        let failing = self.failed.is_some() && self.asked > self.fresh_until && since(self.asked) < OUTAGE_KNOWN;
        match self.keys.get(kid) {
            // While asking is known to fail, nobody with a good token waits for the next try.
            Some(key) if ask_again && failing => Step::UseAndAsk(key.clone()),
            Some(_) if ask_again => Step::Ask,
            Some(key) => Step::Use(key.clone()),
            None if ask_again || since(self.asked_for_unknown) >= UNKNOWN_KEY_PAUSE => Step::Ask,
            None => Step::Join,
        }
    }
}

enum Step {
    /// The key is there.
    Use(PublicKey),
    /// The key is there and past its time; the last question failed, so the next one is put beside this request.
    UseAndAsk(PublicKey),
    /// Nothing to say before the set has been asked for.
    Ask,
    /// Asking is not allowed now; somebody else's answer may be under way.
    Join,
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
    pub async fn key(&self, kid: &str) -> Result<PublicKey, KeyError> {
        let step = {
            let now = Instant::now();
            let mut state = locked(&self.0.state);
            let step = state.next_step(kid, now);
            // Also while the set is stale: in an outage of the key set, made-up ids must not become a flood of requests.
            if matches!(step, Step::Ask) && state.usable(now) && !state.keys.contains_key(kid) {
                state.asked_for_unknown = Some(now);
            }
            if matches!(step, Step::UseAndAsk(_)) {
                // As good as put: one at a time.
                state.asked = Some(now);
            }
            step
        };
        // A failure is in the state, where those find it too who may not ask now.
        match step {
            Step::Use(key) => return Ok(key),
            Step::UseAndAsk(key) => {
                self.ask();
                return Ok(key);
            }
            Step::Ask => {
                // Its failure is in the state too; a runtime that ends answers nobody.
                self.ask().await.ok();
            }
            Step::Join => self.0.flight.join().await,
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

    /// Fetches beside the request that saw the need. A client that hangs up takes its request with it, but not the
    /// question: that one counts against all who come after, so it is put to its end.
    fn ask(&self) -> JoinHandle<()> {
        let set = self.clone();
        tokio::spawn(async move {
            set.fetch().await.ok();
        })
    }

    async fn fetch(&self) -> Result<(), Error> {
        self.0
            .flight
            .run(async {
                let outcome = match timeout(FETCH_TIME, self.request()).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(self.error(Kind::Unavailable, "no complete answer in 5 s")),
                };
                metrics::keys_fetched(outcome.is_ok());
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

    async fn request(&self) -> Result<(HashMap<String, PublicKey>, Duration), Error> {
        let response = http::send(OPERATION, &self.0.url, self.0.http.request(Method::GET, &self.0.url)).await?;
        if response.status() != StatusCode::OK {
            return Err(self.error(Kind::Unavailable, "the answer is not 200"));
        }
        let age = time_to_live(response.headers());
        let body = http::body(OPERATION, &self.0.url, response, BODY_LIMIT).await?;
        let keys = jwk::parse(&body).map_err(|why| self.error(Kind::Invalid, why))?;
        Ok((keys, age))
    }

    fn error(&self, kind: Kind, message: &str) -> Error {
        Error::new(kind, OPERATION, self.0.url.clone(), message)
    }
}

/// `max-age` minus `Age` (RFC 9111 section 4.2), within bounds. An answer that may not be stored or has to be asked for
/// every time is kept as shortly as any; where a directive comes twice, the first counts.
fn time_to_live(headers: &HeaderMap) -> Duration {
    let directives: Vec<String> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives
        .iter()
        .any(|directive| directive == "no-store" || directive == "no-cache")
    {
        return LEAST_AGE;
    }
    let max_age = directives
        .iter()
        .find_map(|directive| directive.strip_prefix("max-age="))
        .and_then(|value| seconds(value.trim_matches('"')));
    let age = headers.get(AGE).and_then(|value| seconds(value.to_str().ok()?.trim()));
    max_age
        .map_or(DEFAULT_AGE, |max_age| max_age.saturating_sub(age.unwrap_or_default()))
        .clamp(LEAST_AGE, MOST_AGE)
}

/// Delta-seconds; more than can be counted is as long as can be (RFC 9111 section 1.2.2).
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}
