//! The zygote: a process of one thread that has LibreOffice started and warm, and forks once per document.
//!
//! It is this same program under a hidden subcommand, started by the worker with a clean environment and three
//! descriptors: 0 the socket to the worker, 1 the lifeline, 2 a pipe to the worker's log. It decides nothing about a
//! job: it forks, waits, kills at a limit, and reports how each child ended.
#![expect(unsafe_code, reason = "fork, wait4 and pidfds have no safe wrapper")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, Pid, alarm, fork, getpid, getppid, pipe2};

use super::children::{Running, Waiting};
use super::hot::{HotPages, Lessons};
use super::office::{self, Office};
use super::protocol::{Ending, Event, Job, JobLimits, Packet, Request, Start, Usage, receive_packet, send_packet};
use super::{ZYGOTE_COMMAND, child, memory, warm, watch};
use crate::sandbox::{self, Identity, Jail, Limits, Plan};

/// Seconds until a zygote that hangs while it starts is ended by its own alarm.
const START_LIMIT: u32 = 60;
/// Descriptors a child may open: LibreOffice needs some dozens.
const OPEN_FILES: u64 = 256;
/// Threads of the child's user: behind the watch, and a user's other children count, too, where it has any.
const PROCESSES: u64 = 256;

/// What the hidden subcommand runs, before the process has a second thread.
pub(super) fn run() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(sentence) => {
            if !is_socket(io::stdin().as_fd()) {
                eprintln!("'platen {ZYGOTE_COMMAND}' is started by 'platen serve' and 'platen convert' alone.");
                return ExitCode::FAILURE;
            }
            // The worker may be gone: then there is nobody to tell.
            drop(send_packet(io::stdin().as_fd(), &Event::Refused(sentence)));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<Infallible, String> {
    // No parent death signal: it would come when the worker's *thread* ends that started us. The socket tells.
    alarm::set(START_LIMIT);
    sandbox::harden_worker().map_err(|error| format!("the engine cannot hide its memory: {error}"))?;
    close_inherited().map_err(|error| format!("the engine cannot close inherited descriptors: {error}"))?;
    let socket = take_descriptor(0).map_err(|error| format!("the engine has no socket to its worker: {error}"))?;
    let lifeline = take_descriptor(1).map_err(|error| format!("the engine has no lifeline to its worker: {error}"))?;
    let start = match receive_packet(socket.as_fd()) {
        Ok(Some(Request::<JobLimits>::Start(start))) => start,
        other => {
            return Err(format!(
                "the engine is started by 'platen serve' alone ({:?})",
                other.err()
            ));
        }
    };
    let layers = sandbox::probe();
    layers
        .check(start.sandbox.into())
        .map_err(|missing| missing.to_string())?;

    let (program, profile) = (start.program.clone(), start.home.join("profile"));
    let work = move |office: Office| {
        let refused = match Zygote::warm(office, start, socket, lifeline) {
            Ok(zygote) => zygote.serve(),
            Err(refused) => refused,
        };
        drop(send_packet(io::stdin().as_fd(), &Event::Refused(refused)));
        exit(1);
    };
    Err(Office::run(&program, &profile, Box::new(work)))
}

/// A warm zygote.
struct Zygote {
    office: Office,
    start: Start,
    socket: OwnedFd,
    lifeline: OwnedFd,
    /// The folders in the zygote's own temporary folder, which LibreOffice goes on using in every child.
    temporary_folders: Vec<String>,
    /// LibreOffice's own files that it has open, and reads from in every child: its pictures of icons.
    open_files: Vec<RawFd>,
    /// Until the last lesson: they are taken while there is nothing to do, one at a time, so that no job waits for all.
    lessons: Option<Lessons>,
    lesson: usize,
    /// It has had a job: the trial, which nothing should delay.
    served: bool,
    hot: HotPages,
    /// Bytes of memory of its own when it was warm.
    at_start: u64,
    /// The child that gets the next job.
    waiting: Option<Waiting>,
    /// None was to be had: not tried again before the next job.
    none_waits: bool,
    /// At most so many children are busy when another is made to wait: it must not take their time.
    processors: usize,
    running: HashMap<u64, Running>,
}

impl Zygote {
    fn warm(office: Office, start: Start, socket: OwnedFd, lifeline: OwnedFd) -> Result<Self, String> {
        // A terminal and a service manager send these to every process of the group. Work that is under way must outlast
        // them: when it ends, the worker says. LibreOffice's own handlers would exit.
        for polite in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: a signal that is ignored runs no code.
            let _ = unsafe { signal(polite, SigHandler::SigIgn) };
        }
        let samples = start.home.join("warm");
        warm::warm(&office, &samples)?;
        for what in memory::arrange(&start.program) {
            say_slower(what);
        }
        let threads = threads().map_err(|error| format!("the engine cannot list its threads: {error}"))?;
        if threads.len() != 1 {
            return Err(format!(
                "LibreOffice runs {} threads after its warm-up ({}): forking it would be unsafe",
                threads.len(),
                threads.join(", ")
            ));
        }
        let temporary_folders =
            folders_in(&start.home.join("tmp")).map_err(|error| format!("cannot list tmp: {error}"))?;
        let open_files = open_below(&installed_below(&start.program))
            .map_err(|error| format!("the engine cannot list its descriptors: {error}"))?;
        alarm::cancel();
        let version = office.version.clone();
        send_packet(socket.as_fd(), &Event::Ready { version })
            .map_err(|error| format!("the worker is gone: {error}"))?;
        Ok(Self {
            office,
            start,
            socket,
            lifeline,
            temporary_folders,
            open_files,
            lessons: Some(Lessons::default()),
            lesson: 0,
            served: false,
            hot: HotPages::default(),
            at_start: memory::own().unwrap_or(u64::MAX),
            waiting: None,
            none_waits: false,
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            running: HashMap::new(),
        })
    }

    /// Takes jobs until the worker is gone; every child goes first.
    fn serve(mut self) -> String {
        let failed = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(format!("the engine lost its worker: {error}")),
            }
        };
        for running in self.running.values_mut() {
            running.kill(Ending::Cancelled);
            let _ = running.wait();
        }
        drop(self.waiting.take());
        match failed {
            Some(sentence) => sentence,
            None => exit(0),
        }
    }

    /// Waits for the next thing to happen and does what follows from it. False when the worker is gone.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let deadline = self
            .running
            .values()
            .filter(|running| running.killed.is_none())
            .map(|running| running.deadline)
            .min();
        let timeout = match deadline {
            // A millisecond more, so that the time is up when poll says so.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(now) + Duration::from_millis(1);
                PollTimeout::try_from(left.min(watch::LOOK)).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let wanted =
            self.has_lessons() || self.waiting.is_none() && !self.none_waits && self.running.len() < self.processors;
        let timeout = if wanted { PollTimeout::ZERO } else { timeout };
        let (numbers, mut descriptors): (Vec<u64>, Vec<PollFd<'_>>) = self
            .running
            .iter()
            .map(|(&number, running)| (number, PollFd::new(running.pidfd(), PollFlags::POLLIN)))
            .unzip();
        descriptors.push(PollFd::new(self.socket.as_fd(), PollFlags::POLLIN));
        let nothing = match poll(&mut descriptors, timeout) {
            Err(nix::errno::Errno::EINTR) => return Ok(true),
            ready => ready? == 0,
        };
        let ready: Vec<bool> = descriptors
            .iter()
            .map(|descriptor| descriptor.any().unwrap_or(true))
            .collect();
        drop(descriptors);

        for (number, _) in numbers.iter().zip(&ready).filter(|(_, ready)| **ready) {
            if let Some(running) = self.running.remove(number) {
                self.finish(*number, running)?;
            }
        }
        let now = Instant::now();
        for running in self.running.values_mut().filter(|running| running.deadline <= now) {
            running.kill(Ending::TimedOut);
        }
        for running in self.running.values_mut().filter(|running| running.killed.is_none()) {
            if let Some(exceeded) = running.watch.look() {
                running.kill(Ending::OverLimit(exceeded));
            }
        }
        if wanted && nothing {
            self.use_the_time();
        }
        if ready.last() != Some(&true) {
            return Ok(true);
        }
        let Some(packet) = Packet::receive(self.socket.as_fd())? else {
            return Ok(false);
        };
        match packet.read()? {
            Request::Start(_) => return Err(io::Error::other("it starts a second time")),
            Request::Cancel { job } => {
                if let Some(running) = self.running.get_mut(&job) {
                    running.kill(Ending::Cancelled);
                }
            }
            #[cfg(feature = "floor")]
            Request::Measure(measure) => {
                // A child that shares the memory would make every page cost a copy.
                drop(self.waiting.take());
                self.none_waits = true;
                let measured = super::floor::measure(&self.office, &measure);
                send_packet(self.socket.as_fd(), &Event::Measured(measured))?;
            }
            Request::Convert(job) => match self.give(&job, &packet) {
                Ok(running) => {
                    self.running.insert(job.number, running);
                }
                Err(sentence) => {
                    let finished = Event::Finished {
                        job: job.number,
                        ending: Ending::NotStarted(sentence),
                        usage: Usage::default(),
                        grown: 0,
                    };
                    send_packet(self.socket.as_fd(), &finished)?;
                }
            },
        }
        Ok(true)
    }

    /// Whether it is time for a lesson.
    fn has_lessons(&self) -> bool {
        self.lessons.is_some() && self.served && self.running.is_empty()
    }

    /// What there is to do before the next job is there.
    fn use_the_time(&mut self) {
        if self.has_lessons()
            && let Some(mut lessons) = self.lessons.take()
        {
            let (office, samples) = (&self.office, self.start.home.join("warm"));
            lessons.take(|| warm::lesson(office, &samples, self.lesson));
            self.lesson += 1;
            if self.lesson < warm::LESSONS {
                self.lessons = Some(lessons);
            } else {
                self.hot = lessons.learned();
                if self.hot.is_empty() {
                    say_slower("which pages a conversion writes cannot be learned (/proc/self/pagemap, Linux 4.2)");
                }
                // The next one knows them.
                drop(self.waiting.take());
            }
        } else {
            self.waiting = self.fork(true).ok();
            self.none_waits = self.waiting.is_none();
        }
    }

    /// Gives a job to the child that waits, or to a new one.
    fn give(&mut self, job: &JobLimits, packet: &Packet) -> Result<Running, String> {
        self.none_waits = false;
        self.served = true;
        // It may have been killed by somebody; then it has nothing of the job.
        if let Some(Ok(running)) = self.waiting.take().map(|waiting| waiting.give(job, packet)) {
            return Ok(running);
        }
        let failed = |error: io::Error| format!("the engine cannot give a conversion its job: {error}");
        self.fork(false)?.give(job, packet).map_err(failed)
    }

    /// Forks a child that converts one document, which it is not told yet. One that will wait prepares its memory.
    fn fork(&self, prepare: bool) -> Result<Waiting, String> {
        let failed = |what: &'static str| move |error: nix::errno::Errno| format!("the engine cannot {what}: {error}");
        let (report, reports_to) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("make a pipe for a conversion"))?;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(failed("make a socket for a conversion"))?;
        // The child's own: the one before is shared with the child before.
        office::renew_wake().map_err(|error| format!("the engine cannot make an event descriptor: {error}"))?;
        let parent = getpid();
        // SAFETY: this process has one thread, which was checked, so the child may do all that its parent may.
        match unsafe { fork() }.map_err(failed("fork for a conversion"))? {
            ForkResult::Child => {
                drop(ours);
                // The jail asks for it again, because a change of user forgets it.
                if prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == parent {
                    self.become_child(parent, prepare, &theirs, reports_to);
                }
                exit(0)
            }
            ForkResult::Parent { child: pid } => Waiting::new(pid, report, ours)
                .map_err(|error| format!("the engine cannot watch a conversion: {error}")),
        }
    }

    fn become_child(&self, parent: Pid, prepare: bool, jobs: &OwnedFd, reports_to: OwnedFd) {
        // LibreOffice's own handlers would try to save documents and to write a report.
        for fatal in [
            Signal::SIGABRT,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGSEGV,
            Signal::SIGXFSZ,
        ] {
            // SAFETY: the default action runs no code of ours.
            let _ = unsafe { signal(fatal, SigHandler::SigDfl) };
        }
        if prepare {
            self.hot.populate();
        }
        // Nothing comes when the zygote needs it no more.
        let Ok(Some(Request::<Box<Job>>::Convert(job))) = receive_packet(jobs.as_fd()) else {
            return;
        };
        match self.jail(&job, parent, &reports_to) {
            Ok(jail) => {
                office::report_exhausted_memory(&reports_to);
                child::convert(&self.office, &job, jail, &self.temporary_folders, &reports_to);
            }
            Err(sentence) => {
                // A parent that does not read is gone.
                drop(serde_json::to_vec(&sentence).map(|line| fs::File::from(reports_to).write_all(&line)));
            }
        }
    }

    /// The jail of a child, made by the child itself: only it knows its job.
    fn jail(&self, job: &Job, parent: Pid, reports_to: &OwnedFd) -> Result<Jail, String> {
        let address_space =
            memory::mapped().map_err(|error| format!("the engine cannot read its own size: {error}"))?;
        let jail = Jail::prepare(Plan {
            readable: self.readable(),
            writable: job.directory.clone(),
            keep: child::kept(reports_to, &self.lifeline, &self.open_files),
            limits: Limits {
                address_space: address_space.saturating_add(addresses(job.memory)),
                // Behind the watch, which counts milliseconds.
                cpu_seconds: job.processor_ms / 1000 + 2,
                file_size: job.file_size,
                open_files: OPEN_FILES,
                processes: PROCESSES,
            },
            identity: job.user.map(|id| Identity { uid: id, gid: id }),
            mode: self.start.sandbox.into(),
        });
        jail.map(|jail| jail.of_parent(parent))
            .map_err(|error| error.to_string())
    }

    fn finish(&self, number: u64, mut running: Running) -> io::Result<()> {
        let (status, usage) = running.wait()?;
        let ending = running.ending(status);
        let finished = Event::Finished {
            job: number,
            ending,
            usage,
            grown: memory::own().map_or(0, |own| own.saturating_sub(self.at_start)),
        };
        send_packet(self.socket.as_fd(), &finished)
    }

    /// What a child may read: LibreOffice, fonts, the data it looks up, and the configuration layer.
    fn readable(&self) -> Vec<PathBuf> {
        let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let mut readable: Vec<PathBuf> = READABLE.iter().map(PathBuf::from).collect();
        readable.push(triplet.into());
        readable.extend(self.start.program.parent().map(Path::to_owned));
        readable.extend(self.start.fonts.clone());
        readable.push(self.start.home.join("profile"));
        readable.push(self.start.home.join("configuration"));
        readable
    }
}

