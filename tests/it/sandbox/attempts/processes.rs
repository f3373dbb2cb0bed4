//! Ways to other processes, to more of them, and to another user.

use libc::c_long;

use super::{Attempt, Free, Targets, done, threads};

pub(super) fn all(targets: &Targets) -> Vec<Attempt<'_>> {
    let victim = c_long::from(targets.victim);
    // SAFETY: getpid cannot fail. This process will be the parent of those that try.
    let parent = c_long::from(unsafe { libc::getpid() });
    let (works, root, inside) = (Free::Works, Free::WorksForRoot, libc::EPERM);
    vec![
        Attempt::call(
            "see whether process 1 may be signalled",
            root,
            inside,
            libc::SYS_kill,
            [1, 0, 0, 0],
        ),
        Attempt::call(
            "see whether the parent may be signalled",
            works,
            inside,
            libc::SYS_kill,
            [parent, 0, 0, 0],
        ),
        Attempt::call(
            "signal a thread of the parent",
            works,
            inside,
            libc::SYS_tgkill,
            [parent, parent, 0, 0],
        ),
        Attempt::call(
            "signal a thread by its number alone",
            works,
            inside,
            libc::SYS_tkill,
            [parent, 0, 0, 0],
        ),
        Attempt::call(
            "stop a process",
            works,
            inside,
            libc::SYS_kill,
            [victim, libc::SIGSTOP.into(), 0, 0],
        ),
        Attempt::call(
            "let it go on",
            works,
            inside,
            libc::SYS_kill,
            [victim, libc::SIGCONT.into(), 0, 0],
        ),
        Attempt::call(
            "open a process as a descriptor",
            works,
            inside,
            libc::SYS_pidfd_open,
            [victim, 0, 0, 0],
        ),
        Attempt::call(
            "change a process's limits",
            works,
            inside,
            libc::SYS_prlimit64,
            [victim, 4, 0, 0],
        ),
        Attempt::new("have the kernel signal a process", works, inside, move || {
            // SAFETY: fcntl takes numbers here.
            done(unsafe { libc::fcntl(0, libc::F_SETOWN, victim) }.into())
        }),
        Attempt::new("trace a process", Free::Depends, inside, move || {
            // SAFETY: PTRACE_SEIZE reads no memory; it ends with this process.
            done(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, victim, 0, 0) })
        }),
        Attempt::new("read a process's memory", Free::Depends, inside, move || {
            let mut byte = 0_u8;
            let local = libc::iovec {
                iov_base: (&raw mut byte).cast(),
                iov_len: 1,
            };
            static THERE_TOO: u8 = 1;
            let remote = libc::iovec {
                iov_base: (&raw const THERE_TOO).cast_mut().cast(),
                iov_len: 1,
            };
            // SAFETY: one byte of a constant, at the address where the fork of this process has it too.
            done(unsafe {
                libc::syscall(
                    libc::SYS_process_vm_readv,
                    victim,
                    &raw const local,
                    1,
                    &raw const remote,
                    1,
                    0,
                )
            })
        }),
        Attempt::call("become root", root, inside, libc::SYS_setresuid, [0, 0, 0, 0]),
        Attempt::call(
            "set a user of its own again",
            works,
            inside,
            libc::SYS_setresuid,
            [-1, -1, -1, 0],
        ),
        Attempt::call(
            "become readable to others",
            works,
            inside,
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE.into(), 1, 0, 0],
        ),
        Attempt::call(
            "outlive its parent",
            works,
            inside,
            libc::SYS_prctl,
            [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0],
        ),
        Attempt::new("fork", works, inside, || {
            // SAFETY: the new process leaves at once.
            match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
                // SAFETY: as above.
                0 => unsafe { libc::_exit(0) },
                pid => done(pid),
            }
        }),
        Attempt::new("fork by clone3", works, libc::ENOSYS, || {
            let arguments = [0_u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
            // SAFETY: 64 bytes are the first version of the structure; the new process leaves at once.
            match unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) } {
                // SAFETY: as above.
                0 => unsafe { libc::_exit(0) },
                pid => done(pid),
            }
        }),
        Attempt::new("start 200 threads", works, libc::EAGAIN, || threads(200)),
    ]
}
