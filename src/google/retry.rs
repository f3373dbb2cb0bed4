//! The one retry policy: which call may be repeated after which failure, how long to pause, and how much time all
//! repeats of a delivery may take.
//!
//! Two questions decide. *Is it idempotent?* Every call names its [`Idempotency`]; there is no call without one. *Was
//! it sent?* An [`Error`] whose `not_sent` is true never reached the server (no name, no connection, no TLS), and then
//! anything may be repeated. Pauses are exponential with full jitter, on top of whatever `Retry-After` asks for, and a
//! pause that is longer than what is left is not begun: the error goes to the caller at once, with that wait in it.
//!
//! There is no write without a precondition, and none should be added.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::flight::locked;
use super::{Error, Kind};
use crate::metrics;

/// The most that retries may add to one delivery; Pub/Sub's own redelivery does the rest.
pub const PER_DELIVERY: Duration = Duration::from_secs(20);

/// The pause before the second attempt is drawn from zero to this, and doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whether doing a call twice does more than doing it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotency {
    /// It leaves nothing behind: reads, signatures, ciphertexts, tokens, leases that end by themselves.
    Always,
    /// It writes under a generation precondition: the second of two is refused with 412, and the caller looks at what
    /// is there.
    ByPrecondition,
    /// It leaves two, and those who read them drop one: publishing, as Google's own clients do it.
    DuplicatesAllowed,
    /// It goes on where an earlier attempt stopped, which only the server knows: the bytes of a resumable upload.
    Not,
}

impl Idempotency {
    /// Whether a call of this kind may be made again, as it was, after this failure.
    pub(crate) fn allows(self, error: &Error) -> bool {
        is_passing(error) && (error.not_sent || self != Self::Not)
    }
}

/// Connections that fail, time-outs, transfers that break off, 408, 429, 5xx but 501 and 505.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind, Kind::Throttled | Kind::Unavailable)
}

/// The time that is left for retries: pauses, and every attempt but a call's first. Clones share it, so one budget
/// given to all clients of a delivery bounds the delivery.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<Mutex<Duration>>,
    deadline: Option<Instant>,
}

impl Budget {
    /// A budget of this much.
    pub fn new(total: Duration) -> Self {
        Self {
            left: Arc::new(Mutex::new(total)),
            deadline: None,
        }
    }

    /// The same budget, of which nothing is left at `deadline`.
    #[must_use]
    pub fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What is left now.
    pub fn left(&self) -> Duration {
        let left = *locked(&self.left);
        match self.deadline {
            Some(deadline) => left.min(deadline.saturating_duration_since(Instant::now())),
            None => left,
        }
    }

    pub(crate) fn spend(&self, time: Duration) {
        let mut left = locked(&self.left);
        *left = left.saturating_sub(time);
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(PER_DELIVERY)
    }
}

/// The pauses of one call, or of one transfer with its continuations.
#[derive(Debug)]
pub(crate) struct Retries {
    budget: Budget,
    longest: Duration,
}

impl Retries {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self {
            budget: budget.clone(),
            longest: FIRST_PAUSE,
        }
    }

    /// Something has been reached: the next pause is a first one again.
    pub(crate) fn progressed(&mut self) {
        self.longest = FIRST_PAUSE;
    }

    /// Sleeps before the next attempt. The error comes back when there is no time for one.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        let pause = jitter(self.longest) + error.retry_after.unwrap_or_default();
        if pause >= self.budget.left() {
            return Err(error);
        }
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        tracing::debug!(%error, ?pause, "trying again");
        sleep(pause).await;
        self.budget.spend(pause);
        metrics::retried(error.operation, error.status);
        Ok(())
    }

    /// Runs `attempt` after it, or something before it, has failed with `error`, until it succeeds, fails for good, or
    /// the budget is spent; the error is then the last one.
    pub(crate) async fn again<T, F>(
        &mut self,
        mut error: Error,
        idempotency: Idempotency,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        while idempotency.allows(&error) {
            self.pause(error.clone()).await?;
            let started = Instant::now();
            let outcome = timeout(self.budget.left(), attempt()).await;
            self.budget.spend(started.elapsed());
            error = match outcome {
                Ok(Err(error)) => error,
                Ok(done) => return done,
                // Cut off half-way: whether it was sent, nobody knows.
                Err(_) => Error {
                    not_sent: false,
                    ..error
                },
            };
        }
        Err(error)
    }
}

