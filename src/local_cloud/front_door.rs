//! What stands before a private Cloud Run service: it verifies the caller's ID token and passes the request on with
//! the token's signature cut off.

use std::sync::Mutex;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::Value;

use super::{
    World,
    identity::random_hex,
    server::{Request, lock, text},
};

/// What the container finds in place of a signature.
const REMOVED: &str = "SIGNATURE_REMOVED_BY_GOOGLE";

/// The service behind the door.
#[derive(Clone, Debug)]
struct Service {
    url: String,
    audiences: Vec<String>,
    invokers: Vec<String>,
}

/// The door; shut (404) until it has a service.
#[derive(Debug, Default)]
pub(super) struct FrontDoor {
    service: Mutex<Option<Service>>,
}

impl FrontDoor {
    pub(super) fn open(&self, url: &str, audiences: &[&str], invokers: &[&str]) {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        *lock(&self.service) = Some(Service {
            url: url.to_owned(),
            audiences: owned(audiences),
            invokers: owned(invokers),
        });
    }
}

pub(super) async fn handle(world: &World, mut request: Request) -> Response {
    let Some(service) = lock(&world.front_door.service).clone() else {
        return text(StatusCode::NOT_FOUND, "Error: Page not found");
    };
    // When this header is there, Cloud Run looks at no other, and lets `Authorization` pass untouched.
    let name = if request.headers.contains_key("x-serverless-authorization") {
        "x-serverless-authorization"
    } else {
        "authorization"
    };
    let path = request.path.clone();
    let Some(given) = request.header(name) else {
        return refused(StatusCode::FORBIDDEN, &path);
    };
    let token = given.split_once(' ').map(|(_, token)| token.trim().to_owned());
    let Some(claims) = token
        .as_deref()
        .and_then(|token| world.identity.verified_id_token(token))
    else {
        return refused(StatusCode::UNAUTHORIZED, &path);
    };
    if let Err(status) = admit(world, &service, &claims) {
        return refused(status, &path);
    }
    let stripped = token
        .as_deref()
        .and_then(|token| token.rsplit_once('.'))
        .map(|(signed, _)| signed);
    if let Some(value) = stripped.and_then(|signed| HeaderValue::from_str(&format!("Bearer {signed}.{REMOVED}")).ok()) {
        request.headers.insert(name, value);
    }
    forward(world, &service, request).await
}

fn admit(world: &World, service: &Service, claims: &Value) -> Result<(), StatusCode> {
    let now = world.clock.now().timestamp();
    let known =
        |values: &[String], claim: &Value| claim.as_str().is_some_and(|claim| values.iter().any(|v| v == claim));
    if claims["exp"].as_i64().is_none_or(|exp| exp <= now) || !known(&service.audiences, &claims["aud"]) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let may_invoke = |email: &str| world.policies.allows(email, "run.routes.invoke", "service");
    let invoker = claims["email_verified"] == true
        && known(&service.invokers, &claims["email"])
        && claims["email"].as_str().is_some_and(may_invoke);
    if invoker { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
}

/// The pages of Google's front end: 401 for a token that is no good, 403 for none and for one of somebody who may not
/// call.
fn refused(status: StatusCode, path: &str) -> Response {
    let path: String = path
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "/-_.~".contains(c) {
                c
            } else {
                '?'
            }
        })
        .collect();
    let (title, sentence) = if status == StatusCode::UNAUTHORIZED {
        (
            "Unauthorized",
            format!("Your client does not have permission to the requested URL <code>{path}</code>."),
        )
    } else {
        (
            "Forbidden",
            format!("Your client does not have permission to get URL <code>{path}</code> from this server."),
        )
    };
    let code = status.as_u16();
    let mut answer = text(
        status,
        &format!(
            "\n<html><head>\n<meta http-equiv=\"content-type\" content=\"text/html;charset=utf-8\">\n\
             <title>{code} {title}</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n<h1>Error: {title}</h1>\n\
             <h2>{sentence}</h2>\n<h2></h2>\n</body></html>\n"
        ),
    );
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static(
            "Bearer error=\"invalid_token\" error_description=\"The access token could not be verified\"",
        );
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

async fn forward(world: &World, service: &Service, request: Request) -> Response {
    let mut headers = request.headers;
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let (trace, span) = (random_hex(16), random_hex(8));
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1".to_owned()),
        ("x-forwarded-proto", "https".to_owned()),
        ("traceparent", format!("00-{trace}-{span}-01")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.entry(name).or_insert(value);
        }
    }
    let query = if request.query.is_empty() {
        String::new()
    } else {
        format!("?{}", request.query)
    };
    let url = format!("{}{}{query}", service.url, request.path);
    let sent = world
        .http
        .request(request.method, url)
        .headers(headers)
        .body(request.body)
        .send()
        .await;
    let Ok(answer) = sent else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let Ok(body) = answer.bytes().await else {
        return text(StatusCode::BAD_GATEWAY, "Bad Gateway");
    };
    let mut passed_on = Response::new(Body::from(body));
    *passed_on.status_mut() = status;
    *passed_on.headers_mut() = headers;
    passed_on
}
