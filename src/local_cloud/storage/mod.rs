//! Cloud Storage: the JSON API here and in `upload`, signed URLs (XML API) in `xml` and `signed`.

mod buckets;
mod compose;
mod copy;
mod download;
mod fields;
mod glob;
mod list;
mod moves;
mod multipart;
mod notify;
mod resource;
mod signed;
mod store;
mod upload;
mod xml;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{Arc, Mutex},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};

use self::{
    notify::{Change, Notification},
    store::{Fields, Payload, Preconditions, Store, crc32c_text, md5_text},
    upload::{Session, fields_of},
};
use super::{
    Refusal, World,
    data::{Content, DataDirectory, Files, Kept, Look, NotKept},
    policy::storage_refusal,
    server::{Request, decode, json as json_answer, lock, text},
};

/// What is stored, and the host names that belong to buckets.
#[derive(Default)]
pub(super) struct Storage {
    store: Kept<Store>,
    /// Where the bytes of objects are, when they are not in memory.
    files: Option<Arc<Files>>,
    /// Resumable uploads that go on; they end with the process.
    sessions: Mutex<HashMap<String, Session>>,
    bound_hosts: Mutex<BTreeMap<String, String>>,
}

impl Storage {
    /// With what a directory has.
    pub(super) fn open(data: Option<&DataDirectory>) -> io::Result<Self> {
        let files = data.map(|data| Arc::clone(&data.files));
        let journal = data.map(|data| &data.journal);
        let store = Kept::restored(journal, "storage/", Store::new(files.clone()))?;
        if let Some(files) = &files {
            files.sweep()?;
        }
        Ok(Self {
            store,
            files,
            ..Self::default()
        })
    }

    pub(super) fn has_bucket(&self, name: &str) -> bool {
        self.look().bucket(name).is_ok()
    }

    pub(super) fn has_notification(&self, bucket: &str, topic: &str) -> bool {
        let store = self.look();
        let of_bucket = store.bucket(bucket).map(|bucket| &bucket.notifications);
        of_bucket.is_ok_and(|all| all.iter().any(|notification| notification.topic == topic))
    }

    pub(super) fn has_object(&self, bucket: &str, name: &str) -> bool {
        self.look().object(bucket, name, None).is_ok()
    }

    /// The bytes of one generation of an object, for whoever runs this cloud.
    pub(super) fn body_of(
        &self,
        bucket: &str,
        name: &str,
        generation: i64,
    ) -> Result<(axum::body::Body, usize), Refusal> {
        let content = self.look().object(bucket, name, Some(generation))?.content.clone();
        let size = content.len();
        let body = content.body(0..size);
        body.map(|body| (body, size)).map_err(|error| {
            tracing::error!(%error, "an object's file does not open");
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "backendError",
                "The object's bytes cannot be read.",
            )
        })
    }

    fn look(&self) -> Look<'_, Store> {
        self.store.look()
    }

    /// Makes content of bytes, and computes its hashes: before the store is locked, because it may have to wait for a disk.
    /// `components` says of how many parts it was composed; then it has no MD5.
    fn content(&self, bytes: axum::body::Bytes, components: Option<u32>) -> Result<Payload, Refusal> {
        let crc32c = crc32c_text(&bytes);
        let md5 = components.is_none().then(|| md5_text(&bytes));
        let content = Content::new(self.files.as_deref(), bytes).map_err(backend)?;
        Ok(Payload {
            content,
            crc32c,
            md5,
            components,
        })
    }

    /// Changes objects of a bucket: the one way to do so. What is to be announced of it is kept together with the change, or
    /// neither is.
    fn change<R>(
        &self,
        world: &World,
        bucket: &str,
        change: impl FnOnce(&mut Store) -> Result<(R, Vec<Change>), Refusal>,
    ) -> Result<R, Refusal> {
        let changed = self.store.change_with(
            |store| {
                let (result, changes) = change(store)?;
                let messages = notify::messages(world, store.bucket(bucket)?, &changes);
                Ok((result, messages))
            },
            |held, (result, messages)| {
                world.pubsub.announce(world, messages, held)?;
                Ok(result)
            },
        );
        changed.map_err(reworded)
    }

    /// Changes what nobody is told of: buckets and their settings.
    fn configure<R>(&self, change: impl FnOnce(&mut Store) -> Result<R, Refusal>) -> Result<R, Refusal> {
        self.store.change(change).map_err(reworded)
    }

    /// Makes `host` a name of `bucket`, as a load balancer before it would.
    pub(super) fn bind_host(&self, host: &str, bucket: &str) {
        lock(&self.bound_hosts).insert(host.to_owned(), bucket.to_owned());
    }

    pub(super) fn create_bucket(&self, world: &World, name: &str, versioning: bool) -> Result<(), Refusal> {
        self.configure(|store| store.create_bucket(name, versioning, &world.clock).map(|_| ()))
    }

    /// Stores an object, whatever is there, and tells who wants to know; its resource.
    pub(super) fn put(
        &self,
        world: &World,
        (bucket, name): (&str, &str),
        content_type: &str,
        content: axum::body::Bytes,
    ) -> Result<Value, Refusal> {
        upload::put(world, (bucket, name), content_type, content)
    }

    pub(super) fn unconditional_writes(&self, bucket: &str) -> Result<u64, Refusal> {
        self.look().bucket(bucket).map(|bucket| bucket.unconditional_writes)
    }

    pub(super) fn create_notification(&self, world: &World, bucket: &str, body: &Value) -> Result<Value, Refusal> {
        let mut notification = Notification::read(world, body)?;
        self.configure(|store| {
            let bucket = store.bucket_mut(bucket)?;
            bucket.notifications_made += 1;
            notification.id = bucket.notifications_made.to_string();
            let resource = notification.resource(world, &bucket.name);
            bucket.notifications.push(notification);
            Ok(resource)
        })
    }
}

