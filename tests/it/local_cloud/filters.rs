//! Subscription filters: which messages they let through, and what is no filter. After Google's page on them, as Google's
//! emulator takes every text and filters nothing.

use platen::local_cloud::Subscription;
use serde_json::{Map, Value, json};

use super::{Fixture, answer, ok};

async fn with_topic() -> Fixture {
    let cloud = Fixture::start().await;
    cloud.cloud.create_topic("topic").unwrap();
    cloud
}

async fn subscribe(cloud: &Fixture, name: &str, filter: &str) -> (u16, Value) {
    let body = json!({"topic": "projects/local-project/topics/topic", "filter": filter, "ackDeadlineSeconds": 600});
    let request = cloud.put(cloud.pubsub(&format!("subscriptions/{name}"))).json(&body);
    let (status, body) = answer(request).await;
    (status.as_u16(), body)
}

/// The attributes of what waits on a subscription, in order.
async fn delivered(cloud: &Fixture, name: &str) -> Vec<Value> {
    let request = cloud.post(cloud.pubsub(&format!("subscriptions/{name}:pull")));
    let pulled = ok(request.json(&json!({"maxMessages": 1000, "returnImmediately": true}))).await;
    let received = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
    received
        .into_iter()
        .map(|one| one["message"]["attributes"].clone())
        .collect()
}

