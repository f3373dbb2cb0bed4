//! Requests that are made to be too much: each is refused or done, and the cloud goes on.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt;
use serde_json::json;

use super::{Fixture, answer, ok};

/// Reading and freeing what is nested costs stack.
#[tokio::test(flavor = "multi_thread")]
async fn a_mask_of_thousands_of_levels_is_refused() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("masks", false).unwrap();
    let bucket = async |fields: &str| {
        let answer = cloud.get(cloud.storage(&format!("masks?fields={fields}"))).send().await;
        answer.unwrap().status().as_u16()
    };
    for mask in [
        "a/".repeat(20_000) + "a",
        "a(".repeat(15_000) + "a" + &")".repeat(15_000),
    ] {
        assert_eq!(bucket(&mask).await, 400);
    }
    assert_eq!(
        bucket("iamConfiguration(uniformBucketLevelAccess/enabled),name").await,
        200
    );
}

/// A few kilobytes that unpack to more than anybody has memory for: they are unpacked as far as they are read.
#[tokio::test(flavor = "multi_thread")]
async fn what_unpacks_to_too_much_is_unpacked_as_it_is_read() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("packed", false).unwrap();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0_u8; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&zeros).unwrap();
    }
    // gzip's members follow one another: 64 GiB in 64 MB.
    let bomb = encoder.finish().unwrap().repeat(1024);
    let base = &cloud.cloud.urls().storage;
    let upload = format!("{base}/upload/storage/v1/b/packed/o?uploadType=media&name=bomb&contentEncoding=gzip");
    ok(cloud.post(upload).body(bomb)).await;
    let answer = cloud
        .get(cloud.storage("packed/o/bomb?alt=media"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let mut pieces = answer.bytes_stream();
    let mut read = 0;
    while read < 4 << 20 {
        read += pieces.next().await.expect("more than is read").unwrap().len();
    }
    drop(pieces);
    assert_eq!(cloud.get(cloud.storage("packed")).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_do_not_grow_beyond_what_is_held() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("parts", false).unwrap();
    cloud.upload("parts", "p0", &vec![b'x'; 5 << 20]).await;
    let compose = async |source: &str, target: &str| {
        let sources: Vec<_> = (0..32).map(|_| json!({"name": source})).collect();
        let request = cloud.post(cloud.storage(&format!("parts/o/{target}/compose")));
        answer(request.json(&json!({"sourceObjects": sources}))).await
    };
    assert_eq!(compose("p0", "p1").await.0, 200);
    let (status, body) = compose("p1", "p2").await;
    assert_eq!(status, 400, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("larger"), "{body}");
    cloud.upload("parts", "e0", b"").await;
    for round in 0..8 {
        let (status, body) = compose(&format!("e{round}"), &format!("e{}", round + 1)).await;
        assert_eq!(status, 200, "{round}: {body}");
    }
}

#[tokio::test]
async fn a_pattern_of_too_many_parts_is_refused() {
    let cloud = Fixture::start().await;
    cloud.cloud.create_bucket("globs", false).unwrap();
    cloud.upload("globs", &"a".repeat(1000), b"x").await;
    let pattern = "*a".repeat(15_000);
    let list = cloud.get(cloud.storage(&format!("globs/o?matchGlob={pattern}")));
    assert_eq!(answer(list).await.0, 400);
}
