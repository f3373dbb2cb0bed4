//! What a point can do besides killing: refuse as if Google did, panic, wait. At every point of a delivery that
//! converts, one after the other; the delivery after it goes on from there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::plan::{POINTS, lost_upload};
use super::points::{Points, Word};
use crate::harness::{OUTPUT, World, cloud, notification};

/// What happens at which point, until it has happened.
type Next = Arc<Mutex<Option<(&'static str, Word)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_panics_at_any_step_is_not_acknowledged_and_done_the_next_time() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("points");
    let (next, passed) = (Next::default(), Arc::new(Mutex::new(BTreeSet::new())));
    let (wanted, seen) = (Arc::clone(&next), Arc::clone(&passed));
    let _points = Points::listen(&socket, move |name| {
        let mut next = wanted.lock().unwrap();
        let hit = next.filter(|(point, _)| *point == name);
        if hit.is_some() {
            *next = None;
        }
        drop(next);
        seen.lock().unwrap().insert(name);
        async move { hit.map_or(Word::Go, |(_, word)| word) }
    });
    let mut world = World::beside(cloud().await, &[("PLATEN_FAILPOINTS", socket.to_str().unwrap())]);
    world.worker.ready().await;
    for point in POINTS {
        let object = format!("{point}.txt");
        // Outside of the pipeline a panic costs the connection, which to Pub/Sub is a refusal like any other.
        let outside = ["token.verified", "answer.before"].contains(&point);
        for (word, status) in [(Word::Refuse, 503), (Word::Panic, 500)]
            .into_iter()
            .take(2 - usize::from(outside))
        {
            // What is stored already is not converted again: each word gets a source to itself.
            let object = format!("{word:?}-{object}");
            let generation = world.upload(&object, b"Some text.".to_vec()).await;
            let event = notification(&object, &generation);
            if point == "store.precondition_failed" {
                // Only a write that meets another one comes by there.
                world.cloud.add_fault(lost_upload());
            }
            *next.lock().unwrap() = Some((point, word));
            let answer = world.post(&event).await;
            assert_eq!(answer.status(), status, "{point}: {word:?}\n{}", world.worker.log());
            assert_eq!(*next.lock().unwrap(), None, "{point} was not passed");
            assert_eq!(world.post(&event).await.status(), 204, "{point} after {word:?}");
            let name = object.replace(".txt", ".pdf");
            let stored = world.object(OUTPUT, &name).await.unwrap();
            // Behind the publishing there are two results, else one: never none, never more (the next would not fit), and
            // never another output.
            let published_before = ["publish.after", "answer.before"].contains(&point);
            for _ in 0..=usize::from(published_before) {
                let result = world.result().await.data;
                assert_eq!(result["status"], "succeeded", "{result}");
                assert_eq!(result["outputs"][0]["generation"], stored["generation"], "{point}");
            }
        }
    }
    assert!(world.pull().await.is_none(), "there is a result more");
    let known: BTreeSet<String> = POINTS.map(str::to_owned).into();
    let unknown: Vec<_> = passed.lock().unwrap().difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "points that no run kills at: {unknown:?}");
}
