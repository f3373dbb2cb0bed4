//! What `demo` and `local` play with: a local cloud that is set up as `deploy/setup.sh` sets up a project, and a worker
//! beside it.

mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::{EngineConfig, Environment, Problem, Problems};
use crate::local_cloud::{AccountRole, DataDirectory, LocalCloud, Settings, Subscription};
use crate::telemetry;
pub(super) use worker::{Order, Variables, Worker};

pub(super) const INPUT_BUCKET: &str = "documents";
pub(super) const OUTPUT_BUCKET: &str = "pdfs";
pub(super) const CONFIG_BUCKET: &str = "config";
pub(super) const CONFIG_OBJECT: &str = "gs://config/worker.enc";
pub(super) const KEY: &str = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config";
/// What comes into [`INPUT_BUCKET`] below here is nothing to the worker before a job names it: its notification is left out.
pub(super) const UNANNOUNCED: &str = "with-options/";
pub(super) const EVENTS: &str = "document-events";
pub(super) const RESULTS: &str = "results";
pub(super) const DEAD_LETTERS: &str = "dead-letters";
/// The push subscription.
pub(super) const PUSH: &str = "worker";
/// Whoever runs the command: the project's owner.
pub(super) const USER: &str = "you@local-project.iam.gserviceaccount.com";
/// Google's own least, so that a message that cannot be served is dead while somebody still watches; a deployment has 20.
const DELIVERY_ATTEMPTS: u32 = 5;
/// What the resources of deploy/policy.json are called here.
const RESOURCES: [(&str, &str); 8] = [
    ("bucket/input", INPUT_BUCKET),
    ("bucket/output", OUTPUT_BUCKET),
    ("bucket/config", CONFIG_BUCKET),
    ("key", KEY),
    ("topic/events", EVENTS),
    ("topic/results", RESULTS),
    ("topic/dead-letter", DEAD_LETTERS),
    ("subscription/push", PUSH),
];

/// How the worker is treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Its `RUST_LOG`, where the environment says nothing.
    pub(super) log: &'static str,
    /// Whether one that has ended is replaced, as Cloud Run does.
    pub(super) revive: bool,
}

/// The local cloud and the worker.
pub(super) struct World {
    pub(super) cloud: Arc<LocalCloud>,
    pub(super) worker: Worker,
    pub(super) http: reqwest::Client,
    /// The metadata server that speaks for [`USER`].
    pub(super) metadata: String,
}

impl World {
    /// Starts both, and waits until the worker is ready. `pubsub_emulator` is `HOST:PORT` of Google's, to use that. What is in
    /// `data` already stays as it is.
    pub(super) async fn start(
        style: Style,
        pubsub_emulator: Option<String>,
        data: Option<DataDirectory>,
    ) -> Result<Self, String> {
        let settings = Settings {
            pubsub_emulator,
            push_window: slots(),
            ..Settings::default()
        };
        let cloud = LocalCloud::start_with(settings, data)
            .await
            .map_err(|error| format!("the local cloud does not start: {error}"))?;
        eprintln!(
            "started    a small Google Cloud: storage at {}, Pub/Sub at {}",
            cloud.urls().storage,
            cloud.urls().pubsub
        );
        // A progress time-out would be wrong for what waits; the worker's death is noticed otherwise.
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        let attempts = delivery_attempts().map_err(|problem| format!("{} {}", problem.variable, problem.message))?;
        let metadata = cloud
            .open_metadata_server(USER)
            .await
            .map_err(|error| format!("no second metadata server: {error}"))?;
        set_up(&cloud).map_err(|error| error.to_string())?;
        cloud.settled().await.map_err(|error| error.to_string())?;
        cloud
            .enforce(&RESOURCES)
            .map_err(|error| format!("deploy/policy.json cannot be enforced: {error}"))?;
        let name = CONFIG_OBJECT.rsplit('/').next().unwrap_or_default();
        if !cloud.has_object(CONFIG_BUCKET, name) {
            seal_nothing(&cloud, &http, name).await?;
        }

        let cloud = Arc::new(cloud);
        let worker = Worker::start(&cloud, environment(&cloud, attempts), style, http.clone())?;
        let world = Self {
            cloud,
            worker,
            http,
            metadata,
        };
        world.worker.settled().await.ready()?;
        eprintln!("started    the worker at {}, its engine warm", world.worker.url());
        connect(&world.cloud, world.worker.url(), attempts).map_err(|error| error.to_string())?;
        world.cloud.resume();
        world.cloud.settled().await.map_err(|error| error.to_string())?;
        Ok(world)
    }

