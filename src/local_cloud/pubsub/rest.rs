//! The REST surface of Pub/Sub: paths to calls.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{http::StatusCode, response::Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    super::{
        Refusal, World, base64_of_google,
        data::NotKept,
        policy::pubsub_refusal,
        server::{Request, json as json_answer, lock, rpc_error},
    },
    Draft, forward_dead,
    model::{PushConfig, Settings},
    working,
};

/// How long a pull waits for the first message, in Pub/Sub's seconds.
const LONGEST_PULL: u32 = 90;

pub(in super::super) async fn handle(world: &Arc<World>, request: &Request) -> Response {
    let caller = match world.caller_or_refusal(request) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    if caller.as_ref().is_some_and(|caller| !permitted(world, caller, request)) {
        let refusal = pubsub_refusal();
        return rpc_error(refusal.code, refusal.status, &refusal.message);
    }
    match call(world, caller.as_deref(), request).await {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(refusal) => rpc_error(refusal.code, refusal.status, &refusal.message),
    }
}

/// Whether the policies let a caller do this.
fn permitted(world: &World, caller: &str, request: &Request) -> bool {
    let path = super::super::server::decode(request.path.strip_prefix("/v1/").unwrap_or_default());
    let (path, verb) = match path.rsplit_once(':') {
        Some((path, verb)) if !verb.contains('/') => (path, verb),
        _ => (&*path, ""),
    };
    // Whoever may look at a topic may see its subscriptions.
    let path = path
        .strip_suffix("/subscriptions")
        .filter(|path| path.contains("/topics/"))
        .unwrap_or(path);
    // What one may do oneself anybody may ask.
    if verb == "testIamPermissions" {
        return true;
    }
    let kind = path.split('/').nth(2).unwrap_or_default();
    let action = match (request.method.as_str(), verb) {
        (_, "publish") => "publish",
        (_, "pull" | "acknowledge" | "modifyAckDeadline") => "consume",
        ("GET", _) if path.split('/').count() == 4 => "get",
        ("GET", _) => "list",
        ("PUT", _) => "create",
        ("DELETE", _) => "delete",
        _ => "update",
    };
    let permission = format!("pubsub.{kind}.{action}");
    let resource = format!("{}/{path}", kind.trim_end_matches('s'));
    world.policies.allows(caller, &permission, &resource)
}

async fn call(world: &Arc<World>, caller: Option<&str>, request: &Request) -> Result<Value, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.");
    let path = request.path.strip_prefix("/v1/").ok_or_else(unknown)?;
    let (path, verb) = match path.rsplit_once(':') {
        Some((path, verb)) if !verb.contains('/') => (path, verb),
        _ => (path, ""),
    };
    let path = super::super::server::decode(path);
    let method = request.method.as_str();
    let pubsub = &world.pubsub;
    let segments: Vec<&str> = path.split('/').collect();
    match (method, &segments[..], verb) {
        ("PUT", ["projects", _, "topics", _], "") => pubsub.create_topic(&path, body(request)?),
        ("GET", ["projects", _, "topics", _], "") => pubsub
            .topics
            .look()
            .get(&path)
            .cloned()
            .ok_or_else(|| Refusal::no_resource(&path)),
        ("DELETE", ["projects", _, "topics", _], "") => pubsub.delete_topic(&path).map(|()| json!({})),
        ("GET", ["projects", _, "topics"], "") => {
            let topics = pubsub.topics.look();
            let topics: Vec<&Value> = topics
                .iter()
                .filter(|(name, _)| name.starts_with(&format!("{path}/")))
                .map(|(_, topic)| topic)
                .collect();
            Ok(json!({"topics": topics}))
        }
        ("GET", ["projects", _, "topics", _, "subscriptions"], "") => {
            let topic = path.strip_suffix("/subscriptions").unwrap_or(&path);
            Ok(
                json!({"subscriptions": subscriptions(world, |settings| settings.topic == topic)
                .into_iter().map(|settings| settings.name).collect::<Vec<_>>()}),
            )
        }
        ("POST", ["projects", _, "topics", _], "publish") => publish(world, &path, request),
        ("POST", ["projects", _, "topics", _], "testIamPermissions") => test_permissions(world, caller, &path, request),
        ("PUT", ["projects", _, "subscriptions", _], "") => {
            let mut settings = body(request)?;
            settings["name"] = json!(path);
            pubsub.create_subscription(world, settings, true)
        }
        ("GET", ["projects", _, "subscriptions", _], "") => Ok(pubsub.subscription(&path)?.settings().json()),
        ("PATCH", ["projects", _, "subscriptions", _], "") => patch(world, &path, &body(request)?),
        ("DELETE", ["projects", _, "subscriptions", _], "") => pubsub.delete_subscription(&path).map(|()| json!({})),
        ("GET", ["projects", _, "subscriptions"], "") => {
            let prefix = format!("{path}/");
            let found = subscriptions(world, |settings| settings.name.starts_with(&prefix));
            Ok(json!({"subscriptions": found.iter().map(Settings::json).collect::<Vec<_>>()}))
        }
        ("POST", ["projects", _, "subscriptions", _], "pull") => pull(world, &path, request).await,
        ("POST", ["projects", _, "subscriptions", _], "acknowledge") => acknowledge(world, &path, request),
        ("POST", ["projects", _, "subscriptions", _], "modifyAckDeadline") => {
            modify_ack_deadline(world, &path, request)
        }
        ("POST", ["projects", _, "subscriptions", _], "modifyPushConfig") => {
            modify_push_config(world, &path, &body(request)?)
        }
        _ => Err(unknown()),
    }
}

