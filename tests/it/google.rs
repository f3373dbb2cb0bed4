//! The clients on real sockets, against peers that break in every way we know of.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use platen::google::http::{Http, Timeouts};
use platen::google::iam::Iam;
use platen::google::pubsub::Publisher;
use platen::google::retry::Budget;
use platen::google::storage::{Download, Object, Storage, Upload};
use platen::google::token::{Settings, Tokens};
use platen::google::{Error, Kind};
use serde_json::{Value, json};

use crate::keys::TestKey;
use crate::peer::{Peer, Recorded, Reply, nobody};

const CANARY: &str = "ya29.canary-that-no-error-may-show";

fn http() -> Http {
    Http::with(Timeouts {
        connect: Duration::from_secs(5),
        progress: Duration::from_millis(400),
    })
    .unwrap()
}

fn storage(peer: &Peer) -> Storage {
    Storage::new(http(), &peer.url, None)
}

fn resource(name: &str) -> Value {
    json!({
        "kind": "storage#object", "bucket": "in", "name": name, "generation": "1736358966947877", "metageneration": "2",
        "size": "5", "contentType": "text/plain", "crc32c": "mnG7TA==", "metadata": {"a": "b"}, "md5Hash": "x",
    })
}

fn hash(bytes: &[u8]) -> String {
    format!("crc32c={}", STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes()))
}

async fn read(mut download: Download) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn metadata_is_read_and_every_name_reaches_the_peer_as_it_is() {
    let peer = Peer::replies(vec![Reply::json(200, resource("a"))]);
    let longest = "ü".repeat(512);
    let encoded = "%C3%BC".repeat(512);
    let names = [
        ("a/../b", "a%2F..%2Fb"),
        ("../..", "..%2F.."),
        ("a//b", "a%2F%2Fb"),
        ("/lead", "%2Flead"),
        ("trail/", "trail%2F"),
        ("what?.pdf", "what%3F.pdf"),
        ("a#b", "a%23b"),
        ("a%2Fb", "a%252Fb"),
        ("%2e%2e", "%252e%252e"),
        ("a b+c", "a%20b%2Bc"),
        ("...", "..."),
        ("~-_.!*'()", "~-_.%21%2A%27%28%29"),
        ("é", "%C3%A9"),
        ("e\u{301}", "e%CC%81"),
        ("a\\b", "a%5Cb"),
        ("\u{1}\t\u{7f}", "%01%09%7F"),
        (longest.as_str(), encoded.as_str()),
    ];
    for (name, path) in names {
        storage(&peer).metadata("in", name, Some(7)).await.unwrap();
        storage(&peer).metadata("in", name, None).await.unwrap();
        let requests = peer.requests();
        let [.., exact, newest] = &requests[..] else {
            unreachable!()
        };
        assert_eq!(exact.target, format!("/storage/v1/b/in/o/{path}?generation=7"));
        assert_eq!(newest.target, format!("/storage/v1/b/in/o/{path}"));
    }
    let object = storage(&peer).metadata("in", "a", None).await.unwrap();
    assert_eq!(
        object,
        Object {
            bucket: "in".into(),
            name: "a".into(),
            generation: 1_736_358_966_947_877,
            size: 5,
            content_type: Some("text/plain".into()),
            content_encoding: None,
            crc32c: Some(crc32c::crc32c(b"hello")),
            metadata: BTreeMap::from([("a".into(), "b".into())]),
        }
    );
}

#[tokio::test]
async fn names_that_no_object_has_never_become_another_url() {
    let peer = Peer::replies(vec![Reply::json(200, resource("a"))]);
    let long = "x".repeat(1025);
    for name in ["", ".", "..", "a\nb", "a\rb", &long] {
        assert_eq!(
            storage(&peer).metadata("in", name, None).await.unwrap_err().kind,
            Kind::Invalid,
            "{name:.9?}"
        );
        assert_eq!(
            storage(&peer).download("in", name, 1).await.unwrap_err().kind,
            Kind::Invalid,
            "{name:.9?}"
        );
    }
    assert_eq!(
        storage(&peer).metadata("..", "a", None).await.unwrap_err().kind,
        Kind::Invalid
    );
    assert!(peer.requests().is_empty());
}

