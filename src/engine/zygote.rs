//! The zygote: a process of one thread that has LibreOffice started and warm, and forks once per document.
//!
//! It is this same program under a hidden subcommand, started by the worker with a clean environment and three
//! descriptors: 0 the socket to the worker, 1 the lifeline, 2 a pipe to the worker's log. It decides nothing about a
//! job: it forks, waits, kills at the wall limit, and reports how each child ended.
#![expect(unsafe_code, reason = "fork, wait4 and pidfds have no safe wrapper")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{ForkResult, Pid, alarm, fork, pipe2};

use super::office::{self, Office};
use super::protocol::{
    CONFINED_LINE, Ending, Event, Job, MEMORY_EXHAUSTED_LINE, NotConfined, Report, Request, Start, Usage,
    receive_packet, send_packet,
};
use super::watch::{self, Allowed, Watch};
use super::{ZYGOTE_COMMAND, child, finding, warm};
use crate::sandbox::{self, Identity, Jail, Limits, Plan};

/// Seconds until a zygote that hangs while it starts is ended by its own alarm.
const START_LIMIT: u32 = 60;
/// The most that is read of what a child says: what a pipe holds.
const LONGEST_REPORT: u64 = 64 << 10;
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
        Ok(Some(Request::Start(start))) => start,
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
    running: HashMap<u64, Running>,
}

/// A child.
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
    forked: Instant,
    deadline: Instant,
    watch: Watch,
    /// Why it was killed, if it was.
    killed: Option<Ending>,
}

