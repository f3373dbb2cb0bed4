//! The job, from request to result, as one function that can be read aloud.
//!
//! What must always hold: nothing is acknowledged before its result is on the topic, and what a retry can fix is never
//! reported as failed. Both follow from the types: [`run`] returns an [`Outcome`] (acknowledged) only after
//! [`deliver::publish`] has returned, and a [`Refusal`] (not acknowledged) never reaches it.

mod passwords;

use std::time::Instant;

use axum::http::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::accept::verify::Verifier;
use crate::accept::{self, Ignored, Message, Plan, Rules, Trace};
use crate::config::Limits;
use crate::convert::{self, Look, SourceObject, Wanted};
use crate::deliver::{self, End, Found, Links, OutputResult, Place, Report, ResultMessage, Results, Stored, Target};
use crate::engine::Engine;
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::failpoint::failpoint;
use crate::google::keys::KeySet;
use crate::google::retry::Budget;
use crate::google::storage::Storage;
use crate::job::{Job, NameValues, SecretName, is_object_name};
use crate::secrets::Secrets;

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
    /// `OUTPUT_BUCKET`.
    pub output_bucket: String,
    /// The warm engine.
    pub engine: Engine,
    /// One permit for each conversion that may run at once.
    pub slots: Semaphore,
    /// Google's side.
    pub google: Google,
    /// The passwords that jobs name.
    pub secrets: Secrets,
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
}

/// How an acknowledged request ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a result on the topic.
    Published(Box<ResultMessage>),
    /// Not for us.
    Ignored(Ignored),
}

/// Takes a request to its end. The caller's token has been verified already, before its body was read.
///
/// # Errors
/// Every way in which the request is not acknowledged.
pub async fn run(context: &Context, request: &Request) -> Result<Outcome, Refusal> {
    let message = accept::push(&request.headers, &request.body)?;
    failpoint!("envelope.read");
    let google = context.google.within(&Budget::default());
    let trace = Trace::from_headers(&request.headers);
    let mut report = Report::new(&message, trace, request.started, request.arrived);
    let end = match convert_and_deliver(context, &google, &message, &mut report).await {
        Ok(Work::Done(outputs)) => End::Succeeded(outputs),
        Ok(Work::Ignored(reason)) => {
            tracing::info!(
                messageId = report.message_id(),
                source = report.source_name(),
                reason = reason.as_str(),
                "ignored"
            );
            return Ok(Outcome::Ignored(reason));
        }
        Err(Stop::Failed(failure)) => {
            tracing::warn!(
                jobId = report.job_id(),
                messageId = report.message_id(),
                source = report.source_name(),
                code = failure.code.as_str(),
                "the job failed: {}",
                failure.message
            );
            End::Failed(failure)
        }
        Err(Stop::Superseded(reason)) => {
            tracing::info!(
                jobId = report.job_id(),
                messageId = report.message_id(),
                "superseded: {reason}"
            );
            End::Superseded
        }
        Err(Stop::Refused(refusal)) => return Err(refusal),
    };
    let result = report.result(end, Some(context.engine.version()));
    failpoint!("publish.before");
    deliver::publish(&google.results, &report, &result).await?;
    failpoint!("publish.after");
    tracing::info!(
        jobId = report.job_id(),
        messageId = report.message_id(),
        source = report.source_name(),
        status = result.status.as_str(),
        fetchMs = result.timings.fetch_ms,
        convertMs = result.timings.convert_ms,
        storeMs = result.timings.store_ms,
        signMs = result.timings.sign_ms,
        totalMs = result.timings.total_ms,
        "job done"
    );
    Ok(Outcome::Published(Box::new(result)))
}

enum Work {
    Done(Vec<OutputResult>),
    Ignored(Ignored),
}

async fn convert_and_deliver(context: &Context, google: &Google, message: &Message, report: &mut Report) -> Step<Work> {
    let event = accept::decode(&message.payload)?;
    report.event(&event);
    failpoint!("event.decoded");
    let job = match accept::plan(&context.rules, event)? {
        Plan::Convert(job) => job,
        Plan::Ignore(reason) => return Ok(Work::Ignored(reason)),
    };
    report.job(&job);
    let ttl = google.links.ttl(job.signed_url_ttl)?;
    // Names that clash, or that Cloud Storage does not take, are the job's fault whether the source is there or not.
    targets(context, &job, job.source.generation.unwrap_or(1))?;
    failpoint!("look.before");
    let stored = match convert::look(&google.storage, &job.source).await {
        Ok(Look::There(source)) => find_or_make(context, google, &job, &source, report).await?,
        Ok(Look::Ignore(reason)) => return Ok(Work::Ignored(reason)),
        // Its outputs may be there all the same: an earlier delivery made them, and ended before its result was out.
        Err(Stop::Superseded(reason)) => match find_all(context, google, &job).await? {
            Some(stored) => stored,
            None => return Err(Stop::Superseded(reason)),
        },
        Err(stop) => return Err(stop),
    };

    failpoint!("sign.before");
    let started = Instant::now();
    let mut outputs = Vec::with_capacity(stored.len());
    for output in &stored {
        let link = google.links.link(output, job.disposition, ttl).await?;
        outputs.push(OutputResult::new(output, &link));
        failpoint!("sign.each");
    }
    report.timings.sign_ms = deliver::milliseconds(started);
    failpoint!("sign.after");
    Ok(Work::Done(outputs))
}

