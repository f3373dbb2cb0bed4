//! `platen secrets`: seal and open, as a person meets them.

use serde_json::json;

use super::{BUCKET, KEY, NAME, OBJECT, cloud, kms_fault, seal, seal_by_hand, secrets, text};
use crate::harness::upload_to;
use platen::local_cloud::{Effect, Fault, Peer};

const OPEN: [&str; 4] = ["open", "--key", KEY, OBJECT];

fn sealing<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["seal", "--key", KEY, "--object", OBJECT];
    arguments.extend(more);
    arguments
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_opens_byte_for_byte_and_is_nowhere_in_the_clear() {
    let cloud = cloud().await;
    let json = b"{ \"passwords\" : { \"contracts\" : [ \"canary-new\", \"canary-old\" ] } }\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.json");
    std::fs::write(&file, json).unwrap();
    let sealed = secrets(&cloud, &sealing(&[file.to_str().unwrap()]), b"");
    assert_eq!(sealed.status.code(), Some(0), "{}", text(&sealed.stderr));
    let generation = text(&sealed.stdout).trim().rsplit_once('#').unwrap().1.to_owned();
    let opened = secrets(&cloud, &OPEN, b"");
    assert_eq!(opened.status.code(), Some(0), "{}", text(&opened.stderr));
    assert_eq!(opened.stdout, json);
    assert!(
        text(&opened.stderr).contains(&format!("{OBJECT}#{generation}")),
        "{}",
        text(&opened.stderr)
    );
    let stored = stored(&cloud).await;
    for output in [&stored, &sealed.stdout, &sealed.stderr, &opened.stderr] {
        let output = text(output);
        assert!(!output.contains("canary") && !output.contains("contracts"), "{output}");
    }
}

