//! Connections: bounded headers, bounded patience, and an end within Cloud Run's ten seconds.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use futures_util::FutureExt;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::TcpUserTimeout;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::crowd::{Crowd, Place};
use super::shutdown::{DRAIN, LAST_WORDS, PARTING, Signals};
use super::{Service, refusals, router};
use crate::metrics;

/// What hyper reads of a request's head before it gives up. Over the contract's 16 KiB, so that those are refused by
/// [`super::router`], with a body that says so.
const HEAD_BUFFER: usize = 64 << 10;
/// Likewise: how many headers there may be is bounded by their size.
const HEADER_COUNT: usize = 4096;
/// How long the first request's headers may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long a connection may rest between two requests, the second one's headers included. Longer than what callers
/// with connection pools rest, so that it is they who close, and no request meets a closing connection.
const IDLE_TIME: Duration = Duration::from_secs(600);
/// How long an answer may wait for a client that does not read it, or is gone without a word (tcp(7): `TCP_USER_TIMEOUT`).
const UNREAD_TIME: Duration = Duration::from_secs(30);

/// Serves until SIGTERM or SIGINT, then finishes what can be finished in time and refuses the rest.
pub async fn serve(listener: TcpListener, service: Arc<Service>, signals: &Signals) {
    let graceful = GracefulShutdown::new();
    let router = router(service.clone());
    let crowd = Arc::new(Crowd::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match crowd.open() {
                    Some(place) => spawn(stream, place, router.clone(), &graceful),
                    None => too_many(&stream),
                },
                // Out of descriptors, or a client that left at once: neither may end the service.
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = signals.asked() => break,
        }
    }
    drop(listener);
    service.shutdown.drain();
    tracing::info!(
        "shutting down: no new work, {} s for what is under way",
        DRAIN.as_secs()
    );
    // Closes at once what rests between two requests, and everything else after its answer.
    let connections = graceful.shutdown().shared();
    // Deliveries are waited for, not connections: one that never completes its request would take all of the time, and a
    // last delivery goes on when its caller has hung up.
    let closing = async {
        connections.clone().await;
        service.shutdown.idle().await;
    };
    tokio::select! {
        () = closing => {}
        () = service.shutdown.idle() => {}
        () = tokio::time::sleep(DRAIN) => {}
        () = signals.insisted() => {}
    }
    let given_up = service.shutdown.under_way();
    if given_up == 0 {
        tracing::info!("all work has ended");
    } else {
        tracing::warn!(
            "{given_up} deliveries could not be finished: they are refused, and Pub/Sub delivers them again"
        );
    }
    // Runs that nobody waits for any more end, too; whoever waits for one is told. One that is held by the disk lets go
    // of nothing in time: the others do not wait for it.
    let work = async { tokio::join!(service.context.engine.stop(), service.context.runs.end()) }.shared();
    let end = async {
        let _some_hang = tokio::time::timeout(PARTING, work.clone()).await;
        let _some_wait_for_google = tokio::time::timeout(PARTING, service.shutdown.idle()).await;
        service.shutdown.end();
        tokio::join!(connections, work);
    };
    if tokio::time::timeout(LAST_WORDS, end).await.is_err() {
        tracing::debug!("some connections are closed without their end");
    }
}

fn spawn(stream: TcpStream, place: Arc<Place>, router: Router, graceful: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection could not be set to no-delay: {error}");
    }
    let unread = u32::try_from(UNREAD_TIME.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(&stream, TcpUserTimeout, &unread) {
        tracing::debug!("a connection has no time-out for what is not read: {error}");
    }
    let spare = stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
    let arrived = Arc::new(Notify::new());
    let service = {
        let (arrived, inner) = (arrived.clone(), TowerToHyperService::new(router));
        let place = place.clone();
        service_fn(move |request| {
            arrived.notify_one();
            let working = place.work();
            let answer = inner.call(request);
            async move {
                // Who has just been sent away has no time for an answer.
                let Some(_working) = working else {
                    return std::future::pending().await;
                };
                answer.await
            }
        })
    };
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIME)
        .max_buf_size(HEAD_BUFFER)
        .max_headers(HEADER_COUNT);
    let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let first_head = tokio::time::timeout(HEADER_TIME, arrived.notified());
        let served = async {
            tokio::select! {
                ended = &mut connection => return Some(ended),
                head = first_head => head.ok()?,
            }
            Some(connection.await)
        };
        let ended = tokio::select! {
            served = served => match served {
                Some(ended) => ended,
                None => return too_late(spare),
            },
            () = place.sent_away() => return tracing::debug!("a connection that rested has made room for another"),
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended badly: {error}");
        }
    });
}

/// Answers a head that never came to its end; hyper only closes then.
fn too_late(spare: std::io::Result<std::net::TcpStream>) {
    const ANSWER: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
        content-length: 85\r\n\r\n\
        {\"error\":{\"code\":\"request.timeout\",\"message\":\"The headers took too long to arrive.\"}}";
    refusals::unreadable(StatusCode::REQUEST_TIMEOUT, "The headers took too long to arrive.");
    metrics::delivery(StatusCode::REQUEST_TIMEOUT.as_u16());
    // Whoever has gone does not read it.
    let _gone = spare.and_then(|mut stream| std::io::Write::write_all(&mut stream, ANSWER));
}

/// Answers where every connection there may be has a request under way.
fn too_many(stream: &TcpStream) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
        retry-after: 5\r\ncontent-length: 83\r\n\r\n\
        {\"error\":{\"code\":\"worker.unavailable\",\"message\":\"There are too many connections.\"}}";
    metrics::busy("connections");
    refusals::too_many_connections();
    // What has just been accepted takes that much at once.
    let _gone = stream.try_write(ANSWER);
}
