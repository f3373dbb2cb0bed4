//! The job, from request to result, as one function that can be read aloud.
//!
//! What must always hold: nothing is acknowledged before its result is on the topic, and what a retry can fix is never
//! reported as failed. Both follow from the types: [`run`] returns an [`Outcome`] (acknowledged) only after
//! [`deliver::publish`] has returned, and a [`Refusal`] (not acknowledged) never reaches it.

mod admission;
mod budget;
mod deadline;
mod exhausted;
mod flight;
mod machine;
mod passwords;
mod phase;
mod run;
mod summary;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

pub use self::admission::Admission;
use self::admission::Admitted;
pub use self::budget::BODIES;
use self::deadline::Deadline;
use self::flight::{Flights, Lost};
use self::phase::Timed;
use self::run::{Key, Made, Run};
use crate::accept::verify::Verifier;
use crate::accept::{self, Event, Ignored, Message, Plan, Rules, Trace};
use crate::config::Limits;
use crate::convert::{self, Look};
use crate::deliver::{self, End, Links, OutputResult, Report, ResultMessage, Results, Stored};
use crate::engine::Engine;
use crate::error::{Failure, Refusal, RefusalKind, Step, Stop};
use crate::failpoint::failpoint;
use crate::google::keys::KeySet;
use crate::google::retry::Budget;
use crate::google::storage::Storage;
use crate::job::{Disposition, Job};
use crate::secrets::Secrets;
use crate::trace;

pub use exhausted::{DeliveryAttempts, panicked};
/// Everything the pipeline works with.
pub struct Context {
    /// Who finds out who sent a request.
    pub verifier: Verifier,
    /// The keys that prove it, to say whether there are any.
    pub keys: KeySet,
    /// What the configuration says about events.
    pub rules: Rules,
    /// What one job may take.
    pub limits: Limits,
    /// `ACK_DEADLINE`: how long a delivery has.
    pub ack_deadline: Duration,
    /// `OUTPUT_BUCKET`.
    pub output_bucket: String,
    /// The warm engine.
    pub engine: Engine,
    /// Which jobs may begin.
    pub admission: Admission,
    /// Google's side.
    pub google: Google,
    /// The passwords that jobs name.
    pub secrets: Secrets,
    /// The jobs that are under way.
    pub runs: Runs,
    /// How often a message is delivered.
    pub attempts: DeliveryAttempts,
}

/// The runs that are under way: one of each job, however many deliveries wait for it.
pub struct Runs(Flights<Key, Made>);

impl Default for Runs {
    fn default() -> Self {
        Self(Flights::new())
    }
}

impl Runs {
    /// Ends all that are under way, also those that nobody waits for any more, and returns when they have left nothing:
    /// for a worker that is about to end.
    pub async fn end(&self) {
        self.0.end().await;
    }
}

/// What the pipeline asks of Google.
#[derive(Debug, Clone)]
pub struct Google {
    /// Cloud Storage.
    pub storage: Storage,
    /// Who signs links, and for how long.
    pub links: Links,
    /// Where results go.
    pub results: Results,
}

impl Google {
    /// The same, with all retries counted against one delivery's budget.
    fn within(&self, budget: &Budget) -> Self {
        Self {
            storage: self.storage.within(budget),
            links: self.links.within(budget),
            results: Results {
                publisher: self.results.publisher.within(budget),
                topic: self.results.topic.clone(),
            },
        }
    }
}

/// A request, before anything in it is believed. It has no `Debug`: its headers hold the caller's token.
pub struct Request {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When it arrived.
    pub arrived: DateTime<Utc>,
    /// The same moment on the clock that only goes forward.
    pub started: Instant,
    /// The status that it is answered with when it is acknowledged, for the log.
    pub acknowledgement: u16,
}

/// How an acknowledged request ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a result on the topic.
    Published(Box<ResultMessage>),
    /// Not for us.
    Ignored(Ignored),
}

