//! Our clients and our signer against the local cloud, which shares no code with them and checks what Google checks.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use axum::http::HeaderMap;
use chrono::Utc;
use platen::accept::verify::{Mode, Verifier, VerifyRules};
use platen::deliver::disposition::content_disposition;
use platen::deliver::sign::{Endpoint, Request, Signer, Style};
use platen::error::RefusalKind;
use platen::google::Kind;
use platen::google::http::Http;
use platen::google::iam::Iam;
use platen::google::keys::KeySet;
use platen::google::pubsub::Publisher;
use platen::google::storage::{Object, Storage, Upload};
use platen::google::token::{Settings as Credentials, Tokens};
use platen::job::Disposition;
use platen::local_cloud::{Effect, Fault, LocalCloud, Peer, Settings, Subscription};

const NAMES: [&str; 8] = [
    "q3.pdf",
    "a/../b",
    "/a//b/",
    "what?#%2F.pdf",
    "a b+c",
    "é",
    "e\u{301}",
    "...\u{1}\t\\\"",
];

struct World {
    cloud: LocalCloud,
    http: Http,
    tokens: Tokens,
    storage: Storage,
}

async fn world() -> World {
    let cloud = LocalCloud::start(Settings::default()).await.unwrap();
    cloud.create_bucket("out", false).unwrap();
    let http = Http::new().unwrap();
    let host = cloud.urls().metadata.strip_prefix("http://").map(str::to_owned);
    let settings = Credentials {
        metadata_host: host,
        ..Credentials::default()
    };
    let tokens = Tokens::discover(http.clone(), &settings).await.unwrap().unwrap();
    let storage = Storage::new(http.clone(), &cloud.urls().storage, Some(tokens.clone()));
    World {
        cloud,
        http,
        tokens,
        storage,
    }
}

impl World {
    async fn store(&self, name: &str, bytes: &[u8], over: i64) -> Result<Object, platen::google::Error> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let metadata = BTreeMap::from([("platen-source".to_owned(), "gs://in/ü#7".to_owned())]);
        let upload = Upload {
            bucket: "out",
            name,
            content_type: "application/pdf",
            content_disposition: Some("inline"),
            metadata: &metadata,
            file: file.path(),
            size: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            if_generation_match: over,
        };
        self.storage.upload(&upload).await
    }

    async fn read(&self, name: &str, generation: i64) -> Result<Vec<u8>, platen::google::Error> {
        let mut download = self.storage.download("out", name, generation).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = download.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn fault(&self, peer: Peer, path_prefix: &str, count: u32, effect: Effect) {
        let path_prefix = path_prefix.to_owned();
        self.cloud.add_fault(Fault {
            peer: Some(peer),
            method: None,
            path_prefix,
            skip: 0,
            count,
            effect,
        });
    }
}

#[tokio::test]
async fn what_is_stored_under_a_hard_name_comes_back() {
    let world = world().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    for name in NAMES {
        let stored = world.store(name, &bytes, 0).await.unwrap();
        assert_eq!((stored.name.as_str(), stored.size), (name, bytes.len() as u64));
        assert_eq!(
            world
                .storage
                .metadata("out", name, Some(stored.generation))
                .await
                .unwrap(),
            stored
        );
        assert_eq!(stored.metadata["platen-source"], "gs://in/ü#7");
        assert_eq!(world.read(name, stored.generation).await.unwrap(), bytes, "{name:?}");
        assert_eq!(
            world.store(name, b"second", 0).await.unwrap_err().kind,
            Kind::PreconditionFailed
        );
        let second = world.store(name, b"second", stored.generation).await.unwrap();
        assert_eq!(world.read(name, second.generation).await.unwrap(), b"second");
        assert_eq!(
            world.read(name, stored.generation).await.unwrap_err().kind,
            Kind::NotFound
        );
    }
}

