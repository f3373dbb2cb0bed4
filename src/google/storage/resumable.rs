//! An upload in a session: what breaks is asked about, and goes on from what the server has.
//!
//! A session begins under the upload's precondition, which is checked again at its end. Its URL is all that anybody
//! needs to write, so it is a [`Secret`], and only the endpoint itself is believed to give one.
//! Source: cloud.google.com/storage/docs/performing-resumable-uploads.
//!
//! The bytes are not idempotent: they go where the last ones stopped. So after every break that may have brought some
//! the server is asked how many it has; only what was certainly not sent is sent again as it was. Breaks cost their
//! pauses. Sending is free the first time and after every break that left more bytes on the server than ever before;
//! any other counts against the budget, so that a long upload is not starved and one that gets nowhere ends.
//!
//! A session that is given up is left to itself: nobody else knows its URL, it holds no name in the bucket, and Cloud
//! Storage forgets it after a week.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Body, Method, Response, StatusCode, Url, header};
use tokio::time::Instant;

use super::Object;
use super::progress::{Progress, bytes_of};
use super::upload::{INSERT, Upload};
use crate::google::api::{Access, Api, authorized};
use crate::google::http::{self, Http};
use crate::google::retry::{Idempotency, Retries};
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

/// What a session says about itself.
enum Answer {
    /// Everything is there, and this is the object.
    Complete(Box<Object>),
    /// This many bytes are there.
    Incomplete(u64),
}

pub(super) async fn run(api: &Api, upload: &Upload<'_>, resource: &str) -> Result<Object, Error> {
    let budget = api.budget();
    let api = &api.within(&budget);
    let mut retries = Retries::new(&budget);
    let mut session = Session::start(api, upload, resource).await?;
    // Bytes that this session has, and the most that any had.
    let (mut there, mut furthest) = (0, 0);
    let mut is_free = true;
    loop {
        let started = Instant::now();
        let patience = match api.http.progress_timeout() {
            patience if is_free => patience,
            patience => patience.min(budget.left()),
        };
        let sent = session.send(there, patience).await;
        let took = started.elapsed();
        let (outcome, asked) = match sent {
            Err(error) if !Idempotency::Not.allows(&error) => {
                let outcome = retries.again(error, Idempotency::Always, || session.ask()).await;
                (outcome, true)
            }
            outcome => (outcome, false),
        };
        let got_further = match &outcome {
            Ok(Answer::Incomplete(now)) => *now > furthest,
            _ => false,
        };
        if !is_free && !got_further {
            budget.spend(took);
        }
        is_free = got_further;
        match outcome {
            Ok(Answer::Complete(object)) => return Ok(*object),
            Ok(Answer::Incomplete(now)) => {
                there = now;
                if got_further {
                    furthest = now;
                    retries.progressed();
                } else if !asked {
                    let message = format!("the server has {now} of {} bytes and takes no more", upload.size);
                    retries
                        .pause(Error::new(Kind::Unavailable, INSERT, resource, message))
                        .await?;
                }
            }
            Err(error) if matches!(error.status, Some(404 | 410)) => {
                retries.pause(error).await?;
                session = Session::start(api, upload, resource).await?;
                there = 0;
            }
            Err(error) if !asked && Idempotency::Not.allows(&error) => retries.pause(error).await?,
            Err(error) => return Err(error),
        }
    }
}

/// An upload that has been begun.
struct Session<'a> {
    http: &'a Http,
    upload: &'a Upload<'a>,
    resource: &'a str,
    url: Secret,
}

impl<'a> Session<'a> {
    /// Two starts leave two sessions, of which one ends unused; the precondition keeps them from both writing.
    async fn start(api: &'a Api, upload: &'a Upload<'a>, resource: &'a str) -> Result<Self, Error> {
        let endpoint = &upload.url(api, "resumable");
        let (http, body) = (&api.http, &upload.resource());
        let begin = |access: Option<Access>| async move {
            let request = authorized(http.request(Method::POST, endpoint), access.as_ref())
                .header("x-upload-content-type", upload.content_type)
                .header("x-upload-content-length", upload.size)
                .json(body);
            http::send(INSERT, resource, request).await
        };
        let response = api.call(Idempotency::ByPrecondition, begin).await?;
        let url = location(endpoint, &response).map_err(|why| Error::new(Kind::Invalid, INSERT, resource, why))?;
        Ok(Self {
            http,
            upload,
            resource,
            url,
        })
    }

