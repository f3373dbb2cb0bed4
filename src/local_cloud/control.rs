//! What whoever runs the local cloud for a person needs beside the APIs: to put, to receive and to break things without
//! being a client that the scripted failures hit.

use std::{io, sync::Arc};

use axum::body::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;

use super::{
    Fault, LocalCloud, Refusal,
    server::{self, Site},
};

impl LocalCloud {
    /// Opens one more metadata server: it speaks for `email`, and no scripted failure hits it. Its URL.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn open_metadata_server(&self, email: &str) -> io::Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
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

    /// The scripted failures that wait for their requests, oldest first.
    pub fn faults(&self) -> Vec<Fault> {
        self.world.faults.list()
    }

    /// Forgets the oldest scripted failure that is exactly this one; whether there was one.
    pub fn remove_fault(&self, fault: &Fault) -> bool {
        self.world.faults.remove(fault)
    }
}