/// Takes a request to its end. The caller's token has been verified already, before its body was read. `held` is dropped
/// with it, which may be after whoever waits for it is gone.
///
/// # Errors
/// Every way in which the request is not acknowledged.
pub async fn run(context: &Arc<Context>, request: &Request, held: impl Send + 'static) -> Result<Outcome, Refusal> {
    let message = accept::push(&request.headers, &request.body)?;
    failpoint!("envelope.read");
    let report = report(request, &message);
    summary::note(&report);
    let deadline = Deadline::of(request.started, context.ack_deadline);
    let may_be_last = exhausted::may_be_last(&message);
    let delivery = take(context.clone(), message, deadline, report, request.acknowledgement);
    if !may_be_last {
        let _held = held;
        return delivery.await.0;
    }
    // Nobody delivers it again: it comes to its result also when its caller has hung up.
    let (answer, waiting) = oneshot::channel();
    let context = context.clone();
    tokio::spawn(trace::carried(async move {
        let _held = held;
        let (ended, has_line) = delivery.await;
        // What is refused has its line where it is answered, and here where nobody is left to be answered.
        if let Err(Err(refusal)) = answer.send(ended)
            && !has_line
        {
            summary::nobody_waits(&refusal, &context.google.storage.member().await);
        }
    }));
    waiting.await.unwrap_or_else(|_| Err(panicked()))
}

/// Refuses a request that nothing is done for. Where that is its last delivery, its job has a result all the same.
pub async fn refuse(context: &Context, request: &Request, refusal: Refusal) -> Refusal {
    let Ok(message) = accept::push(&request.headers, &request.body) else {
        return refusal;
    };
    let mut report = report(request, &message);
    match decode(&message, &mut report).and_then(|event| accept::plan(&context.rules, event)) {
        Ok(Plan::Convert(job)) => report.job(&job),
        Ok(Plan::Ignore(_)) => return refusal,
        Err(_) => {}
    }
    summary::note(&report);
    exhausted::publish_if_last(context, &message, &report, &refusal).await;
    refusal
}

fn report(request: &Request, message: &Message) -> Report {
    let trace = Trace::from_headers(&request.headers);
    Report::new(message, trace, request.started, request.arrived)
}

/// How the delivery ends, and whether the log has that already.
async fn take(
    context: Arc<Context>,
    message: Message,
    deadline: Deadline,
    mut report: Report,
    acknowledgement: u16,
) -> (Result<Outcome, Refusal>, bool) {
    let google = context.google.within(&deadline.budget());
    let ended = exhausted::or_bug(answer(&context, &google, &message, deadline, &mut report)).await;
    let has_line = match &ended {
        Ok(outcome) => {
            summary::write(outcome, &report, acknowledgement);
            true
        }
        Err(refusal) => exhausted::publish_if_last(&context, &message, &report, refusal).await,
    };
    (ended, has_line)
}

async fn answer(
    context: &Arc<Context>,
    google: &Google,
    message: &Message,
    deadline: Deadline,
    report: &mut Report,
) -> Result<Outcome, Refusal> {
    let work = match timeout_at(deadline.work, work(context, google, message, deadline, report)).await {
        Ok(Err(Stop::Refused(refusal))) => return Err(refusal),
        Ok(work) => work,
        Err(_) => return Err(late(report, "its outputs are not there yet")),
    };
    timeout_at(deadline.answer, tell(context, google, work, report))
        .await
        .unwrap_or_else(|_| Err(late(report, "its result is not out yet")))
}

fn late(report: &Report, how: &str) -> Refusal {
    let source = report.source_name().unwrap_or_else(|| "a message".to_owned());
    Refusal::new(
        RefusalKind::Unavailable,
        format!("{source} has come to its ACK_DEADLINE, and {how}: the next delivery goes on from there"),
    )
}

/// What a delivery asks for, done.
enum Work {
    /// These outputs are there, and links to them are wanted.
    Done {
        stored: Vec<Stored>,
        disposition: Disposition,
        ttl: Duration,
    },
    Ignored(Ignored),
}

/// What the message asks for, and its report, as far as it can be told.
fn decode(message: &Message, report: &mut Report) -> Result<Event, Failure> {
    let event = accept::decode(&message.payload);
    match &event {
        Ok(event) => report.event(event),
        Err(_) => report.glimpse(accept::glimpse(&message.payload)),
    }
    summary::note(report);
    event
}

