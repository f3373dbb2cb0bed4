//! Objects: names, generations, preconditions, downloads, lists, notifications.

use std::io::Write;

use chrono::{DateTime, SecondsFormat, TimeDelta};
use flate2::{Compression, write::GzEncoder};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Fixture, answer, ok, raw};

#[tokio::test]
async fn hostile_names_are_objects_of_their_own() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("names", false).unwrap();
    let names = [
        "a/../b",
        "b",
        "a//b",
        "a/b",
        "/a/b",
        "a%2Fb",
        "a%252Fb",
        "./x",
        "x",
        "a b",
        "a+b",
        "ü",
        "u\u{308}",
        "?q=1",
        "#frag",
        "a;b=c",
        "../../etc/passwd",
        "dir/",
        "名前.docx",
        "o/o/o",
        "b/o/b",
    ];
    for name in names {
        cloud.upload("names", name, name.as_bytes()).await;
    }
    let auth = format!("Bearer {}", cloud.token);
    for name in names {
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let target = format!("/storage/v1/b/names/o/{encoded}?alt=media");
        let answer = raw(&cloud.cloud.urls().storage, "GET", &target, &[("authorization", &auth)]).await;
        assert_eq!((answer.status, answer.text()), (200, name.to_owned()));
    }
    let list = ok(cloud.get(cloud.storage("names/o"))).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(names.len()));
    let target = "/storage/v1/b/names/o/a/b";
    let unencoded = raw(&cloud.cloud.urls().storage, "GET", target, &[("authorization", &auth)]).await;
    assert_eq!(unencoded.status, 404, "a slash in a name must be percent-encoded");
}

#[tokio::test]
async fn resource_is_worded_as_googles() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("example-in", false).unwrap();
    let object = cloud.upload("example-in", "None/Care Plus.pdf", b"123456789").await;
    // CRC-32C's own check value, and `echo -n 123456789 | md5sum`.
    assert_eq!(object["crc32c"], "4waSgw==");
    assert_eq!(object["md5Hash"], "JfnnlDI7RTiF9RgfG2JNCw==");
    assert_eq!(object["size"], "9");
    assert_eq!(object["metageneration"], "1");
    assert_eq!(object["kind"], "storage#object");
    assert_eq!(object["storageClass"], "STANDARD");
    let generation = object["generation"].as_str().expect("an int64 is a string");
    assert_eq!(object["id"], format!("example-in/None/Care Plus.pdf/{generation}"));
    let created = DateTime::from_timestamp_micros(generation.parse().unwrap()).unwrap();
    let created = created.to_rfc3339_opts(SecondsFormat::Millis, true);
    assert_eq!(
        object["timeCreated"], created,
        "a generation is a time stamp in microseconds"
    );
    assert!(
        object["selfLink"]
            .as_str()
            .unwrap()
            .ends_with("/storage/v1/b/example-in/o/None%2FCare%20Plus.pdf")
    );
    let media = object["mediaLink"].as_str().unwrap().to_owned();
    assert!(
        media.ends_with(&format!("?generation={generation}&alt=media")),
        "{media}"
    );
    assert_eq!(
        cloud.get(media).send().await.unwrap().text().await.unwrap(),
        "123456789"
    );
}

#[tokio::test]
async fn generations_rise_though_the_clock_falls_and_old_ones_are_gone() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("plain", false).unwrap();
    cloud.cloud.create_bucket("kept", true).unwrap();
    for (bucket, kept) in [("plain", false), ("kept", true)] {
        let first = cloud.upload(bucket, "a", b"first").await;
        cloud.cloud.clock().advance(TimeDelta::seconds(-5));
        let second = cloud.upload(bucket, "a", b"second").await;
        let number = |object: &Value| object["generation"].as_str().unwrap().parse::<i64>().unwrap();
        assert!(number(&second) > number(&first));
        let url = cloud.storage(&format!("{bucket}/o/a?alt=media&generation={}", number(&first)));
        let (status, _) = answer(cloud.get(url)).await;
        assert_eq!(status, if kept { 200 } else { 404 });
        let versions = ok(cloud.get(cloud.storage(&format!("{bucket}/o?versions=true")))).await;
        assert_eq!(
            versions["items"].as_array().map(Vec::len),
            Some(if kept { 2 } else { 1 })
        );
        assert_eq!(versions["items"][0]["timeDeleted"].is_string(), kept);
        let live = ok(cloud.get(cloud.storage(&format!("{bucket}/o")))).await;
        assert_eq!(live["items"].as_array().map(Vec::len), Some(1));
        let deleted = cloud
            .http
            .delete(cloud.storage(&format!("{bucket}/o/a")))
            .bearer_auth(&cloud.token);
        assert_eq!(answer(deleted).await.0, 204);
        assert_eq!(answer(cloud.get(cloud.storage(&format!("{bucket}/o/a")))).await.0, 404);
    }
}

