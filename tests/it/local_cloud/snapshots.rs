//! Snapshots: what a seek to one brings back and what it drops, how long they live, and that they are kept.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Fixture, done, refused};
use crate::local_data;

const TOPIC: &str = "projects/local-project/topics/topic";

fn snapshot(id: &str) -> String {
    format!("projects/local-project/snapshots/{id}")
}

fn subscription(id: &str) -> String {
    format!("projects/local-project/subscriptions/{id}")
}

/// A topic and subscriptions of it: their names and what they have more.
async fn with(subscriptions: &[(&str, Value)]) -> Fixture {
    let cloud = Fixture::start().await;
    cloud.cloud.create_topic("topic").unwrap();
    for (name, more) in subscriptions {
        let mut body = json!({"topic": TOPIC, "ackDeadlineSeconds": 600});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        done(&cloud, Method::PUT, &format!("subscriptions/{name}"), body).await;
    }
    cloud
}

async fn take(cloud: &Fixture, name: &str, id: &str) -> Value {
    let body = json!({"subscription": subscription(name)});
    done(cloud, Method::PUT, &format!("snapshots/{id}"), body).await
}

async fn seek(cloud: &Fixture, name: &str, id: &str) {
    let body = json!({"snapshot": snapshot(id)});
    done(cloud, Method::POST, &format!("subscriptions/{name}:seek"), body).await;
}

async fn seek_to_start(cloud: &Fixture, name: &str) {
    let body = json!({"time": "2020-01-01T00:00:00Z"});
    done(cloud, Method::POST, &format!("subscriptions/{name}:seek"), body).await;
}

/// What a pull gives, and its ack ids.
async fn pull(cloud: &Fixture, name: &str) -> (Vec<String>, Vec<String>) {
    let body = json!({"maxMessages": 100, "returnImmediately": true});
    let pulled = done(cloud, Method::POST, &format!("subscriptions/{name}:pull"), body).await;
    let received = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    received
        .iter()
        .map(|one| (text(&one["message"]["attributes"]["n"]), text(&one["ackId"])))
        .unzip()
}

async fn acknowledge(cloud: &Fixture, name: &str, ids: &[String]) {
    let path = format!("subscriptions/{name}:acknowledge");
    done(cloud, Method::POST, &path, json!({"ackIds": ids})).await;
}

fn publish(cloud: &Fixture, n: &str) {
    cloud.cloud.publish("topic", b"x", &[("n", n)]).unwrap();
}

#[tokio::test]
async fn a_seek_to_a_snapshot_makes_undelivered_what_was_so_and_what_came_since() {
    let cloud = with(&[
        ("first", json!({"retainAckedMessages": true})),
        ("second", json!({})),
        ("filtered", json!({"filter": "hasPrefix(attributes.n, \"4\")"})),
    ])
    .await;
    for n in ["1", "2", "3"] {
        publish(&cloud, n);
    }
    let (got, ids) = pull(&cloud, "first").await;
    assert_eq!(got, ["1", "2", "3"]);
    // 2 is acknowledged before the snapshot, 3 after it; 1 is leased.
    acknowledge(&cloud, "first", &ids[1..2]).await;
    take(&cloud, "first", "snap").await;
    acknowledge(&cloud, "first", &ids[2..]).await;
    for n in ["4", "5"] {
        publish(&cloud, n);
    }
    let (got, late) = pull(&cloud, "first").await;
    assert_eq!(got, ["4", "5"]);
    acknowledge(&cloud, "first", &late[..1]).await;
    // Twice: a seek does not use it up.
    for _ in 0..2 {
        seek(&cloud, "first", "snap").await;
        let (got, ids) = pull(&cloud, "first").await;
        assert_eq!(got, ["1", "3", "4", "5"]);
        acknowledge(&cloud, "first", &ids).await;
    }
    // Another subscription of the topic: what it had not acknowledged before the snapshot is so now.
    seek(&cloud, "second", "snap").await;
    assert_eq!(pull(&cloud, "second").await.0, ["1", "3", "4", "5"]);
    seek(&cloud, "filtered", "snap").await;
    assert_eq!(pull(&cloud, "filtered").await.0, ["4"]);
    // What the first retains is all still there, and in its order.
    publish(&cloud, "6");
    seek(&cloud, "first", "snap").await;
    seek_to_start(&cloud, "first").await;
    assert_eq!(pull(&cloud, "first").await.0, ["1", "2", "3", "4", "5", "6"]);
    acknowledge(&cloud, "second", &pull(&cloud, "second").await.1).await;
    seek_to_start(&cloud, "second").await;
    assert_eq!(
        pull(&cloud, "second").await.0,
        Vec::<String>::new(),
        "it retains nothing"
    );
}

