//! What a watcher is told of a deployment at work: each push and its answer, and each call that is made because of it.
//!
//! The two are told to belong together by their trace: what stands before a Cloud Run service names one to each request, and
//! who serves the request names it to the APIs that it calls (W3C Trace Context). Nobody watching, no push has one.

use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderValue};
use chrono::{DateTime, Utc};

use super::{clock::Clock, identity::random_hex, server::Peer};

/// One thing that was seen.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When, by the cloud's clock.
    pub at: DateTime<Utc>,
    /// The trace that it belongs to, 32 hex digits.
    pub trace: String,
    /// What.
    pub seen: Seen,
}

/// What was seen.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A message is pushed.
    Pushed {
        /// The subscription's full name.
        subscription: String,
        /// Its id.
        message_id: String,
        /// Which delivery of it, counted from 1.
        attempt: u32,
    },
    /// That push has ended, with the endpoint's status where there was an answer.
    Answered(Option<u16>),
    /// The head of a request to an API is here.
    Called(Call),
    /// That request has been answered with this status; of a large answer no more than the head has been sent.
    Returned(Call, u16),
}

/// A request to one of the APIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which API.
    pub peer: Peer,
    /// The method.
    pub method: String,
    /// The path as it was sent, percent-encoded.
    pub path: String,
    /// The query as it was sent, percent-encoded.
    pub query: String,
}

type Watcher = Box<dyn Fn(Observation) + Send + Sync>;

/// Who watches.
#[derive(Default)]
pub(super) struct Watchers(OnceLock<Watcher>);

impl Watchers {
    /// Tells `watcher` from now on; whether nobody else is told already.
    pub(super) fn set(&self, watcher: impl Fn(Observation) + Send + Sync + 'static) -> bool {
        self.0.set(Box::new(watcher)).is_ok()
    }

    /// A push that begins now, if somebody watches.
    pub(super) fn pushed(&self, clock: &Clock, subscription: &str, message_id: &str, attempt: u32) -> Watched<'_> {
        let watched = Watched(self.0.get().map(|watcher| (watcher, clock.clone(), random_hex(16))));
        watched.tell(|| Seen::Pushed {
            subscription: subscription.to_owned(),
            message_id: message_id.to_owned(),
            attempt,
        });
        watched
    }

    /// A call that begins now, if somebody watches and it belongs to a trace.
    pub(super) fn called(&self, clock: &Clock, headers: &HeaderMap, call: impl FnOnce() -> Call) -> WatchedCall<'_> {
        let trace = || headers.get("traceparent")?.to_str().ok()?.split('-').nth(1);
        let of_trace = self.0.get().and_then(|watcher| Some((watcher, trace()?)));
        WatchedCall(of_trace.map(|(watcher, trace)| {
            let (call, watched) = (call(), Watched(Some((watcher, clock.clone(), trace.to_owned()))));
            watched.tell(|| Seen::Called(call.clone()));
            (watched, call)
        }))
    }
}

/// A trace that is watched, or nothing.
pub(super) struct Watched<'a>(Option<(&'a Watcher, Clock, String)>);

impl Watched<'_> {
    fn tell(&self, seen: impl FnOnce() -> Seen) {
        if let Some((watcher, clock, trace)) = &self.0 {
            watcher(Observation {
                at: clock.now(),
                trace: trace.clone(),
                seen: seen(),
            });
        }
    }

    /// The header that names the trace to the endpoint.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let (_, _, trace) = self.0.as_ref()?;
        HeaderValue::from_str(&format!("00-{trace}-{}-01", random_hex(8))).ok()
    }

    /// The push has ended.
    pub(super) fn answered(&self, status: Option<u16>) {
        self.tell(|| Seen::Answered(status));
    }
}

/// A call that is watched, or nothing.
pub(super) struct WatchedCall<'a>(Option<(Watched<'a>, Call)>);

impl WatchedCall<'_> {
    /// The call has its answer.
    pub(super) fn returned(self, status: u16) {
        if let Some((watched, call)) = self.0 {
            watched.tell(|| Seen::Returned(call, status));
        }
    }
}
