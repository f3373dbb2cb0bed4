//! What has been asked of the worker and what has become of it, as the topics tell: events, results and dead letters; and on its
//! way there, as the local cloud sees it.

mod deliveries;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::super::world::{DEAD_LETTERS, EVENTS, PUSH, RESULTS, UNANNOUNCED, World, bytes, decode};
use crate::local_cloud::Observation;
use deliveries::{Deliveries, Delivery};

/// How many jobs are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 1000;
/// What the names of attributes begin with that a dead letter has and its message had not.
const DEAD_LETTER_SOURCE: &str = "CloudPubSubDeadLetterSource";
/// The attribute by which Pub/Sub says when a dead letter was published first; it does not say under which id.
const FIRST_PUBLISHED: &str = "CloudPubSubDeadLetterSourceTopicPublishTime";
/// The longest data of a message that is kept to be published again: 20 times what a notification has.
const LONGEST_DATA: usize = 64 * 1024;

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
    /// When the object was written that it is about, RFC 3339, where its event says so.
    uploaded: Option<String>,
    /// The job, as its message has it; a notification is none.
    asked: Option<Value>,
    /// Whether its message can be published again.
    again: bool,
    #[serde(skip)]
    message: Option<Message>,
    #[serde(skip)]
    changed: u64,
}

/// A message, to publish it again.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) data: Vec<u8>,
    pub(super) attributes: BTreeMap<String, String>,
}

impl Message {
    /// As it was before it was a dead letter, unless it is too long to be kept.
    fn of(message: &Value) -> Option<Self> {
        let data = bytes(&message["data"]).unwrap_or_default();
        let attributes = message["attributes"].as_object().into_iter().flatten();
        let attributes = attributes
            .filter(|(name, _)| !name.starts_with(DEAD_LETTER_SOURCE))
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        (data.len() <= LONGEST_DATA).then_some(Self { data, attributes })
    }
}

/// A job, and how its message was delivered.
#[derive(Debug, Serialize)]
pub(super) struct View {
    #[serde(flatten)]
    job: Job,
    deliveries: Vec<Delivery>,
}

#[derive(Debug)]
struct List {
    jobs: VecDeque<Job>,
    deliveries: Deliveries,
    /// When objects were written that no notification starts a job for: object, generation, time.
    written: VecDeque<(String, Option<String>, Option<String>)>,
    heard_of: u64,
    changes: u64,
}

/// All jobs, for several watchers.
#[derive(Debug)]
pub(super) struct Jobs {
    list: Mutex<List>,
    changes: watch::Sender<u64>,
}

impl Jobs {
    /// None yet, of a cloud of this project.
    pub(super) fn of_project(project: &str) -> Self {
        Self {
            list: Mutex::new(List {
                jobs: VecDeque::new(),
                deliveries: Deliveries::of(format!("projects/{project}/subscriptions/{PUSH}")),
                written: VecDeque::new(),
                heard_of: 0,
                changes: 0,
            }),
            changes: watch::Sender::default(),
        }
    }

    /// The jobs that have changed since a change of that number, oldest first, and the number of the last change.
    pub(super) fn since(&self, change: u64) -> (Vec<View>, u64) {
        let list = self.lock();
        let changed = list.jobs.iter().filter(|job| job.changed > change);
        let views = changed.map(|job| View {
            deliveries: (job.message_id.as_deref()).map_or_else(Vec::new, |id| list.deliveries.of_message(id)),
            job: job.clone(),
        });
        (views.collect(), list.changes)
    }

    /// What the result of a job says of one of its outputs.
    pub(super) fn output(&self, number: u64, output: usize) -> Option<Value> {
        let list = self.lock();
        let job = list.jobs.iter().find(|job| job.number == number)?;
        job.result.as_ref()?["outputs"].get(output).cloned()
    }

    /// The message of a job, if it is known.
    pub(super) fn message(&self, number: u64) -> Option<Message> {
        let list = self.lock();
        list.jobs.iter().find(|job| job.number == number)?.message.clone()
    }