#[tokio::test]
async fn broken_transfers_and_revoked_tokens_do_not_reach_the_caller() {
    let world = world().await;
    let bytes = vec![9; 200_000];
    let stored = world.store("a", &bytes, 0).await.unwrap();
    world.fault(Peer::Storage, "/download/", 2, Effect::Cut { cut_after: 50_000 });
    assert_eq!(world.read("a", stored.generation).await.unwrap(), bytes);
    world.fault(Peer::Storage, "/download/", 1, Effect::Corrupt { corrupt: true });
    assert_eq!(
        world.read("a", stored.generation).await.unwrap_err().kind,
        Kind::Corrupt
    );
    world.fault(
        Peer::Storage,
        "/storage/",
        2,
        Effect::Status {
            status: 503,
            retry_after: None,
        },
    );
    world.cloud.revoke_access_tokens();
    world.storage.metadata("out", "a", None).await.unwrap();

    // The object is stored, its answer is lost, the repeat finds it there: the caller has to read back.
    world.fault(Peer::Storage, "/upload/", 1, Effect::Cut { cut_after: 10 });
    assert_eq!(
        world.store("b", &bytes, 0).await.unwrap_err().kind,
        Kind::PreconditionFailed
    );
    assert_eq!(
        world.storage.metadata("out", "b", None).await.unwrap().crc32c,
        Some(crc32c::crc32c(&bytes))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_urls_of_both_signers_are_accepted_until_they_end() {
    let world = world().await;
    let email = world.cloud.settings().signer_service_account.clone();
    let key_file = world.cloud.create_key_file(&email).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(key_file.to_string().as_bytes()).unwrap();
    let settings = Credentials {
        credentials_file: Some(file.path().to_owned()),
        oauth_token_endpoint: Some(world.cloud.urls().iam.clone()),
        ..Credentials::default()
    };
    let keyed = Tokens::discover(world.http.clone(), &settings).await.unwrap().unwrap();
    Storage::new(world.http.clone(), &world.cloud.urls().storage, Some(keyed.clone()))
        .metadata("out", "nothing", None)
        .await
        .map_err(|error| assert_eq!(error.kind, Kind::NotFound, "its token is good: {error}"))
        .unwrap_err();

    let iam = Iam::new(world.http.clone(), &world.cloud.urls().iam, Some(world.tokens.clone()));
    let signers = [
        Signer::Key(keyed.local_key().unwrap().clone()),
        Signer::Blob { iam, email },
    ];
    let endpoint = Endpoint::parse(&world.cloud.urls().storage, "http");
    for name in NAMES {
        let stored = world.store(name, name.as_bytes(), 0).await.unwrap();
        let query = [
            ("generation", stored.generation.to_string()),
            ("response-content-type", "application/pdf".into()),
            (
                "response-content-disposition",
                content_disposition(Disposition::Attachment, name),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        for signer in &signers {
            let request = |ago: i64| Request {
                method: "GET",
                bucket: "out",
                object: Some(name),
                headers: &[],
                query: &query,
                style: Style::Path,
                endpoint: &endpoint,
                at: Utc::now() - chrono::TimeDelta::seconds(ago),
                ttl: Duration::from_secs(60),
            };
            let good = signer.sign(&request(0)).await.unwrap();
            assert_eq!(get(good.url.expose()), (200, name.as_bytes().to_vec()), "{name:?}");
            let tampered = good.url.expose().replace("attachment", "inline");
            assert_eq!(get(&tampered).0, 403, "{name:?}");
            let over = signer.sign(&request(61)).await.unwrap();
            assert_eq!(get(over.url.expose()).0, 400, "{name:?}");
        }
    }
}

/// A GET that sends the URL's path as it is: a URL library would resolve `..` in it.
fn get(url: &str) -> (u16, Vec<u8>) {
    use std::io::Read as _;
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream
        .write_all(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

#[tokio::test]
async fn messages_are_published_and_push_tokens_verified() {
    let world = world().await;
    let topic = world.cloud.create_topic("results").unwrap();
    let wanted = Subscription {
        name: "watch",
        topic: "results",
        ..Subscription::default()
    };
    let subscription = world.cloud.create_subscription(&wanted).unwrap();
    let publisher = Publisher::new(
        world.http.clone(),
        &world.cloud.urls().pubsub,
        Some(world.tokens.clone()),
    );
    publisher
        .publish(&topic, b"{}", &BTreeMap::from([("a".into(), "b".into())]))
        .await
        .unwrap();
    assert_eq!(world.cloud.backlog(&subscription).unwrap(), 1);
    assert_eq!(
        publisher
            .publish(&format!("{topic}x"), b"{}", &BTreeMap::new())
            .await
            .unwrap_err()
            .kind,
        Kind::NotFound
    );

    let caller = world.cloud.settings().push_service_account.clone();
    let keys = KeySet::new(world.http.clone(), &world.cloud.urls().jwks);
    let rules = VerifyRules {
        mode: Mode::Oidc,
        audiences: vec!["us".into()],
        emails: vec![caller.clone()],
    };
    let verifier = Verifier::new(rules, keys);
    let ask = async |audience: &str| {
        let token = world.cloud.id_token(&world.cloud.claims(&caller, audience));
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let verified = verifier.verify(&headers, Utc::now()).await;
        verified.map_err(|refusal| refusal.kind)
    };
    assert_eq!(ask("us").await.unwrap().email, caller);
    assert_eq!(ask("them").await, Err(RefusalKind::WrongCaller));
    world.cloud.rotate_keys().unwrap();
    assert_eq!(ask("us").await.unwrap().email, caller, "the new key is found");
}
