//! One subscription's messages: ready, leased, acknowledged. Knows no HTTP.
//!
//! With ordering, the messages of a key keep their order: what was handed out behind one that failed is handed out again after
//! it, also what was acknowledged meanwhile (Google calls it consistent redelivery).

mod records;
mod seek;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use self::records::{Progress, Standing};
use super::{
    super::data::Table,
    model::{Message, Settings},
};

struct Entry {
    message: Arc<Message>,
    /// Deliveries so far.
    attempts: u32,
    ready_at: Instant,
    lease: Option<Lease>,
    /// Waits for one of its key that was published before it and is not acknowledged yet.
    acknowledged: bool,
}

struct Lease {
    ack_id: String,
    until: Instant,
}

impl Entry {
    fn new(message: Arc<Message>) -> Self {
        Self {
            message,
            attempts: 0,
            ready_at: Instant::now(),
            lease: None,
            acknowledged: false,
        }
    }

    fn key(&self) -> &str {
        &self.message.draft.ordering_key
    }
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

/// How a look into the queue is made.
pub(super) struct Look<'a> {
    pub(super) settings: &'a Settings,
    pub(super) most: usize,
    /// With ordering: one message of a key, and the next when that is acknowledged, as pushes are made. Otherwise as many as
    /// come in a row.
    pub(super) one_of_a_key: bool,
    pub(super) second: Duration,
    /// The time by the local cloud's clock, for what is too old.
    pub(super) now: DateTime<Utc>,
}

#[derive(Default)]
pub(super) struct Queue {
    ordered: bool,
    entries: Table<Entry, u64>,
    next: u64,
    leases: u64,
    acknowledged: VecDeque<Acknowledgement>,
    /// What was acknowledged, where the subscription retains that.
    retained: Table<Arc<Message>, u64>,
    /// What is published before is not delivered: the target of a seek.
    from: Option<DateTime<Utc>>,
    /// What was written down.
    kept: BTreeMap<u64, Standing>,
    kept_progress: Progress,
}

impl Queue {
    /// An empty queue, whose numbers follow this one.
    pub(super) fn after(number: u64, ordered: bool) -> Self {
        Self {
            ordered,
            next: number,
            ..Self::default()
        }
    }

