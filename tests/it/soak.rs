//! Many conversions of every kind, and then nothing is left of them: no process, descriptor, file or shared memory, and
//! no memory in the zygote.
//!
//! 60 conversions in the suite; `PLATEN_SOAK=2000` for as many as a release should stand. Half of them run two at a
//! time, half four at a time. A document that fails must fail every time, in the same way, and in stock LibreOffice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use platen::config::Limits;
use platen::convert::{OutputPasswords, Wanted, convert_file};
use platen::engine::Engine;
use platen::error::Stop;
use platen::job::{Format, Options};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::engine::{job_directories, settings, shared_documents};
use crate::engine_limits::{processes, zygote};
use crate::harness::fixture;
use crate::stock::{Random, Stock, files};

/// Set for the process that does the work: only a process that does nothing else can count what is left in it.
const ALONE: &str = "PLATEN_TEST_SOAK";
const LIMITS: Limits = Limits {
    input_size: 100 << 20,
    output_size: 500 << 20,
    pages: 5000,
    time: Duration::from_secs(60),
    memory: 1 << 30,
};
/// What the zygote may have more in the last quarter of its life than in the second, in bytes.
const GROWTH: u64 = 2 << 20;
/// The users of children: see `engine::directory`.
const CHILDREN: std::ops::Range<u32> = 61184..65520;

#[test]
fn many_conversions_leave_nothing() {
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "soak::alone", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    println!("{said}");
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success() && said.contains("nothing is left"),
        "{complaint}"
    );
}

/// No test of its own: the process that [`many_conversions_leave_nothing`] starts.
#[test]
fn alone() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    // What the runtime opens once and keeps (for signals) is there from the first engine on.
    on_a_runtime(async {
        let work = tempfile::tempdir().unwrap();
        Engine::start(settings(work.path())).await.unwrap().stop().await;
    });
    let before = Left::look();
    let work = tempfile::tempdir().unwrap();
    on_a_runtime(soak(work.path()));
    assert_eq!(processes(work.path()).len(), 0, "processes are left");
    let left: Vec<PathBuf> = std::fs::read_dir(work.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "files are left");
    drop(work);
    assert_eq!(Left::look(), before);
    println!("nothing is left");
}

/// Ends with the last thing that the work has left to do.
fn on_a_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