#[tokio::test]
async fn a_status_becomes_a_kind_with_googles_words_and_without_secrets() {
    let said = format!("denied for {CANARY} at https://storage.googleapis.com/x?X-Goog-Signature=abc now");
    let body = json!({"error": {"code": 403, "message": said, "errors": [{"reason": "forbidden"}]}});
    let peer = Peer::replies(vec![Reply::json(403, body)]);
    let error = storage(&peer).metadata("in", "a", Some(7)).await.unwrap_err();
    assert_eq!((error.kind, error.status), (Kind::Forbidden, Some(403)));
    assert_eq!(
        error.to_string(),
        "storage.objects.get on gs://in/a#7: HTTP 403: denied for [redacted] at https://storage.googleapis.com/x now"
    );
    for (status, kind) in [
        (301, Kind::Invalid),
        (400, Kind::Invalid),
        (401, Kind::Unauthenticated),
        (404, Kind::NotFound),
        (412, Kind::PreconditionFailed),
        (413, Kind::TooLarge),
        (501, Kind::Invalid),
    ] {
        let peer = Peer::replies(vec![Reply::status(status).with("Location", "/elsewhere")]);
        let error = storage(&peer).metadata("in", "a", None).await.unwrap_err();
        assert_eq!((error.kind, error.is_transient()), (kind, false), "{status}");
        assert_eq!(peer.requests().len(), 1, "{status} is neither retried nor followed");
    }
}

#[tokio::test]
async fn an_absent_object_is_told_from_a_missing_right_also_without_the_right_to_list() {
    let refused = |right: &str| {
        let message = format!(
            "worker@p.iam.gserviceaccount.com does not have {right} access to the Google Cloud Storage object."
        );
        let framed = json!({"error": {"code": 403, "message": message, "errors": [{"message": message, "reason": "forbidden"}]}});
        // Downloads are refused in a bare sentence.
        let kind = ("Content-Type", "text/html; charset=UTF-8".to_owned());
        [
            Reply::json(403, framed),
            Reply::Full(403, vec![kind], message.into_bytes()),
        ]
    };
    for (right, kind) in [
        ("storage.objects.list", Kind::NotFound),
        ("storage.objects.get", Kind::Forbidden),
    ] {
        let [framed, bare] = refused(right);
        let peer = Peer::replies(vec![framed]);
        assert_eq!(
            storage(&peer).metadata("in", "a", None).await.unwrap_err().kind,
            kind,
            "{right}"
        );
        let peer = Peer::replies(vec![bare]);
        assert_eq!(
            storage(&peer).download("in", "a", 7).await.unwrap_err().kind,
            kind,
            "{right}"
        );
    }
}

#[tokio::test]
async fn transient_answers_are_tried_again() {
    for reply in [408, 429, 500, 502, 503, 504].map(Reply::status).into_iter().chain([
        Reply::Cut(3, 200, Vec::new(), resource("a").to_string().into_bytes()),
        Reply::json(
            403,
            json!({"error": {"message": "slow", "errors": [{"reason": "rateLimitExceeded"}]}}),
        ),
    ]) {
        let peer = Peer::replies(vec![reply.clone(), reply.clone(), Reply::json(200, resource("a"))]);
        storage(&peer).metadata("in", "a", None).await.unwrap();
        assert_eq!(peer.requests().len(), 3, "{reply:?}");
    }
}

