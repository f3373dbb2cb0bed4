//! The engine as the rest of the worker sees it: always one warm zygote, or a new one on its way.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::conversion::{Conversion, Converted, Export, Import, Limits, Verdict};
use super::deadline;
use super::directory::{JobDirectory, WorkDirectory};
use super::fonts::FontDirectory;
use super::footprint::{Footprint, most_on_disk};
use super::format::Format;
use super::outcome::{Attempt, Expected};
use super::process::Process;
use super::protocol::{Ending, Job, Usage};
use super::warm;
use crate::metrics;
use crate::sandbox;
use crate::trace;

/// After so many jobs a zygote is replaced: every fork shares its address layout.
const JOBS_OF_ONE_ZYGOTE: u64 = 500;
/// After it has grown by so many bytes it is replaced, too: nearly half of what it has when it is warm. It forks and nothing
/// else, so what grows is a leak, which every child inherits.
const GROWTH_OF_ONE_ZYGOTE: u64 = 64 << 20;
/// How long a conversion waits for a warm zygote before it is refused.
const WARM_LIMIT: Duration = Duration::from_secs(30);
/// How much longer than its wall limit a job may take to be heard of, before its zygote is taken for dead.
const ANSWER_GRACE: Duration = Duration::from_secs(15);
/// How long the check of the outputs may take at least, for a conversion that ends at its limit: milliseconds are normal.
pub const CHECK_GRACE: Duration = Duration::from_secs(2);
/// Between two tries to start a zygote: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// What the trial conversion may use up: a job of 50 ms.
const TRIAL_LIMITS: Limits = Limits {
    wall: Duration::from_secs(30),
    processor: Duration::from_secs(30),
    memory: 1 << 30,
    output_size: 64 << 20,
    pages: 10,
    threads: Limits::MOST_THREADS,
};
/// How often one document may end its process.
const ATTEMPTS: usize = 2;

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// LibreOffice's `program` directory: `/usr/lib/libreoffice/program`.
    pub program: PathBuf,
    /// The locale documents are rendered in, a POSIX name.
    pub locale: String,
    /// Where job directories are made.
    pub work_directory: PathBuf,
    /// Whether a missing layer of the sandbox is an error.
    pub sandbox: sandbox::Mode,
    /// More fonts than the system's. They stay as long as the engine.
    pub fonts: Option<Arc<FontDirectory>>,
    /// The program that has the zygote's hidden subcommand, when this one has not.
    pub executable: Option<PathBuf>,
}

/// Why the engine cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The work directory cannot be made or locked.
    #[error("the work directory {} cannot be used: {source}", path.display())]
    WorkDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The machine lacks a layer of the sandbox that is required.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Missing),
    /// The first zygote did not get warm; a sentence.
    #[error("{0}")]
    NotWarm(String),
}

/// A handle to the engine. Clones share it; it ends with [`Engine::stop`], or when the last clone is dropped.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

struct Shared {
    settings: Settings,
    work: Arc<WorkDirectory>,
    /// The zygote that takes jobs.
    current: watch::Sender<Option<Arc<Process>>>,
    ready: watch::Sender<bool>,
    /// The oldest generation of zygotes to go on with: a crash raises it.
    oldest: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
}

struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopping.send_replace(true);
    }
}

