//! `platen backfill` as a process, against the local cloud: what it publishes, what it leaves out, and where it goes on
//! after whatever ended it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, stream};
use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, LocalCloud, Peer, Subscription};
use serde_json::{Value, json};

use crate::credentials::{File, person, platen, stderr};
use crate::harness::{self, INPUT, OUTPUT, USER, World, client, encode, signal, until, upload_to};

const PUBLISH: &str = "/v1/projects/local-project/topics/events:publish";

/// A cloud with a subscription that sees every job, and the environment of somebody's shell beside it.
struct Shell {
    cloud: LocalCloud,
    environment: HashMap<String, String>,
    state: tempfile::TempDir,
    /// Outlives the commands that read it.
    _credentials: File,
}

impl Shell {
    async fn new() -> Self {
        Self::of(harness::cloud().await)
    }

    fn of(cloud: LocalCloud) -> Self {
        let state = tempfile::tempdir().unwrap();
        let seen = Subscription {
            name: "seen",
            topic: "events",
            ack_deadline_seconds: Some(600),
            ..Subscription::default()
        };
        cloud.create_subscription(&seen).unwrap();
        let (credentials, mut environment) = person(&cloud);
        environment.insert("STORAGE_EMULATOR_HOST".to_owned(), cloud.urls().storage.clone());
        environment.insert("XDG_STATE_HOME".to_owned(), state.path().to_str().unwrap().to_owned());
        Self {
            cloud,
            environment,
            state,
            _credentials: credentials,
        }
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        let arguments = [&["backfill", "--topic", "events"], arguments].concat();
        let output = platen(&arguments, &self.environment).await;
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: stderr(&output),
        }
    }

    fn start(&self, arguments: &[&str]) -> tokio::process::Child {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_platen"))
            .args(["backfill", "--topic", "events"])
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// The only file that keeps a place, and what it says.
    fn place(&self) -> Option<(PathBuf, String)> {
        let mut files = std::fs::read_dir(self.state.path().join("platen")).ok()?;
        let path = files.next()?.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        Some((path, text))
    }

    /// Every job that was published since the last time.
    async fn jobs(&self) -> Vec<Value> {
        let url = format!(
            "{}/v1/projects/local-project/subscriptions/seen",
            self.cloud.urls().pubsub
        );
        let call = |verb: &str, body: Value| {
            let request = client().post(format!("{url}:{verb}")).json(&body);
            let request = request.bearer_auth(self.cloud.access_token(USER)).send();
            async { request.await.unwrap().json::<Value>().await.unwrap() }
        };
        let mut jobs = Vec::new();
        loop {
            let pulled = call("pull", json!({"maxMessages": 1000, "returnImmediately": true})).await;
            let Some(received) = pulled["receivedMessages"].as_array() else {
                return jobs;
            };
            for message in received {
                let data = STANDARD.decode(message["message"]["data"].as_str().unwrap()).unwrap();
                jobs.push(serde_json::from_slice(&data).unwrap());
            }
            let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
            call("acknowledge", json!({"ackIds": ids})).await;
        }
    }

    /// How often each object was asked for.
    async fn sources(&self) -> BTreeMap<String, u32> {
        let mut sources = BTreeMap::new();
        for job in self.jobs().await {
            *sources.entry(job["source"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        sources
    }

    /// Through one client: to make one takes longer than an upload.
    async fn upload_many(&self, names: &[String]) {
        let (http, token, storage) = (&client(), &self.cloud.access_token(USER), &self.cloud.urls().storage);
        stream::iter(names)
            .for_each_concurrent(16, |name| async move {
                let query = format!("uploadType=media&name={}", encode(name));
                let request = http.post(format!("{storage}/upload/storage/v1/b/{INPUT}/o?{query}"));
                let answer = request.bearer_auth(token).body("x").send().await.unwrap();
                assert_eq!(answer.status(), 200);
            })
            .await;
    }

    fn on_publish(&self, skip: u32, effect: Effect) {
        self.cloud.add_fault(Fault {
            peer: Some(Peer::Pubsub),
            method: Some("POST".to_owned()),
            path_prefix: PUBLISH.to_owned(),
            skip,
            count: 1,
            effect,
        });
    }
}

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn succeeded(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    #[track_caller]
    fn failed(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?}: {}", self.stderr);
        }
        assert!(!self.stderr.contains("ya29."), "{}", self.stderr);
        self
    }

    /// The table: objects and bytes by type.
    fn table(&self) -> BTreeMap<&str, (u64, u64)> {
        let rows = self.stdout.lines().skip(1).map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            (cells[0], (cells[1].parse().unwrap(), cells[2].parse().unwrap()))
        });
        rows.collect()
    }
}

