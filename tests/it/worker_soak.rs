//! The worker for a long time at 80 % of what it can do, while a few of all calls fail: it does not grow, leaves nothing
//! on the disk, loses no message, and has every output and every result.
//!
//! A quarter of a minute in the suite; `PLATEN_SOAK_MINUTES=20 cargo test --test it soak_of_the_worker -- --nocapture` for
//! the whole soak. `PLATEN_SEED` fixes the documents' order and which calls fail. A table over time is printed however it
//! ends.
//!
//! What the worker can do changes with what else the machine does, so the load is no rate: a job is published when a slot
//! is free for it and all slots together were busy for less than 80 % of the time so far. So there is never a backlog.
//!
//! Growth is judged by the Theil-Sen slope (the median of the slopes between all pairs of samples, which no peak moves)
//! over the last three quarters of the time. What it adds up to over that time must stay within [`NOISE`] and a slope of
//! [`SLOPE`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::engine::shared_documents;
use crate::harness::{self, INPUT, OUTPUT, PATIENCE, World, fixture, job, signal, until};
use crate::stock::{Random, files};

/// Of how many calls to each endpoint one fails: 3 %.
const PROBABILITY: f64 = 0.03;
/// A call that hangs takes a slot for the whole of a time-out: one in a thousand, and none in a short run.
const RARE: f64 = 0.001;
/// Of the slots' time, how much is spent on jobs.
const LOAD: f64 = 0.8;
/// How often is looked whether there is room for the next job: jobs take ten times as long and more.
const TURN: Duration = Duration::from_millis(5);
/// Minutes. From here on the shared documents take part, and calls that hang.
const LONG: f64 = 5.0;
const SLOTS: usize = 2;
/// KiB that a process gains or loses between two samples for no reason of ours: an allocator's arenas, buffers of the
/// documents that happen to be under way, pages of the program that are touched for the first time.
const NOISE: f64 = 2048.0;
/// KiB a minute that are taken for none: a few hundred jobs are done in it, so a leak of 200 bytes a job is seen.
const SLOPE: f64 = 64.0;
/// Descriptors or threads that may be there more at the end than in the second quarter.
const MORE: f64 = 8.0;

#[tokio::test(flavor = "multi_thread")]
async fn soak_of_the_worker() {
    let minutes: f64 = std::env::var("PLATEN_SOAK_MINUTES").map_or(0.25, |minutes| minutes.parse().unwrap());
    let seed: u64 = std::env::var("PLATEN_SEED").map_or(20_260_101, |seed| seed.parse().unwrap());
    let time = Duration::from_secs_f64(minutes * 60.0);
    let slots = SLOTS.to_string();
    let mut world = World::with(&[
        ("CONVERT_CONCURRENCY", &slots),
        ("CONVERT_TIMEOUT", "30s"),
        ("RUST_LOG", "warn"),
    ])
    .await;
    let documents = documents(&world, minutes >= LONG).await;
    println!(
        "{} documents, {SLOTS} slots, {minutes} minutes, seed {seed}",
        documents.len()
    );
    script_faults(&world, seed, minutes >= LONG);

    let soak = Soak {
        world: &world,
        published: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        began: Instant::now(),
        samples: Mutex::default(),
    };
    let (published, results, ()) = tokio::join!(
        soak.publish(&documents, time, Random::of(seed)),
        soak.collect(),
        soak.watch(time)
    );
    let samples = soak.samples();
    drop(soak);
    world.cloud.clear_faults();
    let hits = world.cloud.fault_hits();
    assert!(
        [Peer::Storage, Peer::Push]
            .iter()
            .all(|peer| hits.keys().any(|(hit, _)| hit == peer)),
        "a soak without faults: {hits:?}"
    );

    let left = world.cloud.backlog(&world.push).unwrap();
    assert_eq!(left, 0, "messages without an end\n{}", world.worker.log());
    let mut repeated = 0;
    for (message, name) in &published {
        let results = results.get(message).unwrap_or_else(|| panic!("{name} has no result"));
        let output = world.object(OUTPUT, name).await.unwrap_or_else(|| panic!("no {name}"));
        for result in results {
            assert_eq!(result["status"], "succeeded", "{name}: {result}");
            assert_eq!(result["outputs"][0]["generation"], output["generation"], "{name}");
            assert_eq!(result["outputs"][0]["crc32c"], output["crc32c"], "{name}");
        }
        repeated += results.len() - 1;
    }
    println!(
        "{} messages, every one with its result and its output, {repeated} results more than once",
        published.len()
    );
    judge("the worker's memory, KiB", &samples, NOISE, SLOPE, |sample| {
        sample.resident
    });
    judge("descriptors that are no sockets", &samples, MORE, 0.0, |sample| {
        sample.descriptors
    });
    judge("threads", &samples, MORE, 0.0, |sample| sample.threads);
    // A zygote is replaced after so many jobs, and learns at its beginning.
    let zygote = samples.last().unwrap().zygote;
    let last: Vec<Sample> = samples
        .iter()
        .filter(|sample| sample.zygote == zygote)
        .cloned()
        .collect();
    judge("the last zygote's memory, KiB", &last, 4.0 * NOISE, SLOPE, |sample| {
        sample.zygote_anonymous
    });

    until("no job has a directory", || {
        world.worker.leftovers().is_empty().then_some(())
    })
    .await;
    assert!(signal(world.worker.pid(), Signal::SIGTERM));
    assert_eq!(world.worker.exit().await, Some(0), "{}", world.worker.log());
    assert_eq!(
        std::fs::read_dir(world.worker.temporary.path()).unwrap().count(),
        0,
        "files are left"
    );
    let log = world.worker.log();
    assert!(!log.contains("ERROR") && !log.contains("panic"), "{log}");
}

