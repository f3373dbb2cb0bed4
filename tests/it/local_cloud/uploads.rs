//! Uploads: the shapes that Google's clients send, and the refusals that protect what is stored.

use serde_json::{Value, json};

use super::{Fixture, answer, ok};

/// A multipart body as google-cloud-storage 1.21 sends it: metadata, media, checksums.
fn three_parts(metadata: &Value, media: &str, checksums: Option<&str>) -> String {
    let mut body = format!(
        "--b1\r\nContent-Disposition: form-data; name=\"metadata\"\r\nContent-Type: application/json; \
         charset=utf-8\r\n\r\n{metadata}\r\n--b1\r\nContent-Disposition: form-data; name=\"media\"\r\n\r\n{media}\r\n"
    );
    if let Some(checksums) = checksums {
        body.push_str(&format!(
            "--b1\r\nContent-Disposition: form-data; name=\"checksums\"\r\nContent-Type: application/json\r\n\r\n\
             {checksums}\r\n"
        ));
    }
    body.push_str("--b1--\r\n");
    body
}

#[tokio::test]
async fn multipart_takes_three_parts_and_checks_the_hashes() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let send = async |query: &str, body: String| {
        let url = format!(
            "{}/upload/storage/v1/b/ups/o?uploadType=multipart&{query}",
            cloud.cloud.urls().storage
        );
        answer(
            cloud
                .post(url)
                .header("content-type", "multipart/related; boundary=b1")
                .body(body),
        )
        .await
    };
    let (status, object) = send(
        "name=rust%2Fa+b.pdf&ifGenerationMatch=0",
        three_parts(&json!({}), "x", Some("{\"crc32c\":\"qTxfkw==\"}")),
    )
    .await;
    assert_eq!(
        (status.as_u16(), &object["name"]),
        (200, &json!("rust/a b.pdf")),
        "{object}"
    );
    assert_eq!(object["size"], "1");
    let metadata = json!({"name": "named", "contentType": "application/pdf", "contentDisposition": "inline",
        "metadata": {"platen-job": "1"}, "crc32c": "qTxfkw=="});
    let (status, object) = send("", three_parts(&metadata, "x", None)).await;
    assert_eq!(status, 200, "{object}");
    for field in ["name", "contentType", "contentDisposition", "metadata", "crc32c"] {
        assert_eq!(object[field], metadata[field]);
    }
    // A body that looks like its own frame.
    let tricky = "\r\n\r\n--b2\r\n--b\r\n\r\n";
    let (_, object) = send("name=tricky", three_parts(&json!({}), tricky, None)).await;
    assert_eq!(object["size"], tricky.len().to_string());
    let download = cloud.get(cloud.storage("ups/o/tricky?alt=media")).send().await.unwrap();
    assert_eq!(download.text().await.unwrap(), tricky);
    let (_, object) = send("name=empty", three_parts(&json!({}), "", None)).await;
    assert_eq!(object["size"], "0");
    let wrong = "{\"crc32c\":\"AAAAAA==\"}";
    let (status, body) = send("name=wrong", three_parts(&json!({}), "x", Some(wrong))).await;
    assert_eq!(status, 400);
    assert_eq!(
        body["error"]["message"],
        "Provided CRC32C \"AAAAAA==\" doesn't match calculated CRC32C \"qTxfkw==\"."
    );
    let wrong_md5 = json!({"md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="});
    assert_eq!(send("name=wrong", three_parts(&wrong_md5, "x", None)).await.0, 400);
    assert_eq!(
        send("name=wrong", three_parts(&json!({}), "x", None).replace("--b1--", ""))
            .await
            .0,
        400,
        "cut short"
    );
    assert_eq!(send("", three_parts(&json!({}), "x", None)).await.0, 400, "no name");
    assert_eq!(
        answer(cloud.get(cloud.storage("ups/o/wrong"))).await.0,
        404,
        "nothing refused was stored"
    );
    let long = "n".repeat(1025);
    assert_eq!(
        send(&format!("name={long}"), three_parts(&json!({}), "x", None))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn resumable_goes_on_after_a_break() {
    const CHUNK: usize = 256 * 1024;
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let url = format!(
        "{}/upload/storage/v1/b/ups/o?uploadType=resumable&name=big&ifGenerationMatch=0",
        cloud.cloud.urls().storage
    );
    let start = cloud
        .post(url.clone())
        .header("x-upload-content-type", "application/pdf")
        .send()
        .await
        .unwrap();
    assert_eq!(start.status(), 200);
    let session = start.headers()["location"].to_str().unwrap().to_owned();
    let content: Vec<u8> = (0..CHUNK + 1000)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    let total = content.len();
    let put = async |range: String, body: &[u8]| {
        let request = cloud
            .http
            .put(&session)
            .header("content-range", range)
            .body(body.to_vec());
        let answer = request.send().await.unwrap();
        let range = answer
            .headers()
            .get("range")
            .map(|range| range.to_str().unwrap().to_owned());
        (answer.status().as_u16(), range, answer.bytes().await.unwrap())
    };
    assert_eq!(put(format!("bytes */{total}"), b"").await.0, 308);
    assert_eq!(
        put(format!("bytes */{total}"), b"").await.1,
        None,
        "nothing is stored yet"
    );
    // More than a chunk, but not the end: only whole chunks stay.
    let (status, range, _) = put(format!("bytes 0-{}/*", CHUNK + 9), &content[..CHUNK + 10]).await;
    assert_eq!((status, range), (308, Some(format!("bytes=0-{}", CHUNK - 1))));
    let query = cloud
        .http
        .put(&session)
        .header("content-range", format!("bytes */{total}"));
    let query = query.header("x-guploader-no-308", "yes").body("").send().await.unwrap();
    assert_eq!(query.status(), 200);
    assert_eq!(query.headers()["x-http-status-code-override"], "308");
    assert_eq!(
        put(
            format!("bytes {}-{}/{total}", CHUNK + 5, total - 1),
            &content[CHUNK + 5..]
        )
        .await
        .0,
        400,
        "a gap"
    );
    for (range, why) in [
        (format!("bytes */{}", total + 1), "another size than before"),
        (format!("bytes {CHUNK}-{total}/{total}"), "past the end"),
    ] {
        assert_eq!(put(range, &vec![0; total + 1 - CHUNK]).await.0, 400, "{why}");
    }
    let (status, _, body) = put(format!("bytes {CHUNK}-{}/{total}", total - 1), &content[CHUNK..]).await;
    assert_eq!(status, 200);
    let object: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&object["size"], &object["contentType"]),
        (&json!(total.to_string()), &json!("application/pdf"))
    );
    let (status, _, again) = put(format!("bytes */{total}"), b"").await;
    assert_eq!((status, again), (200, body), "asking again gets the same answer");
    let stored = cloud
        .get(cloud.storage("ups/o/big?alt=media"))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert!(stored == content);
    assert_eq!(
        answer(cloud.post(url)).await.0,
        412,
        "the precondition is checked before the bytes come"
    );
    let unknown = format!(
        "{}/upload/storage/v1/b/ups/o?upload_id=none",
        cloud.cloud.urls().storage
    );
    assert_eq!(answer(cloud.http.put(unknown).body("x")).await.0, 404);
}

