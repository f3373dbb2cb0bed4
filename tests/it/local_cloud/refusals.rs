//! What a request asks for is done, or refused: never taken and forgotten.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{Fixture, answer, ok, raw};

#[tokio::test]
async fn etags_are_conditions() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("when", false).unwrap();
    let etag = |object: &Value| object["etag"].as_str().unwrap().to_owned();
    let object = cloud.upload("when", "a", b"hello").await;
    let bucket = ok(cloud.get(cloud.storage("when"))).await;
    let base = &cloud.cloud.urls().storage;
    let upload = format!("{base}/upload/storage/v1/b/when/o?uploadType=media&name=a");
    let send = async |method: &str, url: &str, header: &str, value: &str| {
        let request = cloud
            .http
            .request(method.parse().unwrap(), url)
            .bearer_auth(&cloud.token);
        answer(request.header(header, value).body("{}")).await.0.as_u16()
    };
    let media = cloud.storage("when/o/a?alt=media");
    let targets = [
        (cloud.storage("when/o/a"), etag(&object)),
        (media, etag(&object)),
        (cloud.storage("when"), etag(&bucket)),
    ];
    for (url, etag) in &targets {
        for (header, value, status) in [
            ("if-match", "\"other\"", 412),
            ("if-match", etag.as_str(), 200),
            ("if-match", &format!("\"other\", \"{etag}\""), 200),
            ("if-match", "*", 200),
            ("if-none-match", etag.as_str(), 304),
            ("if-none-match", &format!("W/\"{etag}\""), 304),
            ("if-none-match", "*", 304),
            ("if-none-match", "\"other\"", 200),
        ] {
            assert_eq!(send("GET", url, header, value).await, status, "{url} {header}: {value}");
        }
    }
    // Google passes over them in changes: whoever relies on them is told.
    for (url, etag) in [&targets[0], &targets[2]] {
        for method in ["PATCH", "PUT", "DELETE"] {
            for (header, value) in [
                ("if-match", etag.as_str()),
                ("if-match", "*"),
                ("if-none-match", "\"other\""),
            ] {
                assert_eq!(send(method, url, header, value).await, 400, "{method} {url}");
            }
        }
    }
    assert_eq!(send("POST", &upload, "if-none-match", "*").await, 400);
    assert_eq!(send("PUT", &format!("{base}/when/a"), "if-none-match", "*").await, 400);
    assert_eq!(
        send("GET", &targets[0].0, "if-match", &etag(&object)).await,
        200,
        "nothing was changed"
    );
    // The XML API's are others: MD5s in quotes.
    let xml = format!("{base}/when/a");
    let digest = "\"5d41402abc4b2a76b9719d911017c592\"";
    assert_eq!(send("GET", &xml, "if-match", digest).await, 200);
    assert_eq!(send("GET", &xml, "if-none-match", digest).await, 304);
    assert_eq!(send("HEAD", &xml, "if-none-match", digest).await, 304);
    assert_eq!(send("GET", &xml, "if-match", "\"other\"").await, 412);
    for (header, value, status) in [
        ("if-modified-since", "Thu, 01 Jan 2099 00:00:00 GMT", 304),
        ("if-modified-since", "Thu, 01 Jan 1998 00:00:00 GMT", 200),
        ("if-unmodified-since", "Thu, 01 Jan 1998 00:00:00 GMT", 412),
        ("if-unmodified-since", "Thu, 01 Jan 2099 00:00:00 GMT", 200),
        ("if-unmodified-since", "yesterday", 200),
    ] {
        assert_eq!(send("GET", &xml, header, value).await, status, "{header}: {value}");
    }
    let unchanged = cloud.get(xml).header("if-none-match", digest).send().await.unwrap();
    assert_eq!(unchanged.text().await.unwrap(), "");
}

