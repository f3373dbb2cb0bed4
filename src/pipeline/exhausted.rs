//! The last delivery: what Pub/Sub gives up on has a result as well, published before the message goes to the dead
//! letter.
//!
//! The refusal is answered all the same: acknowledged, the message would not reach the dead-letter topic, and could not
//! be published again from there once its cause is gone.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::json;

use super::Context;
use crate::accept::Message;
use crate::deliver::{self, End, Report};
use crate::error::{Failure, FailureCode, PANICKED, Refusal, RefusalKind};
use crate::google::flight::{Flight, locked};
use crate::google::grant::{Grant, member_of};
use crate::google::http::Http;
use crate::google::retry::Budget;
use crate::google::subscription::Subscription;
use crate::google::token::Tokens;
use crate::metrics;

/// The fewest deliveries that a dead-letter policy can have, and how many it has if it does not say.
/// Source: cloud.google.com/pubsub/docs/handling-failures#set_the_maximum_number_of_delivery_attempts.
const DEFAULT_MAXIMUM: u32 = 5;
/// How long an answer about a subscription holds.
const HOLDS: Duration = Duration::from_mins(5);
/// How long it holds that there was none.
const NONE_HOLDS: Duration = Duration::from_secs(30);
/// How long the question may take.
const ASK: Duration = Duration::from_secs(5);
/// How long publishing may take, and how much of that is for retries. Both are beside what the delivery itself has spent on
/// retries: nobody delivers the message again, so what is not said now never is.
const PUBLISH: Duration = Duration::from_secs(15);
const PUBLISH_RETRIES: Duration = Duration::from_secs(10);
/// Subscriptions that are remembered; a worker has one or two.
const REMEMBERED: usize = 64;
/// Bytes. A subscription's own name has up to 255, a project's up to 30, before which there may be a domain.
const LONGEST_NAME: usize = 600;

/// How many deliveries a message gets before it goes to the dead letter.
pub struct DeliveryAttempts {
    configured: Option<u32>,
    http: Http,
    base_url: String,
    tokens: Option<Tokens>,
    asked: Mutex<HashMap<String, Arc<Asked>>>,
    warned: AtomicBool,
}

/// One subscription's answer.
struct Asked {
    flight: Flight<Option<u32>>,
    /// The last one, and until when it holds.
    answer: Mutex<Option<(Instant, Option<u32>)>>,
}

impl Asked {
    fn new() -> Self {
        Self {
            flight: Flight::new(),
            answer: Mutex::default(),
        }
    }

    /// Both are options: not asked lately, and without a dead letter.
    #[expect(clippy::option_option, reason = "not known and none are two things")]
    fn fresh(&self) -> Option<Option<u32>> {
        let (until, answer) = (*locked(&self.answer))?;
        (Instant::now() < until).then_some(answer)
    }

    /// What counts now. Where there is no answer, the last one does: a policy seldom changes, and deliveries come to their
    /// last when Google fails, so that a guess would be made just when it does the most harm.
    fn settle(&self, answered: Result<Option<u32>, String>, now: Instant) -> (Option<u32>, Option<String>) {
        let mut last = locked(&self.answer);
        let (answer, holds, guessed) = match (answered, *last) {
            (Ok(answer), _) => (answer, HOLDS, None),
            (Err(_), Some((_, answer))) => (answer, NONE_HOLDS, None),
            (Err(reason), None) => (Some(DEFAULT_MAXIMUM), NONE_HOLDS, Some(reason)),
        };
        *last = Some((now + holds, answer));
        (answer, guessed)
    }
}

