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

mod bindings;
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
mod roles;
mod server;
mod settings;
mod storage;
mod sts;

use std::{collections::BTreeMap, io, sync::Arc};

use axum::{http::StatusCode, response::Response};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde_json::{Value, json};
use tokio::sync::watch;

pub use self::{
    clock::Clock,
    data::{DataDirectory, DataError},
    faults::{Effect, Fault},
    observe::{Call, Observation, Seen},
    pubsub::{Acknowledgement, number_of},
    roles::AccountRole,
    server::Peer,
    settings::{Settings, Subscription, Urls},
};
use self::{
    faults::Faults,
    front_door::FrontDoor,
    identity::Identity,
    kms::Kms,
    observe::Watchers,
    policy::Policies,
    pubsub::{Emulator, Pubsub},
    server::{Request, Site},
    storage::Storage,
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
    /// Makes the keys and opens one listener a peer on free ports of 127.0.0.1. Runs on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound, or a key cannot be made.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::start_with(settings, None).await
    }

    /// The same with what a directory has, where every change is kept from now on: buckets, objects, topics, subscriptions and
    /// their messages, accounts and their keys, and KMS keys. The peers get the ports they had, as far as these are free. What
    /// waits for a push waits until [`LocalCloud::resume`].
    ///
    /// # Errors
    ///
    /// The same, and when the directory cannot be read or written.
    pub async fn start_with(settings: Settings, data: Option<DataDirectory>) -> io::Result<Self> {
        let (clock, project) = (settings.clock.clone(), settings.project.clone());
        let of_identity = data.clone();
        let identity = tokio::task::spawn_blocking(move || Identity::open(clock, project, of_identity.as_ref()))
            .await?
            .map_err(|error| data::unreadable(&error))?;
        let (worker, signer) = (&settings.worker_service_account, &settings.signer_service_account);
        for account in [worker, signer, &settings.push_service_account] {
            identity.add_account(account);
        }
        for account in [worker, signer] {
            identity.grants.grant(worker, account, AccountRole::TokenCreator);
        }
        let mut listeners = Vec::new();
        let mut urls = Vec::new();
        let peers = [
            Peer::Storage,
            Peer::Pubsub,
            Peer::Metadata,
            Peer::Iam,
            Peer::Sts,
            Peer::Jwks,
            Peer::Kms,
            Peer::FrontDoor,
        ];
        let ports = data::Ports::of(data.as_ref())?;
        for peer in peers {
            let listener = ports.bind(&format!("{peer:?}")).await?;
            urls.push(format!("http://{}", listener.local_addr()?));
            listeners.push((peer, listener));
        }
        let url = |peer| {
            peers
                .iter()
                .zip(&urls)
                .find(|(other, _)| **other == peer)
                .map_or_else(String::new, |(_, url)| url.clone())
        };
        let urls = Urls {
            storage: url(Peer::Storage),
            pubsub: url(Peer::Pubsub),
            metadata: url(Peer::Metadata),
            iam: url(Peer::Iam),
            sts: url(Peer::Sts),
            jwks: format!("{}{}", url(Peer::Jwks), jwks::PATH),
            kms: url(Peer::Kms),
            front_door: url(Peer::FrontDoor),
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(io::Error::other)?;
        let (stop, stopped) = watch::channel(false);
        let (emulator, relay) = match &settings.pubsub_emulator {
            None => (None, None),
            Some(host) => {
                let (emulator, listener, orders) = Emulator::at(host).await?;
                (Some(emulator), Some((listener, orders)))
            }
        };
        let world = Arc::new(World {
            clock: settings.clock.clone(),
            urls,
            identity,
            policies: Policies::default(),
            storage: Storage::open(data.as_ref()).map_err(|error| data::unreadable(&error))?,
            pubsub: Pubsub::open(data.as_ref(), &settings.clock, emulator).map_err(|error| data::unreadable(&error))?,
            kms: Kms::open(data.as_ref()).map_err(|error| data::unreadable(&error))?,
            ports,
            front_door: FrontDoor::default(),
            faults: Faults::default(),
            watchers: Watchers::default(),
            settings,
            http,
            stopped: stopped.clone(),
        });
        for (peer, listener) in listeners {
            server::serve(Arc::clone(&world), Site::Deployment(peer), listener, stopped.clone());
        }
        if let Some((listener, orders)) = relay {
            server::serve(Arc::clone(&world), Site::PushRelay, listener, stopped.clone());
            tokio::spawn(pubsub::work(Arc::clone(&world), orders));
        }
        Ok(Self { world, stop })
    }

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

    /// Makes a bucket; with `versioning` it keeps noncurrent generations.
    ///
    /// # Errors
    ///
    /// Google's, when the name is taken or illegal.
    pub fn create_bucket(&self, name: &str, versioning: bool) -> Result<(), Refusal> {
        self.world.storage.create_bucket(&self.world, name, versioning)
    }

    /// How many objects were written to a bucket without `ifGenerationMatch`: each could have replaced anything.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn unconditional_writes(&self, bucket: &str) -> Result<u64, Refusal> {
        self.world.storage.unconditional_writes(bucket)
    }

    /// Makes `host` (without a port) an address of `bucket` for signed URLs.
    pub fn bind_host(&self, host: &str, bucket: &str) {
        self.world.storage.bind_host(host, bucket);
    }

    /// Makes a topic; the id alone, without its project.
    ///
    /// # Errors
    ///
    /// Google's, when the name is taken or illegal.
    pub fn create_topic(&self, id: &str) -> Result<String, Refusal> {
        let name = self.topic_name(id);
        self.world.pubsub.create_topic(&name, json!({}))?;
        Ok(name)
    }

    fn topic_name(&self, id: &str) -> String {
        format!("projects/{}/topics/{id}", self.world.settings.project)
    }

    /// Makes a subscription; its full name.
    ///
    /// # Errors
    ///
    /// Google's, when the topic is not there, or a setting is out of range.
    pub fn create_subscription(&self, wanted: &Subscription<'_>) -> Result<String, Refusal> {
        let body = self.subscription_body(wanted);
        let name = self.subscription_name(wanted.name);
        self.world
            .pubsub
            .create_subscription(&self.world, body, !wanted.temporary)?;
        Ok(name)
    }

    fn subscription_name(&self, id: &str) -> String {
        format!("projects/{}/subscriptions/{id}", self.world.settings.project)
    }

    fn subscription_body(&self, wanted: &Subscription<'_>) -> Value {
        let name = self.subscription_name(wanted.name);
        let mut body = json!({
            "name": name,
            "topic": self.topic_name(wanted.topic),
            "ackDeadlineSeconds": wanted.ack_deadline_seconds.unwrap_or(10),
            "enableMessageOrdering": wanted.ordered,
        });
        if let Some(endpoint) = wanted.push_endpoint {
            body["pushConfig"] = json!({"pushEndpoint": endpoint});
            if let Some(account) = wanted.service_account {
                let audience = wanted.audience.unwrap_or_default();
                body["pushConfig"]["oidcToken"] = json!({"serviceAccountEmail": account, "audience": audience});
            }
            if let Some(write_metadata) = wanted.unwrapped {
                body["pushConfig"]["noWrapper"] = json!({"writeMetadata": write_metadata});
            }
        }
        if let Some((least, most)) = wanted.retry_seconds {
            body["retryPolicy"] = json!({"minimumBackoff": format!("{least}s"), "maximumBackoff": format!("{most}s")});
        }
        if let Some((topic, attempts)) = wanted.dead_letter {
            body["deadLetterPolicy"] =
                json!({"deadLetterTopic": self.topic_name(topic), "maxDeliveryAttempts": attempts});
        }
        body
    }

    /// Publishes one message on a topic (its id); the message's id.
    ///
    /// # Errors
    ///
    /// Google's, when the topic is not there, or the message is over a limit.
    pub fn publish(&self, topic: &str, data: &[u8], attributes: &[(&str, &str)]) -> Result<String, Refusal> {
        let attributes: BTreeMap<String, String> = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let draft = pubsub::Draft::new(data.to_vec(), attributes);
        let ids = self
            .world
            .pubsub
            .publish(&self.world, &self.topic_name(topic), vec![draft])?;
        Ok(ids.into_iter().next().unwrap_or_default())
    }

    /// How many messages a subscription (its full name) still has to deliver or to see acknowledged.
    ///
    /// # Errors
    ///
    /// When there is no such subscription.
    pub fn backlog(&self, subscription: &str) -> Result<usize, Refusal> {
        self.world.pubsub.backlog(subscription)
    }

    /// What a subscription (its full name) has seen acknowledged, oldest first, and how much was published by then. The
    /// last 100,000 are kept.
    ///
    /// # Errors
    ///
    /// When there is no such subscription.
    pub fn acknowledgements(&self, subscription: &str) -> Result<Vec<Acknowledgement>, Refusal> {
        self.world.pubsub.acknowledgements(subscription)
    }

    /// Publishes what happens in a bucket on a topic (its id), payload included; the configuration's id.
    ///
    /// # Errors
    ///
    /// Google's, when one of the two is not there.
    pub fn create_notification(&self, bucket: &str, topic: &str) -> Result<String, Refusal> {
        let body = json!({
            "topic": format!("//pubsub.googleapis.com/{}", self.topic_name(topic)),
            "payload_format": "JSON_API_V1",
        });
        let resource = self.world.storage.create_notification(&self.world, bucket, &body)?;
        Ok(resource["id"].as_str().unwrap_or_default().to_owned())
    }

    /// Makes a service account, if it is not there.
    pub fn create_service_account(&self, email: &str) {
        self.world.identity.add_account(email);
    }

    /// Makes a user-managed key: the JSON file that Google hands out, with `token_uri` on this cloud.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn create_key_file(&self, email: &str) -> io::Result<Value> {
        self.world
            .identity
            .key_file(email, &format!("{}/token", self.world.urls.iam))
    }

    /// Registers the public half of a private key in PEM (PKCS #8), as of a key file that was made elsewhere.
    ///
    /// # Errors
    ///
    /// When it is no RSA key in that form.
    pub fn register_key(&self, email: &str, key_id: &str, private_key_pem: &str) -> io::Result<()> {
        self.world
            .identity
            .add_public_key(email, key_id, identity::public_of_private(private_key_pem)?)
    }

    /// Grants `roles/iam.serviceAccountTokenCreator` on an account.
    pub fn allow_token_creator(&self, member: &str, account: &str) {
        self.grant(member, account, AccountRole::TokenCreator);
    }

    /// Takes that role away.
    pub fn deny_token_creator(&self, member: &str, account: &str) {
        self.world
            .identity
            .grants
            .revoke(member, account, AccountRole::TokenCreator);
    }

    /// Grants a role on an account, to the address of a user or account, to `principal://...` or `principalSet://.../*`.
    pub fn grant(&self, member: &str, account: &str, role: AccountRole) {
        self.world.identity.grants.grant(member, account, role);
    }

    /// Holds the deployment's accounts to the bindings of `deploy/policy.json`, as `deploy/setup.sh` would make them: from now on
    /// they may do nothing else. `names` says which resources here are those of the file: `("bucket/input", "documents")`,
    /// `("topic/results", "results")`, `("subscription/push", "push")`, `("key", "projects/...")`.
    ///
    /// # Errors
    ///
    /// When the file is not what it should be.
    pub fn enforce(&self, names: &[(&str, &str)]) -> io::Result<()> {
        let world = &self.world;
        let (worker, signer) = (
            &world.settings.worker_service_account,
            &world.settings.signer_service_account,
        );
        for account in [worker, signer] {
            world.identity.grants.revoke(worker, account, AccountRole::TokenCreator);
        }
        world.policies.enforce(&world.settings, names)?;
        world.pubsub.apply_policies(world);
        Ok(())
    }

    /// Takes one permission away from an account on a resource, all three as `deploy/policy.json` names them; whether it was
    /// there.
    pub fn take_away(&self, account: &str, permission: &str, resource: &str) -> bool {
        self.world.policies.take_away(account, permission, resource)
    }

    /// Gives an account of `deploy/policy.json` one permission more, on a resource of the file or on `bucket/NAME`.
    pub fn give(&self, account: &str, permission: &str, resource: &str) {
        self.world.policies.give(account, permission, resource);
    }

    /// Every right that is enforced: account, permission, resource, as `deploy/policy.json` names them.
    pub fn rights(&self) -> Vec<(String, String, String)> {
        self.world.policies.rights()
    }

    /// Logs a person in: the file that `gcloud auth application-default login` writes, with `token_uri` on this cloud.
    pub fn log_in(&self, email: &str) -> Value {
        self.world
            .identity
            .log_in(email, &format!("{}/token", self.world.urls.iam))
    }

    /// Makes a pool trust an identity provider: `audience` is
    /// `//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`, or a workforce
    /// pool's.
    ///
    /// # Errors
    ///
    /// When the provider's key cannot be made.
    pub fn federate(&self, audience: &str) -> io::Result<()> {
        self.world.identity.providers.add(audience)
    }

    /// A token of that provider, good for an hour.
    pub fn token_of_provider(&self, audience: &str, subject: &str) -> String {
        let now = self.world.clock.now();
        self.world.identity.providers.token(now, audience, subject)
    }

    /// An access token of an account.
    pub fn access_token(&self, email: &str) -> String {
        self.world
            .identity
            .new_access_token(email, self.world.settings.access_token_lifetime)
    }

    /// Whose access token that is, if it is one and good.
    pub fn caller(&self, access_token: &str) -> Option<String> {
        self.world.identity.caller(access_token)
    }

    /// Makes every access token invalid at once.
    pub fn revoke_access_tokens(&self) {
        self.world.identity.revoke_access_tokens();
    }

    /// The claims of an account's ID token for an audience, as Google words them, with the email: a test changes them
    /// as it likes.
    pub fn claims(&self, email: &str, audience: &str) -> Value {
        self.world.identity.claims(email, audience, true)
    }

    /// Signs claims, whatever they say, with the current OIDC key.
    pub fn id_token(&self, claims: &Value) -> String {
        self.world.identity.id_token(claims)
    }

    /// Makes a new OIDC key the current one. The one before stays in the key set, older ones leave it.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn rotate_keys(&self) -> io::Result<()> {
        self.world.identity.rotate_oidc_keys()
    }

    /// Retires the Google-managed key of an account: URLs that it signed stop working.
    pub fn rotate_managed_key(&self, email: &str) {
        self.world.identity.rotate_managed_key(email);
    }

    /// Makes a KMS key (`projects/P/locations/L/keyRings/R/cryptoKeys/K`), or a new primary version of it.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn rotate_kms_key(&self, name: &str) -> Result<(), Refusal> {
        self.world.kms.rotate(name)
    }

    /// Takes from an account the right to `encrypt` or to `decrypt` with a KMS key.
    pub fn deny_kms(&self, member: &str, key: &str, verb: &'static str) {
        self.world.kms.deny(member, key, verb);
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
