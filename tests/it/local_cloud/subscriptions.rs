//! What is done to topics and subscriptions after they are made: update, page through, seek, detach; and how long messages are kept.

use chrono::{SecondsFormat, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Fixture, done, ok, patiently, refused};

const TOPIC: &str = "projects/local-project/topics/topic";

async fn with_topic() -> Fixture {
    let cloud = Fixture::fast().await;
    cloud.cloud.create_topic("topic").unwrap();
    cloud
}

fn argument() -> (u16, String) {
    (400, "INVALID_ARGUMENT".to_owned())
}

async fn pull(cloud: &Fixture, name: &str) -> Vec<Value> {
    let path = format!("subscriptions/{name}:pull");
    let body = json!({"maxMessages": 100, "returnImmediately": true});
    let pulled = done(cloud, Method::POST, &path, body).await;
    pulled["receivedMessages"].as_array().cloned().unwrap_or_default()
}

async fn acknowledge(cloud: &Fixture, name: &str, received: &[Value]) {
    let ids: Vec<&Value> = received.iter().map(|one| &one["ackId"]).collect();
    let path = format!("subscriptions/{name}:acknowledge");
    done(cloud, Method::POST, &path, json!({"ackIds": ids})).await;
}

fn ids(received: &[Value]) -> Vec<&str> {
    received
        .iter()
        .filter_map(|one| one["message"]["messageId"].as_str())
        .collect()
}

#[tokio::test]
async fn topics_are_updated_by_their_mask() {
    let cloud = with_topic().await;
    let path = "topics/made";
    let made = done(
        &cloud,
        Method::PUT,
        path,
        json!({"labels": {"a": "b"}, "messageRetentionDuration": "600s"}),
    )
    .await;
    assert_eq!(
        made,
        json!({"name": "projects/local-project/topics/made", "labels": {"a": "b"}, "messageRetentionDuration": "600s"})
    );
    let patch = json!({"topic": {"name": made["name"], "labels": {"c": "d"}}, "updateMask": "labels,message_retention_duration"});
    let updated = done(&cloud, Method::PATCH, path, patch).await;
    assert_eq!(updated, json!({"name": made["name"], "labels": {"c": "d"}}));
    assert_eq!(done(&cloud, Method::GET, path, json!({})).await, updated);
    for body in [
        json!({"topic": {"labels": {}}}),
        json!({"topic": {"labels": {}}, "updateMask": ""}),
        json!({"topic": {"name": "x"}, "updateMask": "name"}),
        json!({"topic": {"colour": "x"}, "updateMask": "colour"}),
        json!({"topic": {}, "updateMask": "colour"}),
        json!({"topic": {"messageRetentionDuration": "599s"}, "updateMask": "messageRetentionDuration"}),
    ] {
        assert_eq!(
            refused(&cloud, Method::PATCH, path, body.clone()).await,
            argument(),
            "{body}"
        );
    }
    let nobody = refused(
        &cloud,
        Method::PATCH,
        "topics/none",
        json!({"topic": {}, "updateMask": "labels"}),
    )
    .await;
    assert_eq!(nobody, (404, "NOT_FOUND".to_owned()));
    let schemas = json!({"schemaSettings": {"schema": "x", "encoding": "JSON"}});
    assert_eq!(refused(&cloud, Method::PUT, "topics/strict", schemas).await.0, 501);
    assert_eq!(
        refused(&cloud, Method::PUT, "topics/array", json!([])).await,
        argument()
    );
}

