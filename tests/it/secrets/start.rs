//! The start: with an object that is right, and with everything that can be wrong with one.

use serde_json::{Value, json};

use super::{BUCKET, Effect, KEY, NAME, OBJECT, cloud, config, kms_fault, seal, seal_by_hand, worker};
use crate::harness::{INPUT, notification, upload_to};

const OTHER_KEY: &str = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/other";
const SEAL_IT: &str = "platen secrets seal --key projects/local-project/locations/global/keyRings/platen/cryptoKeys/config --object gs://config/worker.enc FILE";

fn contents() -> Value {
    json!({"passwords": {"contracts": ["canary-new", "canary-old"]}, "environment": {"MAX_PAGES": "7"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_with_what_is_sealed_and_says_which_generation_it_has() {
    let cloud = cloud().await;
    let generation = seal(&cloud, &contents());
    let mut world = worker(cloud, &[], &[]).await;
    world.worker.ready().await;
    let config = config(&world).await;
    assert_eq!(config["generation"], generation, "{config}");
    assert!(config["loadedAt"].as_str().unwrap().ends_with('Z'), "{config}");
    assert_eq!(config["lastError"], Value::Null);
    let log = world.worker.log();
    assert!(
        log.contains(&format!("gs://config/worker.enc#{generation}: loaded")),
        "{log}"
    );
    assert!(!log.contains("canary"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_object_the_config_of_ready_is_of_nulls() {
    let world = crate::harness::World::start().await;
    assert_eq!(
        config(&world).await,
        json!({"generation": null, "loadedAt": null, "lastError": null})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn its_environment_configures_the_worker_and_the_process_wins() {
    let cloud = cloud().await;
    let sealed = json!({"environment": {
        "OUTPUT_BUCKET": "nowhere", "MAX_INPUT_SIZE": "1KiB", "OUTPUT_NAME": "sealed/{stem}.{ext}", "LOG_FORMAT": "json",
        "RUST_LOG": "platen=debug", "INPUT_BUCKETS": INPUT,
    }});
    seal(&cloud, &sealed);
    // Set but empty is unset.
    let process = [("MAX_INPUT_SIZE", "1MiB"), ("OUTPUT_NAME", " ")];
    let mut world = worker(cloud, &process, &["INPUT_BUCKETS", "RUST_LOG"]).await;
    world.worker.ready().await;
    let generation = world
        .upload_fixture("documents/plain/invoice.docx", "invoice.docx")
        .await;
    let answer = world.post(&notification("invoice.docx", &generation)).await;
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
    let result = world.result().await.data;
    assert_eq!(result["outputs"][0]["bucket"], crate::harness::OUTPUT, "{result}");
    assert_eq!(result["outputs"][0]["name"], "sealed/invoice.pdf", "{result}");
    // The logs of the load are text, as the process has it; all later ones are as the object says.
    let log = world.worker.log();
    let last = log.lines().last().unwrap();
    assert!(serde_json::from_str::<Value>(last).is_ok(), "{last}");
}

/// Starts a worker that must end, and gives its exit code and what it said.
async fn refused(cloud: platen::local_cloud::LocalCloud, more: &[(&str, &str)]) -> (i32, String) {
    let mut world = worker(cloud, more, &["RUST_LOG"]).await;
    let code = world.worker.exit().await.unwrap();
    let log = world.worker.all_of_the_log().await;
    assert!(!log.contains("canary"), "{log}");
    (code, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sealed_otherwise_is_refused_with_the_command_that_seals_it() {
    let plaintext = contents().to_string();
    for (key, additional, expected) in [
        (
            KEY,
            None,
            "was sealed without its address as additional authenticated data",
        ),
        (
            KEY,
            Some("gs://config/other.enc"),
            "was not sealed with this key for this address",
        ),
        (
            KEY,
            Some("gs://config/worker.enc\n"),
            "was not sealed with this key for this address",
        ),
        (OTHER_KEY, Some(OBJECT), "was not sealed with this key for this address"),
    ] {
        let cloud = cloud().await;
        cloud.rotate_kms_key(OTHER_KEY).unwrap();
        seal_by_hand(&cloud, key, plaintext.as_bytes(), additional).await;
        let (code, log) = refused(cloud, &[]).await;
        assert_eq!(code, 64, "{log}");
        assert!(log.contains(expected) && log.contains(SEAL_IT), "{expected}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sealed_or_is_not_there_is_refused_with_the_command_that_seals_it() {
    let cases = [
        (Some(contents().to_string()), "is not sealed: it holds its JSON"),
        (Some("no ciphertext".to_owned()), "was not sealed with this key"),
        (Some(String::new()), "was not sealed with this key"),
        (Some("x".repeat(200_000)), "has 200000 bytes"),
        (None, "is not there"),
    ];
    for (bytes, expected) in cases {
        let cloud = cloud().await;
        if let Some(bytes) = bytes {
            upload_to(&cloud, BUCKET, NAME, bytes.into_bytes()).await;
        }
        let (code, log) = refused(cloud, &[]).await;
        assert_eq!(code, 64, "{log}");
        assert!(log.contains(expected) && log.contains(SEAL_IT), "{expected}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_wrong_are_all_named_and_no_value_is_shown() {
    let cloud = cloud().await;
    let plaintext =
        br#"{"passwords":{"a":7,"b":"canary-1","b":"canary-2"},"secret":"canary-3","environment":["canary-4"]}"#;
    seal_by_hand(&cloud, KEY, plaintext, Some(OBJECT)).await;
    let (code, log) = refused(cloud, &[]).await;
    assert_eq!(code, 64, "{log}");
    for expected in [
        "a number in passwords.a",
        "the field \"b\" twice in passwords",
        "the field \"secret\"",
        "a list where environment has to be an object",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_variables_of_the_object_and_of_the_process_are_told_at_once_without_a_sealed_value() {
    let cloud = cloud().await;
    let plaintext = json!({"environment": {
        "MAX_PAGES": "canary-1", "SIGNED_URL_TTL": "canary-2", "OUTPUT_NAME": "{canary-3}", "LOG_FORMAT": "canary-4",
        "RUST_LOG": "canary-5=canary-6", "CANARY": "canary-7", "CONFIG_KMS_KEY": "canary-8",
        "GOOGLE_APPLICATION_CREDENTIALS": "/canary-9", "INPUT_INCLUDE": "[canary-10", "PORT": "canary-11",
    }});
    seal_by_hand(&cloud, KEY, plaintext.to_string().as_bytes(), Some(OBJECT)).await;
    let (code, log) = refused(cloud, &[("MAX_OUTPUT_SIZE", "100MB")]).await;
    assert_eq!(code, 64, "{log}");
    for expected in [
        "MAX_PAGES is '…', not a whole number from 1 to",
        "SIGNED_URL_TTL is '…', not a duration",
        "OUTPUT_NAME has a value that is not allowed",
        "LOG_FORMAT is '…', neither",
        "RUST_LOG is not a filter",
        "CONFIG_OBJECT holds the variable \"CANARY\", which platen serve does not have",
        "CONFIG_OBJECT holds the variable GOOGLE_APPLICATION_CREDENTIALS, which the object itself is read with",
        "INPUT_INCLUDE has a value that is not allowed",
        "MAX_OUTPUT_SIZE is '100MB', not a size",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    // The process sets it, so the object's does not count; the harness sets the port as well.
    assert!(!log.contains("CONFIG_KMS_KEY") && !log.contains("PORT "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_about_the_object_are_checked_with_all_others() {
    for (variables, expected) in [
        (
            [("CONFIG_OBJECT", "bucket/x"), ("CONFIG_RELOAD", "soon")],
            vec!["CONFIG_OBJECT is", "CONFIG_RELOAD is"],
        ),
        (
            [("CONFIG_OBJECT", ""), ("MAX_PAGES", "0")],
            vec!["CONFIG_OBJECT is required with", "MAX_PAGES is"],
        ),
        (
            [("CONFIG_KMS_KEY", " "), ("MAX_PAGES", "0")],
            vec!["CONFIG_KMS_KEY is required with", "MAX_PAGES is"],
        ),
        (
            [("CONFIG_KMS_KEY", "k"), ("LOG_FORMAT", "xml")],
            vec!["CONFIG_KMS_KEY is 'k'", "LOG_FORMAT is"],
        ),
        (
            [("KMS_ENDPOINT", "kms"), ("CONFIG_RELOAD", "1ms")],
            vec!["KMS_ENDPOINT is", "CONFIG_RELOAD is"],
        ),
    ] {
        let (code, log) = refused(cloud().await, &variables).await;
        assert_eq!(code, 64, "{log}");
        for expected in expected {
            assert_eq!(log.matches(expected).count(), 1, "{expected}: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_with_the_command_that_grants_it() {
    let cloud = cloud().await;
    seal(&cloud, &contents());
    let account = cloud.settings().worker_service_account.clone();
    cloud.deny_kms(&account, KEY, "decrypt");
    let (code, log) = refused(cloud, &[]).await;
    assert_eq!(code, 1, "{log}");
    let command = format!(
        "gcloud kms keys add-iam-policy-binding config --keyring=platen --location=global --project=local-project \
         --member=serviceAccount:{account} --role=roles/cloudkms.cryptoKeyDecrypter"
    );
    assert!(log.contains(&command), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_ridden_out_and_what_stays_ends_the_start_in_time() {
    let passing = cloud().await;
    seal(&passing, &contents());
    passing.add_fault(kms_fault(2, Effect::status(503)));
    passing.add_fault(kms_fault(1, Effect::Corrupt { corrupt: true }));
    let mut world = worker(passing, &[], &[]).await;
    world.worker.ready().await;

    let lasting = cloud().await;
    seal(&lasting, &contents());
    lasting.add_fault(kms_fault(u32::MAX, Effect::status(503)));
    let (code, log) = refused(lasting, &[]).await;
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("CONFIG_OBJECT cannot be loaded"), "{log}");
    assert!(!log.contains("listening on"), "{log}");
}