#[tokio::test]
async fn the_xml_api_refuses_what_it_has_not() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("xml", false).unwrap();
    cloud.upload("xml", "a", b"hello").await;
    let base = &cloud.cloud.urls().storage;
    let send = async |method: &str, path: &str, header: (&str, &str)| {
        let request = cloud.http.request(method.parse().unwrap(), format!("{base}/{path}"));
        let answer = request.bearer_auth(&cloud.token).header(header.0, header.1).body("x");
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let none = ("x-nothing", "x");
    for method in ["PUT", "DELETE", "POST", "PATCH"] {
        let (status, body) = send(method, "xml", none).await;
        assert!([405, 501].contains(&status), "{method}: {status} {body}");
    }
    for query in [
        "acl",
        "tagging",
        "uploads",
        "partNumber=1&uploadId=x",
        "versions",
        "compose",
        "lifecycle",
    ] {
        for (method, path) in [("GET", "xml/a"), ("PUT", "xml/b"), ("DELETE", "xml/a"), ("GET", "xml")] {
            let (status, body) = send(method, &format!("{path}?{query}"), none).await;
            assert_eq!(status, 501, "{method} {path}?{query}: {body}");
            assert!(body.contains("<Code>NotImplemented</Code>"), "{body}");
        }
    }
    for header in [
        ("x-goog-copy-source", "xml/a"),
        ("x-amz-copy-source", "xml/a"),
        ("x-goog-acl", "public-read"),
        ("x-goog-encryption-key", "x"),
        ("x-goog-encryption-kms-key-name", "x"),
        ("x-goog-object-lock-mode", "x"),
        ("x-goog-custom-time", "2026-01-01T00:00:00Z"),
    ] {
        let (status, body) = send("PUT", "xml/b", header).await;
        assert!([400, 501].contains(&status), "{header:?}: {status} {body}");
    }
    let list = ok(cloud.get(cloud.storage("xml/o"))).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let stranger = cloud
        .http
        .get(format!("{base}/xml/a"))
        .bearer_auth("nobody's")
        .send()
        .await
        .unwrap();
    assert_eq!(stranger.status(), 401);
    assert!(
        stranger
            .text()
            .await
            .unwrap()
            .contains("<Code>AuthenticationRequired</Code>")
    );
    for (method, permission) in [("GET", "get"), ("PUT", "create"), ("DELETE", "delete")] {
        let anonymous = cloud
            .http
            .request(method.parse().unwrap(), format!("{base}/xml/a"))
            .send()
            .await
            .unwrap();
        assert_eq!(anonymous.status(), 403);
        let (body, needed) = (
            anonymous.text().await.unwrap(),
            format!("storage.objects.{permission} access"),
        );
        assert!(body.contains(&needed), "{method}: {body}");
    }
}

