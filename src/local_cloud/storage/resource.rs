//! Objects and buckets as the JSON API words them: every 64-bit number as a string.

use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{
    super::World,
    store::{Bucket, Object},
};

/// All but RFC 3986's unreserved characters.
pub(super) const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn object(world: &World, bucket: &str, object: &Object) -> Value {
    let base = &world.urls.storage;
    let name = utf8_percent_encode(&object.name, COMPONENT).to_string();
    let generation = object.generation;
    let mut resource = Map::new();
    let mut set = |key: &str, value: Value| resource.insert(key.to_owned(), value);
    set("kind", json!("storage#object"));
    set("id", json!(format!("{bucket}/{}/{generation}", object.name)));
    set("selfLink", json!(format!("{base}/storage/v1/b/{bucket}/o/{name}")));
    set("name", json!(object.name));
    set("bucket", json!(bucket));
    set("generation", json!(generation.to_string()));
    set("metageneration", json!(object.metageneration.to_string()));
    let fields = &object.fields;
    for (key, value) in [
        ("contentType", &fields.content_type),
        ("contentEncoding", &fields.content_encoding),
        ("contentDisposition", &fields.content_disposition),
        ("contentLanguage", &fields.content_language),
        ("cacheControl", &fields.cache_control),
    ] {
        if let Some(value) = value {
            set(key, json!(value));
        }
    }
    if let Some(metadata) = fields.metadata.as_ref().filter(|metadata| !metadata.is_empty()) {
        set("metadata", json!(metadata));
    }
    set("timeCreated", time(object.created));
    set("updated", time(object.updated));
    if let Some(deleted) = object.deleted {
        set("timeDeleted", time(deleted));
    }
    set(
        "storageClass",
        json!(fields.storage_class.as_deref().unwrap_or("STANDARD")),
    );
    set("timeStorageClassUpdated", time(object.created));
    set("size", json!(object.content.len().to_string()));
    set("md5Hash", json!(object.md5));
    set(
        "mediaLink",
        json!(format!(
            "{base}/download/storage/v1/b/{bucket}/o/{name}?generation={generation}&alt=media"
        )),
    );
    set("crc32c", json!(object.crc32c));
    set("etag", json!(object.etag()));
    Value::Object(resource)
}

pub(super) fn bucket(world: &World, bucket: &Bucket) -> Value {
    json!({
        "kind": "storage#bucket",
        "id": bucket.name,
        "selfLink": format!("{}/storage/v1/b/{}", world.urls.storage, bucket.name),
        "projectNumber": world.settings.project_number.to_string(),
        "name": bucket.name,
        "timeCreated": time(bucket.created),
        "updated": time(bucket.created),
        "metageneration": "1",
        "etag": "CAE=",
        "location": "US",
        "locationType": "multi-region",
        "storageClass": "STANDARD",
        "versioning": {"enabled": bucket.versioning},
        "iamConfiguration": {
            "uniformBucketLevelAccess": {"enabled": true},
            "publicAccessPrevention": "enforced",
        },
    })
}

fn time(time: DateTime<Utc>) -> Value {
    json!(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
