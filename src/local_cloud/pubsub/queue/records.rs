//! What of a queue is written down: its messages, how each of them stands, and how far it is. Leases are not, so that after a
//! restart all is ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

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
    /// How a message stands, if it is here at all.
    fn standing(&self, number: u64) -> Option<Standing> {
        let retained = self.retained.contains_key(&number);
        let of_entry = self.entries.get(&number).map(|entry| Standing {
            attempts: entry.attempts,
            acknowledged: entry.acknowledged,
            retained,
            done: false,
        });
        let only_retained = Standing {
            retained,
            done: true,
            ..Standing::default()
        };
        of_entry.or_else(|| retained.then_some(only_retained))
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
        let mut touched = self.entries.take_touched();
        touched.append(&mut self.retained.take_touched());
        if !sink.keeps() {
            return;
        }
        for number in touched {
            let kept = self.kept.get(&number).copied();
            let Some(now) = self.standing(number) else {
                if self.kept.remove(&number).is_some() {
                    sink.remove(message(at, number));
                    sink.remove(standing(at, number));
                }
                continue;
            };
            if kept.is_none() {
                let entry = self.entries.get(&number).map(|entry| &entry.message);
                let Some(whole) = entry.or_else(|| self.retained.get(&number)) else {
                    continue;
                };
                sink.put(message(at, number), &**whole);
            }
            if kept.unwrap_or_default() != now {
                sink.put(standing(at, number), &now);
            }
            self.kept.insert(number, now);
        }
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
        let (mut entries, mut retained_messages) = (BTreeMap::new(), BTreeMap::new());
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
                retained_messages.insert(number, Arc::clone(&message));
            }
            if !done {
                let is_so = |entry: &Entry| entry.attempts == attempts && entry.acknowledged == acknowledged;
                let still_so = self.entries.remove(&number).filter(is_so);
                let entry = still_so.unwrap_or_else(|| Entry {
                    attempts,
                    acknowledged,
                    ..Entry::new(message)
                });
                entries.insert(number, entry);
            }
            self.next = self.next.max(number);
        }
        (self.entries, self.retained) = (entries.into(), retained_messages.into());
        let numbers: BTreeSet<u64> = self.entries.keys().chain(self.retained.keys()).copied().collect();
        let standings = numbers
            .into_iter()
            .filter_map(|number| Some((number, self.standing(number)?)));
        self.kept = standings.collect();
        let all = journal.read::<Progress>(&progress(at))?;
        let kept = all.into_iter().next().map_or_else(Progress::default, |(_, kept)| kept);
        self.from = kept.from;
        // No ack id is given twice.
        self.leases = self.leases.max(kept.leases);
        self.kept_progress = kept;
        Ok(())
    }
}
