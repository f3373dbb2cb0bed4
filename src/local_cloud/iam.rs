//! IAM Service Account Credentials v1: `signBlob`, `generateAccessToken`, `generateIdToken`, along delegates too. The
//! OAuth token endpoint is at `/token` here.

use axum::{http::StatusCode, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{SecondsFormat, TimeDelta};
use serde_json::{Value, json};

use super::{
    World, oauth,
    roles::Permission,
    server::{Request, decode, json as json_answer, rpc_error},
};

const ACCOUNTS: &str = "/v1/projects/-/serviceAccounts/";

pub(super) fn handle(world: &World, request: &Request) -> Response {
    if request.method != "POST" {
        return rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.");
    }
    if request.path == "/token" {
        return oauth::token(world, request);
    }
    let target = request
        .path
        .strip_prefix(ACCOUNTS)
        .and_then(|rest| rest.rsplit_once(':'));
    let Some((account, method)) = target else {
        return rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.");
    };
    let permission = match method {
        "signBlob" => Permission::SignBlob,
        "generateAccessToken" => Permission::GetAccessToken,
        "generateIdToken" => Permission::GetOpenIdToken,
        _ => return rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found."),
    };
    let account = decode(account);
    let caller = match world.caller_or_refusal(request) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        return rpc_error(
            StatusCode::BAD_REQUEST,
            "INVALID_ARGUMENT",
            "Invalid JSON payload received.",
        );
    };
    if let Err(refusal) = allowed(world, caller, &body["delegates"], &account, permission) {
        return *refusal;
    }
    match method {
        "signBlob" => sign_blob(world, &account, &body),
        "generateAccessToken" => generate_access_token(world, &account, &body),
        _ => generate_id_token(world, &account, &body),
    }
}

/// An account that exists, and who may act as it: the caller itself, or along a chain of accounts each of which may make
/// tokens of the next.
fn allowed(
    world: &World,
    caller: Option<String>,
    delegates: &Value,
    account: &str,
    permission: Permission,
) -> Result<(), Box<Response>> {
    let not_found = |email: &str| {
        let message = format!("Not found; Gaia id not found for email {email}");
        Box::new(rpc_error(StatusCode::NOT_FOUND, "NOT_FOUND", &message))
    };
    let Some(mut member) = caller else {
        return if world.identity.knows(account) {
            Ok(())
        } else {
            Err(not_found(account))
        };
    };
    for delegate in delegates.as_array().into_iter().flatten() {
        let email = delegate
            .as_str()
            .and_then(|name| name.strip_prefix("projects/-/serviceAccounts/"));
        let Some(email) = email else {
            let message = "Invalid form of account ID. Should be [Gaia ID |Email |Unique ID |] of the account";
            return Err(Box::new(rpc_error(
                StatusCode::BAD_REQUEST,
                "INVALID_ARGUMENT",
                message,
            )));
        };
        if !world.identity.knows(email) {
            return Err(not_found(email));
        }
        if !world
            .identity
            .grants
            .may(&member, email, Permission::ImplicitDelegation)
        {
            return Err(denied(permission));
        }
        email.clone_into(&mut member);
    }
    if !world.identity.knows(account) {
        return Err(not_found(account));
    }
    let by_policy = world.policies.covers(&member)
        && world
            .policies
            .allows(&member, permission.name(), &format!("account/{account}"));
    if by_policy || world.identity.grants.may(&member, account, permission) {
        return Ok(());
    }
    Err(denied(permission))
}

fn denied(permission: Permission) -> Box<Response> {
    let permission = permission.name();
    let message = format!("Permission '{permission}' denied on resource (or it may not exist).");
    Box::new(json_answer(
        StatusCode::FORBIDDEN,
        &json!({"error": {
            "code": 403, "message": message, "status": "PERMISSION_DENIED",
            "details": [{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED",
                "domain": "iam.googleapis.com", "metadata": {"permission": permission},
            }],
        }}),
    ))
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
