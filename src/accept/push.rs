//! From headers and bytes to a message: the ways in which an event can arrive, told apart by content.
//!
//! The order is the contract's: CloudEvents in binary and structured mode, Pub/Sub's wrapper, and a bare message.
//! Google's envelopes gain fields now and then, so unknown ones are passed over here; our own job is strict.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::error::{Refusal, RefusalKind};

/// What arrived, whatever wrapped it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Pub/Sub's message id, or the CloudEvent's.
    pub id: Option<String>,
    /// When it was published.
    pub published: Option<DateTime<Utc>>,
    /// Which delivery this is, counted from 1; Pub/Sub counts only where the subscription has a dead-letter policy.
    pub delivery_attempt: Option<u32>,
    /// The subscription that delivers it: `projects/P/subscriptions/S`.
    pub subscription: Option<String>,
    /// What it says.
    pub payload: Payload,
}

/// What a message says, not yet understood. `Debug` shows how much, not what: anything may be in it.
#[derive(Clone, PartialEq)]
pub enum Payload {
    /// A Pub/Sub message's data and attributes. Data that is not base64 is kept as the sentence that says so: it
    /// fails the job, not the request.
    Data {
        /// The data's bytes.
        data: Result<Vec<u8>, String>,
        /// The attributes.
        attributes: BTreeMap<String, String>,
    },
    /// A storage event as a CloudEvent: its type and the object's resource.
    StorageEvent {
        /// The last part of the type, such as `finalized`.
        kind: String,
        /// The object resource; null when it cannot be read.
        resource: Value,
    },
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data {
                data: Ok(data),
                attributes,
            } => {
                write!(f, "{} bytes of data, {} attributes", data.len(), attributes.len())
            }
            Self::Data { data: Err(reason), .. } => f.write_str(reason),
            Self::StorageEvent { kind, .. } => write!(f, "a storage event {kind:?}"),
        }
    }
}

/// Google writes standard base64; its emulator also takes the URL-safe alphabet, and padding is not always there.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const STORAGE_EVENT: &str = "google.cloud.storage.object.v1.";
const MESSAGE_PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";

/// Reads the envelope.
///
/// # Errors
/// [`RefusalKind::NotAnEvent`] for what is no event at all.
pub fn push(headers: &HeaderMap, body: &[u8]) -> Result<Message, Refusal> {
    if let Some(kind) = text(headers, "ce-type") {
        let event = CloudEvent {
            kind,
            id: text(headers, "ce-id"),
            time: text(headers, "ce-time"),
        };
        return event.message(json(body));
    }
    let content_type = text(headers, "content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/cloudevents+json") {
        return structured(json(body)?);
    }
    if headers.keys().any(|name| name.as_str().starts_with("x-goog-pubsub-")) {
        return Ok(unwrapped(headers, body));
    }
    match json(body)? {
        Value::Object(envelope) if envelope.contains_key("message") => wrapped(&envelope),
        Value::Object(object) if object.contains_key("source") || is_object_resource(&object) => Ok(Message {
            id: None,
            published: None,
            delivery_attempt: None,
            subscription: None,
            payload: Payload::Data {
                data: Ok(body.to_vec()),
                attributes: BTreeMap::new(),
            },
        }),
        _ => Err(not_an_event(
            "the body is JSON, but no Pub/Sub message, CloudEvent, object resource or job",
        )),
    }
}

/// Whether this is Cloud Storage's object resource.
pub(super) fn is_object_resource(object: &Map<String, Value>) -> bool {
    object.get("bucket").is_some_and(Value::is_string) && object.get("name").is_some_and(Value::is_string)
}

struct CloudEvent {
    kind: String,
    id: Option<String>,
    time: Option<String>,
}

impl CloudEvent {
    /// Data that cannot be read fails the job where the envelope says that it is one, and is no event at all where the
    /// data is the envelope.
    fn message(self, data: Result<Value, Refusal>) -> Result<Message, Refusal> {
        if let Some(kind) = self.kind.strip_prefix(STORAGE_EVENT) {
            return Ok(Message {
                id: self.id,
                published: self.time.as_deref().and_then(time),
                delivery_attempt: None,
                subscription: None,
                payload: Payload::StorageEvent {
                    kind: kind.to_owned(),
                    resource: data.unwrap_or_default(),
                },
            });
        }
        if self.kind == MESSAGE_PUBLISHED {
            let Value::Object(envelope) = data? else {
                return Err(not_an_event("the CloudEvent's data is no Pub/Sub message"));
            };
            let mut message = wrapped(&envelope)?;
            message.id = message.id.or(self.id);
            return Ok(message);
        }
        Err(not_an_event(&format!(
            "the CloudEvent's type {:?} is neither {STORAGE_EVENT}finalized nor {MESSAGE_PUBLISHED}",
            self.kind
        )))
    }
}