    /// Sends all bytes from `offset` on. The URL is the proof of identity: no token goes with it.
    async fn send(&self, offset: u64, patience: Duration) -> Result<Answer, Error> {
        let (progress, size) = (Progress::new(), self.upload.size);
        let bytes = bytes_of(self.upload.file, size, offset, INSERT, self.resource).await?;
        let marks = progress.clone();
        let request = self
            .http
            .upload(Method::PUT, self.url.expose())
            .header(header::CONTENT_TYPE, self.upload.content_type)
            .header(header::CONTENT_LENGTH, size - offset)
            .header(header::CONTENT_RANGE, format!("bytes {offset}-{}/{size}", size - 1))
            .body(Body::wrap_stream(bytes.inspect(move |_| marks.mark())));
        progress
            .watch(patience, INSERT, self.resource, self.answer(request))
            .await
    }

    /// Asks how many bytes are there.
    async fn ask(&self) -> Result<Answer, Error> {
        let request = self
            .http
            .request(Method::PUT, self.url.expose())
            .header(header::CONTENT_LENGTH, 0)
            .header(header::CONTENT_RANGE, format!("bytes */{}", self.upload.size));
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answer, Error> {
        let response = request
            .send()
            .await
            .map_err(|error| http::transport(INSERT, self.resource, error))?;
        match response.status() {
            status if status.is_success() => {
                let object = http::json(INSERT, self.resource, response).await?;
                Ok(Answer::Complete(Box::new(object)))
            }
            StatusCode::PERMANENT_REDIRECT => {
                let failed = |kind, message| Err(Error::new(kind, INSERT, self.resource, message));
                match persisted(&response) {
                    Some(there) if there < self.upload.size => Ok(Answer::Incomplete(there)),
                    Some(there) if there == self.upload.size => {
                        failed(Kind::Unavailable, "the session has all bytes and has not finished")
                    }
                    _ => failed(Kind::Invalid, "the session does not say which bytes it has"),
                }
            }
            _ => {
                let error = http::refused(INSERT, self.resource, response).await;
                Err(Error {
                    message: self.without_id(error.message),
                    ..error
                })
            }
        }
    }

    /// Should the server repeat the session's id, nobody else gets to see it.
    fn without_id(&self, message: String) -> String {
        match Url::parse(self.url.expose()) {
            Ok(url) => url
                .query_pairs()
                .filter(|(name, id)| name == "upload_id" && !id.is_empty())
                .fold(message, |message, (_, id)| message.replace(id.as_ref(), "[redacted]")),
            Err(_) => message,
        }
    }
}

/// The session's URL, which must be of the server that was asked: whoever else got the bytes would have the document.
/// No sentence repeats it.
fn location(endpoint: &str, response: &Response) -> Result<Secret, &'static str> {
    let location = response
        .headers()
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .ok_or("the answer has no session's URL")?;
    let (Ok(endpoint), Ok(session)) = (Url::parse(endpoint), Url::parse(location)) else {
        return Err("the session's URL is none");
    };
    if session.origin() != endpoint.origin() {
        return Err("the session's URL is on another host than the endpoint");
    }
    Ok(Secret::new(session))
}

/// `Range: bytes=0-N` says that N + 1 bytes are there; no such header, that none are.
fn persisted(response: &Response) -> Option<u64> {
    match response.headers().get(header::RANGE) {
        None => Some(0),
        Some(range) => range
            .to_str()
            .ok()?
            .strip_prefix("bytes=0-")?
            .parse::<u64>()
            .ok()?
            .checked_add(1),
    }
}
