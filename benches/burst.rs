//! What a burst costs those who are in it: `make burst`.
//!
//! One worker beside a small Google Cloud on this machine. Two kinds of rounds take turns, because a machine is not equally
//! fast all the time: as many senders as there are slots, each with one job after the other; then ten times as many. Who is
//! refused waits as long as Pub/Sub does at least (100 ms) and comes again with the same job. Senders, cloud, worker and
//! conversions share this machine's processors.
//!
//! It prints how long accepted jobs take in both, how long a refusal takes, and what the worker's memory does, and whether
//! that is what is aimed at; it asserts nothing, because a machine with other work misses any time. How long the least that
//! the worker answers takes meanwhile (`GET /health/live`) says how much of a time is the machine's.
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

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{INPUT, World, job};
use serde_json::json;

const DOCUMENT: &str = "documents/plain/invoice.docx";
/// Senders for each slot in the burst.
const EXCESS: usize = 10;
/// What Pub/Sub waits at least after a refusal.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Rounds of each kind.
const TURNS: u32 = 8;
/// Accepted jobs' p99 with excess over that without.
const AIM_RATIO: f64 = 1.5;
/// Milliseconds until a refusal is there.
const AIM_REFUSAL: f64 = 10.0;
/// What the worker may have more at the end, in MiB: the thousand links that it remembers take two, and an allocator's
/// arenas.
const AIM_GROWTH: f64 = 6.0;

/// How long requests took, in milliseconds.
#[derive(Default)]
struct Times {
    accepted: Vec<f64>,
    refused: Vec<f64>,
    live: Vec<f64>,
    /// Of all rounds.
    took: Duration,
    /// Of the worker, without zygote and conversions, in milliseconds. It depends little on what else the machine does.
    processor: f64,
}

