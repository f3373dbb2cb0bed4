//! Pub/Sub REST v1: topics, subscriptions, publish, pull and authenticated push.

mod emulator;
mod filter;
mod manage;
mod model;
mod push;
mod queue;
mod rest;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::queue::Acknowledgement;
pub(super) use self::{
    emulator::{Emulator, relay, work},
    model::Draft,
    rest::handle,
};
use self::{
    filter::Filter,
    model::{Message, Settings, check_drafts, check_name},
    push::Pace,
    queue::{Look, Queue, Taken},
    rest::wait,
};
use super::{Refusal, World, server::lock};

/// Google's ids are numbers of 14 to 17 digits; nobody may read more into them but who asks this cloud what came first.
const FIRST_ID: u64 = 10_000_000_000_000_000;

/// Which of all messages of a local cloud a message id is, counted from 1 in the order they were published; none for
/// what is no id of one.
pub fn number_of(message_id: &str) -> Option<u64> {
    message_id.parse::<u64>().ok()?.checked_sub(FIRST_ID)?.checked_add(1)
}

/// What a subscription's `topic` says after that was deleted.
const DELETED_TOPIC: &str = "_deleted-topic_";

impl Refusal {
    fn argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
    }

    /// A body that is no JSON, or has members that are not known.
    fn unreadable(error: &serde_json::Error) -> Self {
        Self::argument(format!("Invalid JSON payload received. {error}"))
    }

    /// What Google has and this cloud has not.
    fn not_here(what: &str) -> Self {
        let message = format!("The local cloud has no {what}.");
        Self::new(StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED", message)
    }

    fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", message)
    }

    fn no_resource(name: &str) -> Self {
        let id = name.rsplit('/').next().unwrap_or_default();
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format!("Resource not found (resource={id})."),
        )
    }

    fn resource_exists(name: &str) -> Self {
        let id = name.rsplit('/').next().unwrap_or_default();
        let message = format!("Resource already exists in the project (resource={id}).");
        Self::new(StatusCode::CONFLICT, "ALREADY_EXISTS", message)
    }
}

/// One subscription and its messages.
pub(super) struct Subscription {
    settings: Mutex<Settings>,
    /// Which messages it gets; it never changes.
    filter: Option<Filter>,
    queue: Mutex<Queue>,
    pace: Mutex<Pace>,
    deleted: Mutex<bool>,
    /// Counts what happened, so that pushers and pullers look again.
    changed: watch::Sender<u64>,
}

impl Subscription {
    fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    fn is_deleted(&self) -> bool {
        *lock(&self.deleted)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Leases up to `most` messages, and sends off those that are given up.
    fn take(&self, world: &World, settings: &Settings, most: usize, one_of_a_key: bool) -> Taken {
        let given_up_by = working(world, settings.clone());
        let look = Look {
            settings: &given_up_by,
            most,
            one_of_a_key,
            second: world.settings.pubsub_second,
            now: world.clock.now(),
        };
        let mut taken = lock(&self.queue).take(&look);
        forward_dead(world, settings, std::mem::take(&mut taken.dead));
        taken
    }

    fn acknowledge(&self, world: &World, ack_ids: &[impl AsRef<str>]) {
        let retain = lock(&self.settings).retain_acked_messages;
        let mut queue = lock(&self.queue);
        for id in ack_ids {
            queue.acknowledge(id.as_ref(), retain, world.pubsub.published());
        }
        drop(queue);
        self.touch();
    }
}

/// All topics and subscriptions.
#[derive(Default)]
pub(super) struct Pubsub {
    topics: Mutex<BTreeMap<String, Value>>,
    subscriptions: Mutex<BTreeMap<String, Arc<Subscription>>>,
    published: AtomicU64,
    /// What keeps topics and subscriptions instead.
    pub(super) emulator: Option<Emulator>,
}

impl Pubsub {
    pub(super) fn on(emulator: Option<Emulator>) -> Self {
        Self {
            emulator,
            ..Self::default()
        }
    }

