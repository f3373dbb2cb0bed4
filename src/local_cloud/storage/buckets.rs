//! Buckets as the JSON API has them, and the account that Cloud Storage announces with.

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::{
    super::{
        Refusal, World, base64_of_google,
        server::{Request, decode, json as json_answer},
        to_base64,
    },
    list, notify,
    object::STORAGE_CLASSES,
    objects::no_content,
    parameters::{body, number},
    preconditions::Etags,
    resource::time,
    route::unknown_method,
    store::Bucket,
};

/// What only the service sets. Clients send it back with what they change.
const OUTPUT_ONLY: [&str; 9] = [
    "etag",
    "id",
    "kind",
    "locationType",
    "metageneration",
    "projectNumber",
    "selfLink",
    "timeCreated",
    "updated",
];

/// A call on the raw path after `/storage/v1/b`, of no object.
pub(super) fn handle(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let method = request.method.as_str();
    let path = match path.strip_prefix('/') {
        Some(path) if !path.is_empty() => path,
        _ if method == "POST" => return insert(world, request),
        _ if method == "GET" => return list_all(world, request),
        _ => return Err(unknown_method()),
    };
    let mut parts = path.splitn(3, '/');
    let bucket = decode(parts.next().unwrap_or_default());
    match (method, parts.next(), parts.next()) {
        ("GET", None, None) => {
            let store = world.storage.look();
            let bucket = store.bucket(&bucket)?;
            check(request, bucket)?;
            Ok(json_answer(StatusCode::OK, &resource(world, bucket)))
        }
        ("DELETE", None, None) => delete(world, request, &bucket),
        ("PATCH" | "PUT", None, None) => update(world, request, &bucket),
        ("GET", Some("storageLayout"), None) => layout(world, &bucket),
        ("GET", Some("managedFolders"), None) => {
            // There are none. gcloud looks before it deletes a bucket.
            world.storage.look().bucket(&bucket)?;
            let list = json!({"kind": "storage#managedFolders"});
            Ok(json_answer(StatusCode::OK, &list))
        }
        ("GET", Some("o"), None) => list::objects(world, request, &bucket),
        (_, Some("notificationConfigs"), id) => notify::handle(world, request, &bucket, id),
        _ => Err(unknown_method()),
    }
}

/// `projects/PROJECT/serviceAccount`, the raw path after `/storage/v1/`: who needs the right to publish.
pub(super) fn service_account(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let project = path
        .strip_prefix("projects/")
        .and_then(|path| path.strip_suffix("/serviceAccount"))
        .filter(|_| request.method == "GET")
        .ok_or_else(unknown_method)?;
    let number = world.settings.project_number.to_string();
    if decode(project) != world.settings.project && project != number {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "notFound",
            format!("The requested project '{project}' was not found."),
        ));
    }
    let email = format!("service-{number}@gs-project-accounts.iam.gserviceaccount.com");
    let account = json!({"kind": "storage#serviceAccount", "email_address": email});
    Ok(json_answer(StatusCode::OK, &account))
}

fn resource(world: &World, bucket: &Bucket) -> Value {
    let mut resource = json!({
        "kind": "storage#bucket",
        "id": bucket.name,
        "selfLink": format!("{}/storage/v1/b/{}", world.urls.storage, bucket.name),
        "projectNumber": world.settings.project_number.to_string(),
        "name": bucket.name,
        "timeCreated": time(bucket.created),
        "updated": time(bucket.updated),
        "metageneration": bucket.metageneration.to_string(),
        "etag": etag(bucket),
        "location": bucket.location,
        "locationType": location_type(&bucket.location),
        "storageClass": bucket.storage_class,
        "versioning": {"enabled": bucket.versioning},
        "softDeletePolicy": {"retentionDurationSeconds": "0"},
        "iamConfiguration": {
            "bucketPolicyOnly": {"enabled": true},
            "uniformBucketLevelAccess": {"enabled": true},
            "publicAccessPrevention": "enforced",
        },
    });
    if !bucket.labels.is_empty() {
        resource["labels"] = json!(bucket.labels);
    }
    resource
}

fn etag(bucket: &Bucket) -> String {
    to_base64(&[&[0x08], &varint(bucket.metageneration)[..]].concat())
}

/// As in Google's etags: a number of a protocol buffer.
fn varint(mut rest: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
    bytes
}

fn location_type(location: &str) -> &'static str {
    match location {
        "ASIA" | "EU" | "US" => "multi-region",
        "ASIA1" | "EUR4" | "EUR5" | "EUR7" | "EUR8" | "NAM4" => "dual-region",
        _ => "region",
    }
}

fn layout(world: &World, bucket: &str) -> Result<Response, Refusal> {
    let store = world.storage.look();
    let bucket = store.bucket(bucket)?;
    let layout = json!({
        "kind": "storage#storageLayout",
        "bucket": bucket.name,
        "location": bucket.location,
        "locationType": location_type(&bucket.location),
        "hierarchicalNamespace": {"enabled": false},
    });
    Ok(json_answer(StatusCode::OK, &layout))
}

/// The conditions on a bucket's metageneration and etag.
fn check(request: &Request, bucket: &Bucket) -> Result<(), Refusal> {
    let metageneration = i64::try_from(bucket.metageneration).unwrap_or(i64::MAX);
    let wanted = number(request, "ifMetagenerationMatch")?;
    let unwanted = number(request, "ifMetagenerationNotMatch")?;
    if wanted.is_some_and(|wanted| wanted != metageneration) {
        return Err(Refusal::precondition());
    }
    let reads = request.method == "GET";
    match unwanted == Some(metageneration) {
        false => Etags::of_headers(&request.headers).check(reads, Some(&[etag(bucket)])),
        true if reads => Err(Refusal::not_modified()),
        true => Err(Refusal::precondition()),
    }
}

