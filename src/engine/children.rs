//! The zygote's children: one that waits for a job, and those that have one. A child gets its job over a socket, so that it
//! can be forked, and the pages that it will write made its own, before there is one.
#![expect(unsafe_code, reason = "wait4 and pidfds have no safe wrapper")]

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::finding;
use super::protocol::{CONFINED_LINE, Ending, JobLimits, MEMORY_EXHAUSTED_LINE, NotConfined, Packet, Report, Usage};
use super::watch::{Allowed, Watch};

/// The most that is read of what a child says: what a pipe holds.
const LONGEST_REPORT: u64 = 64 << 10;

/// A forked process that is not reaped yet, so that its number is its own.
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
}

impl Child {
    fn kill(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Reaps the child: how it ended, and what it used. It has ended, or has been killed.
    fn wait(&self) -> io::Result<(i32, libc::rusage)> {
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
        Ok((status, usage))
    }
}

/// A child that has no job yet. It ends when this is dropped.
pub(super) struct Waiting {
    child: Option<Child>,
    /// Where it waits for its job.
    job: OwnedFd,
}

impl Waiting {
    /// The parent's side of a new child.
    ///
    /// # Errors
    /// It cannot be followed; it has been ended.
    pub(super) fn new(pid: Pid, report: OwnedFd, job: OwnedFd) -> io::Result<Self> {
        match open_pidfd(pid) {
            Ok(pidfd) => Ok(Self {
                child: Some(Child { pid, pidfd, report }),
                job,
            }),
            Err(error) => {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
                Err(error)
            }
        }
    }

    /// Hands it its job, from when on its time and its memory count.
    ///
    /// # Errors
    /// It is gone, and another one may do; or it cannot be watched.
    pub(super) fn give(mut self, job: &JobLimits, packet: &Packet) -> io::Result<Running> {
        let allowed = Allowed {
            memory: job.memory,
            processor_ms: job.processor_ms,
            threads: job.threads,
            nameless_files: job.disk,
        };
        let child = self.child.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // Before it knows of its job: what it has by now is not the document's.
        let watch = Watch::begin(child.pid, allowed).map_err(|error| {
            io::Error::other(format!(
                "its process cannot be watched: {error} (is /proc mounted, without hidepid?)"
            ))
        })?;
        packet.send(self.job.as_fd())?;
        let child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        let began = Instant::now();
        Ok(Running {
            child,
            watch,
            began,
            deadline: began + Duration::from_millis(job.wall_ms),
            killed: None,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            child.kill();
            let _ = child.wait();
        }
    }
}

/// A child that has a job.
pub(super) struct Running {
    child: Child,
    pub(super) watch: Watch,
    began: Instant,
    pub(super) deadline: Instant,
    /// Why it was killed, if it was.
    pub(super) killed: Option<Ending>,
}

impl Running {
    /// Readable when the child has ended.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    pub(super) fn kill(&mut self, why: Ending) {
        if self.killed.is_none() {
            self.child.kill();
            self.killed = Some(why);
        }
    }

    /// Reaps the child. It has ended, or has been killed.
    pub(super) fn wait(&mut self) -> io::Result<(i32, Usage)> {
        let (status, usage) = self.child.wait()?;
        let microseconds = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
        };
        let used = Usage {
            wall_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            cpu_ms: (microseconds(usage.ru_utime) + microseconds(usage.ru_stime)) / 1000,
            peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
            own_memory: self.watch.most_memory(),
        };
        Ok((status, used))
    }

    pub(super) fn ending(self, status: i32) -> Ending {
        let mut said = Vec::new();
        // What a child leaves in the pipe is there when it has ended; the pipe does not block.
        let mut report = fs::File::from(self.child.report).take(LONGEST_REPORT);
        drop(report.read_to_end(&mut said));
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

/// What a child says that did not come as far as its document.
#[derive(Deserialize)]
#[serde(untagged)]
enum NotStarted {
    /// Its jail could not be prepared: a sentence.
    Jail(String),
    Confined(NotConfined),
}

/// How a child ended, from what it said and its status. What it said first holds, however it ended after that: a document
/// that is written is looked at afterwards.
fn judge(said: &[u8], status: i32) -> Ending {
    let Some(mut said) = said.strip_prefix(CONFINED_LINE) else {
        // It has not opened the document: what it says is ours, and its end is not the document's fault.
        return Ending::NotStarted(match serde_json::from_slice(said) {
            Ok(NotStarted::Jail(sentence)) => sentence,
            Ok(NotStarted::Confined(not_confined)) => not_confined.to_string(),
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
        assert_eq!(
            judge(b"\"a sentence\"", 0),
            Ending::NotStarted("a sentence".to_owned()),
            "of its jail"
        );
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
