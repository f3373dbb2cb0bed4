//! Pub/Sub REST: what it refuses, and pull.

use platen::local_cloud::Subscription;
use serde_json::{Value, json};

use super::{Fixture, answer, ok};

async fn with_subscription(wanted: Subscription<'_>) -> Fixture {
    let cloud = Fixture::fast().await;
    cloud.cloud.create_topic("topic").unwrap();
    cloud.cloud.create_topic("dead").unwrap();
    cloud
        .cloud
        .create_subscription(&Subscription {
            name: "sub",
            topic: "topic",
            ..wanted
        })
        .unwrap();
    cloud
}

async fn pull(cloud: &Fixture, subscription: &str, most: u32, wait: bool) -> Vec<Value> {
    let url = cloud.pubsub(&format!("subscriptions/{subscription}:pull"));
    let answer = ok(cloud
        .post(url)
        .json(&json!({"maxMessages": most, "returnImmediately": !wait})))
    .await;
    answer["receivedMessages"].as_array().cloned().unwrap_or_default()
}

async fn settle(cloud: &Fixture, verb: &str, received: &Value) {
    let url = cloud.pubsub(&format!("subscriptions/sub:{verb}"));
    let mut body = json!({"ackIds": [received["ackId"]]});
    if verb == "modifyAckDeadline" {
        body["ackDeadlineSeconds"] = json!(0);
    }
    ok(cloud.post(url).json(&body)).await;
}

#[tokio::test]
async fn publish_demands_what_google_demands() {
    let cloud = with_subscription(Subscription::default()).await;
    let publish = async |topic: &str, body: Value| {
        let (status, body) = answer(cloud.post(cloud.pubsub(&format!("topics/{topic}:publish"))).json(&body)).await;
        (status.as_u16(), body)
    };
    let message = |message: Value| json!({"messages": [message]});
    let many: Vec<Value> = vec![json!({"data": "eA=="}); 1001];
    let attributes: serde_json::Map<String, Value> = (0..101).map(|index| (format!("k{index}"), json!("v"))).collect();
    for (what, body) in [
        ("no messages", json!({"messages": []})),
        ("an empty message", message(json!({}))),
        (
            "empty data and attributes",
            message(json!({"data": "", "attributes": {}})),
        ),
        ("bad base64", message(json!({"data": "a"}))),
        ("bad base64 letters", message(json!({"data": "§§§§"}))),
        ("an unknown field", message(json!({"data": "eA==", "body": "x"}))),
        ("1001 messages", json!({"messages": many})),
        ("101 attributes", message(json!({"attributes": attributes}))),
        ("a long key", message(json!({"attributes": {"k".repeat(257): "v"}}))),
        ("an empty key", message(json!({"attributes": {"": "v"}}))),
        ("a reserved key", message(json!({"attributes": {"googclient": "v"}}))),
        ("a long value", message(json!({"attributes": {"k": "v".repeat(1025)}}))),
        (
            "a long ordering key",
            message(json!({"data": "eA==", "orderingKey": "o".repeat(1025)})),
        ),
        ("more than 10 MiB", message(json!({"data": "AAAA".repeat(3_495_254)}))),
    ] {
        let (status, answer) = publish("topic", body).await;
        assert_eq!(
            (status, &answer["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{what}: {answer}"
        );
    }
    assert_eq!(publish("none", message(json!({"data": "eA=="}))).await.0, 404);
    assert_eq!(
        cloud.cloud.backlog("projects/local-project/subscriptions/sub").unwrap(),
        0,
        "nothing refused went in"
    );
    let most = message(json!({"data": "AAAA".repeat(3_495_253)}));
    assert_eq!(publish("topic", most).await.0, 200);
    let (status, answer) = publish(
        "topic",
        json!({"messages": [{"data": "_-8"}, {"attributes": {"k": "v"}}]}),
    )
    .await;
    assert_eq!(
        (status, answer["messageIds"].as_array().map(Vec::len)),
        (200, Some(2)),
        "URL-safe and unpadded is fine"
    );
    let anonymous = cloud
        .http
        .post(cloud.pubsub("topics/topic:publish"))
        .json(&message(json!({"data": "eA=="})));
    assert_eq!(super::answer(anonymous).await.0, 401);
}

#[tokio::test]
async fn names_and_settings_are_checked() {
    let cloud = with_subscription(Subscription::default()).await;
    let topic = json!("projects/local-project/topics/topic");
    for (path, body, status) in [
        ("topics/ab", json!({}), 400),
        ("topics/goog-x", json!({}), 400),
        ("topics/1abc", json!({}), 400),
        ("topics/topic", json!({}), 409),
        ("topics/new-topic", json!({}), 200),
        ("subscriptions/sub", json!({"topic": topic}), 409),
        (
            "subscriptions/one",
            json!({"topic": "projects/local-project/topics/none"}),
            404,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "ackDeadlineSeconds": 9}),
            400,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "ackDeadlineSeconds": 601}),
            400,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "pushConfig": {"pushEndpoint": "ftp://x"}}),
            400,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "retryPolicy": {"minimumBackoff": "601s"}}),
            400,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "retryPolicy": {"minimumBackoff": "9s", "maximumBackoff": "8s"}}),
            400,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "deadLetterPolicy": {"deadLetterTopic": topic, "maxDeliveryAttempts": 4}}),
            400,
        ),
        (
            "subscriptions/two",
            json!({"topic": topic, "deadLetterPolicy": {"deadLetterTopic": "projects/local-project/topics/none"}}),
            404,
        ),
        ("subscriptions/two", json!({"topic": topic, "ackDeadline": 10}), 400),
        (
            "subscriptions/two",
            json!({"topic": topic, "pushConfig": {"pushEndpoint": "http://x", "oidcToken": {"serviceAccountEmail": "x@y"}}}),
            400,
        ),
        ("subscriptions/two", json!({"topic": topic}), 200),
    ] {
        let (got, answer) = answer(cloud.put(cloud.pubsub(path)).json(&body)).await;
        assert_eq!(got, status, "{path} {body}: {answer}");
    }
    let read = ok(cloud.get(cloud.pubsub("subscriptions/two"))).await;
    assert_eq!(
        (&read["ackDeadlineSeconds"], &read["state"]),
        (&json!(10), &json!("ACTIVE"))
    );
    let patch = cloud
        .http
        .patch(cloud.pubsub("subscriptions/two"))
        .bearer_auth(&cloud.token);
    let body = json!({"subscription": {"ackDeadlineSeconds": 60}, "updateMask": "ack_deadline_seconds"});
    assert_eq!(ok(patch.json(&body)).await["ackDeadlineSeconds"], 60);
    let delete = cloud
        .http
        .delete(cloud.pubsub("topics/topic"))
        .bearer_auth(&cloud.token);
    ok(delete).await;
    assert_eq!(
        ok(cloud.get(cloud.pubsub("subscriptions/two"))).await["topic"],
        "_deleted-topic_"
    );
}

