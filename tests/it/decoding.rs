//! Every form in which an event may arrive says the same, and requests recorded from Google's services and its emulator
//! are understood.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use platen::accept::{Event, Message, Payload, decode, push};
use platen::error::{FailureCode, RefusalKind};
use serde_json::{Value, json};

use crate::sign::shared;

const NAME: &str = "None/Care Plus.pdf";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

fn resource() -> Value {
    json!({
        "kind": "storage#object", "bucket": "in", "name": NAME, "generation": "17", "metageneration": "1",
        "size": "1028818", "somethingNew": {"a": [1]},
    })
}

fn attributes() -> Value {
    json!({
        "eventType": "OBJECT_FINALIZE", "bucketId": "in", "objectId": NAME, "objectGeneration": "17",
        "payloadFormat": "NONE", "overwroteGeneration": "16", "somethingNew": "x",
    })
}

fn cloud_event(kind: &str, data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": "7", "source": "//storage.googleapis.com/projects/_/buckets/in", "type": kind,
        "time": "2026-01-01T00:00:00Z", "subject": "objects/another name", "datacontenttype": "application/json",
        "somethingnew": 1, "data": data,
    })
}

/// What a request asks for, as far as it can be told without a configuration.
fn event(headers: &HeaderMap, body: &[u8]) -> Event {
    let message = push(headers, body).unwrap();
    decode(&message.payload).unwrap()
}

const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
const PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";

#[test]
fn every_form_of_the_contract_says_the_same() {
    let resource = resource().to_string();
    let data = STANDARD.encode(&resource);
    let wrapped = json!({
        "message": {"data": data, "attributes": attributes(), "messageId": "7", "somethingNew": true},
        "subscription": "projects/p/subscriptions/s", "deliveryAttempt": 2, "somethingNew": null,
    });
    let in_attributes = json!({"message": {"data": data, "attributes": {
        "ce-specversion": "1.0", "ce-id": "7 ", "ce-type": FINALIZED, "ce-subject": "objects/another name",
    }}});
    let published_in_attributes = json!({"message": {
        "data": STANDARD.encode(wrapped.to_string()), "attributes": {"ce-type": PUBLISHED},
    }});
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-type", FINALIZED),
        ("ce-subject", "objects/x"),
    ];
    let published = [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-type", PUBLISHED)];
    let structured = [("content-type", "Application/CloudEvents+JSON; charset=UTF-8")];
    let mut base64 = cloud_event(FINALIZED, &Value::Null);
    base64.as_object_mut().unwrap().remove("data");
    base64["data_base64"] = data.clone().into();
    let unwrapped = [
        ("x-goog-pubsub-message-id", "7"),
        ("x-goog-pubsub-subscription-name", "projects/p/subscriptions/s"),
        ("x-goog-ordering-key", "k"),
        ("eventtype", "OBJECT_FINALIZE"),
        ("bucketid", "in"),
        ("objectid", NAME),
        ("objectgeneration", "17"),
    ];
    let bare = |object: &Value| json!({"message": {"data": STANDARD.encode(object.to_string())}}).to_string();
    let job = json!({"source": format!("gs://in/{NAME}"), "generation": "17"});
    let forms: Vec<(&str, HeaderMap, String)> = vec![
        ("CloudEvent, binary", headers(&binary), resource.clone()),
        (
            "Eventarc's messagePublished, binary",
            headers(&published),
            wrapped.to_string(),
        ),
        (
            "CloudEvent, structured",
            headers(&structured),
            cloud_event(FINALIZED, &self::resource()).to_string(),
        ),
        (
            "CloudEvent, structured, base64",
            headers(&structured),
            base64.to_string(),
        ),
        (
            "messagePublished, structured",
            headers(&structured),
            cloud_event(PUBLISHED, &wrapped).to_string(),
        ),
        ("Pub/Sub, wrapped", HeaderMap::new(), wrapped.to_string()),
        (
            "wrapped, CloudEvent in attributes",
            HeaderMap::new(),
            in_attributes.to_string(),
        ),
        (
            "wrapped, messagePublished in attributes",
            HeaderMap::new(),
            published_in_attributes.to_string(),
        ),
        (
            "wrapped, attributes alone",
            HeaderMap::new(),
            json!({"message": {"attributes": attributes()}}).to_string(),
        ),
        (
            "wrapped, without padding",
            HeaderMap::new(),
            json!({"message": {"data": URL_SAFE_NO_PAD.encode(&resource)}}).to_string(),
        ),
        ("wrapped, resource alone", HeaderMap::new(), bare(&self::resource())),
        ("wrapped, job", HeaderMap::new(), bare(&job)),
        ("unwrapped with metadata", headers(&unwrapped), resource.clone()),
        (
            "unwrapped with metadata, no payload",
            headers(&unwrapped),
            String::new(),
        ),
        (
            "unwrapped, a job",
            headers(&[("x-goog-pubsub-publish-time", "2026-01-01T00:00:00Z")]),
            job.to_string(),
        ),
        ("unwrapped, bare", HeaderMap::new(), resource.clone()),
        ("a job as it is", HeaderMap::new(), job.to_string()),
    ];
    for (about, headers, body) in forms {
        let source = event(&headers, body.as_bytes()).source().unwrap();
        assert_eq!(source.display(), format!("gs://in/{NAME}#17"), "{about}");
        let asks_for_a_job = matches!(event(&headers, body.as_bytes()), Event::Job(_));
        assert_eq!(asks_for_a_job, about.contains("job"), "{about}");
    }
}

