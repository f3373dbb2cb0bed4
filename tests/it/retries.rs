//! What counts as sent, what ends a call that gets nowhere, and what may take its time.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use platen::google::http::{Http, Timeouts};
use platen::google::pubsub::Publisher;
use platen::google::retry::Budget;
use platen::google::storage::{Storage, Upload};
use platen::google::token::{Settings, Tokens};
use platen::google::{Error, Kind};
use platen::local_cloud::{Effect, Fault, Peer};

use crate::harness::{OUTPUT, cloud};
use crate::peer::{self, Reply, nobody};

const PUBLISHED: &[u8] = br#"{"messageIds": ["1"]}"#;

fn http(progress: Duration) -> Http {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        progress,
    };
    Http::with(timeouts).unwrap()
}

/// Publishes without a repeat.
async fn publish_once(url: &str, http: &Http) -> Result<String, Error> {
    let publisher = Publisher::new(http.clone(), url, None).within(&Budget::new(Duration::ZERO));
    publisher.publish("projects/p/topics/t", b"{}", &BTreeMap::new()).await
}

/// A server of which each connection is taken by `serve`, with its number.
fn server(serve: impl Fn(TcpStream, u32) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (stream, number) in listener.incoming().zip(0..) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream.unwrap(), number));
        }
    });
    url
}

/// Reads one request; false when there is none.
fn read(stream: &mut TcpStream) -> bool {
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        received.extend_from_slice(&buffer[..read]);
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if received.len() >= end + 4 + length.unwrap_or(0) {
                return true;
            }
        }
        if read == 0 {
            return false;
        }
    }
}

fn answer(stream: &mut TcpStream, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
}

#[tokio::test]
async fn only_what_found_no_server_was_not_sent() {
    let http = http(Duration::from_secs(1));
    // Nobody listens; the name is none; whoever is there speaks no TLS.
    let plain = server(|mut stream, _| drop(stream.write_all(b"no\r\n")));
    let tls = plain.replace("http:", "https:");
    for url in [nobody(), "http://no-such-host.invalid".to_owned(), tls] {
        let error = publish_once(&url, &http).await.unwrap_err();
        assert_eq!(
            (error.kind, error.not_sent),
            (Kind::Unavailable, true),
            "{url}: {error}"
        );
    }
    let gone = server(|mut stream, _| assert!(read(&mut stream)));
    let silent = peer::Peer::replies(vec![Reply::Stall]);
    let busy = peer::Peer::replies(vec![Reply::status(503)]);
    for url in [&gone, &silent.url, &busy.url] {
        let error = publish_once(url, &http).await.unwrap_err();
        assert_eq!(
            (error.kind, error.not_sent),
            (Kind::Unavailable, false),
            "{url}: {error}"
        );
    }
    // Without a token nothing goes out.
    let settings = Settings {
        metadata_host: Some(busy.url.clone()),
        ..Settings::default()
    };
    let tokens = Tokens::discover(http.clone(), &settings).await.unwrap();
    let publisher = Publisher::new(http, &silent.url, tokens).within(&Budget::new(Duration::ZERO));
    let error = publisher.publish("projects/p/topics/t", b"{}", &BTreeMap::new()).await;
    assert!(error.unwrap_err().not_sent);
    assert_eq!(silent.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_no_failure() {
    let (sender, closed) = std::sync::mpsc::channel();
    let url = server(move |mut stream, _| {
        assert!(read(&mut stream));
        answer(&mut stream, PUBLISHED);
        drop(stream);
        sender.send(()).unwrap();
    });
    let http = http(Duration::from_secs(30));
    let other = peer::Peer::replies(vec![Reply::Full(200, Vec::new(), PUBLISHED.to_vec())]);
    for _ in 0..20 {
        publish_once(&url, &http).await.unwrap();
        closed.recv().unwrap();
        // Whoever waits for an answer sees what else has come before it: that the connection is closed. Without such a
        // moment the request may be written to it all the same, and is then taken for sent.
        publish_once(&other.url, &http).await.unwrap();
    }
}

#[tokio::test]
async fn a_kept_connection_that_closes_on_a_request_has_taken_it() {
    let requests = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&requests);
    // Every connection answers its first request, and closes on its second.
    let url = server(move |mut stream, _| {
        assert!(read(&mut stream));
        seen.fetch_add(1, Ordering::SeqCst);
        answer(&mut stream, PUBLISHED);
        seen.fetch_add(u32::from(read(&mut stream)), Ordering::SeqCst);
    });
    let http = http(Duration::from_secs(30));
    publish_once(&url, &http).await.unwrap();
    let error = publish_once(&url, &http).await.unwrap_err();
    assert_eq!((error.kind, error.not_sent), (Kind::Unavailable, false), "{error}");
    assert_eq!(
        requests.load(Ordering::SeqCst),
        2,
        "hyper does not send by itself what was sent"
    );
    let publisher = Publisher::new(http, &url, None);
    for expected in [3, 5, 7] {
        publisher
            .publish("projects/p/topics/t", b"{}", &BTreeMap::new())
            .await
            .unwrap();
        assert_eq!(requests.load(Ordering::SeqCst), expected);
    }
}

/// Sends `first`, and then a byte at a time.
fn dripping(first: &'static [u8], pause: Duration, bytes: usize) -> String {
    server(move |mut stream, _| {
        assert!(read(&mut stream));
        let mut going = stream.write_all(first);
        for _ in 0..bytes {
            std::thread::sleep(pause);
            going = going.and_then(|()| stream.write_all(b" "));
        }
    })
}

#[tokio::test]
async fn a_small_answer_that_drips_ends() {
    let pause = Duration::from_millis(50);
    for first in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"[..],
        b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nX-Drip: ",
    ] {
        let url = dripping(first, pause, 1_000_000);
        let http = http(Duration::from_millis(500));
        let error = publish_once(&url, &http).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
        if error.status == Some(503) {
            // A download may drip, but not what is said in its place.
            let storage = Storage::new(http.clone(), &url, None).within(&Budget::new(Duration::ZERO));
            assert_eq!(storage.download("in", "a", 1).await.unwrap_err().status, Some(503));
        }
        // An upload has no time-out but its progress; what comes after its last byte is not progress.
        let file = tempfile::NamedTempFile::new().unwrap();
        let storage = Storage::new(http, &url, None).within(&Budget::new(Duration::ZERO));
        let error = storage
            .upload(&upload(file.path(), b"", &BTreeMap::new()))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    }
}

