//! A deployment in small: a local cloud, the worker's own binary beside it, and what a test does to both.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{Fault, LocalCloud, Settings, Subscription};
use serde_json::{Value, json};

pub(crate) const INPUT: &str = "input";
pub(crate) const OUTPUT: &str = "output";
pub(crate) const AUDIENCE: &str = "https://worker.example";
pub(crate) const USER: &str = "user@local-project.iam.gserviceaccount.com";
/// What the resources of deploy/policy.json are called here.
pub(crate) const RESOURCES: [(&str, &str); 8] = [
    ("bucket/input", INPUT),
    ("bucket/output", OUTPUT),
    ("bucket/config", "config"),
    ("topic/events", "events"),
    ("topic/results", "results"),
    ("topic/dead-letter", "dead-letters"),
    ("subscription/push", "push"),
    (
        "key",
        "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config",
    ),
];

/// How long anything may take before a test gives up: generous, because machines are shared. Nothing asserts it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A fixture of this project.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The worker as a process, with what it has said so far.
pub(crate) struct Worker {
    child: Child,
    pub(crate) url: String,
    log: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
    pub(crate) temporary: Arc<tempfile::TempDir>,
    _port: tokio::net::TcpSocket,
}

impl Worker {
    /// Starts `platen serve`.
    pub(crate) fn spawn(environment: &HashMap<String, String>) -> Self {
        // In the place that the test names, if it names one.
        let temporary = match environment.get("TMPDIR") {
            Some(parent) => tempfile::tempdir_in(parent).unwrap(),
            None => tempfile::tempdir().unwrap(),
        };
        Self::spawn_in(Arc::new(temporary), environment)
    }

    /// The same with a `TMPDIR` that it shares with others, or has from one before it.
    pub(crate) fn spawn_in(temporary: Arc<tempfile::TempDir>, environment: &HashMap<String, String>) -> Self {
        let (port, held) = port();
        let mut child = Command::new(env!("CARGO_BIN_EXE_platen"))
            .arg("serve")
            .env_clear()
            .envs(environment)
            .env("PORT", port.to_string())
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().unwrap(), log.clone()),
            collect(child.stderr.take().unwrap(), log.clone()),
        ];
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
            readers,
            temporary,
            _port: held,
        }
    }

    pub(crate) async fn ready(&mut self) {
        assert!(
            self.becomes_ready().await,
            "the worker ended before it was ready\n{}",
            self.log()
        );
    }

    /// Waits until it is ready; false when it has ended instead.
    pub(crate) async fn becomes_ready(&mut self) -> bool {
        let http = client();
        let started = Instant::now();
        loop {
            if http
                .get(format!("{}/health/ready", self.url))
                .send()
                .await
                .is_ok_and(|answer| answer.status() == 200)
            {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "the worker is not ready\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All that it has written to both streams.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The same once it has ended: to the last byte.
    pub(crate) async fn all_of_the_log(&self) -> String {
        until("both streams end", || {
            self.readers
                .iter()
                .all(std::thread::JoinHandle::is_finished)
                .then_some(())
        })
        .await;
        self.log()
    }

    /// How it ended, if it has.
    #[cfg(feature = "failpoints")]
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end and for the last line of its log, and gives its exit code.
    pub(crate) async fn exit(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = until("the worker ends", || child.try_wait().unwrap()).await;
        self.all_of_the_log().await;
        status.code()
    }

    /// The zygote: the worker's only child, once it is a program of its own. Before that it is a fork that the worker waits for.
    pub(crate) async fn zygote(&self) -> u32 {
        until("the worker has a zygote", || {
            let child = children(self.pid()).first().copied()?;
            let line = std::fs::read_to_string(format!("/proc/{child}/cmdline")).ok()?;
            line.contains("engine-zygote").then_some(child)
        })
        .await
    }

    /// A child that converts, stopped as soon as it is seen, so that it cannot end before the test is done with it.
    pub(crate) async fn stopped_child(&self, zygote: u32) -> u32 {
        until("the zygote has forked a child", || {
            let child = converting(zygote).first().copied()?;
            signal(child, nix::sys::signal::Signal::SIGSTOP).then_some(child)
        })
        .await
    }

    /// Files and directories that jobs left behind.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.temporary.path(), &mut |path| {
            if path
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with("job"))
            {
                found.push(path.to_owned());
            }
        });
        found
    }
}

