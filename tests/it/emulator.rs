//! The worker behind Google's own Pub/Sub emulator, where its jar is installed: the main path, redelivery, dead letter,
//! ordering keys, and a conversion that outlasts the ack deadline.
//!
//! The emulator pushes without a token even where the subscription names one, so a small door between it and the worker
//! adds it, as Google would have, and remembers every delivery. It pushes without `deliveryAttempt` as well, also under a
//! dead-letter policy: `attempts.exhausted` cannot come here, and is tested against the local cloud.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Value, json};

use crate::harness::{self, INPUT, OUTPUT, PATIENCE, Worker, World, signal, until};

const PROJECT: &str = "proj-1";
const INVOICE: &str = "documents/plain/invoice.docx";

/// The emulator as a process, killed with this.
pub(crate) struct Emulator {
    process: Child,
    pub(crate) host: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _already_dead = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Emulator {
    /// Starts it, or says why it cannot be had.
    pub(crate) async fn start() -> Option<Self> {
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

    pub(crate) async fn call(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
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

/// What stands between the emulator and the worker: passes pushes on with a token, and their status back.
#[derive(Clone)]
struct Door(Arc<Mutex<Passing>>);

struct Passing {
    worker: String,
    token: String,
    deliveries: Vec<Delivery>,
}

/// One push of a message.
#[derive(Debug, Clone)]
struct Delivery {
    message: String,
    /// None while it is not answered.
    status: Option<u16>,
}

impl Door {
    /// Opens it and gives its address.
    async fn open(worker: &str, token: String) -> (Self, String) {
        let door = Self(Arc::new(Mutex::new(Passing {
            worker: worker.to_owned(),
            token,
            deliveries: Vec::new(),
        })));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(Self::pass).with_state(door.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (door, format!("http://{address}/push"))
    }

    async fn pass(State(door): State<Self>, body: Bytes) -> StatusCode {
        let envelope: Value = serde_json::from_slice(&body).unwrap();
        assert!(
            envelope["deliveryAttempt"].is_null(),
            "then attempts.exhausted could come: {envelope}"
        );
        let message = envelope["message"]["messageId"].as_str().unwrap().to_owned();
        let (number, request) = {
            let mut passing = door.0.lock().unwrap();
            passing.deliveries.push(Delivery { message, status: None });
            let request = harness::client().post(&passing.worker).bearer_auth(&passing.token);
            (passing.deliveries.len() - 1, request)
        };
        let answer = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        let status = answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status());
        door.0.lock().unwrap().deliveries[number].status = Some(status.as_u16());
        status
    }

    /// The statuses of all deliveries of a message, in the order in which they began.
    fn of(&self, message: &str) -> Vec<Option<u16>> {
        let deliveries = self.0.lock().unwrap().deliveries.clone();
        let of_it = deliveries.into_iter().filter(|delivery| delivery.message == message);
        of_it.map(|delivery| delivery.status).collect()
    }
}

/// The emulator, a local cloud for everything else, and a worker behind the door.
struct Bench {
    emulator: Emulator,
    world: World,
    door: Door,
}

impl Bench {
    /// With these members of the push subscription, and these variables of the worker.
    async fn start(subscription: Value, variables: &[(&str, &str)]) -> Option<Self> {
        let emulator = Emulator::start().await?;
        for topic in ["events", "results", "given-up"] {
            emulator
                .call(reqwest::Method::PUT, &format!("topics/{topic}"), &json!({}))
                .await;
        }
        let results = format!("projects/{PROJECT}/topics/results");
        let addresses = [
            ("PUBSUB_EMULATOR_HOST", emulator.host.as_str()),
            ("RESULT_TOPIC", results.as_str()),
        ];
        let world = World::with(&[&addresses, variables].concat()).await;
        let (door, address) = Door::open(&world.worker.url, world.token()).await;
        for (name, topic) in [("results", "results"), ("given-up", "given-up")] {
            let pulled = json!({"topic": format!("projects/{PROJECT}/topics/{topic}"), "ackDeadlineSeconds": 600});
            emulator
                .call(reqwest::Method::PUT, &format!("subscriptions/{name}"), &pulled)
                .await;
        }
        let mut push = json!({
            "topic": format!("projects/{PROJECT}/topics/events"), "ackDeadlineSeconds": 600,
            "pushConfig": {"pushEndpoint": address},
        });
        push.as_object_mut()
            .unwrap()
            .extend(subscription.as_object().unwrap().clone());
        emulator.call(reqwest::Method::PUT, "subscriptions/push", &push).await;
        Some(Self { emulator, world, door })
    }

    /// Publishes messages in one call, as they are, and gives their ids.
    async fn publish(&self, messages: Value) -> Vec<String> {
        let body = json!({"messages": messages});
        let published = self
            .emulator
            .call(reqwest::Method::POST, "topics/events:publish", &body)
            .await;
        serde_json::from_value(published["messageIds"].clone()).unwrap()
    }

    /// Uploads an invoice under a name and publishes the event of it.
    async fn upload(&self, name: &str) -> String {
        let generation = self.world.upload_fixture(INVOICE, name).await;
        self.publish(json!([event(name, &generation)])).await.remove(0)
    }

    async fn result(&self) -> harness::Received {
        next(&self.emulator, "results").await
    }

    /// What the worker asks of this object in the input bucket is refused, as a missing role would do it: retries do not
    /// help, and the delivery is answered 503.
    fn forbid(&self, name: &str, count: u32) {
        self.world.cloud.add_fault(Fault {
            peer: Some(Peer::Storage),
            method: Some("GET".to_owned()),
            path_prefix: format!("/storage/v1/b/{INPUT}/o/{name}"),
            skip: 0,
            count,
            effect: Effect::Status {
                status: 403,
                retry_after: None,
            },
        });
    }
}

fn event(name: &str, generation: &str) -> Value {
    let attributes = json!({
        "eventType": "OBJECT_FINALIZE", "bucketId": INPUT, "objectId": name, "objectGeneration": generation,
        "payloadFormat": "NONE",
    });
    json!({"data": "", "attributes": attributes})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_holds_against_googles_own_emulator() {
    let Some(bench) = Bench::start(json!({}), &[]).await else {
        return;
    };
    let world = &bench.world;
    let generation = world
        .upload_fixture("documents/plain/report.odt", "reports/q3 – ü.odt")
        .await;
    let publish = async |attributes: Value| bench.publish(json!([{"data": "", "attributes": attributes}])).await;
    let published = bench.publish(json!([event("reports/q3 – ü.odt", &generation)])).await;
    let received = bench.result().await;
    assert_eq!(received.data["status"], "succeeded", "{}", received.data);
    assert_eq!(received.data["messageId"], published[0].as_str());
    assert_eq!(received.attributes["sourceObject"], "reports/q3 – ü.odt");
    let answer = world
        .download(received.data["outputs"][0]["signedUrl"].as_str().unwrap())
        .await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.unwrap().starts_with(b"%PDF-"));

    // A failure is acknowledged: it is published once, and nothing of it comes again before the next event is done.
    publish(json!({"bucketId": INPUT, "objectId": "nowhere.odt"})).await;
    assert_eq!(bench.result().await.data["error"]["code"], "source.not_found");
    publish(json!({"eventType": "OBJECT_DELETE", "bucketId": INPUT, "objectId": "reports/q3 – ü.odt"})).await;
    publish(json!({"bucketId": INPUT, "objectId": "reports/q3 – ü.odt"})).await;
    assert_eq!(bench.result().await.data["jobId"], received.data["jobId"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_lost_is_delivered_again_until_it_is_done() {
    let Some(mut bench) = Bench::start(json!({}), &[]).await else {
        return;
    };
    // Storage says no, and then yes.
    bench.forbid("later.docx", 2);
    let refused = bench.upload("later.docx").await;
    let later = bench.result().await.data;
    assert_eq!(
        (&later["status"], &later["messageId"]),
        (&"succeeded".into(), &refused.as_str().into())
    );
    // The answer follows the result.
    until("it is answered", || {
        (bench.door.of(&refused).last()? == &Some(204)).then_some(())
    })
    .await;
    assert_eq!(bench.door.of(&refused), [Some(503), Some(503), Some(204)]);

    // The worker dies in the middle, and another one begins.
    let generation = bench.world.upload_fixture(INVOICE, "lost.docx").await;
    let lost = bench.publish(json!([event("lost.docx", &generation)])).await.remove(0);
    let zygote = bench.world.worker.zygote().await;
    bench.world.worker.stopped_child(zygote).await;
    assert!(signal(bench.world.worker.pid(), Signal::SIGKILL));
    assert_eq!(bench.world.worker.exit().await, None);
    let mut environment = harness::environment(&bench.world.cloud);
    environment.insert("PUBSUB_EMULATOR_HOST".to_owned(), bench.emulator.host.clone());
    environment.insert("RESULT_TOPIC".to_owned(), format!("projects/{PROJECT}/topics/results"));
    let mut worker = Worker::spawn(&environment);
    worker.ready().await;
    bench.door.0.lock().unwrap().worker.clone_from(&worker.url);
    let result = bench.result().await.data;
    assert_eq!(
        (&result["status"], &result["messageId"]),
        (&"succeeded".into(), &lost.as_str().into())
    );
    until("it is answered", || {
        (bench.door.of(&lost).last()? == &Some(204)).then_some(())
    })
    .await;
    let deliveries = bench.door.of(&lost);
    let (last, before) = deliveries.split_last().unwrap();
    assert!(
        !before.is_empty() && before.iter().all(|status| *status == Some(502)) && *last == Some(204),
        "{deliveries:?}"
    );
    let output = bench.world.object(OUTPUT, "lost.pdf").await.unwrap();
    assert_eq!(output["generation"], result["outputs"][0]["generation"]);
    assert_eq!(bench.world.outputs().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_five_times_comes_to_the_dead_letter_whole() {
    let policy = json!({"deadLetterTopic": format!("projects/{PROJECT}/topics/given-up"), "maxDeliveryAttempts": 5});
    let Some(bench) = Bench::start(json!({"deadLetterPolicy": policy}), &[]).await else {
        return;
    };
    bench.forbid("cursed.docx", 1000);
    let generation = bench.world.upload_fixture(INVOICE, "cursed.docx").await;
    let cursed = event("cursed.docx", &generation);
    let id = bench.publish(json!([cursed])).await.remove(0);
    let given_up = message(&bench.emulator, "given-up").await;
    assert_eq!(bench.door.of(&id), [Some(503); 5]);
    let attributes = given_up["attributes"].as_object().unwrap();
    for (name, value) in cursed["attributes"].as_object().unwrap() {
        assert_eq!(attributes[name], *value, "it could not be published again from there");
    }
    assert_eq!(attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5");
    // Nothing said that it has failed: without deliveryAttempt the worker cannot know which delivery is the last.
    let good = bench.upload("good.docx").await;
    assert_eq!(bench.result().await.data["messageId"], good.as_str());
    // Its cause is gone, and it is published again as it was.
    bench.world.cloud.clear_faults();
    let own: serde_json::Map<_, _> = attributes
        .iter()
        .filter(|(name, _)| !name.starts_with("CloudPubSub"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let again = bench.publish(json!([{"data": "", "attributes": own}])).await.remove(0);
    let result = bench.result().await.data;
    assert_eq!(
        (&result["status"], &result["messageId"]),
        (&"succeeded".into(), &again.as_str().into())
    );
    assert_eq!(bench.door.of(&id).len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_holds_up_its_own_ordering_key_alone() {
    let Some(bench) = Bench::start(json!({"enableMessageOrdering": true}), &[]).await else {
        return;
    };
    bench.forbid("a1.docx", 1000);
    let mut messages = Vec::new();
    for (name, key) in [("a1.docx", "a"), ("a2.docx", "a"), ("b1.docx", "b"), ("b2.docx", "b")] {
        let generation = bench.world.upload_fixture(INVOICE, name).await;
        let mut message = event(name, &generation);
        message["orderingKey"] = key.into();
        messages.push(message);
    }
    let ids = bench.publish(messages.into()).await;
    let [a1, a2, b1, b2] = [0, 1, 2, 3].map(|number| ids[number].as_str());
    // The other key flows while this one is refused again and again.
    for id in [b1, b2] {
        assert_eq!(bench.result().await.data["messageId"], id);
    }
    until("the head has been refused twice more", || {
        (bench.door.of(a1).len() >= 4).then_some(())
    })
    .await;
    assert_eq!(bench.door.of(a2), []);
    bench.world.cloud.clear_faults();
    for id in [a1, a2] {
        let result = bench.result().await.data;
        assert_eq!(
            (&result["messageId"], &result["status"]),
            (&id.into(), &"succeeded".into())
        );
    }
    let deliveries = bench.door.of(a1);
    let refused = deliveries.iter().filter(|status| **status == Some(503)).count();
    assert_eq!(
        (refused, deliveries.last()),
        (deliveries.len() - 1, Some(&Some(204))),
        "{deliveries:?}"
    );
    assert_eq!(bench.door.of(b1), [Some(204)]);
    assert_eq!(bench.world.outputs().await, 4);
}

/// The subscription's deadline is 10 s, the worker's 600 s: it is configured wrongly, and all is well in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_past_the_ack_deadline_is_joined_by_its_redelivery_and_ends() {
    let subscription = json!({"ackDeadlineSeconds": 10, "enableMessageOrdering": true});
    // One slot: a second run of the job would be refused.
    let Some(bench) = Bench::start(subscription, &[("CONVERT_CONCURRENCY", "1")]).await else {
        return;
    };
    let mut messages = Vec::new();
    for name in ["slow.docx", "next.docx"] {
        let generation = bench.world.upload_fixture(INVOICE, name).await;
        let mut message = event(name, &generation);
        message["orderingKey"] = "key".into();
        messages.push(message);
    }
    let ids = bench.publish(messages.into()).await;
    let zygote = bench.world.worker.zygote().await;
    let child = bench.world.worker.stopped_child(zygote).await;
    until("it is delivered again while it runs", || {
        (bench.door.of(&ids[0]).len() == 2).then_some(())
    })
    .await;
    assert_eq!(bench.door.of(&ids[0]), [None, None]);
    assert_eq!(harness::converting(zygote), [child], "a second conversion");
    assert!(signal(child, Signal::SIGCONT));

    let [first, second] = [bench.result().await.data, bench.result().await.data];
    for result in [&first, &second] {
        assert_eq!(
            (&result["messageId"], &result["status"]),
            (&ids[0].as_str().into(), &"succeeded".into())
        );
        assert_eq!(result["outputs"], first["outputs"], "two outputs");
    }
    // The next of the key comes when this one is acknowledged, and no earlier: it has come to its end.
    assert_eq!(bench.result().await.data["messageId"], ids[1].as_str());
    assert_eq!(bench.door.of(&ids[0]), [Some(204); 2]);
    assert_eq!(bench.world.outputs().await, 2);
}

/// The next result, acknowledged.
async fn next(emulator: &Emulator, subscription: &str) -> harness::Received {
    let message = message(emulator, subscription).await;
    let data = STANDARD.decode(message["data"].as_str().unwrap()).unwrap();
    harness::Received {
        data: serde_json::from_slice(&data).unwrap(),
        attributes: serde_json::from_value(message["attributes"].clone()).unwrap(),
    }
}

/// The next message of a subscription as it is, acknowledged.
async fn message(emulator: &Emulator, subscription: &str) -> Value {
    let started = Instant::now();
    loop {
        let path = format!("subscriptions/{subscription}");
        let wanted = json!({"maxMessages": 1, "returnImmediately": true});
        let pulled = emulator
            .call(reqwest::Method::POST, &format!("{path}:pull"), &wanted)
            .await;
        if let Some(received) = pulled["receivedMessages"]
            .as_array()
            .and_then(|received| received.first())
        {
            let ids = json!({"ackIds": [received["ackId"]]});
            emulator
                .call(reqwest::Method::POST, &format!("{path}:acknowledge"), &ids)
                .await;
            return received["message"].clone();
        }
        assert!(started.elapsed() < PATIENCE, "no message came on {subscription}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
