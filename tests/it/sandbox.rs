//! The sandbox, proved from inside by trying to leave it and from outside by looking at the child.
//!
//! Each attempt is made twice: free, where it must work (else the test proves nothing), and jailed, where it must fail
//! with the error number of the layer that is meant to stop it. All of it as root, and as a user without capabilities.
#![expect(
    unsafe_code,
    reason = "what an attacker tries are system calls, and what proves them are processes"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

mod attempts;
mod process;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::getppid;
use platen::sandbox::{Identity, Jail, Layers, Limits, Mode, Plan, PrepareError, harden_worker, probe};
use serde_json::json;

use attempts::{Targets, c, done, open, threads};
use process::{As, Outcome, Scene, attempt, in_child, jail, perform, pipe, play, users};

/// Not a test: the process that the tests below start for their scenes.
#[test]
#[ignore = "started by the other tests of this file"]
fn in_a_process_of_its_own() {
    perform(|scene| match scene.script.as_str() {
        "attempts" => json!(try_all(scene)),
        "denied calls" => json!(call_denied(scene)),
        "ends" => json!(ends(scene)),
        "work" => json!(work(scene)),
        "look" => json!(look_from_outside(scene)),
        "descriptors" => json!(descriptors(scene)),
        "orphan" => json!(orphan(scene)),
        "harden" => json!(read_a_sibling(scene)),
        "refusals" => json!(refusals(scene)),
        other => panic!("no scene {other}"),
    });
}

#[test]
fn every_way_out_is_closed() {
    for user in users() {
        let tried: BTreeMap<String, (Outcome, Outcome, i32, String)> = play(user, "attempts");
        assert!(tried.len() > 60, "only {} attempts were made", tried.len());
        let mut wrong = Vec::new();
        for (name, (free, jailed, expected, when)) in &tried {
            if *jailed != Outcome::Refused(*expected) {
                wrong.push(format!(
                    "{name}: {jailed:?} inside, not {:?}",
                    Outcome::Refused(*expected)
                ));
            }
            let works = match when.as_str() {
                "Works" => true,
                "WorksForRoot" => user == As::Root,
                _ => {
                    if *free != Outcome::Succeeded {
                        println!("not proved as {user:?}: {name} fails outside too ({free:?})");
                    }
                    false
                }
            };
            if works && *free != Outcome::Succeeded {
                wrong.push(format!(
                    "{name}: {free:?} outside, so that the failure inside proves nothing"
                ));
            }
        }
        assert!(wrong.is_empty(), "as {user:?}:\n{}", wrong.join("\n"));
    }
}

fn try_all(scene: &Scene) -> BTreeMap<&'static str, (Outcome, Outcome, i32, String)> {
    let victim = in_child(|| {
        loop {
            nix::unistd::pause();
        }
    });
    let targets = Targets::new(scene, victim.as_raw());
    let mut tried = BTreeMap::new();
    for attempt in attempts::all(scene, &targets) {
        // Inside first: outside, some leave behind what the next one would find.
        let jailed = process::attempt(scene, true, &attempt.run);
        let free = process::attempt(scene, false, &attempt.run);
        let before = tried.insert(
            attempt.name,
            (free, jailed, attempt.inside, format!("{:?}", attempt.free)),
        );
        assert!(before.is_none(), "two attempts are called {}", attempt.name);
    }
    kill(victim, Signal::SIGKILL).unwrap();
    waitpid(victim, None).unwrap();
    tried
}

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

fn call_denied(scene: &Scene) -> BTreeMap<&'static str, (Outcome, Outcome)> {
    let call = |number| {
        move || {
            // SAFETY: -1 is no address of this process, no descriptor and no process.
            done(unsafe { libc::syscall(number, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) })
        }
    };
    let both = |number| (attempt(scene, false, call(number)), attempt(scene, true, call(number)));
    DENIED.iter().map(|&(name, number)| (name, both(number))).collect()
}

#[test]
fn what_cannot_be_refused_is_killed() {
    for user in users() {
        let ended: BTreeMap<String, (Outcome, Outcome)> = play(user, "ends");
        let killed = |name: &str, signal: Signal| {
            assert_eq!(
                ended[name].1,
                Outcome::Killed(signal as i32),
                "{name} inside, as {user:?}"
            );
        };
        killed("use more processor time than it may", Signal::SIGXCPU);
        killed("use more and ignore the signal", Signal::SIGKILL);
        killed("write more than it may", Signal::SIGXFSZ);
        // A crash must look like one: the engine's own abort reaches itself.
        killed("abort", Signal::SIGABRT);
        if cfg!(target_arch = "x86_64") {
            killed("make an x32 call", Signal::SIGSYS);
            killed("make a 32-bit call", Signal::SIGSYS);
            for call in ["make an x32 call", "make a 32-bit call"] {
                assert!(!matches!(ended[call].0, Outcome::Killed(signal) if signal == Signal::SIGSYS as i32));
            }
        }
        assert_eq!(ended["write more than it may"].0, Outcome::Succeeded);
    }
}

