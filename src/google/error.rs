//! What a call to Google ends with when it fails: a kind that answers "what now?", and a sentence for a person.

use std::fmt;
use std::time::Duration;

/// What a failed call means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 404: the object, generation, topic or account is not there.
    NotFound,
    /// 403: our identity may not do this. The fix is a role, not a retry.
    Forbidden,
    /// 401, or no credentials where some are needed.
    Unauthenticated,
    /// 412: somebody else was first, or our own earlier attempt whose answer was lost.
    PreconditionFailed,
    /// The request or the answer makes no sense; a retry gives the same.
    Invalid,
    /// 429, or a 403 that says it is about a rate.
    Throttled,
    /// Not reachable, timed out, or a 5xx: a later retry may work.
    Unavailable,
    /// The bytes are not those that were stored or sent (CRC32C or length).
    Corrupt,
    /// 413, or an answer over our limit.
    TooLarge,
}

/// A failed call. Its text never holds a token, a query string or a body beyond Google's own error message.
#[derive(Debug, Clone)]
pub struct Error {
    /// What it means.
    pub kind: Kind,
    /// What was tried, as the API calls it: `storage.objects.get`.
    pub operation: &'static str,
    /// On what: `gs://bucket/name#generation`, a topic, an account.
    pub resource: String,
    /// The HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// What happened, in Google's words where it said any.
    pub message: String,
    /// How long the answer asked to wait.
    pub retry_after: Option<Duration>,
    /// Whether the call certainly never reached the server: then even what is not idempotent may be repeated.
    pub not_sent: bool,
}

impl Error {
    pub(crate) fn new(
        kind: Kind,
        operation: &'static str,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            resource: resource.into(),
            status: None,
            message: message.into(),
            retry_after: None,
            not_sent: false,
        }
    }

    /// Whether the same call may work later. `Corrupt` is: the damage is mostly on the way, not in the store.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Unavailable | Kind::Corrupt)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: ", self.operation, self.resource)?;
        if let Some(status) = self.status {
            write!(f, "HTTP {status}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