/// Cloud Storage's words for a change that could not be kept.
fn backend(error: NotKept) -> Refusal {
    reworded(error.into())
}

fn reworded(refusal: Refusal) -> Refusal {
    match refusal.status {
        "UNAVAILABLE" => Refusal {
            status: "backendError",
            ..refusal
        },
        _ => refusal,
    }
}

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    fn required(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "required", message)
    }

    fn precondition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::new(StatusCode::PRECONDITION_FAILED, "conditionNotMet", message)
    }

    fn not_modified() -> Self {
        Self::new(StatusCode::NOT_MODIFIED, "notModified", "Not Modified")
    }

    fn no_bucket() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "notFound",
            "The specified bucket does not exist.",
        )
    }

    fn no_object(bucket: &str, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "notFound",
            format!("No such object: {bucket}/{name}"),
        )
    }

    /// The error as the JSON API answers it; 304 has no body.
    fn answer(&self) -> Response {
        if self.code == StatusCode::NOT_MODIFIED {
            return text(self.code, "");
        }
        let mut error = json!({"message": self.message, "domain": "global", "reason": self.status});
        match self.code {
            StatusCode::PRECONDITION_FAILED => {
                error["locationType"] = json!("header");
                error["location"] = json!("If-Match");
            }
            StatusCode::UNAUTHORIZED => {
                error["locationType"] = json!("header");
                error["location"] = json!("Authorization");
            }
            _ => {}
        }
        let code = self.code.as_u16();
        let mut answer = json_answer(
            self.code,
            &json!({"error": {"code": code, "message": self.message, "errors": [error]}}),
        );
        if self.code == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

pub(super) fn handle(world: &World, request: &Request) -> Response {
    if signed::is_signed(request) {
        return xml::handle(world, request);
    }
    // Two addresses for uploads are in Google's description of the API; gcloud takes the second one for those in chunks.
    let uploads = ["/upload/storage/v1/b/", "/resumable/upload/storage/v1/b/"];
    let uploaded = uploads.iter().find_map(|prefix| request.path.strip_prefix(prefix));
    let result = if let Some(path) = uploaded {
        upload::handle(world, request, path)
    } else if let Some(path) = request.path.strip_prefix("/download/storage/v1/b/") {
        authorized(world, request).and_then(|caller| {
            permit(world, caller.as_deref(), "storage.objects.get", bucket_of(path))?;
            media(world, request, path)
        })
    } else if let Some(path) = request.path.strip_prefix("/storage/v1/b") {
        authorized(world, request).and_then(|caller| {
            let (caller, below) = (caller.as_deref(), path.trim_start_matches('/'));
            if let Some(copy) = copy::Copy::read(below) {
                return copy.handle(world, request, caller);
            }
            if let Some(relocation) = moves::Move::read(below) {
                return relocation.handle(world, request, caller);
            }
            if let Some((bucket, name)) = compose::target(below) {
                return compose::handle(world, request, caller, (&bucket, &name));
            }
            permit(world, caller, permission(request, path), bucket_of(path))?;
            match below.contains("/o/") {
                true => object_api(world, request, below),
                false => buckets::handle(world, request, path),
            }
        })
    } else if let Some(path) = request
        .path
        .strip_prefix("/storage/v1/")
        .filter(|path| path.starts_with("projects/"))
    {
        authorized(world, request).and_then(|_| buckets::service_account(world, request, path))
    } else {
        return xml::handle(world, request);
    };
    let result = match request.parameter("fields") {
        Some(fields) => result.and_then(|answer| fields::select(answer, &fields)),
        None => result,
    };
    result.unwrap_or_else(|refusal| {
        let wants_media = request.parameter("alt").as_deref() == Some("media");
        // The download service is not the JSON front end: its errors are bare sentences.
        if wants_media && request.method == "GET" && refusal.code != StatusCode::UNAUTHORIZED {
            return text(
                refusal.code,
                if refusal.code == StatusCode::NOT_MODIFIED {
                    ""
                } else {
                    &refusal.message
                },
            );
        }
        refusal.answer()
    })
}

/// Whose access token that is, or the JSON API's 401.
fn authorized(world: &World, request: &Request) -> Result<Option<String>, Refusal> {
    match request.bearer() {
        None if !world.settings.demand_credentials => Ok(None),
        None => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "required",
            "Anonymous caller does not have storage.objects access to the Google Cloud Storage object. Permission \
             denied on resource (or it may not exist).",
        )),
        Some(token) => world.identity.caller(token).map(Some).ok_or_else(|| {
            let message = "Invalid Credentials";
            Refusal::new(StatusCode::UNAUTHORIZED, "authError", message)
        }),
    }
}