/// Runs `attempt`, and repeats it as its idempotency and the budget allow.
///
/// The bound is a plain future and not an async closure: the compiler cannot yet prove that those are `Send`.
pub(crate) async fn run<T, F>(
    budget: &Budget,
    idempotency: Idempotency,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    match attempt().await {
        Err(error) => Retries::new(budget).again(error, idempotency, attempt).await,
        done => done,
    }
}

/// Full jitter: anything from nothing to `longest`. Without it, all that failed together come back together.
fn jitter(longest: Duration) -> Duration {
    let mut random = [0; 4];
    match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => longest.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)),
        Err(_) => longest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Idempotency; 4] = [
        Idempotency::Always,
        Idempotency::ByPrecondition,
        Idempotency::DuplicatesAllowed,
        Idempotency::Not,
    ];

    fn error(kind: Kind, not_sent: bool) -> Error {
        Error {
            not_sent,
            ..Error::new(kind, "storage.objects.get", "gs://b/o", "no")
        }
    }

    #[test]
    fn what_is_not_idempotent_is_repeated_only_if_it_was_not_sent() {
        for kind in [Kind::Unavailable, Kind::Throttled] {
            for idempotency in ALL {
                let sent = idempotency.allows(&error(kind, false));
                assert_eq!(sent, idempotency != Idempotency::Not, "{idempotency:?}");
                assert!(idempotency.allows(&error(kind, true)), "{idempotency:?}");
            }
        }
        for kind in [
            Kind::NotFound,
            Kind::Forbidden,
            Kind::Unauthenticated,
            Kind::PreconditionFailed,
            Kind::Invalid,
            Kind::Corrupt,
            Kind::TooLarge,
        ] {
            for not_sent in [false, true] {
                assert!(!ALL.iter().any(|idempotency| idempotency.allows(&error(kind, not_sent))));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_and_pauses_take_no_longer_than_the_budget() {
        let started = Instant::now();
        let mut attempts = 0;
        let outcome: Result<(), _> = run(&Budget::default(), Idempotency::Always, || {
            attempts += 1;
            async {
                sleep(Duration::from_secs(1)).await;
                Err(error(Kind::Unavailable, false))
            }
        })
        .await;
        assert_eq!(outcome.unwrap_err().kind, Kind::Unavailable);
        // The first attempt is not a repeat.
        assert!(started.elapsed() <= PER_DELIVERY + Duration::from_millis(1010));
        assert!(attempts > 4, "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_that_hangs_ends_with_the_budget_and_is_not_taken_for_unsent() {
        let started = Instant::now();
        let mut attempts = 0;
        let outcome: Result<(), _> = run(&Budget::default(), Idempotency::Not, || {
            attempts += 1;
            let hangs = attempts > 1;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Err(error(Kind::Unavailable, true))
            }
        })
        .await;
        assert!(!outcome.unwrap_err().not_sent);
        assert!(started.elapsed() <= PER_DELIVERY + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_asked_for_is_kept_or_handed_on_at_once() {
        let asked = Error {
            retry_after: Some(Duration::from_secs(7)),
            ..error(Kind::Throttled, false)
        };
        let started = Instant::now();
        let budget = Budget::default();
        let mut retries = Retries::new(&budget);
        retries.pause(asked.clone()).await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(7));
        assert!(budget.left() <= PER_DELIVERY - Duration::from_secs(7));

        let late = Budget::default().until(Instant::now() + Duration::from_secs(6));
        let started = Instant::now();
        let error = Retries::new(&late).pause(asked).await.unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_until_something_is_reached() {
        let budget = Budget::new(Duration::from_secs(3600));
        let mut retries = Retries::new(&budget);
        for _ in 0..10 {
            retries.pause(error(Kind::Unavailable, false)).await.unwrap();
        }
        assert_eq!(retries.longest, LONGEST_PAUSE);
        retries.progressed();
        assert_eq!(retries.longest, FIRST_PAUSE);
    }
}
