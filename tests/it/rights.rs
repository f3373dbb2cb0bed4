//! The worker under exactly the rights that deploy/setup.sh grants: with them everything works, and without any one of them
//! it says which role is missing, keeps the message, and goes on once it is granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use platen::local_cloud::{LocalCloud, Settings, Subscription};
use serde_json::{Value, json};

use crate::doctor::carry_out;
use crate::harness::{AUDIENCE, INPUT, OUTPUT, RESOURCES, World, cloud, environment, job, until, upload_to};

const KEY: &str = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config";

/// The rights that the worker and its signer work with. Those of Google's agents are below, and the rest of the file is about
/// building and deploying, which nothing here does.
#[tokio::test]
async fn the_rights_that_are_enforced_are_those_of_the_file() {
    let cloud = cloud().await;
    let mut rights: Vec<String> = cloud
        .rights()
        .into_iter()
        .map(|(account, permission, resource)| format!("{account} {permission} {resource}"))
        .collect();
    rights.sort();
    assert_eq!(
        rights,
        [
            "pubsub-agent iam.serviceAccounts.getOpenIdToken account/push",
            "pubsub-agent pubsub.snapshots.seek subscription/push",
            "pubsub-agent pubsub.subscriptions.consume subscription/push",
            "pubsub-agent pubsub.topics.attachSubscription subscription/push",
            "pubsub-agent pubsub.topics.publish topic/dead-letter",
            "push run.jobs.run service",
            "push run.routes.invoke service",
            "signer storage.objects.get bucket/output",
            "storage-agent pubsub.topics.publish topic/events",
            "worker cloudkms.cryptoKeyVersions.useToDecrypt key",
            "worker iam.serviceAccounts.signBlob account/signer",
            "worker pubsub.topics.publish topic/results",
            "worker storage.objects.create bucket/output",
            "worker storage.objects.delete bucket/output",
            "worker storage.objects.get bucket/config",
            "worker storage.objects.get bucket/input",
            "worker storage.objects.get bucket/output",
        ]
    );
}

/// What is missing is named once, with who lacks it and the command that gives as much and no more; the push is answered
/// 503, nothing is published, and the command mends it.
async fn missing(permission: &str, resource: &str, on: &str) {
    let mut world = World::unready(&[], None).await;
    world.worker.ready().await;
    // An older generation is converted, so that the next one replaces its PDF.
    world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
    let old = json!({"source": format!("gs://{INPUT}/a.docx")});
    assert_eq!(world.post(&job(&old)).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
    world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
    assert!(
        world.cloud.take_away("worker", permission, resource),
        "{permission} was there"
    );
    let answer = world.post(&job(&old)).await;
    assert_eq!(answer.status(), 503, "{permission}: {}", world.worker.log());
    let worker = world.cloud.settings().worker_service_account.clone();
    let said = format!("serviceAccount:{worker} lacks {permission} on {on}. ");
    // The line may arrive after the answer.
    until("the error is logged", || {
        world.worker.log().contains(&said).then_some(())
    })
    .await;
    let log = world.worker.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(permission)).collect();
    assert_eq!(lines.len(), 1, "{permission}: {lines:#?}");
    let line = lines[0];
    assert!(line.contains("ERROR") && line.contains("503: "), "{line}");
    assert!(!line.contains("..") && !line.contains("WORKER"), "{line}");
    let step = "Deployed by deploy/setup.sh: PROJECT_ID=local-project deploy/setup.sh --only grants. ";
    assert!(line.contains(step), "{line}");
    assert!(world.pull().await.is_none(), "{permission}: something was published");
    let (_, command) = line.split_once("By hand: ").unwrap();
    carry_out(&world.cloud, command);
    assert_eq!(world.post(&job(&old)).await.status(), 204, "{}", world.worker.log());
    assert_eq!(world.result().await.data["status"], "succeeded");
}

#[tokio::test]
async fn without_the_right_to_read_documents() {
    missing("storage.objects.get", "bucket/input", "gs://input").await;
}

#[tokio::test]
async fn without_the_right_to_look_at_outputs() {
    missing("storage.objects.get", "bucket/output", "gs://output").await;
}

#[tokio::test]
async fn without_the_right_to_write_outputs() {
    missing("storage.objects.create", "bucket/output", "gs://output").await;
}

