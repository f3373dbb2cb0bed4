//! `compose`: one object out of up to 32 of the same bucket, one after the other. gcloud uploads large files so.

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
    response::Response,
};
use bytes::BytesMut;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        Refusal, World,
        server::{Request, json as json_answer, lock},
    },
    body, bucket_and_object, fields_of, may_replace, notify, permit, preconditions, resource,
    store::{Content, Fields, Preconditions, Store},
    unknown_method,
};

const MOST_SOURCES: usize = 32;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    name: String,
    #[serde(default)]
    generation: Value,
    #[serde(default)]
    object_preconditions: Value,
}

/// The target of a raw path `BUCKET/o/OBJECT/compose`; none if it is no such path.
pub(super) fn target(path: &str) -> Option<(String, String)> {
    bucket_and_object(path.strip_suffix("/compose")?).ok()
}

pub(super) fn handle(
    world: &World,
    request: &Request,
    caller: Option<&str>,
    (bucket, name): (&str, &str),
) -> Result<Response, Refusal> {
    if request.method != "POST" {
        return Err(unknown_method());
    }
    permit(world, caller, "storage.objects.get", bucket)?;
    let conditions = preconditions(request)?;
    may_replace(world, caller, (bucket, name), &conditions)?;
    let body = body(request)?;
    let sources: Vec<Source> = serde_json::from_value(body["sourceObjects"].clone())
        .map_err(|_| Refusal::required("Required parameter: sourceObjects"))?;
    if sources.is_empty() {
        return Err(Refusal::required(
            "You must provide at least one source component, and at most 32.",
        ));
    }
    if sources.len() > MOST_SOURCES {
        let given = sources.len();
        return Err(Refusal::invalid(format!(
            "The number of source components provided ({given}) exceeds the maximum ({MOST_SOURCES})"
        )));
    }
    let fields = match &body["destination"] {
        Value::Null => Fields::default(),
        destination => fields_of(destination)?,
    };
    let (object, changes) = {
        let mut store = lock(&world.storage.store);
        let content = composed(&store, bucket, &sources)?;
        store.insert((bucket, name), fields, content, &conditions, &world.clock)?
    };
    notify::publish(world, bucket, &changes);
    Ok(json_answer(StatusCode::OK, &resource::object(world, bucket, &object)))
}

fn composed(store: &Store, bucket: &str, sources: &[Source]) -> Result<Content, Refusal> {
    let mut content = BytesMut::new();
    let mut components = 0;
    for source in sources {
        let object = store.object(bucket, &source.name, integer(&source.generation)?)?;
        let conditions = Preconditions {
            generation_match: integer(&source.object_preconditions["ifGenerationMatch"])?,
            ..Preconditions::default()
        };
        conditions.check(&Method::POST, Some(object))?;
        content.extend_from_slice(&object.content);
        components += object.components.unwrap_or(1);
    }
    Ok(Content {
        bytes: Bytes::from(content),
        components: Some(components),
    })
}

/// A 64-bit number, which JSON carries as a string.
fn integer(value: &Value) -> Result<Option<i64>, Refusal> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        value => value.as_i64(),
    };
    number
        .map(Some)
        .ok_or_else(|| Refusal::invalid(format!("Invalid value for: {value} is not a valid value")))
}
