//! `deploy/smoke-image.sh` with a docker that runs this machine's own binary: the script's commands and its verdicts are real, the
//! image is not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::cloud;

/// Takes what the script gives, and refuses what it does not know. A container is the process, its name the process's id.
const DOCKER: &str = r#"#!/bin/sh
set -eu
verb=$1; shift
case $verb in
  run)
    detach='' places=''
    while :; do
      case $1 in
        --detach) detach=yes; shift ;;
        --read-only | --rm) shift ;;
        --network | --tmpfs | --user | --cap-drop | --security-opt) shift 2 ;;
        --env) case $2 in PORT=*) export PORT=FREE ;; *) export "$2" ;; esac; shift 2 ;;
        --volume) places="$places $2"; shift 2 ;;
        -*) echo "docker: unknown $1" >&2; exit 125 ;;
        *) break ;;
      esac
    done
    image=$1; shift
    [ "$image" = registry/platen:test ] || { echo "docker: no image $image" >&2; exit 125; }
    for place in $places; do
      inside=${place#*:}; inside=${inside%:ro}
      case ${GOOGLE_APPLICATION_CREDENTIALS:-} in "$inside") GOOGLE_APPLICATION_CREDENTIALS=${place%%:*} ;; esac
      for word in "$@"; do
        shift
        case $word in "$inside" | "$inside"/*) word=${place%%:*}${word#"$inside"} ;; esac
        set -- "$@" "$word"
      done
    done
    if [ "${SANDBOX:-}" = required ] && [ -n "${NO_LANDLOCK:-}" ]; then
      echo 'platen: this machine cannot build the required sandbox: landlock: the kernel lacks it' >&2; exit 64
    fi
    [ -z "$detach" ] || set -- serve
    [ -n "$detach" ] || exec "${BINARY:-PLATEN}" "$@"
    "${BINARY:-PLATEN}" "$@" >DIRECTORY/log 2>&1 &
    echo $! ;;
  exec)
    shift
    exec bash -c "$(printf '%s' "$3" | sed "s/8080/FREE/")" ;;
  inspect) if kill -0 "$3" 2>/dev/null; then echo true; else echo false; fi ;;
  logs) cat DIRECTORY/log ;;
  rm) kill -9 "$2" ;;
  *) echo "docker: unknown $verb" >&2; exit 125 ;;
esac
"#;

/// Free a moment ago, which the worker cannot ask for itself: a container has its port to itself.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn smoke(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    // A copy of what it reads: its working directory lies beside it.
    for file in ["deploy/smoke-image.sh", "fixtures/documents/plain/invoice.docx"] {
        let target = place.join(file);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), target).unwrap();
    }
    let docker = DOCKER
        .replace("DIRECTORY", &place.display().to_string())
        .replace("FREE", &free_port().to_string())
        .replace("PLATEN", env!("CARGO_BIN_EXE_platen"));
    std::fs::write(place.join("docker"), docker).unwrap();
    std::fs::set_permissions(place.join("docker"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(place.join("deploy/smoke-image.sh"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", place.display()))
        .env("TMPDIR", place)
        .env("SMOKE_SECONDS", "0.1")
        // As long as the machine needs.
        .env("SMOKE_TRIES", "1200")
        .envs(variables.iter().copied());
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    assert!(!place.join("target/smoke").exists(), "it leaves nothing behind");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

const IMAGE: &str = "registry/platen:test";

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_works_is_good() {
    let cloud = cloud().await;
    let keys = ("OIDC_JWKS_URL", cloud.urls().jwks.as_str());
    let (code, said) = smoke(&[IMAGE], &[keys]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said,
        "smoke-image: a document is converted (SANDBOX=required)\nsmoke-image: serve is ready\n"
    );
    // Where the kernel of the machine that builds lacks a layer, the image is tried without, and it is said.
    let (code, said) = smoke(&[IMAGE], &[keys, ("NO_LANDLOCK", "yes")]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("landlock: the kernel lacks it") && said.contains("(SANDBOX=best-effort)"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_is_not() {
    let cloud = cloud().await;
    let keys = ("OIDC_JWKS_URL", cloud.urls().jwks.as_str());
    for (variables, why) in [
        // Ends well, and has written nothing.
        (&[keys, ("BINARY", "/bin/true")][..], "no PDF is there"),
        (&[keys, ("BINARY", "/bin/false")], "does not convert a document"),
        // Never ready without Google's keys.
        (
            &[("OIDC_JWKS_URL", "http://127.0.0.1:1/keys"), ("SMOKE_TRIES", "20")],
            "'serve' in registry/platen:test does not become ready",
        ),
    ] {
        let (code, said) = smoke(&[IMAGE], variables).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why), "{why}: {said}");
    }
    let (code, said) = smoke(&["registry/other"], &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("no image registry/other"), "{said}");
    for wrong in [&[][..], &["--nonsense"], &["a", "b"]] {
        assert_eq!(smoke(wrong, &[]).await.0, Some(64), "{wrong:?}");
    }
}
