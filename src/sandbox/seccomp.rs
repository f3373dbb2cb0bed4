//! The system calls the child may make: those that a conversion was seen to need, by number, and no other.
//!
//! Everything that is not listed fails with `EPERM`: sockets, exec, signals to others, `ptrace`, `prctl`, `memfd_create`,
//! io_uring, `bpf`, keys, mounts, namespaces, links. Three exceptions: `clone3` fails with `ENOSYS`, because its flags
//! are behind a pointer that no filter can read and the C library then uses `clone`; a change of permissions and a wait
//! for the disk succeed without effect; a call through another architecture's table kills, because its numbers mean
//! other calls.
#![expect(unsafe_code, reason = "seccomp has no safe wrapper that only asks")]

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::layers::known_when;

/// Whether the kernel installs filters: an unreadable program is `EFAULT` where it does, and never takes effect.
pub(super) fn available() -> io::Result<()> {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: the kernel reads the program from a null pointer, which fails, and changes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, none) };
    if answer < 0 {
        known_when(libc::EFAULT, io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Filters the system calls of the calling process, for good. Needs `no_new_privs`, and one thread.
/// `walled` says whether another layer judges the cutting of files by their names.
pub(super) fn install(walled: bool) -> io::Result<()> {
    let program = program(std::process::id(), walled).map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(|error| match error {
        seccompiler::Error::Seccomp(source) | seccompiler::Error::Prctl(source) => source,
        other => io::Error::other(other),
    })
}

/// The whole filter for the process `own`.
fn program(own: u32, walled: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut calls: BTreeMap<c_long, Vec<SeccompRule>> = COMMON
        .iter()
        .chain(OF_THIS_ARCHITECTURE)
        .map(|&call| (call, Vec::new()))
        .collect();

    // A thread, never a process, and nothing in a new namespace.
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let mask = thread | u64::from(namespaces.cast_unsigned());
    calls.insert(
        libc::SYS_clone,
        vec![argument(0, SeccompCmpOp::MaskedEq(mask), thread)?],
    );

    // abort() sends its signal this way. Nobody else may be hit.
    calls.insert(libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Eq, u64::from(own))?]);

    // A file that never had a name is none that anybody could measure or remove.
    let named = |index| argument(index, SeccompCmpOp::MaskedEq(UNNAMED), 0);
    calls.insert(libc::SYS_openat, vec![named(2)?]);
    #[cfg(target_arch = "x86_64")]
    calls.insert(libc::SYS_open, vec![named(1)?]);

    // Commands that have the kernel send a signal of the caller's choice to any process of the same user, and the one
    // that keeps other processes from opening a file of that user.
    let denied = [libc::F_SETOWN, F_SETOWN_EX, F_SETSIG, libc::F_NOTIFY, libc::F_SETLEASE];
    let conditions: Result<Vec<_>, _> = denied
        .iter()
        .chain(&[libc::F_SETFL])
        .map(|&command| condition(1, SeccompCmpOp::Ne, u64::from(command.cast_unsigned())))
        .collect();
    // Flags belong to the open file, which a child shares with its parent and with every child to come: one that is read
    // in whole blocks alone is lost to all of them.
    let flags = u64::from((libc::O_DIRECT | libc::O_ASYNC).cast_unsigned());
    let harmless_flags = SeccompRule::new(vec![
        condition(1, SeccompCmpOp::Eq, u64::from(libc::F_SETFL.cast_unsigned()))?,
        condition(2, SeccompCmpOp::MaskedEq(flags), 0)?,
    ])?;
    calls.insert(libc::SYS_fcntl, vec![SeccompRule::new(conditions?)?, harmless_flags]);

    // It would cut any file of the same user to nothing.
    if !walled {
        calls.remove(&libc::SYS_truncate);
    }

    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(calls, denied, SeccompAction::Allow, ARCHITECTURE)?;
    let mut program = exceptions();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// A rule of one condition on the 32 bits of an argument that the kernel looks at.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![condition(index, operator, value)?])
}

