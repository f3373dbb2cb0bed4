//! The sealed configuration through the front door: the worker's own process, `platen secrets`, and a local cloud.

mod client;
mod command;
mod leaks;
mod metrics;
mod monitoring;
mod reload;
mod rotation;
mod start;

use std::collections::HashMap;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{Effect, Fault, LocalCloud, Peer};
use serde_json::{Value, json};

use crate::harness::{World, environment, upload_to};

const KEY: &str = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config";
const OBJECT: &str = "gs://config/worker.enc";
const BUCKET: &str = "config";
const NAME: &str = "worker.enc";

/// The variables of a worker with a configuration object.
const VARIABLES: [(&str, &str); 2] = [("CONFIG_OBJECT", OBJECT), ("CONFIG_KMS_KEY", KEY)];

/// A cloud with a bucket and a key for the configuration object.
async fn cloud() -> LocalCloud {
    let cloud = crate::harness::cloud().await;
    cloud.create_bucket(BUCKET, false).unwrap();
    cloud.rotate_kms_key(KEY).unwrap();
    cloud
}

/// What whoever seals needs beyond the worker's rights; the worker itself never has them.
const SEALING: [(&str, &str); 3] = [
    ("cloudkms.cryptoKeyVersions.useToEncrypt", "key"),
    ("storage.objects.create", "bucket/config"),
    ("storage.objects.delete", "bucket/config"),
];

/// `platen secrets` with these arguments, reading `stdin`, by the worker's account with the rights of who seals.
fn secrets(cloud: &LocalCloud, arguments: &[&str], stdin: &[u8]) -> Output {
    for (permission, resource) in SEALING {
        cloud.give("worker", permission, resource);
    }
    let output = run(cloud, arguments, stdin);
    for (permission, resource) in SEALING {
        cloud.take_away("worker", permission, resource);
    }
    output
}

fn run(cloud: &LocalCloud, arguments: &[&str], stdin: &[u8]) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_platen"))
        .arg("secrets")
        .args(arguments)
        .env_clear()
        .envs(environment(cloud))
        .env("RUST_LOG", "trace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _it_may_not_read = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

/// Seals this JSON in the object's place and gives the generation.
fn seal(cloud: &LocalCloud, contents: &Value) -> String {
    let arguments = ["seal", "--key", KEY, "--object", OBJECT, "-"];
    let output = secrets(cloud, &arguments, contents.to_string().as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    let generation = line.trim().strip_prefix("gs://config/worker.enc#").unwrap();
    generation.to_owned()
}

/// Encrypts as anybody could with gcloud, and puts the bytes in the object's place.
async fn seal_by_hand(cloud: &LocalCloud, key: &str, plaintext: &[u8], additional: Option<&str>) {
    let mut body = json!({"plaintext": STANDARD.encode(plaintext)});
    if let Some(additional) = additional {
        body["additionalAuthenticatedData"] = STANDARD.encode(additional).into();
    }
    let operator = "operator@example.com";
    cloud.create_service_account(operator);
    let answer = crate::harness::client()
        .post(format!("{}/v1/{key}:encrypt", cloud.urls().kms))
        .bearer_auth(cloud.access_token(operator))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    let ciphertext = STANDARD.decode(answer["ciphertext"].as_str().unwrap()).unwrap();
    upload_to(cloud, BUCKET, NAME, ciphertext).await;
}

/// A worker on this cloud, its configuration object among its variables.
async fn worker(cloud: LocalCloud, more: &[(&str, &str)], without: &[&str]) -> World {
    let mut variables: HashMap<String, String> = environment(&cloud);
    let more = VARIABLES.iter().chain(more);
    variables.extend(more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    for name in without {
        variables.remove(*name);
    }
    World::on(cloud, &variables)
}

/// What the worker says about its configuration object.
async fn config(world: &World) -> Value {
    let answer = world
        .http
        .get(format!("{}/health/ready", world.worker.url))
        .send()
        .await
        .unwrap();
    let ready: Value = answer.json().await.unwrap();
    ready["config"].clone()
}

/// Waits until it says something in particular.
async fn config_until(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let started = std::time::Instant::now();
    loop {
        let config = config(world).await;
        if is(&config) {
            return config;
        }
        assert!(
            started.elapsed() < crate::harness::PATIENCE,
            "{what}: {config}\n{}",
            world.worker.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn kms_fault(count: u32, effect: Effect) -> Fault {
    Fault {
        peer: Some(Peer::Kms),
        method: None,
        path_prefix: String::new(),
        skip: 0,
        count,
        effect,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
