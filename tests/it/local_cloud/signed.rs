//! V4-signed URLs: Google's conformance vectors verify, and nothing that differs from what was signed does.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Fixture, Raw, ok, raw};

const SIGNER: &str = "signer@local-project.iam.gserviceaccount.com";

/// What of a URL the wire carries: host, and path with query.
fn host_and_target(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").expect("a URL").1;
    rest.split_at(rest.find('/').expect("a path"))
}

/// Where the shared vectors are, if this checkout has them.
fn conformance(file: &str) -> Option<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = match std::env::var_os("PLATEN_SHARED") {
        Some(root) => vec![PathBuf::from(root)],
        None => vec![package.join("../shared"), package.join("../../shared")],
    };
    roots
        .into_iter()
        .map(|root| root.join("conformance").join(file))
        .find(|path| path.exists())
}

#[tokio::test]
async fn googles_vectors_verify() {
    let files = ["v4_signatures.json", "test_service_account.not-a-test.json"].map(conformance);
    let [Some(vectors), Some(account)] = files else {
        println!("skipped: the V4 conformance vectors are not in this checkout");
        return;
    };
    let read = |path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let (vectors, account) = (read(vectors), read(account));
    let cloud = Fixture::start().await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let email = text(&account["client_email"]);
    cloud
        .cloud
        .register_key(&email, "vectors", &text(&account["private_key"]))
        .unwrap();
    cloud.cloud.bind_host("mydomain.tld", "test-bucket");
    for bucket in ["test-bucket", "test-bucket2"] {
        cloud.cloud.create_bucket(bucket, false).unwrap();
    }
    let mut verified = 0;
    for vector in vectors["signingV4Tests"].as_array().unwrap() {
        let description = text(&vector["description"]);
        cloud
            .cloud
            .clock()
            .set(text(&vector["timestamp"]).parse::<DateTime<Utc>>().unwrap());
        let headers: Vec<(String, String)> = vector["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        if headers.iter().any(|(name, _)| name.contains('/')) {
            println!("skipped: {description}: HTTP has no such header name");
            continue;
        }
        let url = text(&vector["expectedUrl"]);
        let (host, target) = host_and_target(&url);
        let mut sent: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        sent.push(("host", host));
        let method = text(&vector["method"]);
        let good = raw(&cloud.cloud.urls().storage, &method, target, &sent).await;
        // 404: no such object; 400 BadDigest: this vector signs a hash that is not its payload's; and no key of a customer's is
        // taken here, once its signature is known to be good.
        let verifies = |answer: &Raw| {
            matches!(answer.status, 200 | 201)
                || ["NoSuchKey", "BadDigest", "cannot have encryption keys"]
                    .iter()
                    .any(|code| answer.text().contains(code))
        };
        assert!(verifies(&good), "{description}: {} {}", good.status, good.text());
        let tampered = target.replace("X-Goog-Signature=", "X-Goog-Signature=00");
        let bad = raw(&cloud.cloud.urls().storage, &method, &tampered, &sent).await;
        assert!(
            bad.status == 403 && !verifies(&bad),
            "{description}: {} {}",
            bad.status,
            bad.text()
        );
        cloud
            .cloud
            .clock()
            .advance(TimeDelta::seconds(vector["expiration"].as_i64().unwrap() + 1));
        let late = raw(&cloud.cloud.urls().storage, &method, target, &sent).await;
        assert!(
            late.status == 400 && late.text().contains("<Code>ExpiredToken</Code>"),
            "{description}: {}",
            late.text()
        );
        verified += 1;
    }
    assert_eq!(verified, 28);
}

