//! Federation: where subject tokens come from, what goes to the Security Token Service, and where nothing goes.

use platen::google::http::Http;
use platen::google::token::{Settings, Tokens};
use serde_json::{Value, json};

use super::{CALLER, CANARY, File, SUBJECT, cloud, federation, impersonation_url, principal, provider, tokens};
use crate::peer::{Peer, Recorded, Reply};

/// A Security Token Service, and IAM, that take everything.
fn google() -> Peer {
    Peer::start(|request, number| match request.target.as_str() {
        "/v1/token" => Reply::json(
            200,
            json!({"access_token": format!("federated-{number}"), "expires_in": 3599, "token_type": "Bearer"}),
        ),
        _ => Reply::json(
            200,
            json!({"accessToken": "of-the-account", "expireTime": "2999-01-01T00:00:00Z"}),
        ),
    })
}

fn at(google: &Peer, file: &File) -> Settings {
    Settings {
        credentials_file: Some(file.path().into()),
        sts_endpoint: Some(google.url.clone()),
        iam_credentials_endpoint: Some(google.url.clone()),
        allow_executables: true,
        ..Settings::default()
    }
}

fn form(request: &Recorded) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text)
            .decode_utf8()
            .unwrap()
            .into_owned()
    };
    String::from_utf8(request.body.clone())
        .unwrap()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn field(request: &Recorded, name: &str) -> Option<String> {
    form(request)
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

#[tokio::test]
async fn the_exchange_is_what_googles_own_clients_send() {
    let google = google();
    let subject = File::text("subject-token\n");
    let mut content = federation(&json!({"file": subject.path()}), Some(CALLER));
    content["service_account_impersonation"] = json!({"token_lifetime_seconds": 2700});
    let file = File::new(&content);
    let tokens = tokens(&at(&google, &file)).await;
    assert_eq!(tokens.access_token().await.unwrap().expose(), "of-the-account");
    let [exchange, impersonate] = &google.requests()[..] else {
        panic!("two requests")
    };
    assert_eq!(
        (exchange.method.as_str(), exchange.target.as_str()),
        ("POST", "/v1/token")
    );
    assert_eq!(
        exchange.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(exchange.header("authorization"), None);
    let mut sent = form(exchange);
    sent.sort();
    let expected = [
        ("audience", provider().as_str()),
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "https://www.googleapis.com/auth/iam"),
        ("subject_token", "subject-token"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(sent, expected);
    assert_eq!(
        impersonate.target,
        format!("/v1/projects/-/serviceAccounts/{CALLER}:generateAccessToken")
    );
    assert_eq!(impersonate.header("authorization"), Some("Bearer federated-0"));
    assert_eq!(
        impersonate.json(),
        json!({
            "delegates": [], "scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "2700s",
        })
    );
}

#[tokio::test]
async fn a_federated_token_that_iam_refuses_is_exchanged_anew_once() {
    let google = Peer::start(|request, number| match request.target.as_str() {
        "/v1/token" => Reply::json(
            200,
            json!({"access_token": format!("federated-{number}"), "expires_in": 3599}),
        ),
        _ if number == 1 => Reply::status(401),
        _ => Reply::json(
            200,
            json!({"accessToken": "good", "expireTime": "2999-01-01T00:00:00Z"}),
        ),
    });
    let subject = File::text("s");
    let file = File::new(&federation(&json!({"file": subject.path()}), Some(CALLER)));
    let tokens = tokens(&at(&google, &file)).await;
    assert_eq!(tokens.access_token().await.unwrap().expose(), "good");
    let requests = google.requests();
    let bearers: Vec<_> = requests
        .iter()
        .filter_map(|request| request.header("authorization"))
        .collect();
    assert_eq!(bearers, ["Bearer federated-0", "Bearer federated-2"]);
}

#[tokio::test]
async fn a_file_is_read_for_every_exchange_as_text_or_as_json() {
    let google = google();
    let subject = File::text("one");
    let as_text = File::new(&federation(
        &json!({"file": subject.path(), "format": {"type": "text"}}),
        None,
    ));
    let first = tokens(&at(&google, &as_text)).await;
    first.access_token().await.unwrap();
    std::fs::write(subject.path(), "two").unwrap();
    first.access_token().await.unwrap();
    assert_eq!(google.requests().len(), 1, "cached");
    tokens(&at(&google, &as_text)).await.access_token().await.unwrap();
    let format = json!({"type": "json", "subject_token_field_name": "access_token"});
    let as_json = File::new(&federation(&json!({"file": subject.path(), "format": format}), None));
    std::fs::write(subject.path(), json!({"access_token": "three"}).to_string()).unwrap();
    let tokens = tokens(&at(&google, &as_json)).await;
    tokens.access_token().await.unwrap();
    let sent: Vec<_> = google
        .requests()
        .iter()
        .map(|request| field(request, "subject_token").unwrap())
        .collect();
    assert_eq!(sent, ["one", "two", "three"]);
    assert_eq!(
        field(&google.requests()[2], "scope").unwrap(),
        "https://www.googleapis.com/auth/cloud-platform"
    );
}

#[tokio::test]
async fn a_url_is_asked_with_its_headers_and_no_redirect_is_followed() {
    let google = google();
    let issuer = Peer::start(|request, _| match request.target.as_str() {
        "/token?secret=q" if request.header("x-secret") == Some("h") => {
            Reply::json(200, json!({"value": "from-the-issuer"}))
        }
        "/elsewhere" => Reply::status(302).with("Location", "/token?secret=q"),
        _ => Reply::Full(403, Vec::new(), CANARY.into()),
    });
    let format = json!({"type": "json", "subject_token_field_name": "value"});
    let source = |path: &str, header: &str| {
        federation(
            &json!({"url": format!("{}{path}", issuer.url), "headers": {"x-secret": header}, "format": format}),
            None,
        )
    };
    let file = File::new(&source("/token?secret=q", "h"));
    tokens(&at(&google, &file)).await.access_token().await.unwrap();
    assert_eq!(
        field(&google.requests()[0], "subject_token").unwrap(),
        "from-the-issuer"
    );
    for (path, header) in [
        ("/token?secret=q", CANARY),
        ("/elsewhere", "h"),
        ("/other?secret=canary-that", "h"),
    ] {
        let file = File::new(&source(path, header));
        let tokens = tokens(&at(&google, &file)).await;
        let error = tokens.access_token().await.unwrap_err();
        let shown = format!("{error} {error:?} {tokens:?}");
        assert!(shown.contains("read the subject token on http://127.0.0.1:"), "{shown}");
        assert!(!shown.contains("canary") && !shown.contains("secret=q"), "{shown}");
    }
    assert_eq!(google.requests().len(), 1, "nothing else was exchanged");
}

#[tokio::test]
async fn a_workforce_pool_names_who_pays_and_a_client_itself() {
    let cloud = cloud().await;
    let audience = "//iam.googleapis.com/locations/global/workforcePools/staff/providers/saml";
    cloud.federate(audience).unwrap();
    let subject = File::text(&cloud.token_of_provider(audience, SUBJECT));
    let mut content = federation(&json!({"file": subject.path()}), None);
    content["audience"] = json!(audience);
    let file = File::new(&content);
    let error = file.tokens(&cloud).await.access_token().await.unwrap_err().to_string();
    assert!(error.contains("user project"), "{error}");
    content["workforce_pool_user_project"] = json!("4711");
    let file = File::new(&content);
    let token = file.tokens(&cloud).await.access_token().await.unwrap();
    assert!(
        cloud
            .caller(token.expose())
            .unwrap()
            .ends_with("/workforcePools/staff/subject/build-7")
    );

    let google = google();
    content["client_id"] = json!("client");
    content["client_secret"] = json!("s");
    let file = File::new(&content);
    tokens(&at(&google, &file)).await.access_token().await.unwrap();
    let request = &google.requests()[0];
    assert_eq!(request.header("authorization"), Some("Basic Y2xpZW50OnM="));
    assert_eq!(field(request, "options"), None, "the client pays");
}

#[tokio::test]
async fn a_subject_token_that_proves_nothing_gets_nothing_and_is_not_shown() {
    let cloud = cloud().await;
    let good = cloud.token_of_provider(&provider(), SUBJECT);
    let forged = format!("{}x", &good[..good.len() - 4]);
    for token in [forged, format!("eyJ{CANARY}.e30.e30"), CANARY.to_owned()] {
        let subject = File::text(&token);
        let file = File::new(&federation(&json!({"file": subject.path()}), None));
        let error = file.tokens(&cloud).await.access_token().await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("invalid_grant") && shown.contains("Security Token Service"),
            "{shown}"
        );
        assert!(!shown.contains(CANARY) && !shown.contains(&token), "{shown}");
    }
    let subject = File::text(&good);
    let file = File::new(&federation(&json!({"file": subject.path()}), None));
    let token = file.tokens(&cloud).await.access_token().await.unwrap();
    assert_eq!(cloud.caller(token.expose()), Some(principal()));
}

#[tokio::test]
async fn files_that_would_send_tokens_astray_are_refused_before_anything_is_sent() {
    let source = json!({"file": "/nowhere"});
    let with = |field: &str, value: Value| {
        let mut content = federation(&source, None);
        content[field] = value;
        content
    };
    let of = |source: Value| federation(&source, None);
    let cases = [
        (
            with("token_url", json!("https://sts.canary.example/v1/token")),
            "token_url is not a host of googleapis.com",
        ),
        (
            with("token_url", json!("http://sts.googleapis.com/v1/token")),
            "token_url is no URL that a secret",
        ),
        (
            with(
                "service_account_impersonation_url",
                json!(impersonation_url(CALLER).replace("googleapis.com", "canary.example")),
            ),
            "service_account_impersonation_url is not a host of googleapis.com",
        ),
        (
            with(
                "service_account_impersonation_url",
                json!(impersonation_url("a/../canary@x")),
            ),
            "service_account_impersonation_url is not",
        ),
        (
            with("universe_domain", json!("canary.example/x?")),
            "universe_domain that is no domain",
        ),
        (
            with("workforce_pool_user_project", json!("canary")),
            "audience is no workforce pool's",
        ),
        (
            of(json!({"url": "http://canary.example/token"})),
            "credential_source.url is no URL",
        ),
        (
            of(json!({"url": "https://x.example", "headers": {"a": "canary\n"}})),
            "headers that cannot be sent",
        ),
        // The machine's own access token, to a universe of the file's choice.
        (
            json!({
                "type": "external_account", "audience": provider(), "universe_domain": "canary.example",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "credential_source": {
                    "url": "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token",
                    "headers": {"Metadata-Flavor": "Google"},
                    "format": {"type": "json", "subject_token_field_name": "access_token"},
                },
            }),
            "asks Google's metadata server for its token",
        ),
        (
            of(json!({"url": "http://169.254.169.254/x", "headers": {"X-Google-Metadata-Request": "True"}})),
            "asks Google's metadata server for its token",
        ),
        (of(json!({})), "one of file, url and executable"),
        (
            of(json!({"file": "/a", "url": "https://x.example"})),
            "one of file, url and executable",
        ),
        (
            of(json!({"environment_id": "aws1", "region_url": "http://169.254.169.254/canary"})),
            "AWS by its signed requests, which Platen does not make",
        ),
        (
            of(json!({"certificate": {"use_default_certificate_config": true}})),
            "X.509 certificate",
        ),
        (of(json!({"executable": {"command": "canary --x"}})), "absolute path"),
        (
            of(json!({"executable": {"command": "/bin/canary", "timeout_millis": 4999}})),
            "timeout_millis",
        ),
        (
            of(json!({"file": "/a", "format": {"type": "canary"}})),
            "a field is not as expected",
        ),
    ];
    for (content, why) in cases {
        let file = File::new(&content);
        let settings = Settings {
            credentials_file: Some(file.path().into()),
            allow_executables: true,
            ..Settings::default()
        };
        let error = Tokens::discover(Http::new().unwrap(), &settings).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(why) && shown.contains(&file.path()), "{why}: {shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
    // Azure's metadata server speaks no TLS, and an operator's own endpoints are not the file's.
    let azure =
        of(json!({"url": "http://169.254.169.254/metadata/identity/oauth2/token", "headers": {"Metadata": "True"}}));
    let moved = with("token_url", json!("https://sts.private.example/v1/token"));
    for content in [azure, moved] {
        let file = File::new(&content);
        tokens(&at(&google(), &file)).await;
    }
}

#[tokio::test]
async fn who_pays_is_said_where_the_credentials_say_so() {
    let cloud = cloud().await;
    for (of_file, of_environment, expected) in [
        (None, None, None),
        (Some("of-the-file"), None, Some("of-the-file")),
        (
            Some("of-the-file"),
            Some("of-the-environment"),
            Some("of-the-environment"),
        ),
    ] {
        let api = Peer::replies(vec![Reply::json(200, json!({"messageIds": ["1"]}))]);
        let mut content = cloud.log_in(super::USER);
        content["quota_project_id"] = json!(of_file);
        let file = File::new(&content);
        let settings = Settings {
            quota_project: of_environment.map(str::to_owned),
            ..file.settings(&cloud)
        };
        let tokens = tokens(&settings).await;
        let publisher = platen::google::pubsub::Publisher::new(Http::new().unwrap(), &api.url, Some(tokens));
        publisher
            .publish("projects/p/topics/t", b"", &Default::default())
            .await
            .unwrap();
        assert_eq!(api.requests()[0].header("x-goog-user-project"), expected);
    }
}
