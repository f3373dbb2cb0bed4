//! Buckets and objects: generations, preconditions, versions. Knows no HTTP.

use std::{collections::BTreeMap, io, net::Ipv4Addr, sync::Arc};

use axum::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::{
        Refusal,
        clock::Clock,
        data::{Durable, Files, Journal, Sink, Table},
    },
    notify::{Change, Notification},
    object::{Fields, Object, Payload, STANDARD_CLASS, check_name},
    preconditions::Preconditions,
};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bucket {
    pub(super) name: String,
    pub(super) created: DateTime<Utc>,
    pub(super) updated: DateTime<Utc>,
    pub(super) location: String,
    /// Of objects that name none.
    pub(super) storage_class: String,
    /// Keeps what is replaced or deleted as noncurrent generations.
    pub(super) versioning: bool,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) metageneration: u64,
    /// By name, oldest generation first; only the last can be live.
    #[serde(skip)]
    pub(super) objects: Table<Vec<Object>>,
    pub(super) notifications: Vec<Notification>,
    pub(super) notifications_made: u64,
    /// Objects written without saying which generation they replace.
    #[serde(skip)]
    pub(super) unconditional_writes: u64,
}

impl Bucket {
    pub(super) fn live(&self, name: &str) -> Option<&Object> {
        self.objects.get(name)?.last().filter(|object| object.deleted.is_none())
    }

    fn find(&self, name: &str, generation: Option<i64>) -> Option<&Object> {
        match generation {
            None => self.live(name),
            Some(wanted) => self
                .objects
                .get(name)?
                .iter()
                .find(|object| object.generation == wanted),
        }
    }
}

/// Everything that is stored.
#[derive(Default)]
pub(super) struct Store {
    pub(super) buckets: Table<Bucket>,
    last_generation: i64,
    /// The last generation that was written down.
    kept_generation: i64,
    files: Option<Arc<Files>>,
}

impl Durable for Store {
    fn drain(&mut self, at: &str, sink: &mut Sink) {
        let generation = self.last_generation;
        if generation != self.kept_generation {
            sink.put(format!("{at}generation/last"), &generation);
            self.kept_generation = generation;
        }
        self.buckets.touched(|name, bucket| match bucket {
            Some(bucket) => {
                sink.put(format!("{at}bucket/{name}"), bucket);
                bucket.objects.drain(&format!("{at}object/{name}/"), sink);
            }
            None => sink.remove(format!("{at}bucket/{name}")),
        });
    }

    fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()> {
        let mut buckets: BTreeMap<String, Bucket> = journal.read(&format!("{at}bucket/"))?.into_iter().collect();
        for (name, bucket) in &mut buckets {
            let mut objects = BTreeMap::new();
            for (object, mut generations) in journal.read::<Vec<Object>>(&format!("{at}object/{name}/"))? {
                for generation in &mut generations {
                    let Some(files) = &self.files else { continue };
                    files
                        .adopt(&mut generation.content)
                        .map_err(|error| io::Error::new(error.kind(), format!("gs://{name}/{object}: {error}")))?;
                }
                objects.insert(object, generations);
            }
            bucket.objects = objects.into();
            bucket.unconditional_writes = self.buckets.get(name).map_or(0, |old| old.unconditional_writes);
        }
        self.buckets = buckets.into();
        let generation = journal.read(&format!("{at}generation/"))?.into_iter().next();
        self.kept_generation = generation.map_or(0, |(_, generation)| generation);
        self.last_generation = self.last_generation.max(self.kept_generation);
        Ok(())
    }

    fn settled(&mut self) {
        if let Some(files) = &self.files {
            files.remove_unused();
        }
    }
}

impl Store {
    pub(super) fn new(files: Option<Arc<Files>>) -> Self {
        Self {
            files,
            ..Self::default()
        }
    }

    /// Generations are time stamps in microseconds, and never the same twice, whatever the clock does.
    fn next_generation(&mut self, now: DateTime<Utc>) -> i64 {
        self.last_generation = now.timestamp_micros().max(self.last_generation + 1);
        self.last_generation
    }

