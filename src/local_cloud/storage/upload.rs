//! Uploads in one request: media, and multipart (with the part of checksums that Google's own client sends last).

use axum::{body::Bytes, http::StatusCode, response::Response};
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::{
    super::{
        Refusal, World,
        bodies::Held,
        data::blocking,
        server::{Request, decode, with_type},
    },
    access::{authorized, may_replace, permit},
    expected::Expected,
    multipart,
    object::{Fields, Hashes},
    objects::fields_of,
    parameters::preconditions,
    preconditions::Preconditions,
    resource,
    route::unknown_method,
    sessions,
};

pub(super) fn handle(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let unpacked = unpacked(world, request)?;
    let request = unpacked.as_ref().map_or(request, |(request, _)| request);
    let bucket = decode(path.strip_suffix("/o").ok_or_else(unknown_method)?);
    if let Some(id) = request.parameter("upload_id") {
        return sessions::resume(world, request, &id);
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
        Some("resumable") => sessions::start(world, request, caller, bucket),
        _ => Err(Refusal::required(
            "Upload type is required: media, multipart or resumable.",
        )),
    }
}

/// The request as it was before its client compressed its body for the way, and the room that takes. None where it did not.
fn unpacked(world: &World, request: &Request) -> Result<Option<(Request, Held)>, Refusal> {
    if request.header("content-encoding") != Some("gzip") || request.body.is_empty() {
        return Ok(None);
    }
    let mut packed = MultiGzDecoder::new(&*request.body);
    let body = blocking(|| world.bodies.read_from(&mut packed))
        .map_err(|error| {
            Refusal::invalid(format!(
                "The body is not gzip, which its Content-Encoding says: {error}"
            ))
        })?
        .map_err(|error| Refusal::new(error.code(), "backendError", error.to_string()))?;
    let request = Request {
        method: request.method.clone(),
        path: request.path.clone(),
        query: request.query.clone(),
        headers: request.headers.clone(),
        body: body.bytes.clone(),
    };
    Ok(Some((request, body)))
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
    let hashes = Hashes::of(&request.body);
    Expected::of_headers(&request.headers).check(&hashes)?;
    insert(
        world,
        (bucket, &name),
        fields,
        (request.body.clone(), hashes),
        &conditions,
    )
    .map(stored)
}

/// Stores without a request, over whatever is there; the object's resource.
pub(super) fn put(world: &World, place: (&str, &str), content_type: &str, content: Bytes) -> Result<Value, Refusal> {
    let fields = Fields {
        content_type: Some(content_type.to_owned()),
        ..Fields::default()
    };
    let hashes = Hashes::of(&content);
    let resource = insert(world, place, fields, (content, hashes), &Preconditions::default())?;
    Ok(serde_json::from_slice(&resource).unwrap_or_default())
}

/// Stores and tells; the object's resource.
pub(super) fn insert(
    world: &World,
    (bucket, name): (&str, &str),
    fields: Fields,
    (content, hashes): (Bytes, Hashes),
    conditions: &Preconditions,
) -> Result<Bytes, Refusal> {
    let content = world.storage.content(content, hashes, None)?;
    let object = world.storage.change(world, bucket, |store| {
        store.insert((bucket, name), fields, content, conditions, &world.clock)
    })?;
    Ok(serde_json::to_vec_pretty(&resource::object(world, bucket, &object))
        .unwrap_or_default()
        .into())
}

/// The answer to an upload: the object's resource, as text.
pub(super) fn stored(resource: Bytes) -> Response {
    with_type(StatusCode::OK, "application/json; charset=UTF-8", resource)
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
    let boundary = multipart::boundary(content_type).ok_or_else(|| bad("the content type names no boundary"))?;
    let parts = multipart::parts(&request.body, boundary).ok_or_else(|| bad("a boundary is missing"))?;
    let [metadata, content, rest @ ..] = &parts[..] else {
        return Err(bad("there must be two parts"));
    };
    let metadata: Value = serde_json::from_slice(&metadata.content).map_err(|_| bad("the first part is not JSON"))?;
    let mut fields = fields_of(&metadata)?;
    fields.content_type = fields
        .content_type
        .or_else(|| content.header("content-type").map(str::to_owned));
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
    let hashes = Hashes::of(&content.content);
    expected.check(&hashes)?;
    insert(
        world,
        (bucket, &name),
        fields,
        (content.content.clone(), hashes),
        &conditions,
    )
    .map(stored)
}