impl Engine {
    /// Starts the engine. Returns when the first zygote is warm: a misconfiguration shows here, not in the first job.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let layers = sandbox::probe();
        let missing = layers.check(settings.sandbox)?;
        tracing::info!(%layers, "the sandbox of each conversion");
        for sentence in missing {
            tracing::warn!("{sentence}");
        }
        let parent = settings.work_directory.clone();
        let users = layers.identity.is_ok();
        let work = tokio::task::spawn_blocking(move || WorkDirectory::create(&parent, users))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| StartError::WorkDirectory {
                path: settings.work_directory.clone(),
                source,
            })?;
        let work = Arc::new(work);
        let first = start(&settings, &work, 1).await.map_err(StartError::NotWarm)?;
        let shared = Arc::new(Shared {
            settings,
            work,
            current: watch::Sender::new(Some(first)),
            ready: watch::Sender::new(true),
            oldest: watch::Sender::new(1),
            stopping: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
        });
        tokio::spawn(supervise(shared.clone()));
        Ok(Self {
            _stop: Arc::new(StopOnDrop(shared.clone())),
            shared,
        })
    }

    /// Whether a zygote is warm, as it changes.
    pub fn warm(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }

    /// LibreOffice's version: `LibreOffice 25.2.3.2`; without its number while no zygote is warm.
    pub fn version(&self) -> String {
        self.shared
            .current
            .borrow()
            .as_ref()
            .map_or_else(|| "LibreOffice".to_owned(), |process| process.version.clone())
    }

    /// A new directory for one job.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn job_directory(&self) -> io::Result<JobDirectory> {
        self.job_directory_keeping(())
    }

    /// A new directory for one job. `kept` is dropped when it is gone, and with it all that the job has taken of this
    /// machine: after its last process has ended and its last file is removed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn job_directory_keeping(&self, kept: impl Send + Sync + 'static) -> io::Result<JobDirectory> {
        self.shared.work.job(Box::new(kept))
    }

    /// What the engine holds while no job runs. Blocks for a moment.
    ///
    /// # Errors
    /// /proc or the work directory cannot be read, or no zygote is warm.
    pub fn footprint(&self) -> io::Result<Footprint> {
        let current = self.shared.current.borrow().clone();
        let zygote = current.and_then(|process| process.id);
        Footprint::measure(zygote.ok_or(io::ErrorKind::NotFound)?, &self.shared.work)
    }

    /// Converts one document. Dropping the future ends the conversion.
    ///
    /// # Errors
    /// The [`Verdict`].
    pub async fn convert(&self, conversion: Conversion<'_>) -> Result<Converted, Verdict> {
        let decided = self.converted(conversion).await;
        if let Err(Verdict::TooComplex(exceeded)) = &decided {
            metrics::limit_exceeded(exceeded.limit.as_str());
        }
        decided
    }

    async fn converted(&self, conversion: Conversion<'_>) -> Result<Converted, Verdict> {
        let expected = Expected::of(&conversion);
        // Both attempts share the limit: what a caller allows is not doubled by a crash. The wait for a fresh process is
        // not the document's.
        let mut left = conversion.limits.wall;
        let mut oldest = 0;
        let mut last_signal = None;
        for attempt in 1..=ATTEMPTS {
            blocking(expected.clone(), Expected::prepare)
                .await?
                .map_err(|error| Verdict::EngineUnavailable(format!("the job directory cannot be used: {error}")))?;
            let Tried { process, wall, ended } = self.attempt(&conversion, left, oldest).await?;
            let Some((ending, usage)) = ended else {
                return Err(Verdict::EngineUnavailable(
                    "the engine ended in the middle of the conversion".to_owned(),
                ));
            };
            let allowed = left;
            left = left.saturating_sub(Duration::from_millis(usage.wall_ms));
            let mut deadline = Instant::now() + left.max(CHECK_GRACE);
            if let Some(nobody_waits) = conversion.deadline.filter(|_| wall < allowed) {
                deadline = deadline.min(nobody_waits);
            }
            let decide = move |expected: Expected| expected.decide(ending, usage, deadline.into_std());
            match blocking(expected.clone(), decide).await? {
                Attempt::Decided(decided) => return deadline::judged(decided, wall, allowed),
                Attempt::Crashed { signal } => {
                    metrics::engine_crashed();
                    tracing::warn!(
                        event = "engine_crashed",
                        attempt,
                        signal,
                        "LibreOffice crashed on a document"
                    );
                    last_signal = signal;
                    // The next attempt, and soon everybody, goes to a fresh process.
                    oldest = process.generation + 1;
                    self.shared
                        .oldest
                        .send_if_modified(|current| std::mem::replace(current, oldest.max(*current)) < oldest);
                }
            }
        }
        Err(Verdict::Crashed { signal: last_signal })
    }

    /// Ends the engine: conversions that run are lost. Returns when the last process of it is gone.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        // The sender is ours, so it cannot be gone.
        drop(self.shared.stopped.subscribe().wait_for(|stopped| *stopped).await);
    }

    /// One try, in a zygote of at least this generation.
    async fn attempt(&self, conversion: &Conversion<'_>, left: Duration, mut oldest: u64) -> Result<Tried, Verdict> {
        let unavailable = |why: &str| Verdict::EngineUnavailable(why.to_owned());
        let is_first = oldest == 0;
        let until = Instant::now() + WARM_LIMIT;
        // Asked before the child is there: it may replace the document.
        let document = tokio::fs::symlink_metadata(conversion.directory.path().join(&conversion.document)).await;
        let room = room(conversion, document.map_or(0, |document| document.len()));
        loop {
            let mut current = self.shared.current.subscribe();
            let warm = current.wait_for(|process| process.as_ref().is_some_and(|process| process.generation >= oldest));
            let process = tokio::select! {
                () = self.shared.stopping() => return Err(unavailable("the engine is stopping")),
                warm = tokio::time::timeout_at(until, warm) => match warm {
                    Ok(Ok(process)) => process.clone(),
                    _ => None,
                },
            };
            let process = process.ok_or_else(|| unavailable("LibreOffice is not warm"))?;
            let time = deadline::room(conversion.deadline, CHECK_GRACE);
            let wall = deadline::wall(time, left, is_first).ok_or_else(deadline::too_late)?;
            let given = process
                .give(job(conversion, wall, room), conversion.directory.hold())
                .await;
            match given.map_err(|error| Verdict::EngineUnavailable(error.to_string()))? {
                Some(mut running) => {
                    let limit = wall + ANSWER_GRACE;
                    let ended = tokio::select! {
                        ended = tokio::time::timeout(limit, running.ended()) => ended,
                        // Dropping `running` ends the child.
                        exceeded = conversion.directory.hold().overflows(room) => {
                            return Err(Verdict::TooComplex(exceeded));
                        }
                    };
                    return match ended {
                        Ok(ended) => Ok(Tried { process, wall, ended }),
                        Err(_) => {
                            tracing::error!("the engine does not answer; it is replaced");
                            process.kill();
                            process.ended().await;
                            Ok(Tried {
                                process,
                                wall,
                                ended: None,
                            })
                        }
                    };
                }
                // It has ended or is about to; the next one is on its way.
                None => oldest = process.generation + 1,
            }
        }
    }
}

