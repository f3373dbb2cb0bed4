//! Batches of calls, as they are on the wire.

use serde_json::{Value, json};

use super::Fixture;

/// A part: its headers, and a request in it.
fn part(id: &str, request: &str) -> String {
    format!("--b\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\n{request}\r\n")
}

impl Fixture {
    /// Sends a batch; its status and its body.
    async fn batch(&self, query: &str, token: &str, body: String) -> (u16, String) {
        let url = format!("{}/batch/storage/v1{query}", self.cloud.urls().storage);
        let request = self.http.post(url).bearer_auth(token).body(body);
        let answer = request
            .header("content-type", "multipart/mixed; boundary=b")
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn each_call_is_answered_for_itself() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("many", false).unwrap();
    cloud.upload("many", "a", b"hello").await;
    let patch = json!({"metadata": {"k": "v"}}).to_string();
    let calls = [
        part("<one+1>", "GET /storage/v1/b/many/o/a?fields=name HTTP/1.1\r\n\r\n"),
        part(
            "two",
            &format!("PATCH /storage/v1/b/many/o/a HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{patch}"),
        ),
        part(
            "<3>",
            "GET /storage/v1/b/many/o/none\r\nAuthorization: Bearer nobody's\r\n\r\n",
        ),
        part("<4>", "GET /storage/v1/b/many/o/a?alt=media HTTP/1.1\r\n\r\n"),
        part(
            "<5>",
            "POST /upload/storage/v1/b/many/o?uploadType=media&name=b HTTP/1.1\r\n\r\nx",
        ),
        part(
            "<6>",
            "POST /batch/storage/v1 HTTP/1.1\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--",
        ),
        part(
            "<7>",
            "GET /storage/v1/b/many/o/a HTTP/1.1\r\nIf-Match: another\r\n\r\n",
        ),
        part(
            "<8>",
            "DELETE http://storage.googleapis.com/storage/v1/b/many/o/a HTTP/1.1\r\n\r\n",
        ),
        part("<9>", "GET /storage/v1/b/many/o/a HTTP/1.1\r\n\r\n"),
    ];
    let (status, body) = cloud
        .batch("?prettyPrint=false", &cloud.token, calls.concat() + "--b--")
        .await;
    assert_eq!(status, 200, "{body}");
    let boundary = body.lines().next().unwrap().trim_end().to_owned();
    let answers: Vec<&str> = body.split(&boundary).skip(1).collect();
    assert_eq!(answers.last(), Some(&"--\r\n"));
    let expected = [
        ("<response-one+1>", 200),
        ("response-two", 200),
        ("<response-3>", 401),
        ("<response-4>", 400),
        ("<response-5>", 400),
        ("<response-6>", 400),
        ("<response-7>", 412),
        ("<response-8>", 204),
        ("<response-9>", 404),
    ];
    assert_eq!(answers.len(), expected.len() + 1);
    for (answer, (id, status)) in answers.iter().zip(expected) {
        assert!(
            answer.contains(&format!("\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status} ")),
            "{answer}"
        );
        let (head, content) = answer.split_once("HTTP/1.1").unwrap().1.split_once("\r\n\r\n").unwrap();
        let content = content.strip_suffix("\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", content.len())), "{answer}");
        if status >= 400 {
            let content: Value = serde_json::from_str(content).unwrap();
            assert_eq!(content["error"]["code"], status);
        }
    }
    let first: Value = serde_json::from_str(answers[0].rsplit("\r\n\r\n").next().unwrap()).unwrap();
    assert_eq!(first, json!({"name": "a"}));
    assert!(answers[1].contains("\"k\": \"v\""), "{}", answers[1]);
}

#[tokio::test]
async fn a_batch_that_is_none_or_too_large_does_nothing() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("many", false).unwrap();
    cloud.upload("many", "a", b"hello").await;
    let delete = part("<1>", "DELETE /storage/v1/b/many/o/a HTTP/1.1\r\n\r\n");
    let filled = part("<1>", &format!("GET / HTTP/1.1\r\n\r\n{}", "x".repeat(10 << 20)));
    for (status, body) in [
        (400, delete.repeat(101) + "--b--"),
        (400, delete.clone()),
        (400, "--b--".to_owned()),
        (
            400,
            format!(
                "{delete}--b\r\nContent-Type: text/plain\r\n\r\nDELETE /storage/v1/b/many/o/a HTTP/1.1\r\n\r\n--b--"
            ),
        ),
        (400, format!("{delete}{}--b--", part("<2>", "no request"))),
        (
            400,
            format!("{delete}{}--b--", part("<2>", "GET / HTTP/1.1\r\nno header\r\n\r\n")),
        ),
        (413, delete.clone() + &filled + "--b--"),
    ] {
        let (answered, body) = cloud.batch("", &cloud.token, body).await;
        assert_eq!(answered, status, "{body}");
        let there = cloud.get(cloud.storage("many/o/a")).send().await.unwrap();
        assert_eq!(there.status(), 200, "{body}");
    }
    let (answered, _) = cloud
        .batch(
            "",
            &cloud.token,
            part("<1>", "GET /storage/v1/b/many HTTP/1.1\r\n\r\n").repeat(100) + "--b--",
        )
        .await;
    assert_eq!(answered, 200);
    let (answered, body) = cloud.batch("", "nobody's", delete + "--b--").await;
    assert!(answered == 200 && body.contains("HTTP/1.1 401 "), "{body}");
}