/// Google's 403, where the policies do not let a caller do this.
fn permit(world: &World, caller: Option<&str>, permission: &str, bucket: &str) -> Result<(), Refusal> {
    let bucket = decode(bucket);
    // That a bucket is not there anybody may know.
    if !bucket.is_empty() && world.storage.look().bucket(&bucket).is_err() {
        return Ok(());
    }
    let resource = format!("bucket/{bucket}");
    match caller {
        Some(caller) if !world.policies.allows(caller, permission, &resource) => {
            Err(storage_refusal(caller, permission))
        }
        _ => Ok(()),
    }
}

/// Google's 403, where a caller may not make an object, or not in the place of the one that is there. One that demands that
/// nothing is there needs no right to delete.
fn may_replace(
    world: &World,
    caller: Option<&str>,
    (bucket, name): (&str, &str),
    conditions: &Preconditions,
) -> Result<(), Refusal> {
    permit(world, caller, "storage.objects.create", bucket)?;
    let there = world.storage.look().object(bucket, name, None).is_ok();
    if there && conditions.generation_match != Some(0) {
        permit(world, caller, "storage.objects.delete", bucket)?;
    }
    Ok(())
}

/// The bucket of a raw path, which may begin with a slash.
fn bucket_of(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// What a call of the JSON API needs.
fn permission(request: &Request, path: &str) -> &'static str {
    let path = path.trim_start_matches('/');
    let of_object = path.contains("/o/");
    match request.method.as_str() {
        "GET" if of_object => "storage.objects.get",
        "DELETE" if of_object => "storage.objects.delete",
        _ if of_object => "storage.objects.update",
        "GET" if path.ends_with("/o") || path.ends_with("/storageLayout") => "storage.objects.list",
        "GET" if path.is_empty() => "storage.buckets.list",
        "GET" => "storage.buckets.get",
        "POST" if path.is_empty() => "storage.buckets.create",
        "DELETE" if !path.contains('/') => "storage.buckets.delete",
        _ => "storage.buckets.update",
    }
}

fn unknown_method() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "notFound", "Not Found")
}

