//! A small Google Cloud on loopback: each API a real HTTP listener that demands what Google demands.
//!
//! It imports nothing of ours, so that a mistake in our clients or our signer cannot be mirrored here: signatures are
//! verified from the received bytes, tokens are made and checked by hand. Everything is in memory, or kept in a directory (`data`).
//!
//! ```text
//! server (listeners, raw paths) -> faults -> storage | pubsub | metadata | iam | sts | jwks | kms | front_door
//!                                            storage -> pubsub (notifications) -> push -> the worker
//!                                            all of them -> identity (accounts, keys, tokens), clock
//! ```
//!
//! The accounts of a deployment are held to the bindings of `deploy/policy.json` once [`LocalCloud::enforce`] is called; every
//! other known caller is an owner, who may do everything but act as a service account. What Google has and this has not:
//! policies of other resources than those of the deployment and Pub/Sub's, exactly-once delivery, object holds and ACLs.

mod accounts;
mod bindings;
mod bodies;
mod clock;
mod control;
mod data;
mod faults;
mod federation;
mod front_door;
mod iam;
mod identity;
mod jwks;
mod kms;
mod metadata;
mod oauth;
mod observe;
mod policy;
mod pubsub;
mod resources;
mod roles;
mod server;
mod settings;
mod start;
mod storage;
mod sts;

use std::{collections::BTreeMap, sync::Arc};

use axum::{http::StatusCode, response::Response};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use tokio::sync::watch;

use self::{
    bodies::Bodies, faults::Faults, front_door::FrontDoor, identity::Identity, kms::Kms, observe::Watchers,
    policy::Policies, pubsub::Pubsub, server::Request, storage::Storage,
};
pub use self::{
    clock::Clock,
    data::{DataDirectory, DataError, Say},
    faults::{Effect, Fault},
    observe::{Call, Observation, Seen},
    pubsub::{Acknowledgement, number_of},
    roles::AccountRole,
    server::Peer,
    settings::{Settings, Subscription, Urls},
};

/// Why a call was refused: the words of Google's answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} ({status}, HTTP {code})")]
pub struct Refusal {
    /// The HTTP status.
    pub code: StatusCode,
    /// `google.rpc.Code` by name, or the JSON API's reason.
    pub status: &'static str,
    /// A sentence.
    pub message: String,
}

impl Refusal {
    fn new(code: StatusCode, status: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            status,
            message: message.into(),
        }
    }
}

/// What all peers share.
struct World {
    settings: Settings,
    clock: Clock,
    urls: Urls,
    identity: Identity,
    policies: Policies,
    storage: Storage,
    pubsub: Pubsub,
    kms: Kms,
    front_door: FrontDoor,
    faults: Faults,
    watchers: Watchers,
    http: reqwest::Client,
    bodies: Bodies,
    /// Where peers listened before.
    ports: data::Ports,
    stopped: watch::Receiver<bool>,
}

impl World {
    /// Who calls, by a valid access token; nobody in particular where none is demanded; or Google's 401.
    fn caller_or_refusal(&self, request: &Request) -> Result<Option<String>, Box<Response>> {
        let refusal = |message| Box::new(server::rpc_error(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message));
        match request.bearer() {
            None if !self.settings.demand_credentials => Ok(None),
            None => Err(refusal(
                "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie \
                 or other valid authentication credential. See \
                 https://developers.google.com/identity/sign-in/web/devconsole-project.",
            )),
            Some(token) => self.identity.caller(token).map(Some).ok_or_else(|| {
                refusal(
                    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or \
                     other valid authentication credential. See \
                     https://developers.google.com/identity/sign-in/web/devconsole-project.",
                )
            }),
        }
    }
}

/// A running local cloud. Dropping it closes its listeners and ends its pushes.
pub struct LocalCloud {
    world: Arc<World>,
    stop: watch::Sender<bool>,
}

impl std::fmt::Debug for LocalCloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCloud")
            .field("urls", &self.world.urls)
            .finish_non_exhaustive()
    }
}

impl Drop for LocalCloud {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl LocalCloud {
    /// Where the peers listen.
    pub fn urls(&self) -> &Urls {
        &self.world.urls
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.world.settings
    }

    /// The clock that all peers read.
    pub fn clock(&self) -> &Clock {
        &self.world.clock
    }

    /// Puts a private Cloud Run service behind [`Urls::front_door`]: tokens must be for one of the audiences and of
    /// one of the invokers.
    pub fn open_front_door(&self, service_url: &str, audiences: &[&str], invokers: &[&str]) {
        self.world.front_door.open(service_url, audiences, invokers);
    }

    /// Tells `watcher` of each push from now on, and of each call to an API that belongs to one; pushes have a trace then.
    /// It is called in the midst of things: let it be quick, and not call back. There can be one; whether this is it.
    pub fn watch(&self, watcher: impl Fn(Observation) + Send + Sync + 'static) -> bool {
        self.world.watchers.set(watcher)
    }

    /// Scripts a failure; rules are tried in the order they came.
    pub fn add_fault(&self, fault: Fault) {
        self.world.faults.add(fault);
    }

    /// How many requests scripted failures have hit: by peer, and by the name that the effect has in JSON.
    pub fn fault_hits(&self) -> BTreeMap<(Peer, &'static str), u64> {
        self.world.faults.hits()
    }

    /// Forgets all scripted failures.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }
}

/// Base64 as Google's JSON parser takes it: either alphabet, padded or not.
fn base64_of_google(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    LENIENT.decode(text.replace('-', "+").replace('_', "/")).ok()
}

fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
