//! One subscription's messages: ready, leased, acknowledged. Knows no HTTP.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{
    super::data::{Durable, Journal, Sink},
    model::{Message, Settings},
};

struct Entry {
    message: Arc<Message>,
    /// Deliveries so far.
    attempts: u32,
    ready_at: Instant,
    lease: Option<Lease>,
}

struct Lease {
    ack_id: String,
    until: Instant,
}

/// A message in someone's hands.
pub(super) struct Delivery {
    pub(super) ack_id: String,
    pub(super) message: Arc<Message>,
    /// Counted from 1.
    pub(super) attempt: u32,
}

/// What a look into the queue brings.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    /// Messages whose attempts are used up: held like a delivery until they are somewhere else.
    pub(super) dead: Vec<Delivery>,
    /// When another look is worth while, if nothing else happens.
    pub(super) again_at: Option<Instant>,
}

/// One message that a subscription has seen acknowledged: what a test compares with what was published by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The message's id.
    pub message_id: String,
    /// Deliveries that it took.
    pub attempts: u32,
    /// How many messages had been published in the whole cloud when it was acknowledged: the id of each one says which
    /// it was (see [`super::number_of`]).
    pub published: u64,
}

/// The acknowledgements that are kept: a local cloud may run for days.
const KEPT: usize = 100_000;

#[derive(Default)]
pub(super) struct Queue {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    acknowledged: VecDeque<Acknowledgement>,
    /// What was written down: the attempts of each message.
    kept: BTreeMap<u64, u32>,
}

/// Messages and their attempts are kept; leases are not, so that after a restart all is ready.
impl Durable for Queue {
    fn drain(&mut self, at: &str, sink: &mut Sink) {
        if !sink.keeps() {
            return;
        }
        let (message, attempts) = (
            |number: u64| format!("{at}message/{number:020}"),
            |number: u64| format!("{at}attempts/{number:020}"),
        );
        for (number, entry) in &self.entries {
            let kept = self.kept.get(number);
            if kept.is_none() {
                sink.put(message(*number), &*entry.message);
            }
            if *kept.unwrap_or(&0) != entry.attempts {
                sink.put(attempts(*number), &entry.attempts);
            }
        }
        for number in self.kept.keys().filter(|number| !self.entries.contains_key(number)) {
            sink.remove(message(*number));
            sink.remove(attempts(*number));
        }
        self.kept = self.counts();
    }

    fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()> {
        let number = |key: &str| key.parse::<u64>().map_err(io::Error::other);
        let mut attempts = BTreeMap::new();
        for (key, count) in journal.read::<u32>(&format!("{at}attempts/"))? {
            attempts.insert(number(&key)?, count);
        }
        let mut before = std::mem::take(&mut self.entries);
        for (key, message) in journal.read::<Message>(&format!("{at}message/"))? {
            let number = number(&key)?;
            let attempts = attempts.get(&number).copied().unwrap_or(0);
            let still_so = before.remove(&number).filter(|entry| entry.attempts == attempts);
            let entry = still_so.unwrap_or_else(|| Entry {
                message: Arc::new(message),
                attempts,
                ready_at: Instant::now(),
                lease: None,
            });
            self.entries.insert(number, entry);
            self.next = self.next.max(number);
        }
        self.kept = self.counts();
        Ok(())
    }
}

impl Queue {
    /// An empty queue, whose numbers follow this one.
    pub(super) fn after(number: u64) -> Self {
        Self {
            next: number,
            ..Self::default()
        }
    }

    fn counts(&self) -> BTreeMap<u64, u32> {
        self.entries
            .iter()
            .map(|(number, entry)| (*number, entry.attempts))
            .collect()
    }

    /// Forgets what is too old to be delivered.
    pub(super) fn expire_published_before(&mut self, time: DateTime<Utc>) {
        self.entries.retain(|_, entry| entry.message.published >= time);
    }

