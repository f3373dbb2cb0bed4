//! Uploads: media, multipart (with the part of checksums that Google's own client sends last) and resumable.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::BytesMut;
use serde_json::Value;

use super::{
    super::{
        Refusal, World, base64_of_google, identity,
        server::{Request, decode, lock, text, with_type},
    },
    authorized, body, download, may_replace, multipart, permit, preconditions, resource,
    store::{Fields, Preconditions, crc32c_text, md5_text},
    unknown_method, xml,
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

/// The hashes that the client says the content has.
#[derive(Default)]
pub(super) struct Expected {
    crc32c: Option<String>,
    md5: Option<String>,
}

impl Expected {
    fn of_json(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Self {
            crc32c: text("crc32c"),
            md5: text("md5Hash"),
        }
    }

    /// `X-Goog-Hash: crc32c=...,md5=...`, in one header or two, and `Content-MD5`.
    pub(super) fn of_headers(headers: &HeaderMap) -> Self {
        let mut expected = Self::default();
        let values = headers
            .get_all("x-goog-hash")
            .iter()
            .filter_map(|value| value.to_str().ok());
        for part in values.flat_map(|value| value.split(',')) {
            match part.trim().split_once('=') {
                Some(("crc32c", hash)) => expected.crc32c = Some(hash.to_owned()),
                Some(("md5", hash)) => expected.md5 = Some(hash.to_owned()),
                _ => {}
            }
        }
        if let Some(hash) = headers.get("content-md5").and_then(|value| value.to_str().ok()) {
            expected.md5 = Some(hash.to_owned());
        }
        expected
    }

    fn or(self, other: Self) -> Self {
        Self {
            crc32c: self.crc32c.or(other.crc32c),
            md5: self.md5.or(other.md5),
        }
    }

    pub(super) fn check(&self, content: &[u8]) -> Result<(), Refusal> {
        let (crc32c, md5) = (crc32c_text(content), md5_text(content));
        for (what, expected, actual) in [("CRC32C", &self.crc32c, crc32c), ("MD5 hash", &self.md5, md5)] {
            let Some(expected) = expected else { continue };
            if base64_of_google(expected) != base64_of_google(&actual) {
                return Err(Refusal::invalid(format!(
                    "Provided {what} \"{expected}\" doesn't match calculated {what} \"{actual}\"."
                )));
            }
        }
        Ok(())
    }
}

pub(super) fn handle(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let bucket = decode(path.strip_suffix("/o").ok_or_else(unknown_method)?);
    if let Some(id) = request.parameter("upload_id") {
        return resume(world, request, &id);
    }
    if request.method != "POST" {
        return Err(unknown_method());
    }
    let caller = authorized(world, request)?;
    permit(world, caller.as_deref(), "storage.objects.create", &bucket)?;
    let caller = caller.as_deref();
    match request.parameter("uploadType").as_deref() {
        Some("media") => media(world, request, caller, &bucket),
        Some("multipart") => related(world, request, caller, &bucket),
        Some("resumable") => start(world, request, caller, bucket),
        _ => Err(Refusal::required(
            "Upload type is required: media, multipart or resumable.",
        )),
    }
}

fn media(world: &World, request: &Request, caller: Option<&str>, bucket: &str) -> Result<Response, Refusal> {
    let name = request.parameter("name").unwrap_or_default();
    let conditions = preconditions(request)?;
    may_replace(world, caller, (bucket, &name), &conditions)?;
    let fields = Fields {
        content_type: request.header("content-type").map(str::to_owned),
        content_encoding: request.parameter("contentEncoding"),
        ..Fields::default()
    };
    Expected::of_headers(&request.headers).check(&request.body)?;
    finish(world, (bucket, &name), fields, request.body.clone(), &conditions)
}

/// Stores and tells; the answer is the object's resource.
fn finish(
    world: &World,
    (bucket, name): (&str, &str),
    fields: Fields,
    content: Bytes,
    conditions: &Preconditions,
) -> Result<Response, Refusal> {
    insert(world, (bucket, name), fields, content, conditions).map(stored)
}

/// Stores without a request, over whatever is there; the object's resource.
pub(super) fn put(world: &World, place: (&str, &str), content_type: &str, content: Bytes) -> Result<Value, Refusal> {
    let fields = Fields {
        content_type: Some(content_type.to_owned()),
        ..Fields::default()
    };
    let resource = insert(world, place, fields, content, &Preconditions::default())?;
    Ok(serde_json::from_slice(&resource).unwrap_or_default())
}

fn insert(
    world: &World,
    (bucket, name): (&str, &str),
    fields: Fields,
    content: Bytes,
    conditions: &Preconditions,
) -> Result<Bytes, Refusal> {
    let content = world.storage.content(content, None)?;
    let object = world.storage.change(world, bucket, |store| {
        store.insert((bucket, name), fields, content, conditions, &world.clock)
    })?;
    Ok(serde_json::to_vec_pretty(&resource::object(world, bucket, &object))
        .unwrap_or_default()
        .into())
}

/// The answer to an upload: the object's resource, as text.
fn stored(resource: Bytes) -> Response {
    with_type(StatusCode::OK, "application/json; charset=UTF-8", resource)
}

pub(super) fn fields_of(metadata: &Value) -> Result<Fields, Refusal> {
    super::possible(metadata)?;
    serde_json::from_value(metadata.clone())
        .map_err(|error| Refusal::invalid(format!("Invalid object resource: {error}")))
}

fn related(world: &World, request: &Request, caller: Option<&str>, bucket: &str) -> Result<Response, Refusal> {
    let bad = |why: &str| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "badRequest",
            format!("Bad multipart body: {why}"),
        )
    };
    let content_type = request.header("content-type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("multipart/related") {
        return Err(bad("the content type is not multipart/related"));
    }
    let boundary = content_type
        .split(';')
        .filter_map(|parameter| parameter.trim().strip_prefix("boundary="))
        // Single quotes are gcloud's.
        .map(|boundary| boundary.trim_matches(['"', '\'']))
        .next()
        .filter(|boundary| !boundary.is_empty())
        .ok_or_else(|| bad("the content type names no boundary"))?;
    let parts = multipart::parts(&request.body, boundary).ok_or_else(|| bad("a boundary is missing"))?;
    let [metadata, content, rest @ ..] = &parts[..] else {
        return Err(bad("there must be two parts"));
    };
    let metadata: Value = serde_json::from_slice(&metadata.content).map_err(|_| bad("the first part is not JSON"))?;
    let mut fields = fields_of(&metadata)?;
    fields.content_type = fields.content_type.or_else(|| content.content_type.clone());
    let mut expected = Expected::of_json(&metadata).or(Expected::of_headers(&request.headers));
    if let Some(checksums) = rest.first() {
        let checksums = serde_json::from_slice(&checksums.content).map_err(|_| bad("the third part is not JSON"))?;
        expected = Expected::of_json(&checksums).or(expected);
    }
    let name = request
        .parameter("name")
        .or_else(|| metadata["name"].as_str().map(str::to_owned))
        .unwrap_or_default();
    let conditions = preconditions(request)?;
    may_replace(world, caller, (bucket, &name), &conditions)?;
    expected.check(&content.content)?;
    finish(world, (bucket, &name), fields, content.content.clone(), &conditions)
}

fn start(world: &World, request: &Request, caller: Option<&str>, bucket: String) -> Result<Response, Refusal> {
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
fn resume(world: &World, request: &Request, id: &str) -> Result<Response, Refusal> {
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

/// A number in a header, the XML API's form of a precondition.
pub(super) fn number_header(request: &Request, name: &str) -> Result<Option<i64>, Refusal> {
    let value = request.header(name).map(str::parse).transpose();
    value.map_err(|_| Refusal::invalid(format!("Invalid {name}")))
}