#[tokio::test]
async fn an_ack_id_from_before_the_seek_does_nothing() {
    let cloud = with(&[("sub", json!({}))]).await;
    for n in ["1", "2"] {
        publish(&cloud, n);
    }
    take(&cloud, "sub", "snap").await;
    let (_, old) = pull(&cloud, "sub").await;
    seek(&cloud, "sub", "snap").await;
    let (got, new) = pull(&cloud, "sub").await;
    assert_eq!(got, ["1", "2"]);
    acknowledge(&cloud, "sub", &old).await;
    assert_eq!(cloud.cloud.backlog(&subscription("sub")).unwrap(), 2);
    acknowledge(&cloud, "sub", &new).await;
    assert_eq!(cloud.cloud.backlog(&subscription("sub")).unwrap(), 0);
}

#[tokio::test]
async fn snapshots_are_made_shown_changed_listed_and_deleted() {
    let cloud = with(&[("sub", json!({}))]).await;
    let body = json!({"subscription": subscription("sub"), "labels": {"a": "b"}});
    let made = done(&cloud, Method::PUT, "snapshots/snap", body.clone()).await;
    assert_eq!(
        (&made["name"], &made["topic"], &made["labels"]),
        (&json!(snapshot("snap")), &json!(TOPIC), &json!({"a": "b"}))
    );
    assert_eq!(done(&cloud, Method::GET, "snapshots/snap", json!({})).await, made);
    take(&cloud, "sub", "another").await;
    let listed = done(&cloud, Method::GET, "snapshots?pageSize=1", json!({})).await;
    assert_eq!(listed["snapshots"][0]["name"], snapshot("another"));
    let next = format!("snapshots?pageToken={}", listed["nextPageToken"].as_str().unwrap());
    let listed = done(&cloud, Method::GET, &next, json!({})).await;
    assert_eq!(listed, json!({"snapshots": [made]}));
    let of_topic = done(&cloud, Method::GET, "topics/topic/snapshots", json!({})).await;
    assert_eq!(of_topic["snapshots"], json!([snapshot("another"), snapshot("snap")]));
    let soon = (cloud.cloud.clock().now() + TimeDelta::hours(2)).to_rfc3339();
    let change = json!({"snapshot": {"labels": {"c": "d"}, "expireTime": soon}, "updateMask": "labels,expire_time"});
    let changed = done(&cloud, Method::PATCH, "snapshots/snap", change).await;
    assert_eq!(changed["labels"], json!({"c": "d"}));
    assert_ne!(changed["expireTime"], made["expireTime"]);
    let far = json!({"snapshot": {"expireTime": "2100-01-01T00:00:00Z"}, "updateMask": "expireTime"});
    for (method, path, body, wanted) in [
        (Method::PUT, "snapshots/snap", body, (409, "ALREADY_EXISTS")),
        (
            Method::PUT,
            "snapshots/ab",
            json!({"subscription": subscription("sub")}),
            (400, "INVALID_ARGUMENT"),
        ),
        (
            Method::PUT,
            "snapshots/new",
            json!({"subscription": subscription("none")}),
            (404, "NOT_FOUND"),
        ),
        (Method::GET, "snapshots/none", json!({}), (404, "NOT_FOUND")),
        (Method::PATCH, "snapshots/snap", far, (400, "INVALID_ARGUMENT")),
        (
            Method::PATCH,
            "snapshots/snap",
            json!({"snapshot": {"topic": "x"}, "updateMask": "topic"}),
            (400, "INVALID_ARGUMENT"),
        ),
        (
            Method::PATCH,
            "snapshots/none",
            json!({"snapshot": {}, "updateMask": "labels"}),
            (404, "NOT_FOUND"),
        ),
        (
            Method::POST,
            "subscriptions/sub:seek",
            json!({"snapshot": snapshot("none")}),
            (404, "NOT_FOUND"),
        ),
        (
            Method::POST,
            "subscriptions/sub:seek",
            json!({"snapshot": "snap"}),
            (400, "INVALID_ARGUMENT"),
        ),
        (
            Method::POST,
            "subscriptions/sub:seek",
            json!({"snapshot": snapshot("snap"), "time": soon}),
            (400, "INVALID_ARGUMENT"),
        ),
        (Method::GET, "topics/none/snapshots", json!({}), (404, "NOT_FOUND")),
    ] {
        let (status, word) = refused(&cloud, method, path, body.clone()).await;
        assert_eq!((status, word.as_str()), wanted, "{path} {body}");
    }
    done(&cloud, Method::DELETE, "snapshots/another", json!({})).await;
    assert_eq!(
        refused(&cloud, Method::DELETE, "snapshots/another", json!({})).await.0,
        404
    );
    cloud.cloud.clock().advance(TimeDelta::hours(3));
    assert_eq!(
        done(&cloud, Method::GET, "snapshots", json!({})).await,
        json!({}),
        "it has expired"
    );
}

