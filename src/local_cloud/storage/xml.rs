//! The XML API, as far as signed URLs reach: GET, HEAD, PUT, DELETE and resumable POST of an object, GET and HEAD of a bucket.

use std::collections::BTreeMap;

use axum::{
    http::{Method, StatusCode, header},
    response::Response,
};

use chrono::DateTime;

use super::{
    super::{
        Refusal, World,
        policy::storage_refusal,
        server::{Request, decode, lock, text, with_type},
    },
    access::hides_absence,
    download::{self, Overrides, set},
    expected::Expected,
    not_here,
    object::{Fields, Hashes},
    objects::no_content,
    parameters::{number, number_header},
    preconditions::{Etags, Preconditions},
    sessions, signed, xml_list,
};

/// An error document.
#[derive(Debug)]
pub(super) struct XmlError {
    status: StatusCode,
    elements: Vec<(&'static str, String)>,
}

impl XmlError {
    pub(super) fn new(status: StatusCode, code: &str, message: &str) -> Self {
        Self {
            status,
            elements: vec![("Code", code.to_owned()), ("Message", message.to_owned())],
        }
    }

    pub(super) fn details(self, details: impl Into<String>) -> Self {
        self.with("Details", details)
    }

    pub(super) fn with(mut self, element: &'static str, text: impl Into<String>) -> Self {
        self.elements.push((element, text.into()));
        self
    }

    fn answer(&self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return text(self.status, "");
        }
        let elements: String = self
            .elements
            .iter()
            .map(|(name, text)| format!("<{name}>{}</{name}>", escaped(text)))
            .collect();
        let body = format!("<?xml version='1.0' encoding='UTF-8'?><Error>{elements}</Error>");
        with_type(self.status, "application/xml; charset=UTF-8", body)
    }
}

impl From<Refusal> for XmlError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, .. } = refusal;
        match code {
            StatusCode::NOT_FOUND if message.starts_with("No such object") => {
                Self::new(code, "NoSuchKey", "The specified key does not exist.").details(message)
            }
            StatusCode::NOT_FOUND => Self::new(code, "NoSuchBucket", &message),
            StatusCode::SERVICE_UNAVAILABLE => Self::new(code, "ServiceUnavailable", &message),
            StatusCode::PRECONDITION_FAILED => Self::new(code, "PreconditionFailed", &message),
            _ => Self::new(code, "InvalidArgument", "Invalid argument.").details(message),
        }
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(super) fn handle(world: &World, request: &Request) -> Response {
    serve(world, request).unwrap_or_else(|error| error.answer())
}

fn serve(world: &World, request: &Request) -> Result<Response, XmlError> {
    let signed = signed::is_signed(request);
    let mut caller = request.bearer().and_then(|token| world.identity.caller(token));
    if signed {
        caller = Some(signed::verify(world, request)?);
    } else if world.settings.demand_credentials && caller.is_none() {
        return Err(unknown_caller(request));
    }
    not_here::asked_by_xml(request)?;
    let (bucket, name) = address(world, request)?;
    if let Some(caller) = &caller {
        permit(world, request, caller, &bucket, &name)?;
    }
    match request.method.as_str() {
        "GET" | "HEAD" if name.is_empty() => Ok(xml_list::objects(world, request, &bucket)?),
        _ if name.is_empty() => Err(not_allowed()),
        "GET" | "HEAD" => get(world, request, (&bucket, &name), caller.as_deref()),
        "PUT" => put(world, request, &bucket, &name),
        "DELETE" => {
            let conditions = conditions(request)?;
            let generation = generation(request)?;
            world.storage.change(world, &bucket, |store| {
                let changes = store.delete(&bucket, &name, generation, &conditions, &world.clock)?;
                Ok(((), changes))
            })?;
            Ok(no_content())
        }
        "POST" if request.header("x-goog-resumable") == Some("start") => {
            Ok(sessions::start_signed(world, request, &bucket, &name)?)
        }
        _ => Err(not_allowed()),
    }
}

