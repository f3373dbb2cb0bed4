//! Metadata server, key set, IAM Credentials, OAuth token endpoint and the front door.

use std::sync::{Arc, Mutex};

use axum::{Router, http::HeaderMap};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode, jwk::JwkSet,
};
use serde_json::{Value, json};

use super::{Fixture, answer};

const WORKER: &str = "worker@local-project.iam.gserviceaccount.com";
const SIGNER: &str = "signer@local-project.iam.gserviceaccount.com";
const PUSH: &str = "push@local-project.iam.gserviceaccount.com";

/// The claims of a token that a published key signed, by another library than the cloud's.
async fn verified(cloud: &Fixture, token: &str, audience: &str) -> Option<Value> {
    let keys: JwkSet = cloud
        .http
        .get(&cloud.cloud.urls().jwks)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let key = keys.find(&decode_header(token).ok()?.kid?)?.clone();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&["https://accounts.google.com"]);
    decode(token, &DecodingKey::from_jwk(&key).unwrap(), &validation)
        .ok()
        .map(|data| data.claims)
}

#[tokio::test]
async fn metadata_answers_only_who_asks_properly() {
    let cloud = Fixture::start().await;
    let base = format!("{}/computeMetadata/v1", cloud.cloud.urls().metadata);
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = cloud.http.get(format!("{base}/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["metadata-flavor"], "Google");
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let google = [("metadata-flavor", "Google")];
    assert_eq!(get("project/project-id", &[]).await.0, 403);
    assert_eq!(
        get("project/project-id", &[google[0], ("x-forwarded-for", "1.2.3.4")])
            .await
            .0,
        403
    );
    assert_eq!(
        get("project/project-id", &google).await,
        (200, "local-project".to_owned())
    );
    assert_eq!(get("universe/universe-domain", &google).await.1, "googleapis.com");
    for account in ["default", WORKER] {
        let path = format!("instance/service-accounts/{account}");
        assert_eq!(get(&format!("{path}/email"), &google).await.1, WORKER);
        let token: Value = serde_json::from_str(&get(&format!("{path}/token"), &google).await.1).unwrap();
        assert_eq!(
            (&token["token_type"], &token["expires_in"]),
            (&json!("Bearer"), &json!(3599))
        );
        let bearer = token["access_token"].as_str().unwrap();
        let topics = cloud.http.get(cloud.pubsub("topics")).bearer_auth(bearer);
        assert_eq!(answer(topics).await.0, 200);
        let full = get(
            &format!("{path}/identity?audience=https%3A%2F%2Fa%2F&format=full"),
            &google,
        )
        .await
        .1;
        let claims = verified(&cloud, &full, "https://a/").await.expect("a good token");
        assert_eq!(
            (&claims["email"], &claims["email_verified"]),
            (&json!(WORKER), &json!(true))
        );
        let standard = get(&format!("{path}/identity?audience=https://a/"), &google).await.1;
        let claims = verified(&cloud, &standard, "https://a/").await.expect("a good token");
        assert_eq!(
            (&claims["email"], &claims["email_verified"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(get(&format!("{path}/identity"), &google).await.0, 400);
    }
    assert_eq!(get("instance/service-accounts/other@x/token", &google).await.0, 404);
}

#[tokio::test]
async fn keys_rotate_and_the_one_before_stays_for_a_while() {
    let cloud = Fixture::start().await;
    let claims = cloud.cloud.claims(PUSH, "aud");
    let first = cloud.cloud.id_token(&claims);
    assert!(verified(&cloud, &first, "aud").await.is_some());
    assert!(verified(&cloud, &first, "other").await.is_none());
    cloud.cloud.rotate_keys().unwrap();
    let second = cloud.cloud.id_token(&claims);
    assert_ne!(decode_header(&first).unwrap().kid, decode_header(&second).unwrap().kid);
    assert!(verified(&cloud, &first, "aud").await.is_some());
    assert!(verified(&cloud, &second, "aud").await.is_some());
    cloud.cloud.rotate_keys().unwrap();
    assert!(verified(&cloud, &first, "aud").await.is_none());
    assert!(verified(&cloud, &second, "aud").await.is_some());
    let answer = cloud.http.get(&cloud.cloud.urls().jwks).send().await.unwrap();
    assert_eq!(
        answer.headers()["cache-control"],
        "public, max-age=21600, must-revalidate, no-transform"
    );
    assert_eq!(answer.headers()["age"], "12");
    let mut altered = claims;
    altered["exp"] = json!(1);
    assert!(
        verified(&cloud, &cloud.cloud.id_token(&altered), "aud").await.is_none(),
        "what it says is what it gets"
    );
}

#[tokio::test]
async fn iam_acts_only_for_token_creators() {
    let cloud = Fixture::start().await;
    let call = async |account: &str, method: &str, body: Value| {
        let url = format!(
            "{}/v1/projects/-/serviceAccounts/{account}:{method}",
            cloud.cloud.urls().iam
        );
        answer(cloud.post(url).json(&body)).await
    };
    let (status, body) = call(PUSH, "signBlob", json!({"payload": "eA=="})).await;
    assert_eq!(
        (status.as_u16(), &body["error"]["status"]),
        (403, &json!("PERMISSION_DENIED"))
    );
    let message = "Permission 'iam.serviceAccounts.signBlob' denied on resource (or it may not exist).";
    assert_eq!(body["error"]["message"], message);
    assert_eq!(call("none@x", "signBlob", json!({"payload": "eA=="})).await.0, 404);
    assert_eq!(call(SIGNER, "signBlob", json!({"payload": "!"})).await.0, 400);
    assert_eq!(call(SIGNER, "signBlob", json!({})).await.0, 400);
    assert_eq!(call(SIGNER, "signJwt", json!({})).await.0, 404);
    let (_, one) = call(SIGNER, "signBlob", json!({"payload": "eA==", "delegates": []})).await;
    let (_, two) = call(SIGNER, "signBlob", json!({"payload": "eA"})).await;
    assert_eq!(one, two, "PKCS #1 v1.5 is deterministic, and padding may be left out");
    let blob = STANDARD.decode(one["signedBlob"].as_str().unwrap()).unwrap();
    assert_eq!(blob.len(), 256);
    let scope = json!(["https://www.googleapis.com/auth/cloud-platform"]);
    let (_, token) = call(
        SIGNER,
        "generateAccessToken",
        json!({"scope": scope, "lifetime": "60s"}),
    )
    .await;
    let bearer = token["accessToken"].as_str().unwrap();
    let topics = || cloud.http.get(cloud.pubsub("topics")).bearer_auth(bearer);
    assert_eq!(answer(topics()).await.0, 200);
    cloud.cloud.clock().advance(TimeDelta::seconds(61));
    assert_eq!(answer(topics()).await.0, 401);
    assert_eq!(
        call(
            SIGNER,
            "generateAccessToken",
            json!({"scope": scope, "lifetime": "7200s"})
        )
        .await
        .0,
        400
    );
    let (_, token) = call(
        SIGNER,
        "generateIdToken",
        json!({"audience": "https://s", "includeEmail": true}),
    )
    .await;
    let claims = verified(&cloud, token["token"].as_str().unwrap(), "https://s")
        .await
        .expect("a good token");
    assert_eq!(claims["email"], SIGNER);
    cloud.cloud.deny_token_creator(WORKER, SIGNER);
    assert_eq!(call(SIGNER, "signBlob", json!({"payload": "eA=="})).await.0, 403);
    let anonymous = format!(
        "{}/v1/projects/-/serviceAccounts/{SIGNER}:signBlob",
        cloud.cloud.urls().iam
    );
    assert_eq!(answer(cloud.http.post(anonymous).body("{}")).await.0, 401);
}

#[tokio::test]
async fn a_key_file_is_exchanged_for_tokens() {
    let cloud = Fixture::start().await;
    let file = cloud.cloud.create_key_file(SIGNER).unwrap();
    let text = |field: &str| file[field].as_str().unwrap().to_owned();
    let now = cloud.cloud.clock().now().timestamp();
    let good = json!({"iss": SIGNER, "aud": text("token_uri"), "iat": now, "exp": now + 3600, "scope": "s"});
    let key = EncodingKey::from_rsa_pem(text("private_key").as_bytes()).unwrap();
    let exchange = async |claims: &Value, kid: &str, key: &EncodingKey| {
        let header = Header {
            kid: Some(kid.to_owned()),
            ..Header::new(Algorithm::RS256)
        };
        let assertion = encode(&header, claims, key).unwrap();
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &assertion),
        ];
        answer(cloud.http.post(text("token_uri")).form(&form)).await
    };
    let kid = text("private_key_id");
    let (status, token) = exchange(&good, &kid, &key).await;
    assert_eq!(status, 200, "{token}");
    let bearer = token["access_token"].as_str().unwrap();
    assert_eq!(
        answer(cloud.http.get(cloud.pubsub("topics")).bearer_auth(bearer))
            .await
            .0,
        200
    );
    let mut claims = good.clone();
    claims["target_audience"] = json!("https://s");
    let (_, token) = exchange(&claims, &kid, &key).await;
    let claims = verified(&cloud, token["id_token"].as_str().unwrap(), "https://s")
        .await
        .expect("a good token");
    assert_eq!(claims["email"], SIGNER);
    for (field, value) in [
        ("aud", json!("https://x")),
        ("exp", json!(now - 1)),
        ("exp", json!(now + 9999)),
        ("iss", json!("none@x")),
        ("scope", json!("")),
    ] {
        let mut claims = good.clone();
        claims[field] = value;
        assert_eq!(exchange(&claims, &kid, &key).await.0, 400, "{field}");
    }
    let foreign = cloud.cloud.create_key_file(PUSH).unwrap();
    let foreign = EncodingKey::from_rsa_pem(foreign["private_key"].as_str().unwrap().as_bytes()).unwrap();
    let (status, body) = exchange(&good, &kid, &foreign).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_grant")));
    assert_eq!(exchange(&good, "another", &key).await.0, 400);
}

#[tokio::test]
async fn the_front_door_verifies_and_cuts_the_signature_off() {
    let cloud = Fixture::start().await;
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let record = Arc::clone(&seen);
    let service = Router::new().fallback(async move |headers: HeaderMap, body: String| {
        record.lock().unwrap().push(headers);
        body
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, service).await });
    cloud.cloud.open_front_door(&service_url, &["https://s"], &[PUSH]);
    let door = cloud.cloud.urls().front_door.clone();
    let send = async |name: &str, token: &str| {
        let request = cloud
            .http
            .post(format!("{door}/?q=1"))
            .header(name, format!("Bearer {token}"));
        request.body("hello").send().await.unwrap().status().as_u16()
    };
    let good = cloud.cloud.id_token(&cloud.cloud.claims(PUSH, "https://s"));
    assert_eq!(send("authorization", &good).await, 200);
    let passed = seen.lock().unwrap()[0]["authorization"].to_str().unwrap().to_owned();
    let (signed, _) = good.rsplit_once('.').unwrap();
    assert_eq!(passed, format!("Bearer {signed}.SIGNATURE_REMOVED_BY_GOOGLE"));
    let forged = format!("{signed}.SIGNATURE_REMOVED_BY_GOOGLE");
    assert_eq!(send("authorization", &forged).await, 401);
    assert_eq!(
        send(
            "authorization",
            &cloud.cloud.id_token(&cloud.cloud.claims(PUSH, "https://other"))
        )
        .await,
        401
    );
    assert_eq!(
        send(
            "authorization",
            &cloud.cloud.id_token(&cloud.cloud.claims(WORKER, "https://s"))
        )
        .await,
        403
    );
    assert_eq!(seen.lock().unwrap().len(), 1, "nothing refused went through");
    // The hole a worker must close: with this header Cloud Run leaves the other one alone.
    let both = cloud
        .http
        .post(&door)
        .header("x-serverless-authorization", format!("Bearer {good}"));
    let both = both
        .header("authorization", format!("Bearer {forged}"))
        .send()
        .await
        .unwrap();
    assert_eq!(both.status(), 200);
    let last = seen.lock().unwrap()[1].clone();
    assert_eq!(last["authorization"], format!("Bearer {forged}"));
    assert!(
        last["x-serverless-authorization"]
            .to_str()
            .unwrap()
            .ends_with(".SIGNATURE_REMOVED_BY_GOOGLE")
    );
    cloud.cloud.clock().advance(TimeDelta::hours(2));
    assert_eq!(send("authorization", &good).await, 401);
}
