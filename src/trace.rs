//! What is under way: the trace that a request belongs to, and the job that it is about. Known to the task that answers
//! the request and to those it starts, so that each log line and each call to Google says it, and no function has to
//! hand it on. Below all stages; it holds names and times, and nothing that is secret.

mod line;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

pub use line::Line;

tokio::task_local! {
    static CURRENT: Arc<Current>;
}

/// The request that is under way.
#[derive(Debug)]
pub struct Current {
    started: Instant,
    trace: Option<Trace>,
    about: Mutex<About>,
}

/// What a request turned out to be about, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The job's identity.
    pub job_id: Option<String>,
    /// `gs://bucket/name#generation`.
    pub source: Option<String>,
    /// The message's id.
    pub message_id: Option<String>,
    /// Which of the message's deliveries this is.
    pub attempt: Option<u32>,
    /// The source's size.
    pub input_bytes: Option<u64>,
    /// How long it was queued, in milliseconds.
    pub queued_ms: Option<u64>,
    /// Fetching the source; of a phase that was not begun, nothing.
    pub fetch: Option<Phase>,
    /// Inspecting and converting.
    pub convert: Option<Phase>,
    /// Storing the outputs.
    pub store: Option<Phase>,
    /// Signing the links.
    pub sign: Option<Phase>,
    /// Publishing the result.
    pub publish: Option<Phase>,
}

/// A part of a job's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It began then, and goes on.
    Since(Instant),
    /// It took this many milliseconds, however it ended.
    Took(u64),
}

impl Phase {
    /// How long it took, or has taken by now, in milliseconds.
    pub fn milliseconds(self) -> u64 {
        match self {
            Self::Since(began) => u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            Self::Took(milliseconds) => milliseconds,
        }
    }
}

impl Current {
    /// The trace, if the caller named one.
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// Since the request arrived.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is known of it.
    pub fn about(&self) -> About {
        self.locked().clone()
    }

    /// Holders never panic half-way.
    fn locked(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a request, which began at `started`.
pub async fn within<T>(started: Instant, trace: Option<Trace>, work: impl Future<Output = T>) -> T {
    let current = Current {
        started,
        trace,
        about: Mutex::default(),
    };
    CURRENT.scope(Arc::new(current), work).await
}

/// The same work for a task of its own: it stays part of what is under way here.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let current = current();
    async move {
        match current {
            Some(current) => CURRENT.scope(current, work).await,
            None => work.await,
        }
    }
}

/// The same for a thread that may block.
pub fn carried_to_a_thread<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let current = current();
    move || match current {
        Some(current) => CURRENT.sync_scope(current, work),
        None => work(),
    }
}

/// What is under way here.
pub fn current() -> Option<Arc<Current>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Notes what the request turned out to be about.
pub fn note(change: impl FnOnce(&mut About)) {
    if let Some(current) = current() {
        change(&mut current.locked());
    }
}

/// The `traceparent` of a call that is made now: the same trace, and a span of its own.
pub fn of_a_call() -> Option<String> {
    let current = current()?;
    let parent = current.trace.as_ref()?;
    let mut span = [0; 8];
    aws_lc_rs::rand::fill(&mut span).ok()?;
    let span_id = format!("{:016x}", u64::from_le_bytes(span).max(1));
    let call = Trace {
        span_id,
        ..parent.clone()
    };
    Some(call.traceparent())
}

/// A trace and the span that called us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// Whether somebody records it.
    pub sampled: bool,
}

impl Trace {
    /// From `traceparent` (W3C), else from `X-Cloud-Trace-Context`, whose span is a decimal number.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        text("traceparent")
            .and_then(Self::from_traceparent)
            .or_else(|| text("x-cloud-trace-context").and_then(Self::from_cloud))
    }

    fn from_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Of version 00 that is all; later ones may have more.
        let whole = version != "00" || parts.next().is_none();
        let valid = whole
            && is_hex(version, 2)
            && version != "ff"
            && is_hex(trace_id, 32)
            && is_hex(span_id, 16)
            && is_hex(flags, 2);
        let none_zero = [trace_id, span_id].iter().all(|id| id.bytes().any(|byte| byte != b'0'));
        (valid && none_zero).then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1),
        })
    }

    fn from_cloud(text: &str) -> Option<Self> {
        let (trace_id, rest) = text.trim().split_once('/')?;
        let (span, options) = rest.split_once(';').unwrap_or((rest, ""));
        let span: u64 = span.parse().ok().filter(|span| *span != 0)?;
        is_hex(trace_id, 32).then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: format!("{span:016x}"),
            sampled: options == "o=1",
        })
    }

    /// As W3C writes it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &str) -> Option<Trace> {
        Trace::from_headers(
            &[(axum::http::HeaderName::from_static(name), value.parse().unwrap())]
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn both_headers_name_the_same_trace() {
        let expected = "00-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01";
        assert_eq!(of("traceparent", expected).unwrap().traceparent(), expected);
        let cloud = of(
            "x-cloud-trace-context",
            "c0aae0ef90d944452f56027d27af0e97/1411812217150857728;o=1",
        )
        .unwrap();
        assert_eq!(cloud.traceparent(), expected);
    }

    #[test]
    fn what_is_no_trace_is_none() {
        for text in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-1397c3bb3cd56200-01",
            "ff-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01",
            "00-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01-more",
        ] {
            assert_eq!(of("traceparent", text), None, "{text}");
        }
    }
}
