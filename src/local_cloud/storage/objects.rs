//! Objects in the JSON API: their resources, their bytes, changes of what they say about themselves.

use axum::{http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{
    super::{
        Refusal, World,
        server::{Request, json as json_answer},
    },
    download,
    object::Fields,
    parameters::{body, bucket_and_object, number, preconditions},
    resource,
    route::unknown_method,
};

pub(super) fn media(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    if request.method != "GET" {
        return Err(unknown_method());
    }
    let (bucket, name) = bucket_and_object(path)?;
    let object = {
        let store = world.storage.look();
        let object = store.object(&bucket, &name, number(request, "generation")?)?;
        preconditions(request)?.check(&request.method, Some(object))?;
        object.clone()
    };
    Ok(download::answer(request, &object, &download::Overrides::default()))
}

pub(super) fn object_api(world: &World, request: &Request, path: &str) -> Result<Response, Refusal> {
    let (bucket, name) = bucket_and_object(path)?;
    let generation = number(request, "generation")?;
    let conditions = preconditions(request)?;
    match request.method.as_str() {
        "GET" if request.parameter("alt").as_deref() == Some("media") => media(world, request, path),
        "GET" => {
            let store = world.storage.look();
            let object = store.object(&bucket, &name, generation)?;
            conditions.check(&request.method, Some(object))?;
            Ok(json_answer(StatusCode::OK, &resource::object(world, &bucket, object)))
        }
        "DELETE" => world.storage.change(world, &bucket, |store| {
            let changes = store.delete(&bucket, &name, generation, &conditions, &world.clock)?;
            Ok((no_content(), changes))
        }),
        "PATCH" | "PUT" => {
            // No body is no change.
            let change = if request.body.is_empty() {
                json!({})
            } else {
                body(request)?
            };
            let replace = request.method == "PUT";
            let object = world.storage.change(world, &bucket, |store| {
                let address = (&*bucket, &*name, generation);
                store.update(address, &conditions, &world.clock, |fields| {
                    merge(fields, &change, replace)
                })
            })?;
            Ok(json_answer(StatusCode::OK, &resource::object(world, &bucket, &object)))
        }
        _ => Err(unknown_method()),
    }
}

/// A patch: null takes a field away, `metadata` is merged key by key. An update replaces all of them.
fn merge(fields: &mut Fields, change: &Value, replace: bool) -> Result<(), Refusal> {
    possible(change)?;
    let storage_class = fields.storage_class.clone();
    let mut merged = if replace {
        json!({})
    } else {
        serde_json::to_value(&*fields).unwrap_or_default()
    };
    for (key, value) in change.as_object().into_iter().flatten() {
        match value {
            Value::Object(entries) if key == "metadata" && merged[key].is_object() => {
                for (name, value) in entries {
                    merged[key][name] = value.clone();
                }
            }
            value => merged[key] = value.clone(),
        }
    }
    if let Some(metadata) = merged["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    *fields = serde_json::from_value(merged).map_err(|error| Refusal::invalid(format!("Invalid argument: {error}")))?;
    // Only a rewrite gives another one.
    fields.storage_class = storage_class;
    Ok(())
}

pub(super) fn fields_of(metadata: &Value) -> Result<Fields, Refusal> {
    possible(metadata)?;
    serde_json::from_value(metadata.clone())
        .map_err(|error| Refusal::invalid(format!("Invalid object resource: {error}")))
}

/// Refuses what an object cannot have here, so that nothing is promised that is not done.
pub(super) fn possible(object: &Value) -> Result<(), Refusal> {
    let asks = |value: &Value| ![Value::Null, json!(false), json!([])].contains(value);
    let mut impossible = [
        "acl",
        "customTime",
        "eventBasedHold",
        "kmsKeyName",
        "retention",
        "temporaryHold",
    ]
    .into_iter();
    match impossible.find(|name| asks(&object[name])) {
        Some(name) => Err(Refusal::invalid(format!(
            "The local cloud's objects cannot have {name}."
        ))),
        None => Ok(()),
    }
}

pub(super) fn no_content() -> Response {
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
