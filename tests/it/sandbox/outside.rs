//! What the parent and a sibling see of the child, and what becomes of it without a parent.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::getppid;
use platen::sandbox::{Jail, Mode, Plan, harden_worker, probe};

use super::process::{self, As, Scene, in_child, jail, pipe, play, users};

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
        // The soft and the hard limit.
        let core: Vec<_> = seen["Max core file size"].split_whitespace().take(2).collect();
        assert_eq!(core, ["0", "0"]);
        // What is not dumpable belongs to root, whoever it runs as: a core that goes to a program knows no limit.
        assert_eq!(line("Owner of its memory"), "0", "{user:?}");
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

#[test]
fn root_without_an_identity_keeps_no_capability() {
    if users().contains(&As::Root) {
        let seen: BTreeMap<String, String> = play(As::Root, "look at root");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(seen[set], "0000000000000000", "{set}");
        }
    }
}

pub(super) fn look_at_root(scene: &Scene) -> BTreeMap<String, String> {
    look(|keep| {
        let plan = Plan {
            identity: None,
            mode: Mode::BestEffort,
            ..process::plan(scene, keep)
        };
        Jail::prepare(plan).unwrap()
    })
}

pub(super) fn look_from_outside(scene: &Scene) -> BTreeMap<String, String> {
    look(|keep| jail(scene, keep))
}

/// What /proc says of a child in that jail.
fn look(jail: impl FnOnce(RawFd) -> Jail) -> BTreeMap<String, String> {
    let (mut entered, report) = pipe();
    let jail = jail(report.as_raw_fd());
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
    let memory = std::fs::symlink_metadata(format!("/proc/{child}/mem")).unwrap();
    seen.insert("Owner of its memory".to_owned(), memory.uid().to_string());
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

pub(super) fn descriptors(scene: &Scene) -> (Vec<i32>, Vec<i32>, i32) {
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
pub(super) fn orphan(scene: &Scene) -> (String, String) {
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

pub(super) fn read_a_sibling(_: &Scene) -> (BTreeMap<&'static str, bool>, BTreeMap<&'static str, bool>) {
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
