//! V4 signed URLs: Google's conformance vectors byte for byte, names that URL libraries like to change, and both signers.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use platen::deliver::sign::{Endpoint, Request, SignError, Signer, Style, UNIVERSE_DOMAIN, Unsigned, prepare};
use platen::google::http::Http;
use platen::google::iam::Iam;
use platen::google::signing::SigningKey;
use serde_json::{Value, json};

use crate::keys::TestKey;
use crate::peer::{Peer, Reply};

const EMAIL: &str = "signer@project.iam.gserviceaccount.com";

/// Where the owner's shared material is, when it is here.
pub(crate) fn shared() -> Option<PathBuf> {
    let given = std::env::var_os("PLATEN_SHARED").map(PathBuf::from);
    let path = given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    path.join("conformance").is_dir().then_some(path)
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let object = value.as_object().into_iter().flatten();
    object
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[tokio::test]
async fn googles_vectors_are_reproduced_byte_for_byte() {
    let Some(shared) = shared() else {
        println!("skipped: no ../shared/conformance (set PLATEN_SHARED)");
        return;
    };
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(shared.join("conformance").join(name)).unwrap()).unwrap()
    };
    let account = read("test_service_account.not-a-test.json");
    let email = account["client_email"].as_str().unwrap();
    let signer = Signer::Key(SigningKey::from_pem(email, account["private_key"].as_str().unwrap()).unwrap());
    let vectors = read("v4_signatures.json");
    let vectors = vectors["signingV4Tests"].as_array().unwrap();
    assert_eq!(vectors.len(), 29);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str();
        let about = text("description").unwrap();
        let style = match text("urlStyle") {
            Some("VIRTUAL_HOSTED_STYLE") => Style::VirtualHosted,
            Some("BUCKET_BOUND_HOSTNAME") => Style::BucketBound,
            _ => Style::Path,
        };
        let host = ["bucketBoundHostname", "hostname", "clientEndpoint", "emulatorHostname"]
            .iter()
            .find_map(|n| text(n));
        let scheme = text("scheme").unwrap_or("https");
        let endpoint = match host {
            Some(host) => Endpoint::parse(host, scheme),
            None => Endpoint::universe(text("universeDomain").unwrap_or(UNIVERSE_DOMAIN)),
        };
        let (headers, query) = (pairs(&vector["headers"]), pairs(&vector["queryParameters"]));
        let request = Request {
            method: text("method").unwrap(),
            bucket: text("bucket").unwrap(),
            object: text("object"),
            headers: &headers,
            query: &query,
            style,
            endpoint: &endpoint,
            at: at(text("timestamp").unwrap()),
            ttl: Duration::from_secs(vector["expiration"].as_u64().unwrap()),
        };
        let unsigned = prepare(&request, email).unwrap();
        assert_eq!(
            unsigned.canonical_request,
            text("expectedCanonicalRequest").unwrap(),
            "{about}"
        );
        assert_eq!(
            unsigned.string_to_sign,
            text("expectedStringToSign").unwrap(),
            "{about}"
        );
        let signed = signer.sign(&request).await.unwrap();
        assert_eq!(signed.url.expose(), text("expectedUrl").unwrap(), "{about}");
    }
}

fn request<'a>(object: &'a str, endpoint: &'a Endpoint) -> Request<'a> {
    Request {
        method: "GET",
        bucket: "out",
        object: Some(object),
        headers: &[],
        query: &[],
        style: Style::Path,
        endpoint,
        at: at("2026-11-21T23:06:47.9Z"),
        ttl: Duration::from_secs(3600),
    }
}

fn path_of(unsigned: &Unsigned) -> &str {
    unsigned.canonical_request.lines().nth(1).unwrap()
}

#[test]
fn hard_names_keep_every_byte() {
    let longest = "ü".repeat(512);
    let encoded = "%C3%BC".repeat(512);
    let names = [
        ("..", "/out/.."),
        ("a/../b", "/out/a/../b"),
        ("a//b", "/out/a//b"),
        ("/lead", "/out//lead"),
        ("trail/", "/out/trail/"),
        ("what?.pdf", "/out/what%3F.pdf"),
        ("a#b", "/out/a%23b"),
        ("a%2Fb", "/out/a%252Fb"),
        ("a b+c", "/out/a%20b%2Bc"),
        (
            "~-_.!*'();:@&=$,[]",
            "/out/~-_.%21%2A%27%28%29%3B%3A%40%26%3D%24%2C%5B%5D",
        ),
        ("é", "/out/%C3%A9"),
        ("e\u{301}", "/out/e%CC%81"),
        ("\u{1}\t\u{7f}\\\"<>", "/out/%01%09%7F%5C%22%3C%3E"),
        (longest.as_str(), &format!("/out/{encoded}")),
    ];
    let endpoint = Endpoint::default();
    for (name, path) in names {
        let unsigned = prepare(&request(name, &endpoint), EMAIL).unwrap();
        assert_eq!(path_of(&unsigned), path, "{name:?}");
        let url = unsigned.with(&[0xab]);
        let start = format!("https://storage.googleapis.com{path}?X-Goog-Algorithm=GOOG4-RSA-SHA256&");
        assert!(url.expose().starts_with(&start), "{}", url.expose());
        assert!(url.expose().ends_with("&X-Goog-SignedHeaders=host&X-Goog-Signature=ab"));
    }
}

