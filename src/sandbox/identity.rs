//! Who the child is: another user without groups, without capabilities, in namespaces of its own.
#![expect(unsafe_code, reason = "capabilities and secure bits have no safe wrapper")]

use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// A user and group that one worker gives to one child at a time: two children of it cannot touch each other's files,
/// and `RLIMIT_NPROC` counts one of them only. They need no entry in `/etc/passwd`.
///
/// The numbers are not unique on a host: the children of a worker in another network namespace, or a service for which
/// systemd made up the same number, have the same rights on files and are counted together. From those a child is kept
/// by Landlock or its private root, which show it no job's directory but its own, and by the system call filter, which
/// lets it signal nobody else; without either, as only a best-effort sandbox goes, nothing hides their files. A container
/// that runs one worker, as on Cloud Run, has no such neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id, not 0.
    pub uid: u32,
    /// Group id, not 0.
    pub gid: u32,
}

impl Identity {
    /// Becomes this user and group, without supplementary groups and without a way back.
    pub(super) fn assume(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // Groups first: after the change of user the right to change them is gone.
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        Ok(())
    }
}

/// Moves into an empty network (not even a loopback that is up), IPC and host name namespace.
pub(super) fn leave_namespaces() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    Ok(())
}

/// Capabilities by their numbers in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    Chown = 0,
    DacOverride = 1,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    SysAdmin = 21,
}

/// The capabilities in effect, as a bit mask.
pub(super) fn effective() -> io::Result<u64> {
    let (mut header, mut sets) = (Header::default(), [Sets::default(); 2]);
    // SAFETY: the header names version 3, for which the kernel writes exactly two `Sets`.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(sets[0].effective) | u64::from(sets[1].effective) << 32)
}

/// Empties the bounding set and locks the secure bits, so that no exec of a set-uid or root-owned program could bring
/// a capability back. Needs CAP_SETPCAP: without it there is little to lose, and `no_new_privs` and the filter hold.
pub(super) fn drop_capability_bounds() -> io::Result<()> {
    if effective()? & (1 << Capability::Setpcap as u64) == 0 {
        return Ok(());
    }
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            match io::Error::last_os_error() {
                // The first number that this kernel does not know.
                error if error.raw_os_error() == Some(libc::EINVAL) => break,
                error => return Err(error),
            }
        }
    }
    // NO_SETUID_FIXUP and KEEP_CAPS are locked while off: the change of user must clear the capabilities.
    let bits = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    // SAFETY: PR_SET_SECUREBITS takes a number.
    if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Empties the effective, permitted, inheritable and ambient sets. Giving up is allowed to everybody.
pub(super) fn drop_capabilities() -> io::Result<()> {
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no further argument.
    if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let (mut header, sets) = (Header::default(), [Sets::default(); 2]);
    // SAFETY: the header names version 3, for which the kernel reads exactly two `Sets`.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct __user_cap_header_struct` of linux/capability.h, for the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

impl Default for Header {
    fn default() -> Self {
        const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
        Self {
            version: LINUX_CAPABILITY_VERSION_3,
            pid: 0,
        }
    }
}

/// `struct __user_cap_data_struct` of linux/capability.h: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
