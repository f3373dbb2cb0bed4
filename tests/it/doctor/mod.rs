//! `platen doctor` as a process against the local cloud, which holds the worker to exactly the rights of
//! deploy/policy.json.

mod rights;
mod settings;
mod trouble;

use std::collections::HashMap;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{LocalCloud, Subscription};
use serde_json::{Value, json};

pub(crate) use rights::carry_out;

use crate::harness::{AUDIENCE, INPUT, USER, client, cloud, upload_to};

const KEY: &str = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config";

/// What a run has said, and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// The lines of one state.
    fn lines(&self, state: &str) -> Vec<&str> {
        let word = format!("{state:8} ");
        self.out.lines().filter_map(|line| line.strip_prefix(&word)).collect()
    }

    /// The one line of this state that begins so.
    fn line(&self, state: &str, beginning: &str) -> &str {
        let found: Vec<&str> = self
            .lines(state)
            .into_iter()
            .filter(|line| line.starts_with(beginning))
            .collect();
        assert_eq!(found.len(), 1, "{state} {beginning}\n{self}");
        found[0]
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n{}{}", self.code, self.out, self.err)
    }
}

async fn doctor(variables: &HashMap<String, String>, arguments: &[&str]) -> Said {
    // A machine under load is no reason to say that nobody answers.
    let patience: &[&str] = if arguments.contains(&"--timeout") {
        &[]
    } else {
        &["--timeout", "100s"]
    };
    let output: Output = tokio::process::Command::new(env!("CARGO_BIN_EXE_platen"))
        .arg("doctor")
        .args(arguments)
        .args(patience)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(variables)
        .output()
        .await
        .unwrap();
    let said = Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    for secret in ["X-Goog-", "ya29.", "eyJ"] {
        assert!(!said.to_string().contains(secret), "{secret}\n{said}");
    }
    said
}

/// With the dead-letter topic, the notification and the push subscription of deploy/setup.sh.
async fn deployed(push: &Subscription<'_>) -> LocalCloud {
    let cloud = cloud().await;
    cloud.create_topic("dead-letters").unwrap();
    let letters = Subscription {
        name: "letters",
        topic: "dead-letters",
        ..Subscription::default()
    };
    cloud.create_subscription(&letters).unwrap();
    cloud.create_notification(INPUT, "events").unwrap();
    cloud.create_subscription(push).unwrap();
    cloud
}

/// The push subscription as it should be. Nothing is published, so that nothing is pushed.
fn push() -> Subscription<'static> {
    Subscription {
        name: "push",
        topic: "events",
        push_endpoint: Some("http://127.0.0.1:9/"),
        audience: Some(AUDIENCE),
        service_account: Some("push@local-project.iam.gserviceaccount.com"),
        ack_deadline_seconds: Some(600),
        retry_seconds: Some((10, 600)),
        dead_letter: Some(("dead-letters", 20)),
        ..Subscription::default()
    }
}

/// What deploy/setup.sh grants with `DOCTOR=yes`, as the file says.
fn let_look(cloud: &LocalCloud) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/policy.json");
    let policy: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let of_doctor = |binding: &&Value| binding["when"] == "DOCTOR";
    for binding in policy["bindings"].as_array().unwrap().iter().filter(of_doctor) {
        assert_eq!(binding["member"], "worker");
        let permissions = &policy["roles"][binding["role"].as_str().unwrap()];
        for permission in permissions.as_array().unwrap() {
            cloud.give(
                "worker",
                permission.as_str().unwrap(),
                binding["resource"].as_str().unwrap(),
            );
        }
    }
}

/// Names of the objects that are there.
async fn objects(cloud: &LocalCloud, bucket: &str) -> Vec<String> {
    let url = format!("{}/storage/v1/b/{bucket}/o", cloud.urls().storage);
    let request = client().get(url).bearer_auth(cloud.access_token(USER));
    let list: Value = request.send().await.unwrap().json().await.unwrap();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

/// As an operator does, who is nobody of the policy's.
async fn seal(cloud: &LocalCloud, variables: &mut HashMap<String, String>, contents: &Value) {
    cloud.create_bucket("config", false).unwrap();
    cloud.rotate_kms_key(KEY).unwrap();
    let operator = "operator@example.com";
    cloud.create_service_account(operator);
    let answer = client()
        .post(format!("{}/v1/{KEY}:encrypt", cloud.urls().kms))
        .bearer_auth(cloud.access_token(operator))
        .json(&json!({
            "plaintext": STANDARD.encode(contents.to_string()),
            "additionalAuthenticatedData": STANDARD.encode("gs://config/worker.enc"),
        }))
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let sealed = STANDARD.decode(answer["ciphertext"].as_str().unwrap()).unwrap();
    upload_to(cloud, "config", "worker.enc", sealed).await;
    variables.insert("CONFIG_OBJECT".to_owned(), "gs://config/worker.enc".to_owned());
    variables.insert("CONFIG_KMS_KEY".to_owned(), KEY.to_owned());
}