async fn stored(cloud: &platen::local_cloud::LocalCloud) -> Vec<u8> {
    let url = format!(
        "{}/download/storage/v1/b/{BUCKET}/o/{NAME}?alt=media",
        cloud.urls().storage
    );
    let token = cloud.access_token(&cloud.settings().worker_service_account);
    let answer = crate::harness::client()
        .get(url)
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_change_is_not_lost() {
    let cloud = cloud().await;
    let first = seal(&cloud, &json!({"passwords": {"a": "1"}}));
    let second = seal(&cloud, &json!({"passwords": {"a": "2"}}));
    // Whoever opened the first one does not replace the second.
    for stale in [first.as_str(), "0"] {
        let output = secrets(&cloud, &sealing(&["--generation", stale, "-"]), b"{}");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let message = text(&output.stderr);
        assert!(
            message.contains("has been changed") && message.contains(&second),
            "{message}"
        );
    }
    assert_eq!(secrets(&cloud, &OPEN, b"").stdout, br#"{"passwords":{"a":"2"}}"#);
    let output = secrets(&cloud, &sealing(&["--generation", &second, "-"]), b"{}");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_after_the_write_is_its_own_success() {
    let cloud = cloud().await;
    cloud.add_fault(Fault {
        peer: Some(Peer::Storage),
        method: Some("POST".to_owned()),
        path_prefix: "/upload/".to_owned(),
        skip: 0,
        count: 1,
        effect: Effect::LoseAnswer { lose_answer: true },
    });
    seal(&cloud, &json!({"passwords": {"a": "1"}}));
    assert_eq!(secrets(&cloud, &OPEN, b"").stdout, br#"{"passwords":{"a":"1"}}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_worker_would_take_is_not_sealed() {
    let cloud = cloud().await;
    for (json, expected) in [
        ("canary", "is not JSON at line 1"),
        (r#"{"passwords":{"a":["canary",5]}}"#, "a number in passwords.a"),
        (r#"{"pasword":{"a":"canary"}}"#, "the field \"pasword\""),
        (
            r#"{"environment":{"MAX_PAGES":"canary"}}"#,
            "MAX_PAGES is '…', not a whole number",
        ),
        (
            r#"{"environment":{"CANARY":"canary"}}"#,
            "holds the variable \"CANARY\"",
        ),
        (
            r#"{"environment":{"CONFIG_OBJECT":"gs://canary/x"}}"#,
            "which the object itself is read with",
        ),
        (r#"{"environment":{"LOG_FORMAT":"canary"}}"#, "LOG_FORMAT is '…'"),
    ] {
        let output = secrets(&cloud, &sealing(&["-"]), json.as_bytes());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{message}");
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(!message.contains("canary"), "{message}");
    }
    let large = json!({"passwords": {"a": "x".repeat(70_000)}}).to_string();
    let output = secrets(&cloud, &sealing(&["-"]), large.as_bytes());
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("65536"), "{}", text(&output.stderr));
    assert_eq!(secrets(&cloud, &OPEN, b"").status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_refuses_what_a_worker_refuses_and_shows_nothing() {
    let cloud = cloud().await;
    seal_by_hand(&cloud, KEY, b"canary", None).await;
    let output = secrets(&cloud, &OPEN, b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let message = text(&output.stderr);
    assert!(
        message.contains("additional authenticated data") && message.contains("platen secrets seal"),
        "{message}"
    );
    assert!(!message.contains("canary"), "{message}");
    // Sealed in the right way, it opens whatever it holds, and says what a worker would say of it.
    seal_by_hand(&cloud, KEY, b"canary", Some(OBJECT)).await;
    let output = secrets(&cloud, &OPEN, b"");
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"canary"[..])
    );
    assert!(
        text(&output.stderr).contains("No worker starts with it"),
        "{}",
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_their_exit_codes_and_help_has_examples() {
    let cloud = cloud().await;
    let good = json!({}).to_string();
    let no_right = |role: &str| {
        format!(
            "--member=serviceAccount:{} --role={role}",
            cloud.settings().worker_service_account
        )
    };
    for (arguments, code, expected) in [
        (
            vec!["seal", "--key", "k", "--object", OBJECT, "-"],
            64,
            "write projects/PROJECT/",
        ),
        (
            vec!["seal", "--key", KEY, "--object", "config/worker.enc", "-"],
            64,
            "write gs://BUCKET/OBJECT",
        ),
        (
            vec!["open", "--key", KEY, "gs://config"],
            64,
            "write gs://BUCKET/OBJECT",
        ),
        (vec!["seal", "--key", KEY, "-"], 64, "--object"),
        (vec![], 64, "seal"),
        (
            sealing(&["/nowhere/config.json"]),
            64,
            "/nowhere/config.json cannot be read",
        ),
        (
            vec!["open", "--key", KEY, "gs://nowhere/worker.enc"],
            1,
            "gs://nowhere/worker.enc is not there",
        ),
        (
            vec!["seal", "--key", KEY, "--object", "gs://nowhere/worker.enc", "-"],
            1,
            "gs://nowhere/worker.enc",
        ),
    ] {
        let output = secrets(&cloud, &arguments, good.as_bytes());
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(
            text(&output.stderr).contains(expected),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
    }
    for (verb, role) in [
        ("encrypt", "roles/cloudkms.cryptoKeyEncrypter"),
        ("decrypt", "roles/cloudkms.cryptoKeyDecrypter"),
    ] {
        upload_to(&cloud, BUCKET, NAME, b"sealed".to_vec()).await;
        cloud.deny_kms(&cloud.settings().worker_service_account, KEY, verb);
        let arguments = if verb == "encrypt" {
            sealing(&["-"])
        } else {
            OPEN.to_vec()
        };
        let output = secrets(&cloud, &arguments, good.as_bytes());
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).contains(&no_right(role)),
            "{}",
            text(&output.stderr)
        );
    }
    for arguments in [&["--help"][..], &["seal", "--help"], &["open", "--help"]] {
        let output = secrets(&cloud, arguments, b"");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Example: "), "{arguments:?}");
    }
    cloud.add_fault(kms_fault(u32::MAX, Effect::status(400)));
    assert_eq!(
        secrets(&cloud, &sealing(&["-"]), good.as_bytes()).status.code(),
        Some(1)
    );
}