#[test]
fn what_happens_to_an_object_otherwise_is_no_job_in_any_form() {
    for kind in ["deleted", "archived", "metadataUpdated"] {
        let kind = format!("google.cloud.storage.object.v1.{kind}");
        let forms = [
            (headers(&[("ce-type", &kind), ("ce-id", "1")]), resource().to_string()),
            (headers(&[("ce-type", &kind), ("ce-id", "1")]), String::new()),
            (
                headers(&[("content-type", "application/cloudevents+json")]),
                cloud_event(&kind, &resource()).to_string(),
            ),
            (
                HeaderMap::new(),
                json!({"message": {"attributes": {"ce-type": kind}}}).to_string(),
            ),
        ];
        for (headers, body) in forms {
            assert!(
                matches!(event(&headers, body.as_bytes()), Event::OtherEvent(_)),
                "{kind}: {body}"
            );
        }
    }
}

#[test]
fn content_that_cannot_be_read_fails_the_job_and_a_broken_envelope_the_request() {
    let binary = headers(&[("ce-type", FINALIZED), ("ce-id", "1")]);
    let structured = headers(&[("content-type", "application/cloudevents+json")]);
    let mut bad_base64 = cloud_event(FINALIZED, &Value::Null);
    bad_base64.as_object_mut().unwrap().remove("data");
    bad_base64["data_base64"] = "***".into();
    let in_attributes = json!({"message": {"data": "***", "attributes": {"ce-type": FINALIZED}}});
    for (headers, body) in [
        (&binary, "{".to_owned()),
        (&binary, "[]".to_owned()),
        (&binary, json!({"bucket": "in"}).to_string()),
        (
            &binary,
            json!({"bucket": "in", "name": "a", "generation": "-1"}).to_string(),
        ),
        (&binary, json!({"bucket": "in", "name": "a\nb"}).to_string()),
        (&binary, json!({"bucket": "../in", "name": "a"}).to_string()),
        (&structured, bad_base64.to_string()),
        (&structured, cloud_event(FINALIZED, &json!("text")).to_string()),
        (&structured, json!({"type": FINALIZED}).to_string()),
        (&HeaderMap::new(), in_attributes.to_string()),
        (
            &HeaderMap::new(),
            json!({"source": "gs://in/a", "colour": 1}).to_string(),
        ),
        (
            &HeaderMap::new(),
            r#"{"source":"gs://in/a","source":"gs://in/b"}"#.to_owned(),
        ),
    ] {
        let message = push(headers, body.as_bytes()).unwrap();
        let failure = decode(&message.payload).unwrap_err();
        assert_eq!(failure.code, FailureCode::MessageInvalid, "{body}");
    }
    let colour = push(&HeaderMap::new(), br#"{"source":"gs://in/a","colour":1}"#).unwrap();
    assert!(decode(&colour.payload).unwrap_err().message.contains("colour"));
    let published = headers(&[("ce-type", PUBLISHED)]);
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    for (headers, body) in [
        (&published, "{"),
        (&published, "{}"),
        (&structured, "{}"),
        (&headers(&[("ce-type", "com.example.other")]), "{}"),
        (
            &headers(&[("content-type", "application/cloudevents-batch+json")]),
            "[]",
        ),
        (&HeaderMap::new(), deep.as_str()),
        (&HeaderMap::new(), "hello"),
    ] {
        assert_eq!(
            push(headers, body.as_bytes()).unwrap_err().kind,
            RefusalKind::NotAnEvent,
            "{body:.80}"
        );
    }
}

/// A recorded request's headers and body.
fn recorded(bytes: &[u8]) -> (HeaderMap, &[u8]) {
    let (end, gap) = [(&b"\r\n\r\n"[..], 4), (b"\n\n", 2)]
        .into_iter()
        .find_map(|(mark, gap)| Some((bytes.windows(gap).position(|window| window == mark)?, gap)))
        .unwrap();
    let mut map = HeaderMap::new();
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        let value = line[colon + 1..].trim_ascii();
        map.append(
            HeaderName::from_bytes(&line[..colon]).unwrap(),
            HeaderValue::from_bytes(value).unwrap(),
        );
    }
    (map, &bytes[end + gap..])
}