impl DeliveryAttempts {
    /// `configured` is `MAX_DELIVERY_ATTEMPTS`. Without it subscriptions are asked, at the Pub/Sub API at `base_url`.
    pub fn new(configured: Option<u32>, http: Http, base_url: &str, tokens: Option<Tokens>) -> Self {
        Self {
            configured,
            http,
            base_url: base_url.to_owned(),
            tokens,
            asked: Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// The most deliveries of a message of this subscription; none when it is delivered for ever.
    async fn maximum(&self, subscription: Option<&str>) -> Option<u32> {
        if self.configured.is_some() {
            return self.configured;
        }
        let Some(name) = subscription.filter(|name| name.len() <= LONGEST_NAME) else {
            self.warn("the message does not name its subscription", None).await;
            return Some(DEFAULT_MAXIMUM);
        };
        let asked = self.of(name);
        if let Some(answer) = asked.fresh() {
            return answer;
        }
        let work = async {
            // Whoever had the turn before may have just asked.
            if let Some(answer) = asked.fresh() {
                return answer;
            }
            let answered = self.ask(name).await;
            let (answer, guessed) = asked.settle(answered, Instant::now());
            if let Some(reason) = guessed {
                self.warn(&reason, Some(name)).await;
            }
            answer
        };
        asked.flight.run(work).await
    }

    fn of(&self, name: &str) -> Arc<Asked> {
        let mut all = locked(&self.asked);
        if all.len() >= REMEMBERED && !all.contains_key(name) {
            all.clear();
        }
        all.entry(name.to_owned())
            .or_insert_with(|| Arc::new(Asked::new()))
            .clone()
    }

    /// # Errors
    /// A sentence: there is no answer.
    async fn ask(&self, name: &str) -> Result<Option<u32>, String> {
        let question = async {
            Subscription::new(self.http.clone(), &self.base_url, self.tokens.clone(), name)?
                .max_delivery_attempts(&Budget::new(ASK))
                .await
        };
        tokio::time::timeout(ASK, question)
            .await
            .map_err(|_| format!("the subscription {name} could not be read within {} s", ASK.as_secs()))?
            .map_err(|error| error.to_string())
    }

    /// Said once: it is about the deployment, and stays so.
    async fn warn(&self, reason: &str, name: Option<&str>) {
        if self.warned.swap(true, Ordering::Relaxed) {
            return;
        }
        let grant = match name {
            Some(name) => {
                let member = member_of(self.tokens.as_ref()).await;
                format!(
                    ", or let the worker read the subscription. {}",
                    Grant::look_at_subscription(name).remedy(&member)
                )
            }
            None => String::new(),
        };
        let reason = reason.trim_end_matches('.');
        tracing::warn!(
            "how often a message is delivered before it goes to the dead letter is not known, and {DEFAULT_MAXIMUM} taken, Google's default: {reason}. Set MAX_DELIVERY_ATTEMPTS to what the subscription has{grant}"
        );
    }
}

/// What `work` ends with; a panic is a bug, and refused like one. Nothing of a request that panicked is used again
/// but what its report had before, so nothing half-done can be seen.
pub(super) async fn or_bug<T>(work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(panicked()))
}

/// What a delivery that panicked is answered with.
pub fn panicked() -> Refusal {
    Refusal::new(RefusalKind::Bug, PANICKED)
}

/// Whether this delivery can be the last one, as far as the message alone tells.
pub(super) fn may_be_last(message: &Message) -> bool {
    message
        .delivery_attempt
        .is_some_and(|attempt| attempt >= DEFAULT_MAXIMUM)
}

/// The cause as a program reads it, for refusals that are about the job and not about the request.
fn cause(kind: RefusalKind) -> Option<&'static str> {
    match kind {
        RefusalKind::NotAnEvent | RefusalKind::Unauthenticated | RefusalKind::WrongCaller => None,
        RefusalKind::Busy => Some("busy"),
        RefusalKind::Unavailable => Some("unavailable"),
        RefusalKind::Bug => Some("bug"),
    }
}

