//! Objects and buckets as the JSON API words them: every 64-bit number as a string.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    super::World,
    object::{Object, STANDARD_CLASS},
};

/// All but RFC 3986's unreserved characters.
pub(super) const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An object as the JSON API shows it, its fields in Google's order: notifications carry it as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectResource {
    kind: &'static str,
    id: String,
    self_link: String,
    name: String,
    bucket: String,
    generation: String,
    metageneration: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    time_created: String,
    updated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_deleted: Option<String>,
    storage_class: String,
    time_storage_class_updated: String,
    size: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    md5_hash: Option<String>,
    media_link: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
    crc32c: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    component_count: Option<u32>,
    etag: String,
}

pub(super) fn object(world: &World, bucket: &str, object: &Object) -> ObjectResource {
    let base = &world.urls.storage;
    let name = utf8_percent_encode(&object.name, COMPONENT);
    let generation = object.generation;
    let fields = object.fields.clone();
    ObjectResource {
        kind: "storage#object",
        id: format!("{bucket}/{}/{generation}", object.name),
        self_link: format!("{base}/storage/v1/b/{bucket}/o/{name}"),
        name: object.name.clone(),
        bucket: bucket.to_owned(),
        generation: generation.to_string(),
        metageneration: object.metageneration.to_string(),
        content_type: fields.content_type,
        time_created: time(object.created),
        updated: time(object.updated),
        time_deleted: object.deleted.map(time),
        storage_class: fields.storage_class.unwrap_or_else(|| STANDARD_CLASS.to_owned()),
        time_storage_class_updated: time(object.created),
        size: object.content.len().to_string(),
        md5_hash: object.md5.clone(),
        media_link: format!("{base}/download/storage/v1/b/{bucket}/o/{name}?generation={generation}&alt=media"),
        content_encoding: fields.content_encoding,
        content_disposition: fields.content_disposition,
        content_language: fields.content_language,
        cache_control: fields.cache_control,
        metadata: fields.metadata.filter(|metadata| !metadata.is_empty()),
        crc32c: object.crc32c.clone(),
        component_count: object.components,
        etag: object.etag(),
    }
}

pub(super) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