    /// Whether a topic is there; of an emulator's that is found out when something is published.
    pub(super) fn has_topic(&self, name: &str) -> bool {
        self.emulator.is_some() || lock(&self.topics).contains_key(name)
    }

    pub(super) fn create_topic(&self, name: &str, body: Value) -> Result<Value, Refusal> {
        check_name(name, "topics")?;
        let topic = manage::topic(name, body)?;
        if let Some(emulator) = &self.emulator {
            emulator.create_topic(name);
            return Ok(topic);
        }
        let mut topics = lock(&self.topics);
        if topics.contains_key(name) {
            return Err(Refusal::resource_exists(name));
        }
        topics.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }

    fn delete_topic(&self, name: &str) -> Result<(), Refusal> {
        lock(&self.topics)
            .remove(name)
            .ok_or_else(|| Refusal::no_resource(name))?;
        for subscription in lock(&self.subscriptions).values() {
            let mut settings = lock(&subscription.settings);
            if settings.topic == name {
                DELETED_TOPIC.clone_into(&mut settings.topic);
            }
        }
        Ok(())
    }

    pub(super) fn create_subscription(&self, world: &Arc<World>, settings: Value) -> Result<Value, Refusal> {
        let settings = Settings {
            detached: false,
            ..model::subscription(settings)?
        };
        let settings = self.checked(world, settings)?;
        check_name(&settings.name, "subscriptions")?;
        if !self.has_topic(&settings.topic) {
            return Err(Refusal::no_resource(&settings.topic));
        }
        if let Some(emulator) = &self.emulator {
            emulator.create_subscription(&settings.name, json!(settings))?;
            return Ok(settings.json());
        }
        let filter = settings.parsed_filter()?;
        let answer = settings.json();
        let name = settings.name.clone();
        let subscription = Arc::new(Subscription {
            queue: Mutex::new(Queue::new(settings.enable_message_ordering)),
            settings: Mutex::new(settings),
            filter,
            pace: Mutex::default(),
            deleted: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        {
            let mut subscriptions = lock(&self.subscriptions);
            if subscriptions.contains_key(&name) {
                return Err(Refusal::resource_exists(&name));
            }
            subscriptions.insert(name, Arc::clone(&subscription));
        }
        tokio::spawn(push::run(Arc::clone(world), subscription));
        Ok(answer)
    }

    /// Settings as Google takes them: in bounds, and with nothing that is not there.
    fn checked(&self, world: &World, settings: Settings) -> Result<Settings, Refusal> {
        let settings = settings.checked()?;
        if let Some(policy) = &settings.dead_letter_policy
            && !self.has_topic(&policy.dead_letter_topic)
        {
            return Err(Refusal::no_resource(&policy.dead_letter_topic));
        }
        push::check(world, &settings.push_config)?;
        Ok(settings)
    }

    fn subscription(&self, name: &str) -> Result<Arc<Subscription>, Refusal> {
        lock(&self.subscriptions)
            .get(name)
            .cloned()
            .ok_or_else(|| Refusal::no_resource(name))
    }

    /// The next messages of a subscription, acknowledged; see [`wait`].
    pub(super) async fn receive(&self, world: &Arc<World>, name: &str, most: usize) -> Result<Vec<Value>, Refusal> {
        if let Some(emulator) = &self.emulator {
            let received = emulator.pull(world, name, most).await?;
            emulator.acknowledge(world, name, &received).await?;
            return Ok(received);
        }
        let received = wait(world, name, most, false).await?;
        let ids: Vec<&str> = received
            .iter()
            .filter_map(|message| message["ackId"].as_str())
            .collect();
        self.subscription(name)?.acknowledge(world, &ids);
        Ok(received)
    }

    /// How many messages a subscription has not seen acknowledged.
    pub(super) fn backlog(&self, subscription: &str) -> Result<usize, Refusal> {
        Ok(lock(&self.subscription(subscription)?.queue).len())
    }

    /// What a subscription has seen acknowledged, oldest first.
    pub(super) fn acknowledgements(&self, subscription: &str) -> Result<Vec<Acknowledgement>, Refusal> {
        Ok(lock(&self.subscription(subscription)?.queue).acknowledged())
    }

    /// How many messages were published so far.
    fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    fn delete_subscription(&self, name: &str) -> Result<(), Refusal> {
        let subscription = lock(&self.subscriptions)
            .remove(name)
            .ok_or_else(|| Refusal::no_resource(name))?;
        *lock(&subscription.deleted) = true;
        lock(&subscription.queue).clear();
        subscription.touch();
        Ok(())
    }

    /// Gives every subscription of the topic its copy; the message ids, which an emulator does not say in time.
    pub(super) fn publish(&self, world: &World, topic: &str, drafts: Vec<Draft>) -> Result<Vec<String>, Refusal> {
        if let Some(emulator) = &self.emulator {
            return emulator.publish(topic, &drafts).map(|()| Vec::new());
        }
        check_drafts(&drafts)?;
        if !self.has_topic(topic) {
            return Err(Refusal::no_resource(topic));
        }
        let published = world.clock.now();
        let messages: Vec<Arc<Message>> = drafts
            .into_iter()
            .map(|draft| {
                let number = FIRST_ID + self.published.fetch_add(1, Ordering::SeqCst);
                Arc::new(Message {
                    id: number.to_string(),
                    published,
                    draft,
                })
            })
            .collect();
        for subscription in lock(&self.subscriptions).values() {
            let retain = {
                let settings = lock(&subscription.settings);
                if settings.topic != topic || settings.detached {
                    continue;
                }
                settings.retain_acked_messages
            };
            let wanted = |message: &&Arc<Message>| {
                let filter = subscription.filter.as_ref();
                filter.is_none_or(|filter| filter.matches(&message.draft.attributes))
            };
            let mut queue = lock(&subscription.queue);
            for message in messages.iter().filter(wanted) {
                queue.add(Arc::clone(message), retain);
            }
            drop(queue);
            subscription.touch();
        }
        Ok(messages.iter().map(|message| message.id.clone()).collect())
    }
}

/// A subscription's settings as they work: where Pub/Sub's agent may not forward dead letters, nothing is given up, and what
/// fails is delivered for ever.
fn working(world: &World, mut settings: Settings) -> Settings {
    if let Some(policy) = &settings.dead_letter_policy {
        let may = |permission, resource: &str| world.policies.agent_may("pubsub-agent", permission, resource);
        let publish = may("pubsub.topics.publish", &format!("topic/{}", policy.dead_letter_topic));
        let acknowledge = may(
            "pubsub.subscriptions.consume",
            &format!("subscription/{}", settings.name),
        );
        if !publish || !acknowledge {
            settings.dead_letter_policy = None;
        }
    }
    settings
}

/// Publishes on the dead-letter topic what a subscription gave up.
fn forward_dead(world: &World, settings: &Settings, dead: Vec<(Arc<Message>, u32)>) {
    let Some(policy) = &settings.dead_letter_policy else {
        return;
    };
    let ["projects", project, "subscriptions", id] = settings.name.split('/').collect::<Vec<_>>()[..] else {
        return;
    };
    for (message, attempts) in dead {
        let mut draft = message.draft.clone();
        let mut set = |key: &str, value: String| {
            draft
                .attributes
                .insert(format!("CloudPubSubDeadLetterSource{key}"), value)
        };
        set("Subscription", id.to_owned());
        set("SubscriptionProject", project.to_owned());
        set("DeliveryCount", attempts.to_string());
        set("TopicPublishTime", message.publish_time());
        // A dead-letter topic that was deleted since loses the message: Google's documentation warns of it.
        if let Err(refusal) = world.pubsub.publish(world, &policy.dead_letter_topic, vec![draft]) {
            tracing::warn!(error = %refusal, subscription = settings.name, "a dead letter was lost");
        }
    }
}
