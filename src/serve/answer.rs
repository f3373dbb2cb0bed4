//! The one place where an outcome becomes an HTTP status: acknowledged or not.
//!
//! 204 and 200 are the only statuses that both the real service and Google's emulator take as an acknowledgement (the
//! emulator refuses 202).

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use super::refusals;
use crate::error::{Refusal, RefusalKind};
use crate::google::grant;
use crate::pipeline::Outcome;

/// What `Retry-After` asks for when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Acknowledged: 204, or 200 with the result for a caller that asked for it.
pub(super) fn done(outcome: &Outcome, wants_result: bool) -> Response {
    match outcome {
        Outcome::Published(result) if wants_result => {
            let mut response = json(StatusCode::OK, result);
            response
                .headers_mut()
                .insert("preference-applied", HeaderValue::from_static("return=representation"));
            response
        }
        Outcome::Published(_) | Outcome::Ignored(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    }
}

/// Not acknowledged. Logged here, at most once.
pub(super) fn refuse(refusal: &Refusal) -> Response {
    refuse_as(grant::UNKNOWN, refusal)
}

/// The same for a refusal that may be for want of a right: `member` is who lacks it, for the log.
pub(super) fn refuse_as(member: &str, refusal: &Refusal) -> Response {
    refusals::log(refusal, member);
    match refusal.kind {
        RefusalKind::NotAnEvent => error(StatusCode::BAD_REQUEST, "request.not_an_event", &refusal.message),
        RefusalKind::Unauthenticated => {
            // The caller learns nothing: not even whether there was a token.
            let mut response = error(
                StatusCode::UNAUTHORIZED,
                "request.unauthenticated",
                "The request is not authenticated.",
            );
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        RefusalKind::WrongCaller => error(
            StatusCode::FORBIDDEN,
            "request.forbidden",
            "The caller or the audience is not one this worker accepts.",
        ),
        RefusalKind::Busy => later(
            refusal,
            error(
                StatusCode::TOO_MANY_REQUESTS,
                "worker.busy",
                "There is no room for this now: try again later.",
            ),
        ),
        RefusalKind::Unavailable => later(
            refusal,
            error(
                StatusCode::SERVICE_UNAVAILABLE,
                "worker.unavailable",
                "The worker cannot do this now: try again later.",
            ),
        ),
        RefusalKind::Bug => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "worker.bug",
            "The worker has a bug: its log says more.",
        ),
    }
}

fn later(refusal: &Refusal, mut response: Response) -> Response {
    let seconds = refusal.retry_after.unwrap_or(RETRY_AFTER).as_secs().clamp(1, 600);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// A refusal's body: `{"error":{"code","message"}}`.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    #[derive(Serialize)]
    struct Said<'a> {
        code: &'a str,
        message: &'a str,
    }
    #[derive(Serialize)]
    struct Answer<'a> {
        error: Said<'a>,
    }
    let error = Said { code, message };
    json(status, &Answer { error })
}

/// Any JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
