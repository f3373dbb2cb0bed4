//! Processes to try things in: a helper of one thread, and under it a child for each attempt, jailed or free.
//!
//! The test binary starts itself again for each scene, because only a process without threads may fork and go on.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgroups, setresgid, setresuid};
use platen::sandbox::{Identity, Jail, Limits, Mode, Plan, probe};
use serde::{Deserialize, Serialize};

/// The helper process finds its scene here.
const SCENE: &str = "PLATEN_SANDBOX_SCENE";
/// What a program answers that was run though it must not be.
pub(super) const RAN: i32 = 99;
/// Nobody, on every Linux.
const NOBODY: u32 = 65534;
/// The user that a jailed child becomes under root; it needs no entry in /etc/passwd.
pub(super) const SLOT: Identity = Identity {
    uid: 64_999,
    gid: 64_999,
};

/// Who prepares the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum As {
    /// Root: the child gets a user and namespaces of its own.
    Root,
    /// A user without any capability, whom the child shares.
    Nobody,
}

/// Where a scene plays: directories that only landlock keeps apart, for their permissions allow everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Scene {
    pub(super) r#as: As,
    pub(super) script: String,
    pub(super) root: PathBuf,
}

impl Scene {
    /// The child's own directory.
    pub(super) fn job(&self) -> PathBuf {
        self.root.join("job")
    }
    /// Another child's directory.
    pub(super) fn other(&self) -> PathBuf {
        self.root.join("other")
    }
    /// What the child may read.
    pub(super) fn readable(&self) -> PathBuf {
        self.root.join("readable")
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It worked.
    Succeeded,
    /// It was refused with this error number.
    Refused(i32),
    /// The process was killed by this signal.
    Killed(i32),
    /// The process ended with this status and reported nothing.
    Silent(i32),
}

/// The users this test can play; says what it leaves out.
pub(super) fn users() -> Vec<As> {
    if let Err(missing) = probe().check(Mode::Required) {
        println!("skipped: {missing}");
        return Vec::new();
    }
    if probe().identity.is_ok() {
        vec![As::Root, As::Nobody]
    } else {
        println!("skipped as root: this test does not run as root");
        vec![As::Nobody]
    }
}

/// Plays a scene in a process of its own and returns its report. `test` is the function marked as helper.
pub(super) fn play<R: for<'a> Deserialize<'a>>(r#as: As, script: &str) -> R {
    let root = tempfile::tempdir().unwrap();
    let scene = Scene {
        r#as,
        script: script.to_owned(),
        root: root.path().to_owned(),
    };
    for (directory, file) in [
        (scene.job(), "document"),
        (scene.other(), "secret"),
        (scene.readable(), "font"),
    ] {
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(file), "secret").unwrap();
        open_to_all(&directory);
        open_to_all(&directory.join(file));
    }
    open_to_all(root.path());
    std::os::unix::fs::symlink(scene.other().join("secret"), scene.job().join("planted-link")).unwrap();
    let document = scene.job().join("document");
    let everything = [scene.other(), scene.other().join("secret"), scene.readable()];
    let (owner, owned) = match r#as {
        As::Root => (SLOT.uid, vec![scene.job(), document]),
        As::Nobody => (NOBODY, [vec![scene.job(), document], everything.to_vec()].concat()),
    };
    for path in owned {
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
        }
    }
    let mut report = tempfile::tempfile().unwrap();
    nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "sandbox::in_a_process_of_its_own",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(SCENE, serde_json::to_string(&(&scene, report.as_raw_fd())).unwrap())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "the helper of {script} as {as:?} ended with {status}");
    let mut text = String::new();
    report.rewind().unwrap();
    report.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{script} as {as:?} reported {text:?}: {error}"))
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// The helper's side of [`play`]: forks once more, to have one thread only, becomes the wanted user and runs `script`.
pub(super) fn perform(script: impl FnOnce(&Scene) -> serde_json::Value) {
    let given = std::env::var(SCENE).expect("this is started by the other tests, not by hand");
    let (scene, report): (Scene, RawFd) = serde_json::from_str(&given).unwrap();
    // SAFETY: the number was inherited for this purpose, and nothing else in this process owns it.
    let report = unsafe { File::from_raw_fd(report) };
    let status = in_child(|| {
        if scene.r#as == As::Nobody && Uid::effective().is_root() {
            setgroups(&[]).unwrap();
            setresgid(Gid::from_raw(NOBODY), Gid::from_raw(NOBODY), Gid::from_raw(NOBODY)).unwrap();
            setresuid(Uid::from_raw(NOBODY), Uid::from_raw(NOBODY), Uid::from_raw(NOBODY)).unwrap();
            // The change of user made this process unreadable. The jail must hold without that.
            // SAFETY: PR_SET_DUMPABLE takes a number.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }, 0);
        }
        serde_json::to_writer(&report, &script(&scene)).unwrap();
        0
    });
    assert_eq!(waitpid(status, None), Ok(WaitStatus::Exited(status, 0)));
}

