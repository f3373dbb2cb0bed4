//! What is refused before anything runs.

use std::collections::BTreeMap;

use platen::sandbox::{Identity, Jail, Layers, Limits, Mode, Plan, PrepareError};

use super::process::{self, As, Scene, play, users};

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
