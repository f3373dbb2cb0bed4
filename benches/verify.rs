//! What it costs to find out who calls and what is asked for, and to sign an answer.
//!
//! `cargo bench --bench verify` prints, in one run on one machine: verify (cold and looked up), decode and sign as
//! operations a second; the running worker's rate for requests that are verified, decoded and refused, as a share of a
//! bare axum handler's; and how long good tokens take while ten thousand made-up key ids come in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a benchmark that cannot measure says so by failing"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::Utc;
use platen::accept::verify::{Mode, Verifier, VerifyRules};
use platen::accept::{decode, push};
use platen::deliver::sign::{Endpoint, Request, Signer, Style};
use platen::google::http::Http;
use platen::google::keys::KeySet;
use platen::google::signing::SigningKey;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const AUDIENCE: &str = "https://worker.example";
const EMAIL: &str = "push@project.iam.gserviceaccount.com";
/// Each measurement runs this long; the two servers take turns.
const ROUND: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 16;
const UNKNOWN_KEYS: usize = 10_000;

fn main() {
    // The bare handler is a process of its own, as the worker is.
    if let Ok(port) = std::env::var("PLATEN_BENCH_BARE") {
        return bare(port.parse().unwrap());
    }
    runtime(1).block_on(in_process());
    if !std::path::Path::new("/usr/lib/libreoffice/program").is_dir() {
        println!("skipped: the running worker (LibreOffice is not installed)");
        return;
    }
    runtime(1).block_on(running());
}

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// Google's part: a key, its set over HTTP, and tokens.
struct Issuer {
    key: SigningKey,
    url: String,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        // A 2048-bit key's SubjectPublicKeyInfo ends in its modulus and the five bytes of the exponent 65537.
        let der = public.as_ref();
        let modulus = &der[der.len() - 261..der.len() - 5];
        let set = json!({"keys": [{
            "kid": "k1", "kty": "RSA", "alg": "RS256", "use": "sig", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus),
        }]});
        let (url, fetches) = serve(set.to_string());
        Self {
            key: SigningKey::from_pem(EMAIL, &pem).unwrap(),
            url,
            fetches,
        }
    }

    fn token(&self, kid: &str, number: i64) -> String {
        let head = json!({"alg": "RS256", "kid": kid, "typ": "JWT"});
        let now = Utc::now().timestamp();
        let claims = json!({
            "aud": AUDIENCE, "azp": "113774264463038321964", "email": EMAIL, "email_verified": true,
            "exp": now + 3600 + number, "iat": now, "iss": "https://accounts.google.com", "sub": "113774264463038321964",
        });
        let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&head), encode(&claims));
        let signature = self.key.sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Answers every request with this body, and counts.
