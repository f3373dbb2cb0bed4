//! Resumable uploads.
//!
//! A session is behind a lock of its own from when a request for it is looked at until it is answered, so that a client which sends
//! its last request twice gets one object, and twice the same answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::BytesMut;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{
    super::{
        Refusal, World,
        data::blocking,
        identity,
        server::{Request, lock, text},
    },
    LARGEST_OBJECT,
    access::may_replace,
    download,
    expected::Expected,
    object::{Fields, Hashes},
    objects::fields_of,
    parameters::{body, preconditions},
    preconditions::Preconditions,
    route::unknown_method,
    upload::{insert, stored},
    xml,
};

/// Chunks of a resumable upload are multiples of this, but the last.
const CHUNK: usize = 256 * 1024;
/// How long Google keeps a session.
const KEPT: TimeDelta = TimeDelta::weeks(1);
/// Sessions at once, those that are done included: what nobody ends is forgotten, what was touched last at last.
const MOST_SESSIONS: usize = 2_000;
/// Bytes of all sessions that are not done.
const MOST_BYTES: usize = LARGEST_OBJECT;
/// A session that was touched since then is not forgotten for another's bytes.
const IDLE: TimeDelta = TimeDelta::minutes(1);

/// The sessions that go on, by their ids. They end with the process.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Entry>>);

struct Entry {
    session: Arc<Mutex<Session>>,
    /// What it has received, to be counted without its lock.
    length: Arc<AtomicUsize>,
    begun: DateTime<Utc>,
    touched: DateTime<Utc>,
}

/// A resumable upload. Its id is all that a client needs to write.
struct Session {
    bucket: String,
    name: String,
    fields: Fields,
    expected: Expected,
    conditions: Preconditions,
    total: Option<usize>,
    received: BytesMut,
    length: Arc<AtomicUsize>,
    state: State,
}

enum State {
    Open,
    /// The answer, once everything is there; asking again gets it again.
    Done(Bytes),
    /// Refused at its end, or cancelled, while somebody waited for its lock.
    Over,
}

impl Sessions {
    /// Takes in a session; its id. What has ended, or was there for too long, makes room.
    fn begin(&self, now: DateTime<Utc>, mut session: Session) -> String {
        let id = identity::random_hex(32);
        let length = Arc::default();
        session.length = Arc::clone(&length);
        let mut all = lock(&self.0);
        all.retain(|_, entry| now - entry.begun <= KEPT);
        while all.len() >= MOST_SESSIONS {
            let oldest = all.iter().min_by_key(|(_, entry)| entry.touched);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                break;
            };
            all.remove(&oldest);
        }
        let entry = Entry {
            session: Arc::new(Mutex::new(session)),
            length,
            begun: now,
            touched: now,
        };
        all.insert(id.clone(), entry);
        id
    }

    fn find(&self, now: DateTime<Utc>, id: &str) -> Option<Arc<Mutex<Session>>> {
        let mut all = lock(&self.0);
        let entry = all.get_mut(id).filter(|entry| now - entry.begun <= KEPT)?;
        entry.touched = now;
        Some(Arc::clone(&entry.session))
    }

    fn end(&self, id: &str) -> Option<Arc<Mutex<Session>>> {
        lock(&self.0).remove(id).map(|entry| entry.session)
    }

    /// Whether there is room for so many bytes more. Sessions that rest make room.
    fn make_room(&self, now: DateTime<Utc>, more: usize) -> bool {
        let mut all = lock(&self.0);
        loop {
            let taken: usize = all.values().map(|entry| entry.length.load(Ordering::Relaxed)).sum();
            if taken.saturating_add(more) <= MOST_BYTES {
                return true;
            }
            let resting = all
                .iter()
                .filter(|(_, entry)| entry.length.load(Ordering::Relaxed) > 0 && now - entry.touched > IDLE);
            let Some(oldest) = resting.min_by_key(|(_, entry)| entry.touched).map(|(id, _)| id.clone()) else {
                return false;
            };
            all.remove(&oldest);
        }
    }
}

