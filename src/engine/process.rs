//! One zygote as the worker sees it: starts it, hands it jobs, hears how they ended, and notices when it is gone.

use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};

use super::directory::{Directory, Owned, WorkDirectory};
use super::protocol::{Ending, Event, Job, Request, Start, Usage, receive_packet, send_packet};
use super::{Settings, ZYGOTE_COMMAND, configuration};

/// How long a zygote may take until it is warm: 1 s on a free machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the children of a dead zygote may take to die.
const LAST_BREATH: Duration = Duration::from_secs(10);
/// The longest line of a zygote's standard error that is logged.
const LONGEST_LINE: u64 = 1024;

/// A running zygote.
pub(super) struct Process {
    /// Counts the zygotes of this engine.
    pub(super) generation: u64,
    /// Its process.
    pub(super) id: Option<u32>,
    /// LibreOffice's version, as a person reads it.
    pub(super) version: String,
    wear: watch::Sender<Wear>,
    socket: UnixStream,
    jobs: Mutex<Jobs>,
    /// What the task that watches the process is to do.
    order: watch::Sender<Order>,
    /// True once the process and all its children are gone.
    ended: watch::Sender<bool>,
}

/// How much a zygote has been used.
#[derive(Clone, Copy, Default)]
struct Wear {
    /// The jobs it was given.
    jobs: u64,
    /// The bytes of memory it has gained since it was warm.
    grown: u64,
}

#[derive(Default)]
struct Jobs {
    next: u64,
    waiting: HashMap<u64, Waiting>,
    /// It takes no job any more.
    closed: bool,
}

struct Waiting {
    /// Not removed before the child is gone. Let go before anybody hears of the end: fields are dropped in this order.
    directory: Arc<Owned>,
    ended: oneshot::Sender<(Ending, Usage)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Work,
    /// End when the last job has.
    Retire,
    Kill,
}

/// A job that a zygote has. Dropping it ends the job.
pub(super) struct Running {
    process: Arc<Process>,
    number: u64,
    /// Else the zygote will never speak of it.
    sent: bool,
    ended: oneshot::Receiver<(Ending, Usage)>,
}

/// A zygote that has said that it is warm.
pub(super) struct Launched {
    child: Child,
    socket: UnixStream,
    lifeline: PipeWriter,
    version: String,
}

impl Launched {
    /// Starts a zygote in its own directory.
    ///
    /// # Errors
    /// A sentence: why it is not warm.
    pub(super) async fn start(settings: &Settings, home: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("the engine cannot be started: {error}");
        let environment = configuration::write(home, settings).map_err(failed)?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .map_err(|error| failed(error.into()))?;
        // The zygote waits in its receive; only our side must not.
        nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))
            .map_err(|error| failed(error.into()))?;
        // The zygote and every child of it hold the reading end. When nobody does, all are gone.
        let (held_by_them, lifeline) = io::pipe().map_err(failed)?;
        let mut child = Command::new(executable(settings).map_err(failed)?)
            .arg(ZYGOTE_COMMAND)
            // Read by nobody but the person who looks at the list of processes.
            .arg(home)
            .env_clear()
            .envs(environment)
            .current_dir(home)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(OwnedFd::from(held_by_them)))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(log(stderr));
        }
        let socket = packets(ours).map_err(failed)?;
        let start = Request::Start(Start {
            program: settings.program.clone(),
            home: home.to_owned(),
            fonts: settings.fonts.as_ref().map(|fonts| fonts.path()),
            sandbox: settings.sandbox.into(),
        });
        send(&socket, &start).await.map_err(failed)?;
        let version = match tokio::time::timeout(START_LIMIT, receive(&socket)).await {
            Ok(Ok(Some(Event::Ready { version }))) => version,
            Ok(Ok(Some(Event::Refused(sentence)))) => return Err(sentence),
            Ok(Ok(Some(_))) => return Err("the engine answers before it is asked".to_owned()),
            Ok(Ok(None)) => {
                let status = child.wait().await.map_err(failed)?;
                return Err(format!("the engine died while it started ({status})"));
            }
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(format!("the engine was not warm after {} s", START_LIMIT.as_secs())),
        };
        Ok(Self {
            child,
            socket,
            lifeline,
            version,
        })
    }

    /// Sends a request and waits for what is said next.
    #[cfg(feature = "floor")]
    pub(super) async fn ask(&self, request: &Request) -> io::Result<Option<Event>> {
        send(&self.socket, request).await?;
        receive(&self.socket).await
    }
}

impl Process {
    /// Starts a zygote and waits until it is warm.
    ///
    /// # Errors
    /// A sentence: why it is not.
    pub(super) async fn start(settings: &Settings, work: &WorkDirectory, generation: u64) -> Result<Arc<Self>, String> {
        let home = work
            .zygote()
            .map_err(|error| format!("the engine cannot be started: {error}"))?;
        let launched = Launched::start(settings, home.path()).await?;
        let process = Arc::new(Self {
            generation,
            id: launched.child.id(),
            version: launched.version,
            wear: watch::Sender::default(),
            socket: launched.socket,
            jobs: Mutex::default(),
            order: watch::Sender::new(Order::Work),
            ended: watch::Sender::new(false),
        });
        tokio::spawn(process.clone().watch(launched.child, launched.lifeline, home));
        Ok(process)
    }

