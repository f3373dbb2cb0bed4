//! Maps and single values that know what of them was touched: the only `&mut` that they give is written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::{Deref, DerefMut},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Durable, Journal, Sink};

/// A map by name, each entry a record.
#[derive(Clone, Debug)]
pub(in super::super) struct Table<V> {
    entries: BTreeMap<String, V>,
    touched: BTreeSet<String>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }
}

impl<V> From<BTreeMap<String, V>> for Table<V> {
    fn from(entries: BTreeMap<String, V>) -> Self {
        Self {
            entries,
            touched: BTreeSet::new(),
        }
    }
}

impl<V> Deref for Table<V> {
    type Target = BTreeMap<String, V>;

    fn deref(&self) -> &BTreeMap<String, V> {
        &self.entries
    }
}

impl<'a, V> IntoIterator for &'a Table<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, String, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl<V> Table<V> {
    pub(in super::super) fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        let entry = self.entries.get_mut(name)?;
        self.touched.insert(name.to_owned());
        Some(entry)
    }

    /// The entry, made if it is not there.
    pub(in super::super) fn get_or_insert_with(&mut self, name: &str, make: impl FnOnce() -> V) -> &mut V {
        self.touched.insert(name.to_owned());
        self.entries.entry(name.to_owned()).or_insert_with(make)
    }

    pub(in super::super) fn insert(&mut self, name: String, value: V) -> Option<V> {
        self.touched.insert(name.clone());
        self.entries.insert(name, value)
    }

    pub(in super::super) fn remove(&mut self, name: &str) -> Option<V> {
        self.touched.insert(name.to_owned());
        self.entries.remove(name)
    }

    /// Calls back with each entry that was touched, and the name of each that is gone.
    pub(in super::super) fn touched(&mut self, mut each: impl FnMut(String, Option<&mut V>)) {
        for name in std::mem::take(&mut self.touched) {
            let entry = self.entries.get_mut(&name);
            each(name, entry);
        }
    }
}

impl<V: Serialize + DeserializeOwned> Durable for Table<V> {
    fn drain(&mut self, at: &str, sink: &mut Sink) {
        self.touched(|name, entry| match entry {
            Some(entry) => sink.put(format!("{at}{name}"), entry),
            None => sink.remove(format!("{at}{name}")),
        });
    }

    fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()> {
        *self = Self::from(journal.read(at)?.into_iter().collect::<BTreeMap<_, _>>());
        Ok(())
    }
}

/// One value, one record.
#[derive(Clone, Debug)]
pub(in super::super) struct Single<V> {
    value: V,
    touched: bool,
}

impl<V> Single<V> {
    /// A value that is not yet on the disk.
    pub(in super::super) fn new(value: V) -> Self {
        Self { value, touched: true }
    }

    /// A value as the disk has it.
    pub(in super::super) fn restored(value: V) -> Self {
        Self { value, touched: false }
    }
}

impl<V> Deref for Single<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> DerefMut for Single<V> {
    fn deref_mut(&mut self) -> &mut V {
        self.touched = true;
        &mut self.value
    }
}

impl<V: Serialize + DeserializeOwned> Durable for Single<V> {
    fn drain(&mut self, at: &str, sink: &mut Sink) {
        if std::mem::take(&mut self.touched) {
            sink.put(at, &self.value);
        }
    }

    fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()> {
        // The first whose key is no longer than that is the one.
        if let Some((_, value)) = journal.read(at)?.into_iter().find(|(rest, _)| rest.is_empty()) {
            self.value = value;
        }
        self.touched = false;
        Ok(())
    }
}
