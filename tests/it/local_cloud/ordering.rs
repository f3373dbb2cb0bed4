//! Ordering keys: what is handed out, what waits, and what comes again after a failure.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, http::StatusCode};
use platen::local_cloud::Subscription;
use serde_json::{Value, json};

use super::{Fixture, ok, patiently};

const SUBSCRIPTION: &str = "projects/local-project/subscriptions/sub";

/// A cloud with an ordered subscription.
async fn ordered(wanted: Subscription<'_>) -> Fixture {
    let cloud = Fixture::fast().await;
    for topic in ["topic", "dead"] {
        cloud.cloud.create_topic(topic).unwrap();
    }
    let wanted = Subscription {
        name: "sub",
        topic: "topic",
        ordered: true,
        ack_deadline_seconds: Some(600),
        ..wanted
    };
    cloud.cloud.create_subscription(&wanted).unwrap();
    cloud
}

/// Publishes messages that say their key and number: `a1` has the key `a`, `-1` has none.
async fn publish(cloud: &Fixture, names: &[&str]) {
    let message = |name: &&str| {
        let key = name[..1].trim_start_matches('-');
        json!({"attributes": {"name": name}, "orderingKey": key})
    };
    let messages: Vec<Value> = names.iter().map(message).collect();
    ok(cloud
        .post(cloud.pubsub("topics/topic:publish"))
        .json(&json!({"messages": messages})))
    .await;
}

struct Pulled(Vec<Value>);

impl Pulled {
    fn names(&self) -> Vec<&str> {
        self.0
            .iter()
            .map(|one| one["message"]["attributes"]["name"].as_str().unwrap())
            .collect()
    }

    fn ack_id(&self, name: &str) -> &Value {
        let index = self.names().iter().position(|other| *other == name).unwrap();
        &self.0[index]["ackId"]
    }
}

async fn pull(cloud: &Fixture, most: u32) -> Pulled {
    let request = cloud.post(cloud.pubsub("subscriptions/sub:pull"));
    let pulled = ok(request.json(&json!({"maxMessages": most, "returnImmediately": true}))).await;
    Pulled(pulled["receivedMessages"].as_array().cloned().unwrap_or_default())
}

async fn acknowledge(cloud: &Fixture, ack_id: &Value) {
    let request = cloud.post(cloud.pubsub("subscriptions/sub:acknowledge"));
    ok(request.json(&json!({"ackIds": [ack_id]}))).await;
}

async fn refuse(cloud: &Fixture, ack_id: &Value) {
    let request = cloud.post(cloud.pubsub("subscriptions/sub:modifyAckDeadline"));
    ok(request.json(&json!({"ackIds": [ack_id], "ackDeadlineSeconds": 0}))).await;
}

#[tokio::test]
async fn a_key_comes_in_a_row_and_its_next_when_all_of_that_is_acknowledged() {
    let cloud = ordered(Subscription::default()).await;
    publish(&cloud, &["a1", "a2", "a3", "b1", "-1"]).await;
    let first = pull(&cloud, 2).await;
    assert_eq!(first.names(), ["a1", "a2"]);
    let others = pull(&cloud, 10).await;
    assert_eq!(others.names(), ["b1", "-1"], "a3 waits, other keys do not");
    acknowledge(&cloud, first.ack_id("a2")).await;
    assert_eq!(pull(&cloud, 10).await.names(), Vec::<&str>::new(), "a1 is outstanding");
    acknowledge(&cloud, first.ack_id("a1")).await;
    assert_eq!(pull(&cloud, 10).await.names(), ["a3"]);
    assert_eq!(cloud.cloud.backlog(SUBSCRIPTION).unwrap(), 3, "b1, -1 and a3");
}