#[tokio::test]
async fn preconditions_hold_on_every_verb() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("when", false).unwrap();
    let object = cloud.upload("when", "there", b"x").await;
    let generation = object["generation"].as_str().unwrap();
    let send = async |method: &str, name: &str, condition: &str| {
        let base = &cloud.cloud.urls().storage;
        let request = match method {
            "INSERT" => cloud.post(format!(
                "{base}/upload/storage/v1/b/when/o?uploadType=media&name={name}&{condition}"
            )),
            "DOWNLOAD" => cloud.get(cloud.storage(&format!("when/o/{name}?alt=media&{condition}"))),
            method => {
                let url = cloud.storage(&format!("when/o/{name}?{condition}"));
                cloud
                    .http
                    .request(method.parse().unwrap(), url)
                    .bearer_auth(&cloud.token)
                    .body("{}")
            }
        };
        answer(request).await.0.as_u16()
    };
    for verb in ["GET", "DOWNLOAD", "PATCH", "DELETE", "INSERT"] {
        for condition in ["ifGenerationMatch=1", "ifMetagenerationMatch=7", "ifGenerationMatch=0"] {
            assert_eq!(send(verb, "there", condition).await, 412, "{verb} {condition}");
        }
        let same = if ["GET", "DOWNLOAD"].contains(&verb) { 304 } else { 412 };
        assert_eq!(
            send(verb, "there", &format!("ifGenerationNotMatch={generation}")).await,
            same,
            "{verb}"
        );
        assert_eq!(send(verb, "there", "ifMetagenerationNotMatch=1").await, same, "{verb}");
        assert_eq!(send(verb, "there", "ifGenerationMatch=many").await, 400, "{verb}");
    }
    assert_eq!(
        send(
            "GET",
            "there",
            &format!("ifGenerationMatch={generation}&ifMetagenerationMatch=1")
        )
        .await,
        200
    );
    assert_eq!(send("GET", "there", "ifGenerationNotMatch=1").await, 200);
    for verb in ["GET", "DOWNLOAD", "PATCH", "DELETE"] {
        assert_eq!(send(verb, "absent", "ifGenerationMatch=1").await, 404, "{verb}");
    }
    assert_eq!(send("INSERT", "absent", "ifGenerationMatch=1").await, 412);
    assert_eq!(send("INSERT", "absent", "ifGenerationNotMatch=0").await, 412);
    assert_eq!(send("INSERT", "absent", "ifGenerationMatch=0").await, 200);
    assert_eq!(
        send("INSERT", "absent", "ifGenerationMatch=0").await,
        412,
        "the first insert made it"
    );
    assert_eq!(send("PATCH", "there", "ifMetagenerationMatch=1").await, 200);
    assert_eq!(
        send("PATCH", "there", "ifMetagenerationMatch=1").await,
        412,
        "the first patch raised it"
    );
    assert_eq!(
        send("DELETE", "there", &format!("ifGenerationMatch={generation}")).await,
        204
    );
}

#[tokio::test]
async fn ranges_and_hashes_come_with_downloads() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("bytes", false).unwrap();
    let object = cloud.upload("bytes", "digits", b"0123456789").await;
    let url = cloud.storage("bytes/o/digits?alt=media");
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=8-99", 206, "89", Some("bytes 8-9/10")),
        ("bytes=4-2", 200, "0123456789", None),
        ("lines=1-2", 200, "0123456789", None),
    ] {
        let answer = cloud.get(url.clone()).header("range", range).send().await.unwrap();
        assert_eq!(answer.status(), status, "{range}");
        let header = answer
            .headers()
            .get("content-range")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header.as_deref(), content_range, "{range}");
        let hash = format!(
            "crc32c={},md5={}",
            object["crc32c"].as_str().unwrap(),
            object["md5Hash"].as_str().unwrap()
        );
        assert_eq!(answer.headers()["x-goog-hash"], hash);
        assert_eq!(
            answer.headers()["x-goog-generation"],
            object["generation"].as_str().unwrap()
        );
        assert_eq!(answer.headers()["x-goog-stored-content-length"], "10");
        assert_eq!(answer.text().await.unwrap(), body, "{range}");
    }
    let beyond = cloud.get(url).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
    let direct = format!("{}/download/storage/v1/b/bytes/o/digits", cloud.cloud.urls().storage);
    assert_eq!(
        cloud.get(direct).send().await.unwrap().text().await.unwrap(),
        "0123456789"
    );
}