#[tokio::test]
async fn pull_waits_redelivers_and_forgets() {
    let cloud = with_subscription(Subscription {
        ack_deadline_seconds: Some(600),
        ..Subscription::default()
    })
    .await;
    assert!(pull(&cloud, "sub", 1, false).await.is_empty());
    let (waited, _) = tokio::join!(pull(&cloud, "sub", 10, true), async {
        cloud.cloud.publish("topic", b"hello", &[("k", "v")]).unwrap()
    });
    let message = &waited[0]["message"];
    assert_eq!(
        (&message["data"], &message["attributes"]),
        (&json!("aGVsbG8="), &json!({"k": "v"}))
    );
    assert_eq!(
        waited[0]["deliveryAttempt"],
        Value::Null,
        "without a dead-letter policy nobody counts"
    );
    assert!(pull(&cloud, "sub", 1, false).await.is_empty(), "it is leased");
    settle(&cloud, "modifyAckDeadline", &waited[0]).await;
    let again = pull(&cloud, "sub", 1, false).await;
    assert_eq!(again[0]["message"]["messageId"], message["messageId"]);
    settle(&cloud, "acknowledge", &waited[0]).await;
    assert_eq!(
        cloud.cloud.backlog("projects/local-project/subscriptions/sub").unwrap(),
        1,
        "that lease is over"
    );
    settle(&cloud, "acknowledge", &again[0]).await;
    assert_eq!(
        cloud.cloud.backlog("projects/local-project/subscriptions/sub").unwrap(),
        0
    );
}

#[tokio::test]
async fn a_lease_that_runs_out_is_a_delivery_that_failed() {
    let cloud = with_subscription(Subscription {
        dead_letter: Some(("dead", 5)),
        ..Subscription::default()
    })
    .await;
    let dead = Subscription {
        name: "dead-sub",
        topic: "dead",
        ..Subscription::default()
    };
    cloud.cloud.create_subscription(&dead).unwrap();
    let id = cloud.cloud.publish("topic", b"poison", &[("k", "v")]).unwrap();
    for attempt in 1..=5 {
        let received = pull(&cloud, "sub", 1, true).await;
        assert_eq!(
            (&received[0]["deliveryAttempt"], &received[0]["message"]["messageId"]),
            (&json!(attempt), &json!(id))
        );
    }
    let (nothing, dead) = tokio::join!(pull(&cloud, "sub", 1, true), pull(&cloud, "dead-sub", 1, true));
    assert!(nothing.is_empty());
    let message = &dead[0]["message"];
    assert_ne!(message["messageId"], json!(id));
    assert_eq!(message["data"], "cG9pc29u");
    let attributes = &message["attributes"];
    for (key, value) in [
        ("Subscription", "sub"),
        ("SubscriptionProject", "local-project"),
        ("DeliveryCount", "5"),
    ] {
        assert_eq!(attributes[format!("CloudPubSubDeadLetterSource{key}")], value);
    }
    assert!(attributes["CloudPubSubDeadLetterSourceTopicPublishTime"].is_string());
    assert_eq!(attributes["k"], "v");
}
