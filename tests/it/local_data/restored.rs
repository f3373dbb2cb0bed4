//! What is done to objects, buckets and subscriptions after they are made is there after a kill as well.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::Subscription;
use reqwest::Method;
use serde_json::{Value, json};

use super::{cloud, directory, kill, start};
use crate::harness::client;
use crate::local_command::Local;

/// Changes in the journal so far, its first line among them.
fn lines(data: &Path) -> usize {
    let journal = std::fs::read(data.join("journal")).unwrap();
    journal.iter().filter(|byte| **byte == b'\n').count()
}

impl Local {
    /// Publishes messages of these data, ordering keys and kinds.
    async fn publish_each(&self, topic: &str, messages: &[(&str, &str, &str)]) {
        let messages: Vec<Value> = messages
            .iter()
            .map(|(data, key, kind)| {
                json!({"data": STANDARD.encode(data), "orderingKey": key, "attributes": {"kind": kind}})
            })
            .collect();
        let url = self.pubsub(&format!("topics/{topic}:publish"));
        self.good(Method::POST, &url, Some(&json!({"messages": messages})))
            .await;
    }

    /// Calls a verb of a subscription.
    async fn subscription(&self, name: &str, verb: &str, body: Value) {
        let url = self.pubsub(&format!("subscriptions/{name}:{verb}"));
        self.good(Method::POST, &url, Some(&body)).await;
    }
}

/// The data of pulled messages.
fn data(pulled: &[Value]) -> Vec<String> {
    let text = |message: &Value| {
        let data = message["message"]["data"].as_str().unwrap();
        String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
    };
    pulled.iter().map(text).collect()
}

fn ack_ids(pulled: &[Value]) -> BTreeSet<String> {
    let id = |message: &Value| message["ackId"].as_str().unwrap().to_owned();
    pulled.iter().map(id).collect()
}

/// Bytes outlive the names that they had before, and a bucket is what it was made and set to.
#[tokio::test]
async fn what_was_moved_composed_and_rewritten() {
    let (_parent, data) = directory();
    let local = start(&data);
    let buckets = format!("{}/storage/v1/b?project=local-project", local.url("storage"));
    let body = json!({"name": "mine", "location": "europe-west1", "storageClass": "NEARLINE"});
    local.good(Method::POST, &buckets, Some(&body)).await;
    for (name, content) in [("a", "one "), ("b", "two")] {
        local.put("mine", name, content.into()).await.unwrap();
    }

    let both = json!({"sourceObjects": [{"name": "a"}, {"name": "b"}], "destination": {"contentType": "text/x-both"}});
    for (change, body) in [
        ("mine/o/both/compose", both),
        ("mine/o/b/moveTo/o/c", json!({})),
        ("mine/o/a/rewriteTo/b/mine/o/copy", json!({})),
    ] {
        local.good(Method::POST, &local.bucket(change), Some(&body)).await;
    }
    local.good(Method::DELETE, &local.bucket("mine/o/a"), None).await;
    let labels = json!({"labels": {"team": "paper"}, "storageClass": "COLDLINE"});
    let bucket = local.good(Method::PATCH, &local.bucket("mine"), Some(&labels)).await;
    assert_eq!(bucket["metageneration"], "2", "{bucket}");
    let objects = local.objects("mine").await;
    kill(local);

    let local = start(&data);
    assert_eq!(local.good(Method::GET, &local.bucket("mine"), None).await, bucket);
    assert_eq!(
        (&bucket["location"], &bucket["storageClass"]),
        (&json!("EUROPE-WEST1"), &json!("COLDLINE"))
    );
    assert_ne!(bucket["updated"], bucket["timeCreated"]);
    assert_eq!(local.objects("mine").await, objects);
    let names: Vec<&str> = objects.keys().map(String::as_str).collect();
    assert_eq!(names, ["both", "c", "copy"]);
    for (name, content) in [("both", "one two"), ("c", "two"), ("copy", "one ")] {
        assert_eq!(local.content("mine", name).await, content.as_bytes(), "{name}");
        assert_eq!(objects[name]["storageClass"], "NEARLINE", "as the bucket's was");
    }
    let both = &objects["both"];
    assert_eq!((&both["componentCount"], &both["md5Hash"]), (&json!(2), &Value::Null));
    let more = json!({"sourceObjects": [{"name": "both"}, {"name": "c"}]});
    let more = local
        .good(Method::POST, &local.bucket("mine/o/more/compose"), Some(&more))
        .await;
    assert_eq!(more["componentCount"], 3, "{more}");
    assert_eq!(local.content("mine", "more").await, b"one twotwo");
}

