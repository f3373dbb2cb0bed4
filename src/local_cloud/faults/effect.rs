//! What a fault does to a request and to its answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::super::{
    bodies::{Bodies, Held, NotRead},
    server::Connection,
};

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Does the work, then sends the answer's body in small pieces, with a pause before each.
    #[serde(rename_all = "camelCase")]
    Drip {
        /// Bytes of one piece, at least 1.
        drip_bytes: usize,
        /// The pause.
        every_milliseconds: u64,
    },
    /// Reads this many bytes of the request's body, and then resets the connection: nothing is done.
    #[serde(rename_all = "camelCase")]
    CutRequest {
        /// Bytes of the request's body that are still read.
        cut_request_after: usize,
    },
    /// One of several effects, with some probability: the n-th request that the rule looks at meets the same fate in
    /// every run with this seed.
    #[serde(rename_all = "camelCase")]
    Chance {
        /// From 0 (never) to 1 (always).
        probability: f64,
        /// What the draws depend on, with the request's number.
        seed: u64,
        /// What happens, each as likely as the others; at least one, and none of them left to chance again.
        one_of: Vec<Effect>,
    },
}

impl Effect {
    /// One of each in JSON, for who wrote something else.
    pub(super) const EXAMPLES: &'static str = r#"{"status": 503}, {"status": 429, "retryAfter": 1}, {"cutAfter": 10}, {"stallAfter": 10}, {"corrupt": true}, {"reset": true}, {"loseAnswer": true}, {"delayMilliseconds": 500}, {"silence": true}, {"dripBytes": 1024, "everyMilliseconds": 50}, {"cutRequestAfter": 10}, {"probability": 0.5, "seed": 1, "oneOf": [{"status": 503}]}"#;

    /// Answers with this status, and asks for no wait.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            retry_after: None,
        }
    }

    /// The effect on the `number`-th request; none where chance spares it.
    pub(super) fn drawn(&self, number: u64) -> Option<&Self> {
        let Self::Chance {
            probability,
            seed,
            one_of,
        } = self
        else {
            return Some(self);
        };
        let draw = mixed(seed.wrapping_add(number.wrapping_mul(GOLDEN)));
        // The upper 53 bits are what an f64 can hold: evenly spread over 0..1.
        let share = (draw >> 11) as f64 / (1u64 << 53) as f64;
        let hit = share < *probability;
        let choice = mixed(draw).checked_rem(one_of.len() as u64)?;
        hit.then(|| one_of.get(usize::try_from(choice).ok()?)).flatten()
    }

    /// What serde's types leave open.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Status { status, .. } if !(100..600).contains(status) => Err("status must be from 100 to 599"),
            Self::Drip { drip_bytes: 0, .. } => Err("dripBytes must be at least 1"),
            Self::Chance { probability, .. } if !(0.0..=1.0).contains(probability) => {
                Err("probability must be from 0 to 1")
            }
            Self::Chance { one_of, .. } if one_of.is_empty() => Err("oneOf must hold an effect"),
            Self::Chance { one_of, .. } => one_of.iter().try_for_each(|effect| match effect {
                Self::Chance { .. } => Err("oneOf must not hold another chance"),
                effect => effect.check(),
            }),
            _ => Ok(()),
        }
    }

    /// Its name: the field in JSON that tells it from the others.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Cut { .. } => "cutAfter",
            Self::Stall { .. } => "stallAfter",
            Self::Corrupt { .. } => "corrupt",
            Self::Reset { .. } => "reset",
            Self::LoseAnswer { .. } => "loseAnswer",
            Self::Delay { .. } => "delayMilliseconds",
            Self::Silence { .. } => "silence",
            Self::Drip { .. } => "dripBytes",
            Self::CutRequest { .. } => "cutRequestAfter",
            Self::Chance { .. } => "probability",
        }
    }
}

/// The increment and the mixer of SplitMix64 (Steele, Lea and Flood, 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Reads the request's body whole; none where the effect ends the request in the middle of it.
///
/// # Errors
/// The client's own end.
pub(in super::super) async fn request_body(
    effect: Option<&Effect>,
    body: Body,
    bodies: &Bodies,
) -> Result<Option<Held>, NotRead> {
    let Some(Effect::CutRequest { cut_request_after }) = effect else {
        return bodies.read(body).await.map(Some);
    };
    let mut pieces = body.into_data_stream();
    let mut read = 0;
    while read < *cut_request_after
        && let Some(piece) = pieces.next().await
    {
        read += piece.map_err(|_| NotRead::BrokeOff)?.len();
    }
    Ok(None)
}

/// What is done before the peer's own work: an answer means that there is none to do.
pub(in super::super) async fn before(effect: Option<&Effect>, connection: &Connection) -> Option<Response> {
    match effect? {
        Effect::Status { status, retry_after } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = super::super::server::json(
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
        Effect::CutRequest { .. } => Some(reset(connection)),
        Effect::Cut { .. }
        | Effect::Stall { .. }
        | Effect::Corrupt { .. }
        | Effect::LoseAnswer { .. }
        | Effect::Drip { .. }
        | Effect::Chance { .. } => None,
    }
}

/// What is done to the answer of the peer's own work.
pub(in super::super) async fn after(effect: Option<&Effect>, connection: &Connection, answer: Response) -> Response {
    match effect {
        Some(Effect::Cut { cut_after }) => broken_off(answer, *cut_after, false).await,
        Some(Effect::Stall { stall_after }) => broken_off(answer, *stall_after, true).await,
        Some(Effect::Corrupt { .. }) => corrupted(answer).await,
        Some(Effect::Drip {
            drip_bytes,
            every_milliseconds,
        }) => dripping(answer, *drip_bytes, Duration::from_millis(*every_milliseconds)).await,
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

async fn dripping(answer: Response, piece: usize, pause: Duration) -> Response {
    let (mut parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts
        .headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let pieces = stream::unfold(bytes, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let piece = left.split_to(piece.clamp(1, left.len()));
        Some((Ok::<Bytes, std::io::Error>(piece), left))
    });
    Response::from_parts(parts, Body::from_stream(pieces))
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
