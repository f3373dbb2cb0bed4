//! How a deployment is set up, as far as whoever asks may see it.

use platen::local_cloud::{AccountRole, Subscription};
use serde_json::json;

use super::{deployed, doctor, let_look, push};
use crate::harness::{cloud, environment};
use crate::peer::{Peer, Reply};

/// What the push subscription is named in lines.
const PUSH: &str = "projects/local-project/subscriptions/push";

/// With `DOCTOR=yes` the worker sees how everything is set up, and finds the subscription by itself.
#[tokio::test]
async fn settings_are_looked_at_where_the_worker_may() {
    let cloud = deployed(&push()).await;
    let_look(&cloud);
    let mut variables = environment(&cloud);
    variables.insert("MAX_DELIVERY_ATTEMPTS".to_owned(), "20".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    let topics = "projects/local-project/topics";
    let subscriptions = "projects/local-project/subscriptions";
    let seen: Vec<&str> = said
        .lines("ok")
        .into_iter()
        .filter_map(|line| line.strip_prefix("(operator) "))
        .collect();
    assert_eq!(
        seen,
        [
            "access to gs://input: uniform, never public".to_owned(),
            "access to gs://output: uniform, never public".to_owned(),
            format!("notifications of gs://input: uploads go to {topics}/events"),
            format!("token of pushes by {PUSH}"),
            format!("ack deadline of {PUSH}"),
            format!("retry policy of {PUSH}"),
            format!("dead letters of {PUSH}"),
            format!("a subscription on {topics}/dead-letters (dead letters): {subscriptions}/letters"),
            format!("a subscription on {topics}/results (results): {subscriptions}/results"),
        ]
    );
    assert_eq!(said.lines("unseen").len(), 1, "{said}");
    // Cloud Run takes a token that is for its own address, and the pushes go elsewhere.
    variables.insert("PUSH_AUTH".to_owned(), "cloud-run-iam".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    let audience = said.line("warning", &format!("(operator) token of pushes by {PUSH}: "));
    assert!(audience.contains("it is for https://worker.example"), "{said}");
}

/// What is seen to be wrong fails the run, with the command that mends it.
#[tokio::test]
async fn a_push_subscription_that_does_not_fit_is_wrong() {
    let wrong = Subscription {
        audience: Some("https://other.example"),
        service_account: Some("signer@local-project.iam.gserviceaccount.com"),
        ack_deadline_seconds: Some(60),
        retry_seconds: None,
        dead_letter: None,
        ..push()
    };
    let cloud = deployed(&wrong).await;
    let_look(&cloud);
    cloud.create_topic("lonely").unwrap();
    let lonely = "topic/projects/local-project/topics/lonely";
    for permission in ["pubsub.topics.publish", "pubsub.topics.get"] {
        cloud.give("worker", permission, lonely);
    }
    let mut variables = environment(&cloud);
    variables.insert("RESULT_TOPIC".to_owned(), "lonely".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    let update = format!("gcloud pubsub subscriptions update {PUSH}");
    let token = said.line("wrong", &format!("(operator) token of pushes by {PUSH}: "));
    for words in [
        "it is of signer@local-project.iam.gserviceaccount.com, and PUSH_SERVICE_ACCOUNT is push@local-project",
        "it is for https://other.example, and PUSH_AUDIENCE is https://worker.example",
        &format!(
            "{update} --push-endpoint=http://127.0.0.1:9/ \
             --push-auth-service-account=push@local-project.iam.gserviceaccount.com \
             --push-auth-token-audience=https://worker.example"
        ),
    ] {
        assert!(token.contains(words), "{words}\n{said}");
    }
    let deadline = said.line("wrong", &format!("(operator) ack deadline of {PUSH}: "));
    assert!(deadline.contains("it is 60 s, and ACK_DEADLINE is 600 s"), "{said}");
    assert!(deadline.ends_with(&format!("{update} --ack-deadline=600")), "{said}");
    let letters = said.line("wrong", &format!("(operator) dead letters of {PUSH}: "));
    assert!(letters.contains("--dead-letter-topic=TOPIC"), "{said}");
    let results = said.line(
        "wrong",
        "(operator) a subscription on projects/local-project/topics/lonely (results): ",
    );
    assert!(results.contains("gcloud pubsub subscriptions create NAME"), "{said}");
    said.line("warning", &format!("(operator) retry policy of {PUSH}: "));
    assert_eq!(said.lines("wrong").len(), 4, "{said}");
    assert_eq!(said.lines("warning").len(), 1, "{said}");
    assert!(said.lines("missing").is_empty(), "{said}");
}

/// Without notifications the subscription is named; its dead letters are looked for too.
#[tokio::test]
async fn a_subscription_is_named_where_nothing_leads_to_it() {
    let cloud = cloud().await;
    cloud.create_topic("dead-letters").unwrap();
    cloud.create_subscription(&push()).unwrap();
    let_look(&cloud);
    let mut variables = environment(&cloud);
    variables.insert("MAX_DELIVERY_ATTEMPTS".to_owned(), "10".to_owned());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(0), "{said}");
    said.line("warning", "(operator) notifications of gs://input: ");
    said.line("unseen", "(operator) push subscription: ");
    for name in ["push", PUSH] {
        let said = doctor(&variables, &["--subscription", name]).await;
        assert_eq!(said.code, Some(1), "{said}");
        let letters = said.line("wrong", &format!("(operator) dead letters of {PUSH}: "));
        assert!(
            letters.contains("after 20 deliveries, and MAX_DELIVERY_ATTEMPTS is 10"),
            "{said}"
        );
        let lost =
            "(operator) a subscription on projects/local-project/topics/dead-letters (dead letters): there is none";
        said.line("wrong", lost);
    }
    // Whether there is one of another name nobody tells the worker, until it may ask.
    let nothing = "(operator) push subscription projects/local-project/subscriptions/nothing: ";
    let said = doctor(&variables, &["--subscription", "nothing"]).await;
    assert_eq!(said.code, Some(0), "{said}");
    assert!(
        said.line("unseen", nothing).contains("pubsub.subscriptions.get"),
        "{said}"
    );
    let resource = "subscription/projects/local-project/subscriptions/nothing";
    cloud.give("worker", "pubsub.subscriptions.get", resource);
    let said = doctor(&variables, &["--subscription", "nothing"]).await;
    assert_eq!(said.code, Some(1), "{said}");
    said.line("wrong", nothing);
}

/// An operator checks the worker's rights with the worker's, and looks at the rest with their own.
#[tokio::test]
async fn an_operator_who_impersonates_the_worker_sees_more() {
    let cloud = deployed(&push()).await;
    let worker = cloud.settings().worker_service_account.clone();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("adc.json");
    std::fs::write(&file, cloud.log_in("ann@example.com").to_string()).unwrap();
    let mut variables = environment(&cloud);
    variables.insert("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), file.display().to_string());
    let said = doctor(&variables, &["--impersonate", &worker]).await;
    assert_eq!(said.code, Some(1), "{said}");
    let refused = said.line("wrong", "get an access token: ");
    assert!(refused.contains("roles/iam.serviceAccountTokenCreator"), "{said}");
    assert_eq!(said.out.lines().count(), 2, "{said}");

    cloud.grant("ann@example.com", &worker, AccountRole::TokenCreator);
    let said = doctor(&variables, &["--impersonate", &worker]).await;
    assert_eq!(said.code, Some(0), "{said}");
    let first = format!("checking as serviceAccount:{worker}, from {worker}, impersonated with ");
    assert!(said.out.starts_with(&first), "{said}");
    said.line("ok", &format!("(operator) token of pushes by {PUSH}"));
    // Its rights are not the operator's.
    assert!(cloud.take_away("worker", "storage.objects.get", "bucket/input"));
    let said = doctor(&variables, &["--impersonate", &worker]).await;
    assert_eq!(said.code, Some(1), "{said}");
    said.line("missing", "read documents of gs://input: ");

    // Whoever impersonates the signer signs by another right than the signer itself would.
    variables.remove("SIGNER_SERVICE_ACCOUNT");
    let said = doctor(&variables, &["--impersonate", &worker]).await;
    said.line("unseen", &format!("sign URLs as {worker}: not tried"));
}

/// Buckets that are open to more than they should be, and one that does not tell what is not there.
#[tokio::test]
async fn a_bucket_that_is_set_up_otherwise_is_told() {
    let cloud = deployed(&push()).await;
    let storage = Peer::start(|request, _| match (&*request.method, &*request.target) {
        ("GET", "/storage/v1/b/input") => Reply::json(
            200,
            json!({"iamConfiguration": {
                "uniformBucketLevelAccess": {"enabled": true}, "publicAccessPrevention": "inherited"
            }}),
        ),
        ("GET", "/storage/v1/b/output") => Reply::json(200, json!({})),
        ("GET", target) if target.starts_with("/storage/v1/b/input/o/") => {
            let message = "worker does not have storage.objects.list access to the Google Cloud Storage bucket.";
            Reply::json(403, json!({"error": {"code": 403, "message": message}}))
        }
        _ => Reply::json(
            404,
            json!({"error": {"code": 404, "message": "The specified bucket does not exist."}}),
        ),
    });
    let mut variables = environment(&cloud);
    variables.insert("STORAGE_EMULATOR_HOST".to_owned(), storage.url.clone());
    let said = doctor(&variables, &[]).await;
    assert_eq!(said.code, Some(1), "{said}");
    // To who may not list, a 403 may stand for what is not there.
    said.line("ok", "read documents of gs://input");
    let input = said.line("wrong", "(operator) access to gs://input: ");
    assert!(
        input.ends_with("buckets update gs://input --public-access-prevention"),
        "{said}"
    );
    let output = said.line("wrong", "(operator) access to gs://output: ");
    let flags = "gs://output --uniform-bucket-level-access --public-access-prevention";
    assert!(output.ends_with(flags), "{said}");
    let gone = said.line("wrong", "replace and remove objects in gs://output: ");
    assert!(gone.contains("See that what it names exists"), "{said}");
}