#[tokio::test]
async fn a_subscription_gets_what_its_filter_lets_through() {
    // Each message is named by the letter of its attribute "m".
    let messages: [(&str, &[(&str, &str)]); 8] = [
        ("a", &[("name", "com"), ("lang", "en")]),
        ("b", &[("name", "comma")]),
        ("c", &[("name", "org"), ("lang", "de")]),
        ("d", &[("iana.org/language_tag", "en")]),
        ("e", &[("Name", "com")]),
        ("f", &[("name", "")]),
        ("g", &[("a-b_1", "say \"hi\"\\\n")]),
        ("h", &[("AND", "みんな")]),
    ];
    let cases = [
        ("attributes:name", "abcf"),
        ("NOT attributes:name", "degh"),
        ("-attributes:name", "degh"),
        ("attributes.name = \"com\"", "a"),
        ("attributes.name=\"com\"", "a"),
        // Also without the attribute, as the page's table says.
        ("attributes.name != \"com\"", "bcdefgh"),
        ("NOT attributes.name = \"com\"", "bcdefgh"),
        ("NOT attributes.name != \"com\"", "a"),
        ("attributes.name = \"\"", "f"),
        ("hasPrefix(attributes.name, \"com\")", "ab"),
        ("hasPrefix(attributes.name,\"\")", "abcf"),
        ("NOT hasPrefix(attributes.name, \"co\")", "cdefgh"),
        ("attributes:\"iana.org/language_tag\"", "d"),
        ("attributes.\"iana.org/language_tag\" = \"en\"", "d"),
        ("hasPrefix(attributes.\"iana.org/language_tag\", \"e\")", "d"),
        ("attributes:name AND attributes:lang", "ac"),
        ("attributes:name AND NOT attributes:lang", "bf"),
        ("NOT attributes:lang AND attributes:name", "bf"),
        ("NOT (attributes:lang AND attributes:name)", "bdefgh"),
        ("-(attributes:lang OR attributes:name)", "degh"),
        (
            "attributes.lang = \"en\" OR attributes.lang = \"de\" OR attributes:Name",
            "ace",
        ),
        ("attributes:name AND attributes:lang AND attributes.lang = \"de\"", "c"),
        (
            "attributes:name AND (attributes.lang = \"en\" OR hasPrefix(attributes.name, \"comm\"))",
            "ab",
        ),
        ("(attributes:name AND attributes:lang) OR attributes:Name", "ace"),
        ("((attributes:name))AND(NOT(attributes:lang))", "bf"),
        (" attributes:name\n\tAND  attributes : lang ", "ac"),
        ("attributes:a-b_1", "g"),
        ("attributes.a-b_1 = \"say \\\"hi\\\"\\\\\\n\"", "g"),
        ("attributes.a-b_1 = \"s\\x61y \\042hi\\\"\\134\\n\"", "g"),
        ("attributes.\"AND\" = \"\\u307F\\u3093\\U0000306A\"", "h"),
        ("attributes.\"AND\" = \"みんな\"", "h"),
        ("hasPrefix(attributes.\"AND\", \"み\")", "h"),
        ("attributes:\"\\116ame\"", "e"),
    ];
    let cloud = with_topic().await;
    for (number, (filter, _)) in cases.iter().enumerate() {
        let (status, answer) = subscribe(&cloud, &format!("case-{number}"), filter).await;
        assert_eq!((status, &answer["filter"]), (200, &json!(filter)), "{answer}");
    }
    for (name, attributes) in messages {
        let attributes: Vec<(&str, &str)> = attributes.iter().copied().chain([("m", name)]).collect();
        cloud.cloud.publish("topic", b"", &attributes).unwrap();
    }
    for (number, (filter, wanted)) in cases.iter().enumerate() {
        let name = format!("case-{number}");
        // What does not match was never there.
        let backlog = cloud
            .cloud
            .backlog(&format!("projects/local-project/subscriptions/{name}"))
            .unwrap();
        let got: String = delivered(&cloud, &name)
            .await
            .iter()
            .map(|attributes| attributes["m"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!((got.as_str(), backlog), (*wanted, wanted.len()), "{filter}");
    }
}

#[tokio::test]
async fn what_is_no_filter_is_refused() {
    let cloud = with_topic().await;
    let long = format!("attributes:{}", "k".repeat(246));
    for filter in [
        " ",
        "name",
        "attributes",
        "attributes.name",
        "attributes:",
        "attributes:\"\"",
        "attributes.name = com",
        "attributes.name = 'com'",
        "attributes.name = \"com",
        "attributes.name = attributes.website",
        "\"com\" = attributes.name",
        "attributes.name == \"com\"",
        "attributes.name ! = \"com\"",
        "attributes.name >= \"com\"",
        "attributes.name : \"com\"",
        "attributes.name.first = \"com\"",
        "attributes .name = \"com\"",
        "Attributes:name",
        "data:x",
        "attributes:*",
        "attributes:iana.org/language_tag",
        "attributes:\\u307F",
        "attributes:ü",
        "attributes:AND",
        "attributes.NOT = \"x\"",
        "attributes:a AND attributes:b OR attributes:c",
        "attributes:a OR attributes:b AND attributes:c",
        "attributes.a = \"com\" AND (\"net\" OR \"org\")",
        "attributes:a attributes:b",
        "attributes:a and attributes:b",
        "not attributes:a",
        "NOTattributes:a",
        "attributes:a ANDattributes:b",
        "NOT NOT attributes:a",
        "--attributes:a",
        "NOT -attributes:a",
        "- attributes:a",
        "NOT",
        "AND attributes:a",
        "attributes:a AND",
        "attributes:a OR ",
        "()",
        "(attributes:a",
        "attributes:a)",
        "attributes:a;",
        "hasPrefix(attributes.a)",
        "hasPrefix(attributes:a, \"b\")",
        "hasPrefix(attributes.a, b)",
        "hasPrefix(attributes.a, \"b\", \"c\")",
        "hasPrefix(\"b\", attributes.a)",
        "hasSuffix(attributes.a, \"b\")",
        "hasprefix(attributes.a, \"b\")",
        "attributes.a = \"\\q\"",
        "attributes.a = \"\\x4\"",
        "attributes.a = \"\\ud800\"",
        "attributes.a = \"\\UFFFFFFFF\"",
        "attributes.a = \"\\400\"",
        "attributes.a = \"\\",
        "attributes.a = \"b\nc\"",
        &long,
        &"(".repeat(256),
        &"-(".repeat(128),
    ] {
        let (status, answer) = subscribe(&cloud, "refused", filter).await;
        assert_eq!(
            (status, &answer["error"]["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{filter:?}: {answer}"
        );
    }
    let (status, answer) = subscribe(&cloud, "longest", &long[..256]).await;
    assert_eq!(status, 200, "{answer}");
    let unknown = cloud.get(cloud.pubsub("subscriptions/refused"));
    assert_eq!(super::answer(unknown).await.0, 404);
}

#[tokio::test]
async fn a_filter_never_changes_and_an_empty_one_lets_everything_through() {
    let cloud = with_topic().await;
    cloud
        .cloud
        .create_subscription(&Subscription {
            name: "all",
            topic: "topic",
            ..Subscription::default()
        })
        .unwrap();
    assert_eq!(subscribe(&cloud, "some", "attributes:a").await.0, 200);
    let mut subscription = ok(cloud.get(cloud.pubsub("subscriptions/some"))).await;
    subscription["filter"] = json!("attributes:b");
    let patch = |mask: &str| {
        let request = cloud.http.patch(cloud.pubsub("subscriptions/some"));
        let body = json!({"subscription": subscription, "updateMask": mask});
        answer(request.bearer_auth(&cloud.token).json(&body))
    };
    let (status, refused) = patch("filter").await;
    assert_eq!(status, 400, "{refused}");
    let (status, updated) = patch("labels").await;
    assert_eq!((status.as_u16(), &updated["filter"]), (200, &json!("attributes:a")));
    for key in ["a", "b"] {
        cloud.cloud.publish("topic", b"", &[(key, "")]).unwrap();
    }
    let attributes = |keys: &[&str]| -> Vec<Value> {
        let one = |key: &&str| Value::Object(Map::from_iter([((*key).to_owned(), json!(""))]));
        keys.iter().map(one).collect()
    };
    assert_eq!(delivered(&cloud, "some").await, attributes(&["a"]));
    assert_eq!(delivered(&cloud, "all").await, attributes(&["a", "b"]));
}
