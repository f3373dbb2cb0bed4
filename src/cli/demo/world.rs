//! What the demo plays with: a local cloud that is set up as a deployment would be, and a worker beside it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::local_cloud::{LocalCloud, Settings, Subscription};

pub(super) const INPUT_BUCKET: &str = "documents";
const OUTPUT_BUCKET: &str = "pdfs";
const EVENTS: &str = "document-events";
const RESULTS: &str = "results";
const RESULT_SUBSCRIPTION: &str = "results-demo";
/// Whoever runs the demo.
const USER: &str = "you@local-project.iam.gserviceaccount.com";
/// How long a warm engine may take; it takes about a second.
const WARM: Duration = Duration::from_secs(120);
/// Variables that reach the worker beside its configuration: limits and taste, never credentials.
const PASSED_ON: [&str; 14] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "SANDBOX",
    "DOCUMENT_LOCALE",
    "FONTS",
    "MAX_INPUT_SIZE",
    "MAX_OUTPUT_SIZE",
    "MAX_PAGES",
    "CONVERT_TIMEOUT",
    "CONVERT_MEMORY",
    "CONVERT_CONCURRENCY",
];

/// The local cloud and the worker.
pub(super) struct World {
    cloud: LocalCloud,
    worker: Child,
    http: reqwest::Client,
}

impl World {
    pub(super) async fn start() -> Result<Self, String> {
        let cloud = LocalCloud::start(Settings::default())
            .await
            .map_err(|error| format!("the local cloud does not start: {error}"))?;
        eprintln!(
            "started    a small Google Cloud: storage at {}, Pub/Sub at {}",
            cloud.urls().storage,
            cloud.urls().pubsub
        );
        // A progress time-out would be wrong for a pull that waits; the worker's death is noticed otherwise.
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(|error| format!("no HTTP client: {error}"))?;
        for bucket in [INPUT_BUCKET, OUTPUT_BUCKET] {
            cloud.create_bucket(bucket, false).map_err(|error| error.to_string())?;
        }
        for topic in [EVENTS, RESULTS] {
            cloud.create_topic(topic).map_err(|error| error.to_string())?;
        }
        let results = Subscription {
            name: RESULT_SUBSCRIPTION,
            topic: RESULTS,
            ..Subscription::default()
        };
        cloud.create_subscription(&results).map_err(|error| error.to_string())?;
        cloud.create_service_account(USER);
        // The worker may do here what it may do in a deployment.
        let resources = [
            ("bucket/input", INPUT_BUCKET),
            ("bucket/output", OUTPUT_BUCKET),
            ("topic/events", EVENTS),
            ("topic/results", RESULTS),
            ("subscription/push", "worker"),
        ];
        cloud.enforce(&resources).map_err(|error| error.to_string())?;

        let url = free_url()?;
        let worker = start_worker(&cloud, &url)?;
        let mut world = Self { cloud, worker, http };
        world.wait_until_ready(&url).await?;
        eprintln!("started    the worker at {url}, its engine warm");

        let push = &world.cloud.settings().push_service_account;
        let subscription = Subscription {
            name: "worker",
            topic: EVENTS,
            push_endpoint: Some(&url),
            audience: Some(&url),
            service_account: Some(push),
            ack_deadline_seconds: Some(600),
            retry_seconds: Some((1, 60)),
            ..Subscription::default()
        };
        world
            .cloud
            .create_subscription(&subscription)
            .map_err(|error| error.to_string())?;
        world
            .cloud
            .create_notification(INPUT_BUCKET, EVENTS)
            .map_err(|error| error.to_string())?;
        Ok(world)
    }

