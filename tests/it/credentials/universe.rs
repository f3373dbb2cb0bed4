//! Clouds that partners run: other domains, and service accounts that sign their own tokens.

use platen::config::CloudConfig;
use platen::google::token::Settings;
use platen::local_cloud::{self, LocalCloud};
use serde_json::json;

use super::{CALLER, File, claims, cloud, line, platen, settings, tokens};
use crate::peer::{Peer, Reply};

const UNIVERSE: &str = "apis-berlin.example";

#[tokio::test]
async fn a_key_file_of_another_universe_signs_its_own_access_token() {
    let cloud = cloud().await;
    let nobody = Peer::replies(vec![Reply::status(500)]);
    let mut content = cloud.create_key_file(CALLER).unwrap();
    content["universe_domain"] = json!(UNIVERSE);
    content["token_uri"] = json!(format!("{}/token", nobody.url));
    let file = File::new(&content);
    let tokens = file.tokens(&cloud).await;
    assert_eq!(tokens.universe_domain().await.unwrap(), UNIVERSE);
    let token = tokens.access_token().await.unwrap();
    let said = claims(token.expose());
    assert_eq!((&said["iss"], &said["sub"]), (&json!(CALLER), &json!(CALLER)));
    assert_eq!(said["scope"], "https://www.googleapis.com/auth/cloud-platform");
    assert_eq!(said["aud"], json!(null), "good for every API");
    assert_eq!(
        cloud.caller(token.expose()).as_deref(),
        Some(CALLER),
        "the signature holds"
    );
    assert_eq!(nobody.requests().len(), 0, "there is no exchange in other universes");

    // Its ID token then comes from IAM, where the account has to be allowed to act as itself.
    let arguments = ["token", "--audience", "https://s", "--include-email"];
    assert_eq!(
        platen(&arguments, &file.environment(&cloud)).await.status.code(),
        Some(1)
    );
    cloud.allow_token_creator(CALLER, CALLER);
    let token = claims(&line(&platen(&arguments, &file.environment(&cloud)).await));
    assert_eq!((&token["aud"], &token["email"]), (&json!("https://s"), &json!(CALLER)));
    assert_eq!(nobody.requests().len(), 0);
}

#[tokio::test]
async fn the_metadata_server_says_which_universe_it_is_in() {
    let cloud = LocalCloud::start(local_cloud::Settings {
        universe_domain: UNIVERSE.to_owned(),
        ..local_cloud::Settings::default()
    })
    .await
    .unwrap();
    let tokens = tokens(&Settings {
        metadata_host: Some(cloud.urls().metadata.clone()),
        ..settings(&cloud)
    })
    .await;
    assert_eq!(tokens.universe_domain().await.unwrap(), UNIVERSE);
}

#[test]
fn googles_own_hosts_follow_and_what_was_named_stays() {
    let strings =
        std::collections::HashMap::from([("IAM_CREDENTIALS_ENDPOINT".to_owned(), "https://iam.private".to_owned())]);
    let endpoints = CloudConfig::load(&strings).unwrap().endpoints.in_universe(UNIVERSE);
    assert_eq!(endpoints.storage, "https://storage.apis-berlin.example");
    assert_eq!(endpoints.pubsub, "https://pubsub.apis-berlin.example");
    assert_eq!(endpoints.iam_credentials, "https://iam.private");
    let endpoints = CloudConfig::load(&std::collections::HashMap::new()).unwrap().endpoints;
    assert_eq!(
        endpoints.clone().in_universe("googleapis.com").storage,
        endpoints.storage
    );
    assert_eq!(
        endpoints.in_universe(UNIVERSE).iam_credentials,
        "https://iamcredentials.apis-berlin.example"
    );
}