/// A bucket and an object of a raw path `BUCKET/o/OBJECT`, both decoded once. An object name takes one segment:
/// its slashes are percent-encoded, and one that is not is Google's 404.
fn bucket_and_object(path: &str) -> Result<(String, String), Refusal> {
    let (bucket, object) = path.split_once("/o/").ok_or_else(unknown_method)?;
    if object.is_empty() || object.contains('/') {
        return Err(unknown_method());
    }
    Ok((decode(bucket), decode(object)))
}

fn number(request: &Request, name: &str) -> Result<Option<i64>, Refusal> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| Refusal::invalid(format!("Invalid value for parameter {name}: {text}")))
    };
    request.parameter(name).map(parse).transpose()
}

fn preconditions(request: &Request) -> Result<Preconditions, Refusal> {
    Ok(Preconditions {
        generation_match: number(request, "ifGenerationMatch")?,
        generation_not_match: number(request, "ifGenerationNotMatch")?,
        metageneration_match: number(request, "ifMetagenerationMatch")?,
        metageneration_not_match: number(request, "ifMetagenerationNotMatch")?,
    })
}

fn media(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    if request.method != "GET" {
        return Err(unknown_method());
    }
    let (bucket, name) = bucket_and_object(path)?;
    let object = {
        let store = world.storage.look();
        let object = store.object(&bucket, &name, number(request, "generation")?)?;
        preconditions(request)?.check(&request.method, Some(object))?;
        object.clone()
    };
    Ok(download::answer(request, &object, &download::Overrides::default()))
}

fn body(request: &Request) -> Result<Value, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "parseError", "Parse Error"))
}

fn object_api(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let (bucket, name) = bucket_and_object(path)?;
    let generation = number(request, "generation")?;
    let conditions = preconditions(request)?;
    match request.method.as_str() {
        "GET" if request.parameter("alt").as_deref() == Some("media") => media(world, request, path),
        "GET" => {
            let store = world.storage.look();
            let object = store.object(&bucket, &name, generation)?;
            conditions.check(&request.method, Some(object))?;
            Ok(json_answer(StatusCode::OK, &resource::object(world, &bucket, object)))
        }
        "DELETE" => world.storage.change(world, &bucket, |store| {
            let changes = store.delete(&bucket, &name, generation, &conditions, &world.clock)?;
            Ok((no_content(), changes))
        }),
        "PATCH" | "PUT" => {
            // No body is no change.
            let change = if request.body.is_empty() {
                json!({})
            } else {
                body(request)?
            };
            let replace = request.method == "PUT";
            let object = world.storage.change(world, &bucket, |store| {
                let address = (&*bucket, &*name, generation);
                store.update(address, &conditions, &world.clock, |fields| {
                    merge(fields, &change, replace)
                })
            })?;
            Ok(json_answer(StatusCode::OK, &resource::object(world, &bucket, &object)))
        }
        _ => Err(unknown_method()),
    }
}

/// A patch: null takes a field away, `metadata` is merged key by key. An update replaces all of them.
fn merge(fields: &mut Fields, change: &Value, replace: bool) -> Result<(), Refusal> {
    possible(change)?;
    let storage_class = fields.storage_class.clone();
    let mut merged = if replace {
        json!({})
    } else {
        serde_json::to_value(&*fields).unwrap_or_default()
    };
    for (key, value) in change.as_object().into_iter().flatten() {
        match value {
            Value::Object(entries) if key == "metadata" && merged[key].is_object() => {
                for (name, value) in entries {
                    merged[key][name] = value.clone();
                }
            }
            value => merged[key] = value.clone(),
        }
    }
    if let Some(metadata) = merged["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    *fields = serde_json::from_value(merged).map_err(|error| Refusal::invalid(format!("Invalid argument: {error}")))?;
    // Only a rewrite gives another one.
    fields.storage_class = storage_class;
    Ok(())
}

/// Refuses what an object cannot have here, so that nothing is promised that is not done.
fn possible(object: &Value) -> Result<(), Refusal> {
    let asks = |value: &Value| ![Value::Null, json!(false), json!([])].contains(value);
    let mut impossible = ["acl", "temporaryHold", "eventBasedHold", "retention"].into_iter();
    match impossible.find(|name| asks(&object[name])) {
        Some(name) => Err(Refusal::invalid(format!(
            "The local cloud's objects cannot have {name}."
        ))),
        None => Ok(()),
    }
}

fn no_content() -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
