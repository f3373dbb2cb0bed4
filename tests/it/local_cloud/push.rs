//! Push: the request that a worker sees, and what its answers do.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, Uri},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use platen::local_cloud::Subscription;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Fixture, ok, patiently};

const PUSH: &str = "push@local-project.iam.gserviceaccount.com";

struct Push {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Push {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// An endpoint that answers with scripted statuses, the last one for ever. 0 is no answer at all.
struct Endpoint {
    url: String,
    pushes: mpsc::UnboundedReceiver<Push>,
    last: Arc<AtomicU16>,
}

impl Endpoint {
    async fn answering(statuses: &[u16]) -> Self {
        let (sender, pushes) = mpsc::unbounded_channel();
        let mut script = statuses.to_vec();
        script.reverse();
        let last = Arc::new(AtomicU16::new(script[0]));
        let (script, default) = (Arc::new(Mutex::new(script)), Arc::clone(&last));
        let router = Router::new().fallback(async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let status = script
                .lock()
                .unwrap()
                .pop()
                .unwrap_or_else(|| default.load(Ordering::Relaxed));
            sender.send(Push { uri, headers, body }).expect("the test listens");
            if status == 0 {
                std::future::pending::<()>().await;
            }
            StatusCode::from_u16(status).unwrap()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/push?x=1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, pushes, last }
    }

    async fn next(&mut self) -> Push {
        patiently(self.pushes.recv()).await.expect("a push")
    }
}

async fn with_topic() -> Fixture {
    let cloud = Fixture::fast().await;
    cloud.cloud.create_topic("topic").unwrap();
    cloud.cloud.create_topic("dead").unwrap();
    cloud
}

fn subscription(url: &str) -> Subscription<'_> {
    Subscription {
        name: "sub",
        topic: "topic",
        push_endpoint: Some(url),
        ..Subscription::default()
    }
}

/// Waits until everything is acknowledged.
async fn drained(cloud: &Fixture, name: &str) {
    patiently(async {
        while cloud.cloud.backlog(name).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_push_looks_like_googles() {
    let cloud = with_topic().await;
    let mut endpoint = Endpoint::answering(&[204]).await;
    let wanted = Subscription {
        service_account: Some(PUSH),
        audience: Some("https://worker"),
        ..subscription(&endpoint.url)
    };
    let name = cloud.cloud.create_subscription(&wanted).unwrap();
    let messages = json!({"messages": [{"data": "aGVsbG8=", "attributes": {"k": "v"}, "orderingKey": "o"}]});
    let id = ok(cloud.post(cloud.pubsub("topics/topic:publish")).json(&messages)).await["messageIds"][0].clone();
    let push = endpoint.next().await;
    assert_eq!(push.uri, "/push?x=1");
    let headers = &push.headers;
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["from"], "noreply@google.com");
    assert_eq!(
        headers["user-agent"],
        "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)"
    );
    let body = push.json();
    assert_eq!(body["subscription"], name);
    assert_eq!(body["deliveryAttempt"], Value::Null, "only with a dead-letter policy");
    let message = &body["message"];
    assert_eq!((&message["messageId"], &message["message_id"]), (&id, &id));
    assert!(message["publishTime"].is_string());
    assert_eq!(message["publishTime"], message["publish_time"]);
    assert_eq!(
        (&message["data"], &message["attributes"]["k"]),
        (&json!("aGVsbG8="), &json!("v"))
    );
    assert_eq!(message["orderingKey"], "o");
    let token = headers["authorization"]
        .to_str()
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap();
    let header = decode_header(token).unwrap();
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::RS256, Some("JWT")));
    let keys: JwkSet = cloud
        .http
        .get(&cloud.cloud.urls().jwks)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).expect("a published key")).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&["https://worker"]);
    validation.set_issuer(&["https://accounts.google.com"]);
    let claims: Value = decode(token, &key, &validation).expect("a good token").claims;
    assert_eq!(
        (&claims["email"], &claims["email_verified"]),
        (&json!(PUSH), &json!(true))
    );
    assert_eq!(claims["sub"], claims["azp"]);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    drained(&cloud, &name).await;
}

