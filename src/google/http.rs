//! The one HTTP client, and the one place where a status becomes a [`Kind`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header, redirect, retry};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{Error, Kind};
use crate::trace;

/// The rights whose want Cloud Storage's downloads tell.
const OF_DOWNLOADS: [&str; 2] = ["storage.objects.get", "storage.objects.list"];
/// How much of an error's body is read to find Google's message.
const ERROR_BODY_LIMIT: usize = 16 * 1024;
/// How long it is waited for.
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);
/// How much of Google's message is kept.
const MESSAGE_LIMIT: usize = 400;
/// The most that a JSON answer may have. An object resource with all its metadata stays far below.
pub(crate) const JSON_LIMIT: usize = 1024 * 1024;

/// How long to wait for a peer. What carries an object has no total time-out: it may take long as long as bytes move.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// Without a single byte in either direction. A call with a small answer has twice as long for all of it, so that
    /// one that drips ends too.
    pub progress: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            progress: Duration::from_secs(30),
        }
    }
}

/// A client that follows no redirect, uses no proxy from the environment, decodes no content encoding, speaks HTTP/1.1
/// and retries nothing on its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Http {
    calls: reqwest::Client,
    /// Without reqwest's read time-out: that one runs while a request body is sent and is not reset by its progress.
    /// `storage::progress` watches over it.
    uploads: reqwest::Client,
    timeouts: Timeouts,
}

impl Http {
    /// A client with the default time-outs.
    ///
    /// # Errors
    /// `Invalid` when TLS cannot be set up.
    pub fn new() -> Result<Self, Error> {
        Self::with(Timeouts::default())
    }

    /// A client with these time-outs.
    ///
    /// # Errors
    /// `Invalid` when TLS cannot be set up.
    pub fn with(timeouts: Timeouts) -> Result<Self, Error> {
        let calls = build(|| common(timeouts).read_timeout(timeouts.progress))?;
        let uploads = build(|| common(timeouts))?;
        Ok(Self {
            calls,
            uploads,
            timeouts,
        })
    }

    pub(crate) fn progress_timeout(&self) -> Duration {
        self.timeouts.progress
    }

    /// A call with a small request and a small answer.
    pub(crate) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        traced(self.calls.request(method, url)).timeout(self.timeouts.progress * 2)
    }

    /// A call whose answer may be large: only a pause in it ends it.
    pub(crate) fn download(&self, url: &str) -> RequestBuilder {
        traced(self.calls.get(url))
    }

    /// A call whose request may be large. The caller watches over its progress.
    pub(crate) fn upload(&self, method: Method, url: &str) -> RequestBuilder {
        traced(self.uploads.request(method, url))
    }
}

/// Names the trace that the call belongs to (W3C Trace Context), where there is one.
fn traced(request: RequestBuilder) -> RequestBuilder {
    match trace::of_a_call() {
        Some(traceparent) => request.header("traceparent", traceparent),
        None => request,
    }
}

fn common(timeouts: Timeouts) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("platen/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(timeouts.connect)
        .tcp_nodelay(true)
}

/// A machine without a single root certificate can still talk to emulators over plain HTTP: there the client trusts
/// nobody, and every HTTPS call fails with the certificate error.
fn build(builder: impl Fn() -> reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .map_err(|error| {
            Error::new(
                Kind::Invalid,
                "set up HTTPS",
                "this process",
                format!("{}", error.without_url()),
            )
        })
}

/// What an answer that is not 2xx means. `reason` is `error.errors[0].reason` of a Google error body.
fn kind(status: StatusCode, reason: Option<&str>) -> Kind {
    match status.as_u16() {
        401 => Kind::Unauthenticated,
        403 if matches!(reason, Some("rateLimitExceeded" | "userRateLimitExceeded")) => Kind::Throttled,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        408 => Kind::Unavailable,
        412 => Kind::PreconditionFailed,
        413 => Kind::TooLarge,
        429 => Kind::Throttled,
        501 | 505 => Kind::Invalid,
        500..=599 => Kind::Unavailable,
        _ => Kind::Invalid,
    }
}

