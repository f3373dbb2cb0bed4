//! The Security Token Service: a token of a provider that a pool trusts, for an access token of the pool's identity
//! (RFC 8693, as `https://sts.googleapis.com/v1/token` does it).

use axum::{http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{
    World, oauth,
    server::{Request, decode, form, json as json_answer, text},
};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const SUBJECT_TOKENS: [&str; 2] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:id_token",
];

pub(super) fn handle(world: &World, request: &Request) -> Response {
    if request.method != "POST" || request.path != "/v1/token" {
        return text(StatusCode::NOT_FOUND, "Not Found");
    }
    let fields = form(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    if field("grant_type") != EXCHANGE {
        return oauth::error("unsupported_grant_type", "Invalid grant_type");
    }
    if field("requested_token_type") != ACCESS_TOKEN {
        return oauth::error("invalid_request", "Invalid requested_token_type.");
    }
    if !SUBJECT_TOKENS.contains(&field("subject_token_type")) {
        return oauth::error("invalid_request", "Invalid subject_token_type.");
    }
    if !field("scope").starts_with("https://www.googleapis.com/auth/") {
        return oauth::error(
            "invalid_scope",
            "The requested scope is invalid, unknown, or malformed.",
        );
    }
    let audience = field("audience");
    // A pool of an organisation has no project of its own.
    if audience.contains("/workforcePools/") && user_project(field("options")).is_none() {
        return oauth::error(
            "invalid_request",
            "The request must have a user project or an authenticated client for workforce pools.",
        );
    }
    let now = world.clock.now();
    match world
        .identity
        .providers
        .principal(now, audience, field("subject_token"))
    {
        Ok(principal) => {
            let lifetime = world.settings.access_token_lifetime;
            json_answer(
                StatusCode::OK,
                &json!({
                    "access_token": world.identity.new_access_token(&principal, lifetime),
                    "expires_in": lifetime.num_seconds(),
                    "issued_token_type": ACCESS_TOKEN,
                    "token_type": "Bearer",
                }),
            )
        }
        Err((code, why)) => oauth::error(code, why),
    }
}

/// Google's clients send the options as JSON, some of them percent-encoded once more.
fn user_project(options: &str) -> Option<String> {
    let options: Value = serde_json::from_str(&decode(options)).ok()?;
    options["userProject"].as_str().map(str::to_owned)
}
