//! `platen local` through its own binary, as a person in another terminal uses it: the JSON line, the commands that it
//! prints, its page, and what can be broken and mended.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, children, client, fixture, signal, until, until_blocking};

/// A running `platen local`.
pub(crate) struct Local {
    pub(crate) child: Child,
    urls: Value,
    /// What follows the JSON line, and stderr.
    said: Arc<Mutex<String>>,
    log: Arc<Mutex<String>>,
    pub(crate) http: reqwest::Client,
    temporary: tempfile::TempDir,
}

impl Local {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With these arguments.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        Self::start_under(&[], arguments)
    }

    /// Starts it by another program, which must become it.
    pub(crate) fn start_under(program: &[&str], arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let command = program.iter().chain(&[env!("CARGO_BIN_EXE_platen"), "local"]);
        let mut words = command.chain(arguments);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), &log);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let urls =
            serde_json::from_str(&first).unwrap_or_else(|error| panic!("{error}: {first:?}\n{}", log.lock().unwrap()));
        let said = Arc::new(Mutex::new(String::new()));
        collect(stdout, &said);
        Self {
            child,
            urls,
            said,
            log,
            http: client(),
            temporary,
        }
    }

    pub(crate) fn url(&self, name: &str) -> &str {
        self.urls[name].as_str().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url("page")))
    }

    /// An answer of the control API that must be this status.
    pub(crate) async fn control(&self, method: Method, path: &str, body: &Value, status: u16) -> Value {
        let request = self.call(method, path).body(body.to_string());
        let answer = request.send().await.unwrap();
        let got = answer.status();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(got, status, "{path} {body}: {answer}");
        answer
    }

    pub(crate) async fn state(&self) -> Value {
        self.control(Method::GET, "/api/state", &Value::Null, 200).await
    }

    pub(crate) async fn token(&self) -> String {
        let url = format!(
            "{}/computeMetadata/v1/instance/service-accounts/default/token",
            self.url("metadata")
        );
        let request = self.http.get(url).header("metadata-flavor", "Google");
        let token: Value = request.send().await.unwrap().json().await.unwrap();
        token["access_token"].as_str().unwrap().to_owned()
    }

    /// Uploads as curl would, and gives the generation.
    pub(crate) async fn upload(&self, fixture_name: &str, name: &str) -> String {
        let url = format!(
            "{}/upload/storage/v1/b/documents/o?uploadType=media&name={name}",
            self.url("storage")
        );
        let request = self.http.post(url).bearer_auth(self.token().await);
        let content = std::fs::read(fixture(fixture_name)).unwrap();
        let answer = request.body(content).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let object: Value = answer.json().await.unwrap();
        object["generation"].as_str().unwrap().to_owned()
    }

    /// The newest job of an object, as soon as it fits.
    pub(crate) async fn job(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let source = format!("gs://documents/{name}");
        let started = std::time::Instant::now();
        loop {
            let jobs = self.control(Method::GET, "/api/jobs", &Value::Null, 200).await;
            let jobs = jobs.as_array().unwrap();
            let job = jobs.iter().rev().find(|job| job["source"] == source.as_str());
            if let Some(job) = job.filter(|job| fits(job)) {
                return job.clone();
            }
            assert!(started.elapsed() < PATIENCE, "{name}: {what}: {job:?}\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn done(&self, name: &str) -> Value {
        self.job(name, "has a result", |job| job["state"] != "waiting").await
    }

    /// Waits for a line of the worker's log.
    async fn logged(&self, text: &str) {
        until(text, || self.log().contains(text).then_some(())).await;
    }

    pub(crate) fn end(&mut self, how: Signal) -> ExitStatus {
        let family = family(self.child.id());
        assert!(family.len() > 2, "the worker and its zygote: {family:?}");
        assert!(signal(self.child.id(), how));
        let status = self.child.wait().unwrap();
        until_blocking("nothing of it runs any more", || {
            let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
            family.iter().all(gone).then_some(())
        });
        status
    }

    fn left_behind(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.temporary.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Keeps what a stream says, in a thread of its own.
pub(crate) fn collect(mut stream: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = into.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    });
}

/// A process and all below it.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

#[tokio::test]
async fn an_upload_becomes_a_pdf_behind_its_link_and_ctrl_c_ends_everything() {
    let mut local = Local::start();
    let mut names: Vec<&String> = local.urls.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        ["iam", "jwks", "kms", "metadata", "page", "pubsub", "storage", "worker"]
    );
    let generation = local.upload("documents/plain/invoice.docx", "a.docx").await;
    let job = local.done("a.docx").await;
    assert_eq!(
        (&job["state"], &job["generation"]),
        (&json!("succeeded"), &json!(generation))
    );
    let link = job["result"]["outputs"][0]["signedUrl"].as_str().unwrap();
    let pdf = local.http.get(link).send().await.unwrap().bytes().await.unwrap();
    assert!(pdf.starts_with(b"%PDF-"));
    // Without a token there is nothing to be had.
    let bare = local.http.get(format!("{}/storage/v1/b/pdfs/o", local.url("storage")));
    assert_eq!(bare.send().await.unwrap().status(), 401);

    assert_eq!(local.end(Signal::SIGINT).code(), Some(0), "{}", local.log());
    assert_eq!(local.left_behind(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_work() {
    let mut local = Local::start();
    local.upload("documents/hostile/never-ends.ods", "never-ends.ods").await;
    let child = local.child.id();
    // The worker, its zygote, a child in waiting, and one that converts.
    until("a conversion has begun", || {
        family(child)
            .iter()
            .any(|pid| !crate::harness::converting(*pid).is_empty())
            .then_some(())
    })
    .await;
    assert!(signal(child, Signal::SIGTERM));
    local.logged("shutting down").await;
    assert_eq!(local.end(Signal::SIGINT).code(), Some(0));
    assert!(
        !local.log().contains("all work has ended"),
        "it did wait: {}",
        local.log()
    );
}

#[tokio::test]
async fn killed_it_takes_its_worker_along() {
    let mut local = Local::start();
    assert_eq!(local.end(Signal::SIGKILL).code(), None);
}

#[tokio::test]
async fn the_commands_that_it_prints_work() {
    let local = Local::start();
    let said = local.said.clone();
    let guide = until("the guide is there", || {
        let said = said.lock().unwrap().clone();
        said.contains("Ctrl-C ends").then_some(said)
    })
    .await;
    let lines: Vec<&str> = guide
        .lines()
        .filter(|line| {
            ["export ", "unset ", "TOKEN=", "curl ", "platen ", "env "]
                .iter()
                .any(|word| line.starts_with(word))
        })
        .collect();
    for command in ["submit", "sign", "backfill", "redrive", "secrets seal", "doctor"] {
        assert!(
            lines.iter().any(|line| line.contains(&format!("platen {command} "))),
            "{command}: {guide}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("documents/plain/invoice.docx"), directory.path().join("a.docx")).unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"passwords": {"a": "b"}}"#).unwrap();
    // Everything in its order, and between the upload and what needs its result a look at the results.
    let script: String = lines.iter().map(|line| format!("{line}\necho\n")).collect();
    let binaries = Path::new(env!("CARGO_BIN_EXE_platen")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(binaries.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let output = Command::new("bash")
        .args(["-ec", &script.replace("curl ", "curl -sSf ")])
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", path)
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}\n{stderr}\n{}", local.log());
    for part in [
        "\"format\":\"png\"",
        "\"format\":\"txt\"",
        "X-Goog-Signature=",
        "ok       sign URLs as signer@",
        "platen_",
    ] {
        assert!(stdout.contains(part), "{part}: {stdout}\n{stderr}");
    }
    assert!(!stdout.contains("\nmissing") && !stdout.contains("\nwrong"), "{stdout}");
}

#[tokio::test]
async fn what_is_broken_is_seen_and_what_is_mended_goes_on() {
    let local = Local::start();
    // A fault: signing fails until it is forgotten.
    let fault =
        json!({"peer": "iam", "method": "POST", "pathPrefix": "/v1/", "count": null, "effect": {"status": 503}});
    local.control(Method::POST, "/api/faults", &fault, 200).await;
    local.upload("documents/plain/invoice.docx", "fault.docx").await;
    local.logged("signBlob").await;
    let state = local.state().await;
    assert_eq!(state["faultHits"][0]["peer"], "iam", "{state}");
    let waiting = local.job("fault.docx", "waits", |job| job["state"] == "waiting").await;
    assert_eq!(waiting["result"], Value::Null);
    local.control(Method::DELETE, "/api/faults", &fault, 200).await;
    assert_eq!(local.done("fault.docx").await["state"], "succeeded");
    local.control(Method::DELETE, "/api/faults", &fault, 404).await;

    // A right: documents cannot be read until it is given back.
    let right = |granted: bool| json!({"account": "worker", "permission": "storage.objects.get", "resource": "bucket/input", "granted": granted});
    let rights = local.control(Method::PUT, "/api/rights", &right(false), 200).await;
    assert!(rights.as_array().unwrap().contains(&right(false)), "{rights}");
    local.upload("documents/plain/invoice.docx", "right.docx").await;
    local.logged("storage.objects.get").await;
    assert_eq!(local.job("right.docx", "is known", |_| true).await["state"], "waiting");
    // It cannot be taken twice, and one that does not exist cannot be given.
    local.control(Method::PUT, "/api/rights", &right(false), 404).await;
    let unknown = json!({"account": "nobody", "permission": "a.b.c", "resource": "bucket/input", "granted": true});
    let refusal = local.control(Method::PUT, "/api/rights", &unknown, 404).await;
    assert!(
        refusal["error"]["message"].as_str().unwrap().contains("worker"),
        "{refusal}"
    );
    let rights = local.control(Method::PUT, "/api/rights", &right(true), 200).await;
    assert!(rights.as_array().unwrap().contains(&right(true)), "{rights}");
    assert_eq!(local.done("right.docx").await["state"], "succeeded");
}

#[tokio::test]
async fn the_worker_is_killed_changed_and_stopped() {
    let local = Local::start();
    let before = local.state().await["worker"]["pid"].clone();
    let killed = local
        .control(Method::POST, "/api/worker", &json!({"action": "kill"}), 200)
        .await;
    assert_eq!(killed["state"], "ready");
    assert_ne!(killed["pid"], before);

    let limited = json!({"MAX_PAGES": "1"});
    let changed = local.control(Method::PUT, "/api/worker/variables", &limited, 200).await;
    assert_eq!((&changed["state"], &changed["variables"]), (&json!("ready"), &limited));
    local.upload("documents/plain/deck.pptx", "deck.pptx").await;
    let job = local.done("deck.pptx").await;
    assert_eq!(job["result"]["error"]["code"], "document.too_complex", "{job}");

    // One that cannot start is not tried again and again, and says so.
    let wrong = json!({"MAX_PAGES": "none"});
    let failed = local.control(Method::PUT, "/api/worker/variables", &wrong, 200).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains("64"), "{failed}");
    for (wrong, code) in [
        (json!({"GOOGLE_APPLICATION_CREDENTIALS": "/tmp/a"}), "variable.invalid"),
        (json!({"MAX_PAGES": 3}), "variable.invalid"),
        (json!([]), "variable.invalid"),
    ] {
        let refusal = local.control(Method::PUT, "/api/worker/variables", &wrong, 400).await;
        assert_eq!(refusal["error"]["code"], code);
    }
    let mended = local
        .control(Method::PUT, "/api/worker/variables", &json!({"MAX_PAGES": null}), 200)
        .await;
    assert_eq!((&mended["state"], &mended["variables"]), (&json!("ready"), &json!({})));

    // Without a worker the message is a dead letter after its fifth delivery; another message for it then succeeds.
    let stopped = local
        .control(Method::POST, "/api/worker", &json!({"action": "stop"}), 200)
        .await;
    assert_eq!(stopped["state"], "stopped");
    local.upload("documents/plain/invoice.docx", "dead.docx").await;
    let dead = local
        .job("dead.docx", "is a dead letter", |job| job["deadLetter"] == true)
        .await;
    assert_eq!(dead["state"], "waiting");
    local
        .control(Method::POST, "/api/worker", &json!({"action": "start"}), 200)
        .await;
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(["redrive", "--from", "dead-letters", "--topic", "document-events"])
        .env_clear()
        .envs(
            local.state().await["environment"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| (name, value.as_str().unwrap())),
        )
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(local.done("dead.docx").await["state"], "succeeded");
    let refusal = local
        .control(Method::POST, "/api/worker", &json!({"action": "fly"}), 400)
        .await;
    assert!(refusal["error"]["message"].as_str().unwrap().contains("restart"));
}

#[tokio::test]
async fn the_page_is_for_itself_alone() {
    let local = Local::start();
    let page = local.call(Method::GET, "/").send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let html = page.text().await.unwrap();
    // Nothing of another host, nothing inline.
    for foreign in ["http:", "https:", "//", "style=", "onclick", "<style"] {
        assert!(!html.contains(foreign), "{foreign}: {html}");
    }
    for asset in ["/page.js", "/page.css"] {
        assert!(html.contains(&asset[1..]), "{asset}");
        for method in [Method::GET, Method::HEAD] {
            let answer = local.call(method.clone(), asset).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{method} {asset}");
            assert_eq!(answer.bytes().await.unwrap().is_empty(), method == Method::HEAD);
        }
    }

    let own = local.url("page").to_owned();
    let local_host = own.replace("127.0.0.1", "localhost");
    let fault = json!({"effect": {"status": 500}}).to_string();
    let port = own.rsplit(':').next().unwrap();
    let post = |headers: &[(&'static str, &str)]| {
        let mut request = local.call(Method::POST, "/api/faults").body(fault.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    let rebound = format!("evil.example:{port}");
    let other_port = format!("http://127.0.0.1:{}", local.url("worker").rsplit(':').next().unwrap());
    for foreign in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("origin", &other_port)],
        &[("origin", &local_host)],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("host", &rebound)],
        &[("host", &rebound), ("origin", &format!("http://{rebound}"))],
    ] {
        let answer = post(foreign).await.unwrap();
        assert_eq!(answer.status(), 403, "{foreign:?}");
    }
    assert_eq!(
        local.control(Method::GET, "/api/faults", &Value::Null, 200).await,
        json!([])
    );
    // Nor through the listeners of the APIs, which take rules too.
    let url = format!("{}/_faults", local.url("storage"));
    let request = local.http.post(url).header("origin", "https://evil.example");
    assert_eq!(request.body(fault.clone()).send().await.unwrap().status(), 403);

    for own in [
        &[][..],
        &[("origin", &*own), ("sec-fetch-site", "same-origin")],
        &[("host", &local_host["http://".len()..]), ("origin", &local_host)],
    ] {
        assert_eq!(post(own).await.unwrap().status(), 200, "{own:?}");
    }
    local.control(Method::DELETE, "/api/faults", &Value::Null, 400).await;
    let forgotten = local.call(Method::DELETE, "/api/faults").send().await.unwrap();
    assert_eq!(forgotten.json::<Value>().await.unwrap(), json!([]));

    for (rule, part) in [
        (json!({"effect": {"statu": 503}}), "delayMilliseconds"),
        (json!({"effect": {"dripBytes": 0, "everyMilliseconds": 1}}), "dripBytes"),
        (json!({"peer": "moon", "effect": {"status": 503}}), "storage"),
        (json!({"pathprefix": "/", "effect": {"status": 503}}), "pathPrefix"),
        (json!({"effect": {"status": 99}}), "from 100 to 599"),
    ] {
        let refusal = local.control(Method::POST, "/api/faults", &rule, 400).await;
        let message = refusal["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{rule}: {message}");
    }
    local.control(Method::GET, "/api/nothing", &Value::Null, 404).await;
    local.control(Method::POST, "/api/documents", &json!({}), 400).await;
}

#[tokio::test]
async fn events_tell_what_is_there_and_what_changes() {
    let local = Local::start();
    let mut events = local.call(Method::GET, "/api/events").send().await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let document = std::fs::read(fixture("documents/plain/invoice.docx")).unwrap();
    let upload = local.call(Method::POST, "/api/documents?name=reports/a%20b%23.docx");
    let answer = upload.body(document).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut text = String::new();
    while !text.contains("\"state\":\"succeeded\"") {
        let chunk = tokio::time::timeout(PATIENCE, events.chunk()).await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    assert!(text.starts_with("event: jobs\ndata: []\n\n"), "{text}");
    assert!(text.contains("gs://documents/reports/a b#.docx"), "{text}");
}

#[test]
fn it_says_why_it_cannot_start() {
    let platen = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_platen"))
            .arg("local")
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
            output.stdout,
        )
    };
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, message, stdout) = platen(&["--port", &port], &[]);
    assert_eq!((code, stdout), (Some(1), Vec::new()));
    assert!(message.contains(&port) && message.contains("--port 0"), "{message}");
    let wrong = [
        ("MAX_PAGES", "0"),
        ("LOG_FORMAT", "xml"),
        ("MAX_DELIVERY_ATTEMPTS", "4"),
    ];
    let (code, message, _) = platen(&[], &wrong);
    assert_eq!(code, Some(64));
    for (name, _) in wrong {
        assert_eq!(message.matches(&format!("\n  {name} ")).count(), 1, "{name}: {message}");
    }
}
