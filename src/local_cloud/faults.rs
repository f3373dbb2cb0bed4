//! Scripted failures: what a test asks a peer to do instead of, or after, its work.
//!
//! The same rules come in through [`super::LocalCloud::add_fault`] and over HTTP: `POST /_faults` on any peer with one
//! rule as JSON, `GET /_faults` for what is left, `DELETE /_faults` to forget them. No Google API has a path that
//! begins with an underscore, so the path collides with nothing.
//!
//! ```json
//! {"method": "GET", "pathPrefix": "/storage/v1/", "skip": 1, "count": 2, "effect": {"status": 503, "retryAfter": 1}}
//! {"peer": null, "count": null, "effect": {"probability": 0.05, "seed": 7, "oneOf": [{"reset": true}, {"status": 500}]}}
//! {"peer": "push", "count": 3, "effect": {"loseAnswer": true}}
//! ```

mod effect;

use std::{collections::BTreeMap, sync::Mutex};

use axum::{http::StatusCode, response::Response};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::effect::Effect;
pub(super) use self::effect::{after, before, request_body};
use super::server::{Peer, Request, lock, text};

/// One scripted failure and the requests it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The peer it is for; every one that listens when none, and pushes only by name. Over HTTP an absent `peer` is the
    /// one that was asked, and `null` stands for every one.
    #[serde(default)]
    pub peer: Option<Peer>,
    /// The HTTP method, in capitals; every one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// What the raw path (percent-encoding as sent, no query) begins with.
    #[serde(default)]
    pub path_prefix: String,
    /// Matching requests that are let through first.
    #[serde(default)]
    pub skip: u32,
    /// Matching requests that are hit after those; [`Fault::ENDLESS`], which JSON writes as null, for all of them.
    #[serde(default = "once", serialize_with = "write_count", deserialize_with = "read_count")]
    pub count: u32,
    /// What happens to them.
    pub effect: Effect,
}

impl Fault {
    /// The count of a rule that is never used up.
    pub const ENDLESS: u32 = u32::MAX;

    /// For the next request of this peer and method whose path begins so.
    pub fn once(peer: Peer, method: &str, path_prefix: &str, effect: Effect) -> Self {
        Self {
            peer: Some(peer),
            method: Some(method.to_owned()),
            path_prefix: path_prefix.to_owned(),
            skip: 0,
            count: 1,
            effect,
        }
    }

    /// Reads a rule from JSON. Without a `peer` it is for all of them.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_json(rule: &serde_json::Value) -> Result<Self, String> {
        let fault = Self::deserialize(rule).map_err(|error| match error.to_string() {
            // Nothing is known of an effect whose field has no meaning here.
            text if text.contains("untagged enum Effect") => format!("effect must be one of {}", Effect::EXAMPLES),
            text => text,
        })?;
        fault.effect.check()?;
        Ok(fault)
    }

    fn fits(&self, peer: Peer, method: &str, path: &str) -> bool {
        let peer_fits = match self.peer {
            Some(wanted) => wanted == peer,
            None => peer != Peer::Push,
        };
        peer_fits && self.method.as_deref().is_none_or(|wanted| wanted == method) && path.starts_with(&self.path_prefix)
    }
}

fn once() -> u32 {
    1
}

// serde passes what it serialises by reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn write_count<S: Serializer>(count: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    (*count != Fault::ENDLESS).then_some(*count).serialize(serializer)
}

fn read_count<'a, D: Deserializer<'a>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(Fault::ENDLESS))
}

/// A rule and how many requests it has looked at, which is what its chances are drawn by.
#[derive(Debug)]
struct Rule {
    fault: Fault,
    looked_at: u64,
}

/// The rules that are waiting for their requests, oldest first, and what they have done.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<Rule>>,
    hits: Mutex<BTreeMap<(Peer, &'static str), u64>>,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        lock(&self.rules).push(Rule { fault, looked_at: 0 });
    }

    pub(super) fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// Forgets the oldest rule that is exactly this one; whether there was one.
    pub(super) fn remove(&self, fault: &Fault) -> bool {
        let mut rules = lock(&self.rules);
        let found = rules.iter().position(|rule| rule.fault == *fault);
        found.is_some_and(|index| {
            rules.remove(index);
            true
        })
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        lock(&self.rules).iter().map(|rule| rule.fault.clone()).collect()
    }

    /// How many requests to each peer were hit, by the effect's name in JSON.
    pub(super) fn hits(&self) -> BTreeMap<(Peer, &'static str), u64> {
        lock(&self.hits).clone()
    }

    /// The effect of the first rule that fits, which this uses up by one. A rule that leaves it to chance, and whose
    /// chance says no, has not been used, and the rules after it are asked.
    pub(super) fn take(&self, peer: Peer, method: &str, path: &str) -> Option<Effect> {
        let effect = self.next(peer, method, path)?;
        *lock(&self.hits).entry((peer, effect.name())).or_default() += 1;
        Some(effect)
    }

    fn next(&self, peer: Peer, method: &str, path: &str) -> Option<Effect> {
        let mut rules = lock(&self.rules);
        for index in 0..rules.len() {
            let rule = &mut rules[index];
            if !rule.fault.fits(peer, method, path) {
                continue;
            }
            if rule.fault.skip > 0 {
                rule.fault.skip -= 1;
                return None;
            }
            rule.looked_at += 1;
            let Some(effect) = rule.fault.effect.drawn(rule.looked_at) else {
                continue;
            };
            let effect = (rule.fault.count > 0).then(|| effect.clone());
            if rule.fault.count != Fault::ENDLESS {
                rule.fault.count = rule.fault.count.saturating_sub(1);
            }
            if rule.fault.count == 0 {
                rules.remove(index);
            }
            return effect;
        }
        None
    }

    /// `/_faults` over HTTP.
    pub(super) fn handle(&self, peer: Peer, request: &Request) -> Response {
        // A page of somebody else, open in a browser on this machine, could send one here; browsers name its origin.
        if request.header("origin").is_some() {
            return text(StatusCode::FORBIDDEN, "not from a web page");
        }
        match request.method.as_str() {
            "GET" => super::server::json(StatusCode::OK, &self.list()),
            "DELETE" => {
                self.clear();
                text(StatusCode::OK, "")
            }
            "POST" => match read(peer, &request.body) {
                Ok(fault) => {
                    self.add(fault);
                    text(StatusCode::OK, "")
                }
                Err(problem) => text(StatusCode::BAD_REQUEST, &format!("not a fault: {problem}")),
            },
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "use GET, POST or DELETE"),
        }
    }
}

/// A rule as it was posted to `peer`.
fn read(peer: Peer, body: &[u8]) -> Result<Fault, String> {
    let rule: serde_json::Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let names_peer = rule.get("peer").is_some();
    let mut fault = Fault::from_json(&rule)?;
    if !names_peer {
        fault.peer = Some(peer);
    }
    Ok(fault)
}