/// What a `POST` with `uploadType=resumable` begins.
pub(super) fn start(
    world: &World,
    request: &Request,
    caller: Option<&str>,
    bucket: String,
) -> Result<Response, Refusal> {
    let metadata = if request.body.is_empty() {
        Value::default()
    } else {
        body(request)?
    };
    let mut fields = if metadata.is_null() {
        Fields::default()
    } else {
        fields_of(&metadata)?
    };
    let announced = request.header("x-upload-content-type").map(str::to_owned);
    fields.content_type = fields.content_type.or(announced);
    let name = request
        .parameter("name")
        .or_else(|| metadata["name"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let conditions = preconditions(request)?;
    may_replace(world, caller, (&bucket, &name), &conditions)?;
    let length = request.header("x-upload-content-length").map(str::parse).transpose();
    let total = length.map_err(|_| Refusal::invalid("Invalid X-Upload-Content-Length"))?;
    if let Some(total) = total {
        fits(total)?;
    }
    world.storage.look().may_insert(&bucket, &name, &conditions)?;
    let expected = Expected::of_json(&metadata).or(Expected::of_headers(&request.headers));
    let session = Session::new((bucket, name), fields, conditions, expected, total);
    let id = world.storage.sessions.begin(world.clock.now(), session);
    let query = format!("uploadType=resumable&upload_id={id}");
    let location = format!("http://{}{}?{query}", request.host(), request.path);
    let mut answer = text(StatusCode::OK, "");
    download::set(&mut answer, "location", &location);
    download::set(&mut answer, "x-guploader-uploadid", &id);
    Ok(answer)
}

/// What a signed `POST` with `x-goog-resumable: start` begins.
pub(super) fn start_signed(world: &World, request: &Request, bucket: &str, name: &str) -> Result<Response, Refusal> {
    let conditions = xml::conditions(request)?;
    world.storage.look().may_insert(bucket, name, &conditions)?;
    let place = (bucket.to_owned(), name.to_owned());
    let session = Session::new(place, xml::fields(request), conditions, Expected::default(), None);
    let id = world.storage.sessions.begin(world.clock.now(), session);
    let mut answer = text(StatusCode::CREATED, "");
    let location = format!(
        "http://{}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}",
        request.host()
    );
    download::set(&mut answer, "location", &location);
    Ok(answer)
}

/// A chunk, or a question how far it got. The session's id is the proof of identity, as at Google.
pub(super) fn resume(world: &World, request: &Request, id: &str) -> Result<Response, Refusal> {
    let gone = || Refusal::new(StatusCode::NOT_FOUND, "notFound", "No such upload session.");
    let (sessions, now) = (&world.storage.sessions, world.clock.now());
    if request.method == "DELETE" {
        let ended = sessions.end(id).ok_or_else(gone)?;
        // One that is being stored is done first.
        blocking(|| lock(&ended).state = State::Over);
        return Ok(text(StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), ""));
    }
    if request.method != "PUT" && request.method != "POST" {
        return Err(unknown_method());
    }
    let session = sessions.find(now, id).ok_or_else(gone)?;
    let mut session = blocking(|| lock(&session));
    match &session.state {
        State::Done(answer) => return Ok(stored(answer.clone())),
        State::Over => return Err(gone()),
        State::Open => {}
    }
    if !session.take(request, |more| sessions.make_room(now, more))? {
        return Ok(incomplete(request, session.received.len()));
    }
    let stored_now = session.store(world, request);
    if let State::Over = session.state {
        sessions.end(id);
    }
    stored_now
}

/// Whether an object of this size can be here at all.
pub(super) fn fits(size: usize) -> Result<(), Refusal> {
    match size > LARGEST_OBJECT {
        true => Err(Refusal::invalid(format!(
            "The local cloud's objects cannot be larger than {LARGEST_OBJECT} bytes, and this one has {size}."
        ))),
        false => Ok(()),
    }
}

impl Session {
    fn new(
        (bucket, name): (String, String),
        fields: Fields,
        conditions: Preconditions,
        expected: Expected,
        total: Option<usize>,
    ) -> Self {
        Self {
            bucket,
            name,
            fields,
            expected,
            conditions,
            total,
            received: BytesMut::new(),
            length: Arc::default(),
            state: State::Open,
        }
    }

    /// Adds what the request brings; whether that was the last of it. A refusal leaves it as it was.
    fn take(&mut self, request: &Request, make_room: impl Fn(usize) -> bool) -> Result<bool, Refusal> {
        let bad = || Refusal::invalid("Failed to parse Content-Range header.");
        let another_size = || Refusal::invalid("The upload has another size than announced.");
        let Some(range) = request.header("content-range") else {
            if self.total.is_some_and(|total| total != request.body.len()) {
                return Err(another_size());
            }
            let before = self.received.split();
            self.count();
            if let Err(refusal) = self.add(&request.body, make_room) {
                self.received = before;
                self.count();
                return Err(refusal);
            }
            return Ok(true);
        };
        let (span, total) = range
            .strip_prefix("bytes ")
            .and_then(|range| range.split_once('/'))
            .ok_or_else(bad)?;
        let here = self.received.len();
        let mut announced = self.total;
        if total != "*" {
            let total: usize = total.parse().map_err(|_| bad())?;
            fits(total)?;
            if announced.is_some_and(|announced| announced != total) || total < here {
                return Err(another_size());
            }
            announced = Some(total);
        }
        if span != "*" {
            let (first, last) = span.split_once('-').ok_or_else(bad)?;
            let first: usize = first.parse().map_err(|_| bad())?;
            let last: usize = last.parse().map_err(|_| bad())?;
            let length = last.checked_sub(first).and_then(|length| length.checked_add(1));
            let is_past_the_end = announced.is_some_and(|total| last >= total);
            if length != Some(request.body.len()) || first > here || is_past_the_end {
                return Err(bad());
            }
            // Bytes that are here already, after a lost answer, are not taken twice.
            if let Some(new) = request.body.get(here - first..) {
                let ends = announced == Some(last + 1);
                let kept = match ends {
                    true => new.len(),
                    false => ((here + new.len()) / CHUNK * CHUNK).saturating_sub(here),
                };
                self.add(&new[..kept], make_room)?;
            }
        }
        self.total = announced;
        Ok(self.total == Some(self.received.len()))
    }

    fn add(&mut self, bytes: &[u8], make_room: impl Fn(usize) -> bool) -> Result<(), Refusal> {
        fits(self.received.len() + bytes.len())?;
        if !make_room(bytes.len()) {
            let message = format!("The uploads that are not done have more than {MOST_BYTES} bytes. Try again later.");
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "backendError", message));
        }
        self.received.extend_from_slice(bytes);
        self.count();
        Ok(())
    }

    fn count(&self) {
        self.length.store(self.received.len(), Ordering::Relaxed);
    }

    /// Makes the object, now that all of it is here.
    fn store(&mut self, world: &World, request: &Request) -> Result<Response, Refusal> {
        let content = self.received.split().freeze();
        let hashes = Hashes::of(&content);
        let checked = self.expected.check(&hashes);
        // Some clients know the hash only when they have sent everything.
        let checked = checked.and_then(|()| Expected::of_headers(&request.headers).check(&hashes));
        let place = (&*self.bucket, &*self.name);
        let made = checked.and_then(|()| {
            insert(
                world,
                place,
                self.fields.clone(),
                (content.clone(), hashes),
                &self.conditions,
            )
        });
        let answer = match made {
            Ok(resource) => {
                self.state = State::Done(resource.clone());
                Ok(stored(resource))
            }
            // Once there is room again the client asks again.
            Err(refusal) if refusal.code == StatusCode::SERVICE_UNAVAILABLE => {
                self.received = content.into();
                Err(refusal)
            }
            Err(refusal) => {
                self.state = State::Over;
                Err(refusal)
            }
        };
        self.count();
        answer
    }
}

