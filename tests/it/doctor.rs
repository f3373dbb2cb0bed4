//! `platen doctor` as a process against the local cloud, which holds the worker to exactly the rights of deploy/policy.json.

use std::collections::HashMap;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{Effect, Fault, LocalCloud, Peer as CloudPeer, Settings, Subscription};
use serde_json::{Value, json};

use crate::harness::{AUDIENCE, INPUT, OUTPUT, RESOURCES, USER, client, cloud, environment, upload_to};
use crate::peer::{Peer, Reply, nobody};

const KEY: &str = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config";
/// What deploy/setup.sh grants with DOCTOR=yes.
const DOCTOR: [(&str, &str); 6] = [
    ("storage.buckets.get", "bucket/input"),
    ("storage.buckets.get", "bucket/output"),
    ("pubsub.topics.get", "topic/events"),
    ("pubsub.topics.get", "topic/results"),
    ("pubsub.topics.get", "topic/dead-letter"),
    ("pubsub.subscriptions.get", "subscription/push"),
];

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

fn let_look(cloud: &LocalCloud) {
    for (permission, resource) in DOCTOR {
        cloud.give("worker", permission, resource);
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

/// Every one of the worker's own rights is tried, nothing is left, and nobody hears of it.
#[tokio::test]
async fn all_is_well_under_exactly_the_rights_of_the_deployment() {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    seal(&cloud, &mut variables, &json!({"environment": {"MAX_PAGES": "7"}})).await;
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    let first = said.out.lines().next().unwrap();
    assert_eq!(
        first,
        format!(
            "checking as serviceAccount:{}, from metadata server at {}",
            cloud.settings().worker_service_account,
            cloud.urls().metadata
        )
    );
    let signer = &cloud.settings().signer_service_account;
    assert_eq!(
        said.lines("ok"),
        [
            "get an access token".to_owned(),
            "read gs://config/worker.enc".to_owned(),
            format!("open it with {KEY}"),
            "read documents of gs://input".to_owned(),
            "create objects in gs://output".to_owned(),
            "read objects of gs://output".to_owned(),
            "replace and remove objects in gs://output".to_owned(),
            format!("fetch through a URL signed by {signer}"),
            format!("sign URLs as {signer}"),
            "publish to projects/local-project/topics/results (asked, not done: subscribers would get it)".to_owned(),
            format!("fetch the keys of push tokens from {}", cloud.urls().jwks),
        ]
    );
    for state in ["missing", "wrong", "warning"] {
        assert!(said.lines(state).is_empty(), "{said}");
    }
    // What the worker may not see is left to an operator, with the command.
    let unseen = said.lines("unseen");
    assert!(unseen.iter().all(|line| line.starts_with("(operator) ")), "{said}");
    assert!(
        unseen[0].ends_with("gcloud storage buckets describe gs://input"),
        "{said}"
    );
    assert!(objects(&cloud, OUTPUT).await.is_empty());
    assert_eq!(
        cloud.backlog("projects/local-project/subscriptions/results").unwrap(),
        0
    );
    assert_eq!(cloud.unconditional_writes(OUTPUT).unwrap(), 0);
}

/// Which permissions a role of Google's holds, of those that the worker works with.
fn held(role: &str) -> &'static [&'static str] {
    match role {
        "roles/storage.objectViewer" => &["storage.objects.get", "storage.objects.list"],
        "roles/storage.objectUser" => &[
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
            "storage.objects.list",
        ],
        "roles/iam.serviceAccountTokenCreator" => &["iam.serviceAccounts.signBlob"],
        "roles/pubsub.publisher" => &["pubsub.topics.publish"],
        "roles/cloudkms.cryptoKeyDecrypter" => &["cloudkms.cryptoKeyVersions.useToDecrypt"],
        _ => &[],
    }
}

/// Does what a command of gcloud's would: the local cloud has the account and the resource under the names of the policy.
fn carry_out(cloud: &LocalCloud, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let flag = |name: &str| words.iter().find_map(|word| word.strip_prefix(&format!("--{name}=")));
    let settings = cloud.settings();
    let member = flag("member").unwrap().strip_prefix("serviceAccount:").unwrap();
    let account = match member {
        member if member == settings.worker_service_account => "worker",
        member if member == settings.signer_service_account => "signer",
        member => panic!("nobody is called {member}"),
    };
    let target = words[words.iter().position(|word| *word == "add-iam-policy-binding").unwrap() + 1];
    let resource = match (&words[..3], target) {
        (["gcloud", "storage", "buckets"], target) => format!("bucket/{}", target.strip_prefix("gs://").unwrap()),
        (["gcloud", "pubsub", "topics"], "results") => {
            assert_eq!(flag("project"), Some("local-project"));
            "topic/results".to_owned()
        }
        (["gcloud", "iam", "service-accounts"], target) if target == settings.signer_service_account => {
            "account/signer".to_owned()
        }
        (["gcloud", "kms", "keys"], "config") => {
            assert_eq!(
                [flag("keyring"), flag("location"), flag("project")],
                [Some("platen"), Some("global"), Some("local-project")]
            );
            "key".to_owned()
        }
        _ => panic!("{command}"),
    };
    for permission in held(flag("role").unwrap()) {
        cloud.give(account, permission, &resource);
    }
}

/// Takes one right away: one line says so, and the command in it mends it.
async fn without(account: &str, permission: &str, resource: &str, what: &str) {
    let cloud = deployed(&push()).await;
    let mut variables = environment(&cloud);
    seal(&cloud, &mut variables, &json!({})).await;
    assert!(cloud.take_away(account, permission, resource));
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    assert!(said.lines("wrong").is_empty(), "{said}");
    let missing = said.lines("missing");
    assert_eq!(missing.len(), 1, "{said}");
    assert!(missing[0].starts_with(what), "{said}");
    assert!(missing[0].contains(&format!("It takes {permission}, ")), "{said}");
    assert!(
        said.err.ends_with("1 of 16 checks failed\n") || said.err.contains(" checks failed"),
        "{said}"
    );
    assert!(objects(&cloud, OUTPUT).await.is_empty(), "{said}");
    let (_, command) = missing[0].split_once("this grants it: ").unwrap();
    carry_out(&cloud, command);
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
}

#[tokio::test]
async fn without_the_right_to_read_documents() {
    without(
        "worker",
        "storage.objects.get",
        "bucket/input",
        "read documents of gs://input",
    )
    .await;
}

#[tokio::test]
async fn without_the_rights_to_outputs() {
    for (permission, what) in [
        ("storage.objects.create", "create objects in gs://output"),
        ("storage.objects.get", "read objects of gs://output"),
        ("storage.objects.delete", "replace and remove objects in gs://output"),
    ] {
        without("worker", permission, "bucket/output", what).await;
    }
}

#[tokio::test]
async fn without_the_rights_behind_a_signed_url() {
    let what = "sign URLs as signer@local-project.iam.gserviceaccount.com";
    without("worker", "iam.serviceAccounts.signBlob", "account/signer", what).await;
    let what = "fetch through a URL signed by signer@local-project.iam.gserviceaccount.com";
    without("signer", "storage.objects.get", "bucket/output", what).await;
}

#[tokio::test]
async fn without_the_right_to_publish() {
    let what = "publish to projects/local-project/topics/results";
    without("worker", "pubsub.topics.publish", "topic/results", what).await;
}

#[tokio::test]
async fn without_the_rights_to_the_configuration() {
    without(
        "worker",
        "storage.objects.get",
        "bucket/config",
        "read gs://config/worker.enc",
    )
    .await;
    let what = format!("open it with {KEY}");
    without("worker", "cloudkms.cryptoKeyVersions.useToDecrypt", "key", &what).await;
}
