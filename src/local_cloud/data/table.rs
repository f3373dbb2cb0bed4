//! Maps and single values that know what of them was touched: the only `&mut` that they give is written down.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    io,
    ops::{Deref, DerefMut},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Durable, Journal, Sink};

/// A map, by name most of the time. What is written down after a change is what was touched, however much there is.
#[derive(Clone, Debug)]
pub(in super::super) struct Table<V, K = String> {
    entries: BTreeMap<K, V>,
    touched: BTreeSet<K>,
}

impl<V, K> Default for Table<V, K> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }
}

impl<V, K> From<BTreeMap<K, V>> for Table<V, K> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        Self {
            entries,
            touched: BTreeSet::new(),
        }
    }
}

impl<V, K> Deref for Table<V, K> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

impl<'a, V, K> IntoIterator for &'a Table<V, K> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl<V, K: Ord + Clone> Table<V, K> {
    pub(in super::super) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        let entry = self.entries.get_mut(key)?;
        self.touched.insert(key.to_owned());
        Some(entry)
    }

    pub(in super::super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.touched.insert(key.clone());
        self.entries.insert(key, value)
    }

    pub(in super::super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        self.touched.insert(key.to_owned());
        self.entries.remove(key)
    }

    pub(in super::super) fn clear(&mut self) {
        self.touched.extend(std::mem::take(&mut self.entries).into_keys());
    }

    /// All entries, so that none is left.
    pub(in super::super) fn take_all(&mut self) -> BTreeMap<K, V> {
        self.touched.extend(self.entries.keys().cloned());
        std::mem::take(&mut self.entries)
    }

    /// The keys of what was touched since this was asked last.
    pub(in super::super) fn take_touched(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.touched)
    }

    /// Calls back with each entry that was touched, and the name of each that is gone.
    pub(in super::super) fn touched(&mut self, mut each: impl FnMut(K, Option<&mut V>)) {
        for key in self.take_touched() {
            let entry = self.entries.get_mut(&key);
            each(key, entry);
        }
    }
}

impl<V> Table<V> {
    /// The entry, made if it is not there.
    pub(in super::super) fn get_or_insert_with(&mut self, name: &str, make: impl FnOnce() -> V) -> &mut V {
        self.touched.insert(name.to_owned());
        self.entries.entry(name.to_owned()).or_insert_with(make)
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