impl Zygote {
    fn warm(office: Office, start: Start, socket: OwnedFd, lifeline: OwnedFd) -> Result<Self, String> {
        warm::warm(&office, &start.home.join("warm"))?;
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
        let (numbers, mut descriptors): (Vec<u64>, Vec<PollFd<'_>>) = self
            .running
            .iter()
            .map(|(&number, running)| (number, PollFd::new(running.pidfd.as_fd(), PollFlags::POLLIN)))
            .unzip();
        descriptors.push(PollFd::new(self.socket.as_fd(), PollFlags::POLLIN));
        match poll(&mut descriptors, timeout) {
            Err(nix::errno::Errno::EINTR) => return Ok(true),
            other => other?,
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
        if ready.last() != Some(&true) {
            return Ok(true);
        }
        match receive_packet(self.socket.as_fd())? {
            None => return Ok(false),
            Some(Request::Start(_)) => return Err(io::Error::other("it starts a second time")),
            Some(Request::Cancel { job }) => {
                if let Some(running) = self.running.get_mut(&job) {
                    running.kill(Ending::Cancelled);
                }
            }
            Some(Request::Convert(job)) => match self.fork(&job) {
                Ok(running) => {
                    self.running.insert(job.number, running);
                }
                Err(sentence) => {
                    let finished = Event::Finished {
                        job: job.number,
                        ending: Ending::NotStarted(sentence),
                        usage: Usage::default(),
                    };
                    send_packet(self.socket.as_fd(), &finished)?;
                }
            },
        }
        Ok(true)
    }

    /// Forks a child that converts one document.
    fn fork(&self, job: &Job) -> Result<Running, String> {
        let failed = |what: &'static str| move |error: nix::errno::Errno| format!("the engine cannot {what}: {error}");
        let (report, reports_to) =
            pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("make a pipe for a conversion"))?;
        // The child's own: the one before is shared with the child before.
        office::renew_wake().map_err(|error| format!("the engine cannot make an event descriptor: {error}"))?;
        let address_space = mapped().map_err(|error| format!("the engine cannot read its own size: {error}"))?;
        let jail = Jail::prepare(Plan {
            readable: self.readable(),
            writable: job.directory.clone(),
            keep: child::kept(&reports_to, &self.lifeline, &self.open_files),
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
        })
        .map_err(|error| error.to_string())?;
        let inherited =
            watch::anonymous_memory().map_err(|error| format!("the engine cannot read its size: {error}"))?;
        let forked = Instant::now();
        // SAFETY: this process has one thread, which was checked, so the child may do all that its parent may.
        match unsafe { fork() }.map_err(failed("fork for a conversion"))? {
            ForkResult::Child => {
                self.become_child(job, jail, &reports_to);
                exit(0)
            }
            ForkResult::Parent { child: pid } => {
                let allowed = Allowed {
                    memory: job.memory,
                    processor_ms: job.processor_ms,
                    threads: job.threads,
                    nameless_files: job.disk,
                };
                let watched = open_pidfd(pid).and_then(|pidfd| Ok((pidfd, Watch::begin(pid, inherited, allowed)?)));
                let (pidfd, watch) = watched.map_err(|error| {
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = nix::sys::wait::waitpid(pid, None);
                    format!("the engine cannot watch a conversion: {error} (is /proc mounted, without hidepid?)")
                })?;
                let deadline = forked + Duration::from_millis(job.wall_ms);
                Ok(Running {
                    pid,
                    pidfd,
                    report,
                    forked,
                    deadline,
                    watch,
                    killed: None,
                })
            }
        }
    }

    fn become_child(&self, job: &Job, jail: Jail, reports_to: &OwnedFd) {
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
        office::report_exhausted_memory(reports_to);
        child::convert(&self.office, job, jail, &self.temporary_folders, reports_to);
    }

    fn finish(&self, number: u64, mut running: Running) -> io::Result<()> {
        let (status, usage) = running.wait()?;
        let ending = running.ending(status);
        send_packet(
            self.socket.as_fd(),
            &Event::Finished {
                job: number,
                ending,
                usage,
            },
        )
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

impl Running {
    fn kill(&mut self, why: Ending) {
        if self.killed.is_none() {
            // The child is not reaped yet, so the number is still its own.
            let _ = kill(self.pid, Signal::SIGKILL);
            self.killed = Some(why);
        }
    }

    /// Reaps the child. It has ended, or has been killed.
    fn wait(&mut self) -> io::Result<(i32, Usage)> {
        let mut status = 0;
        // SAFETY: all zeros is a valid `rusage`.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: two places to write to, on this stack.
        while unsafe { libc::wait4(self.pid.as_raw(), &raw mut status, 0, &raw mut usage) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let milliseconds = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_usec).unwrap_or(0) / 1000
        };
        let used = Usage {
            wall_ms: u64::try_from(self.forked.elapsed().as_millis()).unwrap_or(u64::MAX),
            cpu_ms: milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime),
            peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            own_memory: self.watch.most_memory(),
        };
        Ok((status, used))
    }

    fn ending(self, status: i32) -> Ending {
        let mut said = Vec::new();
        // What a child leaves in the pipe is there when it has ended; the pipe does not block.
        drop(fs::File::from(self.report).take(LONGEST_REPORT).read_to_end(&mut said));
        match (self.killed, judge(&said, status)) {
            // Its outputs were written within its limits; what it did not come to was the look at its document.
            (
                Some(Ending::TimedOut | Ending::OverLimit(_)),
                done @ Ending::Reported {
                    report: Report::Done, ..
                },
            ) => done,
            (Some(why), _) => why,
            (None, ending) => ending,
        }
    }
}

/// How a child ended, from what it said and its status. What it said first holds, however it ended after that: a document
/// that is written is looked at afterwards.
fn judge(said: &[u8], status: i32) -> Ending {
    let Some(mut said) = said.strip_prefix(CONFINED_LINE) else {
        // It has not opened the document: what it says is ours, and its end is not the document's fault.
        return Ending::NotStarted(match serde_json::from_slice::<NotConfined>(said) {
            Ok(not_confined) => not_confined.to_string(),
            Err(_) => format!("a conversion ended before it opened its document (wait status {status:#x})"),
        });
    };
    let mut memory_exhausted = false;
    while let Some(rest) = said.strip_prefix(MEMORY_EXHAUSTED_LINE) {
        (memory_exhausted, said) = (true, rest);
    }
    let mut lines = said.split(|&byte| byte == b'\n');
    let report = lines.next().and_then(|line| serde_json::from_slice(line).ok());
    if let Some(Report::Done) = report {
        let findings = lines.next().and_then(|line| serde_json::from_slice(line).ok());
        return Ending::Reported {
            report: Report::Done,
            memory_exhausted,
            findings: finding::bounded(findings.unwrap_or_default()),
        };
    }
    if libc::WIFSIGNALED(status) {
        return Ending::Signalled {
            signal: libc::WTERMSIG(status),
            memory_exhausted,
        };
    }
    match report {
        Some(report) => Ending::Reported {
            report,
            memory_exhausted,
            findings: Vec::new(),
        },
        None => Ending::Exited {
            status: libc::WEXITSTATUS(status),
            memory_exhausted,
        },
    }
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

fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers; the child is not reaped, so the number is its own.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let opened = i32::try_from(opened).unwrap_or(-1);
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Bytes of address space in use.
fn mapped() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm
        .split(' ')
        .next()
        .and_then(|pages| pages.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    Ok(pages * u64::try_from(page_size).unwrap_or(4096))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Finding;

    /// A compromised child may say what it likes: that it was never locked in is not believed once it was, or its
    /// document would be tried again for ever.
    #[test]
    fn a_child_is_believed_less_once_it_is_locked_in() {
        let refused = r#"{"step":{"Jail":"Seccomp"},"errno":1}"#;
        let Ending::NotStarted(sentence) = judge(refused.as_bytes(), 0) else {
            panic!("{:?}", judge(refused.as_bytes(), 0));
        };
        assert!(
            sentence.contains("could not install the system call filter"),
            "{sentence}"
        );
        let crashed = Ending::Exited {
            status: 0,
            memory_exhausted: false,
        };
        for lie in [refused, "{\"NotConfined\":\"a sentence of its own\"}", ""] {
            assert_eq!(judge(format!("confined\n{lie}").as_bytes(), 0), crashed, "{lie}");
        }
        assert!(
            matches!(judge(b"\"Done\"", 0), Ending::NotStarted(_)),
            "done without a jail"
        );
        assert!(matches!(judge(b"", libc::SIGSYS), Ending::NotStarted(_)));
    }

    #[test]
    fn an_allocation_that_failed_is_remembered_whatever_is_reported() {
        assert_eq!(
            judge(b"confined\nmemory\n\"Done\"", 0),
            Ending::Reported {
                report: Report::Done,
                memory_exhausted: true,
                findings: Vec::new(),
            }
        );
    }

    #[test]
    fn an_output_that_is_written_stays_so_however_the_look_at_the_document_ends() {
        let done = |findings| Ending::Reported {
            report: Report::Done,
            memory_exhausted: false,
            findings,
        };
        for (said, status) in [
            (&b"confined\n\"Done\"\n"[..], libc::SIGSEGV),
            (b"confined\n\"Done\"\nmemory\n", libc::SIGABRT),
            (b"confined\n\"Done\"\n[{\"CurrentDa", libc::SIGXCPU),
            (b"confined\n\"Done\"\n[\"NoSuchFinding\"]\n", 0),
        ] {
            assert_eq!(judge(said, status), done(Vec::new()));
        }
        assert_eq!(
            judge(b"confined\n\"Done\"\n[\"CurrentDate\",{\"HiddenSheets\":2}]\n", 0),
            done(vec![Finding::CurrentDate, Finding::HiddenSheets(2)])
        );
        let not_done = judge(b"confined\n\"NoExportFilter\"\n", libc::SIGSEGV);
        assert!(matches!(not_done, Ending::Signalled { .. }), "{not_done:?}");
    }
}