fn structured(event: Value) -> Result<Message, Refusal> {
    let Value::Object(mut event) = event else {
        return Err(not_an_event(
            "a structured CloudEvent is a JSON object, and this is none",
        ));
    };
    let string = |name: &str| event.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(kind) = string("type") else {
        return Err(not_an_event("the structured CloudEvent has no type"));
    };
    let outer = CloudEvent {
        kind,
        id: string("id"),
        time: string("time"),
    };
    let data = match (event.remove("data"), event.get("data_base64").and_then(Value::as_str)) {
        (Some(data), _) => Ok(data),
        (None, Some(encoded)) => decode_base64(encoded)
            .map_err(|reason| not_an_event(&reason))
            .and_then(|data| json(&data)),
        (None, None) => return Err(not_an_event("the structured CloudEvent has no data")),
    };
    outer.message(data)
}

fn wrapped(envelope: &Map<String, Value>) -> Result<Message, Refusal> {
    let Some(message) = envelope.get("message").and_then(Value::as_object) else {
        return Err(not_an_event("\"message\" is not a JSON object"));
    };
    if !message.contains_key("data") && !message.contains_key("attributes") {
        return Err(not_an_event("the message has neither data nor attributes"));
    }
    let data = match message.get("data") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(encoded)) => decode_base64(encoded),
        Some(_) => return Err(not_an_event("the message's data is not a string")),
    };
    let mut attributes = BTreeMap::new();
    match message.get("attributes") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (name, value) in map {
                let Some(value) = value.as_str() else {
                    return Err(not_an_event(&format!(
                        "the message's attribute {name:?} is not a string"
                    )));
                };
                attributes.insert(name.clone(), value.to_owned());
            }
        }
        Some(_) => return Err(not_an_event("the message's attributes are not a JSON object")),
    }
    let string = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| message.get(*name)?.as_str())
            .map(str::to_owned)
    };
    // Of a CloudEvent in attributes, its own id and time serve where the message has none.
    let id = string(["messageId", "message_id"]).or_else(|| attributes.get("ce-id").cloned());
    let published = string(["publishTime", "publish_time"])
        .as_ref()
        .or_else(|| attributes.get("ce-time"))
        .and_then(|text| time(text));
    let delivery_attempt = envelope
        .get("deliveryAttempt")
        .and_then(Value::as_u64)
        .and_then(|attempt| u32::try_from(attempt).ok());
    let subscription = envelope.get("subscription").and_then(Value::as_str).map(str::to_owned);
    let payload = payload(data, attributes)?;
    Ok(Message {
        id,
        published,
        delivery_attempt,
        subscription,
        payload,
    })
}

/// Eventarc falls back to a wrapped push with the CloudEvent's attributes on the message where one of them cannot be
/// an HTTP header: a blank at the end of an id was seen.
fn payload(data: Result<Vec<u8>, String>, attributes: BTreeMap<String, String>) -> Result<Payload, Refusal> {
    let Some(kind) = attributes.get("ce-type") else {
        return Ok(Payload::Data { data, attributes });
    };
    if let Some(kind) = kind.strip_prefix(STORAGE_EVENT) {
        let resource = data.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        return Ok(Payload::StorageEvent {
            kind: kind.to_owned(),
            resource: resource.unwrap_or_default(),
        });
    }
    if kind == MESSAGE_PUBLISHED
        && let Ok(bytes) = &data
        && let Ok(Value::Object(inner)) = serde_json::from_slice(bytes)
        && inner.contains_key("message")
    {
        return wrapped(&inner).map(|message| message.payload);
    }
    Ok(Payload::Data { data, attributes })
}

fn unwrapped(headers: &HeaderMap, body: &[u8]) -> Message {
    // Attributes become headers under their own names, in lower case, beside the request's; only those that mean
    // something here are taken.
    let attributes = ["eventType", "bucketId", "objectId", "objectGeneration", "payloadFormat"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), text(headers, &name.to_ascii_lowercase())?)))
        .collect();
    Message {
        id: text(headers, "x-goog-pubsub-message-id"),
        published: text(headers, "x-goog-pubsub-publish-time").as_deref().and_then(time),
        delivery_attempt: text(headers, "x-goog-pubsub-delivery-attempt").and_then(|attempt| attempt.parse().ok()),
        subscription: text(headers, "x-goog-pubsub-subscription-name"),
        payload: Payload::Data {
            data: Ok(body.to_vec()),
            attributes,
        },
    }
}

