//! Snapshots: what a subscription had not seen acknowledged, and all that its topic gets from then on. A seek to one makes exactly
//! that undelivered. <https://cloud.google.com/pubsub/docs/replay-overview>

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    super::{
        Refusal, World,
        data::{Journal, Kept, NotKept, Table},
        server::{Request, lock},
    },
    manage::{Fields, masked, page},
    model::{Message, check_name},
    queue::Queue,
    rest::parse,
};

/// The longest that one lives, less the age of its oldest message.
const LIFE: TimeDelta = TimeDelta::days(7);
/// None is made that would live for less.
const SHORTEST_LIFE: TimeDelta = TimeDelta::hours(1);

/// Where they and their messages are kept.
const SNAPSHOTS: &str = "pubsub/snapshot/";

fn place_of_messages(name: &str) -> String {
    format!("pubsub/snapshot-queue/{name}/")
}

/// A snapshot without its messages.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Snapshot {
    name: String,
    topic: String,
    expire_time: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl Snapshot {
    fn json(&self) -> Value {
        let mut value = json!(self);
        value["expireTime"] = json!(self.expire_time.to_rfc3339_opts(SecondsFormat::Millis, true));
        value
    }
}

impl Table<Snapshot> {
    /// Makes the snapshots of a topic those of no topic any more.
    pub(super) fn leave_topic(&mut self, topic: &str, instead: &str) {
        let of_topic = self.iter().filter(|(_, snapshot)| snapshot.topic == topic);
        let names: Vec<String> = of_topic.map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(snapshot) = self.get_mut(&name) {
                instead.clone_into(&mut snapshot.topic);
            }
        }
    }
}

/// All snapshots. Locked after the subscriptions.
#[derive(Default)]
pub(super) struct Snapshots {
    pub(super) about: Kept<Table<Snapshot>>,
    messages: Mutex<BTreeMap<String, Arc<Kept<Queue>>>>,
}

impl Snapshots {
    pub(super) fn open(journal: &Arc<Journal>, published: u64) -> io::Result<Self> {
        let about: Kept<Table<Snapshot>> = Kept::restored(Some(journal), SNAPSHOTS, Table::default())?;
        let mut messages = BTreeMap::new();
        for name in about.look().keys() {
            let queue = Queue::after(published, false);
            let queue = Kept::restored(Some(journal), place_of_messages(name), queue)?;
            messages.insert(name.clone(), Arc::new(queue));
        }
        Ok(Self {
            about,
            messages: Mutex::new(messages),
        })
    }

    /// Where messages go that are published now: topics, and what takes them.
    pub(super) fn takers(&self, now: DateTime<Utc>) -> Vec<(String, Arc<Kept<Queue>>)> {
        self.forget_expired(now);
        let messages = lock(&self.messages);
        let about = self.about.look();
        let queues = messages.iter();
        queues
            .filter_map(|(name, queue)| Some((about.get(name)?.topic.clone(), Arc::clone(queue))))
            .collect()
    }

    fn find(&self, name: &str, now: DateTime<Utc>) -> Result<Snapshot, Refusal> {
        self.forget_expired(now);
        let found = self.about.look().get(name).cloned();
        found.ok_or_else(|| Refusal::no_resource(name))
    }

    /// What cannot be forgotten on the disk is forgotten the next time.
    fn forget_expired(&self, now: DateTime<Utc>) {
        let expired: Vec<String> = {
            let about = self.about.look();
            let expired = about.iter().filter(|(_, snapshot)| snapshot.expire_time <= now);
            expired.map(|(name, _)| name.clone()).collect()
        };
        for name in expired {
            if let Err(error) = self.forget(&name) {
                tracing::warn!(%error, snapshot = name, "a snapshot that has expired stays");
            }
        }
    }

    fn forget(&self, name: &str) -> Result<(), NotKept> {
        let mut messages = lock(&self.messages);
        let Some(queue) = messages.get(name) else {
            return Ok(());
        };
        self.about.change_with(
            |about| {
                about.remove(name);
                Ok(())
            },
            |held, ()| Kept::change_all(&[queue.as_ref()], &mut [held], |_, queue| queue.clear()),
        )?;
        messages.remove(name);
        Ok(())
    }

    /// The names of those of a topic.
    pub(super) fn of_topic(&self, topic: &str, now: DateTime<Utc>) -> Vec<(String, Value)> {
        self.forget_expired(now);
        let about = self.about.look();
        let of_topic = about.iter().filter(|(_, snapshot)| snapshot.topic == topic);
        of_topic.map(|(name, _)| (name.clone(), json!(name))).collect()
    }
}

/// What an update mask can name.
const FIELDS: Fields = Fields {
    mutable: &["labels", "expireTime"],
    fixed: &["name", "topic"],
};

/// A call on a snapshot.
pub(super) fn call(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    let (snapshots, now) = (&world.pubsub.snapshots, world.clock.now());
    match request.method.as_str() {
        "PUT" => create(world, name, request),
        "GET" => snapshots.find(name, now).map(|snapshot| snapshot.json()),
        "PATCH" => update(world, name, request),
        "DELETE" => delete(world, name),
        _ => Err(Refusal::unknown_method()),
    }
}