/// One try of a conversion.
struct Tried {
    process: Arc<Process>,
    /// The time that it was given.
    wall: Duration,
    /// `None` when the zygote was lost.
    ended: Option<(Ending, Usage)>,
}

impl Shared {
    async fn stopping(&self) {
        // The sender is part of `self`, so it cannot be gone.
        drop(self.stopping.subscribe().wait_for(|stopping| *stopping).await);
    }

    /// Returns when the current zygote should be replaced: at once when there is none.
    async fn replacement_due(&self) {
        let Some(process) = self.current.borrow().clone() else {
            return;
        };
        let mut oldest = self.oldest.subscribe();
        tokio::select! {
            () = process.ended() => {}
            _ = oldest.wait_for(|oldest| *oldest > process.generation) => {}
            () = process.worn(JOBS_OF_ONE_ZYGOTE, GROWTH_OF_ONE_ZYGOTE) => {}
        }
    }

    /// Returns when the current zygote has ended; never when there is none.
    async fn current_ended(&self) {
        let process = self.current.borrow().clone();
        match process {
            Some(process) => process.ended().await,
            None => std::future::pending().await,
        }
    }

    fn install(&self, process: Option<Arc<Process>>) -> Option<Arc<Process>> {
        self.ready.send_replace(process.is_some());
        self.current.send_replace(process)
    }
}

/// Ends a zygote that nobody got.
struct Untried(Option<Arc<Process>>);

impl Drop for Untried {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill();
        }
    }
}

/// Starts a zygote and has it convert a document of ours, so that whatever keeps it from converting (a capability, a
/// limit, a disk) shows before the first job.
async fn start(settings: &Settings, work: &Arc<WorkDirectory>, generation: u64) -> Result<Arc<Process>, String> {
    let process = Process::start(settings, work, generation).await?;
    let mut untried = Untried(Some(process.clone()));
    if let Err(why) = trial(&process, work).await {
        process.kill();
        process.ended().await;
        return Err(format!("the engine's trial conversion failed: {why}"));
    }
    untried.0 = None;
    metrics::engine_started();
    Ok(process)
}