    pub(super) fn create_bucket(
        &mut self,
        name: &str,
        versioning: bool,
        clock: &Clock,
    ) -> Result<&mut Bucket, Refusal> {
        if !is_bucket_name(name) {
            return Err(Refusal::invalid(format!("Invalid bucket name: '{name}'")));
        }
        if self.buckets.contains_key(name) {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "conflict",
                "Your previous request to create the named bucket succeeded and you already own it.",
            ));
        }
        let now = clock.now();
        Ok(self.buckets.get_or_insert_with(name, || Bucket {
            name: name.to_owned(),
            created: now,
            updated: now,
            location: "US".to_owned(),
            storage_class: STANDARD_CLASS.to_owned(),
            versioning,
            labels: BTreeMap::new(),
            metageneration: 1,
            objects: Table::default(),
            notifications: Vec::new(),
            notifications_made: 0,
            unconditional_writes: 0,
        }))
    }

    pub(super) fn bucket(&self, name: &str) -> Result<&Bucket, Refusal> {
        self.buckets.get(name).ok_or_else(Refusal::no_bucket)
    }

    pub(super) fn bucket_mut(&mut self, name: &str) -> Result<&mut Bucket, Refusal> {
        self.buckets.get_mut(name).ok_or_else(Refusal::no_bucket)
    }

    /// The live object, or the generation that is asked for.
    pub(super) fn object(&self, bucket: &str, name: &str, generation: Option<i64>) -> Result<&Object, Refusal> {
        self.bucket(bucket)?
            .find(name, generation)
            .ok_or_else(|| Refusal::no_object(bucket, name))
    }

    /// Checks what can be checked before the bytes are there.
    pub(super) fn may_insert(&self, bucket: &str, name: &str, conditions: &Preconditions) -> Result<(), Refusal> {
        check_name(name)?;
        conditions.check(&Method::POST, self.bucket(bucket)?.live(name))
    }

    pub(super) fn insert(
        &mut self,
        (bucket, name): (&str, &str),
        mut fields: Fields,
        payload: Payload,
        conditions: &Preconditions,
        clock: &Clock,
    ) -> Result<(Object, Vec<Change>), Refusal> {
        self.may_insert(bucket, name, conditions)?;
        fields.check()?;
        let default_class = &self.bucket(bucket)?.storage_class;
        fields.storage_class.get_or_insert_with(|| default_class.clone());
        let now = clock.now();
        let generation = self.next_generation(now);
        let object = Object {
            name: name.to_owned(),
            generation,
            metageneration: 1,
            created: now,
            updated: now,
            deleted: None,
            content: payload.content,
            crc32c: payload.crc32c,
            md5: payload.md5,
            components: payload.components,
            fields,
        };
        let bucket = self.bucket_mut(bucket)?;
        bucket.unconditional_writes += u64::from(conditions.generation_match.is_none());
        let replaced = retire(bucket, name, now);
        let versions = bucket.objects.get_or_insert_with(name, Vec::new);
        versions.push(object.clone());
        let changes = match replaced {
            Some(old) => vec![
                Change::finalized(object.clone(), Some(old.generation)),
                Change::removed(old, bucket.versioning, Some(generation)),
            ],
            None => vec![Change::finalized(object.clone(), None)],
        };
        Ok((object, changes))
    }

    pub(super) fn delete(
        &mut self,
        bucket: &str,
        name: &str,
        generation: Option<i64>,
        conditions: &Preconditions,
        clock: &Clock,
    ) -> Result<Vec<Change>, Refusal> {
        conditions.check(&Method::DELETE, Some(self.object(bucket, name, generation)?))?;
        let bucket = self.bucket_mut(bucket)?;
        match generation {
            None => {
                let old = retire(bucket, name, clock.now());
                Ok(old
                    .map(|old| Change::removed(old, bucket.versioning, None))
                    .into_iter()
                    .collect())
            }
            Some(generation) => {
                let versions = bucket.objects.get_or_insert_with(name, Vec::new);
                let index = versions.iter().position(|object| object.generation == generation);
                let removed = index.map(|index| versions.remove(index));
                if versions.is_empty() {
                    bucket.objects.remove(name);
                }
                Ok(removed
                    .map(|old| Change::removed(old, false, None))
                    .into_iter()
                    .collect())
            }
        }
    }

    /// Changes an object's fields; its content and its generation stay.
    pub(super) fn update(
        &mut self,
        (bucket, name, generation): (&str, &str, Option<i64>),
        conditions: &Preconditions,
        clock: &Clock,
        change: impl FnOnce(&mut Fields) -> Result<(), Refusal>,
    ) -> Result<(Object, Vec<Change>), Refusal> {
        let found = self.object(bucket, name, generation)?;
        conditions.check(&Method::PATCH, Some(found))?;
        let generation = found.generation;
        let bucket_name = bucket;
        let versions = self.bucket_mut(bucket)?.objects.get_mut(name);
        let object = versions.and_then(|versions| versions.iter_mut().find(|object| object.generation == generation));
        let Some(object) = object else {
            return Err(Refusal::no_object(bucket_name, name));
        };
        let mut fields = object.fields.clone();
        change(&mut fields)?;
        fields.check()?;
        object.fields = fields;
        object.metageneration += 1;
        object.updated = clock.now();
        Ok((object.clone(), vec![Change::updated(object.clone())]))
    }
}

/// Google's rules (cloud.google.com/storage/docs/buckets#naming).
fn is_bucket_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (3..=222).contains(&name.len())
        && name.bytes().all(is_legal)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        && name.split('.').all(|part| (1..=63).contains(&part.len()))
        && name.parse::<Ipv4Addr>().is_err()
        && !name.starts_with("goog")
        && !name.contains("google")
}

/// Takes the live object away, or keeps it as noncurrent where the bucket keeps versions.
fn retire(bucket: &mut Bucket, name: &str, now: DateTime<Utc>) -> Option<Object> {
    let versions = bucket.objects.get_mut(name)?;
    let live = versions.last_mut().filter(|object| object.deleted.is_none())?;
    live.deleted = Some(now);
    let old = live.clone();
    if !bucket.versioning {
        versions.pop();
        if versions.is_empty() {
            bucket.objects.remove(name);
        }
    }
    Some(old)
}
