//! Google's Pub/Sub client and `gcloud pubsub`, unchanged, against the local cloud: by their effects, and what they say of refusals.

use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use platen::local_cloud::{LocalCloud, Settings, Subscription};
use serde_json::{Value, json};

use super::{project, python, runs};
use crate::harness::{USER, until};

#[tokio::test(flavor = "multi_thread")]
async fn googles_python_client_of_pubsub_works_unchanged() {
    let made = || python("google-pubsub-client", "google-cloud-pubsub>=2.30,<3", "pubsub_v1");
    let Some(python) = tokio::task::spawn_blocking(made).await.unwrap() else {
        println!("skipped: google-cloud-pubsub cannot be installed here (python3, its venv module and the registry)");
        return;
    };
    let cloud = cloud().await;
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/official/pubsub.py"))
        .args([&cloud.urls().pubsub, &cloud.access_token(USER), project(&cloud)])
        .arg(&cloud.settings().push_service_account)
        .env("no_proxy", "*");
    let output = runs(command).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(said.lines().count(), 5, "{said}");
    println!("{said}");
}

/// A cloud with nothing in it, whose seconds are seconds: a command takes one or two.
async fn cloud() -> LocalCloud {
    let cloud = LocalCloud::start(Settings::default()).await.unwrap();
    cloud.create_service_account(USER);
    cloud.enforce(&[("topic/results", "results")]).unwrap();
    cloud
}

/// `gcloud pubsub` with a configuration of its own, pointed at a local cloud.
#[derive(Clone)]
struct Gcloud {
    endpoint: String,
    project: String,
    place: Arc<tempfile::TempDir>,
}

impl Gcloud {
    /// None, said aloud, where gcloud is not installed.
    fn of(cloud: &LocalCloud) -> Option<Self> {
        if Command::new("gcloud").arg("--version").output().is_err() {
            println!("skipped: gcloud is not installed");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("token"), cloud.access_token(USER)).unwrap();
        Some(Self {
            endpoint: format!("{}/", cloud.urls().pubsub),
            project: project(cloud).to_owned(),
            place: Arc::new(place),
        })
    }