/// Without `/dev/urandom` LibreOffice aborts; without `libnumbertext` "1st" becomes "First".
const READABLE: &[&str] = &[
    "/etc/libreoffice",
    "/usr/share/libreoffice",
    "/usr/share/fonts",
    "/etc/fonts",
    "/usr/share/fontconfig",
    "/var/cache/fontconfig",
    "/etc/ld.so.cache",
    "/usr/share/liblangtag",
    "/usr/share/libnumbertext",
    "/usr/share/hunspell",
    "/usr/share/mythes",
    "/usr/share/hyphen",
    "/usr/share/zoneinfo",
    "/usr/lib/locale",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/null",
];

/// For the worker's log. Not an error: the outputs are the same.
fn say_slower(why: &str) {
    eprintln!("conversions take longer than they need: {why}");
}

/// Ends the process without running LibreOffice's destructors.
fn exit(status: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(status) }
}

fn is_socket(descriptor: BorrowedFd<'_>) -> bool {
    use nix::sys::stat::{SFlag, fstat};
    fstat(descriptor).is_ok_and(|file| SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK)
}

/// Closes every descriptor but the standard ones: the worker opens all of its own close-on-exec, and this holds when
/// some library of it did not.
fn close_inherited() -> io::Result<()> {
    // SAFETY: at the start of the process nothing owns a descriptor above 2.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A close-on-exec copy above the standard descriptors. The original stays: nothing else must take its number.
fn take_descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: borrowed for the copy alone; the standard descriptors are never closed.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

/// Addresses that a child may take beyond what the zygote has mapped: a wall behind the watch, which counts memory.
///
/// With the wall at the limit itself, an allocation would be refused before anybody sees that memory is short, and a C
/// library gives up a picture in silence. So there is room for an allocation to succeed and to be seen.
fn addresses(memory: u64) -> u64 {
    const LEAST_ROOM: u64 = 512 << 20;
    memory.saturating_add(memory.max(LEAST_ROOM))
}

/// The names of this process's threads.
fn threads() -> io::Result<Vec<String>> {
    fs::read_dir("/proc/self/task")?
        .map(|task| Ok(fs::read_to_string(task?.path().join("comm"))?.trim_end().to_owned()))
        .collect()
}

/// Where LibreOffice's own files are: beside its programs, and in its directory under `/usr/share`.
fn installed_below(program: &Path) -> Vec<PathBuf> {
    let share = PathBuf::from("/usr/share/libreoffice");
    program
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain([share])
        .collect()
}

/// The descriptors of regular files below these directories that are open for reading alone. LibreOffice reads them with
/// an offset of its own (`pread`), so that children do not meet in them.
fn open_below(directories: &[PathBuf]) -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        // The list's own descriptor is among them.
        let (Some(number), Ok(path)) = (number, fs::read_link(entry.path())) else {
            continue;
        };
        // SAFETY: fcntl reads the flags of whatever has this number.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
        let regular = fs::metadata(entry.path()).is_ok_and(|file| file.is_file());
        let own = directories.iter().any(|directory| path.starts_with(directory));
        if regular && own && flags >= 0 && flags & libc::O_ACCMODE == libc::O_RDONLY {
            found.push(number);
        }
    }
    Ok(found)
}

fn folders_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}
