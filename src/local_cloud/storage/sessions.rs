//! Resumable uploads.

use axum::{
    body::Bytes,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::BytesMut;
use serde_json::Value;

use super::{
    super::{
        Refusal, World, identity,
        server::{Request, lock, text},
    },
    access::may_replace,
    download,
    expected::Expected,
    object::Fields,
    objects::fields_of,
    parameters::{body, preconditions},
    preconditions::Preconditions,
    route::unknown_method,
    upload::{insert, stored},
    xml,
};

/// Chunks of a resumable upload are multiples of this, but the last.
const CHUNK: usize = 256 * 1024;

/// A resumable upload that goes on. Its id is all that a client needs to write.
pub(super) struct Session {
    bucket: String,
    name: String,
    fields: Fields,
    expected: Expected,
    conditions: Preconditions,
    total: Option<usize>,
    received: BytesMut,
    /// The answer, once everything is there; asking again gets it again.
    done: Option<Bytes>,
}

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
    let id = identity::random_hex(32);
    world.storage.look().may_insert(&bucket, &name, &conditions)?;
    let query = format!("uploadType=resumable&upload_id={id}");
    let location = format!("http://{}{}?{query}", request.host(), request.path);
    let expected = Expected::of_json(&metadata).or(Expected::of_headers(&request.headers));
    let received = BytesMut::new();
    lock(&world.storage.sessions).insert(
        id.clone(),
        Session {
            bucket,
            name,
            fields,
            expected,
            conditions,
            total,
            received,
            done: None,
        },
    );
    let mut answer = text(StatusCode::OK, "");
    download::set(&mut answer, "location", &location);
    download::set(&mut answer, "x-guploader-uploadid", &id);
    Ok(answer)
}

/// A chunk, or a question how far it got. The session's id is the proof of identity, as at Google.
pub(super) fn resume(world: &World, request: &Request, id: &str) -> Result<Response, Refusal> {
    let gone = || Refusal::new(StatusCode::NOT_FOUND, "notFound", "No such upload session.");
    let mut sessions = lock(&world.storage.sessions);
    if request.method == "DELETE" {
        sessions.remove(id).ok_or_else(gone)?;
        return Ok(text(StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST), ""));
    }
    if request.method != "PUT" && request.method != "POST" {
        return Err(unknown_method());
    }
    let session = sessions.get_mut(id).ok_or_else(gone)?;
    if let Some(done) = &session.done {
        return Ok(stored(done.clone()));
    }
    let complete = take_chunk(session, request)?;
    if !complete {
        return Ok(incomplete(request, session.received.len()));
    }
    let content = session.received.split().freeze();
    let checked = session.expected.check(&content);
    let (bucket, name) = (session.bucket.clone(), session.name.clone());
    let (fields, conditions) = (session.fields.clone(), session.conditions);
    drop(sessions);
    let result = checked.and_then(|()| insert(world, (&bucket, &name), fields, content.clone(), &conditions));
    let mut sessions = lock(&world.storage.sessions);
    match result {
        Ok(resource) => {
            if let Some(session) = sessions.get_mut(id) {
                session.done = Some(resource.clone());
            }
            Ok(stored(resource))
        }
        // Once there is room again the client asks again.
        Err(refusal) if refusal.code == StatusCode::SERVICE_UNAVAILABLE => {
            if let Some(session) = sessions.get_mut(id) {
                session.received = content.into();
            }
            Err(refusal)
        }
        Err(refusal) => {
            sessions.remove(id);
            Err(refusal)
        }
    }
}

/// Adds what the request brings; whether that was the last of it.
fn take_chunk(session: &mut Session, request: &Request) -> Result<bool, Refusal> {
    let bad = || Refusal::invalid("Failed to parse Content-Range header.");
    let Some(range) = request.header("content-range") else {
        session.received.clear();
        session.received.extend_from_slice(&request.body);
        let whole = session.total.is_none_or(|total| total == session.received.len());
        return if whole {
            Ok(true)
        } else {
            Err(Refusal::invalid("The upload has another size than announced."))
        };
    };
    let (span, total) = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('/'))
        .ok_or_else(bad)?;
    if total != "*" {
        let total = total.parse().map_err(|_| bad())?;
        if session.total.is_some_and(|announced| announced != total) {
            return Err(Refusal::invalid("The upload has another size than announced."));
        }
        session.total = Some(total);
    }
    if span != "*" {
        let (first, last) = span.split_once('-').ok_or_else(bad)?;
        let first: usize = first.parse().map_err(|_| bad())?;
        let last: usize = last.parse().map_err(|_| bad())?;
        let here = session.received.len();
        let length = last.checked_sub(first).and_then(|length| length.checked_add(1));
        let is_past_the_end = session.total.is_some_and(|total| last >= total);
        if length != Some(request.body.len()) || first > here || is_past_the_end {
            return Err(bad());
        }
        // Bytes that are here already, after a lost answer, are not taken twice.
        if let Some(new) = request.body.get(here - first..) {
            session.received.extend_from_slice(new);
        }
        let ends = session.total == Some(last + 1);
        if !ends {
            session.received.truncate(session.received.len() / CHUNK * CHUNK);
        }
    }
    Ok(session.total == Some(session.received.len()))
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
        download::set(
            &mut answer,
            header::RANGE.as_str(),
            &format!("bytes=0-{}", received - 1),
        );
    }
    answer
}

/// What a signed `POST` with `x-goog-resumable: start` begins.
pub(super) fn start_signed(world: &World, request: &Request, bucket: &str, name: &str) -> Result<Response, Refusal> {
    let fields = Fields {
        content_type: request.header("content-type").map(str::to_owned),
        ..Fields::default()
    };
    let id = identity::random_hex(32);
    let conditions = xml::conditions(request)?;
    world.storage.look().may_insert(bucket, name, &conditions)?;
    let session = Session {
        bucket: bucket.to_owned(),
        name: name.to_owned(),
        fields,
        expected: Expected::default(),
        conditions,
        total: None,
        received: BytesMut::new(),
        done: None,
    };
    lock(&world.storage.sessions).insert(id.clone(), session);
    let mut answer = text(StatusCode::CREATED, "");
    let location = format!(
        "http://{}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}",
        request.host()
    );
    download::set(&mut answer, "location", &location);
    Ok(answer)
}
