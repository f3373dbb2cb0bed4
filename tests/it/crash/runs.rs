//! The runs themselves: seeds are taken by clouds that work at once, and what was killed where is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::judge;
use super::lane::{Lane, Run};
use super::plan::{CHILD, POINTS, Plan, STEPS};

/// Clouds that work at once, with two workers each.
const LANES: usize = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// What was killed where: by step, at which passes.
type Table = BTreeMap<&'static str, Vec<(u32, u64)>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_at_any_step_loses_nothing_and_doubles_nothing() {
    let seeds: VecDeque<u64> = match number("PLATEN_CRASH_SEED") {
        Some(seed) => [seed].into(),
        None => {
            let full = std::env::var_os("PLATEN_FULL").map_or(STEPS as u64, |_| 200);
            (0..number("PLATEN_CRASH_RUNS").unwrap_or(full)).collect()
        }
    };
    let count = seeds.len();
    let seeds = Arc::new(Mutex::new(seeds));
    let table = Arc::new(Mutex::new(Table::new()));
    let lanes: Vec<_> = (0..LANES.min(count))
        .map(|_| tokio::spawn(work(Arc::clone(&seeds), Arc::clone(&table))))
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
    let table = table.lock().unwrap();
    println!("{count} runs; the worker was killed at:");
    for step in POINTS.into_iter().chain([CHILD]) {
        let kills = table.get(step).map_or(&[][..], Vec::as_slice);
        let at = |wanted: u32| kills.iter().filter(|(pass, _)| *pass == wanted).count();
        println!(
            "  {step:<26} {:>3} (first pass {}, second {})",
            kills.len(),
            at(1),
            at(2)
        );
        assert!(count < STEPS || !kills.is_empty(), "{step} was never reached");
    }
}

async fn work(seeds: Arc<Mutex<VecDeque<u64>>>, table: Arc<Mutex<Table>>) {
    let mut lane = Lane::start().await;
    loop {
        let Some(seed) = seeds.lock().unwrap().pop_front() else {
            break;
        };
        let plan = Plan::of(seed);
        let told = OnFailure(format!("{plan:#?}"), seed);
        let (step, pass) = (plan.step, plan.pass);
        let run = lane.run(plan).await;
        let story = Story(&run, &lane);
        judge::judge(&lane, &run).await;
        assert!(
            run.killed.first().is_some_and(|(point, _)| point == step),
            "no worker was killed at {step}, pass {pass}"
        );
        println!("seed {seed}: killed at {step}, pass {pass}");
        table.lock().unwrap().entry(step).or_default().push((pass, seed));
        drop((story, told));
    }
    lane.end().await;
}

/// How to repeat a run that fails.
struct OnFailure(String, u64);

impl Drop for OnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {} failed: {}\nRepeat it: PLATEN_CRASH_SEED={} cargo test --features failpoints --test it crash:: -- --nocapture",
                self.1, self.0, self.1
            );
        }
    }
}

/// What happened in it.
struct Story<'a>(&'a Run, &'a Lane);

impl Drop for Story<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}\npublished: {:?}\n{}",
                self.0.trace.join("\n"),
                self.0.published,
                self.1.logs()
            );
        }
    }
}
