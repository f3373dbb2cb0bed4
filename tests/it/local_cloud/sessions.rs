//! Resumable uploads whose client is impatient, wrong, or gone.

use chrono::TimeDelta;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{Fixture, answer, ok};

const CHUNK: usize = 256 * 1024;

impl Fixture {
    /// Begins a session in the bucket `ups`; its address.
    async fn session(&self, query: &str) -> String {
        let base = &self.cloud.urls().storage;
        let begun = self
            .post(format!("{base}/upload/storage/v1/b/ups/o?uploadType=resumable&{query}"))
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(begun.status(), 200);
        begun.headers()["location"].to_str().unwrap().to_owned()
    }

    fn chunk(&self, session: &str, range: &str, bytes: impl Into<reqwest::Body>) -> RequestBuilder {
        self.http.put(session).header("content-range", range).body(bytes)
    }

    async fn generations(&self, name: &str) -> Vec<Value> {
        let list = ok(self.get(self.storage(&format!("ups/o?versions=true&prefix={name}")))).await;
        list["items"].as_array().cloned().unwrap_or_default()
    }
}

/// A client that has waited too long sends its last request again, while the first one is still being stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_that_is_ended_twice_at_once_makes_one_object() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", true).unwrap();
    let bytes = bytes::Bytes::from(vec![7_u8; 8 << 20]);
    for (round, query) in ["name=r&ifGenerationMatch=0", "name=r0", "name=r1", "name=r2"]
        .into_iter()
        .enumerate()
    {
        let name = query.split(['=', '&']).nth(1).unwrap();
        let session = cloud.session(query).await;
        let whole = || answer(cloud.http.put(&session).body(bytes.clone()));
        let asked = async {
            let mut answers = Vec::new();
            for _ in 0..20 {
                let question = cloud.chunk(&session, &format!("bytes */{}", bytes.len()), "");
                answers.push(question.send().await.unwrap().status().as_u16());
            }
            answers
        };
        let (first, second, third, asked) = tokio::join!(whole(), whole(), whole(), asked);
        for (status, object) in [&first, &second, &third] {
            assert_eq!(*status, 200, "round {round}: {object}");
            assert_eq!(object["generation"], first.1["generation"]);
        }
        // Before it is there, and then done: nobody is told that it is gone.
        assert!(asked.iter().all(|status| [200, 308].contains(status)), "{asked:?}");
        assert_eq!(cloud.generations(name).await.len(), 1, "round {round}");
        let (status, object) = answer(cloud.chunk(&session, &format!("bytes */{}", bytes.len()), "")).await;
        assert_eq!((status.as_u16(), &object["generation"]), (200, &first.1["generation"]));
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_leaves_a_session_as_it_was() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let session = cloud.session("name=a").await;
    let chunk = cloud.chunk(&session, &format!("bytes 0-{}/*", CHUNK - 1), vec![b'x'; CHUNK]);
    assert_eq!(chunk.send().await.unwrap().status(), 308);
    for (range, bytes) in [
        ("bytes */100", ""),
        ("bytes 0-4/5", "hello"),
        ("bytes 262200-262204/262205", "hello"),
        ("bytes 262144-262148/262147", "hello"),
        ("bytes 262144-262148/262149", "hell"),
        ("bytes 262144-262148", "hello"),
        ("bytes 262148-262144/262149", "hello"),
        ("bytes 262144-262148/-1", "hello"),
        ("bytes 18446744073709551615-18446744073709551615/*", "x"),
        ("262144-262148/262149", "hello"),
    ] {
        let (status, body) = answer(cloud.chunk(&session, range, bytes)).await;
        assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!(400)), "{range}");
        let far = cloud.chunk(&session, "bytes */*", "").send().await.unwrap();
        assert_eq!(far.headers()["range"], "bytes=0-262143", "{range}");
    }
    let (status, object) = answer(cloud.chunk(&session, "bytes 262144-262148/262149", "hello")).await;
    assert_eq!((status.as_u16(), &object["size"]), (200, &json!("262149")));
}

/// Python's client sends the hash of everything with its last request.
#[tokio::test]
async fn the_hash_that_comes_with_the_last_bytes_is_compared() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    for (hash, status) in [
        ("crc32c=AAAAAA==", 400),
        ("md5=AAAAAAAAAAAAAAAAAAAAAA==", 400),
        ("crc32c=mnG7TA==", 200),
    ] {
        let session = cloud.session("name=hashed").await;
        let last = cloud
            .chunk(&session, "bytes 0-4/5", "hello")
            .header("x-goog-hash", hash);
        assert_eq!(answer(last).await.0, status, "{hash}");
        assert_eq!(
            cloud.generations("hashed").await.len(),
            usize::from(status == 200),
            "{hash}"
        );
    }
}

#[tokio::test]
async fn a_session_ends_after_a_week() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let (session, other) = (cloud.session("name=a").await, cloud.session("name=b").await);
    let question = async |session: &str| cloud.chunk(session, "bytes */*", "").send().await.unwrap().status();
    cloud.cloud.clock().advance(TimeDelta::days(6));
    assert_eq!(question(&session).await, 308);
    cloud.cloud.clock().advance(TimeDelta::days(1) + TimeDelta::seconds(1));
    for session in [&session, &other] {
        assert_eq!(question(session).await, 404);
        let whole = cloud.http.put(session).body("x");
        assert_eq!(answer(whole).await.0, 404);
    }
    // The token has ended as well.
    let token = cloud.cloud.access_token(&cloud.cloud.settings().worker_service_account);
    let list = ok(cloud.http.get(cloud.storage("ups/o")).bearer_auth(token)).await;
    assert_eq!(list["items"], Value::Null);
}

/// What nobody ends is forgotten when there is too much of it, what was touched last at last.
#[tokio::test]
async fn sessions_that_nobody_ends_are_forgotten_at_some_number() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let (first, kept) = (cloud.session("name=first").await, cloud.session("name=kept").await);
    let question = async |session: &str| cloud.chunk(session, "bytes */*", "").send().await.unwrap().status();
    for round in 0..2_000 {
        if round % 500 == 0 {
            cloud.cloud.clock().advance(TimeDelta::seconds(1));
            assert_eq!(question(&kept).await, 308, "{round}");
        }
        cloud.session("name=more").await;
    }
    assert_eq!(question(&first).await, 404);
    assert_eq!(question(&kept).await, 308);
}

#[tokio::test]
async fn a_signed_session_takes_what_its_begin_says_about_the_object() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let base = &cloud.cloud.urls().storage;
    let begun = cloud
        .post(format!("{base}/ups/said"))
        .header("x-goog-resumable", "start")
        .header("content-type", "text/x")
        .header("x-goog-meta-who", "me")
        .header("content-disposition", "inline")
        .header("cache-control", "no-store")
        .send()
        .await
        .unwrap();
    assert_eq!(begun.status(), 201);
    let session = begun.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(answer(cloud.http.put(&session).body("x")).await.0, 200);
    let object = ok(cloud.get(cloud.storage("ups/o/said"))).await;
    assert_eq!(object["metadata"], json!({"who": "me"}));
    for (field, value) in [
        ("contentType", "text/x"),
        ("contentDisposition", "inline"),
        ("cacheControl", "no-store"),
    ] {
        assert_eq!(object[field], value);
    }
}
