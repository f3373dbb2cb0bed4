//! Pub/Sub REST v1: topics, subscriptions, publish, pull and authenticated push.

mod access;
mod dead_letters;
mod emulator;
mod filter;
mod lifecycle;
mod manage;
mod model;
mod publish;
mod push;
mod queue;
mod refusals;
mod rest;
mod snapshots;
mod spelling;
mod subscription;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;

pub(super) use self::{
    emulator::{Emulator, relay, work},
    model::Draft,
    rest::handle,
};
use self::{model::Settings, queue::Queue, rest::wait, snapshots::Snapshots, subscription::Subscription};
pub use self::{publish::number_of, queue::Acknowledgement};
use super::{
    Refusal, World,
    bindings::Policy,
    clock::Clock,
    data::{DataDirectory, Journal, Kept, NotKept, Single, Table},
    server::lock,
};

/// All topics and subscriptions.
#[derive(Default)]
pub(super) struct Pubsub {
    topics: Kept<Table<Value>>,
    subscriptions: Mutex<BTreeMap<String, Arc<Subscription>>>,
    snapshots: Snapshots,
    /// The policies that were set, by the name of what they are of.
    access: Kept<Table<Policy>>,
    published: AtomicU64,
    /// Held, before all other locks, by whoever changes settings: what is checked and what is read is so until it is written.
    configuring: Mutex<()>,
    journal: Option<Arc<Journal>>,
    /// Subscriptions of an earlier process, which nothing is pushed to before [`Pubsub::resume`].
    held_back: Mutex<Vec<Arc<Subscription>>>,
    /// What keeps topics and subscriptions instead.
    pub(super) emulator: Option<Emulator>,
}

/// Where things are kept.
const TOPICS: &str = "pubsub/topic/";
const ACCESS: &str = "pubsub/access/";
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
            snapshots: Snapshots::open(journal, published)?,
            access: Kept::restored(Some(journal), ACCESS, Table::default())?,
            held_back: Mutex::new(subscriptions.values().cloned().collect()),
            subscriptions: Mutex::new(subscriptions),
            published: published.into(),
            configuring: Mutex::default(),
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

    /// Whether there is a topic or subscription of this name.
    fn has(&self, name: &str) -> bool {
        match name.split('/').nth(2) {
            Some("topics") => self.topics.look().contains_key(name),
            Some("subscriptions") => lock(&self.subscriptions).contains_key(name),
            _ => false,
        }
    }

    /// Whether a topic is there; of an emulator's that is found out when something is published.
    pub(super) fn has_topic(&self, name: &str) -> bool {
        self.emulator.is_some() || self.topics.look().contains_key(name)
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
}
