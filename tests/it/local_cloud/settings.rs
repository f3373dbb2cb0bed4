//! Settings of topics and subscriptions: how a client may spell them, and that changes at the same time are all made.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Fixture, answer, done};

const TOPIC: &str = "projects/local-project/topics/topic";

#[tokio::test]
async fn bodies_are_read_as_protobufs_json_is() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_topic("topic").unwrap();
    let made = json!({
        "topic": TOPIC, "ack_deadline_seconds": "20", "labels": {"snake_case": "kept"}, "filter": null,
        "dead_letter_policy": {"dead_letter_topic": TOPIC, "max_delivery_attempts": 7}, "retryPolicy": null,
        "push_config": {"push_endpoint": null},
    });
    let made = done(&cloud, Method::PUT, "subscriptions/made", made).await;
    assert_eq!(made["ackDeadlineSeconds"], 20);
    assert_eq!(made["labels"], json!({"snake_case": "kept"}));
    assert_eq!(made["deadLetterPolicy"]["maxDeliveryAttempts"], 7);
    assert_eq!(made["pushConfig"], json!({}));
    let change =
        json!({"subscription": {"dead_letter_policy": null}, "update_mask": "deadLetterPolicy,ack_deadline_seconds"});
    let changed = done(&cloud, Method::PATCH, "subscriptions/made", change).await;
    assert_eq!(
        (&changed["deadLetterPolicy"], &changed["ackDeadlineSeconds"]),
        (&Value::Null, &json!(10))
    );
    let message =
        json!({"data": "eA==", "ordering_key": "key", "attributes": {"snake_case": "kept"}, "message_id": null});
    done(
        &cloud,
        Method::POST,
        "topics/topic:publish",
        json!({"messages": [message]}),
    )
    .await;
    let pull = json!({"max_messages": "1", "return_immediately": true});
    let pulled = done(&cloud, Method::POST, "subscriptions/made:pull", pull).await;
    let message = &pulled["receivedMessages"][0]["message"];
    assert_eq!(
        (&message["orderingKey"], &message["attributes"]),
        (&json!("key"), &json!({"snake_case": "kept"}))
    );
    for body in [
        json!({"topic": TOPIC, "colour_of": "red"}),
        json!({"topic": TOPIC, "ackDeadlineSeconds": "twenty"}),
        json!({"topic": TOPIC, "labels": {"a": null}}),
        json!({}),
        json!({"topic": "topic"}),
    ] {
        let request = cloud.put(cloud.pubsub("subscriptions/bad")).json(&body);
        let (status, refusal) = answer(request).await;
        assert_eq!(
            (status.as_u16(), &refusal["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_of_different_settings_at_the_same_time_are_all_made() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_topic("topic").unwrap();
    done(&cloud, Method::PUT, "subscriptions/made", json!({"topic": TOPIC})).await;
    let changes = async |member: &str, value: fn(u32) -> Value| {
        for number in 0..400 {
            let change = json!({"subscription": {member: value(number)}, "updateMask": member});
            done(&cloud, Method::PATCH, "subscriptions/made", change).await;
            let now = done(&cloud, Method::GET, "subscriptions/made", json!({})).await;
            assert_eq!(now[member], value(number), "change {number}");
        }
    };
    tokio::join!(
        changes("labels", |number| json!({"number": number.to_string()})),
        changes("ackDeadlineSeconds", |number| json!(10 + number)),
        changes("messageRetentionDuration", |number| json!(format!("{}s", 600 + number))),
    );
}

#[tokio::test]
async fn what_nobody_pulls_is_forgotten_when_it_is_too_old() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_topic("topic").unwrap();
    let brief = json!({"topic": TOPIC, "messageRetentionDuration": "600s"});
    done(&cloud, Method::PUT, "subscriptions/made", brief).await;
    cloud.cloud.publish("topic", b"old", &[]).unwrap();
    cloud.cloud.clock().advance(chrono::TimeDelta::seconds(601));
    cloud.cloud.publish("topic", b"new", &[]).unwrap();
    let name = "projects/local-project/subscriptions/made";
    assert_eq!(cloud.cloud.backlog(name).unwrap(), 1);
}