/// A signer of the test's own, through `signBlob`. `query` is percent-encoded and sorted by the caller.
pub(super) async fn sign(
    cloud: &Fixture,
    method: &str,
    path: &str,
    query: &[(&str, &str)],
    extra: &[(&str, &str)],
) -> String {
    let host = cloud.cloud.urls().storage.strip_prefix("http://").unwrap();
    let date = cloud.cloud.clock().now().format("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/auto/storage/goog4_request", &date[..8]);
    let credential = format!("{SIGNER}/{scope}").replace('/', "%2F").replace('@', "%40");
    let mut headers: Vec<(&str, &str)> = extra.to_vec();
    headers.push(("host", host));
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let signed = names.join("%3B");
    let mut pairs = vec![
        ("X-Goog-Algorithm", "GOOG4-RSA-SHA256"),
        ("X-Goog-Credential", &credential),
        ("X-Goog-Date", &date),
        ("X-Goog-SignedHeaders", &signed),
    ];
    if !query.iter().any(|(name, _)| *name == "X-Goog-Expires") {
        pairs.push(("X-Goog-Expires", "60"));
    }
    pairs.extend(query);
    pairs.sort_unstable();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = query.join("&");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let canonical = format!(
        "{method}\n{path}\n{query}\n{lines}\n{}\nUNSIGNED-PAYLOAD",
        names.join(";")
    );
    let digest = Sha256::digest(canonical).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let payload = STANDARD.encode(format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{digest}"));
    let url = format!(
        "{}/v1/projects/-/serviceAccounts/{SIGNER}:signBlob",
        cloud.cloud.urls().iam
    );
    let answer = ok(cloud.post(url).json(&json!({"payload": payload, "delegates": []}))).await;
    let signature = STANDARD.decode(answer["signedBlob"].as_str().unwrap()).unwrap();
    let hex = signature.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    format!("{path}?{query}&X-Goog-Signature={hex}")
}

pub(super) async fn with_object() -> Fixture {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("out", false).unwrap();
    cloud.upload("out", "dir/a b.pdf", b"PDF").await;
    cloud
}

#[tokio::test]
async fn a_signed_url_needs_no_token_and_sets_the_headers_it_signs() {
    let cloud = with_object().await;
    let query = [
        ("response-content-disposition", "attachment%3B%20filename%3D%22a.pdf%22"),
        ("response-content-type", "application%2Fpdf"),
    ];
    let target = sign(&cloud, "GET", "/out/dir/a%20b.pdf", &query, &[]).await;
    let answer = raw(&cloud.cloud.urls().storage, "GET", &target, &[]).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "PDF"));
    assert!(answer.head.contains("content-type: application/pdf"), "{}", answer.head);
    assert!(
        answer
            .head
            .contains("content-disposition: attachment; filename=\"a.pdf\""),
        "{}",
        answer.head
    );
    assert_eq!(
        raw(&cloud.cloud.urls().storage, "HEAD", &target, &[]).await.status,
        403,
        "GET was signed"
    );
    let target = sign(&cloud, "HEAD", "/out/dir/a%20b.pdf", &[], &[]).await;
    let head = raw(&cloud.cloud.urls().storage, "HEAD", &target, &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains("content-length: 3"), "{}", head.head);
    let pinned = sign(&cloud, "GET", "/out/dir/a%20b.pdf", &[("generation", "1")], &[]).await;
    let gone = raw(&cloud.cloud.urls().storage, "GET", &pinned, &[]).await;
    assert!(
        gone.status == 404 && gone.text().contains("<Code>NoSuchKey</Code>"),
        "{}",
        gone.text()
    );
    let anonymous = raw(&cloud.cloud.urls().storage, "GET", "/out/dir/a%20b.pdf", &[]).await;
    assert!(
        anonymous.status == 403 && anonymous.text().contains("<Code>AccessDenied</Code>"),
        "{}",
        anonymous.text()
    );
}

#[tokio::test]
async fn no_single_character_can_be_changed() {
    let cloud = with_object().await;
    let target = sign(&cloud, "GET", "/out/dir/a%20b.pdf", &[("generation", "")], &[]).await;
    // An empty generation is no number: the URL verifies and is then refused, so sign another without it.
    assert!(
        raw(&cloud.cloud.urls().storage, "GET", &target, &[])
            .await
            .text()
            .contains("generation")
    );
    let target = sign(&cloud, "GET", "/out/dir/a%20b.pdf", &[("k", "v")], &[]).await;
    assert_eq!(raw(&cloud.cloud.urls().storage, "GET", &target, &[]).await.status, 200);
    for index in 1..target.len() {
        let old = target.as_bytes()[index];
        // Upper and lower case of a hexadecimal digit mean the same; no other change here does.
        let new = if old.eq_ignore_ascii_case(&b'0') { b'1' } else { b'0' };
        let mut tampered = target.clone().into_bytes();
        tampered[index] = new;
        let tampered = String::from_utf8(tampered).unwrap();
        let answer = raw(&cloud.cloud.urls().storage, "GET", &tampered, &[]).await;
        let refused = matches!(answer.status, 400 | 403) && !answer.text().contains("NoSuch");
        assert!(refused, "{index}: {} {}", answer.status, answer.text());
    }
    for tampered in [
        format!("{target}00"),
        format!("{target}&x=1"),
        target.replace("&k=", "&K="),
        target.replace('a', ""),
    ] {
        assert_ne!(
            raw(&cloud.cloud.urls().storage, "GET", &tampered, &[]).await.status,
            200
        );
    }
    let other_host = raw(&cloud.cloud.urls().storage, "GET", &target, &[("host", "example.org")]).await;
    assert_eq!(other_host.status, 403);
    let text = other_host.text();
    for element in [
        "SignatureDoesNotMatch",
        "<StringToSign>GOOG4-RSA-SHA256\n",
        "<CanonicalRequest>GET\n/out/dir/a%20b.pdf\n",
    ] {
        assert!(text.contains(element), "{text}");
    }
}

