//! The same REST calls of the local cloud's Pub/Sub and of Google's emulator. Where the two answer differently it is written
//! here, with why the local cloud is right by Google's documentation; anything else that differs is a failure.

use platen::local_cloud::{LocalCloud, Settings};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::harness::{USER, client};

const TOPIC: &str = "projects/local-project/topics/topic";
const BIG: &str = "projects/local-project/topics/dead";

/// One of the two, and how it is asked.
struct Side {
    base: String,
    token: String,
    http: Client,
}

impl Side {
    /// The status, Google's word for an error, and the body.
    async fn ask(&self, method: &Method, path: &str, body: &Value) -> (u16, String, Value) {
        let url = format!("{}/v1/projects/local-project/{path}", self.base);
        let mut request = self.http.request(method.clone(), url).bearer_auth(&self.token);
        if *method != Method::GET && *method != Method::DELETE {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap_or_default();
        let word = body["error"]["status"].as_str().unwrap_or_default().to_owned();
        (status, word, body)
    }
}

/// A call, and why it is the local cloud that is right where the two differ.
struct Call(Method, &'static str, Value, Option<&'static str>);

/// In the order they are made: later ones rest on earlier ones.
fn calls() -> Vec<Call> {
    let get = |path, difference| Call(Method::GET, path, json!({}), difference);
    let put = |path, body, difference| Call(Method::PUT, path, body, difference);
    let post = |path, body, difference| Call(Method::POST, path, body, difference);
    let patch = |path, body, difference| Call(Method::PATCH, path, body, difference);
    let delete = |path, difference| Call(Method::DELETE, path, json!({}), difference);
    let sub = |more: Value| {
        let mut body = json!({"topic": TOPIC});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let message = |message: Value| json!({"messages": [message]});
    let of = |id: &str| json!({"subscription": format!("projects/local-project/subscriptions/{id}")});
    let snap = |id: &str| json!({"snapshot": format!("projects/local-project/snapshots/{id}")});
    let pull = json!({"maxMessages": 10, "returnImmediately": true});
    let same = None;
    vec![
        put("topics/topic", json!({"labels": {"a": "b"}}), same),
        put("topics/dead", json!({}), same),
        put("topics/topic", json!({}), same),
        put("topics/ab", json!({}), same),
        put("topics/goog-x", json!({}), same),
        put("topics/1abc", json!({}), same),
        put("topics/brief", json!({"messageRetentionDuration": "599s"}), same),
        put("topics/colour", json!({"colour": "red"}), same),
        get("topics/topic", same),
        get("topics/missing", same),
        get("topics", same),
        get("topics?pageSize=1", same),
        patch(
            "topics/topic",
            json!({"topic": {"name": TOPIC, "labels": {}}, "updateMask": "labels"}),
            Some("the emulator updates no labels"),
        ),
        patch("topics/topic", json!({"topic": {"name": TOPIC}}), same),
        patch(
            "topics/topic",
            json!({"topic": {"name": TOPIC}, "updateMask": "colour"}),
            same,
        ),
        put("subscriptions/pulled", sub(json!({})), same),
        put("subscriptions/pulled", sub(json!({})), same),
        put("subscriptions/elsewhere", json!({"topic": BIG}), same),
        put(
            "subscriptions/lost",
            json!({"topic": "projects/local-project/topics/missing"}),
            same,
        ),
        put(
            "subscriptions/short",
            sub(json!({"ackDeadlineSeconds": 9})),
            Some("the least is 10 s"),
        ),
        put("subscriptions/long", sub(json!({"ackDeadlineSeconds": 601})), same),
        put(
            "subscriptions/kept-1",
            sub(json!({"messageRetentionDuration": "599s"})),
            same,
        ),
        put(
            "subscriptions/kept-2",
            sub(json!({"messageRetentionDuration": "2678401s"})),
            same,
        ),
        put(
            "subscriptions/expired",
            sub(json!({"expirationPolicy": {"ttl": "86399s"}})),
            Some("the least is a day"),
        ),
        put(
            "subscriptions/retry-1",
            sub(json!({"retryPolicy": {"minimumBackoff": "601s"}})),
            same,
        ),
        put(
            "subscriptions/retry-2",
            sub(json!({"retryPolicy": {"minimumBackoff": "9s", "maximumBackoff": "8s"}})),
            same,
        ),
        put(
            "subscriptions/dead-1",
            sub(json!({"deadLetterPolicy": {"deadLetterTopic": BIG, "maxDeliveryAttempts": 4}})),
            same,
        ),
        put(
            "subscriptions/dead-2",
            sub(json!({"deadLetterPolicy": {"deadLetterTopic": BIG, "maxDeliveryAttempts": 101}})),
            same,
        ),
        put(
            "subscriptions/dead-3",
            sub(json!({"deadLetterPolicy": {"deadLetterTopic": "projects/local-project/topics/missing"}})),
            same,
        ),
        put(
            "subscriptions/filter-1",
            sub(json!({"filter": "attributes:a AND attributes:b OR attributes:c"})),
            Some("the emulator takes any text for a filter, and filters nothing"),
        ),
        put(
            "subscriptions/filter-2",
            sub(json!({"filter": "k".repeat(257)})),
            Some("the same, and the longest is 256 bytes"),
        ),
        put(
            "subscriptions/ftp",
            sub(json!({"pushConfig": {"pushEndpoint": "ftp://x"}})),
            same,
        ),
        put(
            "subscriptions/nobody",
            sub(
                json!({"pushConfig": {"pushEndpoint": "http://127.0.0.1:1/", "oidcToken": {"serviceAccountEmail": "x@y.z"}}}),
            ),
            Some("nobody can push as an account that is not there"),
        ),
        put(
            "subscriptions/pushed",
            sub(json!({"pushConfig": {"pushEndpoint": "http://127.0.0.1:1/", "noWrapper": {"writeMetadata": true}}})),
            same,
        ),
        put("subscriptions/colour", sub(json!({"colour": "red"})), same),
        get("subscriptions/pulled", same),
        get("subscriptions/missing", same),
        get("subscriptions?pageSize=1", same),
        get("topics/topic/subscriptions", same),
        get("topics/missing/subscriptions", Some("the topic is not there")),
        patch(
            "subscriptions/pulled",
            json!({"subscription": {"ackDeadlineSeconds": 20}, "updateMask": "ackDeadlineSeconds"}),
            same,
        ),
        patch(
            "subscriptions/pulled",
            json!({"subscription": {"name": "projects/local-project/subscriptions/pulled", "ackDeadlineSeconds": 20},
                   "updateMask": "ack_deadline_seconds"}),
            same,
        ),
        patch(
            "subscriptions/pulled",
            json!({"subscription": {"name": "projects/local-project/subscriptions/pulled", "topic": BIG}, "updateMask": "topic"}),
            same,
        ),
        patch(
            "subscriptions/pulled",
            json!({"subscription": {"name": "projects/local-project/subscriptions/pulled", "filter": "attributes:a"},
                   "updateMask": "filter"}),
            same,
        ),
        patch(
            "subscriptions/pulled",
            json!({"subscription": {"name": "projects/local-project/subscriptions/pulled"}}),
            same,
        ),
        post("topics/topic:publish", json!({"messages": []}), same),
        post("topics/topic:publish", message(json!({})), same),
        post("topics/topic:publish", message(json!({"data": "a"})), same),
        post("topics/topic:publish", message(json!({"body": "a"})), same),
        post(
            "topics/topic:publish",
            message(json!({"attributes": {"googx": "y"}})),
            Some("the prefix is reserved"),
        ),
        post(
            "topics/topic:publish",
            message(json!({"attributes": {"k".repeat(257): "y"}})),
            Some("the most is 256 bytes"),
        ),
        post(
            "topics/topic:publish",
            message(json!({"attributes": {"k": "v".repeat(1025)}})),
            Some("the most is 1,024 bytes"),
        ),
        post(
            "topics/topic:publish",
            message(json!({"data": "eA==", "orderingKey": "o".repeat(1025)})),
            Some("the most is 1,024 bytes"),
        ),
        post("topics/missing:publish", message(json!({"data": "eA=="})), same),
        post(
            "topics/topic:publish",
            message(json!({"data": "eA==", "orderingKey": "o"})),
            same,
        ),
        post("subscriptions/pulled:pull", pull.clone(), same),
        post(
            "subscriptions/pulled:pull",
            json!({"maxMessages": 0, "returnImmediately": true}),
            same,
        ),
        post("subscriptions/missing:pull", pull.clone(), same),
        post(
            "subscriptions/pushed:pull",
            pull.clone(),
            Some("what is pushed cannot be pulled"),
        ),
        post("subscriptions/pulled:acknowledge", json!({"ackIds": []}), same),
        post(
            "subscriptions/pulled:acknowledge",
            json!({"ackIds": ["nonsense"]}),
            same,
        ),
        post(
            "subscriptions/pulled:modifyAckDeadline",
            json!({"ackIds": ["nonsense"], "ackDeadlineSeconds": 10}),
            same,
        ),
        post(
            "subscriptions/pulled:modifyAckDeadline",
            json!({"ackIds": ["1-1"], "ackDeadlineSeconds": 601}),
            same,
        ),
        post(
            "subscriptions/pulled:seek",
            json!({"time": "2020-01-01T00:00:00Z"}),
            same,
        ),
        post("subscriptions/pulled:seek", json!({}), same),
        put("snapshots/snap", of("pulled"), same),
        put("snapshots/snap", of("pulled"), same),
        put("snapshots/ab", of("pulled"), same),
        put("snapshots/none", of("missing"), same),
        put("snapshots/none", json!({}), same),
        get("snapshots/snap", same),
        get("snapshots/missing", same),
        get("snapshots?pageSize=1", same),
        get("topics/topic/snapshots", same),
        get("topics/missing/snapshots", Some("the topic is not there")),
        patch(
            "snapshots/snap",
            json!({"snapshot": {"labels": {"a": "b"}}, "updateMask": "labels"}),
            Some("the emulator updates no snapshots"),
        ),
        post("subscriptions/pulled:seek", snap("snap"), same),
        post("subscriptions/pulled:seek", snap("missing"), same),
        post("subscriptions/elsewhere:seek", snap("snap"), same),
        post("subscriptions/pulled:seek", json!({"snapshot": "nonsense"}), same),
        post(
            "subscriptions/pulled:seek",
            json!({"snapshot": "projects/local-project/snapshots/snap", "time": "2020-01-01T00:00:00Z"}),
            same,
        ),
        delete("snapshots/snap", same),
        delete("snapshots/snap", same),
        put(
            "subscriptions/snake",
            json!({"topic": TOPIC, "ack_deadline_seconds": "20", "labels": null}),
            same,
        ),
        put("subscriptions/nowhere", json!({}), same),
        put("subscriptions/nowhere", json!({"topic": "topic"}), same),
        get("topics/topic:getIamPolicy", Some("the emulator has no policies")),
        post(
            "topics/topic:setIamPolicy",
            json!({"policy": {}}),
            Some("the emulator has no policies"),
        ),
        post(
            "subscriptions/pulled:modifyPushConfig",
            json!({"pushConfig": {"pushEndpoint": "nonsense"}}),
            same,
        ),
        post("subscriptions/pushed:modifyPushConfig", json!({"pushConfig": {}}), same),
        post(
            "subscriptions/pulled:detach",
            json!({}),
            Some("the emulator does not detach"),
        ),
        delete("topics/topic", same),
        get("subscriptions/pulled", same),
        delete("topics/topic", same),
        delete("subscriptions/pulled", same),
        delete("subscriptions/pulled", same),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_and_googles_emulator_answer_alike_but_where_it_is_written() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let cloud = LocalCloud::start(Settings::default()).await.unwrap();
    cloud.create_service_account(USER);
    let (ours, theirs) = (
        Side {
            base: cloud.urls().pubsub.clone(),
            token: cloud.access_token(USER),
            http: client(),
        },
        Side {
            base: format!("http://{}", emulator.host),
            token: "nobody asks".to_owned(),
            http: client(),
        },
    );
    let mut wrong = Vec::new();
    for Call(method, path, body, known) in calls() {
        let (our, their) = tokio::join!(ours.ask(&method, path, &body), theirs.ask(&method, path, &body));
        let differs = (our.0, &our.1) != (their.0, &their.1);
        if differs != known.is_some() {
            let shown = body.to_string().chars().take(150).collect::<String>();
            wrong.push(format!(
                "{method} {path} {shown}\n  ours:   {} {}\n  theirs: {} {}",
                our.0, our.2, their.0, their.2
            ));
        }
        if let Some(why) = known {
            println!("{method} {path}: {} here, {} there: {why}", our.0, their.0);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
