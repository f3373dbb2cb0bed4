//! From a message to what it asks for.

use serde_json::{Map, Value};

use super::push::{Payload, is_object_resource};
use crate::error::{Failure, FailureCode};
use crate::job::{self, Source};

/// What a message asks for.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object has been written.
    Finalized {
        /// The object.
        source: Source,
        /// Whether its metadata says that Platen wrote it.
        ours: bool,
    },
    /// Something else happened to an object.
    OtherEvent(String),
    /// Somebody wants a conversion.
    Job(job::Request),
}

impl Event {
    /// The object that the event is about, as far as it can be told.
    pub fn source(&self) -> Option<Source> {
        match self {
            Self::Finalized { source, .. } => Some(source.clone()),
            Self::Job(request) => request.source().ok(),
            Self::OtherEvent(_) => None,
        }
    }
}

/// The metadata key that marks an object as Platen's own output.
pub(crate) const JOB_METADATA: &str = "platen-job";

/// Understands a message.
///
/// # Errors
/// `message.invalid` when the content cannot be decoded.
pub fn decode(payload: &Payload) -> Result<Event, Failure> {
    match payload {
        Payload::StorageEvent { kind, resource } if kind == "finalized" => finalized(resource),
        Payload::StorageEvent { kind, .. } => Ok(Event::OtherEvent(kind.clone())),
        Payload::Data { data, attributes } => {
            if let (Some(bucket), Some(name)) = (attributes.get("bucketId"), attributes.get("objectId")) {
                // Without an object it is an attribute of somebody's own, beside a job that must not be lost.
                if let Some(kind) = attributes.get("eventType").filter(|kind| *kind != "OBJECT_FINALIZE") {
                    return Ok(Event::OtherEvent(kind.clone()));
                }
                let generation = attributes
                    .get("objectGeneration")
                    .map(|text| Value::String(text.clone()));
                // The payload is a second opinion: it may be absent (payload format NONE), and adds the metadata.
                let resource = data
                    .as_ref()
                    .ok()
                    .and_then(|data| serde_json::from_slice::<Map<String, Value>>(data).ok());
                let generation = generation.or_else(|| resource.as_ref()?.get("generation").cloned());
                let source = source(bucket, name, generation.as_ref())?;
                return Ok(Event::Finalized {
                    source,
                    ours: resource.is_some_and(|resource| is_ours(&resource)),
                });
            }
            let data = data.as_ref().map_err(|reason| invalid(sentence(reason)))?;
            if data.is_empty() {
                return Err(invalid(
                    "The message has no data, and no bucketId and objectId attributes.".to_owned(),
                ));
            }
            match serde_json::from_slice::<Value>(data) {
                Ok(Value::Object(object)) if is_object_resource(&object) && !object.contains_key("source") => {
                    finalized(&Value::Object(object))
                }
                _ => job::Request::from_json(data).map(Event::Job),
            }
        }
    }
}

/// What a message says of itself that cannot be decoded: enough that whoever sent it knows it again.
#[derive(Debug, Default)]
pub struct Glimpse {
    /// The object, where it names one.
    pub source: Option<Source>,
    /// What its result is to echo.
    pub user_data: Option<Value>,
}