/// A port that nobody is given until the worker listens there: its engine takes seconds to start, and a connection of
/// another test could have the port meanwhile. A socket that is bound and does not listen stands in no server's way.
pub(crate) fn port() -> (u16, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A local cloud with buckets, topics and subscriptions, and a worker that is told about it.
pub(crate) struct World {
    pub(crate) cloud: LocalCloud,
    pub(crate) worker: Worker,
    pub(crate) http: reqwest::Client,
    pub(crate) push: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With variables of its own for the worker.
    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        let mut world = Self::unready(variables, None).await;
        world.worker.ready().await;
        world
    }

    /// With objects that are in the input bucket before the worker starts; it may not become ready.
    pub(crate) async fn with_objects(objects: &[(&str, &[u8])], variables: &[(&str, &str)]) -> Self {
        let cloud = cloud().await;
        for (name, bytes) in objects {
            upload_to(&cloud, INPUT, name, bytes.to_vec()).await;
        }
        // Fonts of a bucket take the right to list it, which the plain deployment has not.
        if variables.iter().any(|(name, _)| *name == "FONTS") {
            cloud.give("worker", "storage.objects.list", "bucket/input");
        }
        Self::beside(cloud, variables)
    }

    /// With a fault that is there from the beginning; the worker runs, and may not become ready.
    pub(crate) async fn unready(variables: &[(&str, &str)], fault: Option<Fault>) -> Self {
        let cloud = cloud().await;
        if let Some(fault) = fault {
            cloud.add_fault(fault);
        }
        Self::beside(cloud, variables)
    }

    /// Beside a cloud that the test has set up further; the worker may not become ready.
    pub(crate) fn beside(cloud: LocalCloud, variables: &[(&str, &str)]) -> Self {
        let mut environment = environment(&cloud);
        environment.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Self::on(cloud, &environment)
    }

    /// On a cloud that is there, with exactly these variables for the worker; it may not become ready.
    pub(crate) fn on(cloud: LocalCloud, environment: &HashMap<String, String>) -> Self {
        let worker = Worker::spawn(environment);
        // Pushes begin when a worker is there; a notification then takes every upload to it.
        let push = cloud
            .create_subscription(&Subscription {
                name: "push",
                topic: "events",
                push_endpoint: Some(&worker.url),
                audience: Some(AUDIENCE),
                service_account: Some(&cloud.settings().push_service_account),
                ack_deadline_seconds: Some(600),
                ..Subscription::default()
            })
            .unwrap();
        Self {
            cloud,
            worker,
            http: client(),
            push,
        }
    }

    /// Publishes every upload to the input bucket, as Cloud Storage does.
    pub(crate) fn notify(&self) {
        self.cloud.create_notification(INPUT, "events").unwrap();
    }

    pub(crate) async fn upload_fixture(&self, fixture_name: &str, object: &str) -> String {
        self.upload(object, std::fs::read(fixture(fixture_name)).unwrap()).await
    }

    /// Uploads to the input bucket and gives the generation.
    pub(crate) async fn upload(&self, object: &str, bytes: Vec<u8>) -> String {
        self.upload_to(INPUT, object, bytes).await
    }

    pub(crate) async fn upload_to(&self, bucket: &str, object: &str, bytes: Vec<u8>) -> String {
        upload_to(&self.cloud, bucket, object, bytes).await
    }

    pub(crate) async fn delete(&self, bucket: &str, object: &str) {
        let url = format!(
            "{}/storage/v1/b/{bucket}/o/{}",
            self.cloud.urls().storage,
            encode(object)
        );
        let request = self.http.delete(url).bearer_auth(self.cloud.access_token(USER));
        assert!(request.send().await.unwrap().status().is_success());
    }

    /// An object's resource, or none.
    pub(crate) async fn object(&self, bucket: &str, object: &str) -> Option<Value> {
        let url = format!(
            "{}/storage/v1/b/{bucket}/o/{}",
            self.cloud.urls().storage,
            encode(object)
        );
        let answer = self
            .http
            .get(url)
            .bearer_auth(self.cloud.access_token(USER))
            .send()
            .await
            .unwrap();
        if answer.status() == 404 {
            return None;
        }
        Some(answer.json().await.unwrap())
    }

    /// How many objects the output bucket has.
    pub(crate) async fn outputs(&self) -> usize {
        let url = format!("{}/storage/v1/b/{OUTPUT}/o", self.cloud.urls().storage);
        let answer = self
            .http
            .get(url)
            .bearer_auth(self.cloud.access_token(USER))
            .send()
            .await
            .unwrap();
        let list: Value = answer.json().await.unwrap();
        list["items"].as_array().map_or(0, Vec::len)
    }

    /// The next result message, acknowledged.
    pub(crate) async fn result(&self) -> Received {
        let started = Instant::now();
        loop {
            if let Some(received) = self.pull().await {
                return received;
            }
            assert!(started.elapsed() < PATIENCE, "no result came\n{}", self.worker.log());
        }
    }

    /// A result message, if one is there already.
    pub(crate) async fn pull(&self) -> Option<Received> {
        pull(
            &self.http,
            &self.cloud.urls().pubsub,
            &self.cloud.settings().project,
            &self.cloud.access_token(USER),
        )
        .await
    }

    /// A token as the push subscription's.
    pub(crate) fn token(&self) -> String {
        let claims = self.cloud.claims(&self.cloud.settings().push_service_account, AUDIENCE);
        self.cloud.id_token(&claims)
    }

    /// Posts an envelope to the worker with a good token.
    pub(crate) async fn post(&self, envelope: &Value) -> reqwest::Response {
        self.request(envelope.to_string())
            .bearer_auth(self.token())
            .send()
            .await
            .unwrap()
    }

    /// A request to the worker without a token.
    pub(crate) fn request(&self, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http
            .post(&self.worker.url)
            .header("content-type", "application/json")
            .body(body)
    }

    /// Waits until the push subscription has nothing left: everything is acknowledged.
    pub(crate) async fn acknowledged(&self) {
        until("everything is acknowledged", || {
            (self.cloud.backlog(&self.push).unwrap() == 0).then_some(())
        })
        .await;
    }

    /// Downloads through a signed URL, as anybody could.
    pub(crate) async fn download(&self, url: &str) -> reqwest::Response {
        self.http.get(url).send().await.unwrap()
    }
}

