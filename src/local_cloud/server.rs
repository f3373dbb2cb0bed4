//! A peer's HTTP listener: raw paths, whole bodies, scripted faults, and connections that can be reset.
//!
//! There is one route only. Google's paths hold object names with `..`, `//` and `%2F`, which a router would decode or
//! tidy up, so every peer reads the raw path itself.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, connect_info::Connected},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
    serve::{IncomingStream, Listener},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{World, faults, front_door, iam, jwks, kms, metadata, observe::Call, pubsub, storage, sts};

/// One of the APIs of the local cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Cloud Storage: JSON API and signed URLs.
    Storage,
    /// Pub/Sub REST v1.
    Pubsub,
    /// The metadata server.
    Metadata,
    /// IAM Service Account Credentials, and the OAuth token endpoint.
    Iam,
    /// The Security Token Service.
    Sts,
    /// Google's OIDC key set.
    Jwks,
    /// Cloud KMS.
    Kms,
    /// What stands before a private Cloud Run service.
    FrontDoor,
    /// Not a listener: the deliveries of push subscriptions, for a [`super::Fault`] to hit on their way.
    Push,
}

/// One request, read whole, its path and query as they were on the wire.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// The first value of a query parameter, decoded as a form: `+` is a space.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.parameters()
            .into_iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    pub(super) fn parameters(&self) -> Vec<(String, String)> {
        form(&self.query)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `Host` as the client wrote it.
    pub(super) fn host(&self) -> &str {
        self.header("host").unwrap_or_default()
    }

    /// The token after `Authorization: Bearer`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

/// Decodes `a=b&c=d`.
pub(super) fn form(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        })
        .collect()
}

/// Percent-decodes once. What is no UTF-8 becomes the replacement character, as no name of ours holds it.
pub(super) fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

/// An answer with a JSON body, pretty-printed as Google's are.
pub(super) fn json<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Response {
    let mut text = serde_json::to_vec_pretty(body).unwrap_or_default();
    text.push(b'\n');
    with_type(status, "application/json; charset=UTF-8", text)
}

/// An answer with a text body.
pub(super) fn text(status: StatusCode, body: &str) -> Response {
    with_type(status, "text/html; charset=UTF-8", body.as_bytes().to_vec())
}

/// An answer with a body of the given type.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An error of the APIs that speak `google.rpc.Status`.
pub(super) fn rpc_error(code: StatusCode, status: &str, message: &str) -> Response {
    json(
        code,
        &serde_json::json!({"error": {"code": code.as_u16(), "message": message, "status": status}}),
    )
}

/// Locks, and goes on where another thread panicked: a test that failed must not hang the rest.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom a listener serves: a peer that the deployment calls, or a metadata server for somebody else.
#[derive(Clone, Debug)]
pub(super) enum Site {
    Deployment(Peer),
    /// Speaks for this account, and no fault hits it: what is broken on purpose is the deployment.
    MetadataOf(Arc<str>),
    /// Takes what Google's Pub/Sub emulator pushes.
    PushRelay,
}

/// Serves `site` on `listener` until `stopped` turns true.
pub(super) fn serve(world: Arc<World>, site: Site, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut handler_stopped = stopped.clone();
    let name = format!("{site:?}");
    handler_stopped.mark_unchanged();
    let router = Router::new().fallback(
        move |ConnectInfo(connection): ConnectInfo<Connection>, request: axum::extract::Request| {
            let world = Arc::clone(&world);
            let site = site.clone();
            let mut stopped = handler_stopped.clone();
            async move {
                tokio::select! {
                    answer = answer(&world, &site, &connection, request) => answer,
                    _ = stopped.wait_for(|stopped| *stopped) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                }
            }
        },
    );
    let service = router.into_make_service_with_connect_info::<Connection>();
    tokio::spawn(async move {
        let served = axum::serve(Resettable(listener), service).with_graceful_shutdown(async move {
            // An error is the sender's end, which means the same.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        });
        if let Err(error) = served.await {
            tracing::error!(%error, listener = name, "the local cloud's listener ended");
        }
    });
}

async fn answer(world: &Arc<World>, site: &Site, connection: &Connection, request: axum::extract::Request) -> Response {
    let (parts, body) = request.into_parts();
    let peer = match site {
        Site::Deployment(peer) => *peer,
        Site::MetadataOf(account) => {
            let request = Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body: Bytes::new(),
            };
            return metadata::handle(world, &request, account);
        }
        Site::PushRelay => {
            let body = match world.bodies.read(body).await {
                Ok(body) => body,
                Err(error) => return error.answer(),
            };
            let request = Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body: body.bytes.clone(),
            };
            return pubsub::relay(world, request).await;
        }
    };
    let path = parts.uri.path();
    let scripts = path == "/_faults";
    let watched = world.watchers.called(&world.clock, &parts.headers, || Call {
        peer,
        method: parts.method.to_string(),
        path: path.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    });
    let effect = (!scripts)
        .then(|| world.faults.take(peer, parts.method.as_str(), path))
        .flatten();
    let body = match faults::request_body(effect.as_ref(), body, &world.bodies).await {
        // Where the body was cut, the effect answers: no peer gets to see the request.
        Ok(body) => body.unwrap_or_default(),
        Err(error) => {
            let answer = error.answer();
            watched.returned(answer.status().as_u16());
            return answer;
        }
    };
    let request = Request {
        method: parts.method,
        path: path.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: body.bytes.clone(),
    };
    if scripts {
        return world.faults.handle(peer, &request);
    }
    if let Some(answer) = faults::before(effect.as_ref(), connection).await {
        watched.returned(answer.status().as_u16());
        return answer;
    }
    let answer = match peer {
        Peer::Storage => storage::handle(world, &request),
        Peer::Pubsub => pubsub::handle(world, &request).await,
        Peer::Metadata => metadata::handle(world, &request, &world.settings.worker_service_account),
        Peer::Iam => iam::handle(world, &request),
        Peer::Sts => sts::handle(world, &request),
        Peer::Jwks => jwks::handle(world, &request),
        Peer::Kms => kms::handle(world, &request),
        Peer::FrontDoor => front_door::handle(world, request).await,
        Peer::Push => text(StatusCode::NOT_FOUND, "pushes have no listener"),
    };
    let answer = faults::after(effect.as_ref(), connection, answer).await;
    let is_absent = answer.extensions().get::<storage::Hidden>().is_some();
    let status = if is_absent {
        StatusCode::NOT_FOUND
    } else {
        answer.status()
    };
    watched.returned(status.as_u16());
    answer
}

/// A connection that a fault can mark for a reset.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    reset: Arc<AtomicBool>,
}

impl Connection {
    pub(super) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, Resettable>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Resettable>) -> Self {
        Self {
            reset: Arc::clone(&stream.io().reset),
        }
    }
}

struct Resettable(TcpListener);

impl Listener for Resettable {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (
            Stream {
                stream,
                reset: Arc::default(),
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct Stream {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Acquire) {
            // Without it the close would still be a close, which the client takes for a failure as well.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The head of an answer that is to be lost must not arrive either.
        if self.reset.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