fn main() {
    if !std::path::Path::new("/usr/lib/libreoffice/program").is_dir() {
        println!("skipped: LibreOffice is not installed");
        return;
    }
    let seconds = std::env::var("PLATEN_BURST_SECONDS").map_or(80, |seconds| seconds.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime
        .unwrap()
        .block_on(measure(Duration::from_secs(seconds) / (2 * TURNS)));
}

async fn measure(turn: Duration) {
    let slots = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let concurrency = slots.to_string();
    let world = World::with(&[("CONVERT_CONCURRENCY", &concurrency), ("RUST_LOG", "info")]).await;
    let bench = Arc::new(Bench {
        world,
        next: AtomicUsize::new(0),
    });
    bench.world.upload_fixture(DOCUMENT, "document.docx").await;
    // Warm, and at its usual size.
    bench.round(slots * EXCESS, turn).await;
    let before = bench.resident();
    let (mut calm, mut burst) = (Times::default(), Times::default());
    for number in 0..TURNS {
        calm.add(bench.round(slots, turn).await);
        burst.add(bench.round(slots * EXCESS, turn).await);
        if number + 1 == TURNS / 2 {
            println!("the worker halfway: {:.1} MiB", bench.resident());
        }
    }
    let after = bench.resident();
    println!("{slots} slots, {DOCUMENT}, {TURNS} rounds of {turn:?} of each kind; milliseconds");
    let without = line("accepted, every slot busy, no excess", &mut calm.accepted).p99;
    let with = line(
        &format!("accepted, {EXCESS} times as many senders"),
        &mut burst.accepted,
    )
    .p99;
    let refusal = line("refused (429)", &mut burst.refused).p99;
    line("GET /health/live, no excess", &mut calm.live);
    line("GET /health/live, with excess", &mut burst.live);
    println!(
        "jobs a second: {:.1} without excess, {:.1} with; refusals a second: {:.0}, without excess in all: {}",
        calm.accepted.len() as f64 / calm.took.as_secs_f64(),
        burst.accepted.len() as f64 / burst.took.as_secs_f64(),
        burst.refused.len() as f64 / burst.took.as_secs_f64(),
        calm.refused.len()
    );
    let job = calm.processor / calm.accepted.len() as f64;
    let refused = (burst.processor - job * burst.accepted.len() as f64) / burst.refused.len() as f64;
    println!("processor time of the worker alone: a job {job:.2} ms, a refusal {refused:.3} ms");
    aim("accepted, p99 with excess over without", with / without, AIM_RATIO);
    aim("refused, p99 in milliseconds", refusal, AIM_REFUSAL);
    println!("the worker: {before:.1} MiB before, {after:.1} MiB after");
    aim("the worker's growth in MiB", after - before, AIM_GROWTH);
}

fn aim(what: &str, measured: f64, most: f64) {
    let met = if measured <= most { "met" } else { "MISSED" };
    println!("{what:<40} {measured:>6.2}, aim {most}: {met}");
}

/// Some of the points that a part of all times stays below.
struct Line {
    p99: f64,
}

fn line(what: &str, times: &mut [f64]) -> Line {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
        times.get(index).copied().unwrap_or(f64::NAN)
    };
    println!(
        "{what:<40} {:>6}   p50 {:>8.2}   p90 {:>8.2}   p99 {:>8.2}   most {:>8.2}",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    Line { p99: at(0.99) }
}

impl Times {
    fn add(&mut self, mut other: Self) {
        self.accepted.append(&mut other.accepted);
        self.refused.append(&mut other.refused);
        self.live.append(&mut other.live);
        self.took += other.took;
        self.processor += other.processor;
    }
}

struct Bench {
    world: World,
    /// Of all jobs: each has an output of its own.
    next: AtomicUsize,
}

impl Bench {
    /// So many senders at once, for so long. Each comes to the end of the job that it has in work.
    async fn round(self: &Arc<Self>, senders: usize, time: Duration) -> Times {
        let (began, processor) = (Instant::now(), self.processor());
        let mut tasks = vec![tokio::spawn(self.clone().look(began + time))];
        tasks.extend((0..senders).map(|_| tokio::spawn(self.clone().send(began + time))));
        let mut all = Times::default();
        for task in tasks {
            all.add(task.await.unwrap());
        }
        all.took = began.elapsed();
        all.processor = self.processor() - processor;
        all
    }

    async fn send(self: Arc<Self>, end: Instant) -> Times {
        let mut times = Times::default();
        let token = self.world.token();
        while Instant::now() < end {
            let name = format!("{}.pdf", self.next.fetch_add(1, Ordering::Relaxed));
            let event = job(&json!({
                "source": format!("gs://{INPUT}/document.docx"),
                "outputs": [{"format": "pdf", "name": name}],
            }))
            .to_string();
            // Who is refused until the end has none.
            while Instant::now() < end {
                let began = Instant::now();
                let request = self.world.request(event.clone()).bearer_auth(&token);
                let status = request.send().await.unwrap().status().as_u16();
                let took = began.elapsed().as_secs_f64() * 1000.0;
                match status {
                    204 => {
                        times.accepted.push(took);
                        break;
                    }
                    429 => times.refused.push(took),
                    other => panic!("{other}\n{}", self.world.worker.log()),
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
        times
    }

    async fn look(self: Arc<Self>, end: Instant) -> Times {
        let mut times = Times::default();
        let url = format!("{}/health/live", self.world.worker.url);
        while Instant::now() < end {
            let began = Instant::now();
            let answer = self.world.http.get(&url).send().await.unwrap();
            times.live.push(began.elapsed().as_secs_f64() * 1000.0);
            assert_eq!(answer.status(), 200);
            tokio::time::sleep(BACK_OFF / 5).await;
        }
        times
    }

    /// Milliseconds of processor time that the worker has taken so far: proc(5), utime and stime, in hundredths of a second.
    fn processor(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.world.worker.pid())).unwrap();
        let fields = text.rsplit(')').next().unwrap().split_whitespace();
        fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<f64>().unwrap() * 10.0)
            .sum()
    }

    /// MiB of the worker's memory that are resident.
    fn resident(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.world.worker.pid())).unwrap();
        let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        let resident = fields["VmRSS"].trim().trim_end_matches(" kB");
        resident.parse::<f64>().unwrap() / 1024.0
    }
}