fn body(request: &Request) -> Result<Value, Refusal> {
    if request.body.is_empty() {
        return Ok(json!({}));
    }
    parse(request)
}

/// Reads the body; unknown fields are an error that names them.
fn parse<T: for<'a> Deserialize<'a>>(request: &Request) -> Result<T, Refusal> {
    serde_json::from_slice(&request.body)
        .map_err(|error| Refusal::argument(format!("Invalid JSON payload received. {error}")))
}

fn subscriptions(world: &World, wanted: impl Fn(&Settings) -> bool) -> Vec<Settings> {
    let all = lock(&world.pubsub.subscriptions);
    all.values()
        .map(|subscription| subscription.settings())
        .filter(|settings| wanted(settings))
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    #[serde(default)]
    messages: Vec<PublishedMessage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PublishedMessage {
    #[serde(default)]
    data: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    ordering_key: String,
    /// Set by the service; a client's is ignored.
    #[serde(default, rename = "messageId")]
    _message_id: Value,
    /// Likewise.
    #[serde(default, rename = "publishTime")]
    _publish_time: Value,
}

fn publish(world: &World, topic: &str, request: &Request) -> Result<Value, Refusal> {
    let Publish { messages } = parse(request)?;
    let mut drafts = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let data = base64_of_google(&message.data).ok_or_else(|| {
            Refusal::argument(format!(
                "Invalid value at 'messages[{index}].data' (TYPE_BYTES), Base64 decoding failed."
            ))
        })?;
        drafts.push(Draft {
            data,
            attributes: message.attributes,
            ordering_key: message.ordering_key,
        });
    }
    Ok(json!({"messageIds": world.pubsub.publish(world, topic, drafts)?}))
}