#[test]
fn the_port_is_in_the_url_and_not_in_the_signed_host() {
    for (given, host, signed) in [
        ("http://127.0.0.1:9000", "127.0.0.1:9000", "127.0.0.1"),
        ("http://[::1]:9000/", "[::1]:9000", "[::1]"),
        ("http://[::1]", "[::1]", "[::1]"),
        ("localhost", "localhost", "localhost"),
    ] {
        let endpoint = Endpoint::parse(given, "http");
        let unsigned = prepare(&request("o", &endpoint), EMAIL).unwrap();
        assert!(
            unsigned
                .with(&[])
                .expose()
                .starts_with(&format!("http://{host}/out/o?")),
            "{given}"
        );
        assert!(
            unsigned
                .canonical_request
                .contains(&format!("\nhost:{signed}\n\nhost\n")),
            "{given}"
        );
    }
}

#[test]
fn whole_seconds_count_and_the_end_is_told() {
    let unsigned = prepare(&request("o", &Endpoint::default()), EMAIL).unwrap();
    assert_eq!(unsigned.expires_at, at("2026-11-22T00:06:47Z"));
    assert!(
        unsigned
            .string_to_sign
            .starts_with("GOOG4-RSA-SHA256\n20261121T230647Z\n20261121/auto/storage/goog4_request\n")
    );
}

#[test]
fn what_would_change_the_signed_parts_is_refused() {
    let endpoint = Endpoint::default();
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    for query in [
        pair("X-Goog-Expires", "604800"),
        pair("x-goog-signature", "00"),
        pair("", "x"),
        { [pair("generation", "1"), pair("generation", "2")].concat() },
    ] {
        let outcome = prepare(
            &Request {
                query: &query,
                ..request("o", &endpoint)
            },
            EMAIL,
        );
        assert!(matches!(outcome, Err(SignError::Refused(_))), "{query:?}");
    }
    for headers in [
        pair("Host", "evil"),
        pair("a:b", "c"),
        pair("a", "b\r\nc: d"),
        pair("a\n", "b"),
        { [pair("Range", "1"), pair("range", "2")].concat() },
    ] {
        let outcome = prepare(
            &Request {
                headers: &headers,
                ..request("o", &endpoint)
            },
            EMAIL,
        );
        assert!(matches!(outcome, Err(SignError::Refused(_))), "{headers:?}");
    }
    let far = Request {
        at: at("9999-12-31T23:59:59Z"),
        ..request("o", &endpoint)
    };
    assert!(matches!(prepare(&far, EMAIL), Err(SignError::Refused(_))));
}

#[tokio::test]
async fn sign_blob_signs_the_string_to_sign_and_the_url_verifies() {
    let key = TestKey::generate();
    let signing = key.signing_key(EMAIL);
    let peer = Peer::start(move |request, _| {
        let payload = STANDARD.decode(request.json()["payload"].as_str().unwrap()).unwrap();
        Reply::json(
            200,
            json!({"keyId": "k1", "signedBlob": STANDARD.encode(signing.sign(&payload).unwrap())}),
        )
    });
    let signer = Signer::Blob {
        iam: Iam::new(Http::new().unwrap(), &peer.url, None),
        email: EMAIL.into(),
    };
    let query = vec![
        ("generation".to_owned(), "17".to_owned()),
        (
            "response-content-disposition".to_owned(),
            "attachment; filename=\"a b.pdf\"".to_owned(),
        ),
    ];
    let endpoint = Endpoint::default();
    let request = Request {
        query: &query,
        ..request("a b.pdf", &endpoint)
    };
    let url = signer.sign(&request).await.unwrap().url;

    let (_, signature) = url.expose().split_once("&X-Goog-Signature=").unwrap();
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    let unsigned = prepare(&request, EMAIL).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public_key())
        .verify(unsigned.string_to_sign.as_bytes(), &signature)
        .unwrap();
    assert!(
        url.expose()
            .contains("&generation=17&response-content-disposition=attachment%3B%20filename%3D%22a%20b.pdf%22&")
    );
    assert_eq!(
        peer.requests()[0].target,
        "/v1/projects/-/serviceAccounts/signer%40project.iam.gserviceaccount.com:signBlob"
    );
    assert!(!format!("{:?}", signer.sign(&request).await).contains("X-Goog-Signature"));
}

#[tokio::test]
async fn each_signer_has_its_longest_time() {
    let local = Signer::Key(TestKey::generate().signing_key(EMAIL));
    let blob = Signer::Blob {
        iam: Iam::new(Http::new().unwrap(), &crate::peer::nobody(), None),
        email: EMAIL.into(),
    };
    let endpoint = Endpoint::default();
    for (signer, seconds) in [(&local, 604_801), (&local, 0), (&blob, 43_201), (&blob, 0)] {
        let request = Request {
            ttl: Duration::from_secs(seconds),
            ..request("o", &endpoint)
        };
        assert!(
            matches!(signer.sign(&request).await, Err(SignError::Refused(_))),
            "{seconds}"
        );
    }
    let week = Request {
        ttl: Duration::from_secs(604_800),
        ..request("o", &endpoint)
    };
    local.sign(&week).await.unwrap();
}
