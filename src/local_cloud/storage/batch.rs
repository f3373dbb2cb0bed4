//! Batches: up to a hundred calls of the JSON API in one request, each answered for itself.

use axum::{
    body::{Bytes, to_bytes},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use futures_util::FutureExt as _;

use super::{
    super::{
        Refusal, World, identity,
        server::{Request, with_type},
    },
    download, multipart, route,
};

/// The address that batches are sent to.
pub(super) const PATH: &str = "/batch/storage/v1";
/// The most calls, and the most bytes, that Google documents.
const MOST_CALLS: usize = 100;
const MOST_BYTES: usize = 10 << 20;

/// Answers each call in the order they came, whatever became of those before it.
pub(super) fn handle(world: &World, request: &Request) -> Result<Response, Refusal> {
    if request.method != "POST" {
        return Err(route::unknown_method());
    }
    let bad = |why: &str| {
        let message = format!("Failed to parse batch request, error: {why}");
        Refusal::new(StatusCode::BAD_REQUEST, "badRequest", message)
    };
    if request.body.len() >= MOST_BYTES {
        let message = format!("A batch must have less than {MOST_BYTES} bytes.");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "uploadTooLarge", message));
    }
    let content_type = request.header("content-type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("multipart/mixed") {
        return Err(bad("its content type must be multipart/mixed."));
    }
    let boundary = multipart::boundary(content_type).ok_or_else(|| bad("its content type names no boundary."))?;
    let parts = multipart::parts(&request.body, boundary).ok_or_else(|| bad("a boundary is missing."))?;
    if parts.is_empty() {
        return Err(bad("there is no call in it."));
    }
    if parts.len() > MOST_CALLS {
        let calls = parts.len();
        return Err(bad(&format!("it has {calls} calls, and the most are {MOST_CALLS}.")));
    }
    let calls = parts.iter().map(|part| {
        let is_call = part
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/http"));
        let call = is_call.then(|| call(request, &part.content)).flatten();
        let call = call.ok_or_else(|| bad("each part must be an HTTP request of the type application/http."))?;
        Ok((part.header("content-id"), call))
    });
    // All of them are read before the first is carried out.
    let calls: Vec<_> = calls.collect::<Result<_, Refusal>>()?;
    let boundary = format!("batch_{}", identity::random_hex(16));
    let mut body = Vec::new();
    for (id, call) in &calls {
        body.extend_from_slice(format!("--{boundary}\r\nContent-Type: application/http\r\n").as_bytes());
        if let Some(id) = id {
            let id = match id.strip_prefix('<') {
                Some(id) => format!("<response-{id}"),
                None => format!("response-{id}"),
            };
            body.extend_from_slice(format!("Content-ID: {id}\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        write(&mut body, answer(world, call));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let mut answer = with_type(StatusCode::OK, "multipart/mixed", body);
    download::set(
        &mut answer,
        header::CONTENT_TYPE.as_str(),
        &format!("multipart/mixed; boundary={boundary}"),
    );
    Ok(answer)
}

/// A request in a part. What the batch says in its headers and query holds for each, where a call does not say otherwise.
fn call(batch: &Request, part: &Bytes) -> Option<Request> {
    let (head, body) = multipart::message(part);
    let mut lines = head.lines();
    let mut words = lines.next()?.split_ascii_whitespace();
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let target = words.next()?;
    // Python's client writes whole addresses.
    let after_host = |address: &str| address.find('/').map_or("/", |at| &address[at..]).to_owned();
    let target = match target
        .strip_prefix("http://")
        .or_else(|| target.strip_prefix("https://"))
    {
        Some(address) => after_host(address),
        None => target.starts_with('/').then(|| target.to_owned())?,
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let both = [query, &batch.query].map(str::to_owned);
    let mut headers: HeaderMap = batch.headers.clone();
    let of_the_body: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("content-"))
        .cloned()
        .collect();
    for name in of_the_body {
        headers.remove(name);
    }
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.insert(
            HeaderName::try_from(name).ok()?,
            HeaderValue::try_from(value.trim()).ok()?,
        );
    }
    Some(Request {
        method,
        path: path.to_owned(),
        query: both
            .into_iter()
            .filter(|query| !query.is_empty())
            .collect::<Vec<_>>()
            .join("&"),
        headers,
        body,
    })
}

fn answer(world: &World, call: &Request) -> Response {
    let is_media = call.parameter("alt").as_deref() == Some("media");
    if is_media || !call.path.starts_with("/storage/v1/") {
        let message = "A batch takes calls of the JSON API's /storage/v1/ alone, and none that uploads or downloads.";
        return Refusal::invalid(message).answer();
    }
    route::handle(world, call)
}

/// An answer as it would be on the wire.
fn write(to: &mut Vec<u8>, answer: Response) {
    let (head, body) = answer.into_parts();
    // It is in memory whole: nothing is waited for.
    let body = to_bytes(body, usize::MAX)
        .now_or_never()
        .and_then(Result::ok)
        .unwrap_or_default();
    let reason = head.status.canonical_reason().unwrap_or("Unknown");
    to.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).as_bytes());
    for (name, value) in &head.headers {
        to.extend_from_slice(name.as_str().as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value.as_bytes());
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    to.extend_from_slice(&body);
}
