//! `platen redrive`: dead letters back to where they died, once its cause is mended.
//!
//! Each is published first and acknowledged after: one that an interruption falls between is there twice, none is lost.

use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::Failure;
use super::cloud::{self, Cloud, work};
use super::output::{note, plain, say};
use crate::google::http::Http;
use crate::google::pubsub::{Message, Publisher, batches};
use crate::google::retry::Budget;
use crate::google::subscription::{Received, Subscription};
use crate::google::{Error, Kind};

/// What Pub/Sub adds to a message that it gives up.
/// Source: cloud.google.com/pubsub/docs/handling-failures#track-delivery-attempts.
const DEAD_LETTER: &str = "CloudPubSubDeadLetter";
/// Attributes that Pub/Sub sets itself, and takes from nobody.
const RESERVED: &str = "goog";
/// Messages of one pull. An answer of large ones may be over what we read: then one by one.
const MESSAGES: usize = 100;
/// After so long without a message there are none left: Pub/Sub itself holds a pull that finds nothing for 90 s.
const QUIET: Duration = Duration::from_secs(10);
/// Or after so many empty answers in a row: one alone does not mean that nothing is there.
/// Source: PullResponse in google/pubsub/v1/pubsub.proto.
const EMPTY_ANSWERS: u32 = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);
const PULL: Duration = Duration::from_secs(120);
/// How long one request is tried for where Google does not answer.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long what is under way may take after an interruption.
const LAST_REQUEST: Duration = Duration::from_secs(10);

/// Publish dead letters again, and acknowledge each after that.
///
/// Example: platen redrive --from dead-letters --topic document-jobs --dry-run
/// Example: platen redrive --from dead-letters --topic document-jobs --limit 10
///
/// Data, attributes and ordering key stay, what Pub/Sub added (CloudPubSubDeadLetter...) goes. Only what was there when
/// the command began is taken: a message that dies again waits for the next run. It may be stopped and run again at any
/// time. Exit code 0 when everything is published, or nothing was there.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The dead-letter topic's subscription: projects/PROJECT/subscriptions/NAME, or NAME.
    #[arg(long, value_name = "SUBSCRIPTION")]
    from: String,
    /// The topic that pushes to the worker: projects/PROJECT/topics/TOPIC, or TOPIC.
    #[arg(long)]
    topic: String,
    /// Print what is there, a line of JSON each, and give it back.
    #[arg(long)]
    dry_run: bool,
    /// Take this many at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = cloud::configure()?;
    super::runtime()?.block_on(async {
        let mut interrupted = pin!(super::interrupted()?);
        let cloud = Cloud::connect(config).await?;
        if !cloud.endpoints.pubsub_is_emulator {
            cloud.required()?;
        }
        let from = cloud.resource("subscriptions", &arguments.from).await?;
        let topic = cloud.resource("topics", &arguments.topic).await?;
        let http = Http::new().map_err(work)?;
        let tokens = cloud.tokens.clone();
        let subscription = Subscription::new(cloud::patient(PULL)?, &cloud.endpoints.pubsub, tokens.clone(), &from)
            .map_err(|error| Failure::Usage(Some(format!("--from: {error}"))))?;
        let mut run = Run {
            publisher: Publisher::new(http, &cloud.endpoints.pubsub, tokens).within(&Budget::new(PATIENCE)),
            cloud: &cloud,
            subscription,
            topic: &topic,
            dry_run: arguments.dry_run,
            left: arguments.limit.unwrap_or(u64::MAX),
            began: Utc::now(),
            seen: HashSet::new(),
            published: HashSet::new(),
            held: Vec::new(),
            done: 0,
            newer: 0,
            refused: 0,
        };
        let outcome = run.all(interrupted.as_mut()).await;
        run.end().await;
        outcome?;
        match run.refused {
            0 => Ok(()),
            // It has been said why.
            refused => Err(Failure::Work(Some(format!("{refused} are left in {from}")))),
        }
    })
}