#[tokio::test]
async fn without_the_right_to_replace_outputs() {
    missing("storage.objects.delete", "bucket/output", "gs://output").await;
}

#[tokio::test]
async fn without_the_right_to_sign() {
    let signer = "signer@local-project.iam.gserviceaccount.com";
    missing("iam.serviceAccounts.signBlob", "account/signer", signer).await;
}

#[tokio::test]
async fn without_the_right_to_publish_results() {
    let topic = "projects/local-project/topics/results";
    missing("pubsub.topics.publish", "topic/results", topic).await;
}

/// A flood of refusals is a bounded number of lines also where each is an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_does_not_flood_the_log() {
    let world = World::start().await;
    assert!(world.cloud.take_away("worker", "storage.objects.get", "bucket/input"));
    world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
    let event = job(&json!({"source": format!("gs://{INPUT}/a.docx")}));
    let began = std::time::Instant::now();
    for _ in 0..10 {
        let answers = futures_util::future::join_all((0..40).map(|_| world.post(&event))).await;
        assert!(
            answers
                .iter()
                .all(|answer| [429, 503].contains(&answer.status().as_u16()))
        );
    }
    let periods = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let log = world.worker.log();
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    assert!(errors <= 20 * periods, "{errors} lines in {periods} s");
    assert!(errors > 0, "{log}");
}

/// Where every output has a name of its own, the right to delete is not needed: setup.sh leaves it out.
#[tokio::test]
async fn names_with_a_generation_need_no_right_to_delete() {
    let world = World::with(&[("OUTPUT_NAME", "{stem}-{generation}.{ext}")]).await;
    assert!(
        world
            .cloud
            .take_away("worker", "storage.objects.delete", "bucket/output")
    );
    let envelope = job(&json!({"source": format!("gs://{INPUT}/a.docx")}));
    for outputs in 1..=2 {
        world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
        // The second delivery finds it done.
        for _ in 0..2 {
            assert_eq!(world.post(&envelope).await.status(), 204, "{}", world.worker.log());
            assert_eq!(world.result().await.data["status"], "succeeded");
        }
        assert_eq!(world.outputs().await, outputs);
    }
}

/// The signer's own right is what a link gives: without it the link is there and gives nothing.
#[tokio::test]
async fn without_the_signers_right_links_give_nothing() {
    let world = World::start().await;
    world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
    world
        .post(&job(&json!({"source": format!("gs://{INPUT}/a.docx")})))
        .await;
    let result = world.result().await.data;
    let url = result["outputs"][0]["signedUrl"].as_str().unwrap();
    assert_eq!(world.download(url).await.status(), 200);
    assert!(world.cloud.take_away("signer", "storage.objects.get", "bucket/output"));
    let answer = world.download(url).await;
    assert_eq!(answer.status(), 403);
    let text = answer.text().await.unwrap();
    assert!(
        text.contains("AccessDenied") && text.contains("storage.objects.get"),
        "{text}"
    );
}

/// The sealed configuration needs two more.
#[tokio::test]
async fn without_the_rights_to_the_configuration() {
    for (permission, resource) in [
        ("storage.objects.get", "bucket/config"),
        ("cloudkms.cryptoKeyVersions.useToDecrypt", "key"),
    ] {
        let cloud = cloud().await;
        cloud.create_bucket("config", false).unwrap();
        cloud.rotate_kms_key(KEY).unwrap();
        seal(&cloud).await;
        let mut variables = environment(&cloud);
        variables.insert("CONFIG_OBJECT".to_owned(), "gs://config/worker.enc".to_owned());
        variables.insert("CONFIG_KMS_KEY".to_owned(), KEY.to_owned());
        assert!(cloud.take_away("worker", permission, resource));
        let mut world = World::on(cloud, &variables);
        assert_eq!(world.worker.exit().await, Some(1), "{}", world.worker.log());
        let log = world.worker.log();
        let step = "Deployed by deploy/setup.sh: PROJECT_ID=local-project deploy/setup.sh --only secrets. ";
        assert!(log.contains(step), "{log}");
        let (_, command) = log.split_once("By hand: ").unwrap();
        let World { cloud, .. } = world;
        carry_out(&cloud, command.lines().next().unwrap());
        let mut worker = crate::harness::Worker::spawn(&variables);
        worker.ready().await;
    }
}