/// Reads what can be read of a message that [`decode`] refuses.
pub fn glimpse(payload: &Payload) -> Glimpse {
    let object = |data: &[u8]| serde_json::from_slice::<Map<String, Value>>(data).unwrap_or_default();
    let (fields, attributes) = match payload {
        Payload::StorageEvent { resource, .. } => (resource.as_object().cloned().unwrap_or_default(), None),
        Payload::Data { data, attributes } => (data.as_deref().map(object).unwrap_or_default(), Some(attributes)),
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let named = |bucket: &str, name: &str, generation: Option<&Value>| {
        source(bucket, name, generation)
            .or_else(|_| source(bucket, name, None))
            .ok()
    };
    let attribute = |name: &str| attributes.and_then(|attributes| attributes.get(name));
    let source = match (attribute("bucketId"), attribute("objectId")) {
        (Some(bucket), Some(name)) => named(bucket, name, None),
        _ => match text("source") {
            Some(url) => url
                .parse()
                .ok()
                .and_then(|job::ObjectAddress { bucket, name }| named(&bucket, &name, fields.get("generation"))),
            None => named(
                text("bucket").unwrap_or_default(),
                text("name").unwrap_or_default(),
                fields.get("generation"),
            ),
        },
    };
    let user_data = fields.get("userData").filter(|data| job::may_echo(data)).cloned();
    Glimpse { source, user_data }
}

fn finalized(resource: &Value) -> Result<Event, Failure> {
    let object = resource.as_object().filter(|object| is_object_resource(object));
    let Some(object) = object else {
        return Err(invalid(
            "The storage event carries no object resource with a bucket and a name.".to_owned(),
        ));
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let source = source(text("bucket"), text("name"), object.get("generation"))?;
    Ok(Event::Finalized {
        source,
        ours: is_ours(object),
    })
}

fn source(bucket: &str, name: &str, generation: Option<&Value>) -> Result<Source, Failure> {
    if !job::is_bucket_name(bucket) || !job::is_object_name(name) {
        return Err(invalid(format!(
            "The event names no object: bucket {bucket:?}, a name of {} bytes.",
            name.len()
        )));
    }
    let generation = match generation {
        None | Some(Value::Null) => None,
        Some(value) => Some(job::parse_generation(value).ok_or_else(|| {
            invalid(format!(
                "The event's generation {value} is not a positive whole number."
            ))
        })?),
    };
    Ok(Source {
        bucket: bucket.to_owned(),
        name: name.to_owned(),
        generation,
    })
}

fn is_ours(resource: &Map<String, Value>) -> bool {
    resource
        .get("metadata")
        .and_then(Value::as_object)
        .is_some_and(|metadata| metadata.contains_key(JOB_METADATA))
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureCode::MessageInvalid, message)
}

fn sentence(reason: &str) -> String {
    let mut characters = reason.chars();
    characters.next().map_or_else(String::new, |first| {
        format!("{}{}.", first.to_uppercase(), characters.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str, attributes: &[(&str, &str)]) -> Payload {
        Payload::Data {
            data: Ok(json.as_bytes().to_vec()),
            attributes: attributes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn notifications_name_their_generation() {
        let attributes = [
            ("eventType", "OBJECT_FINALIZE"),
            ("bucketId", "in"),
            ("objectId", "a/b.docx"),
            ("objectGeneration", "17"),
        ];
        let Ok(Event::Finalized { source, ours: false }) = decode(&data("", &attributes)) else {
            panic!("no source")
        };
        assert_eq!(source.display(), "gs://in/a/b.docx#17");
    }

    #[test]
    fn two_attributes_are_enough() {
        let Ok(Event::Finalized { source, .. }) = decode(&data("", &[("bucketId", "in"), ("objectId", "a")])) else {
            panic!("no source")
        };
        assert_eq!(source.generation, None);
    }

    #[test]
    fn the_payload_tells_our_own_outputs() {
        let attributes = [
            ("eventType", "OBJECT_FINALIZE"),
            ("bucketId", "in"),
            ("objectId", "a"),
            ("objectGeneration", "1"),
        ];
        let ours = decode(&data(r#"{"metadata":{"platen-job":"x"}}"#, &attributes));
        assert!(matches!(ours, Ok(Event::Finalized { ours: true, .. })));
    }

    #[test]
    fn generations_are_strings_or_numbers() {
        for generation in ["\"5\"", "5"] {
            let body = format!(r#"{{"kind":"storage#object","bucket":"in","name":"a","generation":{generation}}}"#);
            let Ok(Event::Finalized { source, .. }) = decode(&data(&body, &[])) else {
                panic!("no source")
            };
            assert_eq!(source.generation, Some(5));
        }
    }

    #[test]
    fn other_events_are_no_jobs() {
        for kind in ["OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_METADATA_UPDATE"] {
            let event = decode(&data("", &[("eventType", kind), ("bucketId", "in"), ("objectId", "a")]));
            assert!(matches!(event, Ok(Event::OtherEvent(_))));
        }
    }

    #[test]
    fn an_event_type_of_somebodys_own_loses_no_job() {
        let job = data(r#"{"source":"gs://in/a.docx"}"#, &[("eventType", "order.created")]);
        assert!(matches!(decode(&job), Ok(Event::Job(_))));
    }

    #[test]
    fn what_cannot_be_decoded_is_invalid() {
        for payload in [
            data("", &[]),
            data("hello", &[]),
            data("[]", &[]),
            data(r#"{"source":5}"#, &[]),
            data("", &[("bucketId", "in"), ("objectId", "a"), ("objectGeneration", "x")]),
            data("", &[("bucketId", "in"), ("objectId", "")]),
            Payload::Data {
                data: Err("the message's data is not base64".to_owned()),
                attributes: Default::default(),
            },
        ] {
            assert_eq!(
                decode(&payload).unwrap_err().code,
                FailureCode::MessageInvalid,
                "{payload:?}"
            );
        }
    }
}
