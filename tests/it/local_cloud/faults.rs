//! Scripted failures: each does what it says, as often as it says, to whom it says.

use std::time::Duration;

use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::json;

use super::{Fixture, ok};

fn fault(effect: Effect) -> Fault {
    Fault {
        peer: None,
        method: None,
        path_prefix: String::new(),
        skip: 0,
        count: 1,
        effect,
    }
}

async fn with_object(content: &[u8]) -> (Fixture, String) {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("faults", false).unwrap();
    cloud.upload("faults", "a", content).await;
    let url = cloud.storage("faults/o/a?alt=media");
    (cloud, url)
}

#[tokio::test]
async fn status_hits_only_whom_it_is_for_and_only_so_often() {
    let (cloud, url) = with_object(b"x").await;
    let rule = json!({"method": "GET", "pathPrefix": "/storage/v1/b/faults/o", "skip": 1, "count": 2,
        "effect": {"status": 503, "retryAfter": 7}});
    let faults = format!("{}/_faults", cloud.cloud.urls().storage);
    let posted = cloud.http.post(&faults).json(&rule).send().await.unwrap();
    assert_eq!(posted.status(), 200, "{}", posted.text().await.unwrap());
    assert_eq!(
        cloud
            .http
            .get(cloud.cloud.urls().jwks.clone())
            .send()
            .await
            .unwrap()
            .status(),
        200,
        "another peer"
    );
    ok(cloud.get(cloud.storage("faults"))).await;
    cloud.upload("faults", "b", b"another method").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let answer = cloud.get(url.clone()).send().await.unwrap();
        seen.push((answer.status().as_u16(), answer.headers().contains_key("retry-after")));
    }
    assert_eq!(seen, [(200, false), (503, true), (503, true), (200, false)]);
    for bad in [
        json!({"effect": {"explode": true}}),
        json!({"effect": {"status": 503}, "pathprefix": "/"}),
        json!({}),
    ] {
        assert_eq!(
            cloud.http.post(&faults).json(&bad).send().await.unwrap().status(),
            400,
            "{bad}"
        );
    }
    cloud.cloud.add_fault(fault(Effect::Status {
        status: 500,
        retry_after: None,
    }));
    assert_eq!(cloud.http.delete(&faults).send().await.unwrap().status(), 200);
    assert_eq!(cloud.get(url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn bodies_are_cut_stalled_and_corrupted_under_true_headers() {
    let content = vec![b'a'; 100_000];
    let (cloud, url) = with_object(&content).await;
    cloud.cloud.add_fault(fault(Effect::Cut { cut_after: 70_000 }));
    let mut answer = cloud.get(url.clone()).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.content_length()),
        (200, Some(100_000))
    );
    let mut received = 0;
    let error = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => received += chunk.len(),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(error.is_some(), "the end came after {received} bytes without an error");
    assert_eq!(received, 70_000);
    cloud.cloud.add_fault(fault(Effect::Stall { stall_after: 70_000 }));
    let mut answer = cloud.get(url.clone()).send().await.unwrap();
    let mut received = 0;
    while received < 70_000 {
        received += answer
            .chunk()
            .await
            .unwrap()
            .expect("what comes before the stall")
            .len();
    }
    let more = tokio::time::timeout(Duration::from_millis(50), answer.chunk()).await;
    assert!(more.is_err(), "a stalled body sends nothing more and does not end");
    cloud.cloud.add_fault(fault(Effect::Corrupt { corrupt: true }));
    let answer = cloud.get(url.clone()).send().await.unwrap();
    let hash = answer.headers()["x-goog-hash"].clone();
    let bytes = answer.bytes().await.unwrap();
    assert_eq!(bytes.iter().zip(&content).filter(|(got, sent)| got != sent).count(), 1);
    let good = cloud.get(url).send().await.unwrap();
    assert_eq!(good.headers()["x-goog-hash"], hash, "the header still tells the truth");
    assert_eq!(good.bytes().await.unwrap(), content);
}

#[tokio::test]
async fn resets_come_before_the_work_and_lost_answers_after_it() {
    let (cloud, _) = with_object(b"x").await;
    let insert = async |name: &str| {
        let url = format!(
            "{}/upload/storage/v1/b/faults/o?uploadType=media&name={name}",
            cloud.cloud.urls().storage
        );
        cloud.post(url).body("y").send().await
    };
    for (name, effect, stored) in [
        ("reset", Effect::Reset { reset: true }, false),
        ("lost", Effect::LoseAnswer { lose_answer: true }, true),
    ] {
        let rule = Fault {
            peer: Some(Peer::Storage),
            method: Some("POST".to_owned()),
            ..fault(effect)
        };
        cloud.cloud.add_fault(rule);
        let error = insert(name).await.expect_err("no answer arrives");
        let text = format!("{error:?}");
        assert!(
            text.contains("ConnectionReset"),
            "a reset, not an orderly close: {text}"
        );
        let there = cloud
            .get(cloud.storage(&format!("faults/o/{name}")))
            .send()
            .await
            .unwrap()
            .status();
        assert_eq!(there == 200, stored, "{name}");
    }
}

