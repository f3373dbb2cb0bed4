//! Google's own retry scenarios for clients of Cloud Storage, for the calls that Platen makes, against Google's storage
//! testbench. `retry_tests.json` of github.com/googleapis/conformance-tests must be in ../shared/conformance.
//!
//! The testbench knows a scenario by a header that every request of it carries. The client has no business with that,
//! so a proxy adds it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use platen::google::http::Http;
use platen::google::storage::{Storage, Upload};
use platen::google::{Error, Kind};
use serde_json::{Value, json};

use crate::testbench::Testbench;

const BUCKET: &str = "platen-retries";
const METHODS: [&str; 3] = ["storage.objects.get", "storage.objects.list", "storage.objects.insert"];
/// Above 8 MiB: a session, which scenario 7 breaks after 8,192 KiB.
const LARGE: usize = 9 << 20;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// Passes on to `address` with a header more, one request a connection, and breaks when the other side does.
fn proxy(address: &str, scenario: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (address, scenario) = (address.to_owned(), scenario.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (address, scenario) = (address.clone(), scenario.clone());
            std::thread::spawn(move || pass(client.unwrap(), &address, &scenario).ok());
        }
    });
    url
}

fn pass(mut client: TcpStream, address: &str, scenario: &str) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    head.truncate(head.len() - 2);
    head.extend_from_slice(format!("x-retry-test-id: {scenario}\r\nConnection: close\r\n\r\n").as_bytes());
    let mut server = TcpStream::connect(address)?;
    server.write_all(&head)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to).ok());
    let answered = std::io::copy(&mut server, &mut client);
    client.shutdown(Shutdown::Both)?;
    answered.map(drop)
}

/// One of the calls, and whether what it gave is right.
async fn call(storage: &Storage, what: &str, generation: i64) -> Result<bool, Error> {
    let none = BTreeMap::new();
    let insert = async |size| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content = bytes(size);
        file.write_all(&content).unwrap();
        let name = format!("{what} {}", file.path().display());
        let upload = Upload {
            bucket: BUCKET,
            name: &name,
            content_type: "application/pdf",
            content_disposition: None,
            metadata: &none,
            file: file.path(),
            size: size as u64,
            crc32c: crc32c::crc32c(&content),
            if_generation_match: 0,
        };
        let object = storage.upload(&upload).await?;
        Ok((object.size, object.crc32c) == (upload.size, Some(upload.crc32c)))
    };
    match what {
        "metadata" => Ok(storage.metadata(BUCKET, "there", None).await?.size == LARGE as u64),
        "media" => download(storage, generation).await,
        "list" => Ok(storage.list(BUCKET, "there", 10).await?.len() == 1),
        "multipart" => insert(1000).await,
        "resumable" => insert(LARGE).await,
        _ => unreachable!(),
    }
}

async fn download(storage: &Storage, generation: i64) -> Result<bool, Error> {
    let mut download = storage.download(BUCKET, "there", generation).await?;
    let mut received = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        received.extend_from_slice(&chunk);
    }
    Ok(received == bytes(LARGE))
}

#[tokio::test]
async fn googles_retry_scenarios_pass() {
    let Some(shared) = crate::sign::shared() else {
        println!("skipped: no ../shared/conformance (set PLATEN_SHARED)");
        return;
    };
    let scenarios = std::fs::read(shared.join("conformance/retry_tests.json")).unwrap();
    let mut scenarios: Value = serde_json::from_slice(&scenarios).unwrap();
    // What the testbench can do besides.
    let scenarios = scenarios["retryTests"].as_array_mut().unwrap();
    scenarios.push(json!({
        "id": "of Platen's", "expectSuccess": true,
        "cases": [
            {"instructions": ["return-broken-stream-final-chunk-after-1048576B"]},
            {"instructions": ["return-503-after-512K", "return-503", "return-503-after-1024K"]},
        ],
        "methods": [{"name": "storage.objects.insert", "group": "storage.resumable.upload"}],
    }));
    let Some(running) = tokio::task::spawn_blocking(Testbench::start).await.unwrap() else {
        return;
    };
    let testbench = &running.url;
    let address = testbench.strip_prefix("http://").unwrap();
    let http = crate::harness::client();
    let json_of = async |request: reqwest::RequestBuilder| -> Value {
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.json().await.unwrap()
    };
    let made = http.post(format!("{testbench}/storage/v1/b?project=p"));
    // 409 when it is there from the run before.
    made.json(&json!({"name": BUCKET})).send().await.unwrap();
    let put = format!("{testbench}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=there");
    let there = json_of(http.post(put).body(bytes(LARGE))).await;
    let generation = there["generation"].as_str().unwrap().parse().unwrap();

    let mut failed = 0;
    for scenario in scenarios {
        let succeeds = scenario["expectSuccess"].as_bool().unwrap();
        for method in scenario["methods"].as_array().unwrap() {
            let name = method["name"].as_str().unwrap();
            let calls: &[&str] = match (name, method["group"].as_str()) {
                _ if !METHODS.contains(&name) => continue,
                // Platen has no write without a precondition.
                ("storage.objects.insert", _) if scenario["id"] == 3 => continue,
                ("storage.objects.get", Some("storage.objects.download")) => &["media"],
                ("storage.objects.insert", Some("storage.resumable.upload")) => &["resumable"],
                ("storage.objects.get", _) => &["metadata", "media"],
                ("storage.objects.insert", _) => &["multipart", "resumable"],
                _ => &["list"],
            };
            for case in scenario["cases"].as_array().unwrap() {
                for call_name in calls {
                    let instructions = json!({"instructions": {(name): case["instructions"]}});
                    let test = json_of(http.post(format!("{testbench}/retry_test")).json(&instructions)).await;
                    let id = test["id"].as_str().unwrap();
                    let storage = Storage::new(Http::new().unwrap(), &proxy(address, id), None);
                    let outcome = call(&storage, call_name, generation).await;
                    let left = json_of(http.get(format!("{testbench}/retry_test/{id}"))).await;
                    let is_right = left["completed"] == true
                        && match &outcome {
                            Ok(right) => succeeds && *right,
                            Err(error) => !succeeds && matches!(error.kind, Kind::Invalid | Kind::Unauthenticated),
                        };
                    failed += u32::from(!is_right);
                    println!(
                        "{} | scenario {} | {call_name} | {} | {outcome:?}",
                        if is_right { "passed" } else { "FAILED" },
                        scenario["id"],
                        case["instructions"]
                    );
                }
            }
        }
    }
    assert_eq!(failed, 0);
}