    /// The messages that are not acknowledged, oldest first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.entries.values().map(|entry| &entry.message)
    }

    /// Forgets a dead message that is somewhere else now.
    pub(super) fn forget(&mut self, ack_id: &str) {
        self.entries
            .retain(|_, entry| entry.lease.as_ref().is_none_or(|lease| lease.ack_id != ack_id));
    }

    pub(super) fn add(&mut self, message: Arc<Message>) {
        self.next += 1;
        let entry = Entry {
            message,
            attempts: 0,
            ready_at: Instant::now(),
            lease: None,
        };
        self.entries.insert(self.next, entry);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Leases up to `most` messages, oldest first; with ordering, never two of a key at once.
    pub(super) fn take(&mut self, most: usize, settings: &Settings, second: Duration) -> Taken {
        let now = Instant::now();
        let mut taken = Taken::default();
        self.expire(now, settings, second);
        if let Some(policy) = &settings.dead_letter_policy {
            let spent = |entry: &Entry| entry.lease.is_none() && entry.attempts >= policy.max_delivery_attempts;
            for (number, entry) in self.entries.iter_mut().filter(|(_, entry)| spent(entry)) {
                let ack_id = format!("{number}-dead");
                entry.lease = Some(Lease {
                    ack_id: ack_id.clone(),
                    until: now + settings.ack_deadline(second),
                });
                taken.dead.push(Delivery {
                    ack_id,
                    message: Arc::clone(&entry.message),
                    attempt: entry.attempts,
                });
            }
        }
        let mut busy_keys = BTreeSet::new();
        for (number, entry) in &mut self.entries {
            if settings.enable_message_ordering {
                let key = &entry.message.draft.ordering_key;
                if !key.is_empty() && !busy_keys.insert(key.clone()) {
                    continue;
                }
            }
            let wait = entry.lease.as_ref().map_or(entry.ready_at, |lease| lease.until);
            if entry.lease.is_some() || entry.ready_at > now {
                taken.again_at = Some(taken.again_at.map_or(wait, |earliest| earliest.min(wait)));
                continue;
            }
            if taken.deliveries.len() == most {
                taken.again_at = Some(now);
                break;
            }
            entry.attempts += 1;
            let ack_id = format!("{number}-{}", entry.attempts);
            entry.lease = Some(Lease {
                ack_id: ack_id.clone(),
                until: now + settings.ack_deadline(second),
            });
            let message = Arc::clone(&entry.message);
            taken.deliveries.push(Delivery {
                ack_id,
                message,
                attempt: entry.attempts,
            });
        }
        taken
    }

    /// Leases that ran out are nacks that nobody sent.
    fn expire(&mut self, now: Instant, settings: &Settings, second: Duration) {
        for entry in self.entries.values_mut() {
            if entry.lease.as_ref().is_some_and(|lease| lease.until <= now) {
                release(entry, now, settings, second);
            }
        }
    }

    /// Forgets the message; `published` is for [`Acknowledgement`]. An id that is no longer valid does nothing, as at
    /// Google.
    pub(super) fn acknowledge(&mut self, ack_id: &str, published: u64) {
        let held = |entry: &Entry| entry.lease.as_ref().is_some_and(|lease| lease.ack_id == ack_id);
        for (_, entry) in self.entries.extract_if(.., |_, entry| held(entry)) {
            if self.acknowledged.len() == KEPT {
                self.acknowledged.pop_front();
            }
            self.acknowledged.push_back(Acknowledgement {
                message_id: entry.message.id.clone(),
                attempts: entry.attempts,
                published,
            });
        }
    }

    pub(super) fn acknowledged(&self) -> Vec<Acknowledgement> {
        self.acknowledged.iter().cloned().collect()
    }

    pub(super) fn nack(&mut self, ack_id: &str, settings: &Settings, second: Duration) {
        if let Some(entry) = self.leased(ack_id) {
            release(entry, Instant::now(), settings, second);
        }
    }

    pub(super) fn extend(&mut self, ack_id: &str, by: Duration) {
        if let Some(lease) = self.leased(ack_id).and_then(|entry| entry.lease.as_mut()) {
            lease.until = Instant::now() + by;
        }
    }

    fn leased(&mut self, ack_id: &str) -> Option<&mut Entry> {
        self.entries
            .values_mut()
            .find(|entry| entry.lease.as_ref().is_some_and(|lease| lease.ack_id == ack_id))
    }
}

fn release(entry: &mut Entry, now: Instant, settings: &Settings, second: Duration) {
    entry.lease = None;
    let delay = settings
        .retry_policy
        .as_ref()
        .map_or(0.0, |policy| policy.delay(entry.attempts));
    entry.ready_at = now + second.mul_f64(delay);
}