    /// A subscription of our own to a topic, from now on; its full name.
    pub(super) fn watch(&self, topic: &str) -> Result<String, String> {
        let wanted = Subscription {
            name: &format!("platen-watches-{topic}"),
            topic,
            ack_deadline_seconds: Some(60),
            temporary: true,
            ..Subscription::default()
        };
        self.cloud
            .create_subscription(&wanted)
            .map_err(|error| error.to_string())
    }
}

/// Buckets, topics, subscriptions that are pulled, keys, and what the project's owner may do. What a data directory has is not
/// made again.
fn set_up(cloud: &LocalCloud) -> Result<(), crate::local_cloud::Refusal> {
    for (bucket, versioning) in [(INPUT_BUCKET, false), (OUTPUT_BUCKET, false), (CONFIG_BUCKET, true)] {
        if !cloud.has_bucket(bucket) {
            cloud.create_bucket(bucket, versioning)?;
        }
    }
    for topic in [EVENTS, RESULTS, DEAD_LETTERS] {
        if !cloud.has_topic(topic) {
            cloud.create_topic(topic)?;
        }
    }
    for topic in [RESULTS, DEAD_LETTERS] {
        if cloud.has_subscription(topic) {
            continue;
        }
        cloud.create_subscription(&Subscription {
            name: topic,
            topic,
            ack_deadline_seconds: Some(60),
            ..Subscription::default()
        })?;
    }
    if !cloud.has_kms_key(KEY) {
        cloud.rotate_kms_key(KEY)?;
    }
    cloud.create_service_account(USER);
    let settings = cloud.settings();
    for account in [
        USER,
        &settings.worker_service_account,
        &settings.push_service_account,
        &settings.signer_service_account,
    ] {
        cloud.grant(USER, account, AccountRole::TokenCreator);
    }
    Ok(())
}

/// Lets events flow to the worker, which is there to take them.
fn connect(cloud: &LocalCloud, url: &str, attempts: u32) -> Result<(), crate::local_cloud::Refusal> {
    let push = Subscription {
        name: PUSH,
        topic: EVENTS,
        push_endpoint: Some(url),
        audience: Some(url),
        service_account: Some(&cloud.settings().push_service_account),
        ack_deadline_seconds: Some(600),
        retry_seconds: Some((1, 60)),
        dead_letter: Some((DEAD_LETTERS, attempts)),
        ..Subscription::default()
    };
    if cloud.has_subscription(PUSH) {
        // The worker has another port than the one that was here before, and perhaps other attempts.
        cloud.redirect_subscription(&push)?;
    } else {
        cloud.create_subscription(&push)?;
    }
    if !cloud.has_notification(INPUT_BUCKET, EVENTS) {
        cloud.create_notification(INPUT_BUCKET, EVENTS)?;
    }
    Ok(())
}

fn delivery_attempts() -> Result<u32, Problem> {
    match std::env::var("MAX_DELIVERY_ATTEMPTS") {
        Ok(text) if !text.is_empty() => text
            .parse()
            .ok()
            .filter(|attempts| (5..=100).contains(attempts))
            .ok_or_else(|| Problem {
                variable: "MAX_DELIVERY_ATTEMPTS",
                message: format!("is '{text}': wanted is a number from 5 to 100"),
            }),
        _ => Ok(DELIVERY_ATTEMPTS),
    }
}