/// Three pages: 1,000, and then 999 each, because the name behind which one begins is listed once more.
fn many() -> Vec<String> {
    (0..2500).map(|number| format!("many/{number:04}.docx")).collect()
}

fn url(name: &str) -> String {
    format!("gs://{INPUT}/{name}")
}

#[track_caller]
fn each_once(sources: &BTreeMap<String, u32>, names: &[String]) {
    assert_eq!(sources.len(), names.len());
    assert!(
        names.iter().all(|name| sources.get(&url(name)) == Some(&1)),
        "{sources:?}"
    );
}

#[tokio::test]
async fn every_object_of_every_page_gets_one_job() {
    let shell = Shell::new().await;
    let names = many();
    shell.upload_many(&names).await;
    upload_to(&shell.cloud, INPUT, "other/a.docx", b"x".to_vec()).await;

    let ran = shell.run(&["gs://input/many/", "--dry-run"]).await;
    assert_eq!(ran.succeeded().table()["total"], (2500, 2500));
    assert!(shell.jobs().await.is_empty() && shell.place().is_none());

    let ran = shell.run(&["gs://input/many/"]).await;
    assert_eq!(
        ran.succeeded().table(),
        [("docx", (2500, 2500)), ("total", (2500, 2500))].into()
    );
    each_once(&shell.sources().await, &names);
    // All is done, so there is nothing to go on from.
    assert!(shell.place().is_none(), "{:?}", shell.place());
}

#[tokio::test]
async fn a_killed_run_goes_on_with_the_request_that_was_not_answered() {
    let shell = Shell::new().await;
    let names = many();
    shell.upload_many(&names).await;
    // The second request is lost on its way, or arrives and is not answered: nobody can tell which.
    let lost = [
        (Effect::Silence { silence: true }, 1),
        (Effect::Stall { stall_after: 0 }, 2),
    ];
    for (effect, times) in lost {
        shell.on_publish(1, effect);
        let mut run = shell.start(&["gs://input/many/"]);
        until("the second request is noted", || {
            let (_, text) = shell.place()?;
            (text.matches("publishing").count() == 2).then_some(())
        })
        .await;
        // It is there, too, if it was not to be lost.
        if times == 2 {
            until("the second request has arrived", || {
                (shell
                    .cloud
                    .backlog("projects/local-project/subscriptions/seen")
                    .unwrap()
                    == 1999)
                    .then_some(())
            })
            .await;
        }
        run.kill().await.unwrap();
        // A kill may leave half a line.
        let (path, text) = shell.place().unwrap();
        std::fs::write(&path, format!("{text}{{\"published\":[10")).unwrap();

        let ran = shell.run(&["gs://input/many/"]).await;
        let told = &ran.succeeded().stderr;
        assert!(
            told.contains("going on behind gs://input/many/0999.docx, 1000 jobs"),
            "{told}"
        );
        assert!(told.contains("up to 999 jobs"), "{told}");
        assert!(told.contains("1500 jobs published to"), "{told}");
        let sources = shell.sources().await;
        assert_eq!(sources.len(), 2500);
        for (index, name) in names.iter().enumerate() {
            let expected = if (1000..1999).contains(&index) { times } else { 1 };
            assert_eq!(sources[&url(name)], expected, "{name}");
        }
        assert!(shell.place().is_none());
    }
}