/// A result message as it was pulled.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) data: Value,
    pub(crate) attributes: HashMap<String, String>,
}

/// Pulls and acknowledges one message of the subscription `results`.
pub(crate) async fn pull(http: &reqwest::Client, pubsub: &str, project: &str, token: &str) -> Option<Received> {
    let subscription = format!("{pubsub}/v1/projects/{project}/subscriptions/results");
    let call = |verb: &str, body: Value| {
        http.post(format!("{subscription}:{verb}"))
            .bearer_auth(token)
            .json(&body)
            .send()
    };
    let answer = call("pull", json!({"maxMessages": 1})).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let received = answer["receivedMessages"].as_array()?.first()?.clone();
    assert_eq!(
        call("acknowledge", json!({"ackIds": [received["ackId"]]}))
            .await
            .unwrap()
            .status(),
        200
    );
    let data = STANDARD.decode(received["message"]["data"].as_str().unwrap()).unwrap();
    Some(Received {
        data: serde_json::from_slice(&data).unwrap(),
        attributes: serde_json::from_value(received["message"]["attributes"].clone()).unwrap_or_default(),
    })
}

/// Uploads to any bucket and gives the generation.
pub(crate) async fn upload_to(cloud: &LocalCloud, bucket: &str, object: &str, bytes: Vec<u8>) -> String {
    let url = format!(
        "{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={}",
        cloud.urls().storage,
        encode(object)
    );
    let request = client().post(url).bearer_auth(cloud.access_token(USER)).body(bytes);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let object: Value = answer.json().await.unwrap();
    object["generation"].as_str().unwrap().to_owned()
}

/// A cloud with what every worker needs: buckets, topics, and a subscription on the results.
pub(crate) async fn cloud() -> LocalCloud {
    let cloud = LocalCloud::start(Settings {
        pubsub_second: Duration::from_millis(20),
        ..Settings::default()
    })
    .await
    .unwrap();
    for bucket in [INPUT, OUTPUT] {
        cloud.create_bucket(bucket, false).unwrap();
    }
    for topic in ["events", "results"] {
        cloud.create_topic(topic).unwrap();
    }
    // A pulled message must not come again while a slow machine is still acknowledging it.
    let results = Subscription {
        name: "results",
        topic: "results",
        ack_deadline_seconds: Some(600),
        ..Subscription::default()
    };
    cloud.create_subscription(&results).unwrap();
    cloud.create_service_account(USER);
    // Exactly the rights that deploy/setup.sh grants.
    cloud.enforce(&RESOURCES).unwrap();
    cloud
}

