//! `platen token` as a process: the token alone on stdout, or a sentence that says what makes it possible.

use platen::local_cloud::AccountRole;
use serde_json::json;

use super::{CALLER, CANARY, File, USER, WORKER, claims, cloud, line, on_google, platen, stderr};

const AUDIENCE: &str = "https://service.example/a?b=c d";

#[tokio::test]
async fn it_prints_the_token_and_nothing_else() {
    let cloud = cloud().await;
    let environment = on_google(&cloud);
    let without = claims(&line(&platen(&["token", "--audience", AUDIENCE], &environment).await));
    assert_eq!((&without["aud"], &without["email"]), (&json!(AUDIENCE), &json!(null)));
    let with = platen(&["token", "--audience", AUDIENCE, "--include-email"], &environment).await;
    assert_eq!(stderr(&with), "");
    let with = claims(&line(&with));
    assert_eq!(
        (&with["email"], &with["email_verified"]),
        (&json!(WORKER), &json!(true))
    );
}

#[tokio::test]
async fn it_impersonates_whom_the_credentials_may_act_as() {
    let cloud = cloud().await;
    let user = File::new(&cloud.log_in(USER));
    let key = File::new(&cloud.create_key_file(WORKER).unwrap());
    let arguments = [
        "token",
        "--audience",
        AUDIENCE,
        "--include-email",
        "--impersonate",
        CALLER,
    ];
    let environments = [
        (USER, user.environment(&cloud), "user:YOUR_ADDRESS".to_owned()),
        (WORKER, key.environment(&cloud), format!("serviceAccount:{WORKER}")),
        (WORKER, on_google(&cloud), format!("serviceAccount:{WORKER}")),
    ];
    for (who, environment, member) in environments {
        cloud.deny_token_creator(who, CALLER);
        let refused = platen(&arguments, &environment).await;
        assert_eq!((refused.status.code(), &refused.stdout[..]), (Some(1), &b""[..]));
        let said = stderr(&refused);
        let grant = format!(
            "gcloud iam service-accounts add-iam-policy-binding {CALLER} --member='{member}' \
             --role=roles/iam.serviceAccountOpenIdTokenCreator"
        );
        assert!(
            said.contains(&grant) && said.contains("iam.serviceAccounts.getOpenIdToken"),
            "{said}"
        );
        cloud.allow_token_creator(who, CALLER);
        let token = claims(&line(&platen(&arguments, &environment).await));
        assert_eq!((&token["aud"], &token["email"]), (&json!(AUDIENCE), &json!(CALLER)));
    }
    // The smaller role is enough, as the error says.
    cloud.deny_token_creator(USER, CALLER);
    cloud.grant(USER, CALLER, AccountRole::OpenIdTokenCreator);
    line(&platen(&arguments, &user.environment(&cloud)).await);
}

#[tokio::test]
async fn what_cannot_be_says_what_can() {
    let cloud = cloud().await;
    let user = File::new(&cloud.log_in(USER));
    let refused = platen(&["token", "--audience", AUDIENCE], &user.environment(&cloud)).await;
    assert_eq!((refused.status.code(), &refused.stdout[..]), (Some(1), &b""[..]));
    assert!(stderr(&refused).contains("--impersonate EMAIL"), "{}", stderr(&refused));

    let none = super::endpoints(&cloud);
    let usage = [
        (vec!["token"], &none, "--audience"),
        (vec!["token", "--audience", ""], &none, "--audience"),
        (
            vec!["token", "--audience", AUDIENCE, "--impersonate", "not/an/account"],
            &user.environment(&cloud),
            "--impersonate not/an/account: that is no service account's address",
        ),
    ];
    for (arguments, environment, why) in usage {
        let output = platen(&arguments, environment).await;
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
    let broken = File::new(&json!({"type": "authorized_user", "client_id": "c", "refresh_token": CANARY}));
    let output = platen(&["token", "--audience", AUDIENCE], &broken.environment(&cloud)).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("missing field `client_secret`"),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains(CANARY), "{}", stderr(&output));
}

#[tokio::test]
async fn no_secret_of_any_kind_is_in_what_is_said() {
    let cloud = cloud().await;
    let mut user = cloud.log_in(USER);
    user["refresh_token"] = json!(CANARY);
    let mut other_client = cloud.log_in(USER);
    other_client["client_secret"] = json!(CANARY);
    let mut key = cloud.create_key_file(CALLER).unwrap();
    key["client_email"] = json!("nobody@x");
    for (content, why) in [
        (user, "invalid_grant"),
        (other_client, "invalid_client"),
        (key, "account not found"),
    ] {
        let file = File::new(&content);
        let mut environment = file.environment(&cloud);
        environment.insert("RUST_LOG".to_owned(), "trace".to_owned());
        let arguments = ["token", "--audience", AUDIENCE, "--impersonate", WORKER];
        let output = platen(&arguments, &environment).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
        for secret in ["canary", "BEGIN PRIVATE KEY", "GOCSPX", "1//", "ya29."] {
            assert!(!said.contains(secret), "{secret}: {said}");
        }
        for field in ["private_key", "refresh_token", "client_secret"] {
            let secret = content[field].as_str().unwrap_or("never said");
            assert!(!said.contains(secret), "{field}: {said}");
        }
    }
}
