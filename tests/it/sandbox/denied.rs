//! Calls that are denied by their number alone, whatever their arguments.

use std::collections::BTreeMap;

use super::attempts::done;
use super::process::{Outcome, Scene, attempt, play, users};

/// Calls of the kernel that no conversion makes. All arguments are -1: whoever lets one through does nothing by it.
const DENIED: &[(&str, libc::c_long)] = &[
    ("accept4", libc::SYS_accept4),
    ("add_key", libc::SYS_add_key),
    ("bind", libc::SYS_bind),
    ("bpf", libc::SYS_bpf),
    ("capset", libc::SYS_capset),
    ("chdir", libc::SYS_chdir),
    ("chroot", libc::SYS_chroot),
    ("connect", libc::SYS_connect),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("epoll_create1", libc::SYS_epoll_create1),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("fanotify_init", libc::SYS_fanotify_init),
    ("fchdir", libc::SYS_fchdir),
    ("fchown", libc::SYS_fchown),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("init_module", libc::SYS_init_module),
    ("inotify_add_watch", libc::SYS_inotify_add_watch),
    ("io_setup", libc::SYS_io_setup),
    ("io_uring_enter", libc::SYS_io_uring_enter),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("ioctl", libc::SYS_ioctl),
    ("kcmp", libc::SYS_kcmp),
    ("keyctl", libc::SYS_keyctl),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
    ("linkat", libc::SYS_linkat),
    ("listen", libc::SYS_listen),
    ("memfd_create", libc::SYS_memfd_create),
    ("memfd_secret", libc::SYS_memfd_secret),
    ("mknodat", libc::SYS_mknodat),
    ("mount", libc::SYS_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("move_pages", libc::SYS_move_pages),
    ("mq_open", libc::SYS_mq_open),
    ("msgget", libc::SYS_msgget),
    ("name_to_handle_at", libc::SYS_name_to_handle_at),
    ("open_by_handle_at", libc::SYS_open_by_handle_at),
    ("open_tree", libc::SYS_open_tree),
    ("openat2", libc::SYS_openat2),
    ("perf_event_open", libc::SYS_perf_event_open),
    ("personality", libc::SYS_personality),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("pivot_root", libc::SYS_pivot_root),
    ("prctl", libc::SYS_prctl),
    ("prlimit64", libc::SYS_prlimit64),
    ("process_vm_readv", libc::SYS_process_vm_readv),
    ("process_vm_writev", libc::SYS_process_vm_writev),
    ("ptrace", libc::SYS_ptrace),
    ("recvmsg", libc::SYS_recvmsg),
    ("request_key", libc::SYS_request_key),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo),
    ("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo),
    ("seccomp", libc::SYS_seccomp),
    ("semget", libc::SYS_semget),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("setgroups", libc::SYS_setgroups),
    ("setns", libc::SYS_setns),
    ("setpriority", libc::SYS_setpriority),
    ("setresgid", libc::SYS_setresgid),
    ("setrlimit", libc::SYS_setrlimit),
    ("setsid", libc::SYS_setsid),
    ("setsockopt", libc::SYS_setsockopt),
    ("setxattr", libc::SYS_setxattr),
    ("shmget", libc::SYS_shmget),
    ("signalfd4", libc::SYS_signalfd4),
    ("splice", libc::SYS_splice),
    ("symlinkat", libc::SYS_symlinkat),
    ("syslog", libc::SYS_syslog),
    ("timer_create", libc::SYS_timer_create),
    ("timerfd_create", libc::SYS_timerfd_create),
    ("tkill", libc::SYS_tkill),
    ("umount2", libc::SYS_umount2),
    ("unshare", libc::SYS_unshare),
    ("userfaultfd", libc::SYS_userfaultfd),
    ("utimensat", libc::SYS_utimensat),
    ("vmsplice", libc::SYS_vmsplice),
];

#[test]
fn calls_that_no_conversion_makes_are_denied_by_number() {
    for user in users() {
        let called: BTreeMap<String, (Outcome, Outcome)> = play(user, "denied calls");
        assert_eq!(called.len(), DENIED.len());
        let denied = Outcome::Refused(libc::EPERM);
        let wrong: Vec<_> = called.iter().filter(|(_, (_, jailed))| *jailed != denied).collect();
        assert!(wrong.is_empty(), "as {user:?}, not EPERM inside: {wrong:?}");
        // Outside, the kernel looks at the arguments first, but for those that need a capability.
        let free = called.values().filter(|(free, _)| *free != denied).count();
        assert!(
            free * 2 > called.len(),
            "as {user:?} only {free} of {} answer otherwise outside",
            called.len()
        );
    }
}

pub(super) fn call_denied(scene: &Scene) -> BTreeMap<&'static str, (Outcome, Outcome)> {
    let call = |number| {
        move || {
            // SAFETY: -1 is no address of this process, no descriptor and no process.
            done(unsafe { libc::syscall(number, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) })
        }
    };
    let both = |number| (attempt(scene, false, call(number)), attempt(scene, true, call(number)));
    DENIED.iter().map(|&(name, number)| (name, both(number))).collect()
}
