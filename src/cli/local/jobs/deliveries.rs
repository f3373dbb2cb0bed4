//! How the pushes of a message went, step by step: what the local cloud saw of the calls that the worker made because of them.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::super::super::world::CONFIG_BUCKET;
use crate::local_cloud::{Call, Observation, Peer, Seen};

/// How many messages are remembered; the oldest are forgotten first.
const MESSAGES: usize = 1000;
/// How many deliveries of a message are remembered, the last ones.
const DELIVERIES: usize = 5;
/// How many steps of a delivery are remembered, the first ones; calls that fail in a row are one.
const STEPS: usize = 40;

/// One push of a message.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    /// Which one, counted from 1.
    attempt: u32,
    #[serde(serialize_with = "milliseconds")]
    at: DateTime<Utc>,
    /// When it ended.
    #[serde(serialize_with = "maybe_milliseconds")]
    ended: Option<DateTime<Utc>>,
    /// The worker's answer; null before there is one, and where there was none.
    status: Option<u16>,
    steps: Vec<Step>,
    #[serde(skip)]
    trace: String,
}

/// Something that the worker did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Step {
    /// `fetched`, `converted`, `stored`, `signed`, `published`; of a call that failed the API's name.
    name: &'static str,
    /// When it was seen last.
    #[serde(serialize_with = "milliseconds")]
    at: DateTime<Utc>,
    /// With what a call that failed was answered.
    status: Option<u16>,
    /// How often it was seen.
    times: u32,
}

/// The deliveries of the messages of one subscription.
#[derive(Debug)]
pub(super) struct Deliveries {
    subscription: String,
    messages: HashMap<String, VecDeque<Delivery>>,
    /// In the order in which they were heard of.
    order: VecDeque<String>,
    /// Which message a trace belongs to.
    traces: HashMap<String, String>,
}

impl Deliveries {
    /// Of the subscription of this full name.
    pub(super) fn of(subscription: String) -> Self {
        Self {
            subscription,
            messages: HashMap::new(),
            order: VecDeque::new(),
            traces: HashMap::new(),
        }
    }

    /// Those of a message, oldest first.
    pub(super) fn of_message(&self, message_id: &str) -> Vec<Delivery> {
        let deliveries = self.messages.get(message_id).into_iter().flatten();
        deliveries.cloned().collect()
    }

    /// Takes note; the message that it changes something for.
    pub(super) fn take(&mut self, observation: Observation) -> Option<String> {
        let Observation { at, trace, seen } = observation;
        if let Seen::Pushed {
            subscription,
            message_id,
            attempt,
        } = seen
        {
            return (subscription == self.subscription).then(|| self.begin(message_id, attempt, at, trace));
        }
        let message_id = self.traces.get(&trace)?;
        let deliveries = self.messages.get_mut(message_id)?;
        let delivery = deliveries.iter_mut().find(|delivery| delivery.trace == trace)?;
        match seen {
            Seen::Answered(status) => {
                delivery.status = status;
                delivery.ended = Some(at);
            }
            Seen::Called(call) if is_upload(&call) => delivery.once("converted", at),
            Seen::Returned(call, status) => {
                let (name, failed) = outcome(&call, status)?;
                delivery.again(name, failed, at);
            }
            Seen::Called(_) | Seen::Pushed { .. } => return None,
        }
        Some(message_id.clone())
    }

    fn begin(&mut self, message_id: String, attempt: u32, at: DateTime<Utc>, trace: String) -> String {
        if !self.messages.contains_key(&message_id) {
            self.order.push_back(message_id.clone());
            if self.order.len() > MESSAGES
                && let Some(oldest) = self.order.pop_front()
            {
                for delivery in self.messages.remove(&oldest).into_iter().flatten() {
                    self.traces.remove(&delivery.trace);
                }
            }
        }
        let deliveries = self.messages.entry(message_id.clone()).or_default();
        if deliveries.len() == DELIVERIES
            && let Some(oldest) = deliveries.pop_front()
        {
            self.traces.remove(&oldest.trace);
        }
        self.traces.insert(trace.clone(), message_id.clone());
        deliveries.push_back(Delivery {
            attempt,
            at,
            ended: None,
            status: None,
            steps: Vec::new(),
            trace,
        });
        message_id
    }
}

impl Delivery {
    /// A step that counts when it is first seen.
    fn once(&mut self, name: &'static str, at: DateTime<Utc>) {
        if !self.steps.iter().any(|step| step.name == name) {
            self.again(name, None, at);
        }
    }

    /// A step that counts when it is last seen, as where a job has several outputs.
    fn again(&mut self, name: &'static str, status: Option<u16>, at: DateTime<Utc>) {
        let same = |step: &Step| step.name == name && step.status == status;
        let known = match status {
            None => self.steps.iter().position(same),
            // A failure after another step is another failure.
            Some(_) => self.steps.len().checked_sub(1).filter(|last| same(&self.steps[*last])),
        };
        if let Some(step) = known.and_then(|index| self.steps.get_mut(index)) {
            step.at = at;
            step.times += 1;
        } else if self.steps.len() < STEPS {
            self.steps.push(Step {
                name,
                at,
                status,
                times: 1,
            });
        }
    }
}

fn is_upload(call: &Call) -> bool {
    call.peer == Peer::Storage && call.path.starts_with("/upload/")
}

/// What a call means for the job, and its status if it failed; none for what is no news, such as a look whether an output is
/// there already.
fn outcome(call: &Call, status: u16) -> Option<(&'static str, Option<u16>)> {
    let is_get = call.method == "GET";
    if status >= 400 {
        let looked = call.peer == Peer::Storage && is_get && status == 404;
        return (!looked).then(|| (peer(call.peer), Some(status)));
    }
    let own = call.path.contains(&format!("/b/{CONFIG_BUCKET}/"));
    let media = call.query.split('&').any(|pair| pair == "alt=media");
    let step = match call.peer {
        Peer::Storage if is_get && media && !own => "fetched",
        // 308: more of it is to come.
        Peer::Storage if is_upload(call) && status < 300 => "stored",
        Peer::Iam if call.path.ends_with(":signBlob") => "signed",
        Peer::Pubsub if call.path.ends_with(":publish") => "published",
        _ => return None,
    };
    Some((step, None))
}

fn peer(peer: Peer) -> &'static str {
    match peer {
        Peer::Storage => "Cloud Storage",
        Peer::Pubsub => "Pub/Sub",
        Peer::Metadata => "metadata server",
        Peer::Iam => "IAM",
        Peer::Sts => "STS",
        Peer::Jwks => "OIDC keys",
        Peer::Kms => "Cloud KMS",
        Peer::FrontDoor | Peer::Push => "worker",
    }
}

/// Milliseconds since 1970, as a browser counts.
fn milliseconds<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(time.timestamp_millis())
}

fn maybe_milliseconds<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.timestamp_millis()).serialize(serializer)
}