fn ends(scene: &Scene) -> BTreeMap<&'static str, (Outcome, Outcome)> {
    let spin = || {
        loop {
            std::hint::spin_loop();
        }
    };
    let ignore_and_spin = || {
        // SAFETY: ignoring a signal sets no handler.
        unsafe { libc::signal(libc::SIGXCPU, libc::SIG_IGN) };
        spin()
    };
    let large = scene.job().join("large");
    let write = || std::fs::write(&large, vec![0; 2 << 20]).map_err(|error| error.raw_os_error().unwrap());
    let abort = || std::process::abort();
    let no_end = Outcome::Silent(0);
    let both = |what: &dyn Fn() -> Result<(), i32>| {
        // Inside first: a file that root has made outside would be refused for its owner.
        let jailed = attempt(scene, true, what);
        (attempt(scene, false, what), jailed)
    };
    let mut ended = BTreeMap::from([
        (
            "use more processor time than it may",
            (no_end.clone(), attempt(scene, true, spin)),
        ),
        (
            "use more and ignore the signal",
            (no_end, attempt(scene, true, ignore_and_spin)),
        ),
        ("write more than it may", both(&write)),
        ("abort", both(&abort)),
    ]);
    #[cfg(target_arch = "x86_64")]
    {
        let x32 = || {
            // SAFETY: getpid in the x32 table; it takes nothing.
            done(unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) })
        };
        let foreign = || {
            // getpid of the 32-bit table.
            let mut answer = 20_i64;
            // SAFETY: the old entry takes its number from rax, answers there, and changes nothing else but r8 to r11.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            done(answer)
        };
        ended.insert("make an x32 call", both(&x32));
        ended.insert("make a 32-bit call", both(&foreign));
    }
    ended
}

#[test]
fn a_conversion_still_has_what_it_needs() {
    for user in users() {
        let worked: BTreeMap<String, Outcome> = play(user, "work");
        let failed: Vec<_> = worked
            .iter()
            .filter(|(_, outcome)| **outcome != Outcome::Succeeded)
            .collect();
        assert!(failed.is_empty() && worked.len() > 5, "as {user:?}: {failed:?}");
    }
}

fn work(scene: &Scene) -> BTreeMap<&'static str, Outcome> {
    let (job, readable) = (scene.job(), scene.readable());
    let said = |error: std::io::Error| error.raw_os_error().unwrap_or(-1);
    let mut worked = BTreeMap::new();
    let mut works = |name, what: &dyn Fn() -> Result<(), i32>| worked.insert(name, attempt(scene, true, what));
    works("read a readable file", &|| {
        std::fs::read(readable.join("font")).map(drop).map_err(said)
    });
    works("list a readable directory", &|| {
        std::fs::read_dir(&readable).map(drop).map_err(said)
    });
    works("read random bytes", &|| open(Path::new("/dev/urandom"), libc::O_RDONLY));
    works("read its document", &|| {
        std::fs::read(job.join("document")).map(drop).map_err(said)
    });
    works("write, move and remove in its directory", &|| {
        std::fs::create_dir(job.join("tmp")).map_err(said)?;
        std::fs::write(job.join("tmp/draft"), "text").map_err(said)?;
        std::fs::rename(job.join("tmp/draft"), job.join("output")).map_err(said)?;
        std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(job.join("output"))
            .map_err(said)?;
        std::fs::remove_file(job.join("output")).map_err(said)?;
        std::fs::remove_dir(job.join("tmp")).map_err(said)
    });
    works("start and join a thread", &|| {
        std::thread::spawn(|| ()).join().map_err(|_| -1)
    });
    works("start a few threads", &|| threads(4));
    works("use 16 MiB", &|| {
        std::hint::black_box(vec![1_u8; 16 << 20]);
        Ok(())
    });
    works("end by exit", &|| {
        let path = c(&job);
        // SAFETY: a string that ends in zero.
        done(unsafe { libc::access(path.as_ptr(), libc::R_OK) }.into())
    });
    worked
}