/// A second input bucket, which keeps what is replaced; the worker has the same right there.
pub(crate) fn versioned_input(cloud: &LocalCloud, name: &str) {
    cloud.create_bucket(name, true).unwrap();
    cloud.give("worker", "storage.objects.get", &format!("bucket/{name}"));
}

/// Lets Pub/Sub forward what a subscription of the test's own gives up: both by their full names.
pub(crate) fn gives_up(cloud: &LocalCloud, subscription: &str, dead_letters: &str) {
    let agent = "pubsub-agent";
    cloud.give(agent, "pubsub.topics.publish", &format!("topic/{dead_letters}"));
    cloud.give(
        agent,
        "pubsub.subscriptions.consume",
        &format!("subscription/{subscription}"),
    );
}

/// What the worker is told about a local cloud.
pub(crate) fn environment(cloud: &LocalCloud) -> HashMap<String, String> {
    let (settings, urls) = (cloud.settings(), cloud.urls());
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    [
        ("INPUT_BUCKETS", INPUT.to_owned()),
        ("OUTPUT_BUCKET", OUTPUT.to_owned()),
        ("RESULT_TOPIC", "results".to_owned()),
        ("PUSH_AUTH", "oidc".to_owned()),
        ("PUSH_AUDIENCE", AUDIENCE.to_owned()),
        ("PUSH_SERVICE_ACCOUNT", settings.push_service_account.clone()),
        ("SIGNER_SERVICE_ACCOUNT", settings.signer_service_account.clone()),
        ("STORAGE_EMULATOR_HOST", urls.storage.clone()),
        ("PUBSUB_EMULATOR_HOST", host(&urls.pubsub)),
        ("GCE_METADATA_HOST", host(&urls.metadata)),
        ("IAM_CREDENTIALS_ENDPOINT", urls.iam.clone()),
        ("KMS_ENDPOINT", urls.kms.clone()),
        ("OIDC_JWKS_URL", urls.jwks.clone()),
        ("RUST_LOG", "platen=debug,info".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A wrapped push of a storage notification.
pub(crate) fn notification(object: &str, generation: &str) -> Value {
    json!({
        "message": {
            "attributes": {
                "eventType": "OBJECT_FINALIZE", "bucketId": INPUT, "objectId": object, "objectGeneration": generation,
                "payloadFormat": "NONE",
            },
            "data": "", "messageId": "1", "publishTime": "2026-01-01T00:00:00Z",
        },
        "subscription": "projects/p/subscriptions/s",
    })
}

/// A wrapped push of a job.
pub(crate) fn job(job: &Value) -> Value {
    json!({"message": {"data": STANDARD.encode(job.to_string()), "messageId": "2"}, "subscription": "projects/p/subscriptions/s"})
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Polls until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it never came to pass that {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The same, where there is no runtime.
pub(crate) fn until_blocking<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it never came to pass that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process's children.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The children of a zygote that have a job: one that waits for its own is not locked in yet.
pub(crate) fn converting(zygote: u32) -> Vec<u32> {
    let confined = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains("Seccomp:\t2"))
    };
    children(zygote).into_iter().filter(confined).collect()
}

/// Sends a signal and says whether the process was there.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).is_ok()
}

/// The text of a PDF's pages.
pub(crate) fn pdf_text(pdf: &Path) -> String {
    run(Command::new("pdftotext").arg("-layout").arg(pdf).arg("-"))
}

/// The number of a PDF's pages.
pub(crate) fn pdf_pages(pdf: &Path) -> u32 {
    let info = run(Command::new("pdfinfo").arg(pdf));
    info.lines()
        .find_map(|line| line.strip_prefix("Pages:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// A command's output; it must succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn encode(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn collect(mut stream: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    })
}

pub(crate) fn walk(directory: &Path, see: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        see(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), see);
        }
    }
}