    /// Takes note of what the local cloud sees.
    pub(super) fn observe(&self, observation: Observation) {
        let mut list = self.lock();
        let Some(id) = list.deliveries.take(observation) else {
            return;
        };
        list.changes += 1;
        let changes = list.changes;
        // A job that is not heard of yet has all of its deliveries once it is.
        if let Some(job) = list
            .jobs
            .iter_mut()
            .rev()
            .find(|job| job.message_id.as_ref() == Some(&id))
        {
            job.changed = changes;
        }
        drop(list);
        self.changes.send_replace(changes);
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
        let data = decode(&message["data"]);
        let (source, generation) = source(message, data.as_ref());
        let is_notification = attributes["eventType"].is_string();
        let mut uploaded = data.as_ref().and_then(|data| text(&data["timeCreated"]));
        if is_notification
            && attributes["objectId"]
                .as_str()
                .is_some_and(|name| name.starts_with(UNANNOUNCED))
        {
            // The worker leaves it alone: its job is still to come.
            if let Some(source) = source {
                let mut list = self.lock();
                list.written.push_back((source, generation, uploaded));
                if list.written.len() > REMEMBERED {
                    list.written.pop_front();
                }
            }
            return;
        }
        if !is_notification && let Some(source) = &source {
            let list = self.lock();
            let of_it = |(name, written, _): &&(String, Option<String>, Option<String>)| {
                name == source && (generation.is_none() || *written == generation)
            };
            uploaded = list
                .written
                .iter()
                .rev()
                .find(of_it)
                .and_then(|(_, _, time)| time.clone());
        }
        let id = text(&message["messageId"]);
        self.update(
            |job| job.message_id.is_some() && job.message_id == id,
            |job| {
                job.message_id.clone_from(&id);
                job.source = job.source.take().or(source);
                job.generation = job.generation.take().or(generation);
                job.published = text(&message["publishTime"]);
                job.uploaded = uploaded;
                job.message = Message::of(message);
                // What is too long to be kept is not told to each watcher either.
                job.asked = data.filter(|data| !is_notification && data["source"].is_string() && job.message.is_some());
                job.again = job.message.is_some();
            },
        );
    }

    /// A message on the topic of results.
    fn result(&self, message: &Value) {
        let Some(result) = decode(&message["data"]) else {
            return;
        };
        // Whoever may publish on the topic publishes other things too.
        let Some(status) = result["status"].as_str().filter(|status| !status.is_empty()) else {
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
                status.clone_into(&mut job.state);
                job.result = Some(result.clone());
            },
        );
    }

    /// A message on the dead-letter topic.
    fn dead_letter(&self, message: &Value) {
        let first = message["attributes"][FIRST_PUBLISHED].as_str();
        let (source, generation) = source(message, decode(&message["data"]).as_ref());
        self.update(
            |job| job.published.as_deref() == first && job.source == source,
            |job| {
                job.published = first.map(str::to_owned);
                job.source.clone_from(&source);
                job.generation = job.generation.take().or(generation);
                job.dead_letter = true;
                job.message = job.message.take().or_else(|| Message::of(message));
                job.again = job.message.is_some();
            },
        );
    }
}

/// The object that a message is about, and its generation, as far as it says so.
fn source(message: &Value, data: Option<&Value>) -> (Option<String>, Option<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let attributes = &message["attributes"];
    if let (Some(bucket), Some(object)) = (attributes["bucketId"].as_str(), attributes["objectId"].as_str()) {
        return (
            Some(format!("gs://{bucket}/{object}")),
            text(&attributes["objectGeneration"]),
        );
    }
    data.map_or((None, None), |job| (text(&job["source"]), text(&job["generation"])))
}

/// What a message tells of a job.
type Take = fn(&Jobs, &Value);

/// Follows the pushes, and the three topics for as long as the tasks live, after what a data directory has of them: what waits for
/// the worker, and results and dead letters that nobody has taken.
pub(super) fn watch(jobs: &Arc<Jobs>, world: &World) -> Result<JoinSet<()>, String> {
    let mut tasks = JoinSet::new();
    let told = Arc::clone(jobs);
    world.cloud.watch(move |observation| told.observe(observation));
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
