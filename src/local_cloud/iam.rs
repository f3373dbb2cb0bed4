//! IAM Service Account Credentials v1 (`signBlob`, `generateAccessToken`, `generateIdToken`), and at `/token` the OAuth
//! endpoint where a service-account key is exchanged for a token.

use axum::{http::StatusCode, response::Response};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use super::{
    World,
    server::{Request, decode, form, json as json_answer, rpc_error},
};

const ACCOUNTS: &str = "/v1/projects/-/serviceAccounts/";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

pub(super) fn handle(world: &World, request: &Request) -> Response {
    if request.method != "POST" {
        return rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.");
    }
    if request.path == "/token" {
        return token(world, request);
    }
    let target = request
        .path
        .strip_prefix(ACCOUNTS)
        .and_then(|rest| rest.rsplit_once(':'));
    let Some((account, method)) = target else {
        return rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.");
    };
    let permission = match method {
        "signBlob" => "iam.serviceAccounts.signBlob",
        "generateAccessToken" => "iam.serviceAccounts.getAccessToken",
        "generateIdToken" => "iam.serviceAccounts.getOpenIdToken",
        _ => return rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found."),
    };
    let account = decode(account);
    if let Err(refusal) = allowed(world, request, &account, permission) {
        return *refusal;
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return rpc_error(
            StatusCode::BAD_REQUEST,
            "INVALID_ARGUMENT",
            "Invalid JSON payload received.",
        );
    };
    match method {
        "signBlob" => sign_blob(world, &account, &body),
        "generateAccessToken" => generate_access_token(world, &account, &body),
        _ => generate_id_token(world, &account, &body),
    }
}

/// A caller who proved who they are, an account that exists, and a permission of the one on the other.
fn allowed(world: &World, request: &Request, account: &str, permission: &str) -> Result<(), Box<Response>> {
    let caller = world.caller_or_refusal(request)?;
    if !world.identity.knows(account) {
        let message = format!("Not found; Gaia id not found for email {account}");
        return Err(Box::new(rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", &message)));
    }
    if caller.is_none_or(|caller| world.identity.may_create_tokens(&caller, account)) {
        return Ok(());
    }
    let message = format!("Permission '{permission}' denied on resource (or it may not exist).");
    Err(Box::new(json_answer(
        StatusCode::FORBIDDEN,
        &json!({"error": {
            "code": 403, "message": message, "status": "PERMISSION_DENIED",
            "details": [{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED",
                "domain": "iam.googleapis.com", "metadata": {"permission": permission},
            }],
        }}),
    )))
}

fn sign_blob(world: &World, account: &str, body: &Value) -> Response {
    let payload = body["payload"].as_str().unwrap_or_default();
    let Some(payload) = super::base64_of_google(payload) else {
        let message = "Invalid value at 'payload' (TYPE_BYTES), Base64 decoding failed";
        return rpc_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
    };
    if payload.is_empty() {
        let message = "The request was missing the required field: payload";
        return rpc_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
    }
    let Some(key) = world.identity.managed_key(account) else {
        return rpc_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "Internal error encountered.",
        );
    };
    json_answer(
        StatusCode::OK,
        &json!({"keyId": key.id, "signedBlob": STANDARD.encode(key.sign(&payload))}),
    )
}

fn generate_access_token(world: &World, account: &str, body: &Value) -> Response {
    if body["scope"].as_array().is_none_or(Vec::is_empty) {
        let message = "The request was missing the required field: scope";
        return rpc_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
    }
    let lifetime = body["lifetime"].as_str().unwrap_or("3600s");
    let seconds = lifetime.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    let Some(seconds) = seconds.filter(|seconds| (1..=3600).contains(seconds)) else {
        let message = "The token lifetime must be between 1 and 3600 seconds";
        return rpc_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
    };
    let lifetime = TimeDelta::seconds(seconds);
    let token = world.identity.new_access_token(account, lifetime);
    let expires = (world.clock.now() + lifetime).to_rfc3339_opts(SecondsFormat::Secs, true);
    json_answer(StatusCode::OK, &json!({"accessToken": token, "expireTime": expires}))
}

fn generate_id_token(world: &World, account: &str, body: &Value) -> Response {
    let Some(audience) = body["audience"].as_str().filter(|audience| !audience.is_empty()) else {
        let message = "The request was missing the required field: audience";
        return rpc_error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message);
    };
    let with_email = body["includeEmail"] == true;
    let claims = world.identity.claims(account, audience, with_email);
    json_answer(StatusCode::OK, &json!({"token": world.identity.id_token(&claims)}))
}

/// RFC 7523, as `https://oauth2.googleapis.com/token` does it.
fn token(world: &World, request: &Request) -> Response {
    let fields = form(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    if field("grant_type") != Some(JWT_BEARER) {
        return oauth_error("unsupported_grant_type", "Invalid grant_type");
    }
    match assertion(world, field("assertion").unwrap_or_default()) {
        Ok(claims) => exchange(world, &claims),
        Err(why) => oauth_error("invalid_grant", why),
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

fn exchange(world: &World, claims: &Value) -> Response {
    let email = claims["iss"].as_str().unwrap_or_default();
    if let Some(audience) = claims["target_audience"].as_str() {
        let claims = world.identity.claims(email, audience, true);
        return json_answer(StatusCode::OK, &json!({"id_token": world.identity.id_token(&claims)}));
    }
    if claims["scope"].as_str().is_none_or(str::is_empty) {
        return oauth_error("invalid_scope", "Invalid OAuth scope or ID token audience provided.");
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

fn oauth_error(error: &str, description: &str) -> Response {
    json_answer(
        StatusCode::BAD_REQUEST,
        &json!({"error": error, "error_description": description}),
    )
}