#[tokio::test]
async fn a_race_lost_during_a_resumable_upload_is_a_412() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("ups", false).unwrap();
    let url = format!(
        "{}/upload/storage/v1/b/ups/o?uploadType=resumable&name=a&ifGenerationMatch=0",
        cloud.cloud.urls().storage
    );
    let start = cloud
        .post(url)
        .json(&json!({"crc32c": "qTxfkw=="}))
        .send()
        .await
        .unwrap();
    let session = start.headers()["location"].to_str().unwrap().to_owned();
    cloud.upload("ups", "a", b"other").await;
    assert_eq!(answer(cloud.http.put(session).body("x")).await.0, 412);
    let object = ok(cloud.get(cloud.storage("ups/o/a"))).await;
    assert_eq!(object["size"], "5");
}

#[tokio::test]
async fn writes_without_a_precondition_are_counted() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("counted", false).unwrap();
    cloud.upload("counted", "a", b"whatever is there").await;
    let base = &cloud.cloud.urls().storage;
    let guarded = format!("{base}/upload/storage/v1/b/counted/o?uploadType=media&name=b&ifGenerationMatch=0");
    ok(cloud.post(guarded).body("only if nothing is there")).await;
    assert_eq!(cloud.cloud.unconditional_writes("counted").unwrap(), 1);
}