#[test]
fn recorded_requests_are_understood() {
    let Some(captures) = shared()
        .map(|shared| shared.join("captures"))
        .filter(|path| path.is_dir())
    else {
        println!("skipped: no ../shared/captures (set PLATEN_SHARED)");
        return;
    };
    let read = |name: &str| std::fs::read(captures.join(name)).unwrap();
    let notification = format!("gs://example-in/{NAME}#1736358966947877");

    let wrapped = read("gcs-notification-wrapped-realshape-redacted.json");
    let message = push(&HeaderMap::new(), &wrapped).unwrap();
    assert_eq!(message.id.as_deref(), Some("13500356927496703"));
    assert!(message.published.is_some());
    let event = decode(&message.payload).unwrap();
    assert!(matches!(&event, Event::Finalized { source, ours: false } if source.display() == notification));
    let payload = read("gcs-notification-payload-realshape-redacted.json");
    let event = decode(&push(&HeaderMap::new(), &payload).unwrap().payload).unwrap();
    assert!(matches!(&event, Event::Finalized { source, ours: false } if source.display() == notification));

    let mut seen = 0;
    for entry in std::fs::read_dir(&captures).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("pubsub-emulator-push-") && !name.starts_with("eventarc-") {
            continue;
        }
        seen += 1;
        let bytes = read(&name);
        let (headers, body) = recorded(&bytes);
        let outcome = push(&headers, body);
        if name == "pubsub-emulator-push-nowrapper.http" {
            // Without wrapper and metadata only an object resource or a job can be told from noise.
            assert_eq!(outcome.unwrap_err().kind, RefusalKind::NotAnEvent, "{name}");
            continue;
        }
        let Message {
            id,
            published,
            payload: Payload::Data { data, attributes },
            ..
        } = outcome.unwrap()
        else {
            panic!("{name}: not a message")
        };
        assert!(published.is_some(), "{name}");
        let expected = match name.as_str() {
            "eventarc-pubsub-headers-realshape.http" => {
                // The recording says "..." for its data.
                assert!(data.unwrap_err().contains("base64"));
                assert_eq!(id.as_deref(), Some("20090163454824831"));
                continue;
            }
            "pubsub-emulator-push-deadletter-forwarded.http" => {
                ("252", "dl", Some("CloudPubSubDeadLetterSourceDeliveryCount"))
            }
            "pubsub-emulator-push-wrapped-attributes-only.http" => ("2", "", Some("only")),
            "pubsub-emulator-push-wrapped-orderingkey-attrless.http"
            | "pubsub-emulator-push-nowrapper-writemetadata-orderingkey.http" => ("2", "{\"a\":1}", None),
            // The emulator damages bytes that are not UTF-8 before they are sent.
            "pubsub-emulator-push-nowrapper-binary-LOSSY.http" => ("1", "\u{fffd}\u{fffd}\0\u{fffd}", None),
            "pubsub-emulator-push-nowrapper-writemetadata-attrs.http" => ("1", "hello", None),
            _ => ("1", "hello", Some("Uni")),
        };
        assert_eq!(id.as_deref(), Some(expected.0), "{name}");
        assert_eq!(data.unwrap(), expected.1.as_bytes(), "{name}");
        assert!(
            expected.2.is_none_or(|attribute| attributes.contains_key(attribute)),
            "{name}: {attributes:?}"
        );
    }
    assert!(seen >= 10, "{seen} recordings");
}