#[test]
fn seen_from_outside_the_child_has_no_privilege() {
    for user in users() {
        let seen: BTreeMap<String, String> = play(user, "look");
        let line = |name: &str| seen.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(line("NoNewPrivs"), "1", "{seen:?}");
        assert_eq!(line("Seccomp"), "2");
        assert_eq!(line("Threads"), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(line(set), "0000000000000000", "{set} as {user:?}");
        }
        let core = seen["Max core file size"].split_whitespace().next();
        assert_eq!(core, Some("0"));
        if user == As::Root {
            let (uid, gid) = (process::SLOT.uid.to_string(), process::SLOT.gid.to_string());
            assert_eq!(line("Uid").split_whitespace().collect::<Vec<_>>(), [&uid; 4]);
            assert_eq!(line("Gid").split_whitespace().collect::<Vec<_>>(), [&gid; 4]);
            assert_eq!(line("Groups"), "");
            assert_eq!(line("CapBnd"), "0000000000000000");
            if probe().namespaces.is_ok() {
                for namespace in ["net", "ipc", "uts"] {
                    let (child, parent) = (line(namespace), line(&format!("parent {namespace}")).to_owned());
                    assert!(
                        !child.is_empty() && child != parent,
                        "{namespace}: {child} and {parent}"
                    );
                }
            }
        } else if nix::unistd::Uid::effective().is_root() {
            assert_eq!(line("Uid").split_whitespace().collect::<Vec<_>>(), ["65534"; 4]);
        }
    }
}

fn look_from_outside(scene: &Scene) -> BTreeMap<String, String> {
    let (mut entered, report) = pipe();
    let jail = jail(scene, report.as_raw_fd());
    let child = in_child(|| {
        jail.enter().unwrap();
        nix::unistd::write(&report, b"x").unwrap();
        loop {
            std::thread::park();
        }
    });
    entered.read_exact(&mut [0]).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    let mut seen: BTreeMap<String, String> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let limits = std::fs::read_to_string(format!("/proc/{child}/limits")).unwrap_or_default();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"))
        .unwrap_or("unreadable");
    seen.insert("Max core file size".to_owned(), core.to_owned());
    for namespace in ["net", "ipc", "uts"] {
        for (name, process) in [
            (namespace.to_owned(), child.to_string()),
            (format!("parent {namespace}"), "self".into()),
        ] {
            let link = std::fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap_or_default();
            seen.insert(name, link.display().to_string());
        }
    }
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
    seen
}

#[test]
fn the_child_holds_no_inherited_descriptor() {
    for user in users() {
        let (free, jailed, kept): (Vec<i32>, Vec<i32>, i32) = play(user, "descriptors");
        assert!(
            free.contains(&500),
            "as {user:?} the parent's descriptor was not inherited outside: {free:?}"
        );
        assert_eq!(jailed, [0, 1, 2, kept], "as {user:?}");
    }
}

fn descriptors(scene: &Scene) -> (Vec<i32>, Vec<i32>, i32) {
    let secret = std::fs::File::open(scene.other().join("secret")).unwrap();
    // SAFETY: 500 is not open, and the process ends with it.
    assert_eq!(unsafe { libc::dup2(secret.as_raw_fd(), 500) }, 500);
    let list = |jailed: bool| {
        let (mut reader, writer) = pipe();
        let kept = writer.as_raw_fd();
        let jail = jailed.then(|| jail(scene, kept));
        let child = in_child(|| {
            if let Some(jail) = jail {
                jail.enter().unwrap();
                for standard in 0..3 {
                    // SAFETY: all zero is a valid structure, and the kernel fills it.
                    let mut status: libc::stat = unsafe { std::mem::zeroed() };
                    // SAFETY: as above.
                    assert_eq!(unsafe { libc::fstat(standard, &raw mut status) }, 0);
                    assert_eq!(status.st_rdev, libc::makedev(1, 3), "{standard} is not /dev/null");
                }
            }
            // SAFETY: fcntl takes numbers here.
            let open: Vec<i32> = (0..4096)
                .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
                .collect();
            nix::unistd::write(&writer, &serde_json::to_vec(&open).unwrap()).unwrap();
            0
        });
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        waitpid(child, None).unwrap();
        let open: Vec<i32> = serde_json::from_str(&text).unwrap();
        (open, kept)
    };
    let (free, _) = list(false);
    let (jailed, kept) = list(true);
    (free, jailed, kept)
}

#[test]
fn the_child_dies_with_its_parent() {
    for user in users() {
        let (free, jailed): (String, String) = play(user, "orphan");
        assert_eq!(
            (free.as_str(), jailed.as_str()),
            ("started survived", "started "),
            "as {user:?}"
        );
    }
}

