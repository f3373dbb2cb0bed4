//! What is done to topics and subscriptions after they are made: update, detach, seek, and pages of lists.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    super::{
        Refusal, World,
        data::{Kept, NotKept},
        server::{Request, lock},
    },
    model::{PushConfig, Settings, check_retention, subscription, without},
    snapshots,
    spelling::camel,
};

/// A topic's settings, as in the API. Labels, the storage policy, the key and the retention are kept and shown; they do nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Topic {
    #[serde(default)]
    name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    message_storage_policy: Value,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kms_key_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_retention_duration: Option<String>,
}

/// What a topic can have at Google, and what it is called in words.
const NOT_OF_TOPICS: [(&str, &str); 3] = [
    ("schemaSettings", "schemas"),
    ("ingestionDataSourceSettings", "ingestion from other services"),
    ("messageTransforms", "message transforms"),
];

/// Reads the settings of a topic, an object, and checks them.
pub(super) fn topic(name: &str, mut body: Value) -> Result<Value, Refusal> {
    refuse_what_is_not_here(&body, &NOT_OF_TOPICS)?;
    without(&mut body, &["state", "satisfiesPzs"]);
    let topic: Topic = serde_json::from_value(body).map_err(|error| Refusal::unreadable(&error))?;
    let topic = Topic {
        name: name.to_owned(),
        ..topic
    };
    if let Some(duration) = &topic.message_retention_duration {
        check_retention(duration)?;
    }
    Ok(json!(topic))
}

/// Refuses members that are set and have an effect at Google which they would not have here.
pub(super) fn refuse_what_is_not_here(body: &Value, members: &[(&str, &str)]) -> Result<(), Refusal> {
    let is_set = |member: &str| {
        body.get(member)
            .is_some_and(|value| !value.is_null() && *value != json!([]))
    };
    match members.iter().find(|(member, _)| is_set(member)) {
        Some((_, what)) => Err(Refusal::not_here(what)),
        None => Ok(()),
    }
}

/// What an update mask can name.
pub(super) struct Fields {
    pub(super) mutable: &'static [&'static str],
    pub(super) fixed: &'static [&'static str],
}

const TOPIC: Fields = Fields {
    mutable: &[
        "labels",
        "messageStoragePolicy",
        "messageRetentionDuration",
        "schemaSettings",
        "ingestionDataSourceSettings",
        "messageTransforms",
    ],
    fixed: &["name", "kmsKeyName", "state", "satisfiesPzs"],
};

const SUBSCRIPTION: Fields = Fields {
    mutable: &[
        "pushConfig",
        "ackDeadlineSeconds",
        "retainAckedMessages",
        "messageRetentionDuration",
        "labels",
        "expirationPolicy",
        "deadLetterPolicy",
        "retryPolicy",
        "enableExactlyOnceDelivery",
        "bigqueryConfig",
        "cloudStorageConfig",
        "pubsubExportConfig",
        "messageTransforms",
    ],
    fixed: &["name", "topic", "filter", "enableMessageOrdering", "detached", "state"],
};

/// `{"RESOURCE": {...}, "updateMask": "labels,..."}`: `old` with the members that the mask names as they are in the body.
pub(super) fn masked(old: &Value, body: &Value, resource: &str, kind: &str, fields: &Fields) -> Result<Value, Refusal> {
    let mask = body["updateMask"].as_str().unwrap_or_default();
    if mask.is_empty() {
        return Err(Refusal::argument(format!(
            "The update_mask in the Update{kind}Request must be set, and must contain a non-empty paths list."
        )));
    }
    let mut updated = old.as_object().cloned().unwrap_or_default();
    for field in mask.split(',').map(str::trim) {
        let name = camel(field);
        let what = if fields.mutable.contains(&name.as_str()) {
            None
        } else if fields.fixed.contains(&name.as_str()) {
            Some(format!("the '{field}' field in the {kind} is not mutable"))
        } else {
            Some(format!("'{field}' is not a known {kind} field"))
        };
        if let Some(what) = what {
            return Err(Refusal::argument(format!(
                "Invalid update_mask provided in the Update{kind}Request: {what}."
            )));
        }
        match body[resource].get(&name) {
            Some(value) => updated.insert(name, value.clone()),
            None => updated.remove(&name),
        };
    }
    Ok(Value::Object(updated))
}

