//! Connections: bounded headers, bounded patience, and an end within Cloud Run's ten seconds.

use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::{Service, router};

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
/// After the engine has been ended: how long the answers to what was lost with it may take.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long work that was under way may go on after SIGTERM; Cloud Run kills after 10 s.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves until SIGTERM or SIGINT, then finishes what can be finished in time.
///
/// # Errors
/// When the signals cannot be listened to.
pub async fn serve(listener: TcpListener, service: Arc<Service>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let graceful = GracefulShutdown::new();
    let router = router(service.clone());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => spawn(stream, router.clone(), &graceful),
                // Out of descriptors, or a client that left at once: neither may end the service.
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    service.draining.store(true, Ordering::Relaxed);
    tracing::info!(
        "shutting down: no new work, {} s for what is under way",
        DRAIN.as_secs()
    );
    let mut ended = pin!(graceful.shutdown());
    let all = tokio::select! {
        () = &mut ended => true,
        () = tokio::time::sleep(DRAIN) => false,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    service.context.engine.stop().await;
    service.context.runs.end().await;
    if all {
        tracing::info!("all requests ended");
    } else {
        tracing::warn!("requests were still open: Pub/Sub delivers them again");
        // What ran in the engine is answered with 503 now.
        let _some_may_not_end = tokio::time::timeout(LAST_WORDS, ended).await;
    }
    Ok(())
}

fn spawn(stream: TcpStream, router: Router, graceful: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection could not be set to no-delay: {error}");
    }
    let spare = stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
    let arrived = Arc::new(Notify::new());
    let service = {
        let (arrived, inner) = (arrived.clone(), TowerToHyperService::new(router));
        service_fn(move |request| {
            arrived.notify_one();
            inner.call(request)
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
        let ended = tokio::select! {
            ended = &mut connection => ended,
            head = first_head => match head {
                Ok(()) => connection.await,
                Err(_) => return too_late(spare),
            },
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
    // Whoever has gone does not read it.
    let _gone = spare.and_then(|mut stream| std::io::Write::write_all(&mut stream, ANSWER));
}