#[tokio::test]
async fn the_xml_api_lists_in_pages_and_folders() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("xml", false).unwrap();
    for name in ["a&b", "d/1", "d/2", "e"] {
        cloud.upload("xml", name, b"hello").await;
    }
    let base = &cloud.cloud.urls().storage;
    let list = async |query: &str| {
        cloud
            .get(format!("{base}/xml?{query}"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let all = |text: &str, element: &str| -> Vec<String> {
        let opening = format!("<{element}>");
        let parts = text.split(&opening).skip(1);
        parts.map(|part| part.split("</").next().unwrap().to_owned()).collect()
    };
    let folded = list("delimiter=/").await;
    assert_eq!(all(&folded, "Key"), ["a&amp;b", "e"]);
    assert_eq!(all(&folded, "CommonPrefixes"), ["<Prefix>d/"]);
    assert_eq!(all(&folded, "ETag")[0], "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(all(&folded, "IsTruncated"), ["false"]);
    let page = list("max-keys=2").await;
    assert_eq!(
        (all(&page, "Key"), all(&page, "IsTruncated")),
        (vec!["a&amp;b".to_owned(), "d/1".to_owned()], vec!["true".to_owned()])
    );
    let next = list(&format!("marker={}", all(&page, "NextMarker")[0])).await;
    assert_eq!(all(&next, "Key"), ["d/2", "e"]);
    let page = list("list-type=2&max-keys=3").await;
    assert_eq!(all(&page, "KeyCount"), ["3"]);
    let token = all(&page, "NextContinuationToken")[0].replace('=', "%3D");
    assert_eq!(
        all(&list(&format!("list-type=2&continuation-token={token}")).await, "Key"),
        ["e"]
    );
    assert_eq!(all(&list("list-type=2&start-after=d/1").await, "Key"), ["d/2", "e"]);
}

#[tokio::test]
async fn the_json_api_refuses_what_it_has_not() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("json", false).unwrap();
    cloud.upload("json", "a", b"hello").await;
    let base = &cloud.cloud.urls().storage;
    let upload = format!("{base}/upload/storage/v1/b/json/o?uploadType=media&name=b");
    let (status, body) = answer(cloud.post(format!("{upload}&predefinedAcl=publicRead")).body("x")).await;
    let words = "Cannot insert legacy ACL for an object when uniform bucket-level access is enabled. Read more at \
                 https://cloud.google.com/storage/docs/uniform-bucket-level-access";
    assert_eq!((status.as_u16(), &body["error"]["message"]), (400, &json!(words)));
    assert_eq!(
        answer(cloud.post(format!("{upload}&kmsKeyName=k")).body("x")).await.0,
        400
    );
    for header in [
        "x-goog-encryption-key",
        "x-goog-encryption-algorithm",
        "x-goog-copy-source-encryption-key",
    ] {
        assert_eq!(
            answer(cloud.post(upload.clone()).header(header, "AES256").body("x"))
                .await
                .0,
            400,
            "{header}"
        );
    }
    let patch = cloud.http.patch(cloud.storage("json/o/a")).bearer_auth(&cloud.token);
    let (status, body) = answer(patch.json(&json!({"customTime": "2026-01-01T00:00:00Z"}))).await;
    assert_eq!(status, 400, "{body}");
    for (path, status) in [
        ("json/o?maxResults=0", 400),
        ("json/o?maxResults=-1", 400),
        ("json/o?softDeleted=true&versions=true", 400),
        ("json/o/%FF", 400),
        ("json/o?prefix=%FF", 400),
        ("", 400),
        ("?project=local-project", 200),
    ] {
        assert_eq!(answer(cloud.get(cloud.storage(path))).await.0, status, "{path}");
    }
    let deleted = ok(cloud.get(cloud.storage("json/o?softDeleted=true"))).await;
    assert_eq!(deleted["items"], Value::Null);
    let run_together = cloud.get(format!("{base}/storage/v1/bjson/o/a"));
    assert_eq!(answer(run_together).await.0, 404);
    let list = ok(cloud.get(cloud.storage("json/o"))).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
}

/// gcloud's `--gzip-in-flight`: the body is compressed, the object is not.
#[tokio::test]
async fn a_body_that_is_compressed_on_its_way_is_stored_plain() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("packed", false).unwrap();
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let base = &cloud.cloud.urls().storage;
    let upload = format!("{base}/upload/storage/v1/b/packed/o?uploadType");
    let media = cloud
        .post(format!("{upload}=media&name=a"))
        .header("content-encoding", "gzip");
    let object = ok(media.body(gzip(b"hello"))).await;
    assert_eq!(
        (&object["size"], &object["contentEncoding"]),
        (&json!("5"), &Value::Null)
    );
    let body = "--b\r\ncontent-type: application/json\r\n\r\n{\"name\":\"c\"}\r\n--b\r\n\r\nhello\r\n--b--\r\n";
    let related = cloud
        .post(format!("{upload}=multipart"))
        .header("content-encoding", "gzip");
    let related = related.header("content-type", "multipart/related; boundary=b");
    assert_eq!(ok(related.body(gzip(body.as_bytes()))).await["size"], "5");
    let broken = cloud
        .post(format!("{upload}=media&name=b"))
        .header("content-encoding", "gzip");
    assert_eq!(answer(broken.body("hello")).await.0, 400);
}

#[tokio::test]
async fn pages_of_versions_are_no_longer_than_asked() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("many", true).unwrap();
    for name in ["a", "b", "b", "b", "c"] {
        cloud.upload("many", name, b"x").await;
    }
    for size in 1..=6 {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let page = cloud.storage(&format!("many/o?versions=true&maxResults={size}{token}"));
            let page = ok(cloud.get(page)).await;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            assert!(items.len() <= size, "{page}");
            found.extend(items.iter().map(|item| item["generation"].as_str().unwrap().to_owned()));
            let Some(next) = page["nextPageToken"].as_str() else {
                break;
            };
            token = format!("&pageToken={}", super::encode(next));
        }
        let mut once = found.clone();
        once.dedup();
        assert_eq!((found.len(), once.len()), (5, 5), "pages of {size}");
    }
}

