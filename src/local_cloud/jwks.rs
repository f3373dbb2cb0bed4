//! Google's OIDC key set, at the path of `https://www.googleapis.com/oauth2/v3/certs`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;

use super::{
    World,
    server::{Request, json as json_answer, text},
};

pub(super) const PATH: &str = "/oauth2/v3/certs";

pub(super) fn handle(world: &World, request: &Request) -> Response {
    if request.path != PATH || request.method != "GET" {
        return text(StatusCode::NOT_FOUND, "Not Found");
    }
    let mut answer = json_answer(StatusCode::OK, &json!({"keys": world.identity.oidc_keys()}));
    let seconds = world.settings.key_set_max_age.as_secs();
    let cache = format!("public, max-age={seconds}, must-revalidate, no-transform");
    if let Ok(cache) = HeaderValue::from_str(&cache) {
        answer.headers_mut().insert(header::CACHE_CONTROL, cache);
    }
    answer
        .headers_mut()
        .insert(header::AGE, HeaderValue::from(world.settings.key_set_age.as_secs()));
    answer
}