fn condition(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

/// What a list of allowed calls cannot say, as instructions to run before it: the library knows one answer for all
/// calls that are not listed. They end here or fall through to the list.
fn exceptions() -> BpfProgram {
    // Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let answer = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    let mut program = vec![
        load(ARCH),
        unless(libc::BPF_JEQ, AUDIT_ARCH),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        // The x32 calls: the same architecture to the kernel, other numbers.
        const X32: u32 = 0x4000_0000;
        program.extend([when(libc::BPF_JGE, X32), answer(libc::SECCOMP_RET_KILL_PROCESS)]);
    }
    let pretended = PRETENDED.iter().map(|&call| (call, 0));
    for (call, error) in pretended.chain([(libc::SYS_clone3, libc::ENOSYS)]) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "call numbers are small"
        )]
        let call = call as u32;
        program.extend([
            when(libc::BPF_JEQ, call),
            answer(libc::SECCOMP_RET_ERRNO | error.cast_unsigned()),
        ]);
    }
    program
}

/// Runs the next instruction only when the comparison holds.
fn when(comparison: u32, value: u32) -> sock_filter {
    sock_filter {
        jt: 0,
        jf: 1,
        ..statement(libc::BPF_JMP | comparison | libc::BPF_K, value)
    }
}

/// Runs the next instruction only when the comparison fails.
fn unless(comparison: u32, value: u32) -> sock_filter {
    sock_filter {
        jt: 1,
        jf: 0,
        ..statement(libc::BPF_JMP | comparison | libc::BPF_K, value)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "an instruction code has 16 bits")]
fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// `__O_TMPFILE` (asm-generic/fcntl.h), and commands of linux/fcntl.h; the libc crate does not have them for every target.
const UNNAMED: u64 = 0o20_000_000;
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;

/// Changes of permissions, which answer success and change nothing. LibreOffice makes its output readable to all, which
/// nobody needs here; a refusal might fail the conversion. Really made, the call could shut every other child out of
/// files of a user that they share: landlock does not judge it. Nor does anybody need what a child writes to be on a disk:
/// the parent reads it a moment later, and removes it.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const PRETENDED: &[c_long] = &[
    libc::SYS_chmod, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fsync, libc::SYS_fdatasync,
];
/// As on x86_64, without the oldest form.
#[cfg(target_arch = "aarch64")]
const PRETENDED: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
];

/// Calls that every architecture has. `clone`, `tgkill` and `fcntl` are added with conditions.
#[rustfmt::skip]
const COMMON: &[c_long] = &[
    libc::SYS_brk, libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_close,
    libc::SYS_dup, libc::SYS_dup3, libc::SYS_eventfd2, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_fadvise64, libc::SYS_fallocate,
    libc::SYS_flock, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_ftruncate, libc::SYS_futex,
    libc::SYS_get_robust_list, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_getegid, libc::SYS_geteuid,
    libc::SYS_getgid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_getrandom, libc::SYS_getrlimit,
    libc::SYS_getrusage, libc::SYS_gettid, libc::SYS_gettimeofday, libc::SYS_getuid, libc::SYS_lseek,
    libc::SYS_madvise, libc::SYS_membarrier, libc::SYS_mincore, libc::SYS_mkdirat, libc::SYS_mmap,
    libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_munmap, libc::SYS_nanosleep, libc::SYS_newfstatat,
    libc::SYS_openat, libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pread64, libc::SYS_pselect6, libc::SYS_pwrite64,
    libc::SYS_read, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_renameat, libc::SYS_renameat2,
    libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_sched_getaffinity, libc::SYS_sched_yield, libc::SYS_set_robust_list,
    libc::SYS_set_tid_address, libc::SYS_sigaltstack, libc::SYS_statfs, libc::SYS_statx, libc::SYS_sysinfo,
    libc::SYS_times, libc::SYS_truncate, libc::SYS_umask, libc::SYS_uname, libc::SYS_unlinkat, libc::SYS_write,
    libc::SYS_writev,
];

/// The older forms that x86_64 also has, and that the C library still uses there.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OF_THIS_ARCHITECTURE: &[c_long] = &[
    libc::SYS_access, libc::SYS_arch_prctl,  libc::SYS_dup2, libc::SYS_lstat, libc::SYS_mkdir,
    libc::SYS_open, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename, libc::SYS_rmdir, libc::SYS_select,
    libc::SYS_stat, libc::SYS_unlink,
];
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
/// `AUDIT_ARCH_X86_64` of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;

/// aarch64 has none of the older forms.
#[cfg(target_arch = "aarch64")]
const OF_THIS_ARCHITECTURE: &[c_long] = &[];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;
/// `AUDIT_ARCH_AARCH64` of linux/audit.h.
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the sandbox has lists of system calls for x86_64 and aarch64 only");
