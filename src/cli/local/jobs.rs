//! What has been asked of the worker and what has become of it, as the topics tell: events, results and dead letters.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::world::{DEAD_LETTERS, EVENTS, PUSH, RESULTS, World, decode};

/// How many jobs are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 1000;
/// The attribute by which Pub/Sub says when a dead letter was published first; it does not say under which id.
const FIRST_PUBLISHED: &str = "CloudPubSubDeadLetterSourceTopicPublishTime";

/// One message, or one direct request, and its result.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    /// Counted from 1 in the order they were heard of.
    number: u64,
    /// The message that asked for it; a direct request has none.
    message_id: Option<String>,
    /// `gs://BUCKET/OBJECT`, as far as it is known.
    source: Option<String>,
    generation: Option<String>,
    /// When its message was published, RFC 3339.
    published: Option<String>,
    /// `waiting`, or the result's `status`.
    state: String,
    /// Whether the message is in the dead-letter topic.
    dead_letter: bool,
    /// The data of its last result message.
    result: Option<Value>,
    #[serde(skip)]
    changed: u64,
}

#[derive(Debug, Default)]
struct List {
    jobs: VecDeque<Job>,
    heard_of: u64,
    changes: u64,
}

/// All jobs, for several watchers.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    list: Mutex<List>,
    changes: watch::Sender<u64>,
}

impl Jobs {
    /// The jobs that have changed since a change of that number, oldest first, and the number of the last change.
    pub(super) fn since(&self, change: u64) -> (Vec<Job>, u64) {
        let list = self.lock();
        let jobs = list.jobs.iter().filter(|job| job.changed > change).cloned().collect();
        (jobs, list.changes)
    }

    /// Says the number of each new change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the job that fits, or a new one.
    fn update(&self, fits: impl Fn(&Job) -> bool, change: impl FnOnce(&mut Job)) {
        let mut list = self.lock();
        list.changes += 1;
        let changes = list.changes;
        let known = list.jobs.iter().rposition(fits);
        let index = known.unwrap_or_else(|| {
            list.heard_of += 1;
            let number = list.heard_of;
            list.jobs.push_back(Job {
                number,
                state: "waiting".to_owned(),
                ..Job::default()
            });
            if list.jobs.len() > REMEMBERED {
                list.jobs.pop_front();
            }
            list.jobs.len() - 1
        });
        if let Some(job) = list.jobs.get_mut(index) {
            change(job);
            job.changed = changes;
        }
        drop(list);
        self.changes.send_replace(changes);
    }

    /// A message on the topic of events.
    fn event(&self, message: &Value) {
        let attributes = &message["attributes"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if attributes["eventType"]
            .as_str()
            .is_some_and(|kind| kind != "OBJECT_FINALIZE")
        {
            return;
        }
        if attributes["objectId"]
            .as_str()
            .is_some_and(|object| object.ends_with('/'))
        {
            return;
        }
        let (source, generation) = source(message);
        let id = text(&message["messageId"]);
        self.update(
            |job| job.message_id.is_some() && job.message_id == id,
            |job| {
                job.message_id.clone_from(&id);
                job.source = job.source.take().or(source);
                job.generation = job.generation.take().or(generation);
                job.published = text(&message["publishTime"]);
            },
        );
    }

    /// A message on the topic of results.
    fn result(&self, message: &Value) {
        let Some(result) = decode(&message["data"]) else {
            return;
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (id, job_id) = (text(&result["messageId"]), text(&result["jobId"]));
        self.update(
            |job| match (&job.message_id, &id) {
                (Some(one), Some(other)) => one == other,
                // Asked for directly, and again perhaps.
                (None, None) => job.result.as_ref().is_some_and(|old| text(&old["jobId"]) == job_id),
                _ => false,
            },
            |job| {
                job.message_id.clone_from(&id);
                let source = &result["source"];
                if let (Some(bucket), Some(name)) = (source["bucket"].as_str(), source["name"].as_str()) {
                    job.source = Some(format!("gs://{bucket}/{name}"));
                }
                job.generation = text(&source["generation"]).or(job.generation.take());
                job.state = text(&result["status"]).unwrap_or_default();
                job.result = Some(result.clone());
            },
        );
    }

    /// A message on the dead-letter topic.
    fn dead_letter(&self, message: &Value) {
        let first = message["attributes"][FIRST_PUBLISHED].as_str();
        let (source, generation) = source(message);
        self.update(
            |job| job.published.as_deref() == first && job.source == source,
            |job| {
                job.published = first.map(str::to_owned);
                job.source.clone_from(&source);
                job.generation = job.generation.take().or(generation);
                job.dead_letter = true;
            },
        );
    }
}

/// The object that a message is about, and its generation, as far as it says so.
fn source(message: &Value) -> (Option<String>, Option<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let attributes = &message["attributes"];
    if let (Some(bucket), Some(object)) = (attributes["bucketId"].as_str(), attributes["objectId"].as_str()) {
        return (
            Some(format!("gs://{bucket}/{object}")),
            text(&attributes["objectGeneration"]),
        );
    }
    let job = decode(&message["data"]).unwrap_or_default();
    (text(&job["source"]), text(&job["generation"]))
}

/// What a message tells of a job.
type Take = fn(&Jobs, &Value);

/// Follows the three topics for as long as the tasks live, after what a data directory has of them: what waits for the worker, and
/// results and dead letters that nobody has taken.
pub(super) fn watch(jobs: &Arc<Jobs>, world: &World) -> Result<JoinSet<()>, String> {
    let mut tasks = JoinSet::new();
    let followed: [(&str, &str, Take); 3] = [
        (EVENTS, PUSH, Jobs::event),
        (RESULTS, RESULTS, Jobs::result),
        (DEAD_LETTERS, DEAD_LETTERS, Jobs::dead_letter),
    ];
    for (topic, waiting, take) in followed {
        let (subscription, jobs, cloud) = (world.watch(topic)?, Arc::clone(jobs), Arc::clone(&world.cloud));
        // None where somebody has deleted it: then nothing waits there.
        for message in cloud.waiting(waiting).unwrap_or_default() {
            take(&jobs, &message);
        }
        tasks.spawn(async move {
            loop {
                match cloud.receive(&subscription, 100).await {
                    Ok(received) => received.iter().for_each(|message| take(&jobs, &message["message"])),
                    // Whoever may delete it has.
                    Err(refusal) => {
                        return tracing::error!(%refusal, subscription, "the page sees no more of this topic");
                    }
                }
            }
        });
    }
    Ok(tasks)
}
