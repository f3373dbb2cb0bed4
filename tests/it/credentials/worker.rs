//! The worker with credentials from files: whole jobs, signatures included, where no metadata server is.

use platen::local_cloud::{AccountRole, LocalCloud};
use serde_json::{Value, json};

use super::{CALLER, File, SUBJECT, USER, federation, impersonation_url, principal, provider};
use crate::harness::{World, cloud};

/// Converts one document with these credentials and no `SIGNER_SERVICE_ACCOUNT`.
async fn convert(cloud: LocalCloud, credentials: &Value) -> World {
    let file = File::new(credentials);
    let (iam, sts) = (cloud.urls().iam.clone(), cloud.urls().sts.clone());
    let mut world = World::beside(
        cloud,
        &[
            ("GOOGLE_APPLICATION_CREDENTIALS", &file.path()),
            ("OAUTH_TOKEN_ENDPOINT", &iam),
            ("STS_ENDPOINT", &sts),
            // Nobody answers there: no other credentials can be what works.
            ("GCE_METADATA_HOST", "127.0.0.1:9"),
            ("GOOGLE_CLOUD_PROJECT", "local-project"),
            ("SIGNER_SERVICE_ACCOUNT", ""),
        ],
    );
    world.worker.ready().await;
    world.notify();
    world.upload_fixture("documents/plain/readme.txt", "readme.txt").await;
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{}", world.worker.log());
    let url = result["outputs"][0]["signedUrl"].as_str().unwrap();
    assert!(url.contains(&CALLER.replace('@', "%40")), "signed by {CALLER}");
    let answer = world.download(url).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.unwrap().starts_with(b"%PDF-"));
    for secret in ["ya29.", "eyJ", "GOCSPX", "1//"] {
        assert!(!world.worker.log().contains(secret), "{secret}: {}", world.worker.log());
    }
    world
}

#[tokio::test]
async fn it_signs_along_the_delegates_of_its_impersonation() {
    let cloud = cloud().await;
    let middle = "middle@local-project.iam.gserviceaccount.com";
    for account in [middle, CALLER] {
        cloud.create_service_account(account);
    }
    cloud.allow_token_creator(USER, middle);
    cloud.allow_token_creator(middle, CALLER);
    let credentials = json!({
        "type": "impersonated_service_account", "delegates": [middle], "source_credentials": cloud.log_in(USER),
        "service_account_impersonation_url": impersonation_url(CALLER),
    });
    convert(cloud, &credentials).await;
}

#[tokio::test]
async fn a_federated_worker_signs_as_its_account() {
    let cloud = cloud().await;
    cloud.create_service_account(CALLER);
    cloud.federate(&provider()).unwrap();
    cloud.grant(&principal(), CALLER, AccountRole::WorkloadIdentityUser);
    cloud.allow_token_creator(CALLER, CALLER);
    let subject = File::text(&cloud.token_of_provider(&provider(), SUBJECT));
    let credentials = federation(&json!({"file": subject.path()}), Some(CALLER));
    let world = convert(cloud, &credentials).await;

    // Tokens that are revoked are asked for anew, the whole way back to the exchange.
    world.cloud.revoke_access_tokens();
    world.upload_fixture("documents/plain/readme.txt", "again.txt").await;
    assert_eq!(
        world.result().await.data["status"],
        "succeeded",
        "{}",
        world.worker.log()
    );
}