/// The documents that this worker converts, by their names in the input bucket.
async fn documents(world: &World, long: bool) -> Vec<String> {
    let mut all = files(&fixture("documents/plain"));
    if long {
        match shared_documents("plain") {
            Some(shared) => all.extend(files(&shared)),
            None => println!("without the shared documents: they are not here"),
        }
    } else {
        all = all.into_iter().step_by(4).collect();
    }
    let mut names = Vec::new();
    for (number, path) in all.iter().enumerate() {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let name = format!("{number}-{file}");
        world.upload(&name, std::fs::read(path).unwrap()).await;
        let answer = world.post(&wanted(&name, &format!("first/{name}.pdf"))).await;
        assert_eq!(answer.status(), 204, "{name}");
        if world.result().await.data["status"] == "succeeded" {
            names.push(name);
        }
    }
    assert!(names.len() >= 5, "{names:?}");
    names
}

fn wanted(document: &str, output: &str) -> Value {
    job(&the_job(document, output))
}

fn the_job(document: &str, output: &str) -> Value {
    json!({"source": format!("gs://{INPUT}/{document}"), "outputs": [{"format": "pdf", "name": output}]})
}

/// Faults of every kind at every endpoint, and on the way to the worker.
fn script_faults(world: &World, seed: u64, stalls: bool) {
    let status = |status| Effect::Status {
        status,
        retry_after: None,
    };
    let usual = vec![
        status(500),
        status(503),
        status(429),
        Effect::Reset { reset: true },
        Effect::LoseAnswer { lose_answer: true },
        Effect::Cut { cut_after: 5 },
        Effect::Delay {
            delay_milliseconds: 300,
        },
    ];
    let with = |more: Effect| [usual.clone(), vec![more]].concat();
    let stall = || vec![Effect::Stall { stall_after: 20 }, Effect::Silence { silence: true }];
    let corrupt = Effect::Corrupt { corrupt: true };
    let cut_request = Effect::CutRequest { cut_request_after: 100 };
    let results = "/v1/projects/local-project/topics/results:publish";
    let rare = if stalls { RARE } else { 0.0 };
    let endpoints: [(Peer, &str, &str, f64, Vec<Effect>); 9] = [
        (Peer::Storage, "GET", "/storage/v1/b/input/", PROBABILITY, usual.clone()),
        (Peer::Storage, "GET", "/download/", PROBABILITY, with(corrupt)),
        (Peer::Storage, "GET", "/download/", rare, stall()),
        (
            Peer::Storage,
            "POST",
            "/upload/",
            PROBABILITY,
            with(cut_request.clone()),
        ),
        (Peer::Pubsub, "POST", results, PROBABILITY, with(cut_request)),
        (
            Peer::Iam,
            "POST",
            "/v1/projects/-/serviceAccounts/",
            PROBABILITY,
            usual.clone(),
        ),
        (Peer::Metadata, "GET", "/", PROBABILITY, usual.clone()),
        (Peer::Jwks, "GET", "/", PROBABILITY, usual.clone()),
        (
            Peer::Push,
            "POST",
            "/",
            PROBABILITY,
            vec![
                status(503),
                Effect::Reset { reset: true },
                Effect::LoseAnswer { lose_answer: true },
            ],
        ),
    ];
    for (number, (peer, method, path_prefix, probability, one_of)) in (1..).zip(endpoints) {
        world.cloud.add_fault(Fault {
            peer: Some(peer),
            method: Some(method.to_owned()),
            path_prefix: path_prefix.to_owned(),
            skip: 0,
            count: Fault::ENDLESS,
            effect: Effect::Chance {
                probability,
                seed: seed.wrapping_mul(number),
                one_of,
            },
        });
    }
}