#[tokio::test]
async fn malformed_early_late_and_foreign_signatures_are_told_apart() {
    let cloud = with_object().await;
    let path = "/out/dir/a%20b.pdf";
    let target = sign(&cloud, "GET", path, &[], &[]).await;
    for (tampered, status, code) in [
        (target.replace("X-Goog-Date=", "X-Goog-Dat="), 400, "InvalidArgument"),
        (
            target.replace("GOOG4-RSA-SHA256", "GOOG4-HMAC-SHA256"),
            400,
            "InvalidArgument",
        ),
        (target.replace("auto%2Fstorage", "storage"), 400, "InvalidArgument"),
        (target.replace("Expires=60", "Expires=604801"), 400, "InvalidArgument"),
        (target.replace("Expires=60", "Expires=0"), 400, "InvalidArgument"),
        (target.replace("signer%40", "nobody%40"), 403, "InvalidAccessKeyId"),
        (
            target.replace("SignedHeaders=host", "SignedHeaders=host%3Bx-absent"),
            400,
            "MalformedSecurityHeader",
        ),
        (
            target.replace("SignedHeaders=host", "SignedHeaders=accept"),
            400,
            "InvalidArgument",
        ),
        (format!("{target}&X-Goog-Expires=61"), 400, "InvalidArgument"),
    ] {
        let answer = raw(&cloud.cloud.urls().storage, "GET", &tampered, &[]).await;
        assert!(
            answer.status == status && answer.text().contains(&format!("<Code>{code}<")),
            "{code}: {}",
            answer.text()
        );
    }
    let get = async |target: &str| raw(&cloud.cloud.urls().storage, "GET", target, &[]).await;
    let week = sign(&cloud, "GET", path, &[("X-Goog-Expires", "604800")], &[]).await;
    assert_eq!(get(&week).await.status, 200);
    cloud.cloud.clock().advance(TimeDelta::seconds(62));
    assert_eq!(get(&week).await.status, 200);
    assert!(get(&target).await.text().contains("<Code>ExpiredToken</Code>"));
    cloud.cloud.clock().advance(TimeDelta::hours(-1));
    assert!(get(&target).await.text().contains("<Code>RequestTimeTooSkewed</Code>"));
    cloud.cloud.clock().advance(TimeDelta::hours(1));
    assert_eq!(get(&week).await.status, 200);
    cloud.cloud.rotate_managed_key(SIGNER);
    assert_eq!(get(&week).await.status, 403, "the key that signed it is gone");
}

#[tokio::test]
async fn signed_headers_must_arrive_and_signed_puts_store() {
    let cloud = with_object().await;
    let extra = [("content-type", "application/pdf"), ("x-goog-if-generation-match", "0")];
    let target = sign(&cloud, "PUT", "/out/new.pdf", &[], &extra).await;
    let put = async |headers: &[(&str, &str)]| {
        let mut request = cloud
            .http
            .put(format!("{}{target}", cloud.cloud.urls().storage))
            .body("new");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(put(&extra[..1]).await, 400);
    assert_eq!(put(&[("content-type", "text/html"), extra[1]]).await, 403);
    assert_eq!(put(&extra).await, 200);
    assert_eq!(put(&extra).await, 412);
    let object = ok(cloud.get(cloud.storage("out/o/new.pdf"))).await;
    assert_eq!(
        (&object["contentType"], &object["size"]),
        (&json!("application/pdf"), &json!("3"))
    );
}
