//! State that is on the disk whenever anybody can see it.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::http::StatusCode;
use serde::Serialize;

use super::{
    super::{Refusal, server::lock},
    Journal,
};

/// A change was not written down, and was taken back: the disk is full, most of the time. The system's words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the data directory cannot be written: {0}")]
pub(in super::super) struct NotKept(pub(in super::super) String);

impl From<NotKept> for Refusal {
    fn from(error: NotKept) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", error.to_string())
    }
}

/// One record that is new or different, or gone.
#[derive(Debug)]
pub(in super::super) struct Change {
    pub(super) key: String,
    /// Its JSON, in one line.
    pub(super) record: Option<String>,
}

/// Takes down what has changed. Without a directory it takes nothing, and nothing is serialized.
#[derive(Debug, Default)]
pub(in super::super) struct Sink {
    keeps: bool,
    changes: Vec<Change>,
    failed: Option<String>,
}

impl Sink {
    /// Whether anything is taken.
    pub(in super::super) fn keeps(&self) -> bool {
        self.keeps
    }

    pub(in super::super) fn put<V: Serialize + ?Sized>(&mut self, key: impl Into<String>, record: &V) {
        if !self.keeps {
            return;
        }
        match serde_json::to_string(record) {
            Ok(record) => self.changes.push(Change {
                key: key.into(),
                record: Some(record),
            }),
            Err(error) => self.failed = Some(format!("{}: {error}", key.into())),
        }
    }

    pub(in super::super) fn remove(&mut self, key: impl Into<String>) {
        if self.keeps {
            self.changes.push(Change {
                key: key.into(),
                record: None,
            });
        }
    }
}

/// What can be kept: it knows what of it has changed, and can be made from what was written down.
pub(in super::super) trait Durable {
    /// What has changed since this was asked last, under keys that begin with `at`.
    fn drain(&mut self, at: &str, sink: &mut Sink);

    /// Becomes what the records say. What is not kept stays as it is where it still fits.
    fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()>;

    /// Called when memory and disk are the same again after a change.
    fn settled(&mut self) {}
}

/// State behind a lock that is changed through [`Kept::change`] alone.
pub(in super::super) struct Kept<T> {
    state: Mutex<T>,
    /// Where it is kept, and what its keys begin with.
    place: Option<(Arc<Journal>, String)>,
}

impl<T: Default> Default for Kept<T> {
    fn default() -> Self {
        Self::in_memory(T::default())
    }
}

impl<T> Kept<T> {
    pub(in super::super) fn in_memory(state: T) -> Self {
        Self {
            state: Mutex::new(state),
            place: None,
        }
    }

    /// To read. It must not be held while anything is changed.
    pub(in super::super) fn look(&self) -> Look<'_, T> {
        Look(lock(&self.state))
    }
}

impl<T: Durable> Kept<T> {
    /// State that is not yet on the disk, and gets there with its first change.
    pub(in super::super) fn new(journal: Option<&Arc<Journal>>, at: impl Into<String>, state: T) -> Self {
        Self {
            state: Mutex::new(state),
            place: journal.map(|journal| (Arc::clone(journal), at.into())),
        }
    }

    /// State as the disk has it.
    pub(in super::super) fn restored(
        journal: Option<&Arc<Journal>>,
        at: impl Into<String>,
        state: T,
    ) -> io::Result<Self> {
        let kept = Self::new(journal, at, state);
        if let Some((journal, at)) = &kept.place {
            lock(&kept.state).restore(at, journal)?;
        }
        Ok(kept)
    }

    /// Changes the state and writes down what has changed. When that fails the state is as it was.
    pub(in super::super) fn change<R, E: From<NotKept>>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        self.change_with(change, |held, result| {
            commit(&mut [held]).map(|()| result).map_err(E::from)
        })
    }

    /// The same, with what is to be written down together with it: `then` must [`commit`] what it is handed.
    pub(in super::super) fn change_with<R, S, E: From<NotKept>>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
        then: impl FnOnce(&mut dyn Held, R) -> Result<S, E>,
    ) -> Result<S, E> {
        let mut held = self.hold();
        match change(&mut held.state) {
            Ok(result) => then(&mut held, result),
            Err(refusal) => {
                // What a refused call did change is as true as if it had been asked for.
                commit(&mut [&mut held])?;
                Err(refusal)
            }
        }
    }

    /// Changes all of these together. What is not kept changes last: where the others cannot be written, it could not be made
    /// again as it was.
    pub(in super::super) fn change_all(
        cells: &[&Self],
        along: &mut [&mut dyn Held],
        mut change: impl FnMut(usize, &mut T),
    ) -> Result<(), NotKept> {
        let held = cells.iter().map(|cell| cell.hold()).enumerate();
        let (mut kept, mut in_memory): (Vec<_>, Vec<_>) = held.partition(|(_, held)| held.place.is_some());
        for (index, held) in &mut kept {
            change(*index, &mut held.state);
        }
        let mut all: Vec<&mut dyn Held> = kept.iter_mut().map(|(_, held)| held as &mut dyn Held).collect();
        for other in along {
            all.push(&mut **other);
        }
        commit(&mut all)?;
        for (index, held) in &mut in_memory {
            change(*index, &mut held.state);
            held.drain(&mut Sink::default());
            held.settled();
        }
        Ok(())
    }

    fn hold(&self) -> Holding<'_, T> {
        Holding {
            state: lock(&self.state),
            place: self.place.as_ref(),
        }
    }
}

