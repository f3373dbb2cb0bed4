//! `platen sign` as a process: Google's vectors and our own, flags and environment, and every way in which it refuses.

use std::path::Path;
use std::process::{Command, Output};

use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::keys::TestKey;
use crate::peer::{Peer, Reply, nobody};
use crate::sign::shared;

const EMAIL: &str = "signer@project.iam.gserviceaccount.com";

/// Runs the command with these arguments and nothing in its environment but these variables.
fn sign(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_platen"))
        .arg("sign")
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert_eq!(out.lines().count(), 1, "{out}");
    out.trim_end().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A key, and its key file.
fn key_file(directory: &Path) -> (TestKey, String) {
    let key = TestKey::generate();
    let path = directory.join("key.json");
    let file = json!({"type": "service_account", "client_email": EMAIL, "private_key": key.pem()});
    std::fs::write(&path, file.to_string()).unwrap();
    (key, path.to_str().unwrap().to_owned())
}

fn verify(key: &TestKey, string_to_sign: &str, signature: &str) {
    let signature: Vec<u8> = (0..signature.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap())
        .collect();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.pair.public_key())
        .verify(string_to_sign.as_bytes(), &signature)
        .unwrap();
}

#[test]
fn the_command_reproduces_every_vector_of_google() {
    let Some(shared) = shared() else {
        println!("skipped: no ../shared/conformance (set PLATEN_SHARED)");
        return;
    };
    let conformance = shared.join("conformance");
    let vectors: Value =
        serde_json::from_slice(&std::fs::read(conformance.join("v4_signatures.json")).unwrap()).unwrap();
    let key_file = conformance.join("test_service_account.not-a-test.json");
    let vectors = vectors["signingV4Tests"].as_array().unwrap();
    assert_eq!(vectors.len(), 29);
    for vector in vectors {
        let field = |name: &str| vector[name].as_str();
        let about = field("description").unwrap();
        let target = match field("object") {
            Some(object) => format!("gs://{}/{object}", field("bucket").unwrap()),
            None => format!("gs://{}", field("bucket").unwrap()),
        };
        let mut arguments = vec![target, "--explain".to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        flag("key-file", key_file.to_str().unwrap().to_owned());
        flag("method", field("method").unwrap().to_owned());
        flag("at", field("timestamp").unwrap().to_owned());
        flag("ttl", format!("{}s", vector["expiration"]));
        for (name, value) in vector["headers"].as_object().into_iter().flatten() {
            flag("header", format!("{name}:{}", value.as_str().unwrap()));
        }
        for (name, value) in vector["queryParameters"].as_object().into_iter().flatten() {
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            flag(
                "query",
                format!("{}={}", encoded(name), encoded(value.as_str().unwrap())),
            );
        }
        match field("urlStyle") {
            Some("VIRTUAL_HOSTED_STYLE") => flag("style", "virtual-hosted".into()),
            Some("BUCKET_BOUND_HOSTNAME") => flag("style", "bucket-bound".into()),
            _ => {}
        }
        // A client's endpoint is a flag of ours too, and weaker than a host name.
        let endpoint = field("clientEndpoint").map(|endpoint| match endpoint.split_once("://") {
            Some((_, host)) => host,
            None => endpoint,
        });
        if let Some(host) = field("bucketBoundHostname").or(field("hostname")).or(endpoint) {
            flag("hostname", host.to_owned());
        }
        if let Some(scheme) = field("scheme") {
            flag("scheme", scheme.to_owned());
        }
        if let Some(domain) = field("universeDomain") {
            flag("universe-domain", domain.to_owned());
        }
        let emulator = field("emulatorHostname").map(|host| ("STORAGE_EMULATOR_HOST", host));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = sign(&arguments, emulator.as_slice());
        assert_eq!(stdout(&output), field("expectedUrl").unwrap(), "{about}");
        let explained = text(&output.stderr);
        let expected = format!(
            "canonical request:\n{}\n\nstring to sign:\n{}\n\n",
            field("expectedCanonicalRequest").unwrap(),
            field("expectedStringToSign").unwrap()
        );
        assert_eq!(explained, expected, "{about}");
    }
}

#[test]
fn hard_names_are_signed_as_google_describes_it() {
    let directory = tempfile::tempdir().unwrap();
    let (key, file) = key_file(directory.path());
    let fixture = crate::harness::fixture("signing/hard-names.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    assert_eq!(fixture["signer"], EMAIL);
    let vectors = fixture["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 32);
    for vector in vectors {
        let field = |name: &str| vector[name].as_str().unwrap();
        let target = format!("gs://{}/{}", fixture["bucket"].as_str().unwrap(), field("object"));
        let output = sign(
            &[
                &target,
                "--key-file",
                &file,
                "--at",
                fixture["at"].as_str().unwrap(),
                "--query",
                "response-content-disposition=attachment%3B%20filename=\"a b.pdf\"",
                "--query",
                "generation=17",
                "--explain",
            ],
            &[],
        );
        let url = stdout(&output);
        let (before, signature) = url.split_once("&X-Goog-Signature=").unwrap();
        assert_eq!(before, field("urlWithoutSignature"), "{}", field("about"));
        let explained = text(&output.stderr);
        assert!(
            explained.contains(field("canonicalRequest")),
            "{}: {explained}",
            field("about")
        );
        assert!(
            explained.contains(field("stringToSign")),
            "{}: {explained}",
            field("about")
        );
        verify(&key, field("stringToSign"), signature);
    }
}

/// The URL up to its query.
fn place(output: &Output) -> String {
    stdout(output).split_once('?').unwrap().0.to_owned()
}

#[test]
fn the_emulator_gives_host_and_scheme_and_flags_beat_it() {
    let directory = tempfile::tempdir().unwrap();
    let (_key, file) = key_file(directory.path());
    let cases: [(&[&str], Option<&str>, &str); 12] = [
        (&[], None, "https://storage.googleapis.com/b/o"),
        (&[], Some(""), "https://storage.googleapis.com/b/o"),
        (&[], Some("localhost:9000"), "http://localhost:9000/b/o"),
        (&[], Some("https://127.0.0.1:9000/"), "https://127.0.0.1:9000/b/o"),
        (
            &["--style", "virtual-hosted"],
            Some("localhost:9000"),
            "http://b.localhost:9000/o",
        ),
        (
            &["--scheme", "https"],
            Some("localhost:9000"),
            "https://localhost:9000/b/o",
        ),
        (
            &["--hostname", "h.example:1"],
            Some("localhost:9000"),
            "https://h.example:1/b/o",
        ),
        (
            &["--hostname", "h.example", "--scheme", "http"],
            Some("https://l:9"),
            "http://h.example/b/o",
        ),
        (
            &["--universe-domain", "u.example"],
            Some("localhost:9000"),
            "https://storage.u.example/b/o",
        ),
        (
            &["--universe-domain", "u.example", "--hostname", "h.example"],
            None,
            "https://h.example/b/o",
        ),
        (
            &["--style", "bucket-bound", "--hostname", "cdn.example"],
            None,
            "https://cdn.example/o",
        ),
        (
            &["--hostname", "[::1]:80", "--scheme", "http"],
            None,
            "http://[::1]:80/b/o",
        ),
    ];
    for (flags, emulator, expected) in cases {
        let variable = emulator.map(|host| ("STORAGE_EMULATOR_HOST", host));
        let arguments = [&["gs://b/o", "--key-file", &file], flags].concat();
        assert_eq!(
            place(&sign(&arguments, variable.as_slice())),
            expected,
            "{flags:?} {emulator:?}"
        );
    }
    for bucket in ["gs://b", "gs://b/"] {
        let output = sign(&[bucket, "--key-file", &file], &[]);
        assert_eq!(place(&output), "https://storage.googleapis.com/b");
    }
}

#[test]
fn a_key_of_another_universe_names_its_host() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.json");
    let file = json!({
        "client_email": EMAIL, "private_key": TestKey::generate().pem(), "universe_domain": "u.example",
    });
    std::fs::write(&path, file.to_string()).unwrap();
    let path = path.to_str().unwrap();
    let output = sign(&["gs://b/o", "--key-file", path], &[]);
    assert_eq!(place(&output), "https://storage.u.example/b/o");
    let output = sign(&["gs://b/o", "--key-file", path, "--universe-domain", "v.example"], &[]);
    assert_eq!(place(&output), "https://storage.v.example/b/o");
}

#[test]
fn credentials_of_another_universe_name_its_host_as_a_key_file_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adc.json");
    let file = json!({
        "type": "service_account", "client_email": EMAIL, "private_key": TestKey::generate().pem(),
        "private_key_id": "k", "project_id": "p", "token_uri": format!("{}/token", nobody()),
        "universe_domain": "u.example",
    });
    std::fs::write(&path, file.to_string()).unwrap();
    let adc = ("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap());
    assert_eq!(place(&sign(&["gs://b/o"], &[adc])), "https://storage.u.example/b/o");
    let output = sign(&["gs://b/o", "--universe-domain", "v.example"], &[adc]);
    assert_eq!(place(&output), "https://storage.v.example/b/o");
    let output = sign(&["gs://b/o"], &[adc, ("STORAGE_EMULATOR_HOST", "localhost:1")]);
    assert_eq!(place(&output), "http://localhost:1/b/o");
}

#[test]
fn what_cannot_be_signed_is_wrong_usage_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let (_key, file) = key_file(directory.path());
    let long = format!("gs://b/{}", "a".repeat(1025));
    let broken = directory.path().join("broken.json");
    std::fs::write(&broken, r#"{"client_email":"a@b","private_key":"canary"}"#).unwrap();
    let user = directory.path().join("user.json");
    std::fs::write(&user, r#"{"type":"authorized_user","refresh_token":"canary"}"#).unwrap();
    let cases: [(&[&str], &str); 27] = [
        (&["https://b/o"], "gs://BUCKET"),
        (&["gs://"], "bucket"),
        (&["gs:///o"], "bucket"),
        (&["gs://Upper/o"], "bucket"),
        (&[&long], "1,024"),
        (&["gs://b/o", "--ttl", "0s"], "allows nothing"),
        (&["gs://b/o", "--ttl", "500ms"], "whole seconds"),
        (&["gs://b/o", "--ttl", "3600"], "such as 120s"),
        (&["gs://b/o", "--ttl", "8d"], "7d"),
        (&["gs://b/o", "--at", "yesterday"], "2026-11-21T23:06:47Z"),
        (&["gs://b/o", "--at", "9999-12-31T23:59:59Z"], "9999"),
        (&["gs://b/o", "--method", "PATCH"], "GET"),
        (&["gs://b/o", "--header", "nothing"], "NAME:VALUE"),
        (&["gs://b/o", "--header", "host:evil"], "host"),
        (&["gs://b/o", "--header", "a:1", "--header", "A:2"], "twice"),
        (&["gs://b/o", "--header", "é:1"], "no name of a header"),
        (&["gs://b/o", "--header", "a:1\r\nb:2"], "line break"),
        (&["gs://b/o", "--query", "a=100%"], "%25"),
        (&["gs://b/o", "--query", "a=%FF"], "UTF-8"),
        (&["gs://b/o", "--query", "X-Goog-Expires=1"], "X-Goog-Expires"),
        (&["gs://b/o", "--query", "x-goog-signature=1"], "x-goog-signature"),
        (&["gs://b/o", "--query", "x-goog-date=1"], "x-goog-date"),
        (&["gs://b/o", "--style", "bucket-bound"], "--hostname"),
        (&["gs://b/o", "--hostname", "https://h"], "--scheme"),
        (&["gs://b/o", "--signer", "a@b.example"], "--key-file"),
        (&["gs://b/o", "--key-file", broken.to_str().unwrap()], "private key"),
        (&["gs://b/o", "--key-file", user.to_str().unwrap()], "--signer"),
    ];
    for (arguments, part) in cases {
        let mut arguments = arguments.to_vec();
        if !arguments.contains(&"--key-file") {
            arguments.extend(["--key-file", &file]);
        }
        let output = sign(&arguments, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty() && !said.contains("canary"), "{said}");
    }
    let output = sign(
        &["gs://b/o"],
        &[("STORAGE_EMULATOR_HOST", "::"), ("SIGNER_SERVICE_ACCOUNT", "nobody")],
    );
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("STORAGE_EMULATOR_HOST") && said.contains("SIGNER_SERVICE_ACCOUNT"),
        "{said}"
    );
}

/// IAM Credentials with one key for every account.
fn iam() -> (TestKey, Peer) {
    let key = TestKey::generate();
    let signing = key.signing_key(EMAIL);
    let peer = Peer::start(move |request, _| {
        let payload = STANDARD.decode(request.json()["payload"].as_str().unwrap()).unwrap();
        Reply::json(
            200,
            json!({"keyId": "k1", "signedBlob": STANDARD.encode(signing.sign(&payload).unwrap())}),
        )
    });
    (key, peer)
}

/// The metadata server of a worker.
fn metadata() -> Peer {
    Peer::start(|request, _| {
        let body = if request.target.contains("/token") {
            r#"{"access_token":"canary","expires_in":3599,"token_type":"Bearer"}"#
        } else if request.target.ends_with("/universe-domain") {
            "u.example"
        } else {
            "worker@project.iam.gserviceaccount.com"
        };
        Reply::Full(200, vec![("Metadata-Flavor", "Google".into())], body.into())
    })
}

#[test]
fn through_sign_blob_the_named_account_signs_else_the_worker_itself() {
    let (key, iam) = iam();
    let metadata = metadata();
    let host = metadata.url.trim_start_matches("http://");
    let base = [
        ("GCE_METADATA_HOST", host),
        ("IAM_CREDENTIALS_ENDPOINT", iam.url.as_str()),
    ];
    let named = [base[0], base[1], ("SIGNER_SERVICE_ACCOUNT", EMAIL)];
    let worker = "worker@project.iam.gserviceaccount.com";
    let other = "other@project.iam.gserviceaccount.com";
    for (arguments, variables, signer) in [
        (&["gs://b/o", "--explain"][..], &base[..], worker),
        (&["gs://b/o", "--explain"], &named, EMAIL),
        (&["gs://b/o", "--explain", "--signer", other], &named, other),
        (&["gs://b/o", "--explain", "--ttl", "12h"], &named, EMAIL),
    ] {
        let output = sign(arguments, variables);
        let url = stdout(&output);
        let explained = text(&output.stderr);
        let string_to_sign = explained.split_once("string to sign:\n").unwrap().1.trim_end();
        verify(&key, string_to_sign, url.split_once("&X-Goog-Signature=").unwrap().1);
        let credential = format!("X-Goog-Credential={}", signer.replace('@', "%40"));
        assert!(url.contains(&credential), "{url}");
        assert!(
            url.starts_with("https://storage.u.example/b/o?"),
            "the universe is the metadata server's: {url}"
        );
        let asked = iam.requests();
        assert_eq!(
            asked.last().unwrap().target,
            format!("/v1/projects/-/serviceAccounts/{}:signBlob", signer.replace('@', "%40"))
        );
        assert_eq!(asked.last().unwrap().header("authorization"), Some("Bearer canary"));
    }
    let asked = iam.requests().len();
    let output = sign(&["gs://b/o", "--ttl", "43201s"], &named);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("12h"), "{}", text(&output.stderr));
    assert_eq!(iam.requests().len(), asked, "nobody is asked to sign what is refused");
}

#[test]
fn the_credentials_own_key_signs_without_asking_anybody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("adc.json");
    let key = TestKey::generate();
    let file = json!({
        "type": "service_account", "client_email": EMAIL, "private_key": key.pem(), "private_key_id": "k",
        "project_id": "p", "token_uri": format!("{}/token", nobody()),
    });
    std::fs::write(&path, file.to_string()).unwrap();
    let adc = ("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap());
    let output = sign(&["gs://b/o", "--ttl", "7d", "--explain"], &[adc]);
    let url = stdout(&output);
    let explained = text(&output.stderr);
    let string_to_sign = explained.split_once("string to sign:\n").unwrap().1.trim_end();
    verify(&key, string_to_sign, url.split_once("&X-Goog-Signature=").unwrap().1);
}

#[test]
fn who_may_not_sign_is_told_the_role_and_the_command() {
    let metadata = metadata();
    let host = metadata.url.trim_start_matches("http://");
    let message = "Permission 'iam.serviceAccounts.signBlob' denied on resource (or it may not exist).";
    let iam = Peer::replies(vec![Reply::json(
        403,
        json!({"error": {"code": 403, "message": message}}),
    )]);
    let output = sign(
        &["gs://b/o", "--signer", EMAIL],
        &[("GCE_METADATA_HOST", host), ("IAM_CREDENTIALS_ENDPOINT", &iam.url)],
    );
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(message), "{said}");
    assert!(
        said.contains(&format!(
            "serviceAccount:worker@project.iam.gserviceaccount.com lacks iam.serviceAccounts.signBlob on {EMAIL}. "
        )),
        "{said}"
    );
    assert!(!said.contains("canary") && output.stdout.is_empty(), "{said}");
}

#[test]
fn without_credentials_the_ways_to_have_some_are_named() {
    let output = sign(&["gs://b/o"], &[("STORAGE_EMULATOR_HOST", "localhost:9000")]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for way in ["--key-file", "GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth"] {
        assert!(said.contains(way), "{said}");
    }
}