/// One conversion through everything that a job goes through.
async fn trial(process: &Arc<Process>, work: &Arc<WorkDirectory>) -> Result<(), String> {
    let sample = &warm::SAMPLES[0];
    let failed = |error: io::Error| format!("its job directory cannot be made: {error}; see TMPDIR");
    let directory = work.job(Box::new(())).map_err(failed)?;
    let document = format!("{}.xml", sample.name);
    std::fs::write(directory.path().join(&document), sample.content).map_err(failed)?;
    let conversion = Conversion {
        directory: &directory,
        document,
        import: Import {
            filter: sample.filters[0].into(),
            options: None,
        },
        password: None,
        exports: vec![Export::plain("trial.pdf".to_owned(), Format::PDF)],
        limits: TRIAL_LIMITS,
        deadline: None,
    };
    let expected = Expected::of(&conversion);
    let sentence = |verdict: Verdict| verdict.to_string();
    blocking(expected.clone(), Expected::prepare)
        .await
        .map_err(sentence)?
        .map_err(failed)?;
    let given = process
        .give(
            job(&conversion, TRIAL_LIMITS.wall, room(&conversion, 0)),
            directory.hold(),
        )
        .await;
    let mut running = given.map_err(failed)?.ok_or("the engine ended")?;
    let ended = tokio::time::timeout(TRIAL_LIMITS.wall + ANSWER_GRACE, running.ended()).await;
    let (ending, usage) = ended
        .map_err(|_| "the engine does not answer")?
        .ok_or("the engine ended")?;
    let deadline = Instant::now() + CHECK_GRACE;
    let decide = move |expected: Expected| expected.decide(ending, usage, deadline.into_std());
    match blocking(expected, decide).await.map_err(sentence)? {
        Attempt::Decided(Ok(converted))
            if converted
                .outputs
                .iter()
                .all(|output| output.pages == Some(sample.pages)) =>
        {
            Ok(())
        }
        Attempt::Decided(Ok(_)) => Err("its document has not the pages that it should have".to_owned()),
        Attempt::Decided(Err(verdict)) => Err(verdict.to_string()),
        Attempt::Crashed { signal } => Err(format!("LibreOffice crashed (signal {signal:?})")),
    }
}

/// Keeps one zygote warm until the engine stops.
async fn supervise(shared: Arc<Shared>) {
    let mut generation = 1;
    let mut pause = PAUSES.0;
    let mut retired: Vec<Arc<Process>> = Vec::new();
    'running: loop {
        tokio::select! {
            () = shared.stopping() => break,
            () = shared.replacement_due() => {}
        }
        generation += 1;
        let starting = start(&shared.settings, &shared.work, generation);
        tokio::pin!(starting);
        let started = loop {
            tokio::select! {
                () = shared.stopping() => break 'running,
                started = &mut starting => break started,
                () = shared.current_ended() => {
                    tracing::error!("the engine has ended; it is started again");
                    shared.install(None);
                }
            }
        };
        retired.retain(|process| !process.has_ended());
        match started {
            Ok(process) => {
                pause = PAUSES.0;
                if let Some(old) = shared.install(Some(process)) {
                    old.retire();
                    retired.push(old);
                }
            }
            Err(sentence) => {
                tracing::error!(%sentence, "the engine does not start");
                tokio::select! {
                    () = shared.stopping() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
    retired.extend(shared.install(None));
    for process in &retired {
        process.kill();
    }
    for process in &retired {
        process.ended().await;
    }
    shared.stopped.send_replace(true);
}

/// What this conversion's directory may take on the disk.
fn room(conversion: &Conversion<'_>, document: u64) -> u64 {
    most_on_disk(document, conversion.exports.len(), conversion.limits.output_size)
}

fn job(conversion: &Conversion<'_>, wall: Duration, disk: u64) -> Job {
    Job {
        // Given by the zygote's owner.
        number: 0,
        directory: conversion.directory.path().to_owned(),
        user: conversion.directory.user(),
        document: conversion.document.clone(),
        import: conversion.import.clone(),
        password: conversion.password.clone(),
        exports: conversion.exports.clone(),
        wall_ms: milliseconds(wall),
        processor_ms: milliseconds(conversion.limits.processor),
        memory: conversion.limits.memory,
        file_size: conversion.limits.output_size,
        disk,
        threads: conversion.limits.threads.min(Limits::MOST_THREADS),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Runs what touches the disk on a thread that may wait for it.
async fn blocking<T: Send + 'static>(
    expected: Expected,
    work: impl FnOnce(Expected) -> T + Send + 'static,
) -> Result<T, Verdict> {
    tokio::task::spawn_blocking(trace::carried_to_a_thread(move || work(expected)))
        .await
        .map_err(|error| Verdict::EngineUnavailable(format!("the worker is stopping: {error}")))
}