fn serve(body: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _request = stream.read(&mut [0; 4096]);
            counted.fetch_add(1, Ordering::Relaxed);
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: max-age=21000";
            let _gone = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    (url, count)
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

fn envelope() -> String {
    let resource = json!({
        "kind": "storage#object", "bucket": "in", "name": "reports/q3.docx", "generation": "1736358966947877",
        "metageneration": "1", "size": "18148", "crc32c": "naiLwA==", "timeCreated": "2025-01-08T17:56:06.952Z",
    });
    json!({
        "message": {
            "attributes": {
                "eventType": "OBJECT_FINALIZE", "bucketId": "in", "objectId": "reports/q3.docx",
                "objectGeneration": "1736358966947877", "payloadFormat": "JSON_API_V1",
            },
            "data": STANDARD.encode(resource.to_string()), "messageId": "1", "message_id": "1",
            "publishTime": "2026-01-01T00:00:00Z", "publish_time": "2026-01-01T00:00:00Z",
        },
        "subscription": "projects/p/subscriptions/s",
    })
    .to_string()
}

/// Runs until the time is over and prints operations a second.
async fn measure(what: &str, mut operation: impl AsyncFnMut(usize)) {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < ROUND {
        for _ in 0..16 {
            operation(count).await;
            count += 1;
        }
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("{what:<44} {rate:>9.0} /s   {:>8.2} µs", 1e6 / rate);
}

async fn in_process() {
    println!("one thread, one operation after the other");
    let issuer = Issuer::new();
    let keys = KeySet::new(Http::new().unwrap(), &issuer.url);
    let verifier = || {
        let rules = VerifyRules {
            mode: Mode::Oidc,
            audiences: vec![AUDIENCE.into()],
            emails: vec![EMAIL.into()],
        };
        Verifier::new(rules, keys.clone())
    };
    // More than are remembered, so that each is verified in full.
    let tokens: Vec<_> = (0..1500).map(|number| bearer(&issuer.token("k1", number))).collect();
    let now = Utc::now();
    let mut cold = verifier();
    cold.verify(&tokens[0], now).await.unwrap();
    measure("verify a token, in full", async |number| {
        if number % 1000 == 0 {
            cold = verifier();
        }
        black_box(cold.verify(&tokens[number % 1000], now).await.unwrap());
    })
    .await;
    let warm = verifier();
    measure("verify a token that was verified before", async |_| {
        black_box(warm.verify(&tokens[0], now).await.unwrap());
    })
    .await;
    let (headers, body) = (HeaderMap::new(), envelope());
    measure("decode a wrapped notification", async |_| {
        let message = push(&headers, body.as_bytes()).unwrap();
        black_box(decode(&message.payload).unwrap());
    })
    .await;
    let (signer, endpoint) = (Signer::Key(issuer.key.clone()), Endpoint::default());
    let query = [
        ("generation".to_owned(), "1736358966947877".to_owned()),
        ("response-content-type".to_owned(), "application/pdf".to_owned()),
        (
            "response-content-disposition".to_owned(),
            "attachment; filename=\"q3.pdf\"".to_owned(),
        ),
    ];
    let request = Request {
        method: "GET",
        bucket: "out",
        object: Some("reports/q3.pdf"),
        headers: &[],
        query: &query,
        style: Style::Path,
        endpoint: &endpoint,
        at: now,
        ttl: Duration::from_secs(3600),
    };
    measure("sign a URL with a key (RSA-2048)", async |_| {
        black_box(signer.sign(&request).await.unwrap());
    })
    .await;
}

/// A handler that takes the body and says 204: what axum and this machine can do at all.
fn bare(port: u16) {
    runtime(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).block_on(async move {
        let take = |_body: bytes::Bytes| async { axum::http::StatusCode::NO_CONTENT };
        let router = axum::Router::new().route("/", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
}

/// A server process, ended with this.
struct Process {
    child: Child,
    address: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Process {
    async fn start(command: &mut Command, variable: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = command
            .env(variable, port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self {
            child,
            address: format!("127.0.0.1:{port}"),
        };
        let began = Instant::now();
        while TcpStream::connect(&process.address).await.is_err() {
            assert!(process.child.try_wait().unwrap().is_none(), "a server ended at once");
            assert!(began.elapsed() < Duration::from_secs(120), "a server does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process
    }
}

/// The worker as it is deployed, with Google's other services out of reach: no request here gets as far.
async fn worker(issuer: &Issuer, work: &std::path::Path) -> Process {
    let variables: HashMap<&str, &str> = HashMap::from([
        ("OUTPUT_BUCKET", "out"),
        ("INPUT_BUCKETS", "in"),
        ("RESULT_TOPIC", "projects/p/topics/results"),
        ("PUSH_AUTH", "oidc"),
        ("PUSH_AUDIENCE", AUDIENCE),
        ("PUSH_SERVICE_ACCOUNT", EMAIL),
        ("SIGNER_SERVICE_ACCOUNT", EMAIL),
        ("STORAGE_EMULATOR_HOST", "127.0.0.1:1"),
        ("PUBSUB_EMULATOR_HOST", "127.0.0.1:1"),
        ("IAM_CREDENTIALS_ENDPOINT", "http://127.0.0.1:1"),
        ("LOG_FORMAT", "json"),
    ]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_platen"));
    command
        .arg("serve")
        .env_clear()
        .envs(variables)
        .env("OIDC_JWKS_URL", &issuer.url)
        .env("TMPDIR", work);
    Process::start(&mut command, "PORT").await
}

fn post(token: &str, body: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nHost: worker.example\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n\
         User-Agent: bench\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request on a connection that stays open and gives the status.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> u16 {
    stream.write_all(request).await.unwrap();
    buffer.clear();
    loop {
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "the server closed");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end]).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        if buffer.len() >= end + 4 + length {
            return head[9..12].parse().unwrap();
        }
    }
}

/// Requests a second over a few connections that are kept busy.
async fn load(address: &str, request: Vec<u8>, status: u16) -> f64 {
    let (request, done) = (Arc::new(request), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (request, done) = (Arc::clone(&request), Arc::clone(&done));
        clients.push(tokio::spawn(async move {
            let (mut count, mut buffer) = (0_usize, Vec::with_capacity(1024));
            while !done.load(Ordering::Relaxed) {
                assert_eq!(exchange(&mut stream, &request, &mut buffer).await, status);
                count += 1;
            }
            count
        }));
    }
    tokio::time::sleep(ROUND).await;
    done.store(true, Ordering::Relaxed);
    let mut total = 0;
    for client in clients {
        total += client.await.unwrap();
    }
    total as f64 / began.elapsed().as_secs_f64()
}

async fn running() {
    let issuer = Issuer::new();
    let work = tempfile::tempdir().unwrap();
    let worker = worker(&issuer, work.path()).await;
    let mut own = Command::new(std::env::current_exe().unwrap());
    let bare = Process::start(&mut own, "PLATEN_BENCH_BARE").await;
    let token = issuer.token("k1", 0);
    let no_event = envelope().replacen("\"message\"", "\"massage\"", 1);
    let other_event = envelope().replacen("OBJECT_FINALIZE", "OBJECT_DELETE", 1);
    println!("\nthe running worker, {CONNECTIONS} connections, in turns with a bare handler (medians of {ROUNDS})");
    let (mut bares, mut refused, mut ignored, mut strangers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bares.push(load(&bare.address, post(&token, &no_event), 204).await);
        refused.push(load(&worker.address, post(&token, &no_event), 400).await);
        ignored.push(load(&worker.address, post(&token, &other_event), 204).await);
        strangers.push(load(&worker.address, post("a.b.c", &no_event), 401).await);
    }
    let bare = median(bares);
    println!("{:<44} {bare:>9.0} /s", "a bare handler: 204");
    for (what, rates) in [
        ("verified, decoded, refused: 400", refused),
        ("verified, decoded, ignored: 204", ignored),
        ("no good token: 401", strangers),
    ] {
        let rate = median(rates);
        println!("{what:<44} {rate:>9.0} /s   {:>7.0} %", 100.0 * rate / bare);
    }
    flood(&issuer, &worker.address, &other_event).await;
}

/// Good tokens one after the other, while made-up key ids come in as fast as they are answered.
async fn flood(issuer: &Issuer, address: &str, body: &str) {
    let good = post(&issuer.token("k1", 0), body);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    exchange(&mut stream, &good, &mut buffer).await;
    let before = issuer.fetches.load(Ordering::Relaxed);
    let tokens: Vec<_> = (0..UNKNOWN_KEYS)
        .map(|number| {
            let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","kid":"made-up-{number}"}}"#));
            let token = issuer.token("k1", 0);
            post(&format!("{head}.{}", token.split_once('.').unwrap().1), "{}")
        })
        .collect();
    let done = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn({
        let (address, done) = (address.to_owned(), Arc::clone(&done));
        async move {
            let began = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut buffer = Vec::new();
            for token in tokens {
                assert_eq!(exchange(&mut stream, &token, &mut buffer).await, 401);
            }
            done.store(true, Ordering::Relaxed);
            began.elapsed()
        }
    });
    let mut times = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        assert_eq!(exchange(&mut stream, &good, &mut buffer).await, 204);
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = flood.await.unwrap();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
    println!(
        "\n{UNKNOWN_KEYS} unknown key ids in {:.1} s: {} fetches of the keys; {} good tokens, p50 {:.2} ms, p99 {:.2} ms",
        took.as_secs_f64(),
        issuer.fetches.load(Ordering::Relaxed) - before,
        times.len(),
        at(0.5),
        at(0.99)
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