#[tokio::test]
async fn a_snapshot_lives_a_week_less_the_age_of_its_backlog_and_is_of_one_topic() {
    let cloud = with(&[("sub", json!({})), ("empty", json!({"filter": "attributes:none"}))]).await;
    publish(&cloud, "1");
    cloud.cloud.clock().advance(TimeDelta::days(3));
    let now = cloud.cloud.clock().now();
    let left = |made: &Value| made["expireTime"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap() - now;
    let made = take(&cloud, "sub", "old").await;
    assert!(left(&made) <= TimeDelta::days(4), "{made}");
    let made = take(&cloud, "empty", "fresh").await;
    assert!(left(&made) > TimeDelta::days(6), "{made}");
    cloud.cloud.clock().advance(TimeDelta::days(4) - TimeDelta::minutes(30));
    let body = json!({"subscription": subscription("sub")});
    assert_eq!(
        refused(&cloud, Method::PUT, "snapshots/late", body).await,
        (400, "FAILED_PRECONDITION".to_owned())
    );
    // A topic that is made again is another one.
    done(&cloud, Method::DELETE, "topics/topic", json!({})).await;
    cloud.cloud.create_topic("topic").unwrap();
    done(&cloud, Method::PUT, "subscriptions/new", json!({"topic": TOPIC})).await;
    let body = json!({"snapshot": snapshot("fresh")});
    assert_eq!(
        refused(&cloud, Method::POST, "subscriptions/new:seek", body).await,
        (400, "FAILED_PRECONDITION".to_owned())
    );
}

#[tokio::test]
async fn snapshots_and_where_a_seek_to_one_led_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let cloud = local_data::cloud(directory.path()).await;
        let token = cloud.access_token(&cloud.settings().worker_service_account);
        Fixture {
            token,
            http: crate::harness::client(),
            cloud,
        }
    };
    let cloud = start().await;
    cloud.cloud.create_topic("topic").unwrap();
    done(&cloud, Method::PUT, "subscriptions/sub", json!({"topic": TOPIC})).await;
    publish(&cloud, "1");
    let made = take(&cloud, "sub", "snap").await;
    take(&cloud, "sub", "gone").await;
    done(&cloud, Method::DELETE, "snapshots/gone", json!({})).await;
    publish(&cloud, "2");
    let (_, ids) = pull(&cloud, "sub").await;
    acknowledge(&cloud, "sub", &ids).await;
    drop(cloud);

    let cloud = start().await;
    let listed = done(&cloud, Method::GET, "snapshots", json!({})).await;
    assert_eq!(listed, json!({"snapshots": [made]}));
    publish(&cloud, "3");
    assert_eq!(cloud.cloud.backlog(&subscription("sub")).unwrap(), 1);
    seek(&cloud, "sub", "snap").await;
    drop(cloud);

    let cloud = start().await;
    publish(&cloud, "4");
    let (got, ids) = pull(&cloud, "sub").await;
    assert_eq!(got, ["1", "2", "3", "4"]);
    acknowledge(&cloud, "sub", &ids).await;
    assert_eq!(cloud.cloud.backlog(&subscription("sub")).unwrap(), 0);
}
