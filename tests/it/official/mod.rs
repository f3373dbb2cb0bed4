//! Google's own clients, unchanged, against the local cloud: the Python library, installed from the registry into a directory of
//! the build, and gcloud where it is. What cannot be had is said.

mod compared;
mod emulator;
mod gcloud;
mod pubsub;

use std::path::PathBuf;
use std::process::{Command, Output};

use platen::local_cloud::LocalCloud;

use crate::harness::{USER, cloud};

/// Python with one of Google's libraries, made once in a directory of its own; none where there is no Python, no registry, or no
/// `ensurepip`.
fn python(directory: &str, library: &str, module: &str) -> Option<PathBuf> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(directory);
    let python = place.join("bin/python");
    let has = |python: &PathBuf| {
        let found = Command::new(python)
            .args(["-c", &format!("import google.cloud.{module}")])
            .output();
        found.is_ok_and(|found| found.status.success())
    };
    if has(&python) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&place).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return None;
    }
    let install = ["-m", "pip", "install", "--quiet", library];
    let installed = Command::new(&python).args(install).output();
    (installed.is_ok_and(|installed| installed.status.success()) && has(&python)).then_some(python)
}

async fn runs(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn project(cloud: &LocalCloud) -> &str {
    &cloud.settings().project
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_python_client_works_unchanged() {
    let made = || python("google-clients", "google-cloud-storage>=3,<4", "storage");
    let Some(python) = tokio::task::spawn_blocking(made).await.unwrap() else {
        println!("skipped: google-cloud-storage cannot be installed here (python3, its venv module and the registry)");
        return;
    };
    let cloud = cloud().await;
    let (file, key) = (
        tempfile::NamedTempFile::new().unwrap(),
        tempfile::NamedTempFile::new().unwrap(),
    );
    let key_file = cloud.create_key_file(USER).unwrap();
    std::fs::write(key.path(), key_file.to_string()).unwrap();
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/official/storage.py"))
        .args([
            &cloud.urls().storage,
            &cloud.access_token(USER),
            project(&cloud),
            "events",
        ])
        .args([file.path(), key.path()])
        .env("no_proxy", "*");
    let output = runs(command).await;
    let (said, why) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{said}\n{why}");
    assert_eq!(said.lines().count(), 14, "{said}");
    println!("{said}");
}