/// All that a move, a composition or a rewrite does, and the messages that announce it, is one line of the journal.
#[tokio::test]
async fn what_an_object_goes_through_is_one_change() {
    let (_parent, data) = directory();
    let before = cloud(&data).await;
    before.create_bucket("bucket", false).unwrap();
    before.create_topic("topic").unwrap();
    before
        .create_subscription(&Subscription {
            name: "events",
            topic: "topic",
            ..Subscription::default()
        })
        .unwrap();
    before.create_notification("bucket", "topic").unwrap();
    for name in ["a", "b"] {
        before.put("bucket", name, "text/plain", name.into()).unwrap();
    }
    let token = before.access_token(&before.settings().worker_service_account);
    let objects = format!("{}/storage/v1/b/bucket/o", before.urls().storage);
    let both = json!({"sourceObjects": [{"name": "a"}, {"name": "b"}]});
    for (change, body) in [
        ("both/compose", both),
        ("b/moveTo/o/c", json!({})),
        ("a/rewriteTo/b/bucket/o/both", json!({})),
    ] {
        let so_far = lines(&data);
        let request = client().post(format!("{objects}/{change}")).bearer_auth(&token);
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{change}");
        assert_eq!(lines(&data), so_far + 1, "{change}");
    }
    drop(before);

    let after = cloud(&data).await;
    let waiting = after.waiting("events").unwrap();
    let told: Vec<String> = waiting
        .iter()
        .map(|message| &message["attributes"])
        .map(|event| {
            let [what, of] = [&event["eventType"], &event["objectId"]].map(|text| text.as_str().unwrap());
            format!("{what} {of}")
        })
        .collect();
    let expected = [
        "OBJECT_FINALIZE a",
        "OBJECT_FINALIZE b",
        "OBJECT_FINALIZE both",
        "OBJECT_FINALIZE c",
        "OBJECT_DELETE b",
        "OBJECT_FINALIZE both",
        "OBJECT_DELETE both",
    ];
    assert_eq!(told, expected);
}

/// Filters, order, retained messages, the target of a seek, detachment, and what topics were set to.
#[tokio::test]
async fn what_subscriptions_were_set_to() {
    let (_parent, directory) = directory();
    let local = start(&directory);
    let topic = local.pubsub("topics/mine");
    local.good(Method::PUT, &topic, Some(&json!({}))).await;
    let settings = json!({"topic": {"labels": {"a": "b"}, "messageRetentionDuration": "3600s"},
        "updateMask": "labels,messageRetentionDuration"});
    let set = local.good(Method::PATCH, &topic, Some(&settings)).await;
    let names = ["detached", "filtered", "later", "ordered"];
    for (name, mut settings) in names.into_iter().zip([
        json!({}),
        json!({"filter": "attributes.kind = \"a\"", "retainAckedMessages": true}),
        json!({}),
        json!({"enableMessageOrdering": true, "messageRetentionDuration": "1200s"}),
    ]) {
        settings["topic"] = json!("projects/local-project/topics/mine");
        let url = local.pubsub(&format!("subscriptions/{name}"));
        local.good(Method::PUT, &url, Some(&settings)).await;
    }
    let start_of_all = chrono::Utc::now() - chrono::TimeDelta::minutes(1);
    let future = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    local.subscription("later", "seek", json!({"time": future})).await;
    local
        .publish_each("mine", &[("a1", "k", "a"), ("b1", "k", "b"), ("c1", "", "c")])
        .await;
    local.subscription("detached", "detach", json!({})).await;
    let filtered = local.pull("filtered").await;
    assert_eq!(data(&filtered), ["a1"]);
    local
        .subscription("filtered", "acknowledge", json!({"ackIds": ack_ids(&filtered)}))
        .await;
    let ordered = local.pull("ordered").await;
    assert_eq!(data(&ordered), ["a1", "b1", "c1"]);
    let behind = json!({"ackIds": ack_ids(&ordered[1..])});
    local.subscription("ordered", "acknowledge", behind).await;
    let mut before = Vec::new();
    for name in names {
        let url = local.pubsub(&format!("subscriptions/{name}"));
        before.push(local.good(Method::GET, &url, None).await);
    }
    kill(local);

    let local = start(&directory);
    assert_eq!(local.good(Method::GET, &local.pubsub("topics/mine"), None).await, set);
    for (name, before) in names.into_iter().zip(before) {
        let url = local.pubsub(&format!("subscriptions/{name}"));
        assert_eq!(local.good(Method::GET, &url, None).await, before, "{name}");
    }
    let again = local.pull("ordered").await;
    assert_eq!(
        data(&again),
        ["a1", "b1"],
        "b1 was acknowledged behind a1, which was not"
    );
    assert!(
        ack_ids(&again).is_disjoint(&ack_ids(&ordered)),
        "no ack id is given twice"
    );

    local.publish_each("mine", &[("a2", "", "a"), ("b2", "", "b")]).await;
    let newer = local.pull("filtered").await;
    assert_eq!(data(&newer), ["a2"]);
    assert!(ack_ids(&newer).is_disjoint(&ack_ids(&filtered)));
    local
        .subscription("filtered", "acknowledge", json!({"ackIds": ack_ids(&newer)}))
        .await;
    assert!(
        local.pull("later").await.is_empty(),
        "what was published is before the seek's time"
    );
    let url = local.pubsub("subscriptions/detached:pull");
    let pull = json!({"maxMessages": 1, "returnImmediately": true});
    let (status, answer) = local.google(Method::POST, &url, Some(&pull)).await;
    assert_eq!(
        (status, &answer["error"]["status"]),
        (400, &json!("FAILED_PRECONDITION"))
    );
    kill(local);

    // A seek brings back what two processes before saw acknowledged.
    let local = start(&directory);
    assert!(local.pull("filtered").await.is_empty());
    local
        .subscription("filtered", "seek", json!({"time": start_of_all}))
        .await;
    assert_eq!(data(&local.pull("filtered").await), ["a1", "a2"]);
}