/// "Go on from here." Clients that cannot take a 308 say so, and get a 200 that carries it.
fn incomplete(request: &Request, received: usize) -> Response {
    let mut answer = text(StatusCode::PERMANENT_REDIRECT, "");
    if request.header("x-guploader-no-308") == Some("yes") {
        *answer.status_mut() = StatusCode::OK;
        answer
            .headers_mut()
            .insert("x-http-status-code-override", HeaderValue::from_static("308"));
    }
    if received > 0 {
        let range = format!("bytes=0-{}", received - 1);
        download::set(&mut answer, header::RANGE.as_str(), &range);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_leaves_what_is_there() {
        let place = ("bucket".to_owned(), "object".to_owned());
        let conditions = Preconditions::default();
        let mut session = Session::new(place, Fields::default(), conditions, Expected::default(), None);
        session.add(b"before", |_| true).unwrap();
        let whole = Request {
            method: axum::http::Method::PUT,
            path: String::new(),
            query: String::new(),
            headers: axum::http::HeaderMap::new(),
            body: Bytes::from_static(b"instead of it"),
        };
        let refusal = session.take(&whole, |_| false).unwrap_err();
        assert_eq!(refusal.code, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            (&session.received[..], session.length.load(Ordering::Relaxed)),
            (&b"before"[..], 6)
        );
        assert!(session.take(&whole, |_| true).unwrap());
        assert_eq!(&session.received[..], b"instead of it");
    }

    /// As many bytes as that, without having them.
    fn holding(sessions: &Sessions, now: DateTime<Utc>, bytes: usize) -> String {
        let place = ("bucket".to_owned(), "object".to_owned());
        let conditions = Preconditions::default();
        let session = Session::new(place, Fields::default(), conditions, Expected::default(), None);
        let id = sessions.begin(now, session);
        lock(&sessions.0)[&id].length.store(bytes, Ordering::Relaxed);
        id
    }

    #[test]
    fn sessions_that_rest_make_room_and_no_others() {
        let (sessions, start) = (Sessions::default(), DateTime::UNIX_EPOCH);
        let (third, minute) = (MOST_BYTES / 3, TimeDelta::minutes(1));
        let oldest = holding(&sessions, start, third);
        let old = holding(&sessions, start + minute, third);
        let empty = holding(&sessions, start, 0);
        let recent = holding(&sessions, start + minute * 3, third);
        let now = start + minute * 3;
        let is_there = |id: &String| lock(&sessions.0).contains_key(id);
        assert!(sessions.make_room(now, MOST_BYTES - third * 3), "it fits");
        assert!(is_there(&oldest));
        assert!(sessions.make_room(now, third));
        assert!(!is_there(&oldest) && is_there(&old) && is_there(&empty));
        // What was touched a moment ago is not taken from its client.
        assert!(!sessions.make_room(now, MOST_BYTES));
        assert!(is_there(&recent) && is_there(&empty) && !is_there(&old));
        assert!(sessions.find(now, &recent).is_some());
    }
}