struct Soak<'a> {
    world: &'a World,
    published: AtomicUsize,
    over: AtomicBool,
    began: Instant,
    samples: Mutex<Vec<Sample>>,
}

impl Drop for Soak<'_> {
    /// However it ends: of one that fails, the table says when it began to go wrong.
    fn drop(&mut self) {
        println!("{}", table(&self.samples()));
    }
}

impl Soak<'_> {
    fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn backlog(&self) -> usize {
        self.world.cloud.backlog(&self.world.push).unwrap()
    }

    /// One job after another, so that [`LOAD`] of the slots' time is taken; then waits for the last one's end, but not for
    /// ever. Gives each message's output.
    async fn publish(&self, documents: &[String], time: Duration, mut random: Random) -> HashMap<String, String> {
        let mut published = HashMap::new();
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looked, mut busy) = (Duration::ZERO, 0.0);
        while self.began.elapsed() < time {
            turns.tick().await;
            let (now, under_way) = (self.began.elapsed(), self.backlog());
            busy += (now - looked).as_secs_f64() * under_way as f64 / SLOTS as f64;
            looked = now;
            if under_way >= SLOTS || busy > LOAD * now.as_secs_f64() {
                continue;
            }
            let document = &documents[random.below(documents.len())];
            let name = format!("soak/{}.pdf", published.len());
            let job = the_job(document, &name).to_string();
            let message = self.world.cloud.publish("events", job.as_bytes(), &[]).unwrap();
            published.insert(message, name);
            self.published.store(published.len(), Ordering::Release);
        }
        println!(
            "{:.1} jobs a second, which took {:.0} % of the slots' time",
            published.len() as f64 / looked.as_secs_f64(),
            100.0 * busy / looked.as_secs_f64()
        );
        let waiting = Instant::now();
        while self.backlog() > 0 && waiting.elapsed() < PATIENCE {
            turns.tick().await;
        }
        self.over.store(true, Ordering::Release);
        published
    }

    /// All results, by their message.
    async fn collect(&self) -> HashMap<String, Vec<Value>> {
        let url = format!(
            "{}/v1/projects/{}/subscriptions/results",
            self.world.cloud.urls().pubsub,
            self.world.cloud.settings().project
        );
        let token = || self.world.cloud.access_token(harness::USER);
        // This is also hit by no fault: they are on the worker's own calls.
        let call = async |verb: &str, body: Value| -> Value {
            let request = self
                .world
                .http
                .post(format!("{url}:{verb}"))
                .bearer_auth(token())
                .json(&body);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.json().await.unwrap()
        };
        let mut results: HashMap<String, Vec<Value>> = HashMap::new();
        loop {
            let over = self.over.load(Ordering::Acquire);
            let answer = call("pull", json!({"maxMessages": 1000, "returnImmediately": true})).await;
            let received = answer["receivedMessages"].as_array().cloned().unwrap_or_default();
            if received.is_empty() {
                if over {
                    return results;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
            call("acknowledge", json!({"ackIds": ids})).await;
            for message in &received {
                let data = STANDARD.decode(message["message"]["data"].as_str().unwrap()).unwrap();
                let mut data: Value = serde_json::from_slice(&data).unwrap();
                // Only what is compared later.
                data["outputs"][0]
                    .as_object_mut()
                    .map(|output| output.remove("signedUrl"));
                let id = data["messageId"].as_str().unwrap().to_owned();
                results.entry(id).or_default().push(data);
            }
        }
    }

    async fn watch(&self, time: Duration) {
        let mut turns = tokio::time::interval((time / 240).max(Duration::from_millis(200)));
        while !self.over.load(Ordering::Acquire) {
            turns.tick().await;
            // After the time is up nothing is under load any more.
            if self.began.elapsed() < time {
                let sample = self.look();
                self.samples.lock().unwrap().extend(sample);
            }
        }
    }

    fn look(&self) -> Option<Sample> {
        let worker = self.world.worker.pid();
        // Of two, the newer one is about to take over.
        let zygote = harness::children(worker).first().copied()?;
        let count = |what: &str| std::fs::read_dir(format!("/proc/{worker}/{what}")).map_or(0, Iterator::count);
        let mut files = 0;
        harness::walk(self.world.worker.temporary.path(), &mut |path| {
            files += usize::from(is_of_a_job(path));
        });
        Some(Sample {
            minutes: self.began.elapsed().as_secs_f64() / 60.0,
            published: self.published.load(Ordering::Acquire),
            backlog: self.backlog(),
            resident: status(worker, "VmRSS:")?,
            anonymous: status(worker, "RssAnon:")?,
            descriptors: descriptors(worker) as f64,
            threads: count("task") as f64,
            zygote,
            zygote_anonymous: status(zygote, "RssAnon:")?,
            files,
        })
    }
}

/// Descriptors but for sockets: those are as many as callers have connections, which a backlog raises.
fn descriptors(pid: u32) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let targets = descriptors.into_iter().flatten().flatten();
    let targets = targets.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
    targets
        .filter(|target| !target.to_string_lossy().starts_with("socket:"))
        .count()
}