/// Everything up to the outputs.
async fn work(
    context: &Arc<Context>,
    google: &Google,
    message: &Message,
    deadline: Deadline,
    report: &mut Report,
) -> Step<Work> {
    let event = decode(message, report)?;
    failpoint!("event.decoded");
    let job = match accept::plan(&context.rules, event)? {
        Plan::Convert(job) => *job,
        Plan::Ignore(reason) => return Ok(Work::Ignored(reason)),
    };
    report.job(&job);
    summary::note(report);
    let ttl = google.links.ttl(job.signed_url_ttl)?;
    let disposition = job.disposition;
    // Names that clash, or that Cloud Storage does not take, are the job's fault whether the source is there or not.
    run::targets(context, &job, job.source.generation.unwrap_or(1))?;
    let admitted = admit(context, &job, message)?;
    failpoint!("look.before");
    let looked = convert::look(&google.storage, &job.source).await;
    failpoint!("look.after");
    let run = |job| Run {
        context: context.clone(),
        google: google.clone(),
        job,
        deadline,
        admitted,
    };
    let made = match (looked, job.source.generation) {
        (Ok(Look::There(source)), _) => {
            report.looked(&source, job.id(Some(source.generation)));
            summary::note(report);
            source.check_size(&context.limits)?;
            let key = Key::of(&job, source.generation);
            context.runs.0.join(key, || run(job).make(source)).await
        }
        (Ok(Look::Ignore(reason)), _) => return Ok(Work::Ignored(reason)),
        // Its outputs may be there all the same: an earlier delivery made them, and ended before its result was out.
        (Err(Stop::Superseded(reason)), Some(generation)) => {
            let key = Key::of(&job, generation);
            context.runs.0.join(key, || run(job).find_all(generation, reason)).await
        }
        (Err(stop), _) => return Err(stop),
    };
    let made = made.map_err(|lost| match lost {
        Lost::Panicked => panicked(),
        Lost::Ended => Refusal::new(RefusalKind::Unavailable, "the worker is shutting down"),
    })?;
    report.timings = made.timings;
    summary::note_shared(made.timings);
    Ok(Work::Done {
        stored: made.outputs?,
        disposition,
        ttl,
    })
}

/// A place for the job, before Google is asked anything for it: a worker that is full says so at once, and a burst costs
/// nobody's quota. A delivery that will wait for a run that is under way needs none.
///
/// One that may be the last of its message goes on without: what an earlier one has done is then found, and reported.
fn admit(context: &Context, job: &Job, message: &Message) -> Result<Option<Arc<Admitted>>, Refusal> {
    // No object has generation 0.
    let key = Key::of(job, job.source.generation.unwrap_or_default());
    if context.runs.0.is_under_way(&key) {
        return Ok(None);
    }
    match context.admission.enter(key) {
        Ok(admitted) => Ok(Some(admitted)),
        Err(_) if exhausted::may_be_last(message) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Signs what is there, and publishes how it ended.
async fn tell(context: &Context, google: &Google, work: Step<Work>, report: &mut Report) -> Result<Outcome, Refusal> {
    let end = match work {
        Ok(Work::Done {
            stored,
            disposition,
            ttl,
        }) => match sign(google, &stored, disposition, ttl, report).await {
            Ok(outputs) => End::Succeeded(outputs),
            Err(stop) => end(stop)?,
        },
        Ok(Work::Ignored(reason)) => return Ok(Outcome::Ignored(reason)),
        Err(stop) => end(stop)?,
    };
    let result = report.result(end, Some(context.engine.version()));
    failpoint!("publish.before");
    let publishing = Timed::publish();
    let published = deliver::publish(&google.results, report, &result).await;
    publishing.end();
    published?;
    failpoint!("publish.after");
    Ok(Outcome::Published(Box::new(result)))
}

/// How a delivery that stopped is reported.
///
/// # Errors
/// It is not: it is refused.
fn end(stop: Stop) -> Result<End, Refusal> {
    match stop {
        Stop::Failed(failure) => Ok(End::Failed(failure)),
        Stop::Superseded(reason) => {
            tracing::debug!("superseded: {reason}");
            Ok(End::Superseded)
        }
        Stop::Refused(refusal) => Err(refusal),
    }
}

/// Every delivery has its own links: how long they last, and what browsers do with them, are not the run's.
async fn sign(
    google: &Google,
    stored: &[Stored],
    disposition: Disposition,
    ttl: Duration,
    report: &mut Report,
) -> Step<Vec<OutputResult>> {
    failpoint!("sign.before");
    let signing = Timed::sign();
    let signed = sign_each(google, stored, disposition, ttl).await;
    report.timings.sign_ms = signing.end();
    let outputs = signed?;
    failpoint!("sign.after");
    Ok(outputs)
}

async fn sign_each(
    google: &Google,
    stored: &[Stored],
    disposition: Disposition,
    ttl: Duration,
) -> Step<Vec<OutputResult>> {
    let mut outputs = Vec::with_capacity(stored.len());
    for output in stored {
        let link = google.links.link(output, disposition, ttl).await?;
        outputs.push(OutputResult::new(output, &link));
        failpoint!("sign.each");
    }
    Ok(outputs)
}