/// Which of these permissions the caller has; of a topic that is not there, none.
fn test_permissions(world: &World, caller: Option<&str>, topic: &str, request: &Request) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        permissions: Vec<String>,
    }
    let Asked { mut permissions } = parse(request)?;
    let resource = format!("topic/{topic}");
    let is_there = world.pubsub.has_topic(topic);
    permissions.retain(|permission| {
        is_there && caller.is_none_or(|caller| world.policies.allows(caller, permission, &resource))
    });
    if permissions.is_empty() {
        return Ok(json!({}));
    }
    Ok(json!({"permissions": permissions}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pull {
    #[serde(default)]
    max_messages: usize,
    #[serde(default)]
    return_immediately: bool,
}

async fn pull(world: &Arc<World>, name: &str, request: &Request) -> Result<Value, Refusal> {
    let pull: Pull = parse(request)?;
    if pull.max_messages == 0 {
        return Err(Refusal::argument(
            "You have passed an invalid argument to the service (argument=max_messages).",
        ));
    }
    let received = wait(world, name, pull.max_messages, pull.return_immediately).await?;
    if received.is_empty() {
        return Ok(json!({}));
    }
    Ok(json!({"receivedMessages": received}))
}

/// The messages that a pull gives, as `ReceivedMessage` in JSON; none when none came for as long as a pull waits.
pub(in super::super) async fn wait(
    world: &Arc<World>,
    name: &str,
    most: usize,
    immediately: bool,
) -> Result<Vec<Value>, Refusal> {
    let subscription = world.pubsub.subscription(name)?;
    let second = world.settings.pubsub_second;
    let patience = Instant::now() + second * LONGEST_PULL;
    let mut changed = subscription.changed.subscribe();
    loop {
        changed.mark_unchanged();
        if subscription.is_deleted() {
            return Err(Refusal::no_resource(name));
        }
        let settings = subscription.settings();
        if !settings.push_config.push_endpoint.is_empty() {
            let message = "This method is not supported for this subscription type.";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", message));
        }
        let given_up_by = working(world, settings.clone());
        let taken = subscription
            .queue
            .change(|queue| Ok::<_, NotKept>(queue.take(most.min(1000), &given_up_by, second)))?;
        forward_dead(world, &subscription, &settings, taken.dead);
        if !taken.deliveries.is_empty() {
            let received: Vec<Value> = taken
                .deliveries
                .iter()
                .map(|delivery| {
                    let mut received = json!({"ackId": delivery.ack_id, "message": delivery.message.json()});
                    if settings.dead_letter_policy.is_some() {
                        received["deliveryAttempt"] = json!(delivery.attempt);
                    }
                    received
                })
                .collect();
            return Ok(received);
        }
        if immediately || Instant::now() >= patience {
            return Ok(Vec::new());
        }
        let again_at = taken.again_at.map_or(patience, |time| time.min(patience));
        tokio::select! {
            () = tokio::time::sleep_until(again_at) => {}
            _ = changed.changed() => {}
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AckIds {
    #[serde(default)]
    ack_ids: Vec<String>,
    ack_deadline_seconds: Option<u32>,
}

fn ack_ids(request: &Request) -> Result<AckIds, Refusal> {
    let ids: AckIds = parse(request)?;
    if ids.ack_ids.is_empty() {
        return Err(Refusal::argument(
            "You have passed an invalid argument to the service (argument=ack_ids).",
        ));
    }
    Ok(ids)
}

fn acknowledge(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    let subscription = world.pubsub.subscription(name)?;
    let ids = ack_ids(request)?;
    subscription.queue.change(|queue| {
        for id in &ids.ack_ids {
            queue.acknowledge(id, world.pubsub.published());
        }
        Ok::<_, NotKept>(())
    })?;
    subscription.touch();
    Ok(json!({}))
}

fn modify_ack_deadline(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    let subscription = world.pubsub.subscription(name)?;
    let ids = ack_ids(request)?;
    let seconds = ids.ack_deadline_seconds.unwrap_or(0);
    if seconds > 600 {
        return Err(Refusal::argument(format!(
            "Invalid ack deadline given: (ack_deadline_seconds={seconds}); it must be between 0 and 600."
        )));
    }
    let second: Duration = world.settings.pubsub_second;
    let settings = subscription.settings();
    subscription.queue.change(|queue| {
        for id in &ids.ack_ids {
            if seconds == 0 {
                queue.nack(id, &settings, second);
            } else {
                queue.extend(id, second * seconds);
            }
        }
        Ok::<_, NotKept>(())
    })?;
    subscription.touch();
    Ok(json!({}))
}

fn modify_push_config(world: &World, name: &str, body: &Value) -> Result<Value, Refusal> {
    let subscription = world.pubsub.subscription(name)?;
    let push_config: PushConfig = serde_json::from_value(body["pushConfig"].clone())
        .map_err(|error| Refusal::argument(format!("Invalid JSON payload received. {error}")))?;
    let changed = Settings {
        push_config,
        ..subscription.settings()
    }
    .checked()?;
    subscription.set(changed)?;
    subscription.touch();
    Ok(json!({}))
}

/// `{"subscription": {...}, "updateMask": "ackDeadlineSeconds,..."}`
fn patch(world: &World, name: &str, body: &Value) -> Result<Value, Refusal> {
    let subscription = world.pubsub.subscription(name)?;
    let mask = body["updateMask"].as_str().unwrap_or_default();
    if mask.is_empty() {
        return Err(Refusal::argument(
            "The update_mask in the UpdateSubscriptionRequest must be set.",
        ));
    }
    let mut settings: Map<String, Value> = serde_json::to_value(subscription.settings())
        .ok()
        .and_then(|value| value.as_object().cloned())
        .unwrap_or_default();
    for field in mask.split(',').map(str::trim) {
        let field = camel(field);
        if ["name", "topic", "filter", "enableMessageOrdering"].contains(&field.as_str()) {
            return Err(Refusal::argument(format!(
                "Invalid update_mask provided in the UpdateSubscriptionRequest: the '{field}' field in the Subscription is not mutable."
            )));
        }
        match body["subscription"].get(&field) {
            Some(value) => settings.insert(field, value.clone()),
            None => settings.remove(&field),
        };
    }
    let settings: Settings = serde_json::from_value(Value::Object(settings))
        .map_err(|error| Refusal::argument(format!("Invalid JSON payload received. {error}")))?;
    let settings = settings.checked()?;
    let answer = settings.json();
    subscription.set(settings)?;
    subscription.touch();
    Ok(answer)
}

/// `ack_deadline_seconds` as `ackDeadlineSeconds`: masks come in both spellings.
fn camel(field: &str) -> String {
    let mut upper = false;
    field
        .chars()
        .filter_map(|letter| {
            if letter == '_' {
                upper = true;
                return None;
            }
            let shown = if upper { letter.to_ascii_uppercase() } else { letter };
            upper = false;
            Some(shown)
        })
        .collect()
}