fn is_of_a_job(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with("job-"))
}

/// One number of a process's status.
fn status(pid: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[derive(Clone)]
struct Sample {
    minutes: f64,
    published: usize,
    backlog: usize,
    /// KiB, as the two others.
    resident: f64,
    anonymous: f64,
    descriptors: f64,
    threads: f64,
    zygote: u32,
    zygote_anonymous: f64,
    /// Files and directories of jobs.
    files: usize,
}

/// Twenty lines over the whole time, each the median of its samples.
fn table(samples: &[Sample]) -> String {
    let mut lines =
        vec!["minutes  published  backlog  worker KiB  of it own  descriptors  threads  zygote KiB  files".to_owned()];
    for part in samples.chunks(samples.len().div_ceil(20).max(1)) {
        let middle = |what: fn(&Sample) -> f64| median(part.iter().map(what).collect());
        let last = part.last().unwrap();
        lines.push(format!(
            "{:7.2} {:10} {:8} {:11} {:10} {:12} {:8} {:11} {:6}",
            last.minutes,
            last.published,
            middle(|sample| sample.backlog as f64),
            middle(|sample| sample.resident),
            middle(|sample| sample.anonymous),
            middle(|sample| sample.descriptors),
            middle(|sample| sample.threads),
            middle(|sample| sample.zygote_anonymous),
            middle(|sample| sample.files as f64)
        ));
    }
    lines.join("\n")
}

/// What the slope over the last three quarters adds up to must be noise.
fn judge(what: &str, samples: &[Sample], noise: f64, slope_allowed: f64, value: fn(&Sample) -> f64) {
    let window = &samples[samples.len() / 4..];
    if window.len() < 8 {
        println!("{what}: too few samples to judge");
        return;
    }
    let time = window.last().unwrap().minutes - window[0].minutes;
    let slope = theil_sen(window, value);
    let (rise, allowed) = (slope * time, noise + slope_allowed * time);
    println!("{what}: {slope:+.1} a minute, {rise:+.0} over {time:.1} minutes; {allowed:.0} are noise");
    assert!(rise <= allowed, "{what} grows by {slope:.1} a minute");
}

fn theil_sen(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let pairs = samples.iter().enumerate().flat_map(|(number, first)| {
        samples[number + 1..]
            .iter()
            .map(move |second| (value(second) - value(first)) / (second.minutes - first.minutes).max(f64::EPSILON))
    });
    median(pairs.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The judge itself: it sees a small leak under noise, and no leak where there is none.
#[test]
fn the_slope_is_the_leak_and_not_the_noise() {
    let run = |leak: f64| -> Vec<Sample> {
        let mut random = Random::of(7);
        (0..240u32)
            .map(|number| Sample {
                minutes: f64::from(number) / 12.0,
                published: 0,
                backlog: 0,
                // Up to 4 MiB of noise, and a warm-up of 20 MiB that is over after three minutes.
                resident: 50_000.0
                    + random.below(4096) as f64
                    + f64::from(number.min(36)) * 570.0
                    + leak * f64::from(number) / 12.0,
                anonymous: 0.0,
                descriptors: 0.0,
                threads: 0.0,
                zygote: 1,
                zygote_anonymous: 0.0,
                files: 0,
            })
            .collect()
    };
    let slopes: BTreeMap<u32, f64> = [0, 300]
        .into_iter()
        .map(|leak| (leak, theil_sen(&run(f64::from(leak))[60..], |sample| sample.resident)))
        .collect();
    assert!(slopes[&0].abs() < SLOPE, "{slopes:?}");
    assert!((slopes[&300] - 300.0).abs() < SLOPE, "{slopes:?}");
}