/// A lock to read under.
pub(in super::super) struct Look<'a, T>(MutexGuard<'a, T>);

impl<T> Deref for Look<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Changed state that nobody else can see until it is committed.
pub(in super::super) trait Held {
    fn journal(&self) -> Option<&Arc<Journal>>;
    fn drain(&mut self, sink: &mut Sink);
    fn restore(&mut self) -> io::Result<()>;
    fn settled(&mut self);
}

struct Holding<'a, T> {
    state: MutexGuard<'a, T>,
    place: Option<&'a (Arc<Journal>, String)>,
}

impl<T: Durable> Held for Holding<'_, T> {
    fn journal(&self) -> Option<&Arc<Journal>> {
        self.place.map(|(journal, _)| journal)
    }

    fn drain(&mut self, sink: &mut Sink) {
        match self.place {
            Some((_, at)) => self.state.deref_mut().drain(at, sink),
            None => self.state.deref_mut().drain("", &mut Sink::default()),
        }
    }

    fn restore(&mut self) -> io::Result<()> {
        match self.place {
            Some((journal, at)) => self.state.deref_mut().restore(at, journal),
            None => Ok(()),
        }
    }

    fn settled(&mut self) {
        self.state.deref_mut().settled();
    }
}

/// Records that no state stands behind.
#[derive(Default)]
pub(in super::super) struct Loose<'a>(
    pub(in super::super) Option<&'a Arc<Journal>>,
    pub(in super::super) Vec<Change>,
);

impl<'a> Loose<'a> {
    pub(in super::super) fn put<V: Serialize>(journal: Option<&'a Arc<Journal>>, key: &str, record: &V) -> Self {
        let mut sink = Sink {
            keeps: true,
            ..Sink::default()
        };
        sink.put(key, record);
        Self(journal, sink.changes)
    }

    pub(in super::super) fn remove(journal: Option<&'a Arc<Journal>>, key: &str) -> Self {
        let key = key.to_owned();
        Self(journal, vec![Change { key, record: None }])
    }
}

impl Held for Loose<'_> {
    fn journal(&self) -> Option<&Arc<Journal>> {
        self.0
    }

    fn drain(&mut self, sink: &mut Sink) {
        sink.changes.append(&mut self.1);
    }

    fn restore(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn settled(&mut self) {}
}

/// Writes down what has changed in all of these, in one line: all of it is there after a crash, or nothing. When it cannot be
/// written, all of them are what they were.
pub(in super::super) fn commit(all: &mut [&mut dyn Held]) -> Result<(), NotKept> {
    let journal = all.iter().find_map(|held| held.journal().cloned());
    let mut sink = Sink {
        keeps: journal.is_some(),
        ..Sink::default()
    };
    for held in &mut *all {
        held.drain(&mut sink);
    }
    let written = match (&journal, sink.failed) {
        (_, Some(failed)) => Err(NotKept(failed)),
        (Some(journal), None) if !sink.changes.is_empty() => blocking(|| journal.append(sink.changes)),
        _ => Ok(()),
    };
    match written {
        Ok(()) => {
            // A line that perhaps is on the disk, and that memory knows nothing of, may name what seems unused.
            if journal.is_none_or(|journal| journal.is_known()) {
                for held in all {
                    held.settled();
                }
            }
            Ok(())
        }
        Err(error) => {
            for held in all {
                if let Err(unread) = held.restore()
                    && let Some(journal) = &journal
                {
                    journal.give_up(&unread);
                }
            }
            Err(error)
        }
    }
}

/// Does what waits for the disk, without holding up other tasks where the runtime has threads for that.
pub(in super::super) fn blocking<R>(work: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