    async fn wait_until_ready(&mut self, url: &str) -> Result<(), String> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.worker.try_wait() {
                return Err(format!(
                    "the worker ended before it was ready ({status}); what it said is above"
                ));
            }
            let answer = self.http.get(format!("{url}/health/ready")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if started.elapsed() > WARM {
                return Err(format!(
                    "the worker is not ready after {} s; RUST_LOG=info shows why",
                    WARM.as_secs()
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Uploads a file and says which generation it became.
    pub(super) async fn upload(&self, file: &Path, name: &str) -> Result<String, String> {
        let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
        let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let metadata = opened.metadata().await.map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(format!("{} is not a file", file.display()));
        }
        let size = metadata.len();
        let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let url = format!(
            "{}/upload/storage/v1/b/{INPUT_BUCKET}/o?uploadType=media&name={encoded}",
            self.cloud.urls().storage
        );
        let answer = self
            .http
            .post(url)
            .bearer_auth(self.cloud.access_token(USER))
            .header("content-length", size)
            .header("content-type", "application/octet-stream")
            .body(reqwest::Body::from(opened))
            .send()
            .await
            .map_err(|error| format!("{} cannot be uploaded: {}", file.display(), error.without_url()))?;
        let object = json_of(answer)
            .await
            .map_err(|error| format!("{} cannot be uploaded: {error}", file.display()))?;
        object["generation"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("the upload of {} has no generation", file.display()))
    }

    /// Waits for result messages and acknowledges them.
    pub(super) async fn results(&mut self, patience: Duration) -> Result<Vec<Value>, String> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.worker.try_wait() {
                return Err(format!(
                    "the worker ended ({status}) before every file had its result; what it said is above"
                ));
            }
            if started.elapsed() > patience {
                return Err(format!(
                    "no result came for {} s; RUST_LOG=info shows what the worker does",
                    patience.as_secs()
                ));
            }
            let pulled = self.pubsub("pull", &json!({"maxMessages": 10})).await?;
            let received = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
            if received.is_empty() {
                // The pull itself waits for a message for a while; this only keeps a peer that does not from spinning.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let acknowledge: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
            self.pubsub("acknowledge", &json!({"ackIds": acknowledge})).await?;
            return received
                .iter()
                .map(|message| decode(&message["message"]["data"]))
                .collect();
        }
    }

    async fn pubsub(&self, verb: &str, body: &Value) -> Result<Value, String> {
        let project = &self.cloud.settings().project;
        let url = format!(
            "{}/v1/projects/{project}/subscriptions/{RESULT_SUBSCRIPTION}:{verb}",
            self.cloud.urls().pubsub
        );
        let answer = self
            .http
            .post(url)
            .bearer_auth(self.cloud.access_token(USER))
            .json(body)
            .send()
            .await
            .map_err(|error| format!("the result subscription does not answer: {}", error.without_url()))?;
        json_of(answer)
            .await
            .map_err(|error| format!("the result subscription: {error}"))
    }

    /// Downloads what a signed URL gives to whoever holds it, and says how many bytes came.
    pub(super) async fn download(&self, url: &str, output: &Path) -> Result<u64, String> {
        let mut answer = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| format!("the signed URL does not answer: {}", error.without_url()))?;
        if !answer.status().is_success() {
            return Err(format!("the signed URL is answered with {}", answer.status()));
        }
        let unwritable = |error: std::io::Error| format!("{} cannot be written: {error}", output.display());
        let temporary = super::super::output::temporary_beside(output).map_err(unwritable)?;
        let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(unwritable)?);
        let mut size = 0;
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| format!("the signed URL breaks off: {}", error.without_url()))?
        {
            file.write_all(&chunk).await.map_err(unwritable)?;
            size += chunk.len() as u64;
        }
        file.flush().await.map_err(unwritable)?;
        super::super::output::publish(temporary, output).map_err(unwritable)?;
        Ok(size)
    }

    /// Ends the worker: as Cloud Run would when its work is done, else at once, which a second signal means.
    pub(super) async fn stop(mut self, at_once: bool) {
        let Some(pid) = self.worker.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        let pid = nix::unistd::Pid::from_raw(pid);
        let patience = Duration::from_secs(if at_once { 1 } else { 10 });
        for _ in 0..2 {
            if nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).is_err() {
                return;
            }
            if tokio::time::timeout(patience, self.worker.wait()).await.is_ok() {
                return;
            }
        }
        // What still has not ended is told once more when this process ends.
        let _ended = tokio::time::timeout(Duration::from_secs(10), self.worker.wait()).await;
    }
}

fn free_url() -> Result<String, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no port is free: {error}"))?;
    let address = listener
        .local_addr()
        .map_err(|error| format!("no port is free: {error}"))?;
    Ok(format!("http://{address}"))
}

fn start_worker(cloud: &LocalCloud, url: &str) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
    let (settings, urls) = (cloud.settings(), cloud.urls());
    let port = url.rsplit(':').next().unwrap_or_default();
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let passed_on = PASSED_ON
        .iter()
        .filter_map(|name| Some((*name, std::env::var(name).ok()?)));
    let mut command = Command::new(program);
    command
        .arg("serve")
        .env_clear()
        .env("RUST_LOG", "warn")
        .envs(passed_on)
        .envs([
            ("PORT", port.to_owned()),
            ("LOG_FORMAT", "text".to_owned()),
            ("INPUT_BUCKETS", INPUT_BUCKET.to_owned()),
            // Every file that was named gets a result, also one that the engine does not read.
            ("INPUT_INCLUDE", "*".to_owned()),
            ("OUTPUT_BUCKET", OUTPUT_BUCKET.to_owned()),
            ("RESULT_TOPIC", RESULTS.to_owned()),
            ("PUSH_AUTH", "oidc".to_owned()),
            ("PUSH_AUDIENCE", url.to_owned()),
            ("PUSH_SERVICE_ACCOUNT", settings.push_service_account.clone()),
            ("SIGNER_SERVICE_ACCOUNT", settings.signer_service_account.clone()),
            ("STORAGE_EMULATOR_HOST", urls.storage.clone()),
            ("PUBSUB_EMULATOR_HOST", host(&urls.pubsub)),
            ("GCE_METADATA_HOST", host(&urls.metadata)),
            ("IAM_CREDENTIALS_ENDPOINT", urls.iam.clone()),
            ("OIDC_JWKS_URL", urls.jwks.clone()),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // Not killed on drop: told to end, it removes what it made.
    crate::sandbox::end_with_parent(command.as_std_mut());
    command
        .spawn()
        .map_err(|error| format!("the worker does not start: {error}"))
}

async fn json_of(answer: reqwest::Response) -> Result<Value, String> {
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

fn decode(data: &Value) -> Result<Value, String> {
    let bytes = data
        .as_str()
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| "a message on the result topic is no result".to_owned())
}
