//! The worker's HTTP service: who may come in, how a request is read, and what the pipeline's end is answered with.

mod answer;
mod bodies;
mod connection;
mod crowd;
mod fonts;
mod metrics;
mod refusals;
mod shutdown;
mod start;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use serde_json::json;

use crate::error::{Refusal, RefusalKind};
use crate::failpoint::failpoint;
use crate::pipeline::{self, Context};
use crate::trace::{self, Trace};

use bodies::Bodies;
pub use connection::serve;
pub use fonts::{MOST_LISTED as MOST_FONTS_LISTED, storage_for_fonts};
pub use metrics::serve as serve_metrics;
pub use shutdown::{Shutdown, Signals};
pub use start::{StartError, admission, foreseen, start, start_engine};

/// The largest headers, all together.
const HEADER_LIMIT: usize = 16 << 10;

/// What every request sees.
pub struct Service {
    /// The pipeline's parts.
    pub context: Arc<Context>,
    /// How far the worker's end has come.
    pub shutdown: Shutdown,
    /// What is held of requests.
    bodies: Bodies,
}

impl Service {
    /// Before the first request.
    pub fn new(context: Context) -> Self {
        Self {
            context: Arc::new(context),
            shutdown: Shutdown::default(),
            bodies: Bodies::default(),
        }
    }
}

/// The routes.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", post(deliver).fallback(only_post))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .fallback(nowhere)
        .layer(middleware::from_fn(bounded_headers))
        .with_state(service)
}

/// Refuses headers over 16 KiB, counted as they were sent: name, colon, blank, value, line end.
async fn bounded_headers(request: Request, next: Next) -> Response {
    let size: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if size > HEADER_LIMIT {
        let (status, message) = (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The headers are over 16 KiB.",
        );
        if request.uri().path() == "/" {
            refusals::unreadable(status, message);
            crate::metrics::delivery(status.as_u16());
        }
        return answer::error(status, "request.headers_too_large", message);
    }
    next.run(request).await
}

async fn deliver(service: State<Arc<Service>>, request: Request) -> Response {
    let (arrived, started) = (Utc::now(), Instant::now());
    let trace = Trace::from_headers(request.headers());
    let answered = async {
        let mut waiting = Waiting { is_answered: false };
        let response = answered(service, request, arrived, started).await;
        waiting.is_answered = true;
        response
    };
    let response = trace::within(started, trace, answered).await;
    crate::metrics::delivery(response.status().as_u16());
    response
}

/// Somebody waits for an answer. Dropped before there was one, the connection is gone.
struct Waiting {
    is_answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_answered {
            crate::metrics::hung_up();
            refusals::hung_up();
        }
    }
}

async fn answered(
    State(service): State<Arc<Service>>,
    request: Request,
    arrived: DateTime<Utc>,
    started: Instant,
) -> Response {
    let (parts, body) = request.into_parts();
    let under_way = Arc::new(service.shutdown.enter());
    let take = async {
        // The token first: nobody makes us read 16 MiB without one.
        match service.context.verifier.verify(&parts.headers, arrived).await {
            Ok(caller) => tracing::debug!(caller = caller.email, "verified"),
            Err(refusal) => return Err(Box::new(answer::refuse(&refusal))),
        }
        failpoint!("token.verified", |refusal| Err(Box::new(answer::refuse(&refusal))));
        service.bodies.read(body).await
    };
    let body = tokio::select! {
        biased;
        taken = take => match taken {
            Ok(body) => body,
            Err(response) => return *response,
        },
        // It is not all there, and nothing has begun that could be finished.
        () = service.shutdown.draining() => return answer::refuse(&shutting_down()),
    };
    let wants_result = prefers_representation(&parts.headers);
    let request = pipeline::Request {
        headers: parts.headers,
        body: body.bytes.clone(),
        arrived,
        started,
        acknowledgement: if wants_result { 200 } else { 204 },
    };
    if service.shutdown.is_draining() {
        return refuse_and_report(&service, &request).await;
    }
    // Nothing of a request that panicked is used again, so nothing half-done can be seen.
    let run = AssertUnwindSafe(pipeline::run(&service.context, &request, under_way.clone())).catch_unwind();
    let ended = tokio::select! {
        biased;
        ended = run => ended,
        () = service.shutdown.ending() => return refuse_and_report(&service, &request).await,
    };
    failpoint!("answer.before", |refusal| answer::refuse(&refusal));
    match ended {
        Ok(Ok(outcome)) => answer::done(&outcome, wants_result),
        Ok(Err(refusal)) if refusal.remedy.is_some() => {
            let member = service.context.google.storage.member().await;
            answer::refuse_as(&member, &refusal)
        }
        Ok(Err(refusal)) => answer::refuse(&refusal),
        Err(_) => answer::refuse(&pipeline::panicked()),
    }
}

fn shutting_down() -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "the worker is shutting down")
}

/// Refuses what the worker's end leaves no time for; where it was the last delivery, that is reported if it can be.
async fn refuse_and_report(service: &Service, request: &pipeline::Request) -> Response {
    let refusal = tokio::select! {
        refused = pipeline::refuse(&service.context, request, shutting_down()) => refused,
        () = service.shutdown.ended() => shutting_down(),
    };
    answer::refuse(&refusal)
}

/// RFC 7240: a caller that is not Pub/Sub may ask for the result itself. Of a preference that is stated twice the first
/// counts, and what follows a semicolon is a parameter.
fn prefers_representation(headers: &HeaderMap) -> bool {
    let lines = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = lines.flat_map(|line| line.split(',')).filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("return")
            .then(|| value.trim().trim_matches('"').to_owned())
    });
    preferences
        .next()
        .is_some_and(|value| value.eq_ignore_ascii_case("representation"))
}

async fn live() -> Response {
    answer::json(StatusCode::OK, &json!({"status": "live"}))
}

async fn ready(State(service): State<Arc<Service>>) -> Response {
    let draining = service.shutdown.is_draining();
    let engine = *service.context.engine.warm().borrow();
    let keys = service.context.keys.loaded();
    let ready = engine && keys && !draining;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer::json(
        status,
        &json!({
            "status": if ready { "ready" } else { "not ready" },
            "engine": {"warm": engine, "version": service.context.engine.version()},
            "keys": {"loaded": keys},
            "config": service.context.secrets.status(),
            "draining": draining,
        }),
    )
}

async fn only_post(method: Method) -> Response {
    let message = format!("{method} is not answered here: send events with POST.");
    let mut response = answer::error(StatusCode::METHOD_NOT_ALLOWED, "request.method", &message);
    response
        .headers_mut()
        .insert("allow", axum::http::HeaderValue::from_static("POST"));
    response
}

async fn nowhere(uri: Uri) -> Response {
    let message = format!("There is nothing at {}: events go to '/'.", uri.path());
    answer::error(StatusCode::NOT_FOUND, "request.path", &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preference_is_found_among_others() {
        for (value, expected) in [
            ("return=representation", true),
            ("respond-async, Return=Representation", true),
            ("return = \"representation\"; foo=bar", true),
            ("return=minimal", false),
            ("return=minimal, return=representation", false),
            ("handling=lenient; return=representation", false),
            ("representation", false),
        ] {
            let headers = [(axum::http::HeaderName::from_static("prefer"), value.parse().unwrap())]
                .into_iter()
                .collect();
            assert_eq!(prefers_representation(&headers), expected, "{value}");
        }
    }
}
