//! The result message: section 4 of the contract.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use chrono::{DateTime, SecondsFormat, Utc};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::sign::SignedUrl;
use super::store::Stored;
use crate::accept::{Event, Glimpse, Message, Trace};
use crate::convert::{SourceObject, Warning};
use crate::error::{Failure, FailureCode};
use crate::job::{Format, Job, JobId, Source};

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every output is there.
    Succeeded,
    /// It never will be.
    Failed,
    /// A newer generation has taken its place.
    Superseded,
}

impl Status {
    /// As attributes write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// How a job ended. A consumer drops a `jobId` that it has seen, and ignores fields that it does not know.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "Platen result", transform = outputs_or_error)]
pub struct ResultMessage {
    /// Of this format: 1.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// How it ended.
    pub status: Status,
    /// The job's identity: the same for the same source generation, outputs and revision.
    #[schemars(regex(pattern = "^[0-9a-f]{32}$"))]
    pub job_id: Option<String>,
    /// What was read.
    pub source: Option<SourceResult>,
    /// What was made.
    pub outputs: Vec<OutputResult>,
    /// What is wrong, when it failed.
    pub error: Option<ErrorResult>,
    /// The job's own data.
    pub user_data: Option<Value>,
    /// Which delivery this was.
    pub attempt: u32,
    /// The message that asked for it.
    pub message_id: Option<String>,
    /// How long the parts took.
    pub timings: Timings,
    /// Who made it.
    pub worker: Worker,
}

/// What a type cannot say: which of `outputs` and `error` there is depends on `status`.
fn outputs_or_error(message: &mut Schema) {
    let when = |status: Value, outputs: Value, error: Value| {
        json!({
            "if": {"properties": {"status": status}},
            "then": {"properties": {"outputs": outputs, "error": error}},
        })
    };
    message.insert(
        "allOf".to_owned(),
        json!([
            when(
                json!({"const": "succeeded"}),
                json!({"minItems": 1}),
                json!({"type": "null"})
            ),
            when(
                json!({"const": "failed"}),
                json!({"maxItems": 0}),
                json!({"not": {"type": "null"}})
            ),
            when(
                json!({"const": "superseded"}),
                json!({"maxItems": 0}),
                json!({"type": "null"})
            ),
        ]),
    );
}

/// The source, as far as it is known.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Source")]
pub struct SourceResult {
    /// Its bucket.
    pub bucket: String,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: Option<String>,
    /// Bytes.
    pub size: Option<String>,
    /// What its uploader says it is.
    pub content_type: Option<String>,
}

/// One output. Its link is a bearer secret, so it has no `Debug` that shows it.
#[derive(Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Output")]
pub struct OutputResult {
    /// Its format.
    pub format: Format,
    /// Its bucket.
    pub bucket: String,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: String,
    /// Bytes.
    pub size: String,
    /// Base64 of the big-endian CRC32C.
    pub crc32c: Option<String>,
    /// Its media type.
    pub content_type: &'static str,
    /// Pages.
    pub pages: Option<u32>,
    /// What a person should know about it.
    pub warnings: Vec<Warning>,
    /// The link: whoever has it can download until it ends.
    #[schemars(extend("format" = "uri"))]
    pub signed_url: String,
    /// When the link ends.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
}

impl OutputResult {
    /// From what was stored and signed.
    pub fn new(stored: &Stored, link: &SignedUrl) -> Self {
        Self {
            format: stored.target.format,
            bucket: stored.target.bucket.clone(),
            name: stored.target.name.clone(),
            generation: stored.generation.to_string(),
            size: stored.size.to_string(),
            crc32c: stored
                .crc32c
                .map(|checksum| base64::engine::general_purpose::STANDARD.encode(checksum.to_be_bytes())),
            content_type: stored.target.format.content_type(),
            pages: stored.pages,
            warnings: stored.warnings.clone(),
            signed_url: link.url.expose().to_owned(),
            expires_at: link.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        }
    }
}

impl fmt::Debug for OutputResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputResult")
            .field("bucket", &self.bucket)
            .field("name", &self.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorResult {
    /// The stable code.
    #[schemars(with = "FailureCode")]
    pub code: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// Facts for a program.
    pub detail: serde_json::Map<String, Value>,
}

/// How long the parts took, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    /// From publishing to arrival.
    pub queued_ms: u64,
    /// Fetching the source.
    pub fetch_ms: u64,
    /// Inspecting and converting.
    pub convert_ms: u64,
    /// Storing the outputs.
    pub store_ms: u64,
    /// Signing the links.
    pub sign_ms: u64,
    /// All of it since arrival.
    pub total_ms: u64,
}

/// Who made a result.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Worker")]
pub struct Worker {
    /// `platen`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The engine and its version.
    pub engine: Option<String>,
}

/// What is known about a job while it goes through the pipeline, so that a result can be written wherever it stops.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    arrived: DateTime<Utc>,
    message_id: Option<String>,
    published: Option<DateTime<Utc>>,
    attempt: u32,
    trace: Option<Trace>,
    source: Option<SourceResult>,
    job_id: Option<JobId>,
    formats: Vec<Format>,
    user_data: Option<Value>,
    /// How long the parts took.
    pub timings: Timings,
}

