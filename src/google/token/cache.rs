//! One token for all callers: asked for once, renewed early by one task while the others go on with the old one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Issued;
use crate::google::Error;
use crate::google::flight::{Flight, locked};
use crate::google::secret::Secret;

/// Renewal begins this long before the end. The metadata server gives out the same token until about four minutes
/// before its end (google-auth's REFRESH_THRESHOLD is 225 s), so asking earlier brings nothing new.
const RENEW_BEFORE: Duration = Duration::from_secs(225);
/// A token is not handed out in its last seconds: it has to live through the call.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest that a token of Google's can live
/// (cloud.google.com/iam/docs/create-short-lived-credentials-direct). An answer that says more is taken at this: its
/// number may be larger than what a clock can add.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// After a renewal that failed, the next one is tried after this.
const RENEW_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Cache {
    state: Mutex<State>,
    flight: Flight<Result<Secret, Error>>,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
}

struct Current {
    token: Secret,
    usable_until: Instant,
    renew_at: Instant,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            flight: Flight::new(),
        }
    }

    /// The token that is there, or the one that `issue` brings. `renewal` is spawned when the time has come, by the
    /// first who sees it.
    pub(super) async fn get<F: Future<Output = Result<Issued, Error>>>(
        &self,
        issue: impl FnOnce() -> F,
        renewal: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Secret, Error> {
        if let Some((token, due)) = self.usable() {
            if due {
                tokio::spawn(renewal);
            }
            return Ok(token);
        }
        self.flight
            .run(async {
                match self.usable() {
                    Some((token, _)) => Ok(token),
                    None => issue().await.map(|issued| self.keep(issued)),
                }
            })
            .await
    }

    /// A failure changes nothing: the old token is good until its end, and the next renewal is already due.
    pub(super) async fn renew(&self, issue: impl Future<Output = Result<Issued, Error>>) {
        match issue.await {
            Ok(issued) => {
                self.keep(issued);
            }
            Err(error) => {
                tracing::warn!(%error, "the access token could not be renewed yet; the old one is still good");
            }
        }
    }

    /// Drops the token if it is this one.
    pub(super) fn reject(&self, token: &Secret) {
        let mut state = locked(&self.state);
        if state.current.as_ref().is_some_and(|current| current.token == *token) {
            state.current = None;
        }
    }

    /// The current token, and whether whoever asks now has to renew it.
    fn usable(&self) -> Option<(Secret, bool)> {
        let now = Instant::now();
        let mut state = locked(&self.state);
        let current = state.current.as_mut().filter(|current| now < current.usable_until)?;
        let due = now >= current.renew_at;
        if due {
            current.renew_at = now + RENEW_PAUSE;
        }
        Some((current.token.clone(), due))
    }

    fn keep(&self, issued: Issued) -> Secret {
        let now = Instant::now();
        let token = issued.token.clone();
        let lifetime = issued.lifetime.min(LONGEST);
        locked(&self.state).current = Some(Current {
            token: issued.token,
            usable_until: now + lifetime.saturating_sub(MARGIN.min(lifetime / 10)),
            renew_at: now + lifetime.saturating_sub(RENEW_BEFORE).max(lifetime / 2),
        });
        token
    }
}
