//! The REST surface of Pub/Sub: paths to calls.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{http::StatusCode, response::Response};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    super::{
        Refusal, World, base64_of_google,
        data::NotKept,
        policy::pubsub_refusal,
        server::{Request, decode, json as json_answer, lock, rpc_error},
    },
    Draft,
    access::{self, is_about_access, resource},
    manage,
    model::Settings,
    queue::is_ack_id,
    snapshots, spelling,
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
    let answer = match &world.pubsub.emulator {
        // What a caller may do is known here alone.
        Some(emulator) if !is_about_access(split_verb(&request.path).1) => emulator.pass(world, request).await,
        _ => call(world, caller.as_deref(), request)
            .await
            .map(|value| json_answer(StatusCode::OK, &value)),
    };
    match answer {
        Ok(answer) => answer,
        Err(refusal) => rpc_error(refusal.code, refusal.status, &refusal.message),
    }
}

/// `RESOURCE:VERB`; the verb is empty where there is none.
pub(super) fn split_verb(path: &str) -> (&str, &str) {
    match path.rsplit_once(':') {
        Some((path, verb)) if !verb.contains('/') => (path, verb),
        _ => (path, ""),
    }
}

/// Whether the policies let a caller do this.
fn permitted(world: &World, caller: &str, request: &Request) -> bool {
    // As the call is read: what is encoded separates nothing.
    let (path, verb) = split_verb(request.path.strip_prefix("/v1/").unwrap_or_default());
    let path = decode(path);
    // Whoever may look at a topic may see its subscriptions and snapshots.
    let path = path
        .strip_suffix("/subscriptions")
        .or_else(|| path.strip_suffix("/snapshots"))
        .filter(|path| path.contains("/topics/"))
        .unwrap_or(&path);
    // What one may do oneself anybody may ask.
    if verb == "testIamPermissions" {
        return true;
    }
    let kind = path.split('/').nth(2).unwrap_or_default();
    let action = match (request.method.as_str(), verb) {
        (_, "publish" | "getIamPolicy" | "setIamPolicy") => verb,
        (_, "pull" | "acknowledge" | "modifyAckDeadline" | "seek") => "consume",
        ("GET", _) if path.split('/').count() == 4 => "get",
        ("GET", _) => "list",
        ("PUT", _) => "create",
        ("DELETE", _) => "delete",
        _ => "update",
    };
    let permission = format!("pubsub.{kind}.{action}");
    world.policies.allows(caller, &permission, &resource(path))
}

