//! What can be done to the running world: upload, script failures, take rights away, and treat the worker badly. Knows
//! no HTTP; [`super::page`] is its door.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::world::{CONFIG_OBJECT, EVENTS, INPUT_BUCKET, KEY, Order, UNANNOUNCED, Variables, World};
use super::guide::Guide;
use super::jobs::Jobs;
use crate::job::Request;
use crate::local_cloud::Fault;

/// The largest document, in bytes, as at the local cloud's storage.
pub(super) const LARGEST_DOCUMENT: usize = 1 << 30;
/// The worker's variables that may be set here: all but those that say where Google is, who the worker is, and what it
/// may run.
const SETTABLE: [&str; 27] = [
    "ACK_DEADLINE",
    "CONFIG_KMS_KEY",
    "CONFIG_OBJECT",
    "CONFIG_RELOAD",
    "CONVERT_CONCURRENCY",
    "CONVERT_MEMORY",
    "CONVERT_TIMEOUT",
    "DOCUMENT_LOCALE",
    "FONTS",
    "INPUT_BUCKETS",
    "INPUT_EXCLUDE",
    "INPUT_INCLUDE",
    "LOG_FORMAT",
    "MAX_DELIVERY_ATTEMPTS",
    "MAX_INPUT_SIZE",
    "MAX_OUTPUT_SIZE",
    "MAX_PAGES",
    "OUTPUT_BUCKET",
    "OUTPUT_NAME",
    "PUSH_AUDIENCE",
    "PUSH_AUTH",
    "PUSH_SERVICE_ACCOUNT",
    "RESULT_TOPIC",
    "RUST_LOG",
    "SANDBOX",
    "SIGNED_URL_TTL",
    "SIGNER_SERVICE_ACCOUNT",
];

/// Why something was not done: the caller's mistake, in a sentence.
#[derive(Debug)]
pub(super) struct Refused {
    /// What kind of mistake, for programs.
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

/// One permission of an account on a resource, as `deploy/policy.json` names all three.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Right {
    account: String,
    permission: String,
    resource: String,
    /// Whether it is there.
    granted: bool,
}

/// What to do to the worker's process.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Start,
    Stop,
    Restart,
    Kill,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Treatment {
    action: Action,
}

/// An output, to be shown.
pub(super) struct Shown {
    pub(super) content_type: &'static str,
    /// Under which a browser would save it.
    pub(super) name: String,
    pub(super) content: Body,
    /// In bytes.
    pub(super) size: usize,
}

/// The world, and what was changed in it.
pub(super) struct Control {
    world: World,
    jobs: Arc<Jobs>,
    page: SocketAddr,
    /// What was enforced at the start, to show what is missing since.
    rights: BTreeSet<Right>,
    /// What was set of the worker's variables.
    set: Mutex<Variables>,
}

