//! The zygote's children: one that waits for a job, and those that have one. A child gets its job over a socket, so that it
//! can be forked, and the pages that it will write made its own, before there is one.
#![expect(unsafe_code, reason = "wait4 and pidfds have no safe wrapper")]

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::protocol::{CONFINED_LINE, Ending, Job, MEMORY_EXHAUSTED_LINE, NotConfined, Usage, send_packet};

/// The most that is read of what a child says.
const LONGEST_REPORT: u64 = 4096;

/// A child that has no job yet. It ends when this is dropped.
pub(super) struct Waiting {
    child: Option<Running>,
    /// Where it waits for its job.
    job: OwnedFd,
}

impl Waiting {
    /// The parent's side of a new child.
    ///
    /// # Errors
    /// It cannot be watched; it has been ended.
    pub(super) fn new(pid: Pid, report: OwnedFd, job: OwnedFd) -> io::Result<Self> {
        let now = Instant::now();
        match open_pidfd(pid) {
            Ok(pidfd) => Ok(Self {
                child: Some(Running {
                    pid,
                    pidfd,
                    report,
                    began: now,
                    deadline: now,
                    killed: None,
                }),
                job,
            }),
            Err(error) => {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
                Err(error)
            }
        }
    }

    /// Hands it its job, from when on its time counts.
    ///
    /// # Errors
    /// It is gone: another one may do.
    pub(super) fn give(mut self, job: &Job) -> io::Result<Running> {
        send_packet(self.job.as_fd(), job)?;
        let mut child = self.child.take().ok_or(io::ErrorKind::NotFound)?;
        child.began = Instant::now();
        child.deadline = child.began + Duration::from_millis(job.wall_ms);
        Ok(child)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill(Ending::Cancelled);
            let _ = child.wait();
        }
    }
}

/// A child that has a job.
pub(super) struct Running {
    pid: Pid,
    pub(super) pidfd: OwnedFd,
    report: OwnedFd,
    began: Instant,
    pub(super) deadline: Instant,
    /// Why it was killed, if it was.
    pub(super) killed: Option<Ending>,
}

impl Running {
    pub(super) fn kill(&mut self, why: Ending) {
        if self.killed.is_none() {
            // The child is not reaped yet, so the number is still its own.
            let _ = kill(self.pid, Signal::SIGKILL);
            self.killed = Some(why);
        }
    }

    /// Reaps the child. It has ended, or has been killed.
    pub(super) fn wait(&mut self) -> io::Result<(i32, Usage)> {
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
        let microseconds = |time: libc::timeval| {
            u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
        };
        let used = Usage {
            wall_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            cpu_ms: (microseconds(usage.ru_utime) + microseconds(usage.ru_stime)) / 1000,
            peak_memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        };
        Ok((status, used))
    }

    pub(super) fn ending(self, status: i32) -> Ending {
        let mut said = Vec::new();
        // What a child leaves in the pipe is there when it has ended; the pipe does not block.
        drop(fs::File::from(self.report).take(LONGEST_REPORT).read_to_end(&mut said));
        match self.killed {
            Some(why) => why,
            None => judge(&said, status),
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

/// How a child ended that was not killed, from what it said and its status.
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
    if libc::WIFSIGNALED(status) {
        return Ending::Signalled {
            signal: libc::WTERMSIG(status),
            memory_exhausted,
        };
    }
    match serde_json::from_slice(said) {
        Ok(report) => Ending::Reported {
            report,
            memory_exhausted,
        },
        Err(_) => Ending::Exited {
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
    use crate::engine::protocol::Report;

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
                memory_exhausted: true
            }
        );
    }
}