#[tokio::test]
async fn only_googles_five_statuses_acknowledge() {
    for (status, acknowledges) in [
        (200, true),
        (201, true),
        (202, true),
        (204, true),
        (203, false),
        (205, false),
        (302, false),
        (400, false),
        (429, false),
        (500, false),
    ] {
        let cloud = with_topic().await;
        let mut endpoint = Endpoint::answering(&[status]).await;
        let name = cloud.cloud.create_subscription(&subscription(&endpoint.url)).unwrap();
        cloud.cloud.publish("topic", b"x", &[]).unwrap();
        let first = endpoint.next().await.json();
        if acknowledges {
            drained(&cloud, &name).await;
        } else {
            assert_eq!(
                endpoint.next().await.json()["message"],
                first["message"],
                "{status} must be delivered again"
            );
            assert_eq!(cloud.cloud.backlog(&name).unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn silence_past_the_ack_deadline_is_a_nack() {
    let cloud = with_topic().await;
    let mut endpoint = Endpoint::answering(&[0, 204]).await;
    let name = cloud.cloud.create_subscription(&subscription(&endpoint.url)).unwrap();
    cloud.cloud.publish("topic", b"x", &[]).unwrap();
    endpoint.next().await;
    endpoint.next().await;
    drained(&cloud, &name).await;
}

#[tokio::test]
async fn failures_are_counted_then_dead_lettered() {
    let cloud = with_topic().await;
    let mut endpoint = Endpoint::answering(&[500]).await;
    let wanted = Subscription {
        dead_letter: Some(("dead", 5)),
        retry_seconds: Some((1, 2)),
        ..subscription(&endpoint.url)
    };
    let name = cloud.cloud.create_subscription(&wanted).unwrap();
    let mut dead = Endpoint::answering(&[204]).await;
    let wanted = Subscription {
        name: "dead-sub",
        topic: "dead",
        push_endpoint: Some(&dead.url),
        ..Subscription::default()
    };
    cloud.cloud.create_subscription(&wanted).unwrap();
    cloud.cloud.publish("topic", b"poison", &[("k", "v")]).unwrap();
    for attempt in 1..=5 {
        assert_eq!(endpoint.next().await.json()["deliveryAttempt"], attempt);
    }
    let letter = dead.next().await.json();
    assert_eq!(
        letter["message"]["attributes"]["CloudPubSubDeadLetterSourceDeliveryCount"],
        "5"
    );
    assert_eq!(letter["message"]["data"], "cG9pc29u");
    drained(&cloud, &name).await;
    endpoint.last.store(204, Ordering::Relaxed);
    cloud.cloud.publish("topic", b"next", &[]).unwrap();
    let next = endpoint.next().await.json();
    assert_eq!(
        (&next["message"]["data"], &next["deliveryAttempt"]),
        (&json!("bmV4dA=="), &json!(1))
    );
}

#[tokio::test]
async fn unwrapped_pushes_carry_the_bytes_alone() {
    for write_metadata in [false, true] {
        let cloud = with_topic().await;
        let mut endpoint = Endpoint::answering(&[204]).await;
        let wanted = Subscription {
            unwrapped: Some(write_metadata),
            ..subscription(&endpoint.url)
        };
        let name = cloud.cloud.create_subscription(&wanted).unwrap();
        let attributes = [("content-type", "text/x"), ("k", "v"), ("poison", "two\nlines")];
        let id = cloud
            .cloud
            .publish("topic", &[0xff, 0xfe, 0x00, 0x81], &attributes)
            .unwrap();
        let push = endpoint.next().await;
        assert_eq!(push.body.as_ref(), [0xff, 0xfe, 0x00, 0x81]);
        let header = |name: &str| push.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-goog-pubsub-message-id"), write_metadata.then_some(id));
        assert_eq!(
            header("x-goog-pubsub-subscription-name"),
            write_metadata.then(|| name.clone())
        );
        assert_eq!(header("x-goog-pubsub-publish-time").is_some(), write_metadata);
        assert_eq!(header("content-type"), write_metadata.then(|| "text/x".to_owned()));
        assert_eq!(header("k"), write_metadata.then(|| "v".to_owned()));
        assert_eq!(
            header("poison"),
            None,
            "no header can hold it, and it must not stop the pusher"
        );
        drained(&cloud, &name).await;
    }
}

#[tokio::test]
async fn a_burst_arrives_whole_once_each() {
    let cloud = with_topic().await;
    let mut endpoint = Endpoint::answering(&[204]).await;
    // An ack deadline that no busy machine can miss.
    let wanted = Subscription {
        ack_deadline_seconds: Some(600),
        ..subscription(&endpoint.url)
    };
    let name = cloud.cloud.create_subscription(&wanted).unwrap();
    let mut sent: Vec<String> = (0..300)
        .map(|_| cloud.cloud.publish("topic", b"x", &[]).unwrap())
        .collect();
    let mut received = Vec::new();
    for _ in 0..sent.len() {
        received.push(
            endpoint.next().await.json()["message"]["messageId"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    drained(&cloud, &name).await;
    assert!(endpoint.pushes.try_recv().is_err(), "no message came twice");
    sent.sort();
    received.sort();
    assert_eq!(sent, received);
}

#[tokio::test]
async fn scripted_failures_hit_pushes_too() {
    let cloud = with_topic().await;
    let mut endpoint = Endpoint::answering(&[204]).await;
    let wanted = Subscription {
        dead_letter: Some(("dead", 100)),
        ..subscription(&endpoint.url)
    };
    let rule = |effect: Value| json!({"peer": "push", "pathPrefix": "/push", "effect": effect});
    let faults = format!("{}/_faults", cloud.cloud.urls().pubsub);
    for effect in [
        json!({"reset": true}),
        json!({"status": 429}),
        json!({"loseAnswer": true}),
        json!({"cutRequestAfter": 10}),
    ] {
        let posted = cloud.http.post(&faults).json(&rule(effect)).send().await.unwrap();
        assert_eq!(posted.status(), 200);
    }
    let name = cloud.cloud.create_subscription(&wanted).unwrap();
    cloud.cloud.publish("topic", b"x", &[]).unwrap();
    let mut attempts = Vec::new();
    for _ in 0..2 {
        attempts.push(endpoint.next().await.json()["deliveryAttempt"].clone());
    }
    drained(&cloud, &name).await;
    assert_eq!(
        attempts,
        [3, 5],
        "the first two never left, the third's answer was lost, the fourth was cut off, the fifth acknowledged"
    );
}

#[tokio::test]
async fn an_attribute_cannot_reframe_an_unwrapped_push() {
    let cloud = with_topic().await;
    let mut endpoint = Endpoint::answering(&[204]).await;
    let wanted = Subscription {
        unwrapped: Some(true),
        ..subscription(&endpoint.url)
    };
    cloud.cloud.create_subscription(&wanted).unwrap();
    for (name, value) in [
        ("content-length", "2"),
        ("Content-Length", "500"),
        ("transfer-encoding", "chunked"),
        ("host", "elsewhere"),
        ("expect", "100-continue"),
        ("Connection", "close"),
    ] {
        let attributes = [(name, value), ("kept", "too")];
        cloud.cloud.publish("topic", b"the whole body", &attributes).unwrap();
        let push = endpoint.next().await;
        assert_eq!(push.body, "the whole body", "{name}");
        assert_eq!(push.headers["kept"], "too");
        assert_ne!(
            push.headers.get(name).map(axum::http::HeaderValue::as_bytes),
            Some(value.as_bytes()),
            "{name}"
        );
    }
}
