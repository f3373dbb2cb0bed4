//! Cloud Storage: `route` has the JSON API's addresses, `xml` and `signed` have the XML API and signed URLs, `store` what is stored.

mod access;
mod batch;
mod buckets;
mod compose;
mod copy;
mod download;
mod expected;
mod fields;
mod glob;
mod list;
mod moves;
mod multipart;
mod not_here;
mod notify;
mod object;
mod objects;
mod parameters;
mod preconditions;
mod refusal;
mod resource;
mod route;
mod sessions;
mod signed;
mod store;
mod upload;
mod xml;
mod xml_list;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use axum::http::StatusCode;
use serde_json::Value;

pub(super) use self::{access::Hidden, route::handle};
use self::{
    notify::{Change, Notification},
    object::{Hashes, Payload},
    refusal::{backend, reworded},
    sessions::Sessions,
    store::Store,
};
use super::{
    Refusal, World,
    data::{Content, DataDirectory, Files, Kept, Look},
    server::lock,
};

/// The largest object, so that what a request asks for can be held in memory. Google's can have 5 TiB.
const LARGEST_OBJECT: usize = 4 << 30;

/// What is stored, and the host names that belong to buckets.
#[derive(Default)]
pub(super) struct Storage {
    store: Kept<Store>,
    /// Where the bytes of objects are, when they are not in memory.
    files: Option<Arc<Files>>,
    sessions: Sessions,
    bound_hosts: Mutex<BTreeMap<String, String>>,
}

impl Storage {
    /// With what a directory has.
    pub(super) fn open(data: Option<&DataDirectory>) -> io::Result<Self> {
        let files = data.map(|data| Arc::clone(&data.files));
        let journal = data.map(|data| &data.journal);
        let store = Kept::restored(journal, "storage/", Store::new(files.clone()))?;
        if let Some(files) = &files {
            files.sweep()?;
        }
        Ok(Self {
            store,
            files,
            ..Self::default()
        })
    }

    pub(super) fn has_bucket(&self, name: &str) -> bool {
        self.look().bucket(name).is_ok()
    }

    pub(super) fn has_notification(&self, bucket: &str, topic: &str) -> bool {
        let store = self.look();
        let of_bucket = store.bucket(bucket).map(|bucket| &bucket.notifications);
        of_bucket.is_ok_and(|all| all.iter().any(|notification| notification.topic == topic))
    }

    pub(super) fn has_object(&self, bucket: &str, name: &str) -> bool {
        self.look().object(bucket, name, None).is_ok()
    }

    /// The bytes of one generation of an object, for whoever runs this cloud.
    pub(super) fn body_of(
        &self,
        bucket: &str,
        name: &str,
        generation: i64,
    ) -> Result<(axum::body::Body, usize), Refusal> {
        let content = self.look().object(bucket, name, Some(generation))?.content.clone();
        let size = content.len();
        let body = content.body(0..size);
        body.map(|body| (body, size)).map_err(|error| {
            tracing::error!(%error, "an object's file does not open");
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "backendError",
                "The object's bytes cannot be read.",
            )
        })
    }

    fn look(&self) -> Look<'_, Store> {
        self.store.look()
    }

    /// Makes content of bytes: before the store is locked, because it may have to wait for a disk. `components` says of how many
    /// parts it was composed.
    fn content(
        &self,
        bytes: axum::body::Bytes,
        Hashes { crc32c, md5 }: Hashes,
        components: Option<u32>,
    ) -> Result<Payload, Refusal> {
        let content = Content::new(self.files.as_deref(), bytes).map_err(backend)?;
        Ok(Payload {
            content,
            crc32c,
            md5,
            components,
        })
    }

    /// Changes objects of a bucket: the one way to do so. What is to be announced of it is kept together with the change, or
    /// neither is.
    fn change<R>(
        &self,
        world: &World,
        bucket: &str,
        change: impl FnOnce(&mut Store) -> Result<(R, Vec<Change>), Refusal>,
    ) -> Result<R, Refusal> {
        let changed = self.store.change_with(
            |store| {
                let (result, changes) = change(store)?;
                let messages = notify::messages(world, store.bucket(bucket)?, &changes);
                Ok((result, messages))
            },
            |held, (result, messages)| {
                world.pubsub.announce(world, messages, held)?;
                Ok(result)
            },
        );
        changed.map_err(reworded)
    }

    /// Changes what nobody is told of: buckets and their settings.
    fn configure<R>(&self, change: impl FnOnce(&mut Store) -> Result<R, Refusal>) -> Result<R, Refusal> {
        self.store.change(change).map_err(reworded)
    }

    /// Makes `host` a name of `bucket`, as a load balancer before it would.
    pub(super) fn bind_host(&self, host: &str, bucket: &str) {
        lock(&self.bound_hosts).insert(host.to_owned(), bucket.to_owned());
    }

    pub(super) fn create_bucket(&self, world: &World, name: &str, versioning: bool) -> Result<(), Refusal> {
        self.configure(|store| store.create_bucket(name, versioning, &world.clock).map(|_| ()))
    }

    /// Stores an object, whatever is there, and tells who wants to know; its resource.
    pub(super) fn put(
        &self,
        world: &World,
        (bucket, name): (&str, &str),
        content_type: &str,
        content: axum::body::Bytes,
    ) -> Result<Value, Refusal> {
        upload::put(world, (bucket, name), content_type, content)
    }

    pub(super) fn unconditional_writes(&self, bucket: &str) -> Result<u64, Refusal> {
        self.look().bucket(bucket).map(|bucket| bucket.unconditional_writes)
    }

    pub(super) fn create_notification(&self, world: &World, bucket: &str, body: &Value) -> Result<Value, Refusal> {
        let mut notification = Notification::read(world, body)?;
        self.configure(|store| {
            let bucket = store.bucket_mut(bucket)?;
            bucket.notifications_made += 1;
            notification.id = bucket.notifications_made.to_string();
            let resource = notification.resource(world, &bucket.name);
            bucket.notifications.push(notification);
            Ok(resource)
        })
    }
}
