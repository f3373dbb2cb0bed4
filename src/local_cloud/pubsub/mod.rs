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
    io,
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
    queue::{Delivery, Look, Queue, Taken},
    rest::wait,
};
use super::{
    Refusal, World,
    clock::Clock,
    data::{DataDirectory, Held, Journal, Kept, Loose, NotKept, Single, Table, commit},
    server::lock,
};

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
    settings: Kept<Single<Settings>>,
    /// Which messages it gets; it never changes.
    filter: Option<Filter>,
    queue: Kept<Queue>,
    pace: Mutex<Pace>,
    deleted: Mutex<bool>,
    /// Counts what happened, so that pushers and pullers look again.
    changed: watch::Sender<u64>,
}

impl Subscription {
    fn new(settings: Kept<Single<Settings>>, filter: Option<Filter>, queue: Kept<Queue>) -> Self {
        Self {
            settings,
            filter,
            queue,
            pace: Mutex::default(),
            deleted: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    fn settings(&self) -> Settings {
        Settings::clone(&self.settings.look())
    }

    fn set(&self, settings: Settings) -> Result<(), NotKept> {
        self.settings.change(|value| {
            **value = settings;
            Ok(())
        })
    }

    fn is_deleted(&self) -> bool {
        *lock(&self.deleted)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Leases up to `most` messages, and sends off those that are given up.
    fn take(&self, world: &World, settings: &Settings, most: usize, one_of_a_key: bool) -> Result<Taken, NotKept> {
        let given_up_by = working(world, settings.clone());
        loop {
            let look = Look {
                settings: &given_up_by,
                most,
                one_of_a_key,
                second: world.settings.pubsub_second,
                now: world.clock.now(),
            };
            let mut taken = self.queue.change(|queue| Ok::<_, NotKept>(queue.take(&look)))?;
            let dead = std::mem::take(&mut taken.dead);
            if dead.is_empty() {
                return Ok(taken);
            }
            forward_dead(world, self, settings, dead);
            // What waited behind them in its order may go now.
            if !taken.deliveries.is_empty() {
                return Ok(taken);
            }
        }
    }

    fn acknowledge(&self, world: &World, ack_ids: &[impl AsRef<str>]) -> Result<(), NotKept> {
        let retain = self.settings.look().retain_acked_messages;
        self.queue.change(|queue| {
            for id in ack_ids {
                queue.acknowledge(id.as_ref(), retain, world.pubsub.published());
            }
            Ok::<_, NotKept>(())
        })?;
        self.touch();
        Ok(())
    }
}

/// All topics and subscriptions.
#[derive(Default)]
pub(super) struct Pubsub {
    topics: Kept<Table<Value>>,
    subscriptions: Mutex<BTreeMap<String, Arc<Subscription>>>,
    published: AtomicU64,
    journal: Option<Arc<Journal>>,
    /// Subscriptions of an earlier process, which nothing is pushed to before [`Pubsub::resume`].
    held_back: Mutex<Vec<Arc<Subscription>>>,
    /// What keeps topics and subscriptions instead.
    pub(super) emulator: Option<Emulator>,
}

/// Where things are kept.
const TOPICS: &str = "pubsub/topic/";
const SUBSCRIPTIONS: &str = "pubsub/subscription/";
const PUBLISHED: &str = "pubsub/published";

fn place_of_queue(subscription: &str) -> String {
    format!("pubsub/queue/{subscription}/")
}

impl Pubsub {
    /// With what a directory has. An emulator keeps everything itself.
    pub(super) fn open(data: Option<&DataDirectory>, clock: &Clock, emulator: Option<Emulator>) -> io::Result<Self> {
        let Some(journal) = data.map(|data| &data.journal).filter(|_| emulator.is_none()) else {
            return Ok(Self {
                emulator,
                ..Self::default()
            });
        };
        let published: Option<(String, u64)> = journal.read(PUBLISHED)?.into_iter().next();
        let published = published.map_or(0, |(_, published)| published);
        let mut subscriptions = BTreeMap::new();
        for (name, settings) in journal.read::<Settings>(SUBSCRIPTIONS)? {
            let now = clock.now();
            let (retention, ordered) = (settings.retention(), settings.enable_message_ordering);
            let filter = settings.parsed_filter().map_err(io::Error::other)?;
            let place = format!("{SUBSCRIPTIONS}{name}");
            let settings = Kept::new(Some(journal), place, Single::restored(settings));
            // Every number in a queue is a message of the cloud: none is given again, nor is an ack id.
            let queue = Kept::restored(Some(journal), place_of_queue(&name), Queue::after(published, ordered))?;
            let expired = queue.change(|queue| {
                queue.forget_published_until(now - retention);
                queue.begin_again();
                Ok::<_, NotKept>(())
            });
            expired.map_err(io::Error::other)?;
            subscriptions.insert(name, Arc::new(Subscription::new(settings, filter, queue)));
        }
        Ok(Self {
            topics: Kept::restored(Some(journal), TOPICS, Table::default())?,
            held_back: Mutex::new(subscriptions.values().cloned().collect()),
            subscriptions: Mutex::new(subscriptions),
            published: published.into(),
            journal: Some(Arc::clone(journal)),
            emulator: None,
        })
    }

    pub(super) fn is_kept(&self) -> bool {
        self.journal.is_some()
    }

    /// Begins to push what an earlier process left.
    pub(super) fn resume(&self, world: &Arc<World>) {
        for subscription in std::mem::take(&mut *lock(&self.held_back)) {
            tokio::spawn(push::run(Arc::clone(world), subscription));
        }
    }

    /// Whether a topic is there; of an emulator's that is found out when something is published.
    pub(super) fn has_topic(&self, name: &str) -> bool {
        self.emulator.is_some() || self.topics.look().contains_key(name)
    }

    pub(super) fn create_topic(&self, name: &str, body: Value) -> Result<Value, Refusal> {
        check_name(name, "topics")?;
        let topic = manage::topic(name, body)?;
        if let Some(emulator) = &self.emulator {
            emulator.create_topic(name);
            return Ok(topic);
        }
        self.topics.change(|topics| {
            if topics.contains_key(name) {
                return Err(Refusal::resource_exists(name));
            }
            topics.insert(name.to_owned(), topic.clone());
            Ok(topic)
        })
    }

    fn delete_topic(&self, name: &str) -> Result<(), Refusal> {
        let subscriptions = lock(&self.subscriptions);
        let of_topic: Vec<_> = subscriptions
            .values()
            .map(|subscription| &subscription.settings)
            .collect();
        self.topics.change_with(
            |topics| topics.remove(name).ok_or_else(|| Refusal::no_resource(name)),
            |held, _| {
                Kept::change_all(&of_topic, &mut [held], |_, settings| {
                    if settings.topic == name {
                        DELETED_TOPIC.clone_into(&mut settings.topic);
                    }
                })?;
                Ok(())
            },
        )
    }

    /// Makes a subscription, which ends with the process unless it `outlives` that.
    pub(super) fn create_subscription(
        &self,
        world: &Arc<World>,
        settings: Value,
        outlives: bool,
    ) -> Result<Value, Refusal> {
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
        let ordered = settings.enable_message_ordering;
        let journal = self.journal.as_ref().filter(|_| outlives);
        let settings = Kept::new(journal, format!("{SUBSCRIPTIONS}{name}"), Single::new(settings));
        let subscription = {
            let mut subscriptions = lock(&self.subscriptions);
            if subscriptions.contains_key(&name) {
                return Err(Refusal::resource_exists(&name));
            }
            settings.change(|_| Ok::<_, NotKept>(()))?;
            let queue = Kept::new(journal, place_of_queue(&name), Queue::after(self.published(), ordered));
            let subscription = Arc::new(Subscription::new(settings, filter, queue));
            subscriptions.insert(name, Arc::clone(&subscription));
            subscription
        };
        tokio::spawn(push::run(Arc::clone(world), subscription));
        Ok(answer)
    }

    /// Sets a subscription's push endpoint and its dead-letter policy.
    pub(super) fn redirect(&self, world: &World, name: &str, wanted: Value) -> Result<(), Refusal> {
        let subscription = self.subscription(name)?;
        let wanted = model::subscription(wanted)?;
        let changed = Settings {
            push_config: wanted.push_config,
            dead_letter_policy: wanted.dead_letter_policy,
            ..subscription.settings()
        };
        subscription.set(self.checked(world, changed)?)?;
        subscription.touch();
        Ok(())
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
        self.subscription(name)?.acknowledge(world, &ids)?;
        Ok(received)
    }

    /// How many messages a subscription has not seen acknowledged.
    pub(super) fn backlog(&self, subscription: &str) -> Result<usize, Refusal> {
        Ok(self.subscription(subscription)?.queue.look().len())
    }

    /// The messages that a subscription has not seen acknowledged, oldest first.
    pub(super) fn waiting(&self, subscription: &str) -> Result<Vec<Value>, Refusal> {
        let subscription = self.subscription(subscription)?;
        let queue = subscription.queue.look();
        Ok(queue.messages().map(|message| message.json()).collect())
    }

    /// What a subscription has seen acknowledged, oldest first.
    pub(super) fn acknowledgements(&self, subscription: &str) -> Result<Vec<Acknowledgement>, Refusal> {
        Ok(self.subscription(subscription)?.queue.look().acknowledged())
    }

    /// How many messages were published so far.
    fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    fn delete_subscription(&self, name: &str) -> Result<(), Refusal> {
        let mut subscriptions = lock(&self.subscriptions);
        let subscription = subscriptions.get(name).ok_or_else(|| Refusal::no_resource(name))?;
        let mut settings = Loose::remove(self.journal.as_ref(), &format!("{SUBSCRIPTIONS}{name}"));
        Kept::change_all(&[&subscription.queue], &mut [&mut settings], |_, queue| queue.clear())?;
        *lock(&subscription.deleted) = true;
        subscription.touch();
        subscriptions.remove(name);
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
        let drafts = drafts.into_iter().map(|draft| (topic.to_owned(), draft)).collect();
        Ok(self.distribute(world, drafts, None)?)
    }

    /// Publishes what other changes of the cloud are announced by, together with them. A topic that was deleted since loses its
    /// messages, as Google's does.
    pub(super) fn announce(
        &self,
        world: &World,
        mut messages: Vec<(String, Draft)>,
        along: &mut dyn Held,
    ) -> Result<(), NotKept> {
        messages.retain(|(topic, draft)| self.has_topic(topic) && check_drafts(std::slice::from_ref(draft)).is_ok());
        if let Some(emulator) = &self.emulator {
            commit(&mut [along])?;
            for (topic, draft) in messages {
                // Only what is too large is refused, and that is not here any more.
                let _nothing = emulator.publish(&topic, &[draft]);
            }
            return Ok(());
        }
        if messages.is_empty() {
            return commit(&mut [along]);
        }
        self.distribute(world, messages, Some(along)).map(drop)
    }

    /// Puts messages into all queues that they belong in, all of them or none; the message ids.
    fn distribute(
        &self,
        world: &World,
        drafts: Vec<(String, Draft)>,
        along: Option<&mut dyn Held>,
    ) -> Result<Vec<String>, NotKept> {
        let subscriptions = lock(&self.subscriptions);
        let published = world.clock.now();
        let messages: Vec<(String, Arc<Message>)> = drafts
            .into_iter()
            .map(|(topic, draft)| {
                let id = (FIRST_ID + self.published.fetch_add(1, Ordering::SeqCst)).to_string();
                (topic, Arc::new(Message { id, published, draft }))
            })
            .collect();
        let (mut takers, mut shares) = (Vec::new(), Vec::new());
        for subscription in subscriptions.values() {
            let (topic, retain) = {
                let settings = subscription.settings.look();
                if settings.detached {
                    continue;
                }
                (settings.topic.clone(), settings.retain_acked_messages)
            };
            let wanted = |(other, message): &&(String, Arc<Message>)| {
                let filter = subscription.filter.as_ref();
                *other == topic && filter.is_none_or(|filter| filter.matches(&message.draft.attributes))
            };
            let share: Vec<&Arc<Message>> = messages.iter().filter(wanted).map(|(_, message)| message).collect();
            if !share.is_empty() {
                takers.push(subscription);
                shares.push((share, retain));
            }
        }
        let mut count = match &self.journal {
            Some(journal) => Loose::put(Some(journal), PUBLISHED, &self.published()),
            None => Loose::default(),
        };
        let queues: Vec<&Kept<Queue>> = takers.iter().map(|subscription| &subscription.queue).collect();
        let add = |index: usize, queue: &mut Queue| {
            let (share, retain) = &shares[index];
            for message in share {
                queue.add(Arc::clone(message), *retain);
            }
        };
        match along {
            Some(along) => Kept::change_all(&queues, &mut [along, &mut count], add)?,
            None => Kept::change_all(&queues, &mut [&mut count], add)?,
        }
        for subscription in takers {
            subscription.touch();
        }
        Ok(messages.iter().map(|(_, message)| message.id.clone()).collect())
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

/// Publishes on the dead-letter topic what a subscription gave up, and forgets it then: it is in one of the two at any time.
fn forward_dead(world: &World, subscription: &Subscription, settings: &Settings, dead: Vec<Delivery>) {
    let Some(policy) = &settings.dead_letter_policy else {
        return;
    };
    let ["projects", project, "subscriptions", id] = settings.name.split('/').collect::<Vec<_>>()[..] else {
        return;
    };
    for Delivery {
        ack_id,
        message,
        attempt,
    } in dead
    {
        let mut draft = message.draft.clone();
        let mut set = |key: &str, value: String| {
            draft
                .attributes
                .insert(format!("CloudPubSubDeadLetterSource{key}"), value)
        };
        set("Subscription", id.to_owned());
        set("SubscriptionProject", project.to_owned());
        set("DeliveryCount", attempt.to_string());
        set("TopicPublishTime", message.publish_time());
        // A dead-letter topic that was deleted since loses the message: Google's documentation warns of it.
        match world.pubsub.publish(world, &policy.dead_letter_topic, vec![draft]) {
            Ok(_) => {}
            // It stays, and is tried again when the lease that it is held under ends.
            Err(refusal) if refusal.status == "UNAVAILABLE" => continue,
            Err(refusal) => {
                tracing::warn!(error = %refusal, subscription = settings.name, "a dead letter was lost");
            }
        }
        let forgotten = subscription.queue.change(|queue| {
            queue.forget_dead(&ack_id);
            Ok::<_, NotKept>(())
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, subscription = settings.name, "a dead letter is forwarded again");
        }
        // What waits behind it in its order may go now.
        subscription.touch();
    }
}
