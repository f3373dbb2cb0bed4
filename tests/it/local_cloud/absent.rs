//! What is answered about objects that are not there.

use crate::harness::{OUTPUT, USER, client, cloud, upload_to};

/// Google's 404 is for those who may list the bucket: the worker may not, and has to understand the other answer.
#[tokio::test]
async fn whoever_may_not_list_is_not_told_that_an_object_is_absent() {
    let cloud = cloud().await;
    let (worker, signer) = (
        cloud.settings().worker_service_account.clone(),
        cloud.settings().signer_service_account.clone(),
    );
    let storage = cloud.urls().storage.clone();
    upload_to(&cloud, OUTPUT, "there", b"text".to_vec()).await;
    let get = async |account: &str, path: &str| {
        let request = client()
            .get(format!("{storage}{path}"))
            .bearer_auth(cloud.access_token(account));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for (account, path) in [
        (&worker, format!("/storage/v1/b/{OUTPUT}/o/none")),
        (&worker, format!("/storage/v1/b/{OUTPUT}/o/none?alt=media")),
        (&worker, format!("/storage/v1/b/{OUTPUT}/o/there?generation=1")),
        (&worker, format!("/download/storage/v1/b/{OUTPUT}/o/none?alt=media")),
        (&signer, format!("/{OUTPUT}/none")),
    ] {
        let (status, body) = get(account, &path).await;
        assert_eq!(status, 403, "{path}: {body}");
        let words = format!("{account} does not have storage.objects.list access to the Google Cloud Storage bucket.");
        assert!(body.contains(&words), "{path}: {body}");
        let (status, body) = get(USER, &path).await;
        assert_eq!(status, 404, "{path}: {body}");
        cloud.give("worker", "storage.objects.list", "bucket/output");
        cloud.give("signer", "storage.objects.list", "bucket/output");
        assert_eq!(get(account, &path).await.0, 404, "{path}");
        assert!(cloud.take_away("worker", "storage.objects.list", "bucket/output"));
        assert!(cloud.take_away("signer", "storage.objects.list", "bucket/output"));
    }
    let (status, _) = get(&worker, "/storage/v1/b/nowhere/o/none").await;
    assert_eq!(status, 404, "that a bucket is not there anybody may know");
}