#[tokio::test]
async fn gzip_is_taken_off_unless_it_is_accepted() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("packed", false).unwrap();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(b"plain text").unwrap();
    let packed = encoder.finish().unwrap();
    cloud.upload("packed", "a", &packed).await;
    let patch = cloud.http.patch(cloud.storage("packed/o/a")).bearer_auth(&cloud.token);
    ok(patch.json(&json!({"contentEncoding": "gzip"}))).await;
    let url = cloud.storage("packed/o/a?alt=media");
    let stored = cloud
        .get(url.clone())
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(stored.headers()["content-encoding"], "gzip");
    assert_eq!(stored.bytes().await.unwrap(), packed);
    for encoding in ["identity", "gzip;q=0", "br"] {
        let plain = cloud
            .get(url.clone())
            .header("accept-encoding", encoding)
            .header("range", "bytes=0-1");
        let plain = plain.send().await.unwrap();
        assert_eq!(plain.status(), 200, "a range of a transcoded object is ignored");
        assert!(plain.headers().get("content-encoding").is_none());
        assert!(plain.headers().get("content-length").is_none());
        assert_eq!(plain.headers()["x-goog-stored-content-encoding"], "gzip");
        assert_eq!(
            plain.headers()["x-goog-stored-content-length"],
            packed.len().to_string()
        );
        assert_eq!(plain.text().await.unwrap(), "plain text", "{encoding}");
    }
}

#[tokio::test]
async fn a_patch_merges_and_null_takes_away() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("meta", false).unwrap();
    cloud.upload("meta", "a", b"x").await;
    let patch = async |body: Value| {
        ok(cloud
            .http
            .patch(cloud.storage("meta/o/a"))
            .bearer_auth(&cloud.token)
            .json(&body))
        .await
    };
    patch(json!({"metadata": {"one": "1", "two": "2"}, "contentDisposition": "inline"})).await;
    let object = patch(json!({"metadata": {"one": null, "three": "3"}, "contentType": null})).await;
    assert_eq!(object["metadata"], json!({"two": "2", "three": "3"}));
    assert_eq!(object["contentDisposition"], "inline");
    assert_eq!(object["contentType"], Value::Null);
    assert_eq!(object["metageneration"], "3");
}