#[tokio::test]
async fn subscriptions_are_checked_when_they_are_made_and_when_they_are_changed() {
    let cloud = with_topic().await;
    let made = done(&cloud, Method::PUT, "subscriptions/made", json!({"topic": TOPIC})).await;
    assert_eq!(
        made,
        json!({
            "name": "projects/local-project/subscriptions/made", "topic": TOPIC, "pushConfig": {}, "ackDeadlineSeconds": 10,
            "messageRetentionDuration": "604800s", "expirationPolicy": {"ttl": "2678400s"}, "state": "ACTIVE",
        })
    );
    let unknown = json!({"pushEndpoint": "http://x", "oidcToken": {"serviceAccountEmail": "x@y"}});
    for (member, value, status) in [
        ("ackDeadlineSeconds", json!(9), 400),
        ("ackDeadlineSeconds", json!(601), 400),
        ("messageRetentionDuration", json!("599s"), 400),
        ("messageRetentionDuration", json!("2678401s"), 400),
        ("messageRetentionDuration", json!("a week"), 400),
        ("expirationPolicy", json!({"ttl": "86399s"}), 400),
        ("retryPolicy", json!({"minimumBackoff": "601s"}), 400),
        (
            "deadLetterPolicy",
            json!({"deadLetterTopic": TOPIC, "maxDeliveryAttempts": 101}),
            400,
        ),
        ("deadLetterPolicy", json!({"deadLetterTopic": format!("{TOPIC}s")}), 404),
        ("pushConfig", unknown.clone(), 400),
        ("pushConfig", json!({"pushEndpoint": "ftp://x"}), 400),
        ("colour", json!("red"), 400),
        ("bigqueryConfig", json!({"table": "x"}), 501),
        ("enableExactlyOnceDelivery", json!(true), 501),
    ] {
        let new = json!({"topic": TOPIC, member: value});
        assert_eq!(
            refused(&cloud, Method::PUT, "subscriptions/new", new.clone()).await.0,
            status,
            "{new}"
        );
        let change = json!({"subscription": {member: value}, "updateMask": member});
        let changed = refused(&cloud, Method::PATCH, "subscriptions/made", change.clone()).await;
        assert_eq!(changed.0, status, "{change}");
    }
    for member in ["name", "topic", "enableMessageOrdering", "detached", "colour"] {
        let change = json!({"subscription": {member: true}, "updateMask": member});
        let changed = refused(&cloud, Method::PATCH, "subscriptions/made", change).await;
        assert_eq!(changed, argument(), "{member}");
    }
    let push = json!({"pushConfig": unknown});
    let changed = refused(&cloud, Method::POST, "subscriptions/made:modifyPushConfig", push).await;
    assert_eq!(changed, argument());
    assert_eq!(done(&cloud, Method::GET, "subscriptions/made", json!({})).await, made);

    let wanted = json!({
        "ackDeadlineSeconds": 20, "retainAckedMessages": true, "messageRetentionDuration": "600s",
        "labels": {"a": "b"}, "expirationPolicy": {}, "retryPolicy": {"minimumBackoff": "1s", "maximumBackoff": "2s"},
        "deadLetterPolicy": {"deadLetterTopic": TOPIC, "maxDeliveryAttempts": 7},
        "pushConfig": {"pushEndpoint": "http://127.0.0.1:1/", "noWrapper": {"writeMetadata": true}},
    });
    let members: Vec<&str> = wanted.as_object().unwrap().keys().map(String::as_str).collect();
    let change = json!({"subscription": wanted, "updateMask": members.join(",")});
    let mut changed = done(&cloud, Method::PATCH, "subscriptions/made", change).await;
    assert_eq!(
        changed,
        done(&cloud, Method::GET, "subscriptions/made", json!({})).await
    );
    for (member, value) in wanted.as_object().unwrap() {
        assert_eq!(changed[member], *value, "{member}");
    }
    let change = json!({"subscription": {}, "updateMask": members.join(",")});
    changed = done(&cloud, Method::PATCH, "subscriptions/made", change).await;
    assert_eq!(
        changed, made,
        "what is named and not there is what it is without saying"
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cloud = with_topic().await;
    for number in 1..=5 {
        cloud.cloud.create_topic(&format!("list-{number}")).unwrap();
        let path = format!("subscriptions/list-{number}");
        done(&cloud, Method::PUT, &path, json!({"topic": TOPIC})).await;
    }
    for (path, member, wanted) in [
        ("topics", "topics", 6),
        ("subscriptions", "subscriptions", 5),
        ("topics/topic/subscriptions", "subscriptions", 5),
    ] {
        let (mut token, mut names, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let page = done(
                &cloud,
                Method::GET,
                &format!("{path}?pageSize=2&pageToken={token}"),
                json!({}),
            )
            .await;
            for one in page[member].as_array().unwrap() {
                names.push(one["name"].as_str().or(one.as_str()).unwrap().to_owned());
            }
            pages += 1;
            match page["nextPageToken"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!((names.len(), pages), (wanted, 3), "{path}");
        assert_eq!(names, unique, "{path}");
    }
    assert_eq!(
        done(&cloud, Method::GET, "topics/list-1/subscriptions", json!({})).await,
        json!({})
    );
    let nowhere = refused(&cloud, Method::GET, "topics/none/subscriptions", json!({})).await;
    assert_eq!(nowhere, (404, "NOT_FOUND".to_owned()));
    assert_eq!(
        refused(&cloud, Method::GET, "topics?pageSize=-1", json!({})).await,
        argument()
    );
}

#[tokio::test]
async fn a_seek_brings_back_what_is_retained_and_drops_what_is_older() {
    let cloud = with_topic().await;
    for (name, retain) in [("kept", true), ("gone", false)] {
        let body = json!({"topic": TOPIC, "retainAckedMessages": retain, "ackDeadlineSeconds": 600});
        done(&cloud, Method::PUT, &format!("subscriptions/{name}"), body).await;
    }
    let publish = |name: &str| cloud.cloud.publish("topic", name.as_bytes(), &[]).unwrap();
    let time = || cloud.cloud.clock().now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let first = publish("1");
    cloud.cloud.clock().advance(TimeDelta::seconds(1));
    let between = time();
    let second = publish("2");
    for name in ["kept", "gone"] {
        let received = pull(&cloud, name).await;
        assert_eq!(ids(&received), [&first, &second]);
        acknowledge(&cloud, name, &received).await;
        let path = format!("subscriptions/{name}:seek");
        assert_eq!(
            done(&cloud, Method::POST, &path, json!({"time": between})).await,
            json!({})
        );
    }
    let again = pull(&cloud, "kept").await;
    assert_eq!(ids(&again), [&second]);
    acknowledge(&cloud, "kept", &again).await;
    assert_eq!(pull(&cloud, "gone").await, Vec::<Value>::new());
    // Backwards to before everything, then forwards over everything, also over what is published until then.
    let seek = |time: String| done(&cloud, Method::POST, "subscriptions/kept:seek", json!({"time": time}));
    seek("2020-01-01T00:00:00Z".to_owned()).await;
    assert_eq!(ids(&pull(&cloud, "kept").await), [&first, &second]);
    let later = (Utc::now() + TimeDelta::minutes(10)).to_rfc3339();
    seek(later).await;
    publish("3");
    assert_eq!(pull(&cloud, "kept").await, Vec::<Value>::new());
    cloud.cloud.clock().advance(TimeDelta::minutes(10));
    let fourth = publish("4");
    assert_eq!(ids(&pull(&cloud, "kept").await), [&fourth]);

    for body in [json!({}), json!({"time": "yesterday"})] {
        assert_eq!(
            refused(&cloud, Method::POST, "subscriptions/kept:seek", body).await,
            argument()
        );
    }
}

#[tokio::test]
async fn messages_are_forgotten_after_their_retention() {
    let cloud = with_topic().await;
    let body = json!({"topic": TOPIC, "messageRetentionDuration": "600s"});
    done(&cloud, Method::PUT, "subscriptions/short", body).await;
    done(&cloud, Method::PUT, "subscriptions/long", json!({"topic": TOPIC})).await;
    let old = cloud.cloud.publish("topic", b"old", &[]).unwrap();
    cloud.cloud.clock().advance(TimeDelta::seconds(599));
    let new = cloud.cloud.publish("topic", b"new", &[]).unwrap();
    cloud.cloud.clock().advance(TimeDelta::seconds(2));
    assert_eq!(ids(&pull(&cloud, "short").await), [&new]);
    assert_eq!(ids(&pull(&cloud, "long").await), [&old, &new]);
}

#[tokio::test]
async fn a_detached_subscription_has_nothing_and_gets_nothing() {
    let cloud = with_topic().await;
    done(
        &cloud,
        Method::PUT,
        "subscriptions/sub",
        json!({"topic": TOPIC, "detached": true}),
    )
    .await;
    cloud.cloud.publish("topic", b"x", &[]).unwrap();
    let name = "projects/local-project/subscriptions/sub";
    assert_eq!(cloud.cloud.backlog(name).unwrap(), 1, "only the service says so");
    let (waited, _) = tokio::join!(
        patiently(async {
            pull(&cloud, "sub").await;
            let wait = json!({"maxMessages": 1});
            refused(&cloud, Method::POST, "subscriptions/sub:pull", wait).await
        }),
        done(&cloud, Method::POST, "subscriptions/sub:detach", json!({})),
    );
    assert_eq!(waited, (400, "FAILED_PRECONDITION".to_owned()));
    cloud.cloud.publish("topic", b"x", &[]).unwrap();
    assert_eq!(cloud.cloud.backlog(name).unwrap(), 0);
    assert_eq!(
        done(&cloud, Method::GET, "subscriptions/sub", json!({})).await["detached"],
        true
    );
    assert_eq!(
        done(&cloud, Method::GET, "topics/topic/subscriptions", json!({})).await,
        json!({})
    );
    let nobody = refused(&cloud, Method::POST, "subscriptions/none:detach", json!({})).await;
    assert_eq!(nobody, (404, "NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn an_ack_id_that_never_was_one_is_refused_and_one_that_is_over_does_nothing() {
    let cloud = with_topic().await;
    done(&cloud, Method::PUT, "subscriptions/sub", json!({"topic": TOPIC})).await;
    for verb in ["acknowledge", "modifyAckDeadline"] {
        let path = format!("subscriptions/sub:{verb}");
        for id in ["", "nonsense", "1", "1-", "-1", "1-x", "1-1-1"] {
            let body = json!({"ackIds": ["1-1", id]});
            assert_eq!(
                refused(&cloud, Method::POST, &path, body).await,
                argument(),
                "{verb} {id}"
            );
        }
        done(&cloud, Method::POST, &path, json!({"ackIds": ["1-1", "999-999"]})).await;
        assert_eq!(
            refused(&cloud, Method::POST, &path, json!({"ackIds": []})).await,
            argument()
        );
    }
    let too_long = json!({"ackIds": ["1-1"], "ackDeadlineSeconds": 601});
    assert_eq!(
        refused(&cloud, Method::POST, "subscriptions/sub:modifyAckDeadline", too_long).await,
        argument()
    );
    ok(cloud.get(cloud.pubsub("subscriptions/sub"))).await;
}