#[tokio::test]
async fn an_interrupted_run_ends_its_request_and_goes_on_behind_it() {
    let shell = Shell::new().await;
    let names = many();
    shell.upload_many(&names).await;
    shell.on_publish(
        1,
        Effect::Delay {
            delay_milliseconds: 1000,
        },
    );
    let run = shell.start(&["gs://input/many/"]);
    until("the second request is under way", || {
        let (_, text) = shell.place()?;
        (text.matches("publishing").count() == 2).then_some(())
    })
    .await;
    let twin = shell.run(&["gs://input/many/"]).await;
    twin.failed(1, &["under way already"]);
    assert!(signal(run.id().unwrap(), Signal::SIGINT));
    let output = run.wait_with_output().await.unwrap();
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("Run the same command again"), "{told}");

    // Another command has another place.
    let ran = shell.run(&["gs://input/many/", "--dry-run", "--revision", "2"]).await;
    assert_eq!(ran.succeeded().table()["total"].0, 2500);
    let ran = shell.run(&["gs://input/many/", "--dry-run"]).await;
    assert_eq!(ran.succeeded().table()["total"].0, 501);
    let ran = shell.run(&["gs://input/many/"]).await;
    assert!(!ran.succeeded().stderr.contains("twice"), "{}", ran.stderr);
    each_once(&shell.sources().await, &names);
}

#[tokio::test]
async fn a_run_that_fails_says_how_to_go_on_and_restart_begins_anew() {
    let mut shell = Shell::new().await;
    let names = many();
    shell.upload_many(&names).await;
    let refused = Effect::Status {
        status: 403,
        retry_after: None,
    };
    shell.on_publish(1, refused.clone());
    let words = [
        "roles/pubsub.publisher",
        "gcloud pubsub topics",
        "Run the same command again",
    ];
    shell.run(&["gs://input/many/"]).await.failed(1, &words);
    let ran = shell.run(&["gs://input/many/", "--restart"]).await;
    assert_eq!(ran.succeeded().table()["total"].0, 2500);
    assert_eq!(shell.jobs().await.len(), 3500);

    // Where nothing can be kept.
    shell.environment.remove("XDG_STATE_HOME");
    shell.on_publish(2, refused);
    let ran = shell.run(&["gs://input/many/"]).await;
    ran.failed(1, &["--start-after 'many/1998.docx'", "is not kept"]);
    let ran = shell
        .run(&["gs://input/many/", "--start-after", "many/1998.docx"])
        .await;
    assert_eq!(ran.succeeded().table()["total"].0, 501);
    each_once(&shell.sources().await, &names);
}

#[tokio::test]
async fn what_the_worker_would_ignore_is_left_out() {
    let mut shell = Shell::new().await;
    let (in_any_case, archive, none) = ("b/B.XLSX".to_owned(), "c/c.zip".to_owned(), "c/none".to_owned());
    for name in ["a/a.docx", &in_any_case, &archive, &none, "b/", "b/draft.docx"] {
        upload_to(&shell.cloud, INPUT, name, b"four".to_vec()).await;
    }
    let ours = json!({"name": "a/ours.docx", "metadata": {"platen-job": "x"}});
    let body = format!(
        "--b\r\ncontent-type: application/json\r\n\r\n{ours}\r\n--b\r\ncontent-type: text/plain\r\n\r\nx\r\n--b--\r\n"
    );
    let answer = client()
        .post(format!(
            "{}/upload/storage/v1/b/{INPUT}/o?uploadType=multipart",
            shell.cloud.urls().storage
        ))
        .header("content-type", "multipart/related; boundary=b")
        .bearer_auth(shell.cloud.access_token(USER))
        .body(body);
    assert_eq!(answer.send().await.unwrap().status(), 200);

    let ran = shell.run(&["gs://input"]).await;
    let expected = [("docx", (2, 8)), ("total", (3, 12)), ("xlsx", (1, 4))].into();
    assert_eq!(ran.succeeded().table(), expected);
    for word in [
        "1 folder placeholders",
        "1 written by Platen",
        "2 not read or not included",
    ] {
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
    }
    shell.jobs().await;

    let names = async |arguments: &[&str]| {
        shell.run(arguments).await.succeeded();
        let sources: Vec<String> = shell.sources().await.into_keys().collect();
        sources
    };
    assert_eq!(
        names(&["gs://input/", "--include", "c/*"]).await,
        [url(&archive), url(&none)]
    );
    let both = ["gs://input", "--include", "*.{zip,xlsx}", "--include", "*.XLSX"];
    assert_eq!(names(&both).await, [url(&in_any_case), url(&archive)]);
    shell
        .environment
        .insert("INPUT_INCLUDE".to_owned(), "a/*,b/*".to_owned());
    shell
        .environment
        .insert("INPUT_EXCLUDE".to_owned(), "*draft*".to_owned());
    let sources = [url("a/a.docx"), url(&in_any_case)];
    let ran = shell.run(&["gs://input"]).await;
    ran.succeeded();
    assert_eq!(shell.sources().await.into_keys().collect::<Vec<_>>(), sources);
}

