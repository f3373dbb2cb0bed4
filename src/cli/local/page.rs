//! The door: the web page and the control API on one loopback port, open to this machine's own programs and to the page
//! itself, and shut to every other page that a browser on this machine has open.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::schema;
use super::advice;
use super::control::{Control, LARGEST_DOCUMENT, Refused, Shown};
use super::jobs::Jobs;

const PAGE: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/page.css");
/// The page's scripts by their paths.
const SCRIPTS: [(&str, &str); 5] = [
    ("/page.js", include_str!("page/page.js")),
    ("/api.js", include_str!("page/api.js")),
    ("/asking.js", include_str!("page/asking.js")),
    ("/documents.js", include_str!("page/documents.js")),
    ("/jobs.js", include_str!("page/jobs.js")),
];
/// Everything comes from this port; the links to results lead elsewhere, and nothing is loaded from there.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The largest body of any other call.
const LARGEST_CALL: usize = 1 << 20;

/// The least time between two events of one watcher.
const BREATH: Duration = Duration::from_millis(100);

/// Serves until the listener fails.
pub(super) async fn serve(listener: TcpListener, control: Arc<Control>) -> std::io::Result<()> {
    let router = Router::new().fallback(answer).with_state(control);
    axum::serve(listener, router).await
}

async fn answer(State(control): State<Arc<Control>>, request: Request) -> Response {
    let mut answer = match admitted(control.page(), &request) {
        Ok(()) => match route(&control, request).await {
            Ok(answer) => answer,
            Err(refused) => refusal(&refused),
        },
        Err(refused) => refusal(&refused),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            header::HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Whether a request may come in. A browser says which page asks (`Origin`, and `Sec-Fetch-Site` where there is no
/// origin); a name that somebody else points to this machine shows in `Host` (DNS rebinding).
fn admitted(page: SocketAddr, request: &Request) -> Result<(), Refused> {
    let headers = request.headers();
    let port = page.port();
    let ours = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).unwrap_or_default();
    if !ours.iter().any(|our| our.eq_ignore_ascii_case(host)) {
        let message = format!("the Host is '{host}': use http://{}", ours[0]);
        return Err(Refused::new("host.foreign", message));
    }
    let foreign = match text(header::ORIGIN) {
        Some(origin) => origin != format!("http://{}", host.to_ascii_lowercase()),
        None => false,
    };
    let site = text(header::HeaderName::from_static("sec-fetch-site")).unwrap_or("none");
    // Who follows a link to the page is let in: it does nothing by being opened.
    let opened = request.method() == Method::GET && !request.uri().path().starts_with("/api/");
    if foreign || !(opened || matches!(site, "none" | "same-origin")) {
        return Err(Refused::new(
            "origin.foreign",
            "only the page itself, and programs that are no browser, may call this",
        ));
    }
    Ok(())
}

async fn route(control: &Arc<Control>, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    let (method, path) = (&parts.method, parts.uri.path());
    // Of what is asked for with HEAD the body is left out on the way.
    let verb = match method == Method::HEAD && !path.starts_with("/api/") {
        true => "GET",
        false => method.as_str(),
    };
    Ok(match (verb, path) {
        ("GET", "/") => text("text/html; charset=utf-8", PAGE),
        ("GET", "/page.css") => text("text/css; charset=utf-8", STYLE),
        ("GET", "/favicon.ico") => StatusCode::NO_CONTENT.into_response(),
        ("GET", "/api/state") => Json(control.state()).into_response(),
        ("GET", "/api/jobs") => Json(control.jobs().since(0).0).into_response(),
        ("POST", "/api/jobs") => Json(control.submit(&json_of(body).await?)?).into_response(),
        ("POST", path) if number_of_job(path).is_some() => {
            Json(control.redeliver(number_of_job(path).unwrap_or_default())?).into_response()
        }
        ("GET", path) if output_of_job(path).is_some() => {
            let (number, output) = output_of_job(path).unwrap_or_default();
            shown(control.output(number, output)?)
        }
        ("GET", path) if script(path).is_some() => {
            text("text/javascript; charset=utf-8", script(path).unwrap_or_default())
        }
        ("GET", "/api/schema") => Json(schema::of_jobs()).into_response(),
        ("GET", "/api/failures") => Json(advice::all()).into_response(),
        ("GET", "/api/events") => Sse::new(events(Arc::clone(control.jobs())))
            .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
            .into_response(),
        ("POST", "/api/documents") => {
            let name = parameter(parts.uri.query().unwrap_or_default(), "name");
            let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
                Refused::new(
                    "document.invalid",
                    "the name is missing: POST /api/documents?name=a.docx",
                )
            })?;
            let content_type = parts.headers.get(header::CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok());
            let content = read(body, LARGEST_DOCUMENT).await?;
            let object = control.upload(&name, content_type.unwrap_or("application/octet-stream"), content)?;
            Json(object).into_response()
        }
        ("GET", "/api/faults") => Json(control.faults()).into_response(),
        ("POST", "/api/faults") => Json(control.add_fault(&json_of(body).await?)?).into_response(),
        ("DELETE", "/api/faults") => {
            let content = read(body, LARGEST_CALL).await?;
            let rule = if content.is_empty() {
                None
            } else {
                Some(parse(&content)?)
            };
            Json(control.clear_faults(rule.as_ref())?).into_response()
        }
        ("GET", "/api/rights") => Json(control.rights()).into_response(),
        ("PUT", "/api/rights") => Json(control.set_right(&json_of(body).await?)?).into_response(),
        ("GET", "/api/worker") => Json(control.worker()).into_response(),
        ("POST", "/api/worker") => Json(control.treat(&json_of(body).await?).await?).into_response(),
        ("PUT", "/api/worker/variables") => Json(control.set_variables(&json_of(body).await?).await?).into_response(),
        ("GET", "/api/worker/environment") => {
            let lines = control.environment().into_iter();
            let lines: String = lines.map(|(name, value)| format!("{name}={value}\n")).collect();
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], lines).into_response()
        }
        _ => return Err(nothing_there(method, path)),
    })
}