impl Report {
    /// A report that knows the message alone.
    pub fn new(message: &Message, trace: Option<Trace>, started: Instant, arrived: DateTime<Utc>) -> Self {
        Self {
            started,
            arrived,
            message_id: message.id.clone(),
            published: message.published,
            attempt: message.delivery_attempt.unwrap_or(1),
            trace,
            source: None,
            job_id: message.id.as_deref().map(JobId::of_message),
            formats: Vec::new(),
            user_data: None,
            timings: Timings::default(),
        }
    }

    /// What a message that cannot be decoded says all the same. Two such messages are two jobs, though they name one
    /// object: the message's id is their identity, where it has one.
    pub fn glimpse(&mut self, glimpse: Glimpse) {
        if let Some(source) = glimpse.source {
            self.job_id.get_or_insert_with(|| JobId::of_source(&source));
            self.named(source);
        }
        self.user_data = glimpse.user_data;
    }

    fn named(&mut self, source: Source) {
        self.source = Some(SourceResult {
            generation: source.generation.map(|generation| generation.to_string()),
            bucket: source.bucket,
            name: source.name,
            size: None,
            content_type: None,
        });
    }

    /// What the event alone says, before it is judged.
    pub fn event(&mut self, event: &Event) {
        if let Some(source) = event.source() {
            self.job_id = Some(JobId::of_source(&source));
            self.named(source);
        }
        if let Event::Job(request) = event {
            self.job_id = Some(request.provisional_id());
            self.user_data = request.echoed_user_data().cloned();
            let asked = request.outputs.iter().flatten();
            self.formats = asked.filter_map(|output| Format::parse(&output.format).ok()).collect();
        }
    }

    /// What the job is, before its source has been looked at.
    pub fn job(&mut self, job: &Job) {
        self.formats = job.outputs.iter().map(|output| output.format).collect();
        self.job_id = Some(job.id(None));
    }

    /// The source has been looked at, and with its generation the job's identity is settled.
    pub fn looked(&mut self, object: &SourceObject, job_id: JobId) {
        self.job_id = Some(job_id);
        self.source = Some(SourceResult {
            bucket: object.source.bucket.clone(),
            name: object.source.name.clone(),
            generation: Some(object.generation.to_string()),
            size: Some(object.size.to_string()),
            content_type: object.content_type.clone(),
        });
    }

    /// The identity, for logs.
    pub fn job_id(&self) -> Option<&str> {
        self.job_id.as_ref().map(JobId::as_str)
    }

    /// The source in words, for logs.
    pub fn source_name(&self) -> Option<String> {
        let source = self.source.as_ref()?;
        Some(format!(
            "gs://{}/{}#{}",
            source.bucket,
            source.name,
            source.generation.as_deref().unwrap_or("newest")
        ))
    }

    /// The message id, for logs.
    pub fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// Which of the message's deliveries this is, for logs.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The source's size in bytes, once it has been looked at, for logs.
    pub fn source_size(&self) -> Option<&str> {
        self.source.as_ref()?.size.as_deref()
    }

    /// The formats asked for, as far as they are formats.
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// The trace that the result carries on.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// From publishing to arrival, when the message says when it was published; clocks that differ do not count.
    pub fn queued(&self) -> Option<Duration> {
        let published = self.published?;
        Some((self.arrived - published).to_std().unwrap_or_default())
    }

    /// Since arrival.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The message for the way the job ended.
    pub fn result(&self, end: End, engine: Option<String>) -> ResultMessage {
        let (status, outputs, error) = match end {
            End::Succeeded(outputs) => (Status::Succeeded, outputs, None),
            End::Superseded => (Status::Superseded, Vec::new(), None),
            End::Failed(failure) => {
                let Failure { code, message, detail } = failure;
                (
                    Status::Failed,
                    Vec::new(),
                    Some(ErrorResult {
                        code: code.as_str(),
                        message,
                        detail,
                    }),
                )
            }
        };
        ResultMessage {
            version: 1,
            status,
            job_id: self.job_id().map(str::to_owned),
            source: self.source.clone(),
            outputs,
            error,
            user_data: self.user_data.clone(),
            attempt: self.attempt,
            message_id: self.message_id.clone(),
            timings: Timings {
                queued_ms: self.queued().map_or(0, whole),
                total_ms: milliseconds(self.started),
                ..self.timings
            },
            worker: Worker {
                name: "platen",
                version: env!("CARGO_PKG_VERSION"),
                engine,
            },
        }
    }
}

/// How a job ended, with what the message says about it.
#[derive(Debug)]
pub enum End {
    /// With these outputs.
    Succeeded(Vec<OutputResult>),
    /// With this failure.
    Failed(Failure),
    /// Overtaken.
    Superseded,
}

/// Whole milliseconds since then.
pub fn milliseconds(started: Instant) -> u64 {
    whole(started.elapsed())
}

fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