/// `snapshots.list`
pub(super) fn list(world: &World, project: &str, request: &Request) -> Result<Value, Refusal> {
    let snapshots = &world.pubsub.snapshots;
    snapshots.forget_expired(world.clock.now());
    let prefix = format!("{project}/");
    let about = snapshots.about.look();
    let of_project = about.iter().filter(|(name, _)| name.starts_with(&prefix));
    let of_project = of_project.map(|(name, snapshot)| (name.clone(), snapshot.json()));
    page(request, "snapshots", of_project.collect())
}

fn create(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Create {
        #[serde(default)]
        subscription: String,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    let Create { subscription, labels } = parse(request)?;
    check_name(name, "snapshots")?;
    let (pubsub, now) = (&world.pubsub, world.clock.now());
    let _alone = lock(&pubsub.configuring);
    let source = pubsub.subscription(&subscription)?;
    // Nothing is published between the backlog and what comes after it.
    let _published = lock(&pubsub.subscriptions);
    let snapshots = &pubsub.snapshots;
    snapshots.forget_expired(now);
    let mut messages = lock(&snapshots.messages);
    if messages.contains_key(name) {
        return Err(Refusal::resource_exists(name));
    }
    let settings = source.settings();
    if settings.detached {
        let message = "The subscription is detached from its topic.";
        return Err(Refusal::failed_precondition(message));
    }
    let since = now - settings.retention();
    let backlog: Vec<Arc<Message>> = {
        let queue = source.queue.look();
        let retained = queue.messages().filter(|message| message.published > since);
        retained.cloned().collect()
    };
    let expire_time = backlog.first().map_or(now, |oldest| oldest.published) + LIFE;
    if expire_time - now < SHORTEST_LIFE {
        let message = "The backlog of the subscription is too old: the snapshot would expire in less than an hour.";
        return Err(Refusal::failed_precondition(message));
    }
    let snapshot = Snapshot {
        name: name.to_owned(),
        topic: settings.topic,
        expire_time,
        labels,
    };
    let journal = pubsub.journal.as_ref();
    let queue = Kept::new(journal, place_of_messages(name), Queue::default());
    snapshots.about.change_with(
        |about| {
            about.insert(name.to_owned(), snapshot.clone());
            Ok::<_, NotKept>(())
        },
        |held, ()| {
            Kept::change_all(&[&queue], &mut [held], |_, queue| {
                for message in &backlog {
                    queue.add(Arc::clone(message), false);
                }
            })
        },
    )?;
    messages.insert(name.to_owned(), Arc::new(queue));
    Ok(snapshot.json())
}

fn update(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    let body: Value = parse(request)?;
    let (pubsub, now) = (&world.pubsub, world.clock.now());
    let _alone = lock(&pubsub.configuring);
    let old = pubsub.snapshots.find(name, now)?;
    let updated = masked(&json!(old), &body, "snapshot", "Snapshot", &FIELDS)?;
    let updated: Snapshot = serde_json::from_value(updated).map_err(|error| Refusal::unreadable(&error))?;
    if updated.expire_time != old.expire_time && !(now..=now + LIFE).contains(&updated.expire_time) {
        return Err(Refusal::argument(
            "Invalid expire_time given: it must be within the next 7 days.",
        ));
    }
    // It does not expire meanwhile.
    let messages = lock(&pubsub.snapshots.messages);
    if !messages.contains_key(name) {
        return Err(Refusal::no_resource(name));
    }
    pubsub.snapshots.about.change(|about| {
        about.insert(name.to_owned(), updated.clone());
        Ok::<_, NotKept>(())
    })?;
    Ok(updated.json())
}

fn delete(world: &World, name: &str) -> Result<Value, Refusal> {
    let pubsub = &world.pubsub;
    let _alone = lock(&pubsub.configuring);
    pubsub.snapshots.find(name, world.clock.now())?;
    pubsub.snapshots.forget(name)?;
    Ok(json!({}))
}

/// `subscriptions.seek`, to a snapshot of the same topic.
pub(super) fn seek(world: &World, subscription: &str, name: &str) -> Result<Value, Refusal> {
    check_name(name, "snapshots")?;
    let pubsub = &world.pubsub;
    let _alone = lock(&pubsub.configuring);
    let found = pubsub.subscription(subscription)?;
    // What is published meanwhile would be in one of the two.
    let _published = lock(&pubsub.subscriptions);
    let snapshot = pubsub.snapshots.find(name, world.clock.now())?;
    let settings = found.settings();
    if settings.topic != snapshot.topic {
        return Err(Refusal::failed_precondition(format!(
            "The subscription's topic {} is different from that of the snapshot, {}. A topic that was deleted and made again \
             is another one.",
            settings.topic, snapshot.topic
        )));
    }
    let messages: Vec<Arc<Message>> = {
        let all = lock(&pubsub.snapshots.messages);
        let queue = all.get(name).ok_or_else(|| Refusal::no_resource(name))?.look();
        let filter = found.filter.as_ref();
        let wanted = |message: &&Arc<Message>| filter.is_none_or(|filter| filter.matches(&message.draft.attributes));
        queue.messages().filter(wanted).cloned().collect()
    };
    found.queue.change(|queue| {
        queue.seek_to(messages, settings.retain_acked_messages);
        Ok::<_, NotKept>(())
    })?;
    found.touch();
    Ok(json!({}))
}
