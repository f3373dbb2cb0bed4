//! The README's table: what each kind of credentials gives. One test a row, one assertion or more a cell.

use platen::google::http::Http;
use platen::google::iam::Iam;
use platen::google::token::{Settings, Tokens};
use platen::google::{Error, Kind};
use platen::local_cloud::{AccountRole, LocalCloud};
use serde_json::{Value, json};

use super::{
    CALLER, File, SUBJECT, USER, WORKER, claims, cloud, federation, impersonation_url, principal, provider, settings,
    tokens,
};
use crate::peer::{Peer, Reply};

const AUDIENCE: &str = "https://service.example";

/// Who the cloud takes an access token for.
async fn caller(cloud: &LocalCloud, tokens: &Tokens) -> Option<String> {
    cloud.caller(tokens.access_token().await.unwrap().expose())
}

async fn id_token(tokens: &Tokens) -> Result<Value, Error> {
    let token = tokens.id_token(AUDIENCE, true).await?;
    let claims = claims(token.expose());
    assert_eq!(claims["aud"], AUDIENCE);
    Ok(claims)
}

async fn sign_as(cloud: &LocalCloud, tokens: &Tokens, email: &str) -> Result<(), Error> {
    let iam = Iam::new(Http::new().unwrap(), &cloud.urls().iam, Some(tokens.clone()));
    let (key_id, signature) = iam.sign_blob(email, b"what is signed").await?;
    assert!(!key_id.is_empty());
    assert_eq!(signature.len(), 256);
    Ok(())
}

fn kind(error: &Error) -> Kind {
    error.kind
}

