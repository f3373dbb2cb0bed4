//! `GET /metrics` on `METRICS_PORT`: a port of its own, so that who may scrape is decided by the network and not by a
//! token, and the worker's own port shows nobody how it fares.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::answer;
use crate::metrics::{self, Form};

/// Scrapers at once; there is one, or two.
const CONNECTIONS: usize = 16;
/// How long a connection may take, from its first byte to the last of its one answer: so long Prometheus waits for both
/// (`scrape_timeout`). Who sends nothing, or does not read, has the place no longer.
const TIME: Duration = Duration::from_secs(10);
/// A scraper's head is some hundred bytes.
const HEAD_BUFFER: usize = 16 << 10;

/// Answers scrapers for as long as the worker runs, also while it shuts down.
pub async fn serve(listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Beyond that they wait in the system's queue.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection to METRICS_PORT could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        tokio::spawn(async move {
            let _place = place;
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(TIME)
                .keep_alive(false)
                .max_buf_size(HEAD_BUFFER);
            let service = service_fn(|request: Request<Incoming>| ready(Ok::<_, Infallible>(respond(&request))));
            match tokio::time::timeout(TIME, builder.serve_connection(TokioIo::new(stream), service)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("a connection to METRICS_PORT ended badly: {error}"),
                Err(_) => tracing::debug!("a connection to METRICS_PORT took over {} s", TIME.as_secs()),
            }
        });
    }
}

fn respond<B>(request: &Request<B>) -> Response<Body> {
    if request.uri().path() != "/metrics" {
        let message = "There is nothing here but /metrics.";
        return answer::error(StatusCode::NOT_FOUND, "request.path", message);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = "Metrics are read with GET.";
        let mut response = answer::error(StatusCode::METHOD_NOT_ALLOWED, "request.method", message);
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let accept = request.headers().get(header::ACCEPT);
    let form = Form::accepted(accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default());
    let mut response = Response::new(Body::from(metrics::exposition(form)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response
}