/// The child says that it has started, then waits for another parent, and says that it has survived.
fn orphan(scene: &Scene) -> (String, String) {
    let say = |jailed: bool| {
        let (mut reader, writer) = pipe();
        let parent = in_child(|| {
            let jail = jailed.then(|| jail(scene, writer.as_raw_fd()));
            let me = nix::unistd::getpid();
            in_child(|| {
                if let Some(jail) = jail {
                    jail.enter().unwrap();
                }
                let mut writer = std::fs::File::from(writer.try_clone().unwrap());
                writer.write_all(b"started ").unwrap();
                while getppid() == me {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                writer.write_all(b"survived").unwrap();
                0
            });
            loop {
                nix::unistd::pause();
            }
        });
        drop(writer);
        let mut started = [0; 8];
        reader.read_exact(&mut started).unwrap();
        kill(parent, Signal::SIGKILL).unwrap();
        waitpid(parent, None).unwrap();
        // Ends when the last holder of the other end is gone: the child.
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        String::from_utf8_lossy(&started).into_owned() + &rest
    };
    (say(false), say(true))
}

#[test]
fn a_hardened_worker_cannot_be_read_by_another_process_of_its_user() {
    if !users().contains(&As::Nobody) {
        return;
    }
    let (plain, hardened): (BTreeMap<String, bool>, BTreeMap<String, bool>) = play(As::Nobody, "harden");
    assert!(
        plain["environ"] && plain["maps"],
        "outside, a sibling reads it: {plain:?}"
    );
    assert!(hardened.values().all(|read| !read), "{hardened:?}");
}

fn read_a_sibling(_: &Scene) -> (BTreeMap<&'static str, bool>, BTreeMap<&'static str, bool>) {
    let read = |harden: bool| {
        let (mut ready, report) = pipe();
        let worker = in_child(|| {
            if harden {
                harden_worker().unwrap();
            }
            nix::unistd::write(&report, b"x").unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        ready.read_exact(&mut [0]).unwrap();
        let readable = |entry: &&'static str| (*entry, std::fs::File::open(format!("/proc/{worker}/{entry}")).is_ok());
        let seen = ["environ", "maps", "mem", "fd"].iter().map(readable).collect();
        kill(worker, Signal::SIGKILL).unwrap();
        waitpid(worker, None).unwrap();
        seen
    };
    (read(false), read(true))
}

#[test]
fn a_jail_that_would_not_hold_is_not_prepared() {
    for user in users() {
        let refused: BTreeMap<String, String> = play(user, "refusals");
        assert!(refused["no directory"].contains("does-not-exist"), "{refused:?}");
        match user {
            As::Root => assert!(
                refused["nobody"].contains("as root") && refused["root"].contains("as root"),
                "{refused:?}"
            ),
            As::Nobody => assert!(refused["slot"].contains("capabilities setuid"), "{refused:?}"),
        }
    }
}

fn refusals(scene: &Scene) -> BTreeMap<&'static str, String> {
    let refused = |identity, writable| {
        let limits = Limits {
            address_space: 1 << 30,
            cpu_seconds: 1,
            file_size: 1 << 20,
            open_files: 64,
            processes: 40,
        };
        let plan = Plan {
            readable: Vec::new(),
            writable,
            keep: Vec::new(),
            limits,
            identity,
            mode: Mode::Required,
        };
        Jail::prepare(plan)
            .map(drop)
            .map_err(|error: PrepareError| error.to_string())
            .err()
            .unwrap_or_default()
    };
    let own = (scene.r#as == As::Root).then_some(process::SLOT);
    BTreeMap::from([
        ("no directory", refused(own, scene.root.join("does-not-exist"))),
        ("nobody", refused(None, scene.job())),
        ("root", refused(Some(Identity { uid: 0, gid: 0 }), scene.job())),
        ("slot", refused(Some(process::SLOT), scene.job())),
    ])
}

#[test]
fn missing_layers_are_named_and_refused_only_when_required() {
    let all = Layers {
        landlock: Ok(4),
        seccomp: Ok(()),
        no_new_privs: Ok(()),
        identity: Ok(()),
        namespaces: Ok(()),
    };
    assert_eq!(all.check(Mode::Required), Ok(Vec::new()));

    let first_generation = Layers {
        landlock: Err("no landlock".into()),
        ..all.clone()
    };
    let missing = first_generation.check(Mode::Required).unwrap_err();
    assert_eq!(missing.layers, ["no landlock"]);
    assert!(missing.to_string().contains("SANDBOX=best-effort"));
    assert_eq!(
        first_generation.check(Mode::BestEffort),
        Ok(vec!["no landlock".to_owned()])
    );

    let no_filter = Layers {
        seccomp: Err("no seccomp".into()),
        ..all.clone()
    };
    assert!(no_filter.check(Mode::Required).is_err());

    let not_root = Layers {
        identity: Err("no user".into()),
        namespaces: Err("no namespaces".into()),
        ..all
    };
    assert_eq!(
        not_root.check(Mode::Required),
        Ok(vec!["no user".to_owned(), "no namespaces".to_owned()])
    );
    assert_eq!(not_root.to_string(), "landlock (ABI 4), seccomp, no_new_privs");
}
