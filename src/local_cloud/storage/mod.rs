//! Cloud Storage: the JSON API here and in `upload`, signed URLs (XML API) in `xml` and `signed`.

mod copy;
mod download;
mod list;
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
    store::{Bucket, Fields, Hashes, Preconditions, Store},
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

    fn look(&self) -> Look<'_, Store> {
        self.store.look()
    }

    /// Makes content of bytes, and computes its hashes: before the store is locked, because it may have to wait for a disk.
    fn content(&self, bytes: axum::body::Bytes) -> Result<(Content, Hashes), Refusal> {
        let hashes = Hashes::of(&bytes);
        let content = Content::new(self.files.as_deref(), bytes).map_err(backend)?;
        Ok((content, hashes))
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
    let result = if let Some(path) = request.path.strip_prefix("/upload/storage/v1/b/") {
        upload::handle(world, request, path)
    } else if let Some(path) = request.path.strip_prefix("/download/storage/v1/b/") {
        authorized(world, request).and_then(|caller| {
            permit(world, caller.as_deref(), "storage.objects.get", bucket_of(path))?;
            media(world, request, path)
        })
    } else if let Some(path) = request.path.strip_prefix("/storage/v1/b") {
        authorized(world, request).and_then(|caller| {
            if let Some(copy) = copy::Copy::read(path.trim_start_matches('/')) {
                return copy.handle(world, request, caller.as_deref());
            }
            permit(world, caller.as_deref(), permission(request, path), bucket_of(path))?;
            json_api(world, request, path)
        })
    } else {
        return xml::handle(world, request);
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
        "GET" if path.ends_with("/o") => "storage.objects.list",
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

fn json_api(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let method = request.method.as_str();
    let path = match path.strip_prefix('/') {
        Some(path) if !path.is_empty() => path,
        _ if method == "POST" => return insert_bucket(world, request),
        _ if method == "GET" => return Ok(list_buckets(world)),
        _ => return Err(unknown_method()),
    };
    if path.contains("/o/") {
        return object_api(world, request, path);
    }
    let mut parts = path.splitn(3, '/');
    let bucket = decode(parts.next().unwrap_or_default());
    match (method, parts.next(), parts.next()) {
        ("GET", None, None) => {
            let store = world.storage.look();
            Ok(json_answer(
                StatusCode::OK,
                &resource::bucket(world, store.bucket(&bucket)?),
            ))
        }
        ("DELETE", None, None) => delete_bucket(world, &bucket),
        ("PATCH", None, None) => update_bucket(world, request, &bucket),
        ("GET", Some("o"), None) => list::objects(world, request, &bucket),
        ("POST", Some("notificationConfigs"), None) => {
            let resource = world.storage.create_notification(world, &bucket, &body(request)?)?;
            Ok(json_answer(StatusCode::OK, &resource))
        }
        ("GET", Some("notificationConfigs"), None) => {
            let store = world.storage.look();
            let items: Vec<Value> = store
                .bucket(&bucket)?
                .notifications
                .iter()
                .map(|config| config.resource(world, &bucket))
                .collect();
            Ok(json_answer(
                StatusCode::OK,
                &json!({"kind": "storage#notifications", "items": items}),
            ))
        }
        (_, Some("notificationConfigs"), Some(id)) => notification(world, method, &bucket, id),
        _ => Err(unknown_method()),
    }
}

fn body(request: &Request) -> Result<Value, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "parseError", "Parse Error"))
}

fn insert_bucket(world: &World, request: &Request) -> Result<Response, Refusal> {
    if request.parameter("project").is_none() {
        return Err(Refusal::required("Required parameter: project"));
    }
    let body = body(request)?;
    let name = body["name"]
        .as_str()
        .ok_or_else(|| Refusal::required("Required parameter: name"))?;
    let versioning = body["versioning"]["enabled"] == true;
    let bucket = world.storage.configure(|store| {
        let bucket = store.create_bucket(name, versioning, &world.clock)?;
        Ok(resource::bucket(world, bucket))
    })?;
    Ok(json_answer(StatusCode::OK, &bucket))
}

fn list_buckets(world: &World) -> Response {
    let store = world.storage.look();
    let items: Vec<Value> = store
        .buckets
        .values()
        .map(|bucket| resource::bucket(world, bucket))
        .collect();
    json_answer(StatusCode::OK, &json!({"kind": "storage#buckets", "items": items}))
}

/// Of what a bucket has, versioning and labels can be changed; what else is asked for is said to be so, or refused.
fn update_bucket(world: &World, request: &Request, name: &str) -> Result<Response, Refusal> {
    let change = body(request)?;
    let bucket = world.storage.configure(|store| {
        let bucket = store.bucket_mut(name)?;
        change_bucket(bucket, &change)?;
        Ok(resource::bucket(world, bucket))
    })?;
    Ok(json_answer(StatusCode::OK, &bucket))
}

fn change_bucket(bucket: &mut Bucket, change: &Value) -> Result<(), Refusal> {
    for (key, value) in change.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("versioning", value) => bucket.versioning = value["enabled"] == true,
            ("labels", Value::Object(labels)) => {
                for (label, value) in labels {
                    match value.as_str() {
                        Some(value) => bucket.labels.insert(label.clone(), value.to_owned()),
                        None => bucket.labels.remove(label),
                    };
                }
            }
            _ => {
                return Err(Refusal::invalid(format!("this cloud does not change {key} of buckets")));
            }
        }
    }
    bucket.metageneration += 1;
    Ok(())
}

fn delete_bucket(world: &World, name: &str) -> Result<Response, Refusal> {
    world.storage.configure(|store| {
        if !store.bucket(name)?.objects.is_empty() {
            let message = "The bucket you tried to delete is not empty.";
            return Err(Refusal::new(StatusCode::CONFLICT, "conflict", message));
        }
        store.buckets.remove(name);
        Ok(no_content())
    })
}

fn notification(world: &World, method: &str, bucket: &str, id: &str) -> Result<Response, Refusal> {
    let find = |notifications: &[Notification]| {
        let found = notifications.iter().position(|notification| notification.id == id);
        found.ok_or_else(unknown_method)
    };
    match method {
        "GET" => {
            let store = world.storage.look();
            let notifications = &store.bucket(bucket)?.notifications;
            let resource = notifications[find(notifications)?].resource(world, bucket);
            Ok(json_answer(StatusCode::OK, &resource))
        }
        "DELETE" => world.storage.configure(|store| {
            let notifications = &mut store.bucket_mut(bucket)?.notifications;
            notifications.remove(find(notifications)?);
            Ok(no_content())
        }),
        _ => Err(unknown_method()),
    }
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
    Ok(())
}

fn no_content() -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
