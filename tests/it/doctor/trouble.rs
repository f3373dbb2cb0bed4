//! What is in the way of a check: a wrong configuration, peers that do not answer, an interruption.

use platen::local_cloud::{Effect, Fault, LocalCloud, Peer as CloudPeer, Settings, Subscription};
use serde_json::json;

use super::{KEY, deployed, doctor, objects, push, seal};
use crate::harness::{INPUT, OUTPUT, RESOURCES, environment, until, upload_to};
use crate::peer::{Peer, Reply, nobody};

#[tokio::test]
async fn a_wrong_configuration_is_told_whole_with_64() {
    let variables = [("PUSH_AUTH", "maybe"), ("ACK_DEADLINE", "5s"), ("LOG_FORMAT", "xml")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(64), "{said}");
    for name in [
        "PUSH_AUTH",
        "ACK_DEADLINE",
        "LOG_FORMAT",
        "OUTPUT_BUCKET",
        "INPUT_BUCKETS",
    ] {
        assert_eq!(said.err.matches(&format!("\n  {name} ")).count(), 1, "{name} {said}");
    }
    assert!(said.out.is_empty(), "{said}");
}

/// What cannot be opened may hold what is missing, and nothing is made up in its place.
#[tokio::test]
async fn without_its_object_a_configuration_may_not_be_known() {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    seal(
        &cloud,
        &mut variables,
        &json!({"environment": {"OUTPUT_BUCKET": OUTPUT}}),
    )
    .await;
    variables.remove("OUTPUT_BUCKET");
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("ok", "create objects in gs://output");
    assert!(cloud.take_away("worker", "cloudkms.cryptoKeyVersions.useToDecrypt", "key"));
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    said.line(
        "unseen",
        "everything else: OUTPUT_BUCKET may be in gs://config/worker.enc",
    );
    cloud.give("worker", "cloudkms.cryptoKeyVersions.useToDecrypt", "key");
    upload_to(&cloud, "config", "worker.enc", b"{}".to_vec()).await;
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    let line = said.line("wrong", &format!("open it with {KEY}: "));
    assert!(line.contains("platen secrets seal"), "{said}");
}

/// What does not answer is told in a sentence, after the time that was given, and the rest is checked all the same.
#[tokio::test]
async fn what_does_not_answer_is_told_and_not_waited_for() {
    let cloud = deployed(&push()).await;
    let silent = Peer::start(|_, _| Reply::Stall);
    let mut variables = environment(&cloud);
    variables.insert("STORAGE_EMULATOR_HOST".to_owned(), silent.url.clone());
    variables.insert("OIDC_JWKS_URL".to_owned(), nobody());
    let said = doctor(&variables, &["--timeout", "2s"]).await;
    assert_eq!(said.code, Some(1), "{said}");
    for what in [
        "read documents of gs://input: ",
        "replace and remove objects in gs://output: ",
    ] {
        let line = said.line("wrong", what);
        assert!(line.contains("no answer"), "{said}");
    }
    said.line("wrong", "fetch the keys of push tokens from ");
    said.line("unseen", "create objects in gs://output: not tried after that");

    let mut variables = environment(&cloud);
    variables.insert(
        "GCE_METADATA_HOST".to_owned(),
        silent.url.trim_start_matches("http://").to_owned(),
    );
    let said = doctor(&variables, &["--timeout", "1s"]).await;
    assert_eq!(said.code, Some(1), "{said}");
    assert_eq!(said.err.lines().count(), 1, "{said}");
    assert!(said.err.contains("GCE_METADATA_HOST"), "{said}");
}

/// A probe that cannot be removed is named, with the command that removes it.
#[tokio::test]
async fn what_is_left_is_named() {
    let cloud = deployed(&push()).await;
    // The first shows that there is the right.
    cloud.add_fault(Fault {
        peer: Some(CloudPeer::Storage),
        method: Some("DELETE".to_owned()),
        path_prefix: String::new(),
        skip: 1,
        count: Fault::ENDLESS,
        effect: Effect::Status {
            status: 503,
            retry_after: None,
        },
    });
    let said = doctor(&environment(&cloud), &["--timeout", "6s"]).await;
    assert_eq!(said.code, Some(1), "{said}");
    let left = objects(&cloud, OUTPUT).await;
    assert_eq!(left.len(), 1);
    let line = said.line("wrong", &format!("clean up gs://output/{}: ", left[0]));
    assert!(
        line.ends_with(&format!("gcloud storage rm gs://output/{}", left[0])),
        "{said}"
    );
}

/// Interrupted, it removes its probe before it ends.
#[tokio::test]
async fn an_interrupted_run_leaves_nothing() {
    let cloud = deployed(&push()).await;
    cloud.add_fault(Fault {
        peer: Some(CloudPeer::Storage),
        method: Some("POST".to_owned()),
        path_prefix: "/upload/".to_owned(),
        skip: 1,
        count: 1,
        effect: Effect::Stall { stall_after: 0 },
    });
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(["doctor", "--timeout", "100s"])
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(environment(&cloud))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("the second upload has stalled", || {
        (!cloud.fault_hits().is_empty()).then_some(())
    })
    .await;
    let pid = child.id().unwrap();
    assert!(crate::harness::signal(pid, nix::sys::signal::Signal::SIGINT));
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(objects(&cloud, OUTPUT).await.is_empty());
}

/// The project's default account, and a key file where none is needed.
#[tokio::test]
async fn identities_that_should_be_others_are_warned_of() {
    let account = "123456789012-compute@developer.gserviceaccount.com";
    let cloud = LocalCloud::start(Settings {
        worker_service_account: account.to_owned(),
        ..Settings::default()
    })
    .await
    .unwrap();
    for bucket in [INPUT, OUTPUT] {
        cloud.create_bucket(bucket, false).unwrap();
    }
    cloud.create_topic("results").unwrap();
    let results = Subscription {
        name: "results",
        topic: "results",
        ..Subscription::default()
    };
    cloud.create_subscription(&results).unwrap();
    cloud.enforce(&RESOURCES).unwrap();
    let mut variables = environment(&cloud);
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("warning", "the worker's account: ");
    assert!(!said.out.contains("the worker's key file"), "{said}");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    std::fs::write(&file, cloud.create_key_file(account).unwrap().to_string()).unwrap();
    variables.insert("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), file.display().to_string());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("warning", "the worker's account: ");
    said.line("warning", "the worker's key file: ");
}

/// Google's emulator has no policies to ask.
#[tokio::test]
async fn an_emulator_without_policies_is_asked_for_its_topic() {
    let cloud = deployed(&push()).await;
    let emulator = Peer::start(|request, _| match &*request.method {
        "GET" if request.target.ends_with("/topics/results") => Reply::json(200, json!({"name": "results"})),
        "GET" => Reply::json(404, json!({"error": {"message": "Topic not found"}})),
        _ => Reply::json(501, json!({"error": {"message": "Method not implemented"}})),
    });
    let mut variables = environment(&cloud);
    let host = emulator.url.trim_start_matches("http://").to_owned();
    variables.insert("PUBSUB_EMULATOR_HOST".to_owned(), host);
    let said = doctor(&variables, &[]).await;
    assert!(said.line("ok", "publish to ").ends_with("the topic is there"), "{said}");
    variables.insert("RESULT_TOPIC".to_owned(), "others".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    said.line("wrong", "publish to ");
}