#[tokio::test]
async fn lists_fold_prefixes_and_page_through_everything() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("list", false).unwrap();
    for name in ["a/1", "a/2", "a/b/3", "b", "c/4", "é"] {
        cloud.upload("list", name, b"x").await;
    }
    for size in [1_usize, 2, 3, 100] {
        let (mut names, mut prefixes, mut token) = (Vec::new(), Vec::new(), None::<String>);
        loop {
            let mut url = cloud.storage(&format!("list/o?delimiter=/&maxResults={size}"));
            if let Some(token) = &token {
                url.push_str(&format!("&pageToken={}", utf8_percent_encode(token, NON_ALPHANUMERIC)));
            }
            let page = ok(cloud.get(url)).await;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            let folded = page["prefixes"].as_array().cloned().unwrap_or_default();
            assert!(items.len() + folded.len() <= size, "{page}");
            names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            prefixes.extend(folded.iter().map(|prefix| prefix.as_str().unwrap().to_owned()));
            token = page["nextPageToken"].as_str().map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        assert_eq!(names, ["b", "é"], "pages of {size}");
        assert_eq!(prefixes, ["a/", "c/"], "pages of {size}");
    }
    let under = ok(cloud.get(cloud.storage("list/o?prefix=a/&delimiter=/"))).await;
    assert_eq!(under["prefixes"], json!(["a/b/"]));
    assert_eq!(under["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn errors_are_worded_as_googles() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("errors", false).unwrap();
    let (status, body) = answer(cloud.get(cloud.storage("errors/o/gone"))).await;
    assert_eq!(status, 404);
    let message = "No such object: errors/gone";
    assert_eq!(
        body,
        json!({"error": {"code": 404, "message": message,
            "errors": [{"message": message, "domain": "global", "reason": "notFound"}]}})
    );
    let media = cloud
        .get(cloud.storage("errors/o/gone?alt=media"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        media.text().await.unwrap(),
        message,
        "the download service answers a bare sentence"
    );
    let (status, body) = answer(cloud.get(cloud.storage("no-such-bucket/o/gone"))).await;
    assert_eq!(
        (status, &body["error"]["message"]),
        (StatusCode::NOT_FOUND, &json!("The specified bucket does not exist."))
    );
    let anonymous = cloud.http.get(cloud.storage("errors/o/gone")).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
    assert!(anonymous.headers().contains_key("www-authenticate"));
    cloud.cloud.clock().advance(TimeDelta::hours(2));
    let (status, body) = answer(cloud.get(cloud.storage("errors/o/gone"))).await;
    assert_eq!(
        (status, &body["error"]["message"]),
        (StatusCode::UNAUTHORIZED, &json!("Invalid Credentials"))
    );
    let buckets = format!("{}/storage/v1/b?project=p", cloud.cloud.urls().storage);
    let token = cloud.cloud.access_token("x@y");
    for (name, status) in [("errors", 409), ("Capital", 400), ("new-one", 200)] {
        let request = cloud
            .http
            .post(&buckets)
            .bearer_auth(&token)
            .json(&json!({"name": name}));
        assert_eq!(answer(request).await.0, status, "{name}");
    }
}

#[tokio::test]
async fn changes_are_published_with_googles_attributes_and_payload() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("watched", false).unwrap();
    cloud.cloud.create_topic("events").unwrap();
    let pulled = platen::local_cloud::Subscription {
        name: "pull",
        topic: "events",
        ..Default::default()
    };
    cloud.cloud.create_subscription(&pulled).unwrap();
    let id = cloud.cloud.create_notification("watched", "events").unwrap();
    let first = cloud.upload("watched", "ü/a b.docx", b"one").await;
    let second = cloud.upload("watched", "ü/a b.docx", b"two").await;
    let url = cloud.storage("watched/o/%C3%BC%2Fa%20b.docx");
    ok(cloud
        .http
        .patch(url.clone())
        .bearer_auth(&cloud.token)
        .json(&json!({"metadata": {"k": "v"}})))
    .await;
    cloud.http.delete(url).bearer_auth(&cloud.token).send().await.unwrap();
    let pull = cloud
        .post(cloud.pubsub("subscriptions/pull:pull"))
        .json(&json!({"maxMessages": 10}));
    let messages = ok(pull).await["receivedMessages"].as_array().cloned().unwrap();
    let attributes: Vec<&Value> = messages
        .iter()
        .map(|message| &message["message"]["attributes"])
        .collect();
    let events: Vec<&str> = attributes
        .iter()
        .map(|attributes| attributes["eventType"].as_str().unwrap())
        .collect();
    assert_eq!(
        events,
        [
            "OBJECT_FINALIZE",
            "OBJECT_FINALIZE",
            "OBJECT_DELETE",
            "OBJECT_METADATA_UPDATE",
            "OBJECT_DELETE"
        ]
    );
    let (old, new) = (&first["generation"], &second["generation"]);
    assert_eq!(
        (
            &attributes[0]["objectGeneration"],
            &attributes[0]["overwroteGeneration"]
        ),
        (old, &Value::Null)
    );
    assert_eq!(
        (
            &attributes[1]["objectGeneration"],
            &attributes[1]["overwroteGeneration"]
        ),
        (new, old)
    );
    assert_eq!(
        (
            &attributes[2]["objectGeneration"],
            &attributes[2]["overwrittenByGeneration"]
        ),
        (old, new)
    );
    assert_eq!(attributes[4]["overwrittenByGeneration"], Value::Null);
    assert_eq!(attributes[0]["bucketId"], "watched");
    assert_eq!(attributes[0]["objectId"], "ü/a b.docx");
    assert_eq!(attributes[0]["payloadFormat"], "JSON_API_V1");
    assert_eq!(
        attributes[0]["notificationConfig"],
        format!("projects/_/buckets/watched/notificationConfigs/{id}")
    );
    let time = attributes[0]["eventTime"].as_str().unwrap();
    assert_eq!(time.len(), "2025-01-08T17:56:06.952527Z".len(), "microseconds: {time}");
    let data = messages[0]["message"]["data"].as_str().unwrap();
    let payload = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    assert!(
        payload.starts_with(b"{\n  \"kind\": \"storage#object\",\n"),
        "pretty-printed, in Google's order"
    );
    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), first);
    let bad = cloud.post(cloud.storage("watched/notificationConfigs"));
    let bad = bad.json(&json!({"topic": "//pubsub.googleapis.com/projects/p/topics/none", "payload_format": "NONE"}));
    assert_eq!(answer(bad).await.0, 400);
}
