//! The one retry policy: what may be repeated, how long to pause, and how much time all repeats of a delivery may take.
//!
//! Every call made through it may be sent twice: reads, signatures, tokens, writes under a generation precondition, and
//! publishing, where a duplicate is allowed. There is no way to upload without a precondition, and none should be added.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::flight::locked;
use super::{Error, Kind};

/// The most that retries may add to one delivery; Pub/Sub's own redelivery does the rest.
pub const PER_DELIVERY: Duration = Duration::from_secs(20);

/// The pause before the second attempt is drawn from zero to this, and doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The time that is left for retries: pauses, and every attempt but a call's first. Clones share it, so one budget
/// given to all clients of a delivery bounds the delivery.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Mutex<Duration>>);

impl Budget {
    /// A budget of this much.
    pub fn new(total: Duration) -> Self {
        Self(Arc::new(Mutex::new(total)))
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        *locked(&self.0)
    }

    pub(crate) fn spend(&self, time: Duration) {
        let mut left = locked(&self.0);
        *left = left.saturating_sub(time);
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(PER_DELIVERY)
    }
}

/// Runs `attempt` until it succeeds, fails for good, or the budget is spent; the error is then the last one.
///
/// The bound is a plain future and not an async closure: the compiler cannot yet prove that those are `Send`.
pub(crate) async fn run<T, F>(budget: &Budget, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut outcome = attempt().await;
    let mut longest = FIRST_PAUSE;
    loop {
        let error = match outcome {
            Err(error) if may_repeat(&error) => error,
            done => return done,
        };
        let pause = jitter(longest).max(error.retry_after.unwrap_or_default());
        longest = (longest * 2).min(LONGEST_PAUSE);
        if pause >= budget.left() {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "trying again");
        let started = Instant::now();
        sleep(pause).await;
        let rest = budget.left().saturating_sub(pause);
        outcome = timeout(rest, attempt()).await.unwrap_or(Err(error));
        budget.spend(started.elapsed());
    }
}

/// Connections that fail, time-outs, transfers that break off, 408, 429, 500, 502, 503, 504.
fn may_repeat(error: &Error) -> bool {
    matches!(error.kind, Kind::Throttled | Kind::Unavailable)
}

/// Full jitter: anything from nothing to `longest`. Without it, all that failed together come back together.
fn jitter(longest: Duration) -> Duration {
    let mut random = [0; 4];
    match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => longest.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)),
        Err(_) => longest,
    }
}