    /// What a command says: its JSON, or its errors.
    async fn run(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = Command::new("gcloud");
        command
            .arg("pubsub")
            .args(arguments)
            .arg("--format=json")
            .env("CLOUDSDK_CONFIG", self.place.path())
            .env("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", self.place.path().join("token"))
            .env("CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB", &self.endpoint)
            .env("CLOUDSDK_CORE_PROJECT", &self.project)
            .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
            .env("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "1")
            .env("no_proxy", "*");
        let output = runs(command).await;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    async fn done(&self, arguments: &[&str]) -> Value {
        match self.run(arguments).await {
            Ok(answer) => answer,
            Err(why) => panic!("gcloud pubsub {}: {why}", arguments.join(" ")),
        }
    }

    /// Demands a refusal in these words.
    async fn refused(&self, arguments: &[&str], words: &str) {
        match self.run(arguments).await {
            Ok(answer) => panic!("gcloud pubsub {}: {answer}", arguments.join(" ")),
            Err(why) => assert!(why.contains(words), "gcloud pubsub {}: {why}", arguments.join(" ")),
        }
    }
}

fn topic(id: &str) -> String {
    format!("projects/local-project/topics/{id}")
}

fn subscription(id: &str) -> String {
    format!("projects/local-project/subscriptions/{id}")
}

/// A message as gcloud publishes it; its id.
fn published(cloud: &LocalCloud, topic: &str, data: &str, attributes: &[(&str, &str)]) -> String {
    cloud.publish(topic, data.as_bytes(), attributes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gclouds_commands_on_topics_work_unchanged() {
    let cloud = cloud().await;
    let Some(gcloud) = Gcloud::of(&cloud) else { return };
    gcloud
        .done(&[
            "topics",
            "create",
            "made",
            "--labels=a=b",
            "--message-retention-duration=10m",
        ])
        .await;
    let wanted = json!({"name": topic("made"), "labels": {"a": "b"}, "messageRetentionDuration": "600s"});
    assert_eq!(gcloud.done(&["topics", "describe", "made"]).await, wanted);
    let watched = |name| Subscription {
        name,
        topic: "made",
        ..Subscription::default()
    };
    cloud.create_subscription(&watched("watches")).unwrap();
    let (exists, missing, small, _, _, _) = tokio::join!(
        gcloud.refused(
            &["topics", "create", "made"],
            "Resource already exists in the project (resource=made)."
        ),
        gcloud.refused(
            &["topics", "describe", "missing"],
            "NOT_FOUND: Resource not found (resource=missing)."
        ),
        gcloud.refused(&["topics", "publish", "made"], "must specify"),
        async {
            let sent = [
                "topics",
                "publish",
                "made",
                "--message=hello",
                "--attribute=a=b,c=d",
                "--ordering-key=k",
            ];
            let sent = gcloud.done(&sent).await;
            let received = cloud.receive(&subscription("watches"), 1).await.unwrap().remove(0);
            let message = &received["message"];
            assert_eq!(message["messageId"], sent["messageIds"][0]);
            assert_eq!(
                (&message["data"], &message["attributes"], &message["orderingKey"]),
                (&json!("aGVsbG8="), &json!({"a": "b", "c": "d"}), &json!("k"))
            );
        },
        async {
            let change = [
                "topics",
                "update",
                "made",
                "--update-labels=c=d",
                "--clear-message-retention-duration",
            ];
            gcloud.done(&change).await;
            let listed = gcloud.done(&["topics", "list"]).await;
            let wanted = json!({"name": topic("made"), "labels": {"a": "b", "c": "d"}});
            assert!(listed.as_array().unwrap().contains(&wanted), "{listed}");
        },
        async {
            let listed = gcloud.done(&["topics", "list-subscriptions", "made"]).await;
            assert_eq!(listed, json!([subscription("watches")]));
        },
    );
    let ((), (), ()) = (exists, missing, small);
    gcloud.done(&["topics", "delete", "made"]).await;
    gcloud
        .refused(
            &["topics", "publish", "made", "--message=x"],
            "Resource not found (resource=made).",
        )
        .await;
    let orphan = gcloud.done(&["subscriptions", "describe", "watches"]).await;
    assert_eq!(orphan["topic"], "_deleted-topic_");
}

#[tokio::test(flavor = "multi_thread")]
async fn gclouds_commands_on_pull_subscriptions_work_unchanged() {
    let cloud = cloud().await;
    let Some(gcloud) = Gcloud::of(&cloud) else { return };
    for id in ["made", "dead"] {
        cloud.create_topic(id).unwrap();
    }
    let settings = async {
        let create = [
            "subscriptions",
            "create",
            "full",
            "--topic=made",
            "--ack-deadline=20",
            "--message-filter=attributes.a = \"b\" AND NOT attributes:c",
            "--enable-message-ordering",
            "--dead-letter-topic=dead",
            "--max-delivery-attempts=6",
            "--min-retry-delay=2s",
            "--max-retry-delay=30s",
            "--retain-acked-messages",
            "--message-retention-duration=1h",
            "--expiration-period=2d",
            "--labels=x=y",
        ];
        gcloud.done(&create).await;
        let mut wanted = json!({
            "name": subscription("full"), "topic": topic("made"), "state": "ACTIVE", "pushConfig": {}, "ackDeadlineSeconds": 20,
            "filter": "attributes.a = \"b\" AND NOT attributes:c", "enableMessageOrdering": true, "retainAckedMessages": true,
            "deadLetterPolicy": {"deadLetterTopic": topic("dead"), "maxDeliveryAttempts": 6},
            "retryPolicy": {"minimumBackoff": "2s", "maximumBackoff": "30s"}, "messageRetentionDuration": "3600s",
            "expirationPolicy": {"ttl": "172800s"}, "labels": {"x": "y"},
        });
        assert_eq!(gcloud.done(&["subscriptions", "describe", "full"]).await, wanted);
        let change = [
            "subscriptions",
            "update",
            "full",
            "--ack-deadline=30",
            "--clear-dead-letter-policy",
            "--clear-retry-policy",
            "--no-retain-acked-messages",
            "--message-retention-duration=default",
            "--expiration-period=never",
            "--update-labels=p=q",
        ];
        gcloud.done(&change).await;
        for gone in ["deadLetterPolicy", "retryPolicy", "retainAckedMessages"] {
            wanted.as_object_mut().unwrap().remove(gone);
        }
        wanted["ackDeadlineSeconds"] = json!(30);
        wanted["messageRetentionDuration"] = json!("604800s");
        wanted["expirationPolicy"] = json!({});
        wanted["labels"] = json!({"x": "y", "p": "q"});
        let listed = gcloud.done(&["subscriptions", "list"]).await;
        assert!(listed.as_array().unwrap().contains(&wanted), "{listed}");
        gcloud.done(&["subscriptions", "delete", "full"]).await;
        let gone = ["subscriptions", "describe", "full"];
        gcloud
            .refused(&gone, "NOT_FOUND: Resource not found (resource=full).")
            .await;
    };
    let messages = async {
        let create = [
            "subscriptions",
            "create",
            "kept",
            "--topic=made",
            "--retain-acked-messages",
            "--ack-deadline=600",
            "--message-filter=attributes:a",
        ];
        gcloud.done(&create).await;
        let ids = ["one", "two"].map(|data| published(&cloud, "made", data, &[("a", "")]));
        published(&cloud, "made", "filtered out", &[]);
        let pull = ["subscriptions", "pull", "kept", "--limit=10"];
        let pulled = gcloud.done(&pull).await;
        let got: Vec<&Value> = pulled
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["message"]["messageId"])
            .collect();
        assert_eq!(got, [&json!(ids[0]), &json!(ids[1])]);
        let ack_id = |number: usize| format!("--ack-ids={}", pulled[number]["ackId"].as_str().unwrap());
        let (first, second) = (ack_id(0), ack_id(1));
        let give_back = [
            "subscriptions",
            "modify-message-ack-deadline",
            "kept",
            "--ack-deadline=0",
            &second,
        ];
        let ack = ["subscriptions", "ack", "kept", &first];
        tokio::join!(gcloud.done(&ack), gcloud.done(&give_back));
        let again = gcloud
            .done(&["subscriptions", "pull", "kept", "--auto-ack", "--limit=10"])
            .await;
        assert_eq!(
            (&again[0]["message"]["messageId"], &again[1]),
            (&json!(ids[1]), &Value::Null)
        );
        assert_eq!(cloud.backlog(&subscription("kept")).unwrap(), 0);
        gcloud
            .done(&["subscriptions", "seek", "kept", "--time=2020-01-01T00:00:00Z"])
            .await;
        assert_eq!(cloud.backlog(&subscription("kept")).unwrap(), 2);
        gcloud.done(&["topics", "detach-subscription", "kept"]).await;
        let detached = gcloud.done(&["subscriptions", "describe", "kept"]).await;
        assert_eq!(detached["detached"], true);
        gcloud
            .refused(&["subscriptions", "pull", "kept"], "FAILED_PRECONDITION")
            .await;
    };
    let refusals = async {
        let create = async |option: &str, words: &str| {
            gcloud
                .refused(&["subscriptions", "create", "bad", "--topic=made", option], words)
                .await;
        };
        create("--message-filter=attributes.a = b", "Invalid filter given").await;
        create("--ack-deadline=9", "Invalid ack deadline given").await;
        create("--dead-letter-topic=missing", "Resource not found (resource=missing).").await;
        let nowhere = ["subscriptions", "create", "bad", "--topic=missing"];
        gcloud.refused(&nowhere, "Resource not found (resource=missing).").await;
        let never = ["subscriptions", "ack", "missing", "--ack-ids=1-1"];
        gcloud
            .refused(&never, "NOT_FOUND: Resource not found (resource=missing).")
            .await;
    };
    tokio::join!(settings, messages, refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn gclouds_commands_on_policies_work_unchanged() {
    let cloud = cloud().await;
    let Some(gcloud) = Gcloud::of(&cloud) else { return };
    for id in ["made", "results"] {
        cloud.create_topic(id).unwrap();
    }
    let wanted = Subscription {
        name: "pulled",
        topic: "made",
        ..Subscription::default()
    };
    cloud.create_subscription(&wanted).unwrap();
    let worker = &cloud.settings().worker_service_account;
    let member = format!("serviceAccount:{worker}");
    let to = format!("--member={member}");
    let may_publish = async || {
        let url = format!("{}/v1/{}:publish", cloud.urls().pubsub, topic("made"));
        let request = crate::harness::client()
            .post(url)
            .bearer_auth(cloud.access_token(worker));
        let answer = request.json(&json!({"messages": [{"data": "eA=="}]})).send().await;
        answer.unwrap().status() == StatusCode::OK
    };
    assert!(!may_publish().await);
    let publisher = "--role=roles/pubsub.publisher";
    let bound = gcloud
        .done(&["topics", "add-iam-policy-binding", "made", &to, publisher])
        .await;
    let wanted = json!([{"role": "roles/pubsub.publisher", "members": [member]}]);
    assert_eq!(bound["bindings"], wanted);
    assert!(may_publish().await);
    let on_subscription = async {
        let subscriber = "--role=roles/pubsub.subscriber";
        gcloud
            .done(&["subscriptions", "add-iam-policy-binding", "pulled", &to, subscriber])
            .await;
        let shown = gcloud.done(&["subscriptions", "get-iam-policy", "pulled"]).await;
        let wanted = json!([{"role": "roles/pubsub.subscriber", "members": [member]}]);
        assert_eq!(shown["bindings"], wanted);
    };
    let on_topic = async {
        assert_eq!(gcloud.done(&["topics", "get-iam-policy", "made"]).await, bound);
        gcloud
            .done(&["topics", "remove-iam-policy-binding", "made", &to, publisher])
            .await;
        assert!(!may_publish().await);
        // A policy from a file, as read before: another was set since.
        let file = gcloud.place.path().join("policy.json");
        std::fs::write(&file, bound.to_string()).unwrap();
        let set = ["topics", "set-iam-policy", "made", file.to_str().unwrap()];
        gcloud.refused(&set, "concurrent policy changes").await;
    };
    let refusals = async {
        let unknown = [
            "topics",
            "add-iam-policy-binding",
            "made",
            &to,
            "--role=roles/storage.admin",
        ];
        gcloud.refused(&unknown, "is not supported for this resource").await;
        let nowhere = ["topics", "get-iam-policy", "missing"];
        gcloud.refused(&nowhere, "Resource not found (resource=missing).").await;
        let shown = gcloud.done(&["topics", "get-iam-policy", "results"]).await;
        assert_eq!(shown["bindings"], wanted, "what the deployment binds");
    };
    tokio::join!(on_subscription, on_topic, refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn gclouds_commands_on_snapshots_work_unchanged() {
    let cloud = cloud().await;
    let Some(gcloud) = Gcloud::of(&cloud) else { return };
    cloud.create_topic("made").unwrap();
    let wanted = Subscription {
        name: "pulled",
        topic: "made",
        ..Subscription::default()
    };
    let pulled = cloud.create_subscription(&wanted).unwrap();
    let id = published(&cloud, "made", "one", &[]);
    let create = ["snapshots", "create", "before", "--subscription=pulled", "--labels=a=b"];
    gcloud.done(&create).await;
    cloud.receive(&pulled, 1).await.unwrap();
    assert_eq!(cloud.backlog(&pulled).unwrap(), 0);
    gcloud
        .done(&["subscriptions", "seek", "pulled", "--snapshot=before"])
        .await;
    let again = cloud.receive(&pulled, 1).await.unwrap().remove(0);
    assert_eq!(again["message"]["messageId"], id);
    let name = "projects/local-project/snapshots/before";
    let described = gcloud.done(&["snapshots", "describe", "before"]).await;
    assert_eq!(
        (&described["name"], &described["topic"]),
        (&json!(name), &json!(topic("made")))
    );
    let listed = gcloud.done(&["snapshots", "list"]).await;
    assert_eq!(
        (&listed[0]["name"], &listed[0]["labels"]),
        (&json!(name), &json!({"a": "b"})),
        "{listed}"
    );
    let nowhere = ["subscriptions", "seek", "pulled", "--snapshot=missing"];
    gcloud
        .refused(&nowhere, "NOT_FOUND: Resource not found (resource=missing).")
        .await;
    gcloud.done(&["snapshots", "delete", "before"]).await;
    gcloud.refused(&["snapshots", "describe", "before"], "NOT_FOUND").await;
}

/// What an endpoint was pushed: headers and body.
type Pushes = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

async fn endpoint() -> (String, Pushes) {
    let pushes = Pushes::default();
    let heard = Arc::clone(&pushes);
    let router = Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
        heard.lock().unwrap().push((headers, body));
        StatusCode::NO_CONTENT
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, pushes)
}

/// The claims of a push's token; they were signed by this cloud, as other tests check.
fn claims(headers: &HeaderMap) -> Value {
    use base64::Engine as _;
    let token = headers["authorization"]
        .to_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gclouds_commands_on_push_subscriptions_work_unchanged() {
    let cloud = cloud().await;
    let Some(gcloud) = Gcloud::of(&cloud) else { return };
    cloud.create_topic("made").unwrap();
    let account = &cloud.settings().push_service_account;
    let as_account = format!("--push-auth-service-account={account}");
    let (url, pushes) = endpoint().await;
    let to = format!("--push-endpoint={url}");
    let next = async |what: &str, number: usize| until(what, || pushes.lock().unwrap().get(number).cloned()).await;

    let create = [
        "subscriptions",
        "create",
        "pushed",
        "--topic=made",
        &to,
        &as_account,
        "--push-auth-token-audience=https://worker",
        "--push-no-wrapper",
        "--push-no-wrapper-write-metadata",
    ];
    gcloud.done(&create).await;
    let id = published(&cloud, "made", "bare", &[("a", "b")]);
    let (headers, body) = next("the bare push", 0).await;
    assert_eq!((&body[..], headers["a"].to_str().unwrap()), (&b"bare"[..], "b"));
    assert_eq!(headers["x-goog-pubsub-message-id"].to_str().unwrap(), id);
    let said = claims(&headers);
    assert_eq!(
        (&said["aud"], &said["email"]),
        (&json!("https://worker"), &json!(account))
    );
    let pull = ["subscriptions", "pull", "pushed"];
    gcloud
        .refused(
            &pull,
            "FAILED_PRECONDITION: This method is not supported for this subscription type.",
        )
        .await;

    gcloud
        .done(&["subscriptions", "modify-push-config", "pushed", &to, &as_account])
        .await;
    let id = published(&cloud, "made", "wrapped", &[]);
    let (headers, body) = next("the wrapped push", 1).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (
            &body["message"]["messageId"],
            &body["message"]["data"],
            &body["subscription"]
        ),
        (&json!(id), &json!("d3JhcHBlZA=="), &json!(subscription("pushed")))
    );
    assert_eq!(claims(&headers)["aud"], url, "the endpoint, where nothing else is said");

    let nobody = [
        "subscriptions",
        "modify-push-config",
        "pushed",
        &to,
        "--push-auth-service-account=nobody@example.com",
    ];
    gcloud.refused(&nobody, "INVALID_ARGUMENT").await;
    gcloud
        .done(&["subscriptions", "modify-push-config", "pushed", "--push-endpoint="])
        .await;
    published(&cloud, "made", "pulled", &[]);
    let pulled = gcloud.done(&["subscriptions", "pull", "pushed", "--auto-ack"]).await;
    assert_eq!(pulled[0]["message"]["data"], "cHVsbGVk");
    assert_eq!(pushes.lock().unwrap().len(), 2);
}
