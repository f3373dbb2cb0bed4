//! Results from the result topic's subscription: ours are printed and acknowledged, others' are given back.
//!
//! A message of others that is pulled is neither acknowledged nor refused while we wait: refused, it would come again
//! at once, and after a few rounds go to a dead-letter topic. It stays leased, and goes back at the end.

use std::collections::HashMap;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::Failure;
use super::super::cloud::{self, Cloud};
use super::Failed;
use crate::google::subscription::Subscription;

/// Longer than Pub/Sub holds a pull that finds nothing.
const PULL: std::time::Duration = std::time::Duration::from_secs(120);
/// Messages of one pull.
const MESSAGES: usize = 10;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Which results are ours, by the id of the message that asked or by the job's.
#[derive(Default)]
pub(super) struct Waiting {
    /// What has come stays, without its source: results come twice at times.
    sources: HashMap<Id, Option<String>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Id {
    Message(String),
    Job(String),
}

impl Waiting {
    pub(super) fn message(&mut self, id: &str, source: &str) {
        self.sources.insert(Id::Message(id.to_owned()), Some(source.to_owned()));
    }

    /// Two submissions of one job are one job.
    pub(super) fn job(&mut self, id: &str, source: &str) {
        self.sources.insert(Id::Job(id.to_owned()), Some(source.to_owned()));
    }

    fn find(&mut self, result: &Value) -> Option<&mut Option<String>> {
        let id = |field: &str| result[field].as_str().map(str::to_owned);
        let message = id("messageId").map(Id::Message);
        let key = match message.filter(|id| self.sources.contains_key(id)) {
            Some(key) => key,
            None => Id::Job(id("jobId")?),
        };
        self.sources.get_mut(&key)
    }

    fn left(&self) -> impl Iterator<Item = &String> {
        self.sources.values().flatten()
    }
}

/// The leases of messages that are not ours.
#[derive(Default)]
pub(super) struct Others(Vec<String>);

/// The subscription.
pub(super) struct Results<'a> {
    cloud: &'a Cloud,
    subscription: Subscription,
}

impl<'a> Results<'a> {
    pub(super) async fn new(cloud: &'a Cloud, name: &str) -> Result<Self, Failure> {
        if !cloud.endpoints.pubsub_is_emulator {
            cloud.required()?;
        }
        let name = cloud.resource("subscriptions", name).await?;
        let (http, tokens) = (cloud::patient(PULL)?, cloud.tokens.clone());
        let subscription = Subscription::new(http, &cloud.endpoints.pubsub, tokens, &name)
            .map_err(|error| Failure::Usage(Some(format!("--wait {error}"))))?;
        Ok(Self { cloud, subscription })
    }

    /// Prints results until none is missing.
    pub(super) async fn wait(
        &self,
        deadline: Instant,
        waiting: &mut Waiting,
        others: &mut Others,
        failed: &mut Failed,
    ) -> Result<(), Failure> {
        while waiting.left().next().is_some() {
            let pulled = match timeout_at(deadline, self.subscription.pull(MESSAGES)).await {
                Err(_) => {
                    for source in waiting.left() {
                        failed.say(
                            source,
                            "no result came in time; raise --timeout, or see the worker's log",
                        );
                    }
                    return Ok(());
                }
                Ok(Err(error)) if error.is_transient() => {
                    tracing::info!("{error}; trying again");
                    Vec::new()
                }
                Ok(Err(error)) => {
                    let role = "roles/pubsub.subscriber";
                    let message = self.cloud.granting(error, "subscriptions", role).await;
                    return Err(Failure::Work(Some(message)));
                }
                Ok(Ok(pulled)) => pulled,
            };
            if pulled.is_empty() {
                // The pull itself waits; this keeps a peer that does not from spinning.
                sleep(PAUSE).await;
            }
            let mut ours = Vec::new();
            for received in pulled {
                let result: Value = serde_json::from_slice(&received.data).unwrap_or_default();
                match waiting.find(&result) {
                    None => others.0.push(received.ack_id),
                    Some(source) => {
                        if let Some(source) = source.take() {
                            failed.result(&source, &result);
                        }
                        ours.push(received.ack_id);
                    }
                }
            }
            if !ours.is_empty()
                && let Err(error) = self.subscription.acknowledge(&ours).await
            {
                // It is printed, so the work is done; it comes again to whoever reads next.
                eprintln!("platen: a result could not be acknowledged: {error}");
            }
        }
        Ok(())
    }

    /// Gives back what is not ours. What cannot be given back comes back by itself when its lease ends.
    pub(super) async fn release(&self, others: Others) {
        if !others.0.is_empty()
            && let Err(error) = self.subscription.release(&others.0).await
        {
            eprintln!("platen: messages of others come back at their ack deadline only: {error}");
        }
    }
}
