//! Scripted failures: what a test asks a peer to do instead of, or after, its work.
//!
//! The same rules come in through [`super::LocalCloud::add_fault`] and over HTTP: `POST /_faults` on any peer with one
//! rule as JSON, `GET /_faults` for what is left, `DELETE /_faults` to forget them. No Google API has a path that
//! begins with an underscore, so the path collides with nothing.
//!
//! ```json
//! {"method": "GET", "pathPrefix": "/storage/v1/", "skip": 1, "count": 2, "effect": {"status": 503, "retryAfter": 1}}
//! ```

use std::{sync::Mutex, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::server::{Connection, Peer, Request, lock, text};

/// One scripted failure and the requests it is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The peer it is for; over HTTP the peer that was asked, unless named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// The HTTP method, in capitals; every one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What the raw path (percent-encoding as sent, no query) begins with.
    #[serde(default)]
    pub path_prefix: String,
    /// Matching requests that are let through first.
    #[serde(default)]
    pub skip: u32,
    /// Matching requests that are hit after those.
    #[serde(default = "once")]
    pub count: u32,
    /// What happens to them.
    pub effect: Effect,
}

fn once() -> u32 {
    1
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Effect {
    /// Answers with this status in place of doing the work.
    #[serde(rename_all = "camelCase")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// Does the work, then closes the connection after this many bytes of the answer's body.
    #[serde(rename_all = "camelCase")]
    Cut {
        /// Bytes of the body that still arrive.
        cut_after: usize,
    },
    /// Does the work, then sends nothing more after this many bytes of the body, and keeps the connection open.
    #[serde(rename_all = "camelCase")]
    Stall {
        /// Bytes of the body that still arrive.
        stall_after: usize,
    },
    /// Flips one bit in the middle of the answer's body, under the true headers.
    Corrupt {
        /// Always true.
        corrupt: bool,
    },
    /// Resets the connection (TCP RST) before anything is done.
    Reset {
        /// Always true.
        reset: bool,
    },
    /// Does the work, then resets the connection: the answer is lost, the effect is not.
    #[serde(rename_all = "camelCase")]
    LoseAnswer {
        /// Always true.
        lose_answer: bool,
    },
    /// Waits before the work is done.
    #[serde(rename_all = "camelCase")]
    Delay {
        /// Milliseconds.
        delay_milliseconds: u64,
    },
    /// Never answers: neither status nor headers.
    Silence {
        /// Always true.
        silence: bool,
    },
}

/// The rules that are waiting for their requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        lock(&self.rules).push(fault);
    }

    pub(super) fn clear(&self) {
        lock(&self.rules).clear();
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        lock(&self.rules).clone()
    }

    /// The effect of the first rule that fits, which this uses up by one.
    pub(super) fn take(&self, peer: Peer, request: &Request) -> Option<Effect> {
        let mut rules = lock(&self.rules);
        let index = rules.iter().position(|rule| {
            rule.peer.is_none_or(|wanted| wanted == peer)
                && rule
                    .method
                    .as_deref()
                    .is_none_or(|method| method == request.method.as_str())
                && request.path.starts_with(&rule.path_prefix)
        })?;
        let rule = &mut rules[index];
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        let effect = (rule.count > 0).then(|| rule.effect.clone());
        rule.count = rule.count.saturating_sub(1);
        if rule.count == 0 {
            rules.remove(index);
        }
        effect
    }

    /// `/_faults` over HTTP.
    pub(super) fn handle(&self, peer: Peer, request: &Request) -> Response {
        match request.method.as_str() {
            "GET" => super::server::json(StatusCode::OK, &self.list()),
            "DELETE" => {
                self.clear();
                text(StatusCode::OK, "")
            }
            "POST" => match serde_json::from_slice::<Fault>(&request.body) {
                Ok(mut fault) => {
                    fault.peer.get_or_insert(peer);
                    self.add(fault);
                    text(StatusCode::OK, "")
                }
                Err(error) => text(StatusCode::BAD_REQUEST, &format!("not a fault: {error}")),
            },
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "use GET, POST or DELETE"),
        }
    }
}

/// What is done before the peer's own work: an answer means that there is none to do.
pub(super) async fn before(effect: Option<&Effect>, connection: &Connection) -> Option<Response> {
    match effect? {
        Effect::Status { status, retry_after } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = super::server::json(
                status,
                &serde_json::json!({"error": {
                    "code": status.as_u16(),
                    "message": "scripted failure",
                    "status": "UNAVAILABLE",
                    "errors": [{"message": "scripted failure", "domain": "global", "reason": "backendError"}],
                }}),
            );
            if let Some(seconds) = retry_after {
                answer
                    .headers_mut()
                    .insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            Some(answer)
        }
        Effect::Reset { .. } => Some(reset(connection)),
        Effect::Silence { .. } => std::future::pending().await,
        Effect::Delay { delay_milliseconds } => {
            tokio::time::sleep(Duration::from_millis(*delay_milliseconds)).await;
            None
        }
        Effect::Cut { .. } | Effect::Stall { .. } | Effect::Corrupt { .. } | Effect::LoseAnswer { .. } => None,
    }
}

/// What is done to the answer of the peer's own work.
pub(super) async fn after(effect: Option<&Effect>, connection: &Connection, answer: Response) -> Response {
    match effect {
        Some(Effect::Cut { cut_after }) => broken_off(answer, *cut_after, false).await,
        Some(Effect::Stall { stall_after }) => broken_off(answer, *stall_after, true).await,
        Some(Effect::Corrupt { .. }) => corrupted(answer).await,
        Some(Effect::LoseAnswer { .. }) => reset(connection),
        _ => answer,
    }
}

/// A body that fails at once makes the server drop the connection; the mark on it turns the close into a reset.
fn reset(connection: &Connection) -> Response {
    connection.reset_on_close();
    Response::new(Body::from_stream(stream::once(async {
        Err::<Bytes, _>(std::io::Error::other("scripted reset"))
    })))
}

async fn broken_off(answer: Response, length: usize, stall: bool) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let head = bytes.slice(..length.min(bytes.len()));
    let tail = stream::once(async move {
        if stall {
            std::future::pending::<()>().await;
        }
        // The server writes what it holds when the body has nothing more for it yet; an error at once would lose it.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("scripted cut"))
    });
    let body = stream::once(async move { Ok::<Bytes, std::io::Error>(head) }).chain(tail);
    Response::from_parts(parts, Body::from_stream(body))
}

async fn corrupted(answer: Response) -> Response {
    let (parts, body) = answer.into_parts();
    let mut bytes = to_bytes(body, usize::MAX).await.unwrap_or_default().to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x20;
    }
    Response::from_parts(parts, Body::from(bytes))
}