    /// The messages that are not acknowledged, oldest first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let waiting = self.entries.values().filter(|entry| !entry.acknowledged);
        waiting.map(|entry| &entry.message)
    }

    /// Makes all of it ready when a process begins: no lease is left, and what was acknowledged behind one of its key comes again
    /// after it, as it does when a lease runs out.
    pub(super) fn begin_again(&mut self) {
        let numbers: Vec<u64> = self.numbers(|entry| entry.acknowledged).collect();
        for number in numbers {
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.acknowledged = false;
                entry.attempts = entry.attempts.saturating_sub(1);
            }
        }
    }

    /// Forgets a dead message that is somewhere else now.
    pub(super) fn forget_dead(&mut self, ack_id: &str) {
        let entry = self.leased(ack_id).and_then(|number| self.entries.remove(&number));
        if let Some(entry) = entry {
            self.settle(entry.key());
        }
    }

    /// Takes a message in; `retain` is whether one that counts as acknowledged at once is kept for a seek.
    pub(super) fn add(&mut self, message: Arc<Message>, retain: bool) {
        self.next += 1;
        if self.from.is_none_or(|from| from <= message.published) {
            self.entries.insert(self.next, Entry::new(message));
        } else if retain {
            self.retained.insert(self.next, message);
        }
    }

    /// How many are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.entries.values().filter(|entry| !entry.acknowledged).count()
    }

    /// Forgets all messages for good, and how far it was: the subscription gets none any more.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.retained.clear();
        self.from = None;
        self.leases = 0;
    }

    /// Leases messages, oldest first.
    pub(super) fn take(&mut self, look: &Look<'_>) -> Taken {
        let (now, settings) = (Instant::now(), look.settings);
        let mut taken = self.give_up(look);
        let (mut held_back, mut chosen) = (BTreeSet::new(), Vec::new());
        for (number, entry) in self.entries.iter().filter(|(_, entry)| !entry.acknowledged) {
            let key = &entry.message.draft.ordering_key;
            let has_order = self.ordered && !key.is_empty();
            if has_order && held_back.contains(key) {
                continue;
            }
            let wait = entry.lease.as_ref().map_or(entry.ready_at, |lease| lease.until);
            let waits = entry.lease.is_some() || entry.ready_at > now;
            if has_order && (waits || look.one_of_a_key) {
                held_back.insert(key.clone());
            }
            if waits {
                taken.again_at = Some(taken.again_at.map_or(wait, |earliest| earliest.min(wait)));
                continue;
            }
            if chosen.len() == look.most {
                taken.again_at = Some(now);
                break;
            }
            chosen.push(*number);
        }
        for number in chosen {
            let Some(entry) = self.entries.get_mut(&number) else {
                continue;
            };
            entry.attempts += 1;
            self.leases += 1;
            let ack_id = format!("{number}-{}", self.leases);
            entry.lease = Some(Lease {
                ack_id: ack_id.clone(),
                until: now + settings.ack_deadline(look.second),
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

    /// Ends what is over: messages that are too old, and leases. Holds those whose attempts are used up, and says when the next
    /// lease ends.
    pub(super) fn give_up(&mut self, look: &Look<'_>) -> Taken {
        let (now, settings) = (Instant::now(), look.settings);
        let mut taken = Taken::default();
        self.forget_published_until(look.now - settings.retention());
        self.expire(now, settings, look.second);
        if let Some(policy) = &settings.dead_letter_policy {
            let spent = |entry: &Entry| {
                !entry.acknowledged && entry.lease.is_none() && entry.attempts >= policy.max_delivery_attempts
            };
            let numbers: Vec<u64> = self.numbers(spent).collect();
            for number in numbers {
                let Some(entry) = self.entries.get_mut(&number) else {
                    continue;
                };
                let ack_id = format!("{number}-dead");
                entry.lease = Some(Lease {
                    ack_id: ack_id.clone(),
                    until: now + settings.ack_deadline(look.second),
                });
                taken.dead.push(Delivery {
                    ack_id,
                    message: Arc::clone(&entry.message),
                    attempt: entry.attempts,
                });
            }
        }
        let leases = self.entries.values().filter_map(|entry| entry.lease.as_ref());
        taken.again_at = leases.map(|lease| lease.until).min();
        taken
    }

    fn numbers(&self, wanted: impl Fn(&Entry) -> bool) -> impl Iterator<Item = u64> {
        let wanted = self.entries.iter().filter(move |(_, entry)| wanted(entry));
        wanted.map(|(number, _)| *number)
    }

    /// Drops what is older than messages are retained, acknowledged or not.
    pub(super) fn forget_published_until(&mut self, since: DateTime<Utc>) {
        // They are in the order in which they were published.
        while let Some((number, oldest)) = self.entries.first_key_value()
            && oldest.message.published <= since
        {
            let number = *number;
            self.entries.remove(&number);
        }
        while let Some((number, oldest)) = self.retained.first_key_value()
            && oldest.published <= since
        {
            let number = *number;
            self.retained.remove(&number);
        }
    }

    /// Leases that ran out are nacks that nobody sent.
    fn expire(&mut self, now: Instant, settings: &Settings, second: Duration) {
        let over = |entry: &Entry| entry.lease.as_ref().is_some_and(|lease| lease.until <= now);
        let numbers: Vec<u64> = self.numbers(over).collect();
        for number in numbers {
            self.release(number, settings, second);
        }
    }

    /// Forgets the message, or keeps it for a seek; `published` is for [`Acknowledgement`]. An id that is no longer valid does
    /// nothing, as at Google.
    pub(super) fn acknowledge(&mut self, ack_id: &str, retain: bool, published: u64) {
        let Some(number) = self.leased(ack_id) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.lease = None;
        entry.acknowledged = true;
        let message = Arc::clone(&entry.message);
        if self.acknowledged.len() == KEPT {
            self.acknowledged.pop_front();
        }
        self.acknowledged.push_back(Acknowledgement {
            message_id: message.id.clone(),
            attempts: entry.attempts,
            published,
        });
        if retain {
            self.retained.insert(number, Arc::clone(&message));
        }
        if self.ordered && !message.draft.ordering_key.is_empty() {
            self.settle(&message.draft.ordering_key);
        } else {
            self.entries.remove(&number);
        }
    }

    /// Forgets those of a key that are acknowledged and have none in front of them that is not.
    fn settle(&mut self, key: &str) {
        let of_the_key = self.entries.iter().filter(|(_, entry)| entry.key() == key);
        let settled: Vec<u64> = of_the_key
            .take_while(|(_, entry)| entry.acknowledged)
            .map(|(number, _)| *number)
            .collect();
        for number in settled {
            self.entries.remove(&number);
        }
    }

    pub(super) fn acknowledged(&self) -> Vec<Acknowledgement> {
        self.acknowledged.iter().cloned().collect()
    }

    pub(super) fn nack(&mut self, ack_id: &str, settings: &Settings, second: Duration) {
        if let Some(number) = self.leased(ack_id) {
            self.release(number, settings, second);
        }
    }

    pub(super) fn extend(&mut self, ack_id: &str, by: Duration) {
        let number = self.leased(ack_id);
        let entry = number.and_then(|number| self.entries.get_mut(&number));
        if let Some(lease) = entry.and_then(|entry| entry.lease.as_mut()) {
            lease.until = Instant::now() + by;
        }
    }

    /// Which message is leased under this id.
    fn leased(&self, ack_id: &str) -> Option<u64> {
        let (number, _) = ack_id.split_once('-')?;
        let number = number.parse().ok()?;
        let lease = self.entries.get(&number)?.lease.as_ref()?;
        (lease.ack_id == ack_id).then_some(number)
    }

    /// Makes a message ready again after its pause, and with ordering those of its key behind it.
    fn release(&mut self, number: u64, settings: &Settings, second: Duration) {
        let Some(entry) = self.entries.get_mut(&number) else {
            return;
        };
        entry.lease = None;
        let delay = settings
            .retry_policy
            .as_ref()
            .map_or(0.0, |policy| policy.delay(entry.attempts));
        entry.ready_at = Instant::now() + second.mul_f64(delay);
        let key = entry.message.draft.ordering_key.clone();
        if !self.ordered || key.is_empty() {
            return;
        }
        let behind = self.entries.range(number + 1..);
        let is_out = |entry: &Entry| entry.key() == key && (entry.acknowledged || entry.lease.is_some());
        let behind: Vec<u64> = behind
            .filter(|(_, entry)| is_out(entry))
            .map(|(number, _)| *number)
            .collect();
        for number in behind {
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.lease = None;
                entry.acknowledged = false;
                // It has not failed itself.
                entry.attempts = entry.attempts.saturating_sub(1);
            }
        }
    }
}

/// Whether an ack id has the form of those that are given out.
pub(super) fn is_ack_id(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-')
        .is_some_and(|(message, lease)| number(message) && number(lease))
}