async fn call(world: &Arc<World>, caller: Option<&str>, request: &Request) -> Result<Value, Refusal> {
    let path = request.path.strip_prefix("/v1/").ok_or_else(Refusal::unknown_method)?;
    let (path, verb) = split_verb(path);
    let path = decode(path);
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
        ("DELETE", ["projects", _, "topics", _], "") => pubsub.delete_topic(world, &path).map(|()| json!({})),
        ("PATCH", ["projects", _, "topics", _], "") => manage::patch_topic(world, &path, &body(request)?),
        ("GET", ["projects", _, "topics"], "") => {
            let prefix = format!("{path}/");
            let topics = pubsub.topics.look();
            let of_project = topics.iter().filter(|(name, _)| name.starts_with(&prefix));
            let of_project = of_project.map(|(name, topic)| (name.clone(), topic.clone()));
            manage::page(request, "topics", of_project.collect())
        }
        ("GET", ["projects", _, "topics", _, "subscriptions"], "") => {
            let topic = path.strip_suffix("/subscriptions").unwrap_or(&path);
            if !pubsub.has_topic(topic) {
                return Err(Refusal::no_resource(topic));
            }
            let attached = subscriptions(world, |settings| settings.topic == topic && !settings.detached);
            let names = attached
                .into_iter()
                .map(|settings| (settings.name.clone(), json!(settings.name)));
            manage::page(request, "subscriptions", names.collect())
        }
        ("GET", ["projects", _, "topics", _, "snapshots"], "") => {
            let topic = path.strip_suffix("/snapshots").unwrap_or(&path);
            if !pubsub.has_topic(topic) {
                return Err(Refusal::no_resource(topic));
            }
            let names = pubsub.snapshots.of_topic(topic, world.clock.now());
            manage::page(request, "snapshots", names)
        }
        ("GET", ["projects", _, "snapshots"], "") => snapshots::list(world, &path, request),
        (_, ["projects", _, "snapshots", _], "") => snapshots::call(world, &path, request),
        ("POST", ["projects", _, "topics", _], "publish") => publish(world, &path, request),
        (_, ["projects", _, "topics" | "subscriptions", _], verb) if is_about_access(verb) => {
            access::call(world, caller, &path, verb, request).await
        }
        ("PUT", ["projects", _, "subscriptions", _], "") => {
            let mut settings = body(request)?;
            settings["name"] = json!(path);
            pubsub.create_subscription(world, settings, true)
        }
        ("GET", ["projects", _, "subscriptions", _], "") => Ok(pubsub.subscription(&path)?.settings().json()),
        ("PATCH", ["projects", _, "subscriptions", _], "") => manage::patch_subscription(world, &path, &body(request)?),
        ("DELETE", ["projects", _, "subscriptions", _], "") => {
            pubsub.delete_subscription(world, &path).map(|()| json!({}))
        }
        ("GET", ["projects", _, "subscriptions"], "") => {
            let prefix = format!("{path}/");
            let found = subscriptions(world, |settings| settings.name.starts_with(&prefix));
            let listed = found
                .into_iter()
                .map(|settings| (settings.name.clone(), settings.json()));
            manage::page(request, "subscriptions", listed.collect())
        }
        ("POST", ["projects", _, "subscriptions", _], "pull") => pull(world, &path, request).await,
        ("POST", ["projects", _, "subscriptions", _], "acknowledge") => acknowledge(world, &path, request),
        ("POST", ["projects", _, "subscriptions", _], "modifyAckDeadline") => {
            modify_ack_deadline(world, &path, request)
        }
        ("POST", ["projects", _, "subscriptions", _], "modifyPushConfig") => {
            manage::modify_push_config(world, &path, &body(request)?)
        }
        ("POST", ["projects", _, "subscriptions", _], "detach") => manage::detach(world, &path),
        ("POST", ["projects", _, "subscriptions", _], "seek") => manage::seek(world, &path, &body(request)?),
        _ => Err(Refusal::unknown_method()),
    }
}

/// The body's object; without a body an empty one.
fn body(request: &Request) -> Result<Value, Refusal> {
    if request.body.is_empty() {
        return Ok(json!({}));
    }
    let body: Map<String, Value> = parse(request)?;
    Ok(Value::Object(body))
}

/// Reads the body; unknown fields are an error that names them.
pub(super) fn parse<T: DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    let body = serde_json::from_slice(&request.body).map_err(|error| Refusal::unreadable(&error))?;
    serde_json::from_value(spelling::ours(body)).map_err(|error| Refusal::unreadable(&error))
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
pub(super) async fn wait(
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
        if settings.detached {
            return Err(Refusal::failed_precondition(
                "The subscription is detached from its topic.",
            ));
        }
        if !settings.push_config.push_endpoint.is_empty() {
            let message = "This method is not supported for this subscription type.";
            return Err(Refusal::failed_precondition(message));
        }
        let taken = subscription.take(world, &settings, most.min(1000), false)?;
        if !taken.deliveries.is_empty() {
            if settings.dead_letter_policy.is_some() {
                // The end of these leases may be the end of a message.
                subscription.touch();
            }
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
    if let Some(id) = ids.ack_ids.iter().find(|id| !is_ack_id(id)) {
        return Err(Refusal::argument(format!(
            "You have passed an invalid ack ID to the service (ack_id={id})."
        )));
    }
    Ok(ids)
}

fn acknowledge(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    let subscription = world.pubsub.subscription(name)?;
    subscription.acknowledge(world, &ack_ids(request)?.ack_ids)?;
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