/// Sends, and turns whatever is not a 2xx into an [`Error`].
pub(crate) async fn send(operation: &'static str, resource: &str, request: RequestBuilder) -> Result<Response, Error> {
    let response = request
        .send()
        .await
        .map_err(|error| transport(operation, resource, error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(refused(operation, resource, response).await)
}

/// The whole body of a small answer.
pub(crate) async fn body(
    operation: &'static str,
    resource: &str,
    mut response: Response,
    limit: usize,
) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| transport(operation, resource, error))?
    {
        if body.len() + chunk.len() > limit {
            return Err(Error::new(
                Kind::TooLarge,
                operation,
                resource,
                format!("the answer is over {limit} bytes"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A small JSON answer.
pub(crate) async fn json<T: DeserializeOwned>(
    operation: &'static str,
    resource: &str,
    response: Response,
) -> Result<T, Error> {
    let body = body(operation, resource, response, JSON_LIMIT).await?;
    parse(operation, resource, &body)
}

/// Reads JSON without repeating any of it in the error: it may hold a token.
pub(crate) fn parse<T: DeserializeOwned>(operation: &'static str, resource: &str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| {
        let position = format!("line {} column {}", error.line(), error.column());
        Error::new(
            Kind::Invalid,
            operation,
            resource,
            format!("the answer is not the JSON expected ({position})"),
        )
    })
}

/// A failure below HTTP, without the URL.
///
/// Sent is whatever may have left this machine. A connection that the server had closed while it lay idle is no failure
/// as long as the request was still whole: hyper takes another one by itself. Once a byte was written it is one, and
/// counts as sent.
pub(crate) fn transport(operation: &'static str, resource: &str, error: reqwest::Error) -> Error {
    let not_sent = error.is_connect();
    let kind = if error.is_builder() {
        Kind::Invalid
    } else {
        Kind::Unavailable
    };
    let what = match () {
        () if not_sent && error.is_timeout() => "no connection in time",
        () if not_sent => "no connection",
        () if error.is_timeout() => "no answer in time",
        () if error.is_body() || error.is_decode() => "the transfer broke off",
        () if error.is_builder() => "not a URL that can be called",
        () => "the request failed",
    };
    let error = error.without_url();
    let mut message = what.to_owned();
    let mut source = std::error::Error::source(&error);
    let mut cause = None;
    while let Some(inner) = source {
        cause = Some(inner.to_string());
        source = inner.source();
    }
    if let Some(cause) = cause {
        message.push_str(": ");
        message.push_str(&clean(&cause));
    }
    Error {
        not_sent,
        ..Error::new(kind, operation, resource, message)
    }
}

/// What an answer that is no success says.
pub(crate) async fn refused(operation: &'static str, resource: &str, response: Response) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let text = beginning(response).await;
    let (message, reason) = google_message(&text);
    let message = match message {
        Some(message) => message,
        None if status.is_redirection() => "the answer is a redirect, which is not followed; check the base URL".into(),
        None => status.canonical_reason().unwrap_or("no reason given").to_owned(),
    };
    Error {
        status: Some(status.as_u16()),
        retry_after,
        ..Error::new(kind(status, reason.as_deref()), operation, resource, message)
    }
}

/// As much of an error's body as is worth reading; a body that breaks off, or drips, is taken as far as it came.
pub(crate) async fn beginning(mut response: Response) -> Vec<u8> {
    let mut text = Vec::new();
    let deadline = Instant::now() + ERROR_BODY_TIME;
    while let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await {
        let room = ERROR_BODY_LIMIT - text.len();
        text.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if text.len() >= ERROR_BODY_LIMIT {
            break;
        }
    }
    text
}

/// How long an answer asks to wait.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    wait(value.to_str().ok()?)
}

/// `Retry-After`: seconds, or a date.
fn wait(value: &str) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // However large: a number that is too large to read asks for a long wait, and not for none.
        let seconds = value.parse().unwrap_or(u32::MAX);
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    Some((date.to_utc() - chrono::Utc::now()).to_std().unwrap_or_default())
}

/// Cloud Storage's downloads say why in one sentence without a frame: `... does not have storage.objects.list access to ...`, which
/// tells an object that is absent from a right that is missing. Nothing but the right is taken from it: text without a frame may be
/// anybody's (an identity provider's, a proxy's), and may hold what they were told.
fn bare_refusal(text: &[u8]) -> Option<String> {
    let (_, after) = std::str::from_utf8(text).ok()?.split_once(" does not have ")?;
    let right = after.split(' ').next()?;
    let right = OF_DOWNLOADS.into_iter().find(|known| *known == right)?;
    Some(format!("the caller does not have {right} access to the object"))
}

/// Google's own words: the JSON APIs say `{"error":{"message","errors":[{"reason"}]}}`, the OAuth endpoints
/// `{"error":"invalid_grant","error_description":"..."}`.
fn google_message(text: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    struct Body {
        error: Option<ErrorField>,
        error_description: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum ErrorField {
        Code(String),
        Status {
            message: Option<String>,
            #[serde(default)]
            errors: Vec<Item>,
        },
    }
    #[derive(Deserialize)]
    struct Item {
        reason: Option<String>,
    }
    let Ok(body) = serde_json::from_slice::<Body>(text) else {
        return (bare_refusal(text), None);
    };
    let (message, reason) = match body.error {
        Some(ErrorField::Status { message, errors }) => (message, errors.into_iter().find_map(|item| item.reason)),
        Some(ErrorField::Code(code)) => match body.error_description {
            Some(description) => (Some(format!("{code}: {description}")), None),
            None => (Some(code), None),
        },
        None => (body.error_description, None),
    };
    (
        message
            .map(|message| clean(&message))
            .filter(|message| !message.is_empty()),
        reason,
    )
}

/// A peer's words made fit for a log: one line, bounded, without queries of URLs and without anything like a token.
pub(crate) fn clean(text: &str) -> String {
    let mut line = String::new();
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        let word = match word.split_once('?') {
            Some((before, query)) if query.contains('=') => before,
            _ => word,
        };
        let secret = word.contains("ya29.") || word.contains("eyJ");
        let word = if secret { "[redacted]" } else { word };
        if line.len() + word.len() + 1 > MESSAGE_LIMIT {
            line.push_str(" ...");
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_no_query_token_or_line_break() {
        let said =
            "see https://storage.googleapis.com/b/o?X-Goog-Signature=abc\r\nBearer ya29.canary eyJhbGciOi.x.y end";
        assert_eq!(
            clean(said),
            "see https://storage.googleapis.com/b/o Bearer [redacted] [redacted] end"
        );
        assert!(clean(&"long ".repeat(1000)).len() <= MESSAGE_LIMIT + 4);
    }

    #[test]
    fn both_shapes_of_googles_error_bodies_are_understood() {
        let api = br#"{"error":{"code":403,"message":"slow down","errors":[{"reason":"rateLimitExceeded"}]}}"#;
        assert_eq!(
            google_message(api),
            (Some("slow down".into()), Some("rateLimitExceeded".into()))
        );
        assert_eq!(kind(StatusCode::FORBIDDEN, Some("rateLimitExceeded")), Kind::Throttled);
        let oauth = br#"{"error":"invalid_grant","error_description":"Token has been revoked."}"#;
        assert_eq!(
            google_message(oauth).0.as_deref(),
            Some("invalid_grant: Token has been revoked.")
        );
        assert_eq!(google_message(b"<html>"), (None, None));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("0"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999"), Some(Duration::from_secs(u32::MAX.into())));
        assert!(wait("Fri, 31 Dec 9999 23:59:59 GMT").unwrap() > Duration::from_secs(86_400 * 3650));
        for unknown in ["", "-5", "+5", "soon"] {
            assert_eq!(wait(unknown), None, "{unknown}");
        }
    }
}