/// As an operator does, who is nobody of the policy's.
async fn seal(cloud: &LocalCloud) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let operator = "operator@example.com";
    cloud.create_service_account(operator);
    let answer = crate::harness::client()
        .post(format!("{}/v1/{KEY}:encrypt", cloud.urls().kms))
        .bearer_auth(cloud.access_token(operator))
        .json(&json!({
            "plaintext": STANDARD.encode("{}"),
            "additionalAuthenticatedData": STANDARD.encode("gs://config/worker.enc"),
        }))
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let sealed = STANDARD.decode(answer["ciphertext"].as_str().unwrap()).unwrap();
    upload_to(cloud, "config", "worker.enc", sealed).await;
}

/// Without the right of Google's own accounts nothing reaches the worker, and nothing is lost.
#[tokio::test]
async fn without_the_rights_of_googles_agents_nothing_moves() {
    let world = World::start().await;
    world.notify();
    assert!(
        world
            .cloud
            .take_away("storage-agent", "pubsub.topics.publish", "topic/events")
    );
    world
        .upload_fixture("documents/plain/invoice.docx", "silent.docx")
        .await;
    world
        .cloud
        .give("storage-agent", "pubsub.topics.publish", "topic/events");
    assert!(
        world
            .cloud
            .take_away("pubsub-agent", "iam.serviceAccounts.getOpenIdToken", "account/push")
    );
    world.upload_fixture("documents/plain/invoice.docx", "waits.docx").await;
    assert_eq!(
        world.cloud.backlog(&world.push).unwrap(),
        1,
        "the one that was announced waits"
    );
    world
        .cloud
        .give("pubsub-agent", "iam.serviceAccounts.getOpenIdToken", "account/push");
    assert_eq!(world.result().await.data["source"]["name"], "waits.docx");
    world.acknowledged().await;
    assert!(world.pull().await.is_none(), "nobody heard of the other one");
}

/// Without the push account's right to call, Cloud Run's front door turns the push away before the worker sees it.
#[tokio::test]
async fn without_the_right_to_call_pushes_stay_outside() {
    let world = World::with(&[("PUSH_AUTH", "cloud-run-iam")]).await;
    let push = world.cloud.settings().push_service_account.clone();
    world.cloud.open_front_door(&world.worker.url, &[AUDIENCE], &[&push]);
    world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
    let envelope = job(&json!({"source": format!("gs://{INPUT}/a.docx")})).to_string();
    let through_the_door = || {
        let request = world.http.post(&world.cloud.urls().front_door);
        request
            .header("content-type", "application/json")
            .bearer_auth(world.token())
            .body(envelope.clone())
            .send()
    };
    assert!(world.cloud.take_away("push", "run.routes.invoke", "service"));
    assert_eq!(through_the_door().await.unwrap().status(), 403);
    assert!(world.pull().await.is_none());
    world.cloud.give("push", "run.routes.invoke", "service");
    assert_eq!(through_the_door().await.unwrap().status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
}

/// A dead letter needs both rights of Pub/Sub's agent: without one the message stays.
#[tokio::test]
async fn without_a_right_to_dead_letters_they_stay() {
    for (permission, resource) in [
        ("pubsub.topics.publish", "topic/dead-letter"),
        ("pubsub.subscriptions.consume", "subscription/push"),
    ] {
        let cloud = LocalCloud::start(Settings {
            pubsub_second: Duration::from_millis(1),
            ..Settings::default()
        })
        .await
        .unwrap();
        for topic in ["events", "dead-letters"] {
            cloud.create_topic(topic).unwrap();
        }
        let letters = Subscription {
            name: "letters",
            topic: "dead-letters",
            ..Subscription::default()
        };
        let letters = cloud.create_subscription(&letters).unwrap();
        cloud.enforce(&RESOURCES).unwrap();
        assert!(cloud.take_away("pubsub-agent", permission, resource));
        // Whoever listens here hangs up, which is no acknowledgement, and counts.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let deliveries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&deliveries);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let push = Subscription {
            name: "push",
            topic: "events",
            push_endpoint: Some(&endpoint),
            dead_letter: Some(("dead-letters", 5)),
            ..Subscription::default()
        };
        let push = cloud.create_subscription(&push).unwrap();
        cloud.publish("events", b"poison", &[]).unwrap();
        until("it is delivered more often than the policy says", || {
            (deliveries.load(Ordering::Relaxed) > 12).then_some(())
        })
        .await;
        assert_eq!(cloud.backlog(&letters).unwrap(), 0, "{permission}");
        assert_eq!(cloud.backlog(&push).unwrap(), 1, "{permission}: and is not lost");
        cloud.give("pubsub-agent", permission, resource);
        until("it is forwarded", || {
            (cloud.backlog(&letters).unwrap() == 1).then_some(())
        })
        .await;
    }
}

