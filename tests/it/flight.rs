//! One run of a job, however many deliveries of it there are at once: what they share, and what each has for itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{INPUT, OUTPUT, Worker, World, cloud, converting, environment, signal, until, versioned_input};

pub(crate) const INVOICE: &str = "documents/plain/invoice.docx";
/// What the worker says, for debugging, of each delivery that finds a run of its job.
pub(crate) const JOINED: &str = "waits for the run that is under way";

/// A push of a job under a message id of its own.
pub(crate) fn message(id: &str, job: &Value) -> Value {
    json!({
        "message": {"data": STANDARD.encode(job.to_string()), "messageId": id},
        "subscription": "projects/p/subscriptions/s",
    })
}

fn source(object: &str) -> Value {
    json!({"source": format!("gs://{INPUT}/{object}")})
}

/// Sends a message in the background, as Pub/Sub does; to be aborted is to hang up.
pub(crate) fn deliver(world: &World, message: &Value) -> JoinHandle<u16> {
    deliver_to(world, &world.worker, message)
}

fn deliver_to(world: &World, worker: &Worker, message: &Value) -> JoinHandle<u16> {
    let request = world
        .http
        .post(&worker.url)
        .header("content-type", "application/json")
        .bearer_auth(world.token())
        .body(message.to_string());
    tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
}

/// Waits until so many deliveries have found a run under way.
pub(crate) async fn joined(world: &World, count: usize) {
    until("the copies have found the run", || {
        (world.worker.log().matches(JOINED).count() >= count).then_some(())
    })
    .await;
}

/// Counts calls by faults that do nothing and are used up by each.
pub(crate) struct Calls {
    url: String,
    http: reqwest::Client,
}

const MANY: u32 = 1_000_000;
pub(crate) const DOWNLOADS: &str = "/download/storage/v1/b/";
pub(crate) const UPLOADS: &str = "/upload/storage/v1/b/output/";

impl Calls {
    pub(crate) fn count(world: &World) -> Self {
        for (method, path) in [("GET", DOWNLOADS), ("POST", UPLOADS)] {
            world.cloud.add_fault(Fault {
                count: MANY,
                ..Fault::once(Peer::Storage, method, path, Effect::Delay { delay_milliseconds: 0 })
            });
        }
        Self {
            url: format!("{}/_faults", world.cloud.urls().storage),
            http: world.http.clone(),
        }
    }

    pub(crate) async fn of(&self, path: &str) -> u32 {
        let rules: Value = self.http.get(&self.url).send().await.unwrap().json().await.unwrap();
        let mut rules = rules.as_array().unwrap().iter();
        let rule = rules.find(|rule| rule["pathPrefix"] == path).unwrap();
        MANY - u32::try_from(rule["count"].as_u64().unwrap()).unwrap()
    }
}

/// So many results, by the message they answer.
async fn results(world: &World, count: usize) -> BTreeMap<String, Value> {
    let mut results = BTreeMap::new();
    for _ in 0..count {
        let result = world.result().await.data;
        let id = result["messageId"].as_str().unwrap().to_owned();
        assert!(results.insert(id, result).is_none(), "two results for one message");
    }
    assert!(world.pull().await.is_none(), "a result too many");
    results
}

