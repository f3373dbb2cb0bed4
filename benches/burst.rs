//! What a burst costs those who are in it: `make burst`.
//!
//! Both rounds run in one go against one worker, beside a small Google Cloud on this machine: first as many senders as there
//! are slots, each with a job after the other, then ten times as many. Who is refused waits as long as Pub/Sub does at
//! least (100 ms) and comes again. It prints how long accepted jobs take in both, how long a refusal takes, and what the
//! worker's memory does. Everything shares this machine's processors, the senders too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a benchmark that cannot measure says so by failing"
)]

#[allow(dead_code, reason = "it is the tests', which use all of it")]
#[path = "../tests/it/harness.rs"]
mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{World, notification};

const DOCUMENT: &str = "documents/plain/invoice.docx";
/// Senders for each slot in the burst.
const EXCESS: usize = 10;
/// What Pub/Sub waits at least after a refusal.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How long requests took, in milliseconds.
#[derive(Default)]
struct Times {
    accepted: Vec<f64>,
    refused: Vec<f64>,
}

fn main() {
    if !std::path::Path::new("/usr/lib/libreoffice/program").is_dir() {
        println!("skipped: LibreOffice is not installed");
        return;
    }
    let jobs = std::env::var("PLATEN_BURST_JOBS").map_or(400, |jobs| jobs.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.unwrap().block_on(measure(jobs));
}

async fn measure(jobs: usize) {
    let slots = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let concurrency = slots.to_string();
    let world = World::with(&[("CONVERT_CONCURRENCY", &concurrency), ("RUST_LOG", "info")]).await;
    let world = Arc::new(world);
    // Warm, and at its usual size.
    round(&world, "warm", slots, 50).await;
    let before = resident(&world);
    // In turns, because a machine is not equally fast all the time.
    let (mut calm, mut burst) = (Times::default(), Times::default());
    for turn in 0..4 {
        calm.add(round(&world, &format!("calm{turn}"), slots, jobs / 4).await);
        burst.add(round(&world, &format!("burst{turn}"), slots * EXCESS, jobs / 4).await);
    }
    let after = resident(&world);
    assert!(
        calm.refused.is_empty() || calm.refused.len() < jobs / 20,
        "refusals without excess: {}",
        calm.refused.len()
    );
    println!("{slots} slots, {jobs} jobs each way, of {DOCUMENT}; milliseconds");
    let line = |what: &str, times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            times
                .get(((times.len().max(1) - 1) as f64 * share).round() as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        println!(
            "{what:<40} {:>6}   p50 {:>8.2}   p99 {:>8.2}",
            times.len(),
            at(0.5),
            at(0.99)
        );
        at(0.99)
    };
    let without = line("accepted, every slot busy, no excess", &mut calm.accepted);
    let with = line(
        &format!("accepted, {EXCESS} times as many senders"),
        &mut burst.accepted,
    );
    line("refused (429)", &mut burst.refused);
    println!("refused without excess: {}", calm.refused.len());
    println!("accepted, p99 with excess over without: {:.2}", with / without);
    println!("worker: {} MiB before, {} MiB after", before >> 20, after >> 20);
}

impl Times {
    fn add(&mut self, mut other: Self) {
        self.accepted.append(&mut other.accepted);
        self.refused.append(&mut other.refused);
    }
}

/// So many jobs, from so many senders at once. All documents are there before the first is asked for.
async fn round(world: &Arc<World>, name: &str, senders: usize, jobs: usize) -> Times {
    let mut events = Vec::with_capacity(jobs);
    for number in 0..jobs {
        let object = format!("{name}/{number}.docx");
        let generation = world.upload_fixture(DOCUMENT, &object).await;
        events.push(notification(&object, &generation).to_string());
    }
    let (events, next) = (Arc::new(events), Arc::new(AtomicUsize::new(0)));
    let token = world.token();
    let senders: Vec<_> = (0..senders)
        .map(|_| {
            let (world, events, next, token) = (world.clone(), events.clone(), next.clone(), token.clone());
            tokio::spawn(async move {
                let mut times = Times::default();
                while let Some(event) = events.get(next.fetch_add(1, Ordering::Relaxed)) {
                    loop {
                        let began = Instant::now();
                        let answer = world.request(event.clone()).bearer_auth(&token).send().await.unwrap();
                        let took = began.elapsed().as_secs_f64() * 1000.0;
                        match answer.status().as_u16() {
                            204 => {
                                times.accepted.push(took);
                                break;
                            }
                            429 => times.refused.push(took),
                            other => panic!("{other}\n{}", world.worker.log()),
                        }
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
                times
            })
        })
        .collect();
    let mut all = Times::default();
    for sender in senders {
        all.add(sender.await.unwrap());
    }
    assert_eq!(all.accepted.len(), jobs);
    all
}

/// Bytes of the worker's memory that are resident.
fn resident(world: &World) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", world.worker.pid())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