/// The job of `/api/jobs/NUMBER/redeliver`.
fn number_of_job(path: &str) -> Option<u64> {
    path.strip_prefix("/api/jobs/")?
        .strip_suffix("/redeliver")?
        .parse()
        .ok()
}

fn script(path: &str) -> Option<&'static str> {
    let (_, script) = SCRIPTS.iter().find(|(name, _)| *name == path)?;
    Some(script)
}

/// The job of `/api/jobs/NUMBER/outputs/INDEX`, and which of its outputs.
fn output_of_job(path: &str) -> Option<(u64, usize)> {
    let (number, output) = path.strip_prefix("/api/jobs/")?.split_once("/outputs/")?;
    Some((number.parse().ok()?, output.parse().ok()?))
}

fn shown(output: Shown) -> Response {
    let name = percent_encoding::utf8_percent_encode(&output.name, percent_encoding::NON_ALPHANUMERIC);
    let headers = [
        (header::CONTENT_TYPE, output.content_type.to_owned()),
        (header::CONTENT_LENGTH, output.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("inline; filename*=UTF-8''{name}")),
    ];
    (headers, output.content).into_response()
}

fn nothing_there(method: &Method, path: &str) -> Refused {
    Refused::new(
        "call.unknown",
        format!("there is no {method} {path}: docs/local.md has all calls"),
    )
}

fn text(content_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], content).into_response()
}

fn refusal(refused: &Refused) -> Response {
    let status = match refused.code {
        "host.foreign" | "origin.foreign" => StatusCode::FORBIDDEN,
        "call.unknown" | "fault.not_found" | "job.not_found" | "output.not_found" | "right.not_found" => {
            StatusCode::NOT_FOUND
        }
        "body.too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let body = json!({"error": {"code": refused.code, "message": refused.message}});
    (status, Json(body)).into_response()
}

async fn read(body: Body, limit: usize) -> Result<bytes::Bytes, Refused> {
    let too_large = |why: String| {
        let message = format!("the body cannot be read, {limit} bytes at most: {why}");
        Refused::new("body.too_large", message)
    };
    // Where it says its length, nothing of one that is too long is kept.
    let least = body.size_hint().lower();
    if usize::try_from(least).map_or(true, |least| least > limit) {
        return Err(too_large(format!("it has {least}")));
    }
    to_bytes(body, limit)
        .await
        .map_err(|error| too_large(error.to_string()))
}

async fn json_of(body: Body) -> Result<Value, Refused> {
    parse(&read(body, LARGEST_CALL).await?)
}

fn parse(content: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(content)
        .map_err(|error| Refused::new("body.invalid", format!("the body is no JSON: {error}")))
}

/// A parameter of the query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.replace('+', " ");
        let value = percent_encoding::percent_decode_str(&value).decode_utf8().ok()?;
        (key == name).then(|| value.into_owned())
    })
}

/// Every job that is known, and then each change, as server-sent events: `jobs`, an array.
fn events(jobs: Arc<Jobs>) -> impl Stream<Item = Result<Event, Infallible>> {
    let changes = jobs.changes();
    stream::unfold((jobs, changes, None), |(jobs, mut changes, seen)| async move {
        if seen.is_some_and(|seen| *changes.borrow() <= seen) {
            // The sender lives as long as the jobs.
            changes.changed().await.ok()?;
        }
        if seen.is_some() {
            // What happens at once is told at once: a watcher of two hundred documents has ten events a second, not hundreds.
            tokio::time::sleep(BREATH).await;
        }
        changes.mark_unchanged();
        let (changed, last) = jobs.since(seen.unwrap_or(0));
        let text = serde_json::to_string(&changed).unwrap_or_default();
        Some((
            Ok(Event::default().event("jobs").data(text)),
            (jobs, changes, Some(last)),
        ))
    })
}