struct Run<'a> {
    cloud: &'a Cloud,
    subscription: Subscription,
    publisher: Publisher,
    topic: &'a str,
    dry_run: bool,
    /// How many more may be taken.
    left: u64,
    began: DateTime<Utc>,
    /// Messages that have come, by their ids: a lease that ends brings them again.
    seen: HashSet<String>,
    /// Those among them that are published.
    published: HashSet<String>,
    /// Leases that are given back at the end.
    held: Vec<String>,
    done: u64,
    newer: u64,
    refused: u64,
}

impl Run<'_> {
    async fn all(&mut self, mut interrupted: Pin<&mut impl Future<Output = ()>>) -> Result<(), Failure> {
        let stopped = || Failure::Work(Some("stopped; run it again for what is left".to_owned()));
        let mut most = MESSAGES;
        let (mut fruitful, mut empty) = (Instant::now(), 0);
        while self.left > 0 {
            let wanted = most.min(usize::try_from(self.left).unwrap_or(most));
            let pulled = tokio::select! {
                pulled = tokio::time::timeout(QUIET, self.subscription.pull(wanted)) => pulled,
                () = &mut interrupted => return Err(stopped()),
            };
            let received = match pulled {
                Err(_) => return Ok(()),
                Ok(Err(error)) if error.kind == Kind::TooLarge && most > 1 => {
                    most = 1;
                    continue;
                }
                Ok(Err(error)) => return Err(self.explain(error, "subscriptions", "roles/pubsub.subscriber").await),
                Ok(Ok(received)) => received,
            };
            empty = if received.is_empty() { empty + 1 } else { 0 };
            let (letters, again) = self.take(received);
            self.acknowledge(&again).await;
            if letters.is_empty() {
                // What is newer, or held already, may stand before what is not.
                if empty == EMPTY_ANSWERS || fruitful.elapsed() > QUIET {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            fruitful = Instant::now();
            self.left -= letters.len() as u64;
            if self.dry_run {
                for letter in letters {
                    say(&describe(&letter).to_string());
                    self.done += 1;
                    self.held.push(letter.ack_id);
                }
                continue;
            }
            let mut sent = pin!(self.send(letters));
            tokio::select! {
                outcome = &mut sent => outcome?,
                () = &mut interrupted => {
                    // Cut off, some may be published and not acknowledged: they are there twice, and converted once.
                    if let Ok(outcome) = tokio::time::timeout(LAST_REQUEST, sent).await {
                        outcome?;
                    }
                    return Err(stopped());
                }
            }
        }
        Ok(())
    }

    /// Those that were there when this began, and have not come before; and the leases of those that are published already,
    /// and came again because their acknowledgement was lost or too late.
    fn take(&mut self, received: Vec<Received>) -> (Vec<Received>, Vec<String>) {
        let (mut letters, mut again) = (Vec::with_capacity(received.len()), Vec::new());
        for letter in received {
            let is_new = self.seen.insert(letter.id.clone());
            if self.published.contains(&letter.id) {
                again.push(letter.ack_id);
            } else if letter.published.is_some_and(|published| published >= self.began) {
                self.newer += u64::from(is_new);
                self.held.push(letter.ack_id);
            } else if is_new {
                letters.push(letter);
            } else {
                self.held.push(letter.ack_id);
            }
        }
        (letters, again)
    }

    /// Publishes, and acknowledges what is published.
    async fn send(&mut self, letters: Vec<Received>) -> Result<(), Failure> {
        let (mut ack_ids, ids): (Vec<String>, Vec<String>) = letters
            .iter()
            .map(|letter| (letter.ack_id.clone(), letter.id.clone()))
            .unzip();
        let messages: Vec<Message> = letters.into_iter().map(revive).collect();
        let mut ids = ids.iter();
        for batch in batches(&messages) {
            let rest = ack_ids.split_off(batch.len());
            let batch_ids = std::mem::replace(&mut ack_ids, rest);
            match self.publisher.publish_batch(self.topic, batch).await {
                Ok(_) => {
                    self.published.extend(ids.by_ref().take(batch.len()).cloned());
                    self.done += batch.len() as u64;
                    self.acknowledge(&batch_ids).await;
                }
                Err(error) if error.kind == Kind::Invalid || error.kind == Kind::TooLarge => {
                    let outcome = self
                        .one_by_one(batch, batch_ids, ids.by_ref().take(batch.len()), error)
                        .await;
                    if outcome.is_err() {
                        self.held.append(&mut ack_ids);
                        return outcome;
                    }
                }
                Err(error) => {
                    self.held.extend(batch_ids);
                    self.held.append(&mut ack_ids);
                    return Err(self.explain(error, "topics", "roles/pubsub.publisher").await);
                }
            }
        }
        Ok(())
    }

    /// One that Pub/Sub does not take must not keep the others back.
    async fn one_by_one(
        &mut self,
        batch: &[Message],
        ack_ids: Vec<String>,
        ids: impl Iterator<Item = &String>,
        refusal: Error,
    ) -> Result<(), Failure> {
        let mut ack_ids = ack_ids.into_iter();
        for ((message, ack_id), id) in batch.iter().zip(ack_ids.by_ref()).zip(ids) {
            let outcome = if batch.len() == 1 {
                Err(refusal.clone())
            } else {
                self.publisher
                    .publish_batch(self.topic, std::slice::from_ref(message))
                    .await
            };
            match outcome {
                Ok(_) => {
                    self.published.insert(id.clone());
                    self.done += 1;
                    self.acknowledge(&[ack_id]).await;
                }
                Err(error) if error.kind == Kind::Invalid || error.kind == Kind::TooLarge => {
                    note(&plain(&format!("platen: message {id} is left: {error}")));
                    self.refused += 1;
                    self.held.push(ack_id);
                }
                Err(error) => {
                    self.held.push(ack_id);
                    self.held.extend(ack_ids);
                    return Err(self.explain(error, "topics", "roles/pubsub.publisher").await);
                }
            }
        }
        Ok(())
    }

    /// Of what is published already.
    async fn acknowledge(&self, ack_ids: &[String]) {
        if ack_ids.is_empty() {
            return;
        }
        if let Err(error) = self.subscription.acknowledge(ack_ids).await {
            note(&format!(
                "platen: {} are published and could not be acknowledged, so the next run publishes them again: {error}",
                ack_ids.len()
            ));
        }
    }

    /// Gives back what is held and says what was done.
    async fn end(&mut self) {
        if !self.held.is_empty()
            && let Err(error) = self.subscription.release(&self.held).await
        {
            note(&format!(
                "platen: what is left comes back at its ack deadline only: {error}"
            ));
        }
        let topic = self.topic;
        if self.dry_run {
            note(&format!("{} would be published to {topic}", self.done));
        } else {
            note(&format!("{} published to {topic}", self.done));
        }
        if self.newer > 0 {
            note(&format!(
                "{} came after this began and are left: if they are the same again, their cause is not mended",
                self.newer
            ));
        }
    }

    async fn explain(&self, error: Error, kind: &str, role: &str) -> Failure {
        let is_usage = error.kind == Kind::Invalid && error.status.is_none();
        let message = self.cloud.granting(error, kind, role).await;
        if is_usage {
            Failure::Usage(Some(message))
        } else {
            Failure::Work(Some(message))
        }
    }
}

/// As it was before it died.
fn revive(letter: Received) -> Message {
    let mut attributes = letter.attributes;
    attributes.retain(|name, _| !name.starts_with(DEAD_LETTER) && !name.starts_with(RESERVED));
    Message {
        data: letter.data,
        attributes,
        ordering_key: letter.ordering_key,
    }
}

/// What a person needs to know a dead letter by: nothing of what a job's sender added.
fn describe(letter: &Received) -> Value {
    let attribute = |name: &str| letter.attributes.get(name).map(String::as_str);
    let of_death = |name: &str| attribute(&format!("{DEAD_LETTER}Source{name}"));
    let source = match (attribute("bucketId"), attribute("objectId")) {
        (Some(bucket), Some(name)) => json!(format!("gs://{bucket}/{name}")),
        _ => serde_json::from_slice(&letter.data).map_or(Value::Null, |mut job: Value| job["source"].take()),
    };
    json!({
        "messageId": letter.id,
        "publishTime": letter.published,
        "source": source,
        "subscription": of_death("Subscription"),
        "deliveries": of_death("DeliveryCount").and_then(|count| count.parse::<u32>().ok()),
    })
}