async fn soak(work: &Path) {
    let count: usize = std::env::var("PLATEN_SOAK").map_or(60, |count| count.parse().unwrap());
    let mut documents = files(&fixture("documents/plain"));
    let mut hostile = files(&fixture("documents/hostile"));
    // It takes the whole of its limit.
    hostile.retain(|path| !path.ends_with("never-ends.ods"));
    if let Some(shared) = shared_documents("plain") {
        documents.extend(files(&shared));
    }
    let engine = Engine::start(settings(work)).await.unwrap();
    let mut random = Random::seeded();
    let outcomes: Arc<Mutex<BTreeMap<PathBuf, BTreeSet<String>>>> = Arc::default();
    let mut memory = Memory::default();
    for concurrency in [2, 4] {
        let began = Instant::now();
        let slots = Arc::new(Semaphore::new(concurrency));
        let mut running = JoinSet::new();
        for number in 0..count / 2 {
            // Every tenth is an attack.
            let from = if number % 10 == 9 { &hostile } else { &documents };
            let document = from[random.below(from.len())].clone();
            let slot = slots.clone().acquire_owned().await.unwrap();
            let (engine, outcomes) = (engine.clone(), outcomes.clone());
            running.spawn(async move {
                let outcome = convert(&engine, &document).await;
                outcomes.lock().unwrap().entry(document).or_default().insert(outcome);
                drop(slot);
            });
            memory.look(work);
        }
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        let rate = (count / 2) as f64 / began.elapsed().as_secs_f64();
        println!("{} conversions, {concurrency} at a time: {rate:.1} a second", count / 2);
    }
    memory.check();

    let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
    let stock = Stock::new();
    let mut failed = 0;
    for (document, seen) in &outcomes {
        assert_eq!(
            seen.len(),
            1,
            "{} does not end in the same way every time: {seen:?}",
            document.display()
        );
        let attack = hostile.contains(document);
        if !seen.contains("succeeded") && !attack {
            failed += 1;
            println!("{}: {seen:?}", document.display());
            assert_eq!(
                stock.convert(document),
                None,
                "stock converts {}: {seen:?}",
                document.display()
            );
        }
    }
    println!(
        "{} different documents, {failed} that stock does not convert either",
        outcomes.len()
    );
    engine.stop().await;
    let began = Instant::now();
    while !job_directories(work).is_empty() && began.elapsed() < crate::harness::PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn convert(engine: &Engine, document: &Path) -> String {
    let wanted = Wanted {
        format: Format::Pdf,
        options: Options::default(),
        passwords: OutputPasswords::default(),
    };
    match convert_file(engine, &LIMITS, document, &[], &[wanted]).await {
        Ok(_) => "succeeded".to_owned(),
        Err(Stop::Failed(failure)) => failure.code.to_string(),
        Err(other) => panic!("{}: {other:?}", document.display()),
    }
}

/// The anonymous memory of each zygote, in bytes, once for each conversion that was begun.
#[derive(Default)]
struct Memory(BTreeMap<i32, Vec<u64>>);

impl Memory {
    fn look(&mut self, work: &Path) {
        let Some(zygote) = zygote(work) else { return };
        let status = std::fs::read_to_string(format!("/proc/{}/status", zygote.pid)).unwrap_or_default();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        if let Some(kilobytes) = anonymous.and_then(|line| line.trim().strip_suffix(" kB")) {
            self.0
                .entry(zygote.pid)
                .or_default()
                .push(kilobytes.parse::<u64>().unwrap() << 10);
        }
    }

    fn check(&self) {
        assert!(!self.0.is_empty(), "no zygote was seen");
        for (zygote, seen) in &self.0 {
            // A zygote is also seen while it warms up, so its first quarter tells nothing.
            let median = |from: usize, to: usize| {
                let mut looks = seen[seen.len() * from / 4..seen.len() * to / 4].to_vec();
                looks.sort_unstable();
                looks.get(looks.len() / 2).copied()
            };
            let (Some(early), Some(late)) = (median(1, 2), median(3, 4)) else {
                continue;
            };
            let series: Vec<u64> = seen
                .iter()
                .step_by(seen.len().div_ceil(12))
                .map(|bytes| bytes >> 10)
                .collect();
            println!(
                "zygote {zygote}: {} KiB in the second quarter of its {} looks, {} KiB in the last: {:+.3} KiB a job \
                 (all along: {series:?})",
                early >> 10,
                seen.len(),
                late >> 10,
                (late as f64 - early as f64) / 1024.0 / (seen.len() as f64 / 2.0)
            );
            assert!(late < early + GROWTH, "the zygote grows");
        }
    }
}

/// What a conversion could leave outside of its work directory.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    descriptors: usize,
    /// The living children of this process.
    children: Vec<i32>,
    /// In /dev/shm, /tmp and /var/tmp: files of a child's user.
    files: Vec<PathBuf>,
    /// What the kernel lists of System V shared memory, semaphores and queues.
    shared: Vec<String>,
}

impl Left {
    fn look() -> Self {
        use std::os::unix::fs::MetadataExt;
        let own = i32::try_from(std::process::id()).unwrap();
        let listed = |directory: &str| std::fs::read_dir(directory).into_iter().flatten().flatten();
        let parent = |pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1);
            after.and_then(|parent| parent.parse::<i32>().ok())
        };
        Self {
            descriptors: listed("/proc/self/fd").count(),
            children: listed("/proc")
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .filter(|&pid| parent(pid) == Some(own))
                .collect(),
            files: ["/dev/shm", "/tmp", "/var/tmp"]
                .into_iter()
                .flat_map(listed)
                .filter(|entry| entry.metadata().is_ok_and(|file| CHILDREN.contains(&file.uid())))
                .map(|entry| entry.path())
                .collect(),
            shared: ["shm", "sem", "msg"]
                .into_iter()
                .map(|kind| std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default())
                .collect(),
        }
    }
}
