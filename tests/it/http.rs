//! The worker's HTTP manners, over raw sockets: what is too large, too slow, or not there.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{World, until};

/// Sends bytes as they are and reads all that comes back.
async fn raw(world: &World, request: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(world.worker.url.trim_start_matches("http://"))
        .await
        .unwrap();
    // The worker may answer and close before it has read everything.
    let _refused_early = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _reset_after_the_answer = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no answer: {answer:?}"))
        .parse()
        .unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (
        status,
        serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_too_slow_or_nowhere_gets_its_status_and_a_body() {
    let world = World::start().await;
    let token = world.token();
    let head = |first: &str, more: &str| format!("{first} HTTP/1.1\r\nHost: w\r\nConnection: close\r\n{more}\r\n");
    let authorized = format!("Authorization: Bearer {token}\r\n");
    let many: String = (0..600)
        .map(|n| format!("x-header-{n}: {}\r\n", "v".repeat(20)))
        .collect();
    let cases = [
        (head("GET /nowhere", ""), 404),
        (head("GET /", ""), 405),
        (head("POST /", &format!("x-large: {}\r\n", "a".repeat(17_000))), 431),
        (head("POST /", &many), 431),
        (
            head("POST /", &format!("{authorized}Content-Length: {}\r\n", (16 << 20) + 1)),
            413,
        ),
        (head("POST /", "Content-Length: 99999999\r\n"), 401),
        // The head never comes to its end.
        ("POST / HTTP/1.1\r\nHost: w\r\nx-slow: ".to_owned(), 408),
    ];
    for (request, status) in cases {
        let (answered, body) = raw(&world, request.as_bytes()).await;
        assert_eq!(answered, status, "{request:.80}: {body}");
        assert!(
            body["error"]["code"].is_string() && body["error"]["message"].is_string(),
            "{body}"
        );
    }
    // The last one has never come to its root, and has its line and its number all the same.
    until("the head that never ended has a line", || {
        let log = world.worker.log();
        let line = log.lines().find(|line| line.contains("408: The headers took too long"));
        line.map(str::to_owned)
    })
    .await;
    // None of it harmed the worker.
    let answer = world
        .http
        .get(format!("{}/health/ready", world.worker.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let ready: Value = answer.json().await.unwrap();
    assert_eq!(
        (&ready["engine"]["warm"], &ready["keys"]["loaded"]),
        (&Value::from(true), &Value::from(true))
    );
}
