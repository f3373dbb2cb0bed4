//! The one line of a delivery, however it ends: every reader finds each field under one name.

use std::fmt;
use std::time::Duration;

use tracing::Level;

use super::{Phase, current};

/// What the line has beside its message. What is not known is left out.
#[derive(Debug, Default)]
pub struct Line {
    /// The job's identity.
    pub job_id: Option<String>,
    /// `gs://bucket/name#generation`.
    pub source: Option<String>,
    /// The failure's code.
    pub code: Option<&'static str>,
    /// The message's id.
    pub message_id: Option<String>,
    /// Which of the message's deliveries this is.
    pub attempt: Option<u32>,
    /// How it ended.
    pub status: &'static str,
    /// Why it was ignored.
    pub reason: Option<&'static str>,
    /// How many outputs there are.
    pub outputs: Option<usize>,
    /// Pages of all outputs.
    pub pages: Option<u32>,
    /// The source's size.
    pub input_bytes: Option<u64>,
    /// The size of all outputs.
    pub output_bytes: Option<u64>,
    /// How long the message was queued, in milliseconds.
    pub queued_ms: Option<u64>,
    /// From the request's arrival.
    pub total: Option<Duration>,
    /// What the request is answered with; none where nobody is there for an answer.
    pub http_status: Option<u16>,
    /// Whether Error Reporting takes it for a bug.
    pub bug: bool,
}

impl Line {
    /// What is known of the request that is under way.
    pub fn of_current(status: &'static str) -> Self {
        let current = current();
        let about = current.as_ref().map(|current| current.about()).unwrap_or_default();
        Self {
            job_id: about.job_id,
            source: about.source,
            message_id: about.message_id,
            attempt: about.attempt,
            status,
            input_bytes: about.input_bytes,
            queued_ms: about.queued_ms,
            total: current.map(|current| current.elapsed()),
            ..Self::default()
        }
    }

    /// Writes it, with the times of the phases that the request has come to.
    pub fn write(self, level: Level, message: fmt::Arguments<'_>) {
        let about = current().map(|current| current.about()).unwrap_or_default();
        // A macro of tracing's has its level and its fields' names in its text.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    jobId = self.job_id,
                    source = self.source,
                    code = self.code,
                    messageId = self.message_id,
                    attempt = self.attempt,
                    status = self.status,
                    reason = self.reason,
                    outputs = self.outputs,
                    pages = self.pages,
                    inputBytes = self.input_bytes,
                    outputBytes = self.output_bytes,
                    queuedMs = self.queued_ms,
                    fetchMs = about.fetch.map(Phase::milliseconds),
                    convertMs = about.convert.map(Phase::milliseconds),
                    storeMs = about.store.map(Phase::milliseconds),
                    signMs = about.sign.map(Phase::milliseconds),
                    publishMs = about.publish.map(Phase::milliseconds),
                    totalMs = self
                        .total
                        .map(|total| u64::try_from(total.as_millis()).unwrap_or(u64::MAX)),
                    httpStatus = self.http_status,
                    bug = self.bug.then_some(true),
                    "{message}"
                )
            };
        }
        match level {
            Level::ERROR => line!(error),
            Level::WARN => line!(warn),
            _ => line!(info),
        }
    }
}
