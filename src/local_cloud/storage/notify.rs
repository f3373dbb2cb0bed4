//! Storage notifications: what changed, as a message on a topic.

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::{
        Refusal, World, pubsub,
        server::{Request, json as json_answer},
    },
    object::Object,
    objects::no_content,
    parameters::body,
    resource,
    route::unknown_method,
    store::Bucket,
};

const EVENTS: [&str; 4] = [
    "OBJECT_ARCHIVE",
    "OBJECT_DELETE",
    "OBJECT_FINALIZE",
    "OBJECT_METADATA_UPDATE",
];

/// Something that happened to an object.
pub(super) struct Change {
    event: &'static str,
    object: Object,
    overwrote: Option<i64>,
    overwritten_by: Option<i64>,
}

impl Change {
    pub(super) fn finalized(object: Object, overwrote: Option<i64>) -> Self {
        Self {
            event: "OBJECT_FINALIZE",
            object,
            overwrote,
            overwritten_by: None,
        }
    }

    pub(super) fn removed(object: Object, kept: bool, overwritten_by: Option<i64>) -> Self {
        let event = if kept { "OBJECT_ARCHIVE" } else { "OBJECT_DELETE" };
        Self {
            event,
            object,
            overwrote: None,
            overwritten_by,
        }
    }

    pub(super) fn updated(object: Object) -> Self {
        Self {
            event: "OBJECT_METADATA_UPDATE",
            object,
            overwrote: None,
            overwritten_by: None,
        }
    }

    fn time(&self) -> DateTime<Utc> {
        self.object.deleted.unwrap_or(self.object.updated)
    }
}

/// One `notificationConfig` of a bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Notification {
    pub(super) id: String,
    /// `projects/P/topics/T`
    pub(super) topic: String,
    pub(super) payload_format: String,
    pub(super) event_types: Vec<String>,
    pub(super) object_name_prefix: String,
    pub(super) custom_attributes: BTreeMap<String, String>,
}