#[tokio::test]
async fn what_is_behind_a_failure_comes_again_also_if_it_was_acknowledged() {
    let cloud = ordered(Subscription {
        dead_letter: Some(("dead", 5)),
        ..Subscription::default()
    })
    .await;
    publish(&cloud, &["a1", "a2", "a3", "b1"]).await;
    let first = pull(&cloud, 10).await;
    assert_eq!(first.names(), ["a1", "a2", "a3", "b1"]);
    acknowledge(&cloud, first.ack_id("a2")).await;
    assert_eq!(cloud.cloud.backlog(SUBSCRIPTION).unwrap(), 3);
    refuse(&cloud, first.ack_id("a1")).await;
    assert_eq!(cloud.cloud.backlog(SUBSCRIPTION).unwrap(), 4, "a2 is to be done again");
    acknowledge(&cloud, first.ack_id("a3")).await;
    let again = pull(&cloud, 10).await;
    assert_eq!(
        again.names(),
        ["a1", "a2", "a3"],
        "the acknowledgement of a3 came too late"
    );
    let attempts: Vec<&Value> = again.0.iter().map(|one| &one["deliveryAttempt"]).collect();
    assert_eq!(attempts, [&json!(2), &json!(1), &json!(1)], "only a1 has failed");
    // The middle one fails: what is before it is not touched.
    acknowledge(&cloud, again.ack_id("a3")).await;
    refuse(&cloud, again.ack_id("a2")).await;
    acknowledge(&cloud, again.ack_id("a1")).await;
    let rest = pull(&cloud, 10).await;
    assert_eq!(rest.names(), ["a2", "a3"]);
    for name in ["a2", "a3"] {
        acknowledge(&cloud, rest.ack_id(name)).await;
    }
    acknowledge(&cloud, first.ack_id("b1")).await;
    assert_eq!(cloud.cloud.backlog(SUBSCRIPTION).unwrap(), 0);
}

#[tokio::test]
async fn a_key_goes_on_behind_its_dead_letter() {
    let cloud = ordered(Subscription {
        dead_letter: Some(("dead", 5)),
        ..Subscription::default()
    })
    .await;
    publish(&cloud, &["a1", "a2"]).await;
    for _ in 0..5 {
        let pulled = pull(&cloud, 10).await;
        assert_eq!(pulled.names(), ["a1", "a2"]);
        refuse(&cloud, pulled.ack_id("a1")).await;
    }
    assert_eq!(pull(&cloud, 10).await.names(), ["a2"]);
}

#[tokio::test]
async fn pushes_of_a_key_come_one_at_a_time_and_another_key_passes_it() {
    let (seen, answers) = (Arc::new(Mutex::new(Vec::<String>::new())), Arc::new(Mutex::new(0)));
    let most = Arc::new(Mutex::new(0_usize));
    let (heard, outstanding, highest) = (Arc::clone(&seen), Arc::clone(&answers), Arc::clone(&most));
    let router = Router::new().fallback(async move |body: Bytes| {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let name = body["message"]["attributes"]["name"].as_str().unwrap().to_owned();
        let is_first_of_a = name == "a1" && !heard.lock().unwrap().contains(&name);
        heard.lock().unwrap().push(name.clone());
        if name.starts_with('a') {
            *outstanding.lock().unwrap() += 1;
            let now = *outstanding.lock().unwrap();
            let mut highest = highest.lock().unwrap();
            *highest = now.max(*highest);
        }
        // Others get the time to come, if anything lets them.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        if name.starts_with('a') {
            *outstanding.lock().unwrap() -= 1;
        }
        if is_first_of_a {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::NO_CONTENT
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let cloud = ordered(Subscription {
        push_endpoint: Some(&url),
        ..Subscription::default()
    })
    .await;
    publish(&cloud, &["a1", "a2", "a3", "b1", "b2", "-1"]).await;
    patiently(async {
        while cloud.cloud.backlog(SUBSCRIPTION).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let of = |key: char| -> Vec<String> {
        let seen = seen.lock().unwrap();
        seen.iter().filter(|name| name.starts_with(key)).cloned().collect()
    };
    assert_eq!(of('a'), ["a1", "a1", "a2", "a3"]);
    assert_eq!(of('b'), ["b1", "b2"]);
    assert_eq!(of('-'), ["-1"]);
    assert_eq!(*most.lock().unwrap(), 1);
}