    /// Gives the zygote a job, or `None` when it takes none any more.
    pub(super) async fn give(self: &Arc<Self>, mut job: Job, directory: Arc<Owned>) -> io::Result<Option<Running>> {
        let (ended_sender, ended) = oneshot::channel();
        {
            let mut jobs = self.jobs();
            if jobs.closed {
                return Ok(None);
            }
            jobs.next += 1;
            job.number = jobs.next;
            jobs.waiting.insert(
                job.number,
                Waiting {
                    ended: ended_sender,
                    directory,
                },
            );
        }
        self.wear.send_modify(|wear| wear.jobs += 1);
        // Should the caller give up while the queue is full, this goes, too, and the job with it.
        let mut running = Running {
            process: self.clone(),
            number: job.number,
            sent: false,
            ended,
        };
        match send(&self.socket, &Request::Convert(Box::new(job))).await {
            Ok(()) => {
                running.sent = true;
                Ok(Some(running))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Returns when it was given so many jobs, or has grown by so many bytes.
    pub(super) async fn worn(&self, jobs: u64, bytes: u64) {
        let worn = |wear: &Wear| wear.jobs >= jobs || wear.grown >= bytes;
        drop(self.wear.subscribe().wait_for(worn).await);
    }

    /// Lets the jobs it has end, then ends it.
    pub(super) fn retire(&self) {
        self.order(Order::Retire);
    }

    /// Ends it now. Jobs it has are lost.
    pub(super) fn kill(&self) {
        self.order(Order::Kill);
    }

    /// Returns when it and all its children are gone.
    pub(super) async fn ended(&self) {
        // The sender is part of `self`, so it cannot be gone.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    /// Whether it and all its children are gone.
    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    fn order(&self, order: Order) {
        self.order.send_if_modified(|current| {
            let stronger = *current < order;
            *current = order.max(*current);
            stronger
        });
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what the zygote says until it is gone; then its jobs are lost and its directory is removed.
    async fn watch(self: Arc<Self>, mut child: Child, lifeline: PipeWriter, home: Directory) {
        let mut order = self.order.subscribe();
        loop {
            let current = *order.borrow_and_update();
            if current == Order::Kill || (current == Order::Retire && self.close_if_idle()) {
                break;
            }
            tokio::select! {
                said = receive(&self.socket) => match said {
                    Ok(Some(Event::Finished { job, ending, usage, grown })) => {
                        self.wear.send_modify(|wear| wear.grown = grown);
                        self.finish(job, ending, usage);
                    }
                    Ok(Some(Event::Refused(sentence))) => tracing::error!(%sentence, "the engine stops"),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(%error, "the engine is not understood");
                        break;
                    }
                },
                _ = order.changed() => {}
            }
        }
        self.jobs().closed = true;
        // Its children die with it.
        if let Err(error) = child.kill().await {
            tracing::error!(%error, "the engine cannot be ended");
        }
        if let Ok(lifeline) = pipe::Sender::from_owned_fd(OwnedFd::from(lifeline))
            && tokio::time::timeout(LAST_BREATH, lifeline.ready(Interest::ERROR))
                .await
                .is_err()
        {
            tracing::error!("children of a dead engine still run");
        }
        drop(home);
        self.jobs().waiting.clear();
        self.ended.send_replace(true);
    }

    fn close_if_idle(&self) -> bool {
        let mut jobs = self.jobs();
        jobs.closed = true;
        jobs.waiting.is_empty()
    }

    fn finish(&self, job: u64, ending: Ending, usage: Usage) {
        let waiting = self.jobs().waiting.remove(&job);
        if let Some(Waiting { directory, ended }) = waiting {
            // When the job was cancelled, this is the last holder, and the directory goes now.
            drop(directory);
            drop(ended.send((ending, usage)));
        }
    }
}

impl Running {
    /// How the job ended, or `None` when the zygote was lost.
    pub(super) async fn ended(&mut self) -> Option<(Ending, Usage)> {
        (&mut self.ended).await.ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.sent {
            let never_sent = self.process.jobs().waiting.remove(&self.number);
            drop(never_sent);
            // It may have been the last one that a retired zygote waited for.
            self.process.order.send_modify(|_| {});
        } else if self.process.jobs().waiting.contains_key(&self.number)
            && send_packet(
                self.process.socket.as_fd(),
                &Request::<Box<Job>>::Cancel { job: self.number },
            )
            .is_err()
        {
            // Its queue is full or it is gone; the job ends at its limit.
            tracing::debug!(job = self.number, "a conversion could not be cancelled");
        }
    }
}

/// Registers a packet socket. Tokio knows none, but only its readiness is asked of the stream.
fn packets(socket: OwnedFd) -> io::Result<UnixStream> {
    UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))
}

async fn send(socket: &UnixStream, packet: &Request) -> io::Result<()> {
    socket
        .async_io(Interest::WRITABLE, || send_packet(socket.as_fd(), packet))
        .await
}

async fn receive(socket: &UnixStream) -> io::Result<Option<Event>> {
    socket
        .async_io(Interest::READABLE, || receive_packet(socket.as_fd()))
        .await
}

/// The program to execute: this one, also when its file was replaced or removed since it started.
fn executable(settings: &Settings) -> io::Result<PathBuf> {
    if let Some(executable) = &settings.executable {
        return Ok(executable.clone());
    }
    let path = std::env::current_exe()?;
    Ok(if path.exists() {
        path
    } else {
        PathBuf::from("/proc/self/exe")
    })
}

/// Logs what a zygote prints: what LibreOffice says while it starts and warms up, and what the zygote has to do without;
/// children print nowhere.
async fn log(stderr: impl tokio::io::AsyncRead + Unpin) {
    let mut lines = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::warn!(target: "platen::engine", "{}", String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conversion::Import;
    use super::super::directory::JobDirectory;
    use super::*;

    /// A process of which the zygote's side is the test's.
    struct Fake {
        process: Arc<Process>,
        zygote: OwnedFd,
        work: Arc<WorkDirectory>,
        _temporary: tempfile::TempDir,
    }

    impl Fake {
        fn start() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            let work = Arc::new(WorkDirectory::create(temporary.path(), false).unwrap());
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let (ours, zygote) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
            let process = Arc::new(Process {
                id: None,
                generation: 1,
                version: String::new(),
                wear: watch::Sender::default(),
                socket: packets(ours).unwrap(),
                jobs: Mutex::default(),
                order: watch::Sender::new(Order::Work),
                ended: watch::Sender::new(false),
            });
            let child = Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
            let (_, lifeline) = io::pipe().unwrap();
            tokio::spawn(process.clone().watch(child, lifeline, work.zygote().unwrap()));
            Self {
                process,
                zygote,
                work,
                _temporary: temporary,
            }
        }

        /// Gives it a job; `None` when its queue is full.
        async fn give(&self) -> Option<(Running, JobDirectory)> {
            let directory = self.work.job(Box::new(())).unwrap();
            let job = Job {
                number: 0,
                directory: directory.path().to_owned(),
                user: None,
                document: "a".repeat(4096),
                import: Import {
                    filter: "writer8".into(),
                    options: None,
                },
                password: None,
                exports: Vec::new(),
                wall_ms: 1,
                processor_ms: 1,
                memory: 1,
                file_size: 1,
                disk: 1,
                threads: 1,
            };
            let given = self.process.give(job, directory.hold());
            let given = tokio::time::timeout(Duration::ZERO, given).await.ok()?;
            Some((given.unwrap().unwrap(), directory))
        }

        fn finish(&self, job: u64, grown: u64) {
            let finished = Event::Finished {
                job,
                ending: Ending::Cancelled,
                usage: Usage::default(),
                grown,
            };
            send_packet(self.zygote.as_fd(), &finished).unwrap();
        }
    }

    #[tokio::test]
    async fn a_zygote_is_worn_by_its_growth_and_by_its_jobs() {
        let fake = Fake::start();
        let worn = async |jobs, bytes| {
            let worn = tokio::time::timeout(Duration::ZERO, fake.process.worn(jobs, bytes));
            worn.await.is_ok()
        };
        for (job, grown) in [(1, 9), (2, 10), (3, 0)] {
            let (mut running, _directory) = fake.give().await.unwrap();
            assert!(worn(job, u64::MAX).await && !worn(job + 1, u64::MAX).await);
            fake.finish(job, grown);
            assert!(running.ended().await.is_some());
            assert_eq!(worn(u64::MAX, 10).await, grown >= 10, "after job {job}");
        }
        fake.process.kill();
        fake.process.ended().await;
    }

    #[tokio::test]
    async fn a_job_that_was_never_sent_holds_nothing_up() {
        let fake = Fake::start();
        let mut given = Vec::new();
        while let Some(one) = fake.give().await {
            given.push(one);
        }
        assert!(!given.is_empty());
        assert_eq!(fake.process.jobs().waiting.len(), given.len());
        // Those that were sent end, and so does the zygote that was to end with them.
        fake.process.retire();
        for job in 1..=given.len() {
            let job = job.try_into().unwrap();
            while receive_packet::<Request>(fake.zygote.as_fd()).is_ok() {}
            fake.finish(job, 0);
        }
        let ended = tokio::time::timeout(Duration::from_secs(60), fake.process.ended());
        assert!(ended.await.is_ok(), "it waits for a job that it never had");
    }
}
