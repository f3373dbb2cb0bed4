//! `compose`: one object out of up to 32 of the same bucket, one after the other. gcloud uploads large files so.

use std::io::Read;

use axum::{
    body::Bytes,
    http::{Method, StatusCode},
    response::Response,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        Refusal, World,
        data::blocking,
        server::{Request, json as json_answer},
    },
    access::{may_replace, permit},
    object::{Fields, Hashes, Object, Payload},
    objects::fields_of,
    parameters::{body, bucket_and_object, preconditions},
    preconditions::Preconditions,
    resource,
    route::unknown_method,
    sessions::fits,
    store::Store,
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
    loop {
        let parts = parts(&world.storage.look(), bucket, &sources)?;
        world.storage.look().may_insert(bucket, name, &conditions)?;
        // Bytes are read and written before the store is locked. If a source is another one by then, once more.
        let payload = composed(world, &parts)?;
        let fields = fields.clone();
        let object = world.storage.change(world, bucket, |store| {
            let now = self::parts(store, bucket, &sources)?;
            let mut pairs = now.iter().zip(&parts);
            if !pairs.all(|(now, then)| now.generation == then.generation) {
                return Ok((None, Vec::new()));
            }
            let inserted = store.insert((bucket, name), fields, payload, &conditions, &world.clock);
            inserted.map(|(object, changes)| (Some(object), changes))
        })?;
        if let Some(object) = object {
            return Ok(json_answer(StatusCode::OK, &resource::object(world, bucket, &object)));
        }
    }
}

/// The sources as they are now.
fn parts(store: &Store, bucket: &str, sources: &[Source]) -> Result<Vec<Object>, Refusal> {
    let part = |source: &Source| {
        let object = store.object(bucket, &source.name, integer(&source.generation)?)?;
        let conditions = Preconditions {
            generation_match: integer(&source.object_preconditions["ifGenerationMatch"])?,
            ..Preconditions::default()
        };
        conditions.check(&Method::POST, Some(object))?;
        Ok(object.clone())
    };
    sources.iter().map(part).collect()
}

fn composed(world: &World, parts: &[Object]) -> Result<Payload, Refusal> {
    let size = parts
        .iter()
        .map(|part| part.content.len())
        .fold(0, usize::saturating_add);
    fits(size)?;
    let mut bytes = Vec::with_capacity(size);
    for part in parts {
        let read = blocking(|| part.content.reader()?.read_to_end(&mut bytes));
        read.map_err(|error| {
            let message = format!("{} cannot be read: {error}", part.name);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "backendError", message)
        })?;
    }
    let components = parts
        .iter()
        .map(|part| part.components.unwrap_or(1))
        .fold(0, u32::saturating_add);
    let hashes = Hashes::of_composed(&bytes);
    world.storage.content(Bytes::from(bytes), hashes, Some(components))
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