/// How many pushes the worker is sent at once. On Cloud Run that is its `--concurrency`, which the deployment sets to the number of
/// slots: what comes above it waits in front of the worker, and is not refused by it. The environment was read before.
fn slots() -> usize {
    std::env::var("CONVERT_CONCURRENCY")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Reads what the environment says of the worker: it would find the same mistakes, and end.
pub(super) fn configuration() -> Result<EngineConfig, Problems> {
    let mut problems = telemetry::problems(&Environment);
    problems.extend(delivery_attempts().err());
    match EngineConfig::load(&Environment) {
        Ok(config) if problems.is_empty() => Ok(config),
        config => {
            problems.extend(config.err().into_iter().flat_map(|Problems(problems)| problems));
            Err(Problems(problems))
        }
    }
}

/// Seals a configuration without passwords, as the worker of a deployment finds one.
async fn seal_nothing(cloud: &LocalCloud, http: &reqwest::Client, name: &str) -> Result<(), String> {
    let failed = |error: String| format!("the configuration object cannot be sealed: {error}");
    let answer = http
        .post(format!("{}/v1/{KEY}:encrypt", cloud.urls().kms))
        .bearer_auth(cloud.access_token(USER))
        .json(&json!({
            "plaintext": STANDARD.encode(r#"{"passwords": {}}"#),
            "additionalAuthenticatedData": STANDARD.encode(CONFIG_OBJECT),
        }))
        .send()
        .await
        .map_err(|error| failed(error.without_url().to_string()))?;
    let answer: Value = json_of(answer).await.map_err(failed)?;
    let sealed = answer["ciphertext"]
        .as_str()
        .and_then(|text| STANDARD.decode(text).ok())
        .ok_or_else(|| failed("there is no ciphertext".to_owned()))?;
    cloud
        .put(CONFIG_BUCKET, name, "application/octet-stream", Bytes::from(sealed))
        .map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// What the worker is told, as `deploy/setup.sh` would, and where Google is.
fn environment(cloud: &LocalCloud, attempts: u32) -> Variables {
    let (settings, urls) = (cloud.settings(), cloud.urls());
    let callers = format!("{},{USER}", settings.push_service_account);
    BTreeMap::from(
        [
            ("LOG_FORMAT", "text"),
            ("INPUT_BUCKETS", INPUT_BUCKET),
            // Every file gets a result, also one that the engine does not read.
            ("INPUT_INCLUDE", "*"),
            ("INPUT_EXCLUDE", &format!("{UNANNOUNCED}*")),
            ("OUTPUT_BUCKET", OUTPUT_BUCKET),
            ("RESULT_TOPIC", RESULTS),
            ("PUSH_AUTH", "oidc"),
            ("PUSH_SERVICE_ACCOUNT", &callers),
            ("SIGNER_SERVICE_ACCOUNT", &settings.signer_service_account),
            ("MAX_DELIVERY_ATTEMPTS", &attempts.to_string()),
            ("CONFIG_OBJECT", CONFIG_OBJECT),
            ("CONFIG_KMS_KEY", KEY),
            ("STORAGE_EMULATOR_HOST", &urls.storage),
            ("PUBSUB_EMULATOR_HOST", host(&urls.pubsub)),
            ("GCE_METADATA_HOST", host(&urls.metadata)),
            ("IAM_CREDENTIALS_ENDPOINT", &urls.iam),
            ("KMS_ENDPOINT", &urls.kms),
            ("STS_ENDPOINT", &urls.sts),
            ("OIDC_JWKS_URL", &urls.jwks),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
}

/// A URL without its scheme, as some variables want it.
pub(super) fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// The data of a message, from its base64: what the worker publishes is JSON.
pub(super) fn decode(data: &Value) -> Option<Value> {
    serde_json::from_slice(&bytes(data)?).ok()
}

/// The data of a message as it was published.
pub(super) fn bytes(data: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(data.as_str()?).ok()
}

/// The body of an answer, or what it says of its failure.
pub(super) async fn json_of(answer: reqwest::Response) -> Result<Value, String> {
    let status = answer.status();
    let body: Value = answer.json().await.map_err(|error| error.without_url().to_string())?;
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!(
            "{status}: {}",
            body["error"]["message"].as_str().unwrap_or("no reason is given")
        ))
    }
}
