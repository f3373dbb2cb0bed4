//! Seeks: what is acknowledged becomes undelivered and the other way round, by time or by a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};

use super::{Entry, Message, Queue};

impl Queue {
    /// Makes what was published since then undelivered, as far as it is still there, and what was published before
    /// acknowledged.
    pub(in super::super) fn seek(&mut self, time: DateTime<Utc>, retain: bool) {
        self.from = Some(time);
        let mut keys = BTreeSet::new();
        let before: Vec<u64> = self.numbers(|entry| entry.message.published < time).collect();
        for number in before {
            let Some(entry) = self.entries.remove(&number) else {
                continue;
            };
            keys.insert(entry.key().to_owned());
            if retain {
                self.retained.insert(number, entry.message);
            }
        }
        for key in keys {
            self.settle(&key);
        }
        let since = self.retained.iter().filter(|(_, message)| message.published >= time);
        let since: Vec<u64> = since.map(|(number, _)| *number).collect();
        for number in since {
            if let Some(message) = self.retained.remove(&number) {
                self.entries.insert(number, Entry::new(message));
            }
        }
    }

    /// Makes exactly these undelivered, and all else acknowledged. Leases end: every message has a new number, as one that is
    /// gone from here may come back in front of one that is not.
    pub(in super::super) fn seek_to(&mut self, messages: Vec<Arc<Message>>, retain: bool) {
        self.from = None;
        let entries = self.entries.take_all().into_values();
        let mut before: BTreeMap<String, Entry> = entries.map(|entry| (entry.message.id.clone(), entry)).collect();
        // Ids have the order in which they were published.
        let mut after: BTreeMap<String, (Arc<Message>, Option<Entry>)> = BTreeMap::new();
        for message in self.retained.take_all().into_values() {
            after.insert(message.id.clone(), (message, None));
        }
        for message in messages {
            let entry = before.remove(&message.id).filter(|entry| !entry.acknowledged);
            let mut entry = entry.unwrap_or_else(|| Entry::new(Arc::clone(&message)));
            entry.lease = None;
            after.insert(message.id.clone(), (message, Some(entry)));
        }
        for (id, entry) in before.into_iter().filter(|(_, entry)| retain && !entry.acknowledged) {
            after.insert(id, (entry.message, None));
        }
        for (message, entry) in after.into_values() {
            self.next += 1;
            match entry {
                Some(entry) => drop(self.entries.insert(self.next, entry)),
                None => drop(self.retained.insert(self.next, message)),
            }
        }
    }
}
