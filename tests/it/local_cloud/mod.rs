//! The local cloud, asked over real sockets with a plain HTTP client: it must demand what Google demands, or the
//! worker's tests against it prove nothing.

mod absent;
mod access;
mod batches;
mod bounds;
mod dead_letters;
mod faults;
mod filters;
mod identity;
mod kms;
mod ordering;
mod pubsub;
mod push;
mod refusals;
mod refused_links;
mod rewrites;
mod sessions;
mod settings;
mod signed;
mod snapshots;
mod storage;
mod subscriptions;
mod uploads;

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use platen::local_cloud::{LocalCloud, Settings};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A cloud, a client and a valid access token of the worker.
struct Fixture {
    cloud: LocalCloud,
    http: Client,
    token: String,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    /// A cloud whose Pub/Sub runs a hundred times as fast.
    async fn fast() -> Self {
        Self::with(Settings {
            pubsub_second: Duration::from_millis(10),
            ..Settings::default()
        })
        .await
    }

    async fn with(settings: Settings) -> Self {
        let cloud = LocalCloud::start(settings).await.expect("the local cloud starts");
        let token = cloud.access_token(&cloud.settings().worker_service_account);
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { cloud, http, token }
    }

    fn get(&self, url: String) -> RequestBuilder {
        self.http.get(url).bearer_auth(&self.token)
    }

    fn post(&self, url: String) -> RequestBuilder {
        self.http.post(url).bearer_auth(&self.token)
    }

    fn put(&self, url: String) -> RequestBuilder {
        self.http.put(url).bearer_auth(&self.token)
    }

    /// `BASE/storage/v1/b/REST`
    fn storage(&self, rest: &str) -> String {
        format!("{}/storage/v1/b/{rest}", self.cloud.urls().storage)
    }

    /// `BASE/v1/projects/local-project/REST`
    fn pubsub(&self, rest: &str) -> String {
        format!(
            "{}/v1/projects/{}/{rest}",
            self.cloud.urls().pubsub,
            self.cloud.settings().project
        )
    }

    /// Uploads bytes as they are; the object's resource.
    async fn upload(&self, bucket: &str, name: &str, content: &[u8]) -> Value {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let base = &self.cloud.urls().storage;
        let request = self.post(format!(
            "{base}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
        ));
        ok(request.header("content-type", "text/plain").body(content.to_vec())).await
    }
}

/// A component of an address.
fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Waits for what must come: far longer than it takes, so that only what never comes fails.
async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("what the test waits for comes")
}

/// Sends, demands 200, and reads the JSON.
async fn ok(request: RequestBuilder) -> Value {
    let (status, body) = answer(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// The status and the JSON body; null where the body is none.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("the peer answers");
    let status = answer.status();
    let bytes = answer.bytes().await.expect("the whole body arrives");
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// A call of Pub/Sub: its status and its body. The token is a new one, because clocks are moved on past the life of an older one.
async fn call(cloud: &Fixture, method: Method, path: &str, body: Value) -> (u16, Value) {
    let token = cloud.cloud.access_token(&cloud.cloud.settings().worker_service_account);
    let request = cloud.http.request(method, cloud.pubsub(path)).bearer_auth(token);
    let (status, answer) = answer(request.json(&body)).await;
    (status.as_u16(), answer)
}

/// The answer of a call of Pub/Sub that must succeed.
async fn done(cloud: &Fixture, method: Method, path: &str, body: Value) -> Value {
    let (status, answer) = call(cloud, method, path, body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// The status and Google's word for it.
async fn refused(cloud: &Fixture, method: Method, path: &str, body: Value) -> (u16, String) {
    let (status, answer) = call(cloud, method, path, body).await;
    let word = answer["error"]["status"].as_str().unwrap_or_default().to_owned();
    (status, word)
}

/// An answer read by hand.
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request whose target no URL library has tidied up.
async fn raw(base: &str, method: &str, target: &str, headers: &[(&str, &str)]) -> Raw {
    let address = base.strip_prefix("http://").expect("a base URL");
    let mut stream = TcpStream::connect(address).await.expect("the peer listens");
    let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("the peer closes in order");
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    Raw {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    }
}