/// `topics.patch`
pub(super) fn patch_topic(world: &World, name: &str, body: &Value) -> Result<Value, Refusal> {
    world.pubsub.topics.change(|topics| {
        let old = topics.get(name).ok_or_else(|| Refusal::no_resource(name))?;
        let updated = masked(old, body, "topic", "Topic", &TOPIC)?;
        let updated = topic(name, updated)?;
        topics.insert(name.to_owned(), updated.clone());
        Ok(updated)
    })
}

/// `subscriptions.patch`
pub(super) fn patch_subscription(world: &World, name: &str, body: &Value) -> Result<Value, Refusal> {
    let _alone = lock(&world.pubsub.configuring);
    let found = world.pubsub.subscription(name)?;
    let updated = masked(
        &json!(found.settings()),
        body,
        "subscription",
        "Subscription",
        &SUBSCRIPTION,
    )?;
    let updated = world.pubsub.checked(world, subscription(updated)?)?;
    let answer = updated.json();
    found.set(updated)?;
    found.touch();
    Ok(answer)
}

/// `subscriptions.modifyPushConfig`; without an endpoint the messages are pulled from now on.
pub(super) fn modify_push_config(world: &World, name: &str, body: &Value) -> Result<Value, Refusal> {
    let _alone = lock(&world.pubsub.configuring);
    let found = world.pubsub.subscription(name)?;
    let push_config = match &body["pushConfig"] {
        Value::Null => PushConfig::default(),
        config => PushConfig::deserialize(config).map_err(|error| Refusal::unreadable(&error))?,
    };
    let updated = Settings {
        push_config,
        ..found.settings()
    };
    found.set(world.pubsub.checked(world, updated)?)?;
    found.touch();
    Ok(json!({}))
}

/// `subscriptions.detach`: drops the messages, for good.
pub(super) fn detach(world: &World, name: &str) -> Result<Value, Refusal> {
    let _alone = lock(&world.pubsub.configuring);
    let found = world.pubsub.subscription(name)?;
    // Nothing is published between the two.
    let _published = lock(&world.pubsub.subscriptions);
    found.settings.change_with(
        |settings| {
            settings.detached = true;
            Ok::<_, NotKept>(())
        },
        |held, ()| Kept::change_all(&[&found.queue], &mut [held], |_, queue| queue.clear()),
    )?;
    found.touch();
    Ok(json!({}))
}

/// `subscriptions.seek`, to a time or a snapshot.
pub(super) fn seek(world: &World, name: &str, body: &Value) -> Result<Value, Refusal> {
    let time = match (body["time"].as_str(), body["snapshot"].as_str()) {
        (Some(time), None) => time,
        (None, Some(snapshot)) => return snapshots::seek(world, name, snapshot),
        (given, _) => {
            world.pubsub.subscription(name)?;
            let what = if given.is_some() { "More than one" } else { "No" };
            return Err(Refusal::argument(format!(
                "{what} target was specified in the SeekRequest. Must specify either a time or a snapshot."
            )));
        }
    };
    let found = world.pubsub.subscription(name)?;
    let time: DateTime<Utc> = time
        .parse()
        .map_err(|error| Refusal::argument(format!("Invalid time given: (time={time}): {error}.")))?;
    let retain = found.settings().retain_acked_messages;
    found.queue.change(|queue| {
        queue.seek(time, retain);
        Ok::<_, NotKept>(())
    })?;
    found.touch();
    Ok(json!({}))
}

/// One page of a list: `pageSize` (100, and 1,000 at most) after `pageToken`. An empty list is no member at all.
pub(super) fn page(request: &Request, member: &str, all: Vec<(String, Value)>) -> Result<Value, Refusal> {
    let size = match request.parameter("pageSize").as_deref() {
        None | Some("" | "0") => 100,
        Some(text) => text
            .parse::<usize>()
            .map_err(|_| Refusal::argument(format!("Invalid page size given: (page_size={text}).")))?
            .min(1000),
    };
    let after = request.parameter("pageToken").unwrap_or_default();
    let mut rest = all.into_iter().filter(|(name, _)| *name > after).peekable();
    let mut page = Map::new();
    let mut values = Vec::new();
    let mut last = String::new();
    for (name, value) in rest.by_ref().take(size) {
        values.push(value);
        last = name;
    }
    if !values.is_empty() {
        page.insert(member.to_owned(), values.into());
    }
    if rest.peek().is_some() {
        page.insert("nextPageToken".to_owned(), last.into());
    }
    Ok(Value::Object(page))
}