fn insert(world: &World, request: &Request) -> Result<Response, Refusal> {
    if request.parameter("project").is_none() {
        return Err(Refusal::required("Required parameter: project"));
    }
    let body = body(request)?;
    let mut asked = body.as_object().cloned().unwrap_or_default();
    let name = asked
        .remove("name")
        .and_then(|name| name.as_str().map(str::to_owned))
        .ok_or_else(|| Refusal::required("Required parameter: name"))?;
    let location = asked.remove("location");
    world.storage.configure(|store| {
        let bucket = store.create_bucket(&name, false, &world.clock)?;
        if let Some(location) = location.as_ref().and_then(Value::as_str) {
            bucket.location = location.to_uppercase();
        }
        let applied = apply(world, bucket, &asked);
        if let Err(refusal) = applied {
            store.buckets.remove(&name);
            return Err(refusal);
        }
        Ok(json_answer(StatusCode::OK, &resource(world, store.bucket(&name)?)))
    })
}

fn list_all(world: &World, request: &Request) -> Result<Response, Refusal> {
    if request.parameter("project").is_none() {
        return Err(Refusal::required("Required parameter: project"));
    }
    let prefix = request.parameter("prefix").unwrap_or_default();
    let after = request.parameter("pageToken").map(|token| {
        let name = base64_of_google(&token).and_then(|bytes| String::from_utf8(bytes).ok());
        name.ok_or_else(|| Refusal::invalid("Invalid pageToken"))
    });
    let after = after.transpose()?;
    let most = list::most(request, "maxResults")?;
    let store = world.storage.look();
    let mut found = store
        .buckets
        .values()
        .filter(|bucket| bucket.name.starts_with(&prefix) && after.as_ref().is_none_or(|after| bucket.name > *after));
    let page: Vec<&Bucket> = found.by_ref().take(most).collect();
    let mut list = json!({"kind": "storage#buckets"});
    if !page.is_empty() {
        let items: Vec<Value> = page.iter().map(|bucket| resource(world, bucket)).collect();
        list["items"] = json!(items);
    }
    if let (Some(last), Some(_)) = (page.last(), found.next()) {
        list["nextPageToken"] = json!(to_base64(last.name.as_bytes()));
    }
    Ok(json_answer(StatusCode::OK, &list))
}

fn update(world: &World, request: &Request, name: &str) -> Result<Response, Refusal> {
    let body = body(request)?;
    let mut asked = body.as_object().cloned().unwrap_or_default();
    if request.method == "PUT" {
        // What an update does not name, it takes away.
        for name in ["labels", "versioning"] {
            asked.entry(name).or_insert(Value::Null);
        }
    }
    let now = world.clock.now();
    world.storage.configure(|store| {
        let bucket = store.bucket_mut(name)?;
        check(request, bucket)?;
        apply(world, bucket, &asked)?;
        changed(bucket, now);
        Ok(json_answer(StatusCode::OK, &resource(world, bucket)))
    })
}

fn changed(bucket: &mut Bucket, now: DateTime<Utc>) {
    bucket.metageneration += 1;
    bucket.updated = now;
}

/// Versioning, labels and the storage class can be chosen. What is asked for besides must be so already: nothing is promised that
/// is not done.
fn apply(world: &World, bucket: &mut Bucket, asked: &Map<String, Value>) -> Result<(), Refusal> {
    let current = resource(world, bucket);
    let (mut versioning, mut labels) = (bucket.versioning, bucket.labels.clone());
    let mut storage_class = bucket.storage_class.clone();
    for (key, value) in asked {
        match (key.as_str(), value) {
            (key, _) if OUTPUT_ONLY.contains(&key) => {}
            ("versioning", value) => versioning = value["enabled"] == true,
            ("labels", Value::Null) => labels.clear(),
            ("labels", Value::Object(changes)) => {
                for (label, value) in changes {
                    match value.as_str() {
                        Some(value) => labels.insert(label.clone(), value.to_owned()),
                        None => labels.remove(label),
                    };
                }
            }
            ("storageClass", Value::String(class)) if STORAGE_CLASSES.contains(&class.to_uppercase().as_str()) => {
                storage_class = class.to_uppercase();
            }
            ("location", Value::String(location)) if location.eq_ignore_ascii_case(&bucket.location) => {}
            (key, value) if includes(&current[key], value) => {}
            (key, value) => {
                return Err(Refusal::invalid(format!(
                    "The local cloud's buckets cannot have {key}: {value}."
                )));
            }
        }
    }
    (bucket.versioning, bucket.labels, bucket.storage_class) = (versioning, labels, storage_class);
    Ok(())
}

/// Whether all of `asked` is in `current`.
fn includes(current: &Value, asked: &Value) -> bool {
    match asked {
        Value::Object(asked) => asked.iter().all(|(key, asked)| includes(&current[key], asked)),
        asked => current == asked,
    }
}

fn delete(world: &World, request: &Request, name: &str) -> Result<Response, Refusal> {
    world.storage.configure(|store| {
        let bucket = store.bucket(name)?;
        check(request, bucket)?;
        if !bucket.objects.is_empty() {
            let message = "The bucket you tried to delete is not empty.";
            return Err(Refusal::new(StatusCode::CONFLICT, "conflict", message));
        }
        store.buckets.remove(name);
        Ok(no_content())
    })
}