#[tokio::test]
async fn hard_names_arrive_as_they_are() {
    let shell = Shell::new().await;
    let long = format!("hard/{}.docx", "\u{1}".repeat(1000));
    let names = [
        "hard/#1?.docx",
        "hard/%2F..%00.docx",
        "hard//../x.docx",
        "hard/\" \\ \u{7}.docx",
        "hard/e\u{301}.docx",
        "hard/\u{e9}.docx",
        "hard/\u{1F600}.docx",
        &long,
    ]
    .map(str::to_owned);
    let mut generations = HashMap::new();
    for name in &names {
        generations.insert(url(name), upload_to(&shell.cloud, INPUT, name, b"x".to_vec()).await);
    }
    // Each name can be where it goes on.
    for after in &names {
        let ran = shell
            .run(&["gs://input/hard/", "--dry-run", "--start-after", after])
            .await;
        let behind = names.iter().filter(|name| *name > after).count() as u64;
        let counted = ran.succeeded().table().get("total").map_or(0, |total| total.0);
        assert_eq!(counted, behind, "{after:?}");
    }
    shell.run(&["gs://input/hard/"]).await.succeeded();
    let jobs = shell.jobs().await;
    assert_eq!(jobs.len(), names.len());
    for job in jobs {
        assert_eq!(job["generation"], generations[job["source"].as_str().unwrap()].as_str());
        assert_eq!(job.as_object().unwrap().len(), 2, "{job}");
    }
}

#[tokio::test]
async fn names_that_fill_a_request_are_sent_in_several() {
    let shell = Shell::new().await;
    // As JSON a control character takes six bytes: a page of these is over what one request may hold.
    let names: Vec<String> = (0..1000)
        .map(|number| format!("big/{number:04}{}.docx", "\u{1}".repeat(1000)))
        .collect();
    shell.upload_many(&names).await;
    let revision = "\u{1}".repeat(1024);
    let ran = shell.run(&["gs://input/big/", "--revision", &revision]).await;
    assert_eq!(ran.succeeded().table()["total"].0, 1000);
    let jobs = shell.jobs().await;
    assert_eq!(jobs.len(), 1000);
    assert!(jobs.iter().all(|job| job["revision"] == revision.as_str()));
}

