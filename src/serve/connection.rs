//! Connections: bounded headers, bounded patience, and an end within Cloud Run's ten seconds.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::{Service, router};

/// What hyper reads of a request's head before it gives up. Over the contract's 16 KiB, so that those are refused by
/// [`super::router`], with a body that says so.
const HEAD_BUFFER: usize = 64 << 10;
/// Likewise: how many headers there may be is bounded by their size.
const HEADER_COUNT: usize = 4096;
/// How long a request's headers may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
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
    tokio::select! {
        () = graceful.shutdown() => tracing::info!("all requests ended"),
        () = tokio::time::sleep(DRAIN) => tracing::warn!("requests are still open: Pub/Sub delivers them again"),
        _ = terminate.recv() => {},
        _ = interrupt.recv() => {},
    }
    service.context.engine.stop().await;
    Ok(())
}

fn spawn(stream: TcpStream, router: Router, graceful: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection could not be set to no-delay: {error}");
    }
    let spare = stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEAD_BUFFER)
        .max_headers(HEADER_COUNT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        match connection.await {
            Err(error) if error.is_timeout() => too_late(spare),
            Err(error) => tracing::debug!("a connection ended badly: {error}"),
            Ok(()) => {}
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