fn upload<'a>(file: &'a std::path::Path, bytes: &[u8], metadata: &'a BTreeMap<String, String>) -> Upload<'a> {
    Upload {
        bucket: OUTPUT,
        name: "a.pdf",
        content_type: "application/pdf",
        content_disposition: None,
        metadata,
        file,
        size: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
        if_generation_match: 0,
    }
}

#[tokio::test]
async fn a_download_that_drips_may_take_its_time() {
    // Longer than a small answer may take, and never as long between two bytes as silence may.
    let first = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n";
    let url = dripping(first, Duration::from_millis(100), 30);
    let storage = Storage::new(http(Duration::from_secs(1)), &url, None).within(&Budget::new(Duration::ZERO));
    let mut download = storage.download("in", "a", 1).await.unwrap();
    let mut received = 0;
    while let Some(chunk) = download.chunk().await.unwrap() {
        received += chunk.len();
    }
    assert_eq!(received, 30);
}

#[tokio::test]
async fn a_download_that_breaks_after_its_last_byte_is_whole() {
    let url = server(|mut stream, _| {
        assert!(read(&mut stream));
        // The end of the chunks never comes.
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-goog-stored-content-length: 5\r\n\r\n";
        stream.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).unwrap();
    });
    let storage = Storage::new(Http::new().unwrap(), &url, None).within(&Budget::new(Duration::ZERO));
    let mut download = storage.download("in", "a", 1).await.unwrap();
    assert_eq!(download.chunk().await.unwrap().unwrap(), "hello");
    assert!(download.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn a_download_that_failed_never_says_that_it_is_whole() {
    let cut = Reply::Cut(
        3,
        200,
        vec![("X-Goog-Stored-Content-Length", "5".to_owned())],
        b"hello".to_vec(),
    );
    let short = Reply::Full(
        200,
        vec![("X-Goog-Stored-Content-Length", "5".to_owned())],
        b"hel".to_vec(),
    );
    for (reply, kind) in [(cut, Kind::Unavailable), (short, Kind::Corrupt)] {
        let peer = peer::Peer::replies(vec![reply]);
        let storage = Storage::new(Http::new().unwrap(), &peer.url, None).within(&Budget::new(Duration::ZERO));
        let mut download = storage.download("in", "a", 1).await.unwrap();
        assert_eq!(download.chunk().await.unwrap().unwrap(), "hel");
        assert_eq!(download.chunk().await.unwrap_err().kind, kind);
        for _ in 0..3 {
            download.chunk().await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn the_metadata_server_is_asked_again_too() {
    let word = Reply::Full(200, vec![("Metadata-Flavor", "Google".to_owned())], b"p".to_vec());
    let peer = peer::Peer::replies(vec![Reply::status(503), Reply::status(429), word]);
    let settings = Settings {
        metadata_host: Some(peer.url.clone()),
        ..Settings::default()
    };
    let tokens = Tokens::discover(Http::new().unwrap(), &settings)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tokens.project_id().await.unwrap().as_deref(), Some("p"));
    assert_eq!(peer.requests().len(), 3);
}

#[tokio::test]
async fn the_local_cloud_takes_what_breaks_in_a_session() {
    let cloud = cloud().await;
    let urls = cloud.urls();
    let http = Http::new().unwrap();
    let settings = Settings {
        metadata_host: Some(urls.metadata.clone()),
        ..Settings::default()
    };
    let tokens = Tokens::discover(http.clone(), &settings).await.unwrap();
    let storage = Storage::new(http, &urls.storage, tokens);
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let none = BTreeMap::new();
    let lose = || Effect::LoseAnswer { lose_answer: true };
    let (reset, status) = (Effect::Reset { reset: true }, |status| Effect::Status {
        status,
        retry_after: None,
    });
    // The start's answer is lost, the bytes meet a reset and a 503, and the answer that all is there is lost as well.
    for (method, skip, effect) in [
        ("POST", 0, lose()),
        ("PUT", 0, reset),
        ("PUT", 0, status(408)),
        ("PUT", 1, lose()),
    ] {
        cloud.add_fault(Fault {
            peer: Some(Peer::Storage),
            method: Some(method.to_owned()),
            path_prefix: "/upload/".to_owned(),
            skip,
            count: 1,
            effect,
        });
    }
    let object = storage.upload(&upload(file.path(), &bytes, &none)).await.unwrap();
    assert_eq!((object.size, object.crc32c), (20_000_000, Some(crc32c::crc32c(&bytes))));
    let mut download = storage.download(OUTPUT, "a.pdf", object.generation).await.unwrap();
    let mut received = Vec::new();
    while let Some(chunk) = download.chunk().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    assert!(received == bytes);
    let again = storage.upload(&upload(file.path(), &bytes, &none)).await.unwrap_err();
    assert_eq!(again.kind, Kind::PreconditionFailed);
    assert_eq!(
        storage.metadata(OUTPUT, "a.pdf", None).await.unwrap().generation,
        object.generation
    );
}