#[tokio::test]
async fn silence_holds_until_the_cloud_ends() {
    let (cloud, url) = with_object(b"x").await;
    cloud.cloud.add_fault(fault(Effect::Silence { silence: true }));
    let request = cloud.get(url).timeout(Duration::from_secs(60));
    let mut pending = std::pin::pin!(request.send());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut pending)
            .await
            .is_err()
    );
    let Fixture { cloud, .. } = cloud;
    let storage = cloud.urls().storage.clone();
    drop(cloud);
    let status = pending.await.map(|answer| answer.status().as_u16());
    assert!(
        matches!(status, Ok(503) | Err(_)),
        "the shutdown ends the request: {status:?}"
    );
    while reqwest::get(format!("{storage}/")).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dripping_body_comes_whole_in_pieces() {
    let content: Vec<u8> = (0..=255).collect();
    let (cloud, url) = with_object(&content).await;
    cloud.cloud.add_fault(fault(Effect::Drip {
        drip_bytes: 100,
        every_milliseconds: 20,
    }));
    let mut answer = cloud.get(url).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(256));
    let mut pieces = Vec::new();
    while let Some(piece) = answer.chunk().await.unwrap() {
        pieces.push(piece);
    }
    assert!(pieces.len() > 1, "all at once");
    assert_eq!(pieces.concat(), content);
}

#[tokio::test]
async fn a_cut_request_is_not_done() {
    let (cloud, _) = with_object(b"x").await;
    cloud.cloud.add_fault(Fault {
        method: Some("POST".to_owned()),
        ..fault(Effect::CutRequest {
            cut_request_after: 1000,
        })
    });
    let url = format!(
        "{}/upload/storage/v1/b/faults/o?uploadType=media&name=cut",
        cloud.cloud.urls().storage
    );
    // More than the sockets' buffers hold: the client is still writing when the reset comes.
    let error = cloud.post(url).body(vec![b'a'; 64 << 20]).send().await;
    let text = format!("{:?}", error.expect_err("no answer arrives"));
    assert!(
        text.contains("ConnectionReset") || text.contains("BrokenPipe"),
        "a reset in the middle of the body: {text}"
    );
    let there = cloud.get(cloud.storage("faults/o/cut")).send().await.unwrap();
    assert_eq!(there.status(), 404);
}

#[tokio::test]
async fn chance_is_the_same_for_the_same_seed_and_never_used_up() {
    let rule = |seed: u64| {
        json!({"count": null, "effect": {"probability": 0.2, "seed": seed,
            "oneOf": [{"status": 500}, {"status": 429}]}})
    };
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let (cloud, url) = with_object(b"x").await;
        let faults = format!("{}/_faults", cloud.cloud.urls().storage);
        ok_text(cloud.http.post(&faults).json(&rule(seed))).await;
        let mut statuses = Vec::new();
        for _ in 0..200 {
            statuses.push(cloud.get(url.clone()).send().await.unwrap().status().as_u16());
        }
        let hits = cloud.cloud.fault_hits();
        let failed = statuses.iter().filter(|status| **status != 200).count();
        assert_eq!(hits[&(Peer::Storage, "status")], failed as u64);
        assert!((20..=60).contains(&failed), "{failed} of 200 at a probability of 0.2");
        assert!(statuses.contains(&500) && statuses.contains(&429));
        let listed = ok_text(cloud.http.get(&faults)).await;
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&listed).unwrap()[0]["count"],
            json!(null)
        );
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn a_rule_that_chance_spares_leaves_the_request_to_the_next() {
    let (cloud, url) = with_object(b"x").await;
    cloud.cloud.add_fault(fault(Effect::Chance {
        probability: 0.0,
        seed: 1,
        one_of: vec![Effect::Reset { reset: true }],
    }));
    cloud.cloud.add_fault(fault(Effect::Status {
        status: 418,
        retry_after: None,
    }));
    assert_eq!(cloud.get(url.clone()).send().await.unwrap().status(), 418);
    assert_eq!(cloud.get(url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_rule_for_every_peer_hits_every_one() {
    let (cloud, url) = with_object(b"x").await;
    let faults = format!("{}/_faults", cloud.cloud.urls().kms);
    ok_text(
        cloud
            .http
            .post(&faults)
            .json(&json!({"peer": null, "count": 2, "effect": {"status": 502}})),
    )
    .await;
    assert_eq!(cloud.get(url).send().await.unwrap().status(), 502);
    let keys = cloud.http.get(cloud.cloud.urls().jwks.clone()).send().await.unwrap();
    assert_eq!(keys.status(), 502);
    for bad in [
        json!({"effect": {"probability": 1.5, "seed": 1, "oneOf": [{"reset": true}]}}),
        json!({"effect": {"probability": 0.5, "seed": 1, "oneOf": []}}),
        json!({"effect": {"probability": 0.5, "seed": 1, "oneOf": [
            {"probability": 0.5, "seed": 1, "oneOf": [{"reset": true}]}]}}),
        json!({"effect": {"dripBytes": 0, "everyMilliseconds": 1}}),
    ] {
        assert_eq!(
            cloud.http.post(&faults).json(&bad).send().await.unwrap().status(),
            400,
            "{bad}"
        );
    }
}

async fn ok_text(request: reqwest::RequestBuilder) -> String {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    text
}