/// Forks; the child ends with what `body` returns, or 101 when it panics.
pub(super) fn in_child(body: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the C library's allocator works after a fork, no other thread of this process holds a lock that the
    // child takes, and the child leaves by _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let status = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
            // SAFETY: _exit runs no code of this process.
            unsafe { libc::_exit(status) }
        }
    }
}

/// The jail of these tests. `keep` is the pipe for the report.
pub(super) fn jail(scene: &Scene, keep: RawFd) -> Jail {
    Jail::prepare(plan(scene, keep)).unwrap()
}

pub(super) fn plan(scene: &Scene, keep: RawFd) -> Plan {
    Plan {
        readable: vec![scene.readable(), "/dev/urandom".into(), "/does/not/exist".into()],
        writable: scene.job(),
        keep: vec![keep],
        limits: Limits {
            address_space: 2 << 30,
            cpu_seconds: 1,
            file_size: 1 << 20,
            open_files: 64,
            processes: 40,
        },
        identity: (scene.r#as == As::Root).then_some(SLOT),
        mode: Mode::Required,
    }
}

/// A pipe whose ends an exec closes.
pub(super) fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (reader.into(), writer)
}

/// Makes one attempt in a child of its own, jailed or free, and says how it ended.
pub(super) fn attempt(scene: &Scene, jailed: bool, what: impl FnOnce() -> Result<(), i32>) -> Outcome {
    let of_these_tests = |keep| jail(scene, keep);
    attempt_in(jailed.then_some(&of_these_tests), what)
}

/// The same in any jail, made from the descriptor it has to keep.
pub(super) fn attempt_in(jail: Option<&dyn Fn(RawFd) -> Jail>, what: impl FnOnce() -> Result<(), i32>) -> Outcome {
    let (mut reader, writer) = pipe();
    let jail = jail.map(|make| make(writer.as_raw_fd()));
    let child = in_child(|| {
        if let Some(jail) = jail {
            jail.enter().unwrap();
        }
        let number = what().err().unwrap_or(0);
        assert_eq!(nix::unistd::write(&writer, &number.to_ne_bytes()), Ok(4));
        0
    });
    drop(writer);
    let mut number = Vec::new();
    reader.read_to_end(&mut number).unwrap();
    match (waitpid(child, None).unwrap(), <[u8; 4]>::try_from(number)) {
        (WaitStatus::Exited(_, 0), Ok([0, 0, 0, 0])) | (WaitStatus::Exited(_, RAN), _) => Outcome::Succeeded,
        (WaitStatus::Exited(_, 0), Ok(number)) => Outcome::Refused(i32::from_ne_bytes(number)),
        (WaitStatus::Exited(_, status), _) => Outcome::Silent(status),
        (WaitStatus::Signaled(_, signal, _), _) => Outcome::Killed(signal as i32),
        (status, _) => panic!("{status:?}"),
    }
}
