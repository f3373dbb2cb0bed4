//! What paths, queries and bodies of the JSON API say.

use axum::http::StatusCode;
use serde_json::Value;

use super::{
    super::{
        Refusal,
        server::{Request, decode},
    },
    preconditions::{Etags, Preconditions},
    route::unknown_method,
};

/// A bucket and an object of a raw path `BUCKET/o/OBJECT`, both decoded once. An object name takes one segment:
/// its slashes are percent-encoded, and one that is not is Google's 404.
pub(super) fn bucket_and_object(path: &str) -> Result<(String, String), Refusal> {
    let (bucket, object) = path.split_once("/o/").ok_or_else(unknown_method)?;
    if object.is_empty() || object.contains('/') {
        return Err(unknown_method());
    }
    Ok((decode(bucket), decode(object)))
}

pub(super) fn number(request: &Request, name: &str) -> Result<Option<i64>, Refusal> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| Refusal::invalid(format!("Invalid value for parameter {name}: {text}")))
    };
    request.parameter(name).map(parse).transpose()
}

pub(super) fn preconditions(request: &Request) -> Result<Preconditions, Refusal> {
    Ok(Preconditions {
        generation_match: number(request, "ifGenerationMatch")?,
        generation_not_match: number(request, "ifGenerationNotMatch")?,
        metageneration_match: number(request, "ifMetagenerationMatch")?,
        metageneration_not_match: number(request, "ifMetagenerationNotMatch")?,
        etags: Etags::of_headers(&request.headers),
        ..Preconditions::default()
    })
}

/// Every body of the JSON API is an object.
pub(super) fn body(request: &Request) -> Result<Value, Refusal> {
    let object: Option<Value> = serde_json::from_slice(&request.body).ok().filter(Value::is_object);
    object.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "parseError", "Parse Error"))
}

/// A number in a header, the XML API's form of a precondition.
pub(super) fn number_header(request: &Request, name: &str) -> Result<Option<i64>, Refusal> {
    let value = request.header(name).map(str::parse).transpose();
    value.map_err(|_| Refusal::invalid(format!("Invalid {name}")))
}