fn not_allowed() -> XmlError {
    let message = "The specified method is not allowed against this resource.";
    XmlError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

/// A token that is none is another thing than none at all.
fn unknown_caller(request: &Request) -> XmlError {
    if request.bearer().is_some() {
        return XmlError::new(
            StatusCode::UNAUTHORIZED,
            "AuthenticationRequired",
            "Authentication required.",
        );
    }
    let permission = match request.method.as_str() {
        "GET" | "HEAD" => "get",
        "DELETE" => "delete",
        _ => "create",
    };
    XmlError::new(StatusCode::FORBIDDEN, "AccessDenied", "Access denied.").details(format!(
        "Anonymous caller does not have storage.objects.{permission} access to the Google Cloud Storage object. \
         Permission 'storage.objects.{permission}' denied on resource (or it may not exist)."
    ))
}

/// A signed URL can do what its signer can at this moment.
fn permit(world: &World, request: &Request, caller: &str, bucket: &str, name: &str) -> Result<(), XmlError> {
    if world.storage.look().bucket(bucket).is_err() {
        return Ok(());
    }
    let replaces = || world.storage.look().object(bucket, name, None).is_ok();
    let needed: &[&str] = match request.method.as_str() {
        "GET" | "HEAD" if name.is_empty() => &["storage.objects.list"],
        "GET" | "HEAD" => &["storage.objects.get"],
        "DELETE" => &["storage.objects.delete"],
        _ if replaces() => &["storage.objects.create", "storage.objects.delete"],
        _ => &["storage.objects.create"],
    };
    for permission in needed {
        if !world.policies.allows(caller, permission, &format!("bucket/{bucket}")) {
            return Err(denied(storage_refusal(caller, permission)));
        }
    }
    Ok(())
}

fn denied(refusal: Refusal) -> XmlError {
    XmlError::new(refusal.code, "AccessDenied", "Access denied.").details(refusal.message)
}

/// Bucket and object of path-style, virtual-hosted and bucket-bound addresses.
fn address(world: &World, request: &Request) -> Result<(String, String), XmlError> {
    let host = request.host();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    let of_host = lock(&world.storage.bound_hosts)
        .get(host)
        .cloned()
        .or_else(|| bucket_of_host(host).map(str::to_owned));
    let (bucket, name) = match of_host {
        Some(bucket) => (bucket, path),
        None => {
            let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
            (decode(bucket), name)
        }
    };
    if bucket.is_empty() {
        return Err(XmlError::new(
            StatusCode::BAD_REQUEST,
            "MissingSecurityHeader",
            "Your request names no bucket.",
        ));
    }
    Ok((bucket, decode(name)))
}

/// Clients put the bucket before the name of Google's service, or before that of the address they were given.
fn bucket_of_host(host: &str) -> Option<&str> {
    let of_google = host.split_once(".storage.").map(|(bucket, _)| bucket);
    let here = [".localhost", ".127.0.0.1"];
    of_google.or_else(|| here.iter().find_map(|name| host.strip_suffix(name)))
}

fn generation(request: &Request) -> Result<Option<i64>, Refusal> {
    number(request, "generation")
}

pub(super) fn conditions(request: &Request) -> Result<Preconditions, Refusal> {
    // RFC 9110: only of reads, and what is no date is not there.
    let time = |name: &str| {
        let value = request
            .header(name)
            .filter(|_| ["GET", "HEAD"].contains(&request.method.as_str()))?;
        let time = DateTime::parse_from_rfc2822(value).ok()?;
        Some(time.to_utc())
    };
    Ok(Preconditions {
        generation_match: number_header(request, "x-goog-if-generation-match")?,
        metageneration_match: number_header(request, "x-goog-if-metageneration-match")?,
        etags: Etags::of_headers(&request.headers),
        modified_since: time("if-modified-since"),
        unmodified_since: time("if-unmodified-since"),
        ..Preconditions::default()
    })
}

fn get(
    world: &World,
    request: &Request,
    (bucket, name): (&str, &str),
    caller: Option<&str>,
) -> Result<Response, XmlError> {
    let object = {
        let store = world.storage.look();
        let found = store.object(bucket, name, generation(request)?);
        let object = found.map_err(|refusal| match hides_absence(world, caller, bucket, &refusal) {
            Some(hidden) => denied(hidden),
            None => refusal.into(),
        })?;
        conditions(request)?.check(&Method::GET, Some(object))?;
        object.clone()
    };
    // Only who is known may choose the headers of the answer.
    let overrides = if caller.is_some() {
        Overrides {
            content_type: request.parameter("response-content-type"),
            content_disposition: request.parameter("response-content-disposition"),
        }
    } else {
        Overrides::default()
    };
    let mut answer = download::answer(request, &object, &overrides);
    for (key, value) in object.fields.metadata.iter().flatten() {
        set(&mut answer, &format!("x-goog-meta-{key}"), value);
    }
    set(&mut answer, header::ETAG.as_str(), &object.xml_etag());
    Ok(answer)
}

/// What the headers of an upload say about the object.
pub(super) fn fields(request: &Request) -> Fields {
    let text = |name: &str| request.header(name).map(str::to_owned);
    let metadata: BTreeMap<String, String> = request
        .headers
        .iter()
        .filter_map(|(name, value)| {
            let key = name.as_str().strip_prefix("x-goog-meta-")?;
            Some((key.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
        .collect();
    Fields {
        content_type: text("content-type"),
        content_encoding: text("content-encoding"),
        content_disposition: text("content-disposition"),
        content_language: text("content-language"),
        cache_control: text("cache-control"),
        storage_class: text("x-goog-storage-class"),
        metadata: (!metadata.is_empty()).then_some(metadata),
    }
}

fn put(world: &World, request: &Request, bucket: &str, name: &str) -> Result<Response, XmlError> {
    let fields = fields(request);
    let hashes = Hashes::of(&request.body);
    let checked = Expected::of_headers(&request.headers).check(&hashes);
    checked.map_err(|refusal| {
        let message = "The Content-MD5 you specified did not match what we received.";
        XmlError::new(StatusCode::BAD_REQUEST, "BadDigest", message).details(refusal.message)
    })?;
    let conditions = conditions(request)?;
    let content = world.storage.content(request.body.clone(), hashes, None)?;
    let object = world.storage.change(world, bucket, |store| {
        store.insert((bucket, name), fields, content, &conditions, &world.clock)
    })?;
    let mut answer = Response::default();
    set(&mut answer, "x-goog-generation", &object.generation.to_string());
    set(&mut answer, "x-goog-metageneration", "1");
    set(&mut answer, "x-goog-hash", &object.hashes());
    set(&mut answer, header::ETAG.as_str(), &object.xml_etag());
    Ok(answer)
}
