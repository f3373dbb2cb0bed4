//! What whoever runs the local cloud for a person needs beside the APIs: to put, to receive and to break things without
//! being a client that the scripted failures hit.

use std::{io, sync::Arc};

use axum::body::{Body, Bytes};
use serde_json::Value;

use super::{
    Fault, LocalCloud, Refusal, Subscription,
    server::{self, Site},
};

impl LocalCloud {
    /// Opens one more metadata server: it speaks for `email`, and no scripted failure hits it. Its URL.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn open_metadata_server(&self, email: &str) -> io::Result<String> {
        let listener = self.world.ports.bind(&format!("metadata of {email}")).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let site = Site::MetadataOf(email.into());
        server::serve(Arc::clone(&self.world), site, listener, self.stop.subscribe());
        Ok(url)
    }

    /// Stores an object, in place of one that is there, and announces it; its resource, as the JSON API words it.
    ///
    /// # Errors
    ///
    /// Google's, when the bucket is not there, or the name is illegal.
    pub fn put(&self, bucket: &str, name: &str, content_type: &str, content: Bytes) -> Result<Value, Refusal> {
        self.world
            .storage
            .put(&self.world, (bucket, name), content_type, content)
    }

    /// Waits until Google's emulator has done what was asked of it here; the first refusal since the last time. Nothing to wait for
    /// without [`Settings::pubsub_emulator`](super::Settings::pubsub_emulator).
    ///
    /// # Errors
    ///
    /// The emulator's, or that it does not answer.
    pub async fn settled(&self) -> Result<(), Refusal> {
        match &self.world.pubsub.emulator {
            Some(emulator) => emulator.settled().await,
            None => Ok(()),
        }
    }

    /// The next messages of a subscription (its full name), as `ReceivedMessage` in JSON, acknowledged. Waits for one as
    /// long as a pull does (90 s); then there is none.
    ///
    /// # Errors
    ///
    /// Google's, when there is no such subscription, or it pushes.
    pub async fn receive(&self, subscription: &str, most: usize) -> Result<Vec<Value>, Refusal> {
        self.world.pubsub.receive(&self.world, subscription, most).await
    }

    /// Whether a directory keeps what is here.
    pub fn is_kept(&self) -> bool {
        self.world.pubsub.is_kept()
    }

    /// Begins to push the messages that an earlier process left in the data directory: when those who take them are there.
    pub fn resume(&self) {
        self.world.pubsub.resume(&self.world);
    }

    /// The messages that a subscription (its id) has not seen acknowledged, oldest first, as `PubsubMessage` in JSON.
    ///
    /// # Errors
    ///
    /// Google's, when there is no such subscription.
    pub fn waiting(&self, subscription: &str) -> Result<Vec<Value>, Refusal> {
        self.world.pubsub.waiting(&self.subscription_name(subscription))
    }

    /// Whether there is a bucket of this name.
    pub fn has_bucket(&self, name: &str) -> bool {
        self.world.storage.has_bucket(name)
    }

    /// Whether a bucket announces what happens in it on a topic (its id).
    pub fn has_notification(&self, bucket: &str, topic: &str) -> bool {
        self.world.storage.has_notification(bucket, &self.topic_name(topic))
    }

    /// Whether there is a topic of this id. Those of an emulator are not known here.
    pub fn has_topic(&self, id: &str) -> bool {
        self.world.pubsub.emulator.is_none() && self.world.pubsub.has_topic(&self.topic_name(id))
    }

    /// Whether there is a subscription of this id.
    pub fn has_subscription(&self, id: &str) -> bool {
        self.world.pubsub.backlog(&self.subscription_name(id)).is_ok()
    }

    /// Gives a subscription that is there the endpoint and the dead-letter policy of this one; what else it was set to stays.
    ///
    /// # Errors
    ///
    /// Google's, when there is no such subscription, or a setting is out of range.
    pub fn redirect_subscription(&self, wanted: &Subscription<'_>) -> Result<(), Refusal> {
        self.world.pubsub.redirect(
            &self.world,
            &self.subscription_name(wanted.name),
            self.subscription_body(wanted),
        )
    }

    /// Whether there is a live object of this name.
    pub fn has_object(&self, bucket: &str, name: &str) -> bool {
        self.world.storage.has_object(bucket, name)
    }

    /// The bytes of one generation of an object, and how many there are. They are read while they are sent.
    ///
    /// # Errors
    ///
    /// Google's, when there is no such object; and when it cannot be read.
    pub fn content(&self, bucket: &str, name: &str, generation: i64) -> Result<(Body, usize), Refusal> {
        self.world.storage.body_of(bucket, name, generation)
    }

    /// Whether there is a KMS key of this name (`projects/P/locations/L/keyRings/R/cryptoKeys/K`).
    pub fn has_kms_key(&self, name: &str) -> bool {
        self.world.kms.has(name)
    }

    /// The scripted failures that wait for their requests, oldest first.
    pub fn faults(&self) -> Vec<Fault> {
        self.world.faults.list()
    }

    /// Forgets the oldest scripted failure that is exactly this one; whether there was one.
    pub fn remove_fault(&self, fault: &Fault) -> bool {
        self.world.faults.remove(fault)
    }
}
