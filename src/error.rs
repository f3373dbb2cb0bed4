//! Why a delivery stops before its end, and what follows from it.
//!
//! There are three ways, and they never mix: the job itself is wrong ([`Failure`]: reported once, then acknowledged),
//! the source has been overtaken (superseded: the same), or the request is refused ([`Refusal`]: Pub/Sub retries).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::google;
use crate::google::grant::Grant;

/// How one step of the pipeline ends when it cannot hand on to the next.
#[derive(Debug, Clone)]
pub enum Stop {
    /// A retry cannot fix it: it is published as the job's result and acknowledged.
    Failed(Failure),
    /// A newer generation is out, or the named one is gone. The sentence says which.
    Superseded(String),
    /// A retry may fix it, or the request itself is not acceptable: never acknowledged, never reported as failed.
    Refused(Refusal),
}

/// A step's result.
pub type Step<T> = Result<T, Stop>;

/// What is wrong with a job, in the words of the result message.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// One sentence for a person. Holds no secret and no text of the document.
    pub message: String,
    /// Facts for a program: names, limits, positions.
    pub detail: serde_json::Map<String, serde_json::Value>,
}

impl Failure {
    /// A failure without details. What a message quotes may be anything somebody sent, so both it and the facts are cut:
    /// results must fit on the topic, and logs on a disk.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: shortened(message.into()),
            detail: serde_json::Map::new(),
        }
    }

    /// Adds one fact for a program.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        let value = match value.into() {
            serde_json::Value::String(text) => shortened(text).into(),
            other => other,
        };
        self.detail.insert(key.to_owned(), value);
        self
    }
}

/// The longest sentence, in bytes: an object's name of 1,024 bytes fits, even quoted.
const LONGEST: usize = 2048;

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let mut end = LONGEST;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("… (cut).");
    }
    text
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

macro_rules! failure_codes {
    ($(#[doc = $meaning:literal] $name:ident $code:literal,)*) => {
        /// The stable failure codes of the result message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailureCode {
            $(#[doc = $meaning] $name,)*
        }

        impl FailureCode {
            /// All of them, each with what it means.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, $meaning)),*];

            /// The code as the result message has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

failure_codes! {
    /// The message cannot be decoded: base64, JSON, fields.
    MessageInvalid "message.invalid",
    /// An option's name or value is not allowed.
    OptionInvalid "option.invalid",
    /// The bucket is not among those that jobs may read.
    SourceForbidden "source.forbidden",
    /// The object was named without a generation and is not there.
    SourceNotFound "source.not_found",
    /// The object has no bytes.
    SourceEmpty "source.empty",
    /// The object is over the limit.
    SourceTooLarge "source.too_large",
    /// No import filter reads what the object really is.
    SourceUnsupported "source.unsupported",
    /// The document needs a password and the job brings none.
    DocumentEncrypted "document.encrypted",
    /// The password does not open the document.
    DocumentWrongPassword "document.wrong_password",
    /// The document is cut short or damaged.
    DocumentCorrupt "document.corrupt",
    /// Over a limit: time, memory, pages or output size.
    DocumentTooComplex "document.too_complex",
    /// The engine died of it, twice, in fresh processes.
    DocumentEngineCrashed "document.engine_crashed",
    /// The output name belongs to another source.
    OutputConflict "output.conflict",
    /// The last delivery of the message is refused: it goes to the dead letter.
    AttemptsExhausted "attempts.exhausted",
}

impl JsonSchema for FailureCode {
    fn schema_name() -> Cow<'static, str> {
        "FailureCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<serde_json::Value> = Self::ALL
            .iter()
            .map(|(code, meaning)| serde_json::json!({"const": code.as_str(), "description": meaning.trim()}))
            .collect();
        json_schema!({"oneOf": codes})
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request is answered with something that does not acknowledge it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What kind of refusal; the one place that turns it into a status is `serve::answer`.
    pub kind: RefusalKind,
    /// One sentence: what happened, to what, and what to do. For the log, and for the caller where that tells nothing.
    pub message: String,
    /// What Google or the engine asked us to wait.
    pub retry_after: Option<Duration>,
    /// What has to be done before any repetition can help; none where it helps by itself.
    pub remedy: Option<Remedy>,
}

/// What an operator has to do. For the log alone: it is about the deployment and not about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Give the worker this right.
    Grant(Box<Grant>),
    /// Set up what Google does not know, or does not take as it is.
    SetUp,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
            remedy: None,
        }
    }

    /// What a Google API's refusal means for a job: always "later", because it is the deployment's mistake or nobody's.
    /// `grant` is what a 403 asks for.
    pub fn unavailable(error: &google::Error, grant: Grant) -> Self {
        let remedy = match error.kind {
            google::Kind::Forbidden if grant.is_about(error) => Some(Remedy::Grant(Box::new(grant.named_by(error)))),
            _ if error.is_transient() => None,
            _ => Some(Remedy::SetUp),
        };
        Self {
            kind: RefusalKind::Unavailable,
            message: error.to_string(),
            retry_after: error.retry_after,
            remedy,
        }
    }

    /// What happened, and what an operator has to do. `member` is who the worker is, as policies name members.
    pub fn explained(&self, member: &str) -> Cow<'_, str> {
        let said = self.message.trim_end_matches('.');
        match &self.remedy {
            None => Cow::Borrowed(&self.message),
            Some(Remedy::Grant(grant)) => format!("{said}. {}", grant.remedy(member)).into(),
            Some(Remedy::SetUp) => {
                format!("{said}. Repeating it will not help: see that what it names exists and is set up").into()
            }
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// As if Google had refused.
#[cfg(feature = "failpoints")]
impl From<crate::failpoint::Injected> for Refusal {
    fn from(crate::failpoint::Injected(name): crate::failpoint::Injected) -> Self {
        Self::new(RefusalKind::Unavailable, format!("the failpoint {name} refuses"))
    }
}

#[cfg(feature = "failpoints")]
impl From<crate::failpoint::Injected> for Stop {
    fn from(injected: crate::failpoint::Injected) -> Self {
        Self::Refused(injected.into())
    }
}

/// What a refusal says after a panic, which has a line of its own in the log.
pub const PANICKED: &str = "a request panicked; the line before says where";

/// The kinds of refusal, in the order of the contract's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// 400: no event at all.
    NotAnEvent,
    /// 401: no token, or one that proves nothing. The caller is never told why.
    Unauthenticated,
    /// 403: a good token of the wrong caller or audience.
    WrongCaller,
    /// 429: every conversion slot is taken.
    Busy,
    /// 503: a Google API, the key set or the engine is not available now, or the worker is shutting down.
    Unavailable,
    /// 500: a bug.
    Bug,
}
