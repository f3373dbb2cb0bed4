//! One subscription's messages: ready, leased, acknowledged. Knows no HTTP.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::model::{Message, Settings};

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
    /// Messages whose attempts are used up, and how many there were.
    pub(super) dead: Vec<(Arc<Message>, u32)>,
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
}

impl Queue {
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
            for (_, entry) in self.entries.extract_if(.., |_, entry| spent(entry)) {
                taken.dead.push((entry.message, entry.attempts));
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
