//! What is refused before anything runs.

use std::collections::BTreeMap;

use platen::sandbox::{Identity, Jail, Layers, Mode, Plan, PrepareError, probe};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use super::attempts::{Tried, c, done, open};
use super::process::{self, As, Outcome, Scene, attempt_in, play, users};

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

pub(super) fn refusals(scene: &Scene) -> BTreeMap<&'static str, String> {
    let refused = |identity, writable| {
        let plan = Plan {
            writable,
            identity,
            ..process::plan(scene, 0)
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
fn a_kernel_without_landlock_is_refused_or_used_for_what_it_has() {
    for user in users() {
        let seen: WithoutLandlock = play(user, "no landlock");
        assert!(
            seen.required.contains("--execution-environment gen2"),
            "{}",
            seen.required
        );
        assert!(
            seen.missing.iter().any(|sentence| sentence.starts_with("landlock")),
            "{:?}",
            seen.missing
        );
        // What is left holds, and what is missing is really missing.
        assert_eq!(seen.socket, Outcome::Refused(libc::EPERM), "as {user:?}");
        assert_eq!(
            seen.signal,
            Outcome::Refused(libc::EPERM),
            "as {user:?}, who may without the filter"
        );
        assert_eq!(seen.passwd, Outcome::Succeeded, "as {user:?}");
        assert_eq!(
            seen.truncate,
            Outcome::Refused(libc::EPERM),
            "without landlock nothing else judges it"
        );
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct WithoutLandlock {
    required: String,
    missing: Vec<String>,
    socket: Outcome,
    signal: Outcome,
    passwd: Outcome,
    truncate: Outcome,
}

/// A filter by which this kernel answers as one that has never heard of these calls.
pub(super) fn kernel_without(calls: &[libc::c_long]) -> BpfProgram {
    let calls = calls.iter().map(|&call| (call, Vec::new())).collect();
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, unknown, architecture).unwrap();
    filter.try_into().unwrap()
}

/// Makes this kernel answer as the first generation of Cloud Run does.
pub(super) fn without_landlock(scene: &Scene) -> WithoutLandlock {
    seccompiler::apply_filter(&kernel_without(&[libc::SYS_landlock_create_ruleset, libc::SYS_unshare])).unwrap();

    let jail = |keep| {
        Jail::prepare(Plan {
            mode: Mode::BestEffort,
            ..process::plan(scene, keep)
        })
        .unwrap()
    };
    let secret = c(&scene.other().join("secret"));
    let parent = std::process::id();
    let try_to = |what: &dyn Fn() -> Tried| attempt_in(Some(&jail), what);
    WithoutLandlock {
        required: Jail::prepare(process::plan(scene, 0))
            .map(drop)
            .unwrap_err()
            .to_string(),
        missing: probe().check(Mode::BestEffort).unwrap(),
        // SAFETY: tgkill takes numbers, and signal 0 is none.
        signal: try_to(&|| done(unsafe { libc::syscall(libc::SYS_tgkill, parent, parent, 0) })),
        // SAFETY: socket takes numbers.
        socket: try_to(&|| done(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) }.into())),
        passwd: try_to(&|| open("/etc/passwd".as_ref(), libc::O_RDONLY)),
        // SAFETY: a string that ends in zero. The length stays what it is.
        truncate: try_to(&|| done(unsafe { libc::truncate(secret.as_ptr(), 6) }.into())),
    }
}

#[test]
fn missing_layers_are_named_and_refused_only_when_required() {
    let all = Layers {
        landlock: Ok(4),
        private_root: None,
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

    let second_wall = Layers {
        private_root: Some(Ok(())),
        ..first_generation.clone()
    };
    let said = second_wall.check(Mode::Required).unwrap();
    assert!(
        matches!(said.as_slice(), [one] if one.starts_with("no landlock. In its place")),
        "{said:?}"
    );
    assert_eq!(
        second_wall.to_string(),
        "a private root, seccomp, no_new_privs, a user of its own, namespaces"
    );
    let neither = Layers {
        private_root: Some(Err("no private root".into())),
        ..first_generation.clone()
    };
    let missing = neither.check(Mode::Required).unwrap_err();
    assert_eq!(missing.layers, ["no landlock", "no private root"]);

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
