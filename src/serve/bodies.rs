//! Reads bodies: each within its size and time, and all of them together within a budget. What one request may send times
//! what may be open would be more memory than there is.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{answer, refusals};
use crate::error::{Refusal, RefusalKind};
use crate::metrics;
use crate::pipeline;

/// The largest body: Pub/Sub's 10 MB message as base64 is about 13.4 MiB.
const LARGEST: usize = 16 << 20;
/// How long a body may take to arrive.
const TIME: Duration = Duration::from_secs(30);

/// The budget of all bodies, in bytes.
#[derive(Debug, Clone)]
pub(super) struct Bodies(Arc<Semaphore>);

/// A body, in the budget for as long as this is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _counted: Option<OwnedSemaphorePermit>,
}

impl Default for Bodies {
    fn default() -> Self {
        let budget = usize::try_from(pipeline::BODIES).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(budget.min(Semaphore::MAX_PERMITS))))
    }
}

impl Bodies {
    /// Reads a body to its end. Bytes count when they are here, not when they are announced: who announces much and sends
    /// nothing takes nothing from others.
    ///
    /// # Errors
    /// The answer: 400, 408, 413, or 429 when the budget is spent.
    pub(super) async fn read(&self, body: Body) -> Result<Held, Box<Response>> {
        // A length that is announced is believed at once: nobody has to send what will not be taken.
        if body.size_hint().lower() > LARGEST as u64 {
            return Err(too_large());
        }
        tokio::time::timeout(TIME, self.collect(body))
            .await
            .unwrap_or_else(|_| {
                Err(refused(
                    StatusCode::REQUEST_TIMEOUT,
                    "request.timeout",
                    "The body took too long to arrive.",
                ))
            })
    }

    async fn collect(&self, mut body: Body) -> Result<Held, Box<Response>> {
        let mut bytes = BytesMut::new();
        let mut counted: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(refused(
                    StatusCode::BAD_REQUEST,
                    "request.cut_short",
                    "The body ended before its length.",
                ));
            };
            // Trailers say nothing to us.
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > LARGEST {
                return Err(too_large());
            }
            let more = self.count(data.len())?;
            match &mut counted {
                Some(counted) => counted.merge(more),
                None => counted = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Held {
            bytes: bytes.freeze(),
            _counted: counted,
        })
    }

    fn count(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Box<Response>> {
        // A frame is never longer than a connection's buffer.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.0.clone().try_acquire_many_owned(bytes).map_err(|_| {
            metrics::busy("bodies");
            let message = "the bodies of the requests that are under way take all the memory there is for them";
            Box::new(answer::refuse(&Refusal::new(RefusalKind::Busy, message)))
        })
    }
}

fn too_large() -> Box<Response> {
    refused(
        StatusCode::PAYLOAD_TOO_LARGE,
        "request.too_large",
        "The body is over 16 MiB.",
    )
}

fn refused(status: StatusCode, code: &str, message: &str) -> Box<Response> {
    refusals::unreadable(status, message);
    Box::new(answer::error(status, code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_share_a_budget_and_give_it_back() {
        let bodies = Bodies(Arc::new(Semaphore::new(100)));
        let first = bodies.read(Body::from(vec![1; 60])).await.unwrap();
        assert_eq!(first.bytes.len(), 60);
        let refused = bodies.read(Body::from(vec![2; 41])).await.unwrap_err();
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
        let second = bodies.read(Body::from(vec![3; 40])).await.unwrap();
        drop(first);
        let third = bodies.read(Body::from(vec![4; 60])).await.unwrap();
        assert_eq!((&second.bytes[..], third.bytes.len()), (&[3; 40][..], 60));
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_come_to_its_end_gives_its_bytes_back() {
        let bodies = Bodies(Arc::new(Semaphore::new(100)));
        let part = || futures_util::stream::once(async { Ok(Bytes::from(vec![1; 90])) });
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let slow = Body::from_stream(futures_util::StreamExt::chain(part(), never));
        assert_eq!(bodies.read(slow).await.unwrap_err().status(), 408);
        let cut = futures_util::stream::once(async { Err(std::io::Error::other("reset")) });
        let cut = Body::from_stream(futures_util::StreamExt::chain(part(), cut));
        assert_eq!(bodies.read(cut).await.unwrap_err().status(), 400);
        assert_eq!(bodies.0.available_permits(), 100);
    }

    #[tokio::test]
    async fn a_body_of_no_announced_length_ends_at_the_largest() {
        let bodies = Bodies::default();
        let chunks = (0..=16).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 20])));
        let body = Body::from_stream(futures_util::stream::iter(chunks));
        assert_eq!(bodies.read(body).await.unwrap_err().status(), 413);
        assert_eq!(
            bodies.read(Body::from(vec![0; LARGEST])).await.unwrap().bytes.len(),
            LARGEST
        );
    }
}
