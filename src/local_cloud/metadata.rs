//! The metadata server of Compute Engine and Cloud Run.

use axum::{
    http::{HeaderValue, StatusCode},
    response::Response,
};
use serde_json::json;

use super::{
    World,
    server::{Request, json as json_answer, text, with_type},
};

const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts/";

/// Answers as the machine of `email` would.
pub(super) fn handle(world: &World, request: &Request, email: &str) -> Response {
    let mut answer = checked(world, request, email);
    answer
        .headers_mut()
        .insert("metadata-flavor", HeaderValue::from_static("Google"));
    answer
        .headers_mut()
        .insert("server", HeaderValue::from_static("Metadata Server for VM"));
    answer
}

/// Both refusals stand against a request that was forged through a naive server: it cannot set the one header, and
/// a proxy adds the other.
fn checked(world: &World, request: &Request, email: &str) -> Response {
    if request.headers.contains_key("x-forwarded-for") {
        return text(StatusCode::FORBIDDEN, "Request contains X-Forwarded-For header.\n");
    }
    if request.path == "/" {
        return with_type(StatusCode::OK, "application/text", "computeMetadata/\n");
    }
    if request.header("metadata-flavor") != Some("Google") {
        return text(StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.\n");
    }
    if request.method != "GET" {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let settings = &world.settings;
    match request.path.as_str() {
        "/computeMetadata/v1/project/project-id" => value(&settings.project),
        "/computeMetadata/v1/project/numeric-project-id" => value(&settings.project_number.to_string()),
        "/computeMetadata/v1/universe/universe-domain" => value(&settings.universe_domain),
        path => path
            .strip_prefix(ACCOUNTS)
            .map_or_else(not_found, |rest| account(world, request, rest, email)),
    }
}

fn account(world: &World, request: &Request, rest: &str, email: &str) -> Response {
    let (name, item) = rest.split_once('/').unwrap_or((rest, ""));
    if name != "default" && super::server::decode(name) != email {
        return not_found();
    }
    match item {
        "" if request.parameter("recursive").as_deref() == Some("true") => json_answer(
            StatusCode::OK,
            &json!({
                "aliases": ["default"], "email": email,
                "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
            }),
        ),
        "email" => value(email),
        "aliases" => value("default"),
        "scopes" => value("https://www.googleapis.com/auth/cloud-platform"),
        "token" => {
            let lifetime = world.settings.access_token_lifetime;
            let token = world.identity.new_access_token(email, lifetime);
            with_type(
                StatusCode::OK,
                "application/json",
                json!({"access_token": token, "expires_in": lifetime.num_seconds(), "token_type": "Bearer"})
                    .to_string(),
            )
        }
        "identity" => {
            let Some(audience) = request.parameter("audience").filter(|audience| !audience.is_empty()) else {
                return text(StatusCode::BAD_REQUEST, "non-empty audience parameter required\n");
            };
            let with_email = request.parameter("format").as_deref() == Some("full");
            value(
                &world
                    .identity
                    .id_token(&world.identity.claims(email, &audience, with_email)),
            )
        }
        _ => not_found(),
    }
}

fn value(text: &str) -> Response {
    with_type(StatusCode::OK, "application/text", text.to_owned())
}

fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "Not Found\n")
}