/// Nobody of the policy may do what it does not grant, however it is asked for.
#[tokio::test]
async fn what_is_not_granted_is_refused_in_googles_words() {
    let cloud = cloud().await;
    upload_to(&cloud, INPUT, "a.txt", b"text".to_vec()).await;
    let (worker, signer) = (
        cloud.settings().worker_service_account.clone(),
        cloud.settings().signer_service_account.clone(),
    );
    let push = cloud.settings().push_service_account.clone();
    let (storage, pubsub) = (cloud.urls().storage.clone(), cloud.urls().pubsub.clone());
    let topic = format!("{pubsub}/v1/projects/local-project/topics/events:publish");
    let pull = format!("{pubsub}/v1/projects/local-project/subscriptions/results:pull");
    let cases = [
        (
            &worker,
            "GET",
            format!("{storage}/storage/v1/b/{INPUT}/o"),
            "storage.objects.list",
        ),
        (
            &worker,
            "DELETE",
            format!("{storage}/storage/v1/b/{INPUT}/o/a.txt"),
            "storage.objects.delete",
        ),
        (
            &worker,
            "PATCH",
            format!("{storage}/storage/v1/b/{OUTPUT}/o/a.txt"),
            "storage.objects.update",
        ),
        (
            &worker,
            "POST",
            format!("{storage}/upload/storage/v1/b/{INPUT}/o?uploadType=media&name=x"),
            "storage.objects.create",
        ),
        (
            &worker,
            "GET",
            format!("{storage}/storage/v1/b/{OUTPUT}"),
            "storage.buckets.get",
        ),
        (&worker, "POST", topic, "User not authorized to perform this action."),
        (&worker, "POST", pull, "User not authorized to perform this action."),
        (
            &signer,
            "GET",
            format!("{storage}/storage/v1/b/{INPUT}/o/a.txt?alt=media"),
            "storage.objects.get",
        ),
        (
            &push,
            "GET",
            format!("{storage}/storage/v1/b/{INPUT}/o/a.txt"),
            "storage.objects.get",
        ),
    ];
    for (who, method, url, words) in cases {
        let answer = crate::harness::client()
            .request(method.parse().unwrap(), &url)
            .bearer_auth(cloud.access_token(who))
            .json(&json!({"maxMessages": 1, "messages": [{"data": "eA=="}]}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 403, "{method} {url}");
        let text = answer.text().await.unwrap();
        assert!(text.contains(words), "{method} {url}: {text}");
    }
}

/// Every cloud of the suite that a worker runs against is held to the policy. The others have no worker.
#[test]
fn every_world_of_the_suite_enforces_the_policy() {
    // What is tested there, which asks with accounts that no deployment has.
    let without_worker = [
        ("clients.rs", "the clients of Google's APIs, one by one"),
        ("credentials/mod.rs", "every kind of credentials"),
        ("credentials/universe.rs", "the metadata server's answers"),
        ("local_cloud/mod.rs", "the local cloud itself"),
        (
            "official/compared.rs",
            "the same calls of the local cloud and of Google's emulator",
        ),
        (
            "submit.rs",
            "a person's command line; the worlds with a worker are the harness's",
        ),
    ];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let (mut places, mut seen) = (vec![root.clone()], Vec::new());
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&place).unwrap_or_default();
        let (starts, enforces) = (concat!("LocalCloud::", "start("), concat!(".enforce(", "&"));
        let started = text.matches(starts).count();
        let name = place.strip_prefix(&root).unwrap().display().to_string();
        if started > 0 && text.matches(enforces).count() < started {
            seen.push(name);
        }
    }
    seen.sort();
    assert_eq!(
        seen,
        without_worker.map(|(name, _)| name),
        "which clouds enforce nothing"
    );
}