fn decode_base64(encoded: &str) -> Result<Vec<u8>, String> {
    let standard = encoded.replace('-', "+").replace('_', "/");
    BASE64
        .decode(standard)
        .map_err(|error| format!("the message's data is not base64: {error}"))
}

fn json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| not_an_event(&format!("the body is not JSON: {error}")))
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.with_timezone(&Utc))
}

/// A header's value as text; object names in attribute headers are raw UTF-8.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    std::str::from_utf8(headers.get(name)?.as_bytes())
        .ok()
        .map(str::to_owned)
}

fn not_an_event(reason: &str) -> Refusal {
    Refusal::new(RefusalKind::NotAnEvent, format!("This is not an event: {reason}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    axum::http::HeaderName::from_static(name),
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_wrapped_message_may_lack_nearly_everything() {
        let body = br#"{"message":{"data":"aGVsbG8"},"extra":1}"#;
        let message = push(&HeaderMap::new(), body).unwrap();
        assert_eq!(
            message.payload,
            Payload::Data {
                data: Ok(b"hello".to_vec()),
                attributes: BTreeMap::new()
            }
        );
        assert_eq!((message.id, message.delivery_attempt), (None, None));
        let body = br#"{"message":{"attributes":{"k":"v"},"message_id":"7","publish_time":"2026-01-01T00:00:00.123456789Z"},"deliveryAttempt":3}"#;
        let message = push(&HeaderMap::new(), body).unwrap();
        assert_eq!(message.id.as_deref(), Some("7"));
        assert_eq!(message.delivery_attempt, Some(3));
        assert!(message.published.is_some());
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_reason() {
        for (body, part) in [
            ("", "not JSON"),
            ("[]", "no Pub/Sub message"),
            ("{}", "no Pub/Sub message"),
            (r#"{"message":5}"#, "not a JSON object"),
            (r#"{"message":{"messageId":"1"}}"#, "neither data nor attributes"),
            (r#"{"message":{"data":5}}"#, "not a string"),
            (r#"{"message":{"attributes":{"a":1}}}"#, "\"a\""),
        ] {
            let refusal = push(&HeaderMap::new(), body.as_bytes()).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::NotAnEvent);
            assert!(refusal.message.contains(part), "{body}: {}", refusal.message);
        }
    }

    #[test]
    fn data_that_is_not_base64_fails_the_job_not_the_request() {
        let message = push(&HeaderMap::new(), br#"{"message":{"data":"***"}}"#).unwrap();
        assert!(matches!(message.payload, Payload::Data { data: Err(_), .. }));
    }

    #[test]
    fn cloud_events_arrive_in_both_modes_and_in_attributes() {
        let resource = serde_json::json!({"bucket":"in","name":"a.docx","generation":"5"});
        let expected = Payload::StorageEvent {
            kind: "finalized".to_owned(),
            resource: resource.clone(),
        };
        let binary = headers(&[("ce-type", "google.cloud.storage.object.v1.finalized"), ("ce-id", "9")]);
        let message = push(&binary, resource.to_string().as_bytes()).unwrap();
        assert_eq!((message.payload, message.id.as_deref()), (expected.clone(), Some("9")));
        let structured = serde_json::json!({"specversion":"1.0","type":"google.cloud.storage.object.v1.finalized","id":"9","data":resource});
        let content_type = headers(&[("content-type", "application/cloudevents+json; charset=utf-8")]);
        assert_eq!(
            push(&content_type, structured.to_string().as_bytes()).unwrap().payload,
            expected
        );
        let data = base64::engine::general_purpose::STANDARD.encode(resource.to_string());
        let fallback = serde_json::json!({"message":{"data":data,"attributes":{"ce-type":"google.cloud.storage.object.v1.finalized","ce-id":"9 "}}});
        assert_eq!(
            push(&HeaderMap::new(), fallback.to_string().as_bytes())
                .unwrap()
                .payload,
            expected
        );
    }

    #[test]
    fn a_bare_message_brings_its_attributes_as_headers() {
        let headers = headers(&[
            ("x-goog-pubsub-message-id", "1"),
            ("eventtype", "OBJECT_FINALIZE"),
            ("bucketid", "in"),
            ("objectid", "é.docx"),
        ]);
        let message = push(&headers, b"").unwrap();
        let Payload::Data { attributes, .. } = message.payload else {
            panic!("not data")
        };
        assert_eq!(attributes["objectId"], "é.docx");
    }
}