impl Control {
    pub(super) fn new(world: World, jobs: Arc<Jobs>, page: SocketAddr) -> Self {
        let rights = rights(&world);
        Self {
            world,
            jobs,
            page,
            rights,
            set: Mutex::default(),
        }
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn jobs(&self) -> &Arc<Jobs> {
        &self.jobs
    }

    pub(super) fn page(&self) -> SocketAddr {
        self.page
    }

    pub(super) fn page_url(&self) -> String {
        format!("http://{}", self.page)
    }

    /// All that can be seen here but jobs.
    pub(super) fn state(&self) -> Value {
        let guide = Guide::new(self);
        let variables: serde_json::Map<String, Value> = guide
            .variables()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::String(value)))
            .collect();
        json!({
            "urls": guide.urls(),
            "environment": variables,
            "configuration": {"object": CONFIG_OBJECT, "key": KEY},
            "unannounced": UNANNOUNCED,
            "largestDocument": LARGEST_DOCUMENT,
            "worker": self.worker(),
            "faults": self.world.cloud.faults(),
            "faultHits": self.hits(),
            "rights": self.rights(),
        })
    }

    /// How many requests scripted failures have hit.
    fn hits(&self) -> Vec<Value> {
        let hits = self.world.cloud.fault_hits();
        hits.iter()
            .map(|((peer, effect), count)| json!({"peer": peer, "effect": effect, "count": count}))
            .collect()
    }

    /// The worker's state, and how it was changed.
    pub(super) fn worker(&self) -> Value {
        let worker = &self.world.worker;
        let mut state = json!(worker.state());
        state["url"] = json!(worker.url());
        state["metrics"] = json!(worker.metrics());
        state["variables"] = json!(*self.set());
        state
    }

    /// The worker's variables, for `platen doctor`: without its ports, and without what says who one is.
    pub(super) fn environment(&self) -> Variables {
        const OTHERS: [&str; 7] = [
            "PATH",
            "HOME",
            "TMPDIR",
            "PORT",
            "METRICS_PORT",
            "GCE_METADATA_HOST",
            "RUST_LOG",
        ];
        let mut environment = self.world.worker.environment().clone();
        environment.extend(self.set().clone());
        environment.retain(|name, _| !OTHERS.contains(&name.as_str()));
        environment
    }

    /// Puts a document into the input bucket; the object's resource.
    pub(super) fn upload(&self, name: &str, content_type: &str, content: Bytes) -> Result<Value, Refused> {
        self.world
            .cloud
            .put(INPUT_BUCKET, name, content_type, content)
            .map_err(|refusal| Refused::new("document.invalid", refusal.to_string()))
    }

    /// Publishes a job on the topic that pushes to the worker; its message's id. What is no job is published by nobody.
    pub(super) fn submit(&self, job: &Value) -> Result<Value, Refused> {
        let text = job.to_string();
        Request::from_json(text.as_bytes())
            .and_then(|request| request.source())
            .map_err(|failure| Refused::new("job.invalid", failure.message))?;
        self.publish(text.as_bytes(), &[])
    }

    /// Publishes the message of a job again, as another message.
    pub(super) fn redeliver(&self, number: u64) -> Result<Value, Refused> {
        let message = self.jobs.message(number).ok_or_else(|| {
            let message = format!("there is no message of a job {number} here: it came directly, or is forgotten");
            Refused::new("job.not_found", message)
        })?;
        let attributes: Vec<(&str, &str)> = message
            .attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        self.publish(&message.data, &attributes)
    }

    /// An output of a job, around all faults: to be looked at, where a signed URL is to be saved. Only what cannot act on the
    /// page, whose host this is.
    pub(super) fn output(&self, number: u64, output: usize) -> Result<Shown, Refused> {
        // Text is UTF-8, and what is read as something else is not what was written.
        const SHOWN: [(&str, &str); 4] = [
            ("application/pdf", "application/pdf"),
            ("image/png", "image/png"),
            ("image/jpeg", "image/jpeg"),
            ("text/plain", "text/plain; charset=utf-8"),
        ];
        let refused =
            |message: &str| Refused::new("output.not_found", format!("output {output} of job {number} {message}"));
        let output = self
            .jobs
            .output(number, output)
            .ok_or_else(|| refused("is not known"))?;
        let text = |field: &str| output[field].as_str().unwrap_or_default();
        let content_type = text("contentType").split(';').next().unwrap_or_default();
        let shown = SHOWN.into_iter().find(|(shown, _)| *shown == content_type);
        let (_, content_type) =
            shown.ok_or_else(|| refused("is of a kind that is not shown here: its signed URL has it"))?;
        let name = text("name");
        let generation = text("generation").parse().map_err(|_| refused("has no generation"))?;
        let (content, size) = self
            .world
            .cloud
            .content(text("bucket"), name, generation)
            .map_err(|refusal| refused(&format!("cannot be read: {refusal}")))?;
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Shown {
            content_type,
            name,
            content,
            size,
        })
    }

    fn publish(&self, data: &[u8], attributes: &[(&str, &str)]) -> Result<Value, Refused> {
        let id = self.world.cloud.publish(EVENTS, data, attributes);
        id.map(|id| json!({"messageId": id}))
            .map_err(|refusal| Refused::new("message.invalid", refusal.to_string()))
    }

    /// The failures that wait for their requests.
    pub(super) fn faults(&self) -> Value {
        json!(self.world.cloud.faults())
    }

    pub(super) fn add_fault(&self, rule: &Value) -> Result<Value, Refused> {
        self.world.cloud.add_fault(fault(rule)?);
        Ok(self.faults())
    }

    /// Forgets one rule, or all of them.
    pub(super) fn clear_faults(&self, rule: Option<&Value>) -> Result<Value, Refused> {
        match rule {
            None => self.world.cloud.clear_faults(),
            Some(rule) if self.world.cloud.remove_fault(&fault(rule)?) => {}
            Some(_) => {
                let message = "no such fault is waiting: it has been used up, or GET /api/faults has it in other words";
                return Err(Refused::new("fault.not_found", message));
            }
        }
        Ok(self.faults())
    }

    /// Every right that was there at the start or is now.
    pub(super) fn rights(&self) -> Vec<Right> {
        let now = rights(&self.world);
        let mut all: BTreeSet<Right> = self
            .rights
            .iter()
            .filter(|right| !now.contains(right))
            .map(|right| Right {
                granted: false,
                ..right.clone()
            })
            .collect();
        all.extend(now);
        all.into_iter().collect()
    }

    /// Takes a right away, or gives one.
    pub(super) fn set_right(&self, right: &Value) -> Result<Vec<Right>, Refused> {
        let right = Right::deserialize(right).map_err(|error| {
            Refused::new(
                "right.invalid",
                format!("{error}: wanted are account, permission, resource and granted, as GET /api/rights lists them"),
            )
        })?;
        let known = |name: fn(&Right) -> &str| -> BTreeSet<&str> { self.rights.iter().map(name).collect() };
        for (what, name, names) in [
            ("account", &right.account, known(|right| &right.account)),
            ("resource", &right.resource, known(|right| &right.resource)),
        ] {
            if !names.contains(name.as_str()) {
                let names: Vec<&str> = names.into_iter().collect();
                let message = format!("there is no {what} '{name}': {}", names.join(", "));
                return Err(Refused::new("right.not_found", message));
            }
        }
        let Right {
            account,
            permission,
            resource,
            granted,
        } = &right;
        if *granted {
            self.world.cloud.give(account, permission, resource);
        } else if !self.world.cloud.take_away(account, permission, resource) {
            let message = format!("'{account}' does not have '{permission}' on '{resource}'");
            return Err(Refused::new("right.not_found", message));
        }
        Ok(self.rights())
    }

    /// Does something to the worker's process, and waits for what becomes of it.
    pub(super) async fn treat(&self, treatment: &Value) -> Result<Value, Refused> {
        let Treatment { action } = Treatment::deserialize(treatment).map_err(|error| {
            Refused::new(
                "action.invalid",
                format!("{error}: wanted is action, one of start, stop, restart, kill"),
            )
        })?;
        let order = match action {
            Action::Start => Order::Start,
            Action::Stop => Order::Stop,
            Action::Restart => Order::Restart,
            Action::Kill => Order::Kill,
        };
        self.world.worker.order(order).await;
        Ok(self.worker())
    }

    /// Sets variables of the worker, forgets those that are null, and starts it again with them.
    pub(super) async fn set_variables(&self, changes: &Value) -> Result<Value, Refused> {
        let invalid = |message: String| Refused::new("variable.invalid", message);
        let changes = changes
            .as_object()
            .ok_or_else(|| invalid("wanted is an object of variables, as {\"MAX_PAGES\": \"2\"}".to_owned()))?;
        let mut wanted = self.set().clone();
        for (name, value) in changes {
            if !SETTABLE.contains(&name.as_str()) {
                let message = format!("{name} cannot be set here, only {}", SETTABLE.join(", "));
                return Err(invalid(message));
            }
            match value {
                Value::Null => {
                    wanted.remove(name);
                }
                Value::String(value) if !value.contains('\0') => {
                    wanted.insert(name.clone(), value.clone());
                }
                _ => return Err(invalid(format!("{name} must be a string, or null for what it was"))),
            }
        }
        self.set().clone_from(&wanted);
        self.world.worker.order(Order::Set(wanted)).await;
        Ok(self.worker())
    }

    fn set(&self) -> MutexGuard<'_, Variables> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fault(rule: &Value) -> Result<Fault, Refused> {
    Fault::from_json(rule).map_err(|problem| Refused::new("fault.invalid", format!("not a fault: {problem}")))
}

fn rights(world: &World) -> BTreeSet<Right> {
    let rights = world.cloud.rights().into_iter();
    rights
        .map(|(account, permission, resource)| Right {
            account,
            permission,
            resource,
            granted: true,
        })
        .collect()
}