/// Publishes `attempts.exhausted` if this refusal is the last that its message gets, and says so; whether it was.
/// Whether it could or not, the refusal stays what it is.
pub(super) async fn publish_if_last(context: &Context, message: &Message, report: &Report, refusal: &Refusal) -> bool {
    let (Some(attempt), Some(cause), true) = (message.delivery_attempt, cause(refusal.kind), may_be_last(message))
    else {
        return false;
    };
    let Some(maximum) = context.attempts.maximum(message.subscription.as_deref()).await else {
        return false;
    };
    if attempt < maximum {
        return false;
    }
    let result = report.result(
        End::Failed(failure(attempt, maximum, cause, &refusal.message)),
        Some(context.engine.version()),
    );
    let results = context.google.within(&Budget::new(PUBLISH_RETRIES)).results;
    let published = match tokio::time::timeout(PUBLISH, deliver::publish(&results, report, &result)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(unpublished)) => Err(unpublished
            .explained(&context.google.storage.member().await)
            .into_owned()),
        Err(_) => Err(format!("Pub/Sub took over {} s", PUBLISH.as_secs())),
    };
    match published {
        Ok(()) => {
            let code = FailureCode::AttemptsExhausted.as_str();
            metrics::job(result.status.as_str(), Some(code));
            tracing::warn!(
                jobId = report.job_id(),
                messageId = report.message_id(),
                source = report.source_name(),
                code,
                attempt,
                maximum,
                "the job failed: its last delivery is refused: {}",
                refusal.message
            );
        }
        Err(reason) => tracing::error!(
            jobId = report.job_id(),
            messageId = report.message_id(),
            source = report.source_name(),
            attempt,
            maximum,
            "the message goes to the dead letter without a result, which could not be published: {reason}. Its last delivery is refused: {}",
            refusal.message
        ),
    }
    true
}

fn failure(attempt: u32, maximum: u32, cause: &str, reason: &str) -> Failure {
    let reason = reason.trim_end_matches('.');
    Failure::new(
        FailureCode::AttemptsExhausted,
        format!(
            "The job was delivered {attempt} times, of {maximum} that it gets, and the last time ended with: {reason}. Its message goes to the dead-letter topic: mend the cause and publish it again."
        ),
    )
    .with("attempt", attempt)
    .with("maximum", maximum)
    .with("cause", json!({"code": cause, "message": reason}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_bug_and_what_is_none_stays_as_it_is() {
        let refusal = or_bug(async { panic!("as a test wants it") as Result<(), Refusal> })
            .await
            .unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Bug);
        assert_eq!(or_bug(async { Ok(5) }).await.unwrap(), 5);
    }

    #[test]
    fn what_a_subscription_said_counts_until_it_says_something_else() {
        let fresh_at = |asked: &Asked| asked.answer.lock().unwrap().unwrap().0;
        let no = || Err("Pub/Sub is not available".to_owned());
        let now = Instant::now();
        for said in [Some(100), None] {
            let asked = Asked::new();
            assert_eq!(asked.settle(Ok(said), now), (said, None));
            assert_eq!(fresh_at(&asked), now + HOLDS);
            assert_eq!(asked.fresh(), Some(said));
            assert_eq!(asked.settle(no(), now), (said, None), "a guess, though it had said so");
            assert_eq!(fresh_at(&asked), now + NONE_HOLDS);
        }
        let asked = Asked::new();
        assert_eq!(asked.fresh(), None);
        let (answer, guessed) = asked.settle(no(), now);
        assert_eq!((answer, guessed.is_some()), (Some(DEFAULT_MAXIMUM), true));
        assert_eq!(fresh_at(&asked), now + NONE_HOLDS);
        assert_eq!(asked.settle(Ok(Some(7)), now).0, Some(7));
    }

    #[test]
    fn what_is_about_the_request_is_no_jobs_end() {
        use RefusalKind::{Bug, Busy, NotAnEvent, Unauthenticated, Unavailable, WrongCaller};
        assert!(
            [NotAnEvent, Unauthenticated, WrongCaller]
                .into_iter()
                .all(|kind| cause(kind).is_none())
        );
        assert_eq!(
            [Busy, Unavailable, Bug].map(cause),
            [Some("busy"), Some("unavailable"), Some("bug")]
        );
    }
}
