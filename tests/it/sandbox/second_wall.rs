//! The private root that stands in for landlock: the same ways out, with landlock off; and a worker that converts so.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use platen::sandbox::{Jail, Mode, probe};

use super::process::{self, Outcome, Scene, attempt_in, play, users};
use super::refusals::kernel_without;
use crate::harness::{fixture, pdf_text};

/// What a way to a file ends with that leads nowhere, or into a mount that is read-only or another one.
const NO_WAY: [i32; 4] = [libc::EACCES, libc::ENOENT, libc::EROFS, libc::EXDEV];

#[test]
fn without_landlock_every_way_out_is_closed_by_a_private_root() {
    for user in users() {
        let Some(tried): Option<BTreeMap<String, (Outcome, Outcome, i32, String)>> =
            play(user, "attempts without landlock")
        else {
            println!("skipped as {user:?}: no user namespaces here");
            continue;
        };
        assert!(tried.len() > 60, "only {} attempts were made", tried.len());
        let open = tried.iter().filter(|(_, (_, jailed, expected, _))| match jailed {
            Outcome::Refused(number) if *expected == libc::EACCES => !NO_WAY.contains(number),
            jailed => *jailed != Outcome::Refused(*expected),
        });
        let open: Vec<_> = open.collect();
        assert!(open.is_empty(), "as {user:?}: {open:?}");
    }
}

pub(super) fn try_all_without_landlock(scene: &Scene) -> Option<super::AllTried> {
    is_second_wall().then(|| super::try_all(scene))
}

/// Switches landlock off for this process; whether a private root stands in for it.
fn is_second_wall() -> bool {
    seccompiler::apply_filter(&kernel_without(&[libc::SYS_landlock_create_ruleset])).unwrap();
    let layers = probe();
    assert!(layers.landlock.is_err());
    layers.private_root == Some(Ok(())) && layers.check(Mode::Required).is_ok()
}

/// What is given works, and is given as the plan says.
#[test]
fn a_private_root_holds_what_the_plan_names() {
    for user in users() {
        let Some(seen): Option<BTreeMap<String, Outcome>> = play(user, "mounts") else {
            println!("skipped as {user:?}: no user namespaces here");
            continue;
        };
        for (what, outcome) in seen {
            assert_eq!(outcome, Outcome::Succeeded, "as {user:?}: {what}");
        }
    }
}

pub(super) fn mounts(scene: &Scene) -> Option<BTreeMap<&'static str, Outcome>> {
    if !is_second_wall() {
        return None;
    }
    let jail = |keep| Jail::prepare(process::plan(scene, keep)).unwrap();
    let try_to = |what: &dyn Fn() -> std::io::Result<()>| {
        attempt_in(Some(&jail), || {
            what().map_err(|error| error.raw_os_error().unwrap_or(-1))
        })
    };
    let (job, font) = (scene.job(), scene.readable().join("font"));
    Some(BTreeMap::from([
        ("read a readable file", try_to(&|| std::fs::read(&font).map(drop))),
        (
            "list a readable directory",
            try_to(&|| std::fs::read_dir(scene.readable()).map(drop)),
        ),
        (
            "write and remove a file in the job's directory",
            try_to(&|| {
                std::fs::write(job.join("made"), "x")?;
                std::fs::rename(job.join("made"), job.join("renamed"))?;
                std::fs::remove_file(job.join("renamed"))
            }),
        ),
        (
            "find the job's directory by its link",
            try_to(&|| std::fs::read("/proc/self/cwd/document").map(drop)),
        ),
        (
            "read a device",
            try_to(&|| std::fs::File::open("/dev/urandom").map(drop)),
        ),
    ]))
}

/// The whole worker on a kernel without landlock: with the strict sandbox it converts, and says what stands in.
#[test]
fn a_worker_without_landlock_converts_behind_the_second_wall() {
    let may = Command::new("unshare").args(["--user", "--mount", "true"]).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("skipped: no user namespaces here");
        return;
    }
    for user in workers() {
        let (converted, said) = convert_without(&[libc::SYS_landlock_create_ruleset], "required", user);
        assert!(converted, "as {user:?}: {said}");
    }
}

/// The namespaces are given out, and what is done in them is not: no layer, and neither the strict sandbox may start nor
/// the other one fail because of it.
#[test]
fn a_private_root_that_cannot_be_made_is_a_missing_layer() {
    let missing = [libc::SYS_landlock_create_ruleset, libc::SYS_mount_setattr];
    for user in workers() {
        let (converted, said) = convert_without(&missing, "required", user);
        assert!(
            !converted && said.contains("cannot build the required sandbox") && said.contains("a private root"),
            "as {user:?}: {said}"
        );
        let (converted, said) = convert_without(&missing, "best-effort", user);
        assert!(converted, "as {user:?}: {said}");
        assert!(
            said.contains("a private root"),
            "it does not say what is missing: {said}"
        );
    }
}

/// The users to run a worker as: this one, and as root nobody, too.
fn workers() -> impl Iterator<Item = Option<u32>> {
    let nobody = nix::unistd::geteuid().is_root().then_some(Some(65534));
    std::iter::once(None).chain(nobody)
}

/// Whether a worker converts on a kernel that does not know some calls, and what it says.
fn convert_without(calls: &[libc::c_long], sandbox: &str, user: Option<u32>) -> (bool, String) {
    let temporary = tempfile::tempdir().unwrap();
    let document = temporary.path().join("contract.docx");
    std::fs::copy(fixture("documents/plain/contract.docx"), &document).unwrap();
    std::fs::set_permissions(&document, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let filter = kernel_without(calls);
    let mut worker = Command::new(env!("CARGO_BIN_EXE_platen"));
    worker
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", temporary.path())
        .env("SANDBOX", sandbox)
        .env("RUST_LOG", "info")
        .arg("convert")
        .arg(&document)
        .arg("--out")
        .arg(temporary.path().join("out"));
    if let Some(user) = user {
        worker.uid(user).gid(user);
    }
    // SAFETY: between fork and exec, one system call, with a program that was made before.
    unsafe {
        worker.pre_exec(move || seccompiler::apply_filter(&filter).map_err(|_| std::io::ErrorKind::Unsupported.into()));
    }
    let output = worker.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let pdf = temporary.path().join("out/contract.pdf");
    let converted = output.status.success() && !pdf_text(&pdf).trim().is_empty();
    (converted, said)
}
