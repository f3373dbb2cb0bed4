//! Dead letters of subscriptions that are pulled: they are given up without anybody looking, and nothing of them is lost.

use platen::local_cloud::Subscription;
use serde_json::{Value, json};

use super::{Fixture, ok, patiently};

const WATCHES: &str = "projects/local-project/subscriptions/watches";

/// A subscription that is pulled, and one that has its dead letters.
async fn pulled() -> Fixture {
    let cloud = Fixture::fast().await;
    for id in ["topic", "dead"] {
        cloud.cloud.create_topic(id).unwrap();
    }
    for (name, topic, dead_letter) in [("pulled", "topic", Some(("dead", 5))), ("watches", "dead", None)] {
        let wanted = Subscription {
            name,
            topic,
            dead_letter,
            ..Subscription::default()
        };
        cloud.cloud.create_subscription(&wanted).unwrap();
    }
    cloud
}

/// Takes the message; its ack id. It must be this delivery of it.
async fn delivery(cloud: &Fixture, attempt: u32) -> Value {
    let pull = cloud.post(cloud.pubsub("subscriptions/pulled:pull"));
    let pulled = patiently(ok(pull.json(&json!({"maxMessages": 1})))).await;
    let received = &pulled["receivedMessages"][0];
    assert_eq!(received["deliveryAttempt"], attempt, "{pulled}");
    received["ackId"].clone()
}

async fn give_back(cloud: &Fixture, ack_id: &Value) {
    let change = cloud.post(cloud.pubsub("subscriptions/pulled:modifyAckDeadline"));
    ok(change.json(&json!({"ackIds": [ack_id], "ackDeadlineSeconds": 0}))).await;
}

async fn dead(cloud: &Fixture) -> Value {
    patiently(cloud.cloud.receive(WATCHES, 1)).await.unwrap().remove(0)["message"].clone()
}

#[tokio::test]
async fn the_last_nack_is_enough_and_nobody_needs_to_pull_again() {
    let cloud = pulled().await;
    cloud.cloud.publish("topic", b"x", &[]).unwrap();
    for attempt in 1..=5 {
        give_back(&cloud, &delivery(&cloud, attempt).await).await;
    }
    let attributes = dead(&cloud).await["attributes"].take();
    assert_eq!(attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5");
    let name = "projects/local-project/subscriptions/pulled";
    patiently(async {
        while cloud.cloud.backlog(name).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_last_lease_is_enough() {
    let cloud = pulled().await;
    cloud.cloud.publish("topic", b"x", &[]).unwrap();
    for attempt in 1..=4 {
        give_back(&cloud, &delivery(&cloud, attempt).await).await;
    }
    delivery(&cloud, 5).await;
    assert_eq!(dead(&cloud).await["data"], "eA==");
}

#[tokio::test]
async fn a_message_at_the_limits_is_not_lost() {
    let cloud = pulled().await;
    let attributes: Vec<(String, String)> = (0..100)
        .map(|number| (format!("k{number}"), "v".repeat(1024)))
        .collect();
    let attributes: Vec<(&str, &str)> = attributes
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let keys: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    let data = vec![b'x'; 10 * 1024 * 1024 - keys];
    cloud.cloud.publish("topic", &data, &attributes).unwrap();
    for attempt in 1..=5 {
        give_back(&cloud, &delivery(&cloud, attempt).await).await;
    }
    let message = dead(&cloud).await;
    assert_eq!(message["attributes"].as_object().unwrap().len(), 104);
    assert_eq!(message["data"].as_str().unwrap().len(), data.len().div_ceil(3) * 4);
}