#[tokio::test]
async fn a_budget_is_shared_and_a_long_wait_is_handed_on() {
    let peer = Peer::replies(vec![Reply::status(503)]);
    let budget = Budget::new(Duration::from_millis(500));
    let client = storage(&peer).within(&budget);
    assert_eq!(
        client.metadata("in", "a", None).await.unwrap_err().kind,
        Kind::Unavailable
    );
    let publisher = Publisher::new(http(), &peer.url, None).within(&Budget::new(Duration::ZERO));
    let before = peer.requests().len();
    assert!(before > 1, "the first budget was used");
    publisher
        .publish("projects/p/topics/t", b"", &BTreeMap::new())
        .await
        .unwrap_err();
    assert_eq!(peer.requests().len(), before + 1, "the second one was empty");

    let peer = Peer::replies(vec![Reply::status(429).with("Retry-After", "77")]);
    let error = storage(&peer).metadata("in", "a", None).await.unwrap_err();
    assert_eq!(
        (error.kind, error.retry_after),
        (Kind::Throttled, Some(Duration::from_secs(77)))
    );
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_says_where() {
    let client = Storage::new(http(), &nobody(), None).within(&Budget::new(Duration::ZERO));
    let error = client.metadata("in", "a", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(
        error
            .to_string()
            .starts_with("storage.objects.get on gs://in/a: no connection: "),
        "{error}"
    );
}

#[tokio::test]
async fn stored_bytes_arrive_as_they_are_stored() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"compressed by whoever stored it").unwrap();
    let stored = gzip.finish().unwrap();
    let reply = Reply::Full(200, vec![("Content-Encoding", "gzip".into())], stored.clone());
    let peer = Peer::replies(vec![reply.with("X-Goog-Hash", format!("md5=x,{}", hash(&stored)))]);
    let download = storage(&peer).download("in", "a/b", 7).await.unwrap();
    assert_eq!(
        (download.crc32c, download.size),
        (Some(crc32c::crc32c(&stored)), Some(stored.len() as u64))
    );
    assert_eq!(read(download).await.unwrap(), stored);
    let request = &peer.requests()[0];
    assert_eq!(
        request.target,
        "/download/storage/v1/b/in/o/a%2Fb?alt=media&generation=7"
    );
    assert_eq!(request.header("accept-encoding"), Some("gzip"));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        request.header("user-agent"),
        Some(concat!("platen/", env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test]
async fn other_bytes_than_the_stored_ones_are_corrupt() {
    let lie = Reply::Full(
        200,
        vec![("X-Goog-Hash", "md5=x".into()), ("X-Goog-Hash", hash(b"hello"))],
        b"hellO".to_vec(),
    );
    let download = storage(&Peer::replies(vec![lie])).download("in", "a", 7).await.unwrap();
    let error = read(download).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::Corrupt, true));

    let short = Reply::Full(
        200,
        vec![("X-Goog-Stored-Content-Length", "6".into())],
        b"hello".to_vec(),
    );
    let download = storage(&Peer::replies(vec![short]))
        .download("in", "a", 7)
        .await
        .unwrap();
    assert_eq!(read(download).await.unwrap_err().kind, Kind::Corrupt);
}

/// Serves ranges of `bytes`, at most `cut` at a time.
fn cutting(bytes: &[u8], cut: usize, request: &Recorded) -> Reply {
    let from = request.header("range").map_or(0, |range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .strip_suffix('-')
            .unwrap()
            .parse()
            .unwrap()
    });
    let mut headers = vec![("X-Goog-Hash", hash(bytes))];
    if from > 0 {
        headers.push((
            "Content-Range",
            format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
        ));
    }
    let rest = bytes[from..].to_vec();
    Reply::Cut(cut.min(rest.len()), if from > 0 { 206 } else { 200 }, headers, rest)
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    let served = bytes.clone();
    let peer = Peer::start(move |request, _| cutting(&served, 40_000, request));
    let download = storage(&peer).download("in", "a", 7).await.unwrap();
    assert_eq!(read(download).await.unwrap(), bytes);
    let requests = peer.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=40000-"), Some("bytes=80000-")]);
    assert!(
        requests
            .iter()
            .all(|request| request.target.ends_with("?alt=media&generation=7"))
    );
}