#[tokio::test]
async fn metadata_server() {
    let cloud = cloud().await;
    let tokens = tokens(&Settings {
        metadata_host: Some(cloud.urls().metadata.clone()),
        ..settings(&cloud)
    })
    .await;
    assert_eq!(caller(&cloud, &tokens).await.as_deref(), Some(WORKER));
    assert_eq!(id_token(&tokens).await.unwrap()["email"], WORKER);
    let own = tokens.email().await.unwrap();
    assert_eq!(own, WORKER);
    sign_as(&cloud, &tokens, &own).await.unwrap();
    // As itself, too, only with the role on itself.
    cloud.deny_token_creator(WORKER, WORKER);
    assert_eq!(
        sign_as(&cloud, &tokens, WORKER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
}

/// GKE with Workload Identity and no service account of Google's: an identity that has no address.
#[tokio::test]
async fn metadata_server_of_a_kubernetes_service_account() {
    let cloud = cloud().await;
    let pod = "serviceAccount:local-project.svc.id.goog[default/platen]";
    let token = cloud.access_token(pod);
    let gke = Peer::start(move |request, _| {
        let account = "/computeMetadata/v1/instance/service-accounts/default";
        let reply = match request.target.strip_prefix(account) {
            Some("/email") => Reply::Full(200, Vec::new(), b"local-project.svc.id.goog".to_vec()),
            Some("/token") => Reply::json(200, json!({"access_token": token, "expires_in": 3599})),
            _ => Reply::status(404),
        };
        reply.with("Metadata-Flavor", "Google")
    });
    let tokens = tokens(&Settings {
        metadata_host: Some(gke.url.clone()),
        ..settings(&cloud)
    })
    .await;
    assert_eq!(caller(&cloud, &tokens).await.as_deref(), Some(pod));
    let error = id_token(&tokens).await.unwrap_err();
    assert!(error.to_string().contains("--impersonate EMAIL"), "{error}");
    let error = tokens.email().await.unwrap_err();
    assert!(error.to_string().contains("SIGNER_SERVICE_ACCOUNT"), "{error}");
    assert_eq!(
        tokens.universe_domain().await.unwrap(),
        "googleapis.com",
        "which the server does not know"
    );
    assert_eq!(
        sign_as(&cloud, &tokens, CALLER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    cloud.allow_token_creator(pod, CALLER);
    sign_as(&cloud, &tokens, CALLER).await.unwrap();
    let as_caller = tokens.impersonate(CALLER).await.unwrap();
    assert_eq!(id_token(&as_caller).await.unwrap()["email"], CALLER);
}

#[tokio::test]
async fn service_account() {
    let cloud = cloud().await;
    let file = File::new(&cloud.create_key_file(CALLER).unwrap());
    let tokens = file.tokens(&cloud).await;
    assert_eq!(caller(&cloud, &tokens).await.as_deref(), Some(CALLER));
    assert_eq!(id_token(&tokens).await.unwrap()["email"], CALLER);
    assert_eq!(tokens.local_key().unwrap().client_email, CALLER);
    assert_eq!(tokens.local_key().unwrap().sign(b"what is signed").unwrap().len(), 256);
    assert_eq!(
        sign_as(&cloud, &tokens, WORKER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    cloud.allow_token_creator(CALLER, WORKER);
    sign_as(&cloud, &tokens, WORKER).await.unwrap();
}

#[tokio::test]
async fn authorized_user() {
    let cloud = cloud().await;
    let content = cloud.log_in(USER);
    let file = File::new(&content);
    let tokens = file.tokens(&cloud).await;
    assert_eq!(caller(&cloud, &tokens).await.as_deref(), Some(USER));
    let error = id_token(&tokens).await.unwrap_err().to_string();
    for word in [
        "OAuth client",
        "private service refuses",
        "--impersonate EMAIL",
        "roles/iam.serviceAccountOpenIdTokenCreator",
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
    // The one audience that there is a token for.
    let client = content["client_id"].as_str().unwrap();
    let own = tokens.id_token(client, true).await.unwrap();
    assert_eq!(
        (&claims(own.expose())["aud"], &claims(own.expose())["email"]),
        (&json!(client), &json!(USER))
    );

    cloud.grant(USER, CALLER, AccountRole::OpenIdTokenCreator);
    let as_caller = tokens.impersonate(CALLER).await.unwrap();
    assert_eq!(id_token(&as_caller).await.unwrap()["email"], CALLER);
    assert_eq!(
        kind(&as_caller.access_token().await.unwrap_err()),
        Kind::Forbidden,
        "ID tokens alone"
    );
    assert!(tokens.email().await.is_err());
    assert_eq!(
        sign_as(&cloud, &tokens, CALLER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    cloud.allow_token_creator(USER, CALLER);
    sign_as(&cloud, &tokens, CALLER).await.unwrap();
}

#[tokio::test]
async fn impersonated_service_account() {
    let cloud = cloud().await;
    let middle = "middle@local-project.iam.gserviceaccount.com";
    cloud.create_service_account(middle);
    let file = File::new(&json!({
        "type": "impersonated_service_account", "delegates": [middle], "source_credentials": cloud.log_in(USER),
        "service_account_impersonation_url": impersonation_url(CALLER),
    }));
    let tokens = file.tokens(&cloud).await;
    // Nobody may act as anybody yet; the error names every step.
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden);
    let said = error.to_string();
    let steps = [
        format!(
            "add-iam-policy-binding {middle} --member='user:YOUR_ADDRESS' --role=roles/iam.serviceAccountTokenCreator"
        ),
        format!(
            "add-iam-policy-binding {CALLER} --member='serviceAccount:{middle}' --role=roles/iam.serviceAccountTokenCreator"
        ),
    ];
    assert!(steps.iter().all(|step| said.contains(step)), "{said}");
    cloud.allow_token_creator(USER, middle);
    assert_eq!(
        kind(&tokens.access_token().await.unwrap_err()),
        Kind::Forbidden,
        "half a chain"
    );
    cloud.allow_token_creator(middle, CALLER);
    assert_eq!(caller(&cloud, &tokens).await.as_deref(), Some(CALLER));
    assert_eq!(id_token(&tokens).await.unwrap()["email"], CALLER);
    assert_eq!(tokens.email().await.unwrap(), CALLER);
    // Signs along the same chain: the account itself has no right on itself.
    sign_as(&cloud, &tokens, CALLER).await.unwrap();
    cloud.deny_token_creator(USER, middle);
    assert_eq!(
        sign_as(&cloud, &tokens, CALLER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    // As anybody else: with the account's own token.
    assert_eq!(
        sign_as(&cloud, &tokens, WORKER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    cloud.allow_token_creator(CALLER, WORKER);
    sign_as(&cloud, &tokens, WORKER).await.unwrap();
}

#[tokio::test]
async fn external_account_with_a_service_account() {
    let cloud = cloud().await;
    let subject = File::text(&cloud.token_of_provider(&provider(), SUBJECT));
    let file = File::new(&federation(&json!({"file": subject.path()}), Some(CALLER)));
    let tokens = file.tokens(&cloud).await;
    let said = tokens.access_token().await.unwrap_err().to_string();
    let grant = format!(
        "add-iam-policy-binding {CALLER} --member='principalSet:{}/*' --role=roles/iam.workloadIdentityUser",
        super::POOL
    );
    assert!(said.contains(&grant), "{said}");
    // Exactly what the error says.
    cloud.grant(
        &format!("principalSet:{}/*", super::POOL),
        CALLER,
        AccountRole::WorkloadIdentityUser,
    );
    assert_eq!(caller(&cloud, &tokens).await.as_deref(), Some(CALLER));
    assert_eq!(id_token(&tokens).await.unwrap()["email"], CALLER);
    // That role holds no signBlob: the account signs for itself, and must be allowed to.
    assert_eq!(tokens.email().await.unwrap(), CALLER);
    assert_eq!(
        sign_as(&cloud, &tokens, CALLER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    cloud.allow_token_creator(CALLER, CALLER);
    sign_as(&cloud, &tokens, CALLER).await.unwrap();
}

#[tokio::test]
async fn external_account_without() {
    let cloud = cloud().await;
    let subject = File::text(&cloud.token_of_provider(&provider(), SUBJECT));
    let file = File::new(&federation(&json!({"file": subject.path()}), None));
    let tokens = file.tokens(&cloud).await;
    assert_eq!(caller(&cloud, &tokens).await, Some(principal()));
    let said = id_token(&tokens).await.unwrap_err().to_string();
    assert!(
        said.contains("--impersonate EMAIL") && said.contains("roles/iam.workloadIdentityUser"),
        "{said}"
    );
    cloud.grant(&principal(), CALLER, AccountRole::WorkloadIdentityUser);
    let as_caller = tokens.impersonate(CALLER).await.unwrap();
    assert_eq!(id_token(&as_caller).await.unwrap()["email"], CALLER);
    assert!(
        tokens
            .email()
            .await
            .unwrap_err()
            .to_string()
            .contains("SIGNER_SERVICE_ACCOUNT")
    );
    assert_eq!(
        sign_as(&cloud, &tokens, CALLER).await.as_ref().map_err(kind),
        Err(Kind::Forbidden)
    );
    cloud.allow_token_creator(&principal(), CALLER);
    sign_as(&cloud, &tokens, CALLER).await.unwrap();
}
