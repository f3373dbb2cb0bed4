//! `platen redrive`: real dead letters of a real worker, published again once their cause is mended.

use std::collections::HashMap;
use std::process::Output;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{Effect, Fault, LocalCloud, Peer, Subscription};
use serde_json::{Value, json};

use crate::credentials::{person, platen, stderr};
use crate::harness::{self, AUDIENCE, INPUT, USER, World, client, gives_up, until};
use crate::peer::{Peer as Stand, Reply};

const DEAD: &str = "projects/local-project/subscriptions/dead-letters";

/// A dead-letter topic with a subscription, and one that sees what is published as jobs.
fn graves(cloud: &LocalCloud) {
    cloud.create_topic("dead").unwrap();
    for (name, topic) in [("dead-letters", "dead"), ("seen", "events")] {
        cloud
            .create_subscription(&Subscription {
                name,
                topic,
                ack_deadline_seconds: Some(600),
                ..Subscription::default()
            })
            .unwrap();
    }
}

async fn call(cloud: &LocalCloud, resource: &str, verb: &str, body: &Value) -> Value {
    let url = format!("{}/v1/projects/local-project/{resource}:{verb}", cloud.urls().pubsub);
    let request = client().post(url).bearer_auth(cloud.access_token(USER)).json(body);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// What is there, acknowledged.
async fn pulled(cloud: &LocalCloud, subscription: &str) -> Vec<Value> {
    let resource = format!("subscriptions/{subscription}");
    let mut messages = Vec::new();
    loop {
        let all = json!({"maxMessages": 1000, "returnImmediately": true});
        let answer = call(cloud, &resource, "pull", &all).await;
        let Some(received) = answer["receivedMessages"].as_array() else {
            return messages;
        };
        let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
        call(cloud, &resource, "acknowledge", &json!({"ackIds": ids})).await;
        messages.extend(received.iter().map(|message| message["message"].clone()));
    }
}

fn dead(cloud: &LocalCloud) -> usize {
    cloud.backlog(DEAD).unwrap()
}

async fn redrive(cloud: &LocalCloud, arguments: &[&str]) -> Output {
    let arguments = [&["redrive", "--from", "dead-letters", "--topic", "events"], arguments].concat();
    let (_file, environment) = person(cloud);
    platen(&arguments, &environment).await
}

#[track_caller]
fn succeeded(output: &Output, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
}

fn fault(path_prefix: &str, skip: u32, count: u32, status: u16) -> Fault {
    Fault {
        peer: None,
        method: None,
        path_prefix: path_prefix.to_owned(),
        skip,
        count,
        effect: Effect::Status {
            status,
            retry_after: None,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_converted_once_its_cause_is_mended() {
    let world = World::start().await;
    let cloud = &world.cloud;
    graves(cloud);
    cloud.create_topic("mortal").unwrap();
    cloud
        .create_subscription(&Subscription {
            name: "with-dead-letter",
            topic: "mortal",
            push_endpoint: Some(&world.worker.url),
            audience: Some(AUDIENCE),
            service_account: Some(&cloud.settings().push_service_account),
            ack_deadline_seconds: Some(600),
            dead_letter: Some(("dead", 5)),
            ..Subscription::default()
        })
        .unwrap();
    gives_up(
        cloud,
        "projects/local-project/subscriptions/with-dead-letter",
        "projects/local-project/topics/dead",
    );
    world
        .upload_fixture("documents/plain/invoice.docx", "a/invoice.docx")
        .await;
    cloud.add_fault(Fault {
        peer: Some(Peer::Storage),
        method: Some("GET".to_owned()),
        ..fault("/storage/v1/b/input/", 0, Fault::ENDLESS, 403)
    });
    let job = json!({"source": format!("gs://{INPUT}/a/invoice.docx"), "userData": {"ticket": 4711}});
    let message = json!({"data": STANDARD.encode(job.to_string()), "attributes": {"mine": "kept"}});
    call(cloud, "topics/mortal", "publish", &json!({"messages": [message]})).await;
    let exhausted = world.result().await;
    assert_eq!(exhausted.data["error"]["code"], "attempts.exhausted");
    until("it is a dead letter", || (dead(cloud) == 1).then_some(())).await;

    let looked = redrive(cloud, &["--dry-run"]).await;
    succeeded(&looked, &["1 would be published"]);
    let line: Value = serde_json::from_slice(&looked.stdout).unwrap();
    assert_eq!(line["source"], job["source"]);
    assert_eq!(
        (&line["subscription"], &line["deliveries"]),
        (&json!("with-dead-letter"), &json!(5))
    );
    assert!(!line.to_string().contains("4711"), "{line}");
    assert!(dead(cloud) == 1 && pulled(cloud, "seen").await.is_empty());

    cloud.clear_faults();
    let output = redrive(cloud, &[]).await;
    succeeded(&output, &["1 published to projects/local-project/topics/events"]);
    let result = world.result().await;
    assert_eq!(result.data["status"], "succeeded", "{}", result.data);
    assert_eq!(result.data["userData"], job["userData"]);
    assert_eq!(dead(cloud), 0);
    let seen = pulled(cloud, "seen").await;
    assert_eq!(seen[0]["attributes"], json!({"mine": "kept"}));
    succeeded(&redrive(cloud, &[]).await, &["0 published"]);
}

/// Dead letters as Pub/Sub makes them, without a worker.
async fn bury(cloud: &LocalCloud, messages: &[Value]) {
    call(cloud, "topics/dead", "publish", &json!({"messages": messages})).await;
}

fn letter(number: usize) -> Value {
    json!({
        "data": STANDARD.encode([0xff, 0, u8::try_from(number).unwrap()]), "orderingKey": "key",
        "attributes": {
            "number": number.to_string(),
            "CloudPubSubDeadLetterSourceDeliveryCount": "5", "CloudPubSubDeadLetterSourceSubscription": "s",
            "CloudPubSubDeadLetterSourceSubscriptionProject": "p", "CloudPubSubDeadLetterSourceTopicPublishTime": "t",
        },
    })
}

fn letters(range: std::ops::Range<usize>) -> Vec<Value> {
    range.map(letter).collect()
}

#[tokio::test]
async fn each_is_published_once_and_acknowledged_after_that() {
    let cloud = harness::cloud().await;
    graves(&cloud);
    bury(&cloud, &letters(0..250)).await;
    succeeded(&redrive(&cloud, &["--limit", "120"]).await, &["120 published"]);
    assert_eq!(dead(&cloud), 130);
    // Refused, it is there still, and the sentence says what is missing.
    cloud.add_fault(fault("/v1/projects/local-project/topics/events:publish", 1, 1, 403));
    let output = redrive(&cloud, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("roles/pubsub.publisher: gcloud pubsub topics"),
        "{}",
        stderr(&output)
    );
    assert_eq!(dead(&cloud), 30);
    // Published, and the acknowledgement is lost: it comes again, and is not lost.
    cloud.add_fault(fault(&format!("/v1/{DEAD}:acknowledge"), 0, 1, 403));
    succeeded(
        &redrive(&cloud, &[]).await,
        &["30 published", "could not be acknowledged"],
    );
    assert_eq!(dead(&cloud), 30);

    let mut times = HashMap::new();
    for message in pulled(&cloud, "seen").await {
        let number: usize = message["attributes"]["number"].as_str().unwrap().parse().unwrap();
        assert_eq!(message["data"], letter(number)["data"]);
        assert_eq!(message["orderingKey"], "key");
        assert_eq!(message["attributes"], json!({"number": number.to_string()}));
        *times.entry(number).or_insert(0) += 1;
    }
    assert_eq!(times.len(), 250);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
}

/// A Pub/Sub that answers as the real one may: with nothing though something is there, with what is newer before what is
/// older, and with a message again whose acknowledgement it has lost.
#[tokio::test]
async fn what_comes_again_is_acknowledged_and_an_empty_answer_is_not_the_end() {
    let pulls = Mutex::new(0);
    let pubsub = Stand::start(move |request, _| {
        let received = |id: &str, lease: &str, year: u32| {
            let time = format!("{year}-01-01T00:00:00Z");
            json!({"ackId": lease, "message": {"messageId": id, "publishTime": time, "data": "eA=="}})
        };
        if request.target.ends_with(":publish") {
            return Reply::json(200, json!({"messageIds": ["1"]}));
        }
        if !request.target.ends_with(":pull") {
            return Reply::json(200, json!({}));
        }
        let mut pulls = pulls.lock().unwrap();
        *pulls += 1;
        let messages = match *pulls {
            2 => json!([received("new", "new-1", 2999)]),
            3 => json!([received("old", "old-1", 2020)]),
            4 => json!([received("old", "old-2", 2020)]),
            _ => json!([]),
        };
        Reply::json(200, json!({"receivedMessages": messages}))
    });
    let environment = HashMap::from([
        ("PUBSUB_EMULATOR_HOST".to_owned(), pubsub.url.clone()),
        ("GOOGLE_CLOUD_PROJECT".to_owned(), "local-project".to_owned()),
    ]);
    let output = platen(
        &["redrive", "--from", "dead-letters", "--topic", "events"],
        &environment,
    )
    .await;
    succeeded(&output, &["1 published", "1 came after this began"]);
    let said = |verb: &str| -> Vec<Value> {
        let requests = pubsub.requests();
        let of_verb = requests.iter().filter(|request| request.target.ends_with(verb));
        of_verb.map(|request| request.json()["ackIds"].clone()).collect()
    };
    assert_eq!(said(":publish").len(), 1, "it is published once");
    assert_eq!(said(":acknowledge"), [json!(["old-1"]), json!(["old-2"])]);
    assert_eq!(said(":modifyAckDeadline"), [json!(["new-1"])]);
}

#[tokio::test]
async fn what_comes_while_it_runs_waits_for_the_next_run() {
    let cloud = harness::cloud().await;
    graves(&cloud);
    bury(&cloud, &letters(0..2)).await;
    // Whatever is published as a job dies at once.
    cloud
        .create_subscription(&Subscription {
            name: "mortal",
            topic: "events",
            push_endpoint: Some("http://127.0.0.1:9"),
            dead_letter: Some(("dead", 5)),
            ..Subscription::default()
        })
        .unwrap();
    gives_up(
        &cloud,
        "projects/local-project/subscriptions/mortal",
        "projects/local-project/topics/dead",
    );
    cloud.add_fault(Fault {
        effect: Effect::Delay {
            delay_milliseconds: 2000,
        },
        ..fault(&format!("/v1/{DEAD}:acknowledge"), 0, 1, 0)
    });
    let output = redrive(&cloud, &[]).await;
    succeeded(&output, &["2 published"]);
    until("both have died again", || (dead(&cloud) == 2).then_some(())).await;
    assert_eq!(pulled(&cloud, "seen").await.len(), 2);
}

#[tokio::test]
async fn mistakes_are_one_sentence() {
    let cloud = harness::cloud().await;
    graves(&cloud);
    let (_file, environment) = person(&cloud);
    for (arguments, code, words) in [
        (
            &["--from", "a/b", "--topic", "events"][..],
            64,
            "a subscription is projects/PROJECT/subscriptions/NAME",
        ),
        (
            &["--from", "nowhere", "--topic", "events"],
            1,
            "Resource not found (resource=nowhere)",
        ),
        (&["--from", "dead-letters"], 64, "--topic"),
        (
            &["--from", "dead-letters", "--topic", "events", "--limit", "0"],
            64,
            "--limit",
        ),
    ] {
        let output = platen(&[&["redrive"], arguments].concat(), &environment).await;
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