#[tokio::test]
async fn a_rest_that_is_not_the_rest_is_refused() {
    let bytes = b"hello, world".to_vec();
    let whole_again = bytes.clone();
    let peer =
        Peer::start(move |_, _| Reply::Cut(5, 200, vec![("X-Goog-Hash", hash(&whole_again))], whole_again.clone()));
    let error = read(storage(&peer).download("in", "a", 7).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");

    let peer = Peer::start(move |request, number| match number {
        0 => Reply::Cut(5, 200, vec![("X-Goog-Hash", hash(&bytes))], bytes.clone()),
        _ => cutting(b"HELLO, WORLD", 12, request),
    });
    let error = read(storage(&peer).download("in", "a", 7).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
    assert!(error.to_string().contains("other bytes than the beginning"), "{error}");

    // Without a hash only the position tells.
    let peer = Peer::start(|_, number| match number {
        0 => Reply::Cut(5, 200, Vec::new(), b"hello, world".to_vec()),
        _ => Reply::Full(
            206,
            vec![("Content-Range", "bytes 4-10/12".into())],
            b"o, worl".to_vec(),
        ),
    });
    let error = read(storage(&peer).download("in", "a", 7).await.unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
}

#[tokio::test]
async fn a_download_that_never_gets_further_ends_with_its_budget() {
    let peer = Peer::start(|request, _| cutting(b"hello", usize::from(request.header("range").is_none()), request));
    let client = storage(&peer).within(&Budget::new(Duration::from_millis(500)));
    let error = read(client.download("in", "a", 7).await.unwrap()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(peer.requests().len() <= 7, "{}", peer.requests().len());
}

fn upload<'a>(file: &'a Path, size: u64, crc32c: u32, metadata: &'a BTreeMap<String, String>) -> Upload<'a> {
    Upload {
        bucket: "out",
        name: "reports/q 3+.pdf",
        content_type: "application/pdf",
        content_disposition: Some("attachment; filename=\"q 3+.pdf\""),
        metadata,
        file,
        size,
        crc32c,
        if_generation_match: 0,
    }
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn stored(bytes: &[u8]) -> Reply {
    let mut object = resource("reports/q 3+.pdf");
    object["size"] = bytes.len().to_string().into();
    object["crc32c"] = STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes()).into();
    Reply::json(200, object)
}

#[tokio::test]
async fn an_upload_is_one_multipart_request_of_known_length() {
    let bytes = b"%PDF-1.7 \r\n--platen-\r\n\0\xff %%EOF".to_vec();
    let file = file_of(&bytes);
    let metadata = BTreeMap::from([("platen-source".to_owned(), "gs://in/ü\"#7".to_owned())]);
    let peer = Peer::replies(vec![Reply::status(503), stored(&bytes)]);
    let sum = crc32c::crc32c(&bytes);
    let object = storage(&peer)
        .upload(&upload(file.path(), bytes.len() as u64, sum, &metadata))
        .await
        .unwrap();
    assert_eq!((object.size, object.crc32c), (bytes.len() as u64, Some(sum)));

    let requests = peer.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.method, "POST");
        let query = "uploadType=multipart&name=reports%2Fq%203%2B.pdf&ifGenerationMatch=0";
        assert_eq!(request.target, format!("/upload/storage/v1/b/out/o?{query}"));
        assert_eq!(request.header("transfer-encoding"), None);
        assert_eq!(
            request.header("content-length"),
            Some(request.body.len().to_string().as_str())
        );
        let kind = request.header("content-type").unwrap();
        let boundary = kind.strip_prefix("multipart/related; boundary=").unwrap();
        let head = format!("--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n");
        let rest = request.body.strip_prefix(head.as_bytes()).unwrap();
        let end = rest.iter().position(|byte| *byte == b'\r').unwrap();
        let said: Value = serde_json::from_slice(&rest[..end]).unwrap();
        assert_eq!(
            said,
            json!({
                "name": "reports/q 3+.pdf", "contentType": "application/pdf", "metadata": metadata,
                "crc32c": STANDARD.encode(sum.to_be_bytes()), "contentDisposition": "attachment; filename=\"q 3+.pdf\"",
            })
        );
        let mut media = format!("\r\n--{boundary}\r\nContent-Type: application/pdf\r\n\r\n").into_bytes();
        media.extend_from_slice(&bytes);
        media.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert_eq!(&rest[end..], &media[..]);
    }
}

#[tokio::test]
async fn an_upload_that_was_not_first_or_is_stored_wrong_says_so() {
    let (file, none) = (file_of(b"hello"), BTreeMap::new());
    let sum = crc32c::crc32c(b"hello");
    let peer = Peer::replies(vec![Reply::status(412)]);
    let error = storage(&peer)
        .upload(&upload(file.path(), 5, sum, &none))
        .await
        .unwrap_err();
    assert_eq!((error.kind, peer.requests().len()), (Kind::PreconditionFailed, 1));

    let peer = Peer::replies(vec![stored(b"hellO")]);
    let error = storage(&peer)
        .upload(&upload(file.path(), 5, sum, &none))
        .await
        .unwrap_err();
    assert_eq!((error.kind, peer.requests().len()), (Kind::Corrupt, 1));

    let peer = Peer::replies(vec![stored(b"hello")]);
    let error = storage(&peer)
        .upload(&upload(file.path(), 6, sum, &none))
        .await
        .unwrap_err();
    assert_eq!((error.kind, peer.requests().len()), (Kind::Invalid, 0));
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_patience_for_silence() {
    let bytes = vec![7; 24 << 20];
    let (file, none) = (file_of(&bytes), BTreeMap::new());
    let reply = stored(&bytes);
    // 24 MiB in pieces of 64 KiB, 20 ms apart, take longer than the silence that ends a call; and the silence is long
    // enough that a busy machine does not make one.
    let peer = Peer::paced(Duration::from_millis(20), move |request, number| match number {
        0 => {
            let here = request.header("host").unwrap();
            Reply::status(200).with("Location", format!("http://{here}/?upload_id=x"))
        }
        _ => reply.clone(),
    });
    let upload = upload(file.path(), bytes.len() as u64, crc32c::crc32c(&bytes), &none);
    let patient = Http::with(Timeouts {
        connect: Duration::from_secs(5),
        progress: Duration::from_secs(5),
    });
    Storage::new(patient.unwrap(), &peer.url, None)
        .within(&Budget::new(Duration::ZERO))
        .upload(&upload)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_peer_that_goes_silent_is_left() {
    let (file, none) = (file_of(b"hello"), BTreeMap::new());
    let peer = Peer::replies(vec![Reply::Stall]);
    let client = storage(&peer).within(&Budget::new(Duration::ZERO));
    let error = client
        .upload(&upload(file.path(), 5, crc32c::crc32c(b"hello"), &none))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert_eq!(
        client.metadata("in", "a", None).await.unwrap_err().kind,
        Kind::Unavailable
    );
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn a_message_is_published_with_data_and_attributes() {
    let peer = Peer::replies(vec![
        Reply::status(503),
        Reply::json(200, json!({"messageIds": ["4711"]})),
    ]);
    let publisher = Publisher::new(http(), &peer.url, None);
    let attributes = BTreeMap::from([("status".to_owned(), "succeeded".to_owned())]);
    let id = publisher
        .publish("projects/example.com:p/topics/t", b"{}", &attributes)
        .await
        .unwrap();
    assert_eq!(id, "4711");
    let request = &peer.requests()[1];
    assert_eq!(request.target, "/v1/projects/example.com%3Ap/topics/t:publish");
    assert_eq!(
        request.json(),
        json!({"messages": [{"data": "e30=", "attributes": {"status": "succeeded"}}]})
    );
    for topic in [
        "t",
        "projects/p/topics/",
        "projects/../topics/t",
        "projects/p/topics/a/b",
        "projects/p/subscriptions/t",
    ] {
        assert_eq!(
            publisher.publish(topic, b"", &attributes).await.unwrap_err().kind,
            Kind::Invalid,
            "{topic}"
        );
    }
    assert_eq!(peer.requests().len(), 2);
}

/// A metadata server that numbers its tokens.
fn metadata_server(lifetime: u64) -> Peer {
    Peer::start(move |request, number| {
        assert_eq!(request.header("metadata-flavor"), Some("Google"));
        let text = |text: &str| Reply::Full(200, Vec::new(), text.as_bytes().to_vec());
        let reply = match request.target.as_str() {
            "/computeMetadata/v1/instance/service-accounts/default/token" => {
                let token = format!("{CANARY}-{number}");
                Reply::json(
                    200,
                    json!({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"}),
                )
            }
            "/computeMetadata/v1/instance/service-accounts/default/email" => text("worker@p.iam.gserviceaccount.com"),
            "/computeMetadata/v1/project/project-id" => text("p\n"),
            _ => Reply::status(404),
        };
        reply.with("Metadata-Flavor", "Google")
    })
}

fn host(peer: &Peer) -> Option<String> {
    peer.url.strip_prefix("http://").map(str::to_owned)
}

async fn tokens(settings: &Settings) -> Tokens {
    Tokens::discover(http(), settings).await.unwrap().unwrap()
}

#[tokio::test]
async fn the_metadata_server_gives_tokens_address_and_project() {
    let peer = metadata_server(3600);
    let tokens = tokens(&Settings {
        metadata_host: host(&peer),
        ..Settings::default()
    })
    .await;
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.access_token().await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().expose(), format!("{CANARY}-0"));
    }
    assert_eq!(peer.requests().len(), 1, "one asks for all");
    assert_eq!(tokens.email().await.unwrap(), "worker@p.iam.gserviceaccount.com");
    assert_eq!(tokens.project_id().await.unwrap().as_deref(), Some("p"));
    tokens.email().await.unwrap();
    assert_eq!(peer.requests().len(), 3);
    assert!(tokens.local_key().is_none());
    let shown = format!("{tokens:?} {:?}", tokens.access_token().await.unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn whoever_is_no_metadata_server_gives_no_token() {
    let peer = Peer::replies(vec![Reply::json(
        200,
        json!({"access_token": CANARY, "expires_in": 3600}),
    )]);
    let tokens = tokens(&Settings {
        metadata_host: host(&peer),
        ..Settings::default()
    })
    .await;
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(!error.to_string().contains("canary"));
}

#[tokio::test]
async fn a_token_that_says_it_never_ends_is_used_and_asked_for_again() {
    let peer = metadata_server(u64::MAX);
    let tokens = tokens(&Settings {
        metadata_host: host(&peer),
        ..Settings::default()
    })
    .await;
    tokens.access_token().await.unwrap();
    tokens.access_token().await.unwrap();
    assert_eq!(peer.requests().len(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(12 * 3600)).await;
    tokio::time::resume();
    assert_eq!(tokens.access_token().await.unwrap().expose(), format!("{CANARY}-1"));
}

#[tokio::test]
async fn an_old_token_serves_while_a_new_one_is_fetched() {
    let peer = metadata_server(3600);
    let tokens = tokens(&Settings {
        metadata_host: host(&peer),
        ..Settings::default()
    })
    .await;
    tokens.access_token().await.unwrap();
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    pass(3600 - 226).await;
    tokens.access_token().await.unwrap();
    assert_eq!(peer.requests().len(), 1);
    pass(2).await;
    for _ in 0..10 {
        assert_eq!(
            tokens.access_token().await.unwrap().expose(),
            format!("{CANARY}-0"),
            "nobody waits"
        );
    }
    while tokens.access_token().await.unwrap().expose() != format!("{CANARY}-1") {
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.requests().len(), 2, "one renews for all");
}

#[tokio::test]
async fn a_failed_renewal_is_no_error_while_the_old_token_is_good() {
    let peer = Peer::start(|_, number| match number {
        0 => Reply::json(200, json!({"access_token": CANARY, "expires_in": 3600})).with("Metadata-Flavor", "Google"),
        _ => Reply::status(500),
    });
    let tokens = tokens(&Settings {
        metadata_host: host(&peer),
        ..Settings::default()
    })
    .await;
    tokens.access_token().await.unwrap();
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    pass(3500).await;
    while peer.requests().len() < 2 {
        tokens.access_token().await.unwrap();
        tokio::task::yield_now().await;
    }
    tokens.access_token().await.unwrap();
    pass(95).await;
    assert_eq!(tokens.access_token().await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let metadata = metadata_server(3600);
    let tokens = tokens(&Settings {
        metadata_host: host(&metadata),
        ..Settings::default()
    })
    .await;
    let peer = Peer::start(|request, _| match request.header("authorization") {
        Some(token) if token == format!("Bearer {CANARY}-1") => Reply::json(200, resource("a")),
        _ => Reply::status(401),
    });
    let client = Storage::new(http(), &peer.url, Some(tokens.clone()));
    client.metadata("in", "a", None).await.unwrap();
    assert_eq!((peer.requests().len(), metadata.requests().len()), (2, 2));

    let never = Peer::replies(vec![Reply::status(401)]);
    let iam = Iam::new(http(), &never.url, Some(tokens));
    assert_eq!(
        iam.sign_blob("a@b", b"x").await.unwrap_err().kind,
        Kind::Unauthenticated
    );
    assert_eq!(never.requests().len(), 2);
}

fn credentials(content: &Value) -> tempfile::NamedTempFile {
    file_of(content.to_string().as_bytes())
}

fn from_file(file: &tempfile::NamedTempFile) -> Settings {
    Settings {
        credentials_file: Some(file.path().to_owned()),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_key_file_signs_its_own_request_for_a_token() {
    let key = TestKey::generate();
    let peer = Peer::replies(vec![Reply::json(200, json!({"access_token": "t", "expires_in": 3599}))]);
    let audience = "https://oauth2.googleapis.com/token";
    let file = credentials(&json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": key.pem(),
        "client_email": "sa@p.iam.gserviceaccount.com", "token_uri": audience,
    }));
    let settings = Settings {
        oauth_token_endpoint: Some(peer.url.clone()),
        ..from_file(&file)
    };
    let tokens = tokens(&settings).await;
    assert_eq!(tokens.access_token().await.unwrap().expose(), "t");
    assert_eq!(tokens.email().await.unwrap(), "sa@p.iam.gserviceaccount.com");
    assert_eq!(tokens.project_id().await.unwrap().as_deref(), Some("p"));
    assert!(tokens.local_key().is_some());

    let request = &peer.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/token"));
    let body = String::from_utf8(request.body.clone()).unwrap();
    let assertion = body
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .unwrap();
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.jwk("k")).unwrap();
    let public = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let algorithm = jsonwebtoken::Algorithm::RS256;
    assert!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &public, algorithm).unwrap());
    let part = |at: usize| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(message.split('.').nth(at).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(part(0), json!({"alg": "RS256", "typ": "JWT", "kid": "k"}));
    let claims = part(1);
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("sa@p.iam.gserviceaccount.com"), &json!(audience))
    );
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
}

#[tokio::test]
async fn a_users_refresh_token_works_and_so_does_impersonation_with_it() {
    let peer = Peer::start(|request, _| match request.target.as_str() {
        "/token" => Reply::json(
            200,
            json!({"access_token": "of-the-user", "expires_in": 3599, "id_token": "x"}),
        ),
        _ => Reply::json(
            200,
            json!({"accessToken": "of-the-target", "expireTime": "2999-01-01T00:00:00Z"}),
        ),
    });
    let user = json!({
        "type": "authorized_user", "client_id": "cid", "client_secret": "cs", "refresh_token": "r/t",
        "quota_project_id": "q", "token_uri": format!("{}/token", peer.url),
    });
    let file = credentials(&user);
    let user_tokens = tokens(&Settings {
        well_known_file: Some(file.path().to_owned()),
        ..Settings::default()
    })
    .await;
    assert_eq!(user_tokens.access_token().await.unwrap().expose(), "of-the-user");
    assert_eq!(
        peer.requests()[0].body,
        b"grant_type=refresh_token&client_id=cid&client_secret=cs&refresh_token=r%2Ft"
    );
    assert_eq!(user_tokens.email().await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(user_tokens.project_id().await.unwrap().as_deref(), Some("q"));

    let account = "/v1/projects/-/serviceAccounts/target@p.iam.gserviceaccount.com:generateAccessToken";
    let file = credentials(&json!({
        "type": "impersonated_service_account", "source_credentials": user, "delegates": ["d@p"],
        "service_account_impersonation_url": format!("https://iamcredentials.googleapis.com{account}"),
    }));
    let settings = Settings {
        iam_credentials_endpoint: Some(format!("{}/", peer.url)),
        ..from_file(&file)
    };
    let tokens = tokens(&settings).await;
    assert_eq!(tokens.access_token().await.unwrap().expose(), "of-the-target");
    assert_eq!(tokens.email().await.unwrap(), "target@p.iam.gserviceaccount.com");
    let requests = peer.requests();
    let request = requests.last().unwrap();
    assert_eq!(request.target, account);
    assert_eq!(request.header("authorization"), Some("Bearer of-the-user"));
    let scope = "https://www.googleapis.com/auth/cloud-platform";
    assert_eq!(
        request.json(),
        json!({"delegates": ["projects/-/serviceAccounts/d@p"], "scope": [scope], "lifetime": "3600s"})
    );
}

#[tokio::test]
async fn files_that_hold_no_credentials_are_named_and_not_shown() {
    let canary = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----";
    let files = [
        (json!("canary"), "no credentials file"),
        (json!({"type": 7, "x": "canary"}), "no credentials file"),
        (
            json!({"type": "external_account_authorized_user", "x": "canary"}),
            "of type external_account_authorized_user",
        ),
        (
            json!({"type": "service_account", "private_key": canary}),
            "missing field `client_email`",
        ),
        (
            json!({"type": "service_account", "private_key": canary, "client_email": "a@b", "token_uri": "https://x"}),
            "the private key",
        ),
        (
            json!({"type": "authorized_user", "client_id": "c", "client_secret": ["canary"]}),
            "a field is not as expected",
        ),
        (
            json!({
                "type": "impersonated_service_account", "source_credentials": {},
                "service_account_impersonation_url": "https://evil.example/canary",
            }),
            "service_account_impersonation_url",
        ),
    ];
    for (content, why) in files {
        let file = credentials(&content);
        let error = Tokens::discover(http(), &from_file(&file)).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains(why) && shown.contains(file.path().to_str().unwrap()),
            "{shown}"
        );
        assert!(!shown.contains("canary"), "{shown}");
    }
    let missing = Settings {
        credentials_file: Some("/nowhere/key.json".into()),
        ..Settings::default()
    };
    let error = Tokens::discover(http(), &missing).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/key.json"), "{error}");
}