#[tokio::test]
async fn each_mistake_is_one_sentence_with_what_to_do() {
    let shell = Shell::new().await;
    upload_to(&shell.cloud, INPUT, "a.docx", b"x".to_vec()).await;
    let run = async |arguments: &[&str]| {
        let arguments = [&["backfill"], arguments].concat();
        let output = platen(&arguments, &shell.environment).await;
        Ran {
            code: output.status.code(),
            stdout: String::new(),
            stderr: stderr(&output),
        }
    };
    let wrong = ["in/a", "--include", "[", "--revision", "r"];
    run(&wrong)
        .await
        .failed(64, &["gs://BUCKET/PREFIX", "--include", "--topic"]);
    let wrong = ["gs://input", "--topic", "projects/p/t"];
    run(&wrong)
        .await
        .failed(64, &["a topic is projects/PROJECT/topics/NAME"]);
    let words = [
        "Resource not found",
        "gcloud pubsub topics create nowhere --project=local-project",
    ];
    run(&["gs://input", "--topic", "nowhere"]).await.failed(1, &words);
    let words = ["bucket does not exist", "gcloud storage buckets describe gs://nowhere"];
    run(&["gs://nowhere/a", "--topic", "events"]).await.failed(1, &words);
    shell.cloud.add_fault(Fault {
        peer: Some(Peer::Storage),
        method: Some("GET".to_owned()),
        path_prefix: "/storage/v1/b/input/o".to_owned(),
        skip: 0,
        count: 1,
        effect: Effect::Status {
            status: 403,
            retry_after: None,
        },
    });
    let words = [
        "storage.objects.list on gs://input/",
        "needs roles/storage.objectViewer: gcloud storage buckets add-iam-policy-binding gs://input",
        "--member='user:YOUR_ADDRESS'",
    ];
    run(&["gs://input", "--topic", "events"]).await.failed(1, &words);
    // What passes is tried again.
    shell.on_publish(
        0,
        Effect::Status {
            status: 503,
            retry_after: None,
        },
    );
    run(&["gs://input", "--topic", "events"]).await.succeeded();
    assert_eq!(shell.sources().await, [(url("a.docx"), 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_left_out_and_a_revision_converts_it_again() {
    let world = World::start().await;
    for (fixture, name) in [("invoice.docx", "a/invoice.docx"), ("prices.csv", "a/prices.csv")] {
        world.upload_fixture(&format!("documents/plain/{fixture}"), name).await;
    }
    let World {
        cloud,
        worker,
        http,
        push,
    } = world;
    let mut shell = Shell::of(cloud);
    let result = async |shell: &Shell| until_result(&http, &shell.cloud, &worker.log()).await;
    shell.run(&["gs://input/a/"]).await.succeeded();
    let mut first = [result(&shell).await, result(&shell).await];
    first.sort_by_key(|result| result["source"]["name"].to_string());
    assert!(first.iter().all(|result| result["status"] == "succeeded"), "{first:?}");

    // Without the output bucket all is published again; the worker finds each output, and converts nothing.
    shell.run(&["gs://input/a/"]).await.succeeded();
    for _ in 0..2 {
        let again = result(&shell).await;
        let same = first.iter().find(|result| result["jobId"] == again["jobId"]).unwrap();
        assert_eq!(again["outputs"][0]["generation"], same["outputs"][0]["generation"]);
    }
    shell.environment.insert("OUTPUT_BUCKET".to_owned(), OUTPUT.to_owned());
    let ran = shell.run(&["gs://input/a/"]).await;
    assert!(ran.succeeded().stderr.contains("0 jobs published"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 done already"), "{}", ran.stderr);
    // The worker's own name for outputs is part of what a job is.
    shell
        .environment
        .insert("OUTPUT_NAME".to_owned(), "{name}.{ext}".to_owned());
    let ran = shell.run(&["gs://input/a/", "--dry-run"]).await;
    assert_eq!(ran.succeeded().table()["total"].0, 2);
    shell.environment.remove("OUTPUT_NAME");

    let ran = shell.run(&["gs://input/a/", "--revision", "2"]).await;
    assert_eq!(ran.succeeded().table()["total"].0, 2);
    for _ in 0..2 {
        let again = result(&shell).await;
        assert_eq!(again["status"], "succeeded", "{again}");
        let name = &again["source"]["name"];
        let same = first.iter().find(|result| result["source"]["name"] == *name).unwrap();
        assert_ne!(again["jobId"], same["jobId"]);
        assert_ne!(again["outputs"][0]["generation"], same["outputs"][0]["generation"]);
    }
    let ran = shell.run(&["gs://input/a/", "--revision", "2"]).await;
    assert!(ran.succeeded().stderr.contains("2 done already"), "{}", ran.stderr);

    shell
        .environment
        .insert("OUTPUT_BUCKET".to_owned(), "nowhere".to_owned());
    let ran = shell.run(&["gs://input/a/"]).await;
    ran.failed(1, &["OUTPUT_BUCKET cannot be looked at", "bucket does not exist"]);
    until("everything is acknowledged", || {
        (shell.cloud.backlog(&push).unwrap() == 0).then_some(())
    })
    .await;
}

async fn until_result(http: &reqwest::Client, cloud: &LocalCloud, log: &str) -> Value {
    let started = std::time::Instant::now();
    loop {
        let token = cloud.access_token(USER);
        if let Some(received) = harness::pull(http, &cloud.urls().pubsub, "local-project", &token).await {
            return received.data;
        }
        assert!(started.elapsed() < harness::PATIENCE, "no result came\n{log}");
    }
}