impl Notification {
    /// Reads the body of a `notificationConfigs.insert`.
    pub(super) fn read(world: &World, body: &Value) -> Result<Self, Refusal> {
        let topic = body["topic"].as_str().unwrap_or_default();
        let topic = topic.strip_prefix("//pubsub.googleapis.com/").unwrap_or(topic);
        if !world.pubsub.has_topic(topic) {
            return Err(Refusal::invalid(format!("Cloud Pub/Sub topic '{topic}' not found.")));
        }
        let payload_format = body["payload_format"]
            .as_str()
            .ok_or_else(|| Refusal::required("Required parameter: payload_format"))?;
        if !["JSON_API_V1", "NONE"].contains(&payload_format) {
            return Err(Refusal::invalid(format!("Invalid payload format: {payload_format}")));
        }
        let texts = |value: &Value| -> Vec<String> {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let event_types = texts(&body["event_types"]);
        if let Some(unknown) = event_types.iter().find(|event| !EVENTS.contains(&event.as_str())) {
            return Err(Refusal::invalid(format!("Invalid event type: {unknown}")));
        }
        let custom = body["custom_attributes"].as_object().into_iter().flatten();
        Ok(Self {
            id: String::new(),
            topic: topic.to_owned(),
            payload_format: payload_format.to_owned(),
            event_types,
            object_name_prefix: body["object_name_prefix"].as_str().unwrap_or_default().to_owned(),
            custom_attributes: custom
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
        })
    }

    pub(super) fn resource(&self, world: &World, bucket: &str) -> Value {
        let mut resource = json!({
            "kind": "storage#notification",
            "id": self.id,
            "selfLink": format!("{}/storage/v1/b/{bucket}/notificationConfigs/{}", world.urls.storage, self.id),
            "topic": format!("//pubsub.googleapis.com/{}", self.topic),
            "payload_format": self.payload_format,
            "etag": self.id,
        });
        if !self.event_types.is_empty() {
            resource["event_types"] = json!(self.event_types);
        }
        if !self.object_name_prefix.is_empty() {
            resource["object_name_prefix"] = json!(self.object_name_prefix);
        }
        if !self.custom_attributes.is_empty() {
            resource["custom_attributes"] = json!(self.custom_attributes);
        }
        resource
    }

    fn wants(&self, change: &Change) -> bool {
        (self.event_types.is_empty() || self.event_types.iter().any(|event| event == change.event))
            && change.object.name.starts_with(&self.object_name_prefix)
    }
}

/// What is to be published of these changes: a topic and a message for each configuration that wants to know.
pub(super) fn messages(world: &World, bucket: &Bucket, changes: &[Change]) -> Vec<(String, pubsub::Draft)> {
    let mut messages = Vec::new();
    for notification in &bucket.notifications {
        let topic = format!("topic/{}", notification.topic);
        if !world
            .policies
            .agent_may("storage-agent", "pubsub.topics.publish", &topic)
        {
            continue;
        }
        for change in changes.iter().filter(|change| notification.wants(change)) {
            let attributes = attributes(&bucket.name, notification, change);
            let data = if notification.payload_format == "JSON_API_V1" {
                let resource = resource::object(world, &bucket.name, &change.object);
                let mut text = serde_json::to_vec_pretty(&resource).unwrap_or_default();
                text.push(b'\n');
                text
            } else {
                Vec::new()
            };
            messages.push((notification.topic.clone(), pubsub::Draft::new(data, attributes)));
        }
    }
    messages
}

fn attributes(bucket: &str, notification: &Notification, change: &Change) -> BTreeMap<String, String> {
    let mut attributes = notification.custom_attributes.clone();
    let mut set = |key: &str, value: String| attributes.insert(key.to_owned(), value);
    set(
        "notificationConfig",
        format!("projects/_/buckets/{bucket}/notificationConfigs/{}", notification.id),
    );
    set("eventType", change.event.to_owned());
    set("payloadFormat", notification.payload_format.clone());
    set("bucketId", bucket.to_owned());
    set("objectId", change.object.name.clone());
    set("objectGeneration", change.object.generation.to_string());
    set("eventTime", change.time().to_rfc3339_opts(SecondsFormat::Micros, true));
    if let Some(generation) = change.overwrote {
        set("overwroteGeneration", generation.to_string());
    }
    if let Some(generation) = change.overwritten_by {
        set("overwrittenByGeneration", generation.to_string());
    }
    attributes
}

/// `notificationConfigs` of a bucket, or the one with this id.
pub(super) fn handle(world: &World, request: &Request, bucket: &str, id: Option<&str>) -> Result<Response, Refusal> {
    match (request.method.as_str(), id) {
        ("POST", None) => {
            let resource = world.storage.create_notification(world, bucket, &body(request)?)?;
            Ok(json_answer(StatusCode::OK, &resource))
        }
        ("GET", None) => {
            let store = world.storage.look();
            let notifications = &store.bucket(bucket)?.notifications;
            let mut list = json!({"kind": "storage#notifications"});
            if !notifications.is_empty() {
                let items = notifications.iter().map(|config| config.resource(world, bucket));
                list["items"] = items.collect();
            }
            Ok(json_answer(StatusCode::OK, &list))
        }
        ("GET", Some(id)) => {
            let store = world.storage.look();
            let notifications = &store.bucket(bucket)?.notifications;
            let resource = notifications[position(notifications, id)?].resource(world, bucket);
            Ok(json_answer(StatusCode::OK, &resource))
        }
        ("DELETE", Some(id)) => world.storage.configure(|store| {
            let notifications = &mut store.bucket_mut(bucket)?.notifications;
            notifications.remove(position(notifications, id)?);
            Ok(no_content())
        }),
        _ => Err(unknown_method()),
    }
}

fn position(notifications: &[Notification], id: &str) -> Result<usize, Refusal> {
    let found = notifications.iter().position(|notification| notification.id == id);
    found.ok_or_else(|| {
        let message = format!("The specified notification does not exist: {id}");
        Refusal::new(StatusCode::NOT_FOUND, "notFound", message)
    })
}
