//! The main path against Google's own Pub/Sub emulator, where its jar is installed.
//!
//! The emulator pushes without a token even where the subscription names one, so a small proxy between it and the worker
//! adds it, as Google would have.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{self, INPUT, PATIENCE, World};

const PROJECT: &str = "proj-1";

/// The emulator as a process, killed with this.
struct Emulator {
    process: Child,
    host: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _already_dead = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Emulator {
    /// Starts it, or says why it cannot be had.
    async fn start() -> Option<Self> {
        let Some(jar) = jar() else {
            println!("skipped: Google's Pub/Sub emulator is not installed (PUBSUB_EMULATOR_JAR names its jar)");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar"])
            .arg(jar)
            .args(["--host=127.0.0.1", &format!("--port={port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            println!("skipped: there is no java to run Google's Pub/Sub emulator");
            return None;
        };
        let emulator = Self {
            process,
            host: format!("127.0.0.1:{port}"),
        };
        let started = Instant::now();
        while harness::client()
            .get(format!("http://{}", emulator.host))
            .send()
            .await
            .is_err()
        {
            assert!(started.elapsed() < PATIENCE, "the emulator does not answer");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Some(emulator)
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let url = format!("http://{}/v1/projects/{PROJECT}/{path}", self.host);
        let answer = harness::client().request(method, url).json(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }
}

fn jar() -> Option<PathBuf> {
    if let Some(jar) = std::env::var_os("PUBSUB_EMULATOR_JAR").filter(|jar| !jar.is_empty()) {
        return Some(jar.into());
    }
    [
        "/usr/lib/google-cloud-sdk",
        "/usr/share/google-cloud-sdk",
        "/opt/google-cloud-sdk",
    ]
    .iter()
    .find_map(|sdk| {
        let files = std::fs::read_dir(PathBuf::from(sdk).join("platform/pubsub-emulator/lib")).ok()?;
        files.filter_map(|file| Some(file.ok()?.path())).find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("cloud-pubsub-emulator"))
        })
    })
}

/// Passes pushes on to the worker with a token, and its status back. Gives its own address.
async fn token_adder(worker: String, token: String) -> String {
    async fn pass(State((worker, token)): State<(String, String)>, body: Bytes) -> StatusCode {
        let request = harness::client()
            .post(worker)
            .bearer_auth(token)
            .header("content-type", "application/json");
        request
            .body(body)
            .send()
            .await
            .map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(pass).with_state((worker, token));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/push")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_holds_against_googles_own_emulator() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    for topic in ["events", "results"] {
        emulator
            .call(reqwest::Method::PUT, &format!("topics/{topic}"), &json!({}))
            .await;
    }
    let topic = format!("projects/{PROJECT}/topics/results");
    let world = World::with(&[("PUBSUB_EMULATOR_HOST", &emulator.host), ("RESULT_TOPIC", &topic)]).await;
    let push = token_adder(world.worker.url.clone(), world.token()).await;
    let results = json!({"topic": topic, "ackDeadlineSeconds": 600});
    emulator
        .call(reqwest::Method::PUT, "subscriptions/results", &results)
        .await;
    let events = json!({
        "topic": format!("projects/{PROJECT}/topics/events"), "ackDeadlineSeconds": 600,
        "pushConfig": {"pushEndpoint": push},
    });
    emulator.call(reqwest::Method::PUT, "subscriptions/push", &events).await;

    let generation = world
        .upload_fixture("documents/plain/report.odt", "reports/q3 – ü.odt")
        .await;
    let publish = async |attributes: Value| {
        let messages = json!({"messages": [{"data": "", "attributes": attributes}]});
        emulator
            .call(reqwest::Method::POST, "topics/events:publish", &messages)
            .await
    };
    let finalized = json!({
        "eventType": "OBJECT_FINALIZE", "bucketId": INPUT, "objectId": "reports/q3 – ü.odt",
        "objectGeneration": generation, "payloadFormat": "NONE",
    });
    let published = publish(finalized).await;
    let received = next(&emulator).await;
    assert_eq!(received.data["status"], "succeeded", "{}", received.data);
    assert_eq!(received.data["messageId"], published["messageIds"][0]);
    assert_eq!(received.attributes["sourceObject"], "reports/q3 – ü.odt");
    let answer = world
        .download(received.data["outputs"][0]["signedUrl"].as_str().unwrap())
        .await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.unwrap().starts_with(b"%PDF-"));

    // A failure is acknowledged: it is published once, and nothing of it comes again before the next event is done.
    publish(json!({"bucketId": INPUT, "objectId": "nowhere.odt"})).await;
    assert_eq!(next(&emulator).await.data["error"]["code"], "source.not_found");
    publish(json!({"eventType": "OBJECT_DELETE", "bucketId": INPUT, "objectId": "reports/q3 – ü.odt"})).await;
    publish(json!({"bucketId": INPUT, "objectId": "reports/q3 – ü.odt"})).await;
    assert_eq!(next(&emulator).await.data["jobId"], received.data["jobId"]);
}

async fn next(emulator: &Emulator) -> harness::Received {
    let started = Instant::now();
    loop {
        let url = format!("http://{}", emulator.host);
        if let Some(received) = harness::pull(&harness::client(), &url, PROJECT, "none").await {
            return received;
        }
        assert!(started.elapsed() < PATIENCE, "no result came");
    }
}
