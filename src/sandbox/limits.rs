//! What one child may use up, and what a same-user child may not see of the worker.
#![expect(unsafe_code, reason = "PR_SET_DUMPABLE has no safe wrapper")]

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most a child may use. The kernel enforces each one: there is nothing to poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of address space. What was mapped before the fork counts, so it must be above the parent's own size.
    pub address_space: u64,
    /// Seconds of processor time over all threads. Then SIGXCPU, and SIGKILL a second later.
    pub cpu_seconds: u64,
    /// Bytes of one file. Writing more raises SIGXFSZ, or fails with `EFBIG` where that is ignored.
    pub file_size: u64,
    /// Open descriptors, those that were kept included.
    pub open_files: u64,
    /// Processes and threads of the child's *user*, all counted together: a child without an identity of its own
    /// shares the number with the worker. The kernel does not count for root.
    pub processes: u64,
}

impl Limits {
    /// Sets the limits, soft and hard, on this process and on all it could start.
    pub(super) fn apply(self) -> io::Result<()> {
        lower(Resource::RLIMIT_AS, self.address_space, self.address_space)?;
        // Two steps: SIGXCPU tells the parent which limit it was, SIGKILL cannot be caught.
        lower(
            Resource::RLIMIT_CPU,
            self.cpu_seconds,
            self.cpu_seconds.saturating_add(1),
        )?;
        lower(Resource::RLIMIT_FSIZE, self.file_size, self.file_size)?;
        lower(Resource::RLIMIT_NOFILE, self.open_files, self.open_files)?;
        lower(Resource::RLIMIT_NPROC, self.processes, self.processes)?;
        // A dump would hold the document.
        lower(Resource::RLIMIT_CORE, 0, 0)
    }
}

/// Sets a limit, never above the hard one in force: raising it needs a privilege, and a lower one is safe.
fn lower(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let (_, ceiling) = getrlimit(resource)?;
    setrlimit(resource, soft.min(ceiling), hard.min(ceiling))?;
    Ok(())
}

/// Makes the calling process unreadable to other processes of its user: without root, the sandboxed child has the
/// worker's own uid, and the worker holds tokens.
///
/// `/proc/<pid>/{environ,mem,fd,...}` then belong to root, `ptrace` is refused, and no core file is written.
/// An exec undoes it: call it first thing in every process that holds a secret.
///
/// # Errors
/// The kernel refused; no supported one does.
pub fn harden_worker() -> io::Result<()> {
    hide_memory()?;
    lower(Resource::RLIMIT_CORE, 0, 0)
}

/// Makes the calling process unreadable to others of its user, and ends without a core file whoever takes those.
pub(super) fn hide_memory() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes a number and changes only how others may see this process.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
