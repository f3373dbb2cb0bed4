//! What a delivery does not begin, or does not wait for, because Pub/Sub would not; and what the end of the worker ends.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use platen::engine::Verdict;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::engine::Bench;
use crate::flight::{Calls, DOWNLOADS, INVOICE, JOINED, UPLOADS, deliver, message};
use crate::harness::{INPUT, OUTPUT, World, children, signal};

/// The shortest deadline there is, and the longest conversion that it has room for.
const SHORT: [(&str, &str); 2] = [("ACK_DEADLINE", "10s"), ("CONVERT_TIMEOUT", "5500ms")];
const LOOK: &str = "/storage/v1/b/input/";
const NO_ROOM: &str = "could end after the delivery's deadline";

fn slow(method: &str, path: &str, count: u32, delay_milliseconds: u64) -> Fault {
    fault(method, path, count, Effect::Delay { delay_milliseconds })
}

fn fault(method: &str, path: &str, count: u32, effect: Effect) -> Fault {
    Fault {
        count,
        ..Fault::once(Peer::Storage, method, path, effect)
    }
}

fn job(object: &str) -> Value {
    message("1", &json!({"source": format!("gs://{INPUT}/{object}")}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversion_that_could_end_too_late_is_not_begun() {
    let world = World::with(&SHORT).await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    // What is left after the look is too short, and then what is left after the fetch.
    for path in [LOOK, DOWNLOADS] {
        world.cloud.add_fault(slow("GET", path, 1, 4000));
        // Behind the delay: what is delayed is not counted.
        let calls = Calls::count(&world);
        let answer = world.post(&job("invoice.docx")).await;
        assert_eq!(answer.status(), 503, "{}", world.worker.log());
        assert!(answer.headers().contains_key("retry-after"));
        assert_eq!(calls.of(DOWNLOADS).await, 0, "it was fetched in vain");
        assert_eq!(calls.of(UPLOADS).await, 0, "it was converted");
        world.cloud.clear_faults();
    }
    assert_eq!(world.worker.log().matches(NO_ROOM).count(), 2, "{}", world.worker.log());
    assert!(world.pull().await.is_none());
    assert_eq!(world.worker.leftovers(), Vec::<PathBuf>::new());
    // The next delivery has a whole deadline.
    assert_eq!(world.post(&job("invoice.docx")).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_begins_nothing_that_has_no_time() {
    let bench = Bench::start().await;
    let rtf = br"{\rtf1 text}";
    let refused = bench.convert_bytes("a.rtf", rtf, |conversion| conversion.deadline = Some(Instant::now()));
    assert!(matches!(refused.await, Err(Verdict::EngineUnavailable(why)) if why.contains(NO_ROOM)));
    let converted = bench.convert_bytes("a.rtf", rtf, |conversion| {
        conversion.deadline = Some(Instant::now() + conversion.limits.wall * 2);
    });
    converted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_at_its_deadline_is_refused_and_its_run_goes_on_to_its_own() {
    let world = World::with(&[("ACK_DEADLINE", "20s"), ("CONVERT_TIMEOUT", "5s")]).await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    world
        .cloud
        .add_fault(fault("POST", UPLOADS, 1, Effect::Silence { silence: true }));
    let event = job("invoice.docx");
    assert_eq!(world.post(&event).await.status(), 503);
    let log = world.worker.log();
    let mut lines = log.lines();
    let line = lines
        .find(|line| line.contains("its outputs are not there yet"))
        .expect(&log);
    assert!(
        line.contains("convertMs=") && line.contains("storeMs="),
        "what was under way has its time: {line}"
    );
    // The run is still there, ends at its own deadline, and holds its slot no longer.
    assert_eq!(world.post(&event).await.status(), 503);
    let log = world.worker.log();
    assert!(log.contains(JOINED), "{log}");
    assert!(
        log.contains("not fetched, converted and stored within ACK_DEADLINE"),
        "{log}"
    );
    assert!(world.pull().await.is_none());
    assert_eq!(world.worker.leftovers(), Vec::<PathBuf>::new());
    assert_eq!(world.post(&event).await.status(), 204, "{}", world.worker.log());
    assert_eq!(world.result().await.data["status"], "succeeded");
    assert_eq!(world.worker.log().matches(JOINED).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_does_not_get_out_in_time_is_refused() {
    let world = World::with(&SHORT).await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let mut publish = fault(
        "POST",
        "/v1/projects/local-project/topics/results:publish",
        1,
        Effect::Silence { silence: true },
    );
    publish.peer = Some(Peer::Pubsub);
    world.cloud.add_fault(publish);
    assert_eq!(world.post(&job("invoice.docx")).await.status(), 503);
    let log = world.worker.log();
    assert!(log.contains("its result is not out yet"), "{log}");
    assert_eq!(world.post(&job("invoice.docx")).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_outputs_than_a_delivery_has_time_for_are_stored_by_several() {
    let world = World::with(&SHORT).await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    world.cloud.add_fault(slow("POST", UPLOADS, 1000, 3000));
    let formats = ["pdf", "txt", "html", "png", "rtf"];
    let outputs: Vec<Value> = formats.iter().map(|format| json!({"format": format})).collect();
    let event = message(
        "1",
        &json!({"source": format!("gs://{INPUT}/invoice.docx"), "outputs": outputs}),
    );
    let mut refused = Vec::new();
    // Each stores at least one: the deliveries cannot be more than the outputs.
    while world.post(&event).await.status() == 503 {
        assert!(world.pull().await.is_none(), "a part of the outputs was reported");
        let first = world
            .object(OUTPUT, "invoice.pdf")
            .await
            .expect("the first output is there");
        refused.push(first["generation"].clone());
        assert!(refused.len() < formats.len(), "{}", world.worker.log());
    }
    assert!(!refused.is_empty(), "one delivery had time for all");
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}");
    let outputs = result["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), formats.len());
    for (output, format) in outputs.iter().zip(formats) {
        assert_eq!(output["format"], format);
    }
    for generation in refused {
        assert_eq!(generation, outputs[0]["generation"], "it was made again");
    }
}

/// Wherever a run is when the worker is told to end: in the engine, or at Google's.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_runs_that_nobody_waits_for_and_leaves_nothing() {
    for silent in [None, Some(("GET", DOWNLOADS)), Some(("POST", UPLOADS))] {
        let mut world = World::start().await;
        world.upload_fixture(INVOICE, "invoice.docx").await;
        if let Some((method, path)) = silent {
            world
                .cloud
                .add_fault(fault(method, path, 1000, Effect::Silence { silence: true }));
        }
        let zygote = world.worker.zygote().await;
        let caller = deliver(&world, &job("invoice.docx"));
        match silent {
            None => drop(world.worker.stopped_child(zygote).await),
            Some((_, path)) => called(&world, path).await,
        }
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert!(signal(world.worker.pid(), Signal::SIGTERM));
        assert_eq!(world.worker.exit().await, Some(0), "{}", world.worker.log());
        assert!(!signal(zygote, Signal::SIGCONT), "the zygote outlived the worker");
        let left: Vec<_> = std::fs::read_dir(world.worker.temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{silent:?}: {left:?}");
        assert!(world.object(OUTPUT, "invoice.pdf").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_waits_when_the_worker_ends_is_answered() {
    let mut world = World::start().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    world
        .cloud
        .add_fault(fault("GET", DOWNLOADS, 1000, Effect::Silence { silence: true }));
    let zygote = world.worker.zygote().await;
    let caller = deliver(&world, &job("invoice.docx"));
    called(&world, DOWNLOADS).await;
    assert!(signal(world.worker.pid(), Signal::SIGTERM));
    assert_eq!(caller.await.unwrap(), 503, "{}", world.worker.log());
    assert_eq!(world.worker.exit().await, Some(0), "{}", world.worker.log());
    assert_eq!(children(zygote), Vec::<u32>::new());
    assert!(world.pull().await.is_none());
}

/// Waits until the worker has made a call that a fault is for.
async fn called(world: &World, path: &str) {
    let url = format!("{}/_faults", world.cloud.urls().storage);
    let started = std::time::Instant::now();
    loop {
        let rules: Value = world.http.get(&url).send().await.unwrap().json().await.unwrap();
        let rule = rules.as_array().unwrap().iter().find(|rule| rule["pathPrefix"] == path);
        if rule.unwrap()["count"].as_u64().unwrap() < 1000 {
            return;
        }
        assert!(started.elapsed() < crate::harness::PATIENCE, "{path} is never called");
    }
}