/// `platen sign --style virtual-hosted` and Python's `virtual_hosted_style` put the bucket before the host that they were given.
#[tokio::test]
async fn a_bucket_is_found_by_the_name_of_the_host() {
    let cloud = Fixture::start().await;
    let base = &cloud.cloud.urls().storage;
    cloud.cloud.create_bucket("by.host", false).unwrap();
    cloud.upload("by.host", "by.host/a", b"hello").await;
    let port = base.rsplit_once(':').unwrap().1;
    let auth = format!("Bearer {}", cloud.token);
    for (host, path) in [
        ("by.host.localhost", "/by.host/a"),
        ("by.host.127.0.0.1", "/by.host/a"),
        ("by.host.storage.googleapis.com", "/by.host/a"),
        ("localhost", "/by.host/by.host/a"),
        ("127.0.0.1", "/by.host/by.host/a"),
    ] {
        let host = format!("{host}:{port}");
        let answer = raw(base, "GET", path, &[("host", &host), ("authorization", &auth)]).await;
        assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()), "{host}");
    }
}

#[tokio::test]
async fn what_google_does_not_take_is_not_taken() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("rules", false).unwrap();
    cloud.upload("rules", "a", b"hello").await;
    let base = &cloud.cloud.urls().storage;
    let object = |metadata: Value| {
        let patch = cloud.http.patch(cloud.storage("rules/o/a")).bearer_auth(&cloud.token);
        answer(patch.json(&metadata))
    };
    assert_eq!(object(json!({"metadata": {"k": "v".repeat(8191)}})).await.0, 200);
    assert_eq!(object(json!({"metadata": {"k": "v".repeat(8192)}})).await.0, 400);
    assert_eq!(object(json!({"metadata": {"other": "v"}})).await.0, 400, "together");
    assert_eq!(object(json!([1])).await.0, 400);
    let there = ok(cloud.get(cloud.storage("rules/o/a"))).await;
    assert_eq!(there["metageneration"], "2", "a refusal changes nothing");
    let session = cloud.post(format!(
        "{base}/upload/storage/v1/b/rules/o?uploadType=resumable&name=b"
    ));
    let begun = session.json(&json!({"storageClass": "GLACIER"})).send().await.unwrap();
    let whole = cloud.http.put(begun.headers()["location"].to_str().unwrap()).body("x");
    assert_eq!(answer(whole).await.0, 400);
    for (name, status) in [
        ("ok", 400),
        ("192.168.5.4", 400),
        ("goog-mine", 400),
        ("my-google-bucket", 400),
        ("two..dots", 400),
        ("-dash", 400),
        (&*"x".repeat(64), 400),
        (&*"x".repeat(63), 200),
        (&*format!("{}.{}", "x".repeat(63), "y".repeat(63)), 200),
        ("a_b-c.d1", 200),
    ] {
        let made = cloud.post(cloud.storage("?project=p")).json(&json!({"name": name}));
        assert_eq!(answer(made).await.0, status, "{name}");
    }
    cloud.cloud.create_topic("events").unwrap();
    let topic = "//pubsub.googleapis.com/projects/local-project/topics/events";
    for (event, status) in [("OBJECT_FINALISE", 400), ("OBJECT_FINALIZE", 200)] {
        let body = json!({"topic": topic, "payload_format": "NONE", "event_types": [event]});
        let made = cloud.post(cloud.storage("rules/notificationConfigs")).json(&body);
        assert_eq!(answer(made).await.0, status, "{event}");
    }
}
