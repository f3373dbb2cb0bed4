//! What makes an object out of others (copy, compose, move) demands the rights that an upload in its place would, and is announced.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{INPUT, OUTPUT, PATIENCE, USER, client, cloud, pull};

#[tokio::test(flavor = "multi_thread")]
async fn whatever_takes_the_place_of_an_object_needs_the_right_to_delete_it() {
    let cloud = cloud().await;
    let worker = cloud.access_token(&cloud.settings().worker_service_account);
    let (http, storage) = (client(), &cloud.urls().storage);
    let multipart = |name: &str| {
        format!("--b\r\ncontent-type: application/json\r\n\r\n{{\"name\": \"{name}\"}}\r\n--b\r\n\r\nx\r\n--b--\r\n")
    };
    let sources = json!({"sourceObjects": [{"name": "there"}]}).to_string();
    let related = "multipart/related; boundary=b";
    let upload = format!("/upload/storage/v1/b/{OUTPUT}/o?uploadType");
    let session = json!({"name": "there"}).to_string();
    let object = format!("/storage/v1/b/{OUTPUT}/o");
    let post = async |path: &str, content_type: &str, body: &str| {
        let request = http.post(format!("{storage}{path}")).bearer_auth(&worker);
        let request = request.header("content-type", content_type).body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    let made = post(&format!("{upload}=multipart"), related, &multipart("there")).await;
    assert_eq!(made, 200);
    assert!(cloud.take_away("worker", "storage.objects.delete", "bucket/output"));
    let over = [
        (format!("{upload}=media&name=there"), "text/plain", "x".to_owned()),
        (format!("{upload}=multipart"), related, multipart("there")),
        (format!("{upload}=resumable"), "application/json", session),
        (format!("{object}/there/compose"), "application/json", sources.clone()),
        (
            format!("{object}/there/rewriteTo/b/{OUTPUT}/o/there"),
            "application/json",
            String::new(),
        ),
        (
            format!("{object}/there/copyTo/b/{OUTPUT}/o/there"),
            "application/json",
            String::new(),
        ),
    ];
    for (path, content_type, body) in &over {
        assert_eq!(post(path, content_type, body).await, 403, "{path}");
    }
    // Beside it, where nothing is, all of them but the last need no more than to create.
    let beside = [
        (format!("{upload}=multipart"), related, multipart("beside")),
        (format!("{object}/composed/compose"), "application/json", sources),
        (
            format!("{object}/there/rewriteTo/b/{OUTPUT}/o/copied"),
            "application/json",
            String::new(),
        ),
    ];
    for (path, content_type, body) in &beside {
        assert_eq!(post(path, content_type, body).await, 200, "{path}");
    }
    let to = format!("{object}/there/moveTo/o/moved");
    assert_eq!(post(&to, "application/json", "").await, 403, "{to}");
    cloud.give("worker", "storage.objects.move", "bucket/output");
    assert_eq!(post(&to, "application/json", "").await, 200, "{to}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_announced_at_both_names() {
    let cloud = cloud().await;
    cloud.create_notification(INPUT, "results").unwrap();
    cloud.give("storage-agent", "pubsub.topics.publish", "topic/results");
    let (http, token) = (client(), cloud.access_token(USER));
    let storage = &cloud.urls().storage;
    let post = async |path: &str| -> Value {
        let answer = http.post(format!("{storage}{path}")).bearer_auth(&token).body("x");
        let answer = answer.header("content-type", "text/plain").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    };
    let made = post(&format!("/upload/storage/v1/b/{INPUT}/o?uploadType=media&name=a")).await;
    let moved = post(&format!("/storage/v1/b/{INPUT}/o/a/moveTo/o/b")).await;
    let mut seen = Vec::new();
    let started = Instant::now();
    while seen.len() < 3 {
        assert!(started.elapsed() < PATIENCE, "{seen:?}");
        let (pubsub, project) = (&cloud.urls().pubsub, &cloud.settings().project);
        if let Some(message) = pull(&http, pubsub, project, &token).await {
            let attribute = |name: &str| message.attributes[name].clone();
            seen.push((
                attribute("eventType"),
                attribute("objectId"),
                attribute("objectGeneration"),
            ));
        }
    }
    seen.sort();
    let expected = |event: &str, object: &Value| {
        let text = |key: &str| object[key].as_str().unwrap().to_owned();
        (event.to_owned(), text("name"), text("generation"))
    };
    let deleted = expected("OBJECT_DELETE", &made);
    assert_eq!(
        seen,
        [
            deleted,
            expected("OBJECT_FINALIZE", &made),
            expected("OBJECT_FINALIZE", &moved)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_made_of_objects_takes_the_right_to_read_them() {
    let cloud = cloud().await;
    let worker = cloud.access_token(&cloud.settings().worker_service_account);
    let (http, storage) = (client(), &cloud.urls().storage);
    let post = async |path: &str, body: &str| {
        let request = http.post(format!("{storage}{path}")).bearer_auth(&worker);
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let upload = format!("/upload/storage/v1/b/{OUTPUT}/o?uploadType=media&name=there");
    assert_eq!(post(&upload, "x").await.0, 200);
    let object = format!("/storage/v1/b/{OUTPUT}/o");
    let sources = json!({"sourceObjects": [{"name": "there"}]}).to_string();
    let made = [
        (format!("{object}/composed/compose"), &*sources),
        (format!("{object}/there/rewriteTo/b/{OUTPUT}/o/rewritten"), ""),
        (format!("{object}/there/copyTo/b/{OUTPUT}/o/copied"), ""),
    ];
    assert!(cloud.take_away("worker", "storage.objects.get", "bucket/output"));
    for (path, body) in &made {
        let (status, said) = post(path, body).await;
        assert_eq!(status, 403, "{path}: {said}");
        assert!(said.contains("storage.objects.get access"), "{path}: {said}");
    }
    cloud.give("worker", "storage.objects.get", "bucket/output");
    for (path, body) in &made {
        assert_eq!(post(path, body).await.0, 200, "{path}");
    }
}
