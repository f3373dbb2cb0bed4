//! A panic through the front door: in a run, which several deliveries may share, and in a delivery itself. It is a 500 for
//! all who wait, a last delivery has its result all the same, and what the job held comes back.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use super::points::{Points, Word};
use crate::flight::{JOINED, deliver, message};
use crate::harness::{INPUT, PATIENCE, World, cloud, notification};

/// In the delivery up to the look, in the run, and in the delivery again; one of each part that can hold something.
const POINTS: [&str; 8] = [
    "event.decoded",
    "look.after",
    "find.before",
    "slot.taken",
    "fetch.middle",
    "convert.after",
    "store.after",
    "sign.each",
];

/// A worker with one slot, whose delivery panics at the point that is named, once.
async fn world(
    panics: &Arc<Mutex<Option<&'static str>>>,
    variables: &[(&str, &str)],
) -> (World, Points, tempfile::TempDir) {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("points");
    let next = Arc::clone(panics);
    let points = Points::listen(&socket, move |name| {
        let hit = next.lock().unwrap().take_if(|point| *point == name).is_some();
        async move { if hit { Word::Panic } else { Word::Go } }
    });
    let variables = [
        &[
            ("PLATEN_FAILPOINTS", socket.to_str().unwrap()),
            ("CONVERT_CONCURRENCY", "1"),
        ],
        variables,
    ]
    .concat();
    let mut world = World::beside(cloud().await, &variables);
    world.worker.ready().await;
    (world, points, sockets)
}

/// A place that was held is free again, soon after its answer.
async fn done_at_last(world: &World, event: &Value) {
    let started = Instant::now();
    loop {
        match world.post(event).await.status().as_u16() {
            204 => return,
            429 => assert!(started.elapsed() < PATIENCE, "the place never came back"),
            status => panic!("{status}: {}", world.worker.log()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_on_the_last_delivery_is_a_bug_that_is_reported() {
    let panics = Arc::new(Mutex::new(None));
    let (world, _points, _sockets) = world(&panics, &[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    for point in POINTS {
        let object = format!("{point}.txt");
        let generation = world.upload(&object, b"Some text.".to_vec()).await;
        let event = notification(&object, &generation);
        let mut last = event.clone();
        last["deliveryAttempt"] = 5.into();
        *panics.lock().unwrap() = Some(point);
        let answer = world.post(&last).await;
        assert_eq!(answer.status(), 500, "{point}\n{}", world.worker.log());
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "worker.bug", "{point}");
        assert_eq!(*panics.lock().unwrap(), None, "{point} was not passed");
        let result = world.result().await.data;
        assert_eq!(result["error"]["code"], "attempts.exhausted", "{point}: {result}");
        assert_eq!(result["error"]["detail"]["cause"]["code"], "bug", "{point}: {result}");
        assert_eq!(result["messageId"], event["message"]["messageId"], "{point}: {result}");
        assert_eq!(result["source"]["name"], object.as_str(), "{point}: {result}");
        // One that is not the last takes a place again, and finds the one there is.
        done_at_last(&world, &event).await;
        let done = world.result().await.data;
        assert_eq!(done["status"], "succeeded", "{point}: {done}");
        // At the very first of them the event is known, and not yet what job it makes.
        if point != "event.decoded" {
            assert_eq!(done["jobId"], result["jobId"], "{point}: {done}");
        }
    }
    assert!(world.pull().await.is_none(), "there is a result more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_run_is_a_500_for_all_who_share_it() {
    let panics = Arc::new(Mutex::new(None));
    let (world, _points, _sockets) = world(&panics, &[]).await;
    world.upload("shared.txt", b"Some text.".to_vec()).await;
    let copy = |id: &str| message(id, &json!({"source": format!("gs://{INPUT}/shared.txt")}));
    let zygote = world.worker.zygote().await;
    *panics.lock().unwrap() = Some("convert.after");
    let mut deliveries = vec![deliver(&world, &copy("0"))];
    let child = world.worker.stopped_child(zygote).await;
    deliveries.extend(["1", "2"].map(|id| deliver(&world, &copy(id))));
    crate::harness::until("the copies have found the run", || {
        (world.worker.log().matches(JOINED).count() >= 2).then_some(())
    })
    .await;
    assert!(crate::harness::signal(child, nix::sys::signal::Signal::SIGCONT));
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap(), 500, "{}", world.worker.log());
    }
    assert!(world.pull().await.is_none(), "a bug was reported as the job's end");
    // Nothing is kept of it.
    done_at_last(&world, &copy("3")).await;
    assert_eq!(world.result().await.data["status"], "succeeded");
}
