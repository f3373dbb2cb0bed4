//! Three workers that are killed now and then, and begin anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use platen::local_cloud::LocalCloud;

use super::WORKERS;
use super::door::Door;
use crate::harness::{Worker, environment, signal, until};
use crate::stock::Random;

pub(super) struct Fleet {
    workers: Vec<Worker>,
    environment: HashMap<String, String>,
    random: Random,
    pub(super) kills: usize,
}

impl Fleet {
    pub(super) async fn start(cloud: &LocalCloud, door: &Door, seed: u64) -> Self {
        let mut environment = environment(cloud);
        let attempts = super::ATTEMPTS.to_string();
        for (name, value) in [
            ("ACK_DEADLINE", "30s"),
            ("CONVERT_TIMEOUT", "10s"),
            ("CONVERT_CONCURRENCY", "2"),
            ("INPUT_BUCKETS", "input,archive"),
            // As deploy/setup.sh tells it: the worker has no right to look at the subscription.
            ("MAX_DELIVERY_ATTEMPTS", &attempts),
            ("INPUT_EXCLUDE", "left-out/*"),
            // Three workers' words over ten thousand messages are kept in memory.
            ("RUST_LOG", "warn"),
        ] {
            environment.insert(name.to_owned(), value.to_owned());
        }
        let mut fleet = Self {
            workers: Vec::new(),
            environment,
            random: Random::of(seed ^ 0x6b69_6c6c),
            kills: 0,
        };
        for place in 0..WORKERS {
            let worker = fleet.another().await;
            door.set(place, worker.url.clone());
            fleet.workers.push(worker);
        }
        fleet
    }

    /// Kills one whenever about `every` more messages are acknowledged, until it is over.
    pub(super) async fn kill_now_and_then(&mut self, door: &Door, every: usize, over: &AtomicBool) {
        let mut next = every / 2 + self.random.below(every);
        while !over.load(Ordering::Acquire) {
            if door.acknowledged() < next {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            next += every / 2 + self.random.below(every);
            let place = self.random.below(WORKERS);
            self.kill(door, place).await;
        }
    }

    /// Its zygote and its children must go with it. The door finds out by itself that nobody is there.
    async fn kill(&mut self, door: &Door, place: usize) {
        let worker = &mut self.workers[place];
        let zygote = worker.zygote().await;
        assert!(signal(worker.pid(), Signal::SIGKILL));
        assert_eq!(worker.exit().await, None, "killed");
        until("the zygote ends with its worker", || {
            (!std::path::Path::new(&format!("/proc/{zygote}")).exists()).then_some(())
        })
        .await;
        no_panic(&worker.log());
        self.kills += 1;
        let worker = self.another().await;
        door.set(place, worker.url.clone());
        self.workers[place] = worker;
    }

    /// One that cannot start, because everything it needs meets a fault or the machine has no time for it, ends and says
    /// why; the platform starts another.
    async fn another(&self) -> Worker {
        for _ in 0..5 {
            let mut worker = Worker::spawn(&self.environment);
            if worker.becomes_ready().await {
                return worker;
            }
            println!("a worker did not start: {}", worker.log());
        }
        panic!("no worker starts");
    }

    /// All end in order, and leave nothing.
    pub(super) async fn stop(&mut self) {
        for worker in &mut self.workers {
            assert!(signal(worker.pid(), Signal::SIGTERM));
            let status = worker.exit().await;
            assert_eq!(status, Some(0), "{}", worker.log());
            no_panic(&worker.log());
            let left: Vec<_> = std::fs::read_dir(worker.temporary.path()).unwrap().collect();
            assert!(left.is_empty(), "left in TMPDIR: {left:?}");
        }
    }
}

fn no_panic(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
}