async fn statuses(deliveries: Vec<JoinHandle<u16>>) -> Vec<u16> {
    join_all(deliveries).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_copies_share_one_conversion_and_each_has_its_own_result() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1")]).await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let calls = Calls::count(&world);
    let zygote = world.worker.zygote().await;
    let copy = |number: u32| {
        let mut job = source("invoice.docx");
        job["userData"] = json!({"copy": number});
        let (ttl, disposition) = (
            [60, 120][number as usize % 2],
            ["inline", "attachment"][number as usize % 2],
        );
        job["signedUrl"] = json!({"ttl": format!("{ttl}s"), "disposition": disposition});
        message(&format!("m{number}"), &job)
    };
    let mut deliveries = vec![deliver(&world, &copy(0))];
    let child = world.worker.stopped_child(zygote).await;
    deliveries.extend((1..20).map(|number| deliver(&world, &copy(number))));
    joined(&world, 19).await;
    assert!(signal(child, Signal::SIGCONT));
    assert_eq!(statuses(deliveries).await, [204; 20], "{}", world.worker.log());

    let results = results(&world, 20).await;
    let stored = world.object(OUTPUT, "invoice.pdf").await.unwrap();
    for number in 0..20_u32 {
        let result = &results[&format!("m{number}")];
        assert_eq!(result["status"], "succeeded", "{result}");
        assert_eq!(result["userData"], json!({"copy": number}));
        assert_eq!(result["outputs"][0]["generation"], stored["generation"]);
        assert_eq!(result["jobId"], results["m0"]["jobId"]);
        for part in ["fetchMs", "convertMs", "storeMs"] {
            assert_eq!(result["timings"][part], results["m0"]["timings"][part], "{result}");
        }
        let link = result["outputs"][0]["signedUrl"].as_str().unwrap();
        let (ttl, disposition) = (
            [60, 120][number as usize % 2],
            ["inline", "attachment"][number as usize % 2],
        );
        assert!(link.contains(&format!("X-Goog-Expires={ttl}&")), "{link}");
        assert!(
            link.contains(&format!("response-content-disposition={disposition}")),
            "{link}"
        );
    }
    assert_ne!(results["m0"]["timings"]["convertMs"], 0);
    assert_eq!((calls.of(DOWNLOADS).await, calls.of(UPLOADS).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_revision_has_a_run_of_its_own() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "2")]).await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let zygote = world.worker.zygote().await;
    let first = deliver(&world, &message("first", &source("invoice.docx")));
    let child = world.worker.stopped_child(zygote).await;
    let mut job = source("invoice.docx");
    job["revision"] = "2".into();
    // It ends while the other one is held: nothing of it waits for that.
    assert_eq!(deliver(&world, &message("second", &job)).await.unwrap(), 204);
    let second = world.result().await.data;
    assert_eq!(second["messageId"], "second");
    assert!(signal(child, Signal::SIGCONT));
    assert_eq!(first.await.unwrap(), 204);
    let first = world.result().await.data;
    assert_ne!(first["jobId"], second["jobId"]);
    assert_eq!(
        (&first["status"], &second["status"]),
        (&"succeeded".into(), &"succeeded".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_costs_no_conversion() {
    let world = World::start().await;
    let calls = Calls::count(&world);
    let zygote = world.worker.zygote().await;
    for (number, follower) in [(1, true), (2, false)] {
        let object = format!("{number}.docx");
        world.upload_fixture(INVOICE, &object).await;
        let event = message("again", &source(&object));
        let leader = deliver(&world, &event);
        let child = world.worker.stopped_child(zygote).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        if follower {
            let follower = deliver(&world, &event);
            joined(&world, 1).await;
            assert!(signal(child, Signal::SIGCONT));
            assert_eq!(follower.await.unwrap(), 204, "{}", world.worker.log());
        } else {
            assert!(signal(child, Signal::SIGCONT));
            let output = format!("{number}.pdf");
            let started = std::time::Instant::now();
            while world.object(OUTPUT, &output).await.is_none() {
                assert!(
                    started.elapsed() < crate::harness::PATIENCE,
                    "the run ended with its caller"
                );
            }
            assert!(world.pull().await.is_none(), "nobody was there to answer");
            assert_eq!(world.post(&event).await.status(), 204);
        }
        assert_eq!(world.result().await.data["status"], "succeeded");
        assert_eq!((calls.of(DOWNLOADS).await, calls.of(UPLOADS).await), (number, number));
    }
    assert_eq!(world.worker.leftovers(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_is_reported_by_each_and_one_that_is_refused_by_none() {
    let world = World::with(&[("CONVERT_TIMEOUT", "5s")]).await;
    let zygote = world.worker.zygote().await;
    let copies = |object: &str| {
        let messages = ["a", "b", "c"].map(|id| message(id, &source(object)));
        async {
            let [first, others @ ..] = messages;
            let mut deliveries = vec![deliver(&world, &first)];
            let child = world.worker.stopped_child(zygote).await;
            deliveries.extend(others.iter().map(|other| deliver(&world, other)));
            (child, deliveries)
        }
    };
    world
        .upload_fixture("documents/hostile/never-ends.ods", "never-ends.ods")
        .await;
    // It is held until its time is over.
    let (_, deliveries) = copies("never-ends.ods").await;
    joined(&world, 2).await;
    assert_eq!(statuses(deliveries).await, [204; 3], "{}", world.worker.log());
    for (id, result) in results(&world, 3).await {
        assert_eq!(result["error"]["code"], "document.too_complex", "{id}: {result}");
        assert_eq!(result["outputs"], json!([]));
    }

    world.upload_fixture(INVOICE, "invoice.docx").await;
    let (_, deliveries) = copies("invoice.docx").await;
    joined(&world, 4).await;
    assert!(signal(zygote, Signal::SIGKILL));
    assert_eq!(statuses(deliveries).await, [503; 3], "{}", world.worker.log());
    assert!(world.pull().await.is_none(), "what a retry can fix is never reported");
    assert_eq!(world.outputs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_job_leave_one_generation() {
    let world = World::start().await;
    let mut other = Worker::spawn(&environment(&world.cloud));
    other.ready().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let calls = Calls::count(&world);
    let zygotes = [world.worker.zygote().await, other.zygote().await];
    let first = deliver(&world, &message("first", &source("invoice.docx")));
    let second = deliver_to(&world, &other, &message("second", &source("invoice.docx")));
    // Both are inside the document: neither has found the other's output.
    let children = [
        world.worker.stopped_child(zygotes[0]).await,
        other.stopped_child(zygotes[1]).await,
    ];
    for child in children {
        assert!(signal(child, Signal::SIGCONT));
    }
    assert_eq!(statuses(vec![first, second]).await, [204; 2], "{}", other.log());
    let stored = world.object(OUTPUT, "invoice.pdf").await.unwrap();
    for (id, result) in results(&world, 2).await {
        assert_eq!(result["status"], "succeeded", "{id}: {result}");
        assert_eq!(result["outputs"][0]["generation"], stored["generation"], "{id}");
    }
    assert_eq!((calls.of(DOWNLOADS).await, calls.of(UPLOADS).await), (2, 2));
}

/// A bucket that keeps old generations, so that the event of one finds it there.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_generation_never_replaces_a_newer_one_whenever_it_comes() {
    let cloud = cloud().await;
    versioned_input(&cloud, "versioned");
    let mut world = World::beside(
        cloud,
        &[("INPUT_BUCKETS", "input,versioned"), ("CONVERT_CONCURRENCY", "2")],
    );
    world.worker.ready().await;
    let calls = Calls::count(&world);
    let mut events = Vec::new();
    for (object, id) in [
        ("a.rtf", "older"),
        ("a.rtf", "newer"),
        ("b.rtf", "older"),
        ("b.rtf", "newer"),
    ] {
        let text = format!(r"{{\rtf1 The {id} one}}");
        let generation = world.upload_to("versioned", object, text.into_bytes()).await;
        events.push(message(
            id,
            &json!({"source": format!("gs://versioned/{object}"), "generation": generation}),
        ));
    }
    // After it: the names are looked at before anything is fetched.
    assert_eq!(world.post(&events[1]).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
    assert_eq!(world.post(&events[0]).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "superseded");
    assert_eq!((calls.of(DOWNLOADS).await, calls.of(UPLOADS).await), (1, 1));

    // Begun before it and stored after it: the precondition.
    let zygote = world.worker.zygote().await;
    let older = deliver(&world, &events[2]);
    let child = world.worker.stopped_child(zygote).await;
    assert_eq!(converting(zygote), [child]);
    assert_eq!(world.post(&events[3]).await.status(), 204);
    let newer = world.result().await.data;
    assert_eq!(
        (&newer["messageId"], &newer["status"]),
        (&"newer".into(), &"succeeded".into())
    );
    assert!(signal(child, Signal::SIGCONT));
    assert_eq!(older.await.unwrap(), 204);
    assert_eq!(world.result().await.data["status"], "superseded");
    let stored = world.object(OUTPUT, "b.pdf").await.unwrap();
    assert_eq!(stored["generation"], newer["outputs"][0]["generation"]);
}
