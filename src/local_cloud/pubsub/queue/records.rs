//! What of a queue is written down: its messages, how each of them stands, and how far it is. Leases are not, so that after a
//! restart all is ready.

use std::{collections::BTreeMap, io, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::super::data::{Durable, Journal, Sink},
    Entry, Message, Queue,
};

/// How a message stands. One of which nothing is written has just come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    attempts: u32,
    /// Waits for one of its key that was published before it.
    acknowledged: bool,
    /// A seek can bring it back.
    retained: bool,
    /// Nothing but retained.
    done: bool,
}

/// What of a queue belongs to no message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    leases: u64,
    from: Option<DateTime<Utc>>,
}

fn message(at: &str, number: u64) -> String {
    format!("{at}message/{number:020}")
}

fn standing(at: &str, number: u64) -> String {
    format!("{at}standing/{number:020}")
}

fn progress(at: &str) -> String {
    format!("{at}progress")
}

impl Queue {
    fn standings(&self) -> BTreeMap<u64, Standing> {
        let mut standings = BTreeMap::new();
        for (number, entry) in &self.entries {
            let standing = Standing {
                attempts: entry.attempts,
                acknowledged: entry.acknowledged,
                ..Standing::default()
            };
            standings.insert(*number, standing);
        }
        for number in self.retained.keys() {
            let only_retained = Standing {
                done: true,
                ..Standing::default()
            };
            standings.entry(*number).or_insert(only_retained).retained = true;
        }
        standings
    }

    fn progress(&self) -> Progress {
        Progress {
            leases: self.leases,
            from: self.from,
        }
    }
}

impl Durable for Queue {
    fn drain(&mut self, at: &str, sink: &mut Sink) {
        if !sink.keeps() {
            return;
        }
        let standings = self.standings();
        for (number, now) in &standings {
            let kept = self.kept.get(number);
            if kept.is_none() {
                let entry = self.entries.get(number).map(|entry| &entry.message);
                let Some(whole) = entry.or_else(|| self.retained.get(number)) else {
                    continue;
                };
                sink.put(message(at, *number), &**whole);
            }
            if kept.copied().unwrap_or_default() != *now {
                sink.put(standing(at, *number), now);
            }
        }
        for number in self.kept.keys().filter(|number| !standings.contains_key(number)) {
            sink.remove(message(at, *number));
            sink.remove(standing(at, *number));
        }
        self.kept = standings;
        let now = self.progress();
        if now != self.kept_progress {
            match now == Progress::default() {
                true => sink.remove(progress(at)),
                false => sink.put(progress(at), &now),
            }
            self.kept_progress = now;
        }
    }

    fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()> {
        let number = |key: &str| key.parse::<u64>().map_err(io::Error::other);
        let mut standings = BTreeMap::new();
        for (key, standing) in journal.read::<Standing>(&format!("{at}standing/"))? {
            standings.insert(number(&key)?, standing);
        }
        let mut before = std::mem::take(&mut self.entries);
        self.retained.clear();
        for (key, message) in journal.read::<Message>(&format!("{at}message/"))? {
            let number = number(&key)?;
            let Standing {
                attempts,
                acknowledged,
                retained,
                done,
            } = standings.get(&number).copied().unwrap_or_default();
            let message = Arc::new(message);
            if retained {
                self.retained.insert(number, Arc::clone(&message));
            }
            if !done {
                let is_so = |entry: &Entry| entry.attempts == attempts && entry.acknowledged == acknowledged;
                let still_so = before.remove(&number).filter(is_so);
                let entry = still_so.unwrap_or_else(|| Entry {
                    attempts,
                    acknowledged,
                    ..Entry::new(message)
                });
                self.entries.insert(number, entry);
            }
            self.next = self.next.max(number);
        }
        self.kept = self.standings();
        let all = journal.read::<Progress>(&progress(at))?;
        let kept = all.into_iter().next().map_or_else(Progress::default, |(_, kept)| kept);
        self.from = kept.from;
        // No ack id is given twice.
        self.leases = self.leases.max(kept.leases);
        self.kept_progress = kept;
        Ok(())
    }
}
