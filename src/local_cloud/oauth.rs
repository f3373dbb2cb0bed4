//! The OAuth token endpoint: a service account's key or a user's refresh token for an access token and an ID token.

use axum::{http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    World,
    server::{Request, form, json as json_answer},
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// `https://oauth2.googleapis.com/token`.
pub(super) fn token(world: &World, request: &Request) -> Response {
    let fields = form(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    match field("grant_type") {
        Some(JWT_BEARER) => {}
        Some("refresh_token") => return refresh(world, &field),
        _ => return error("unsupported_grant_type", "Invalid grant_type"),
    }
    match assertion(world, field("assertion").unwrap_or_default()) {
        Ok(claims) => exchange(world, &claims),
        Err(why) => error("invalid_grant", why),
    }
}

/// The claims of an assertion that a registered key signed, for this endpoint, now.
fn assertion(world: &World, assertion: &str) -> Result<Value, &'static str> {
    let part = |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
    let (signed, signature) = assertion.rsplit_once('.').ok_or("Bad Request")?;
    let (header, claims) = signed.split_once('.').ok_or("Bad Request")?;
    let (header, claims) = part(header).zip(part(claims)).ok_or("Bad Request")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "Bad Request")?;
    let email = claims["iss"].as_str().unwrap_or_default();
    if !world.identity.knows(email) {
        return Err("Invalid grant: account not found");
    }
    let is_signed = header["alg"] == "RS256"
        && world
            .identity
            .verifies(email, header["kid"].as_str(), signed.as_bytes(), &signature);
    if !is_signed {
        return Err("Invalid JWT Signature.");
    }
    let own = format!("{}/token", world.urls.iam);
    if claims["aud"] != own && claims["aud"] != "https://oauth2.googleapis.com/token" {
        return Err("Invalid JWT: Failed audience check.");
    }
    let now = world.clock.now().timestamp();
    let times = claims["iat"].as_i64().zip(claims["exp"].as_i64());
    if !times.is_some_and(|(iat, exp)| iat <= now + 60 && now < exp && exp - iat <= 3600) {
        return Err(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. \
             Check your iat and exp values in the JWT claim.",
        );
    }
    Ok(claims)
}

/// RFC 6749, section 6. The ID token is for the client, whoever it is shown to.
fn refresh<'a>(world: &World, field: &impl Fn(&str) -> Option<&'a str>) -> Response {
    let given = |name| field(name).unwrap_or_default();
    let Some(user) = world.identity.user(given("refresh_token")) else {
        return error("invalid_grant", "Bad Request");
    };
    if user.client_id != given("client_id") || user.client_secret != given("client_secret") {
        return error("invalid_client", "The OAuth client was not found.");
    }
    let lifetime = world.settings.access_token_lifetime;
    let claims = world.identity.claims(&user.email, &user.client_id, true);
    json_answer(
        StatusCode::OK,
        &json!({
            "access_token": world.identity.new_access_token(&user.email, lifetime),
            "expires_in": lifetime.num_seconds(),
            "id_token": world.identity.id_token(&claims),
            "scope": "openid https://www.googleapis.com/auth/cloud-platform",
            "token_type": "Bearer",
        }),
    )
}

fn exchange(world: &World, claims: &Value) -> Response {
    let email = claims["iss"].as_str().unwrap_or_default();
    if let Some(audience) = claims["target_audience"].as_str() {
        let claims = world.identity.claims(email, audience, true);
        return json_answer(StatusCode::OK, &json!({"id_token": world.identity.id_token(&claims)}));
    }
    if claims["scope"].as_str().is_none_or(str::is_empty) {
        return error("invalid_scope", "Invalid OAuth scope or ID token audience provided.");
    }
    let lifetime = world.settings.access_token_lifetime;
    json_answer(
        StatusCode::OK,
        &json!({
            "access_token": world.identity.new_access_token(email, lifetime),
            "expires_in": lifetime.num_seconds(),
            "token_type": "Bearer",
        }),
    )
}

pub(super) fn error(error: &str, description: &str) -> Response {
    json_answer(
        StatusCode::BAD_REQUEST,
        &json!({"error": error, "error_description": description}),
    )
}