/// The job's outputs: those that are there already, and the rest made now, in the order they were asked for.
async fn find_or_make(
    context: &Context,
    google: &Google,
    job: &Job,
    source: &SourceObject,
    report: &mut Report,
) -> Step<Vec<Stored>> {
    report.looked(source, job.id(Some(source.generation)));
    failpoint!("look.after");
    source.check_size(&context.limits)?;
    let mut outputs: Vec<Option<Stored>> = Vec::with_capacity(job.outputs.len());
    let mut missing = Vec::new();
    for (wanted, target) in job.outputs.iter().zip(targets(context, job, source.generation)?) {
        match deliver::find(&google.storage, &target, &source.source, source.generation).await? {
            Found::Done(output) => outputs.push(Some(output)),
            Found::Room(place) => {
                outputs.push(None);
                let wanted = Wanted {
                    format: wanted.format,
                    options: wanted.options.clone(),
                    passwords: passwords::of_output(&context.secrets, &wanted.options).await?,
                };
                missing.push((wanted, target, place));
            }
        }
    }
    failpoint!("find.after");
    if !missing.is_empty() {
        let made = convert_and_store(context, google, source, job.password.as_ref(), missing, report).await?;
        for (gap, output) in outputs.iter_mut().filter(|output| output.is_none()).zip(made) {
            *gap = Some(output);
        }
    }
    Ok(outputs.into_iter().flatten().collect())
}

/// The outputs of a job whose source is gone, if an earlier delivery made them all.
async fn find_all(context: &Context, google: &Google, job: &Job) -> Step<Option<Vec<Stored>>> {
    let Some(generation) = job.source.generation else {
        return Ok(None);
    };
    let mut outputs = Vec::with_capacity(job.outputs.len());
    for target in targets(context, job, generation)? {
        match deliver::find(&google.storage, &target, &job.source, generation).await {
            Ok(Found::Done(output)) => outputs.push(output),
            Ok(Found::Room(_)) | Err(Stop::Failed(_) | Stop::Superseded(_)) => return Ok(None),
            Err(refused) => return Err(refused),
        }
    }
    Ok(Some(outputs))
}

/// The part that needs a slot: fetch, convert, store.
async fn convert_and_store(
    context: &Context,
    google: &Google,
    source: &SourceObject,
    password: Option<&SecretName>,
    missing: Vec<(Wanted, Target, Place)>,
    report: &mut Report,
) -> Step<Vec<Stored>> {
    let _slot = slot(context)?;
    failpoint!("slot.taken");
    let started = Instant::now();
    let directory = context.engine.job_directory().map_err(|error| {
        Refusal::new(
            RefusalKind::Unavailable,
            format!("no job directory can be made: {error}; see TMPDIR"),
        )
    })?;
    failpoint!("fetch.before");
    let mut document = convert::fetch(&google.storage, source, directory, &context.limits).await?;
    report.timings.fetch_ms = deliver::milliseconds(started);
    failpoint!("fetch.after");

    let started = Instant::now();
    let wanted: Vec<_> = missing.iter().map(|(wanted, ..)| wanted.clone()).collect();
    let files = passwords::convert_with(context, &source.source.name, &mut document, password, &wanted).await?;
    report.timings.convert_ms = deliver::milliseconds(started);
    failpoint!("convert.after");

    let started = Instant::now();
    let mut stored = Vec::with_capacity(missing.len());
    for ((_, target, place), file) in missing.iter().zip(&files) {
        failpoint!("store.before");
        stored.push(deliver::store(&google.storage, target, source, file, *place).await?);
        failpoint!("store.after");
    }
    report.timings.store_ms = deliver::milliseconds(started);
    Ok(stored)
}

/// Where each output goes.
///
/// # Errors
/// `message.invalid` for a name that Cloud Storage does not take, and for two outputs of one name.
fn targets(context: &Context, job: &Job, generation: i64) -> Result<Vec<Target>, Failure> {
    let invalid = |message| Failure::new(FailureCode::MessageInvalid, message);
    let job_id = job.id(Some(generation));
    let mut targets: Vec<Target> = Vec::with_capacity(job.outputs.len());
    for output in &job.outputs {
        let name = output.name.fill(&NameValues {
            bucket: &job.source.bucket,
            object: &job.source.name,
            generation,
            extension: output.format.as_str(),
            job_id: job_id.as_str(),
        });
        if !is_object_name(&name) {
            return Err(invalid(format!(
                "The output name {:?} makes {name:?} of this source, which Cloud Storage does not take.",
                output.name.as_str()
            )));
        }
        if targets.iter().any(|target| target.name == name) {
            return Err(invalid(format!(
                "Two outputs of the job have the name {name:?}: give each its own."
            )));
        }
        targets.push(Target {
            bucket: context.output_bucket.clone(),
            name,
            format: output.format,
            disposition: job.disposition,
            job_id: job_id.clone(),
        });
    }
    Ok(targets)
}

/// A slot, or the answer that all are taken: a queue here would only outlive the ack deadline.
fn slot(context: &Context) -> Result<SemaphorePermit<'_>, Refusal> {
    if !*context.engine.warm().borrow() {
        return Err(Refusal::new(RefusalKind::Unavailable, "the engine is not warm yet"));
    }
    context
        .slots
        .try_acquire()
        .map_err(|_| Refusal::new(RefusalKind::Busy, "every conversion slot is taken"))
}
