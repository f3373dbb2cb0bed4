//! Who may call: every known attack on an ID token gets the refusal it deserves, and only Google's own form gets in.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use platen::accept::verify::{Caller, Mode, VerifyRules, verify};
use platen::error::RefusalKind;
use platen::google::Kind;
use platen::google::http::{Http, Timeouts};
use platen::google::keys::{KeyError, KeySet};
use serde_json::{Value, json};

use crate::keys::TestKey;
use crate::peer::{Peer, Reply, nobody};

const AUDIENCE: &str = "https://platen-abc.a.run.app/";
const EMAIL: &str = "push@project.iam.gserviceaccount.com";
const NOW: i64 = 1_795_303_686;
const HEAD: &str = r#"{"alg":"RS256","kid":"k1","typ":"JWT"}"#;

fn rules(mode: Mode) -> VerifyRules {
    VerifyRules {
        mode,
        audiences: vec!["other".into(), AUDIENCE.into()],
        emails: vec![EMAIL.into()],
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).unwrap()
}

/// What Pub/Sub sends.
fn claims() -> Value {
    json!({
        "aud": AUDIENCE, "azp": "113774264463038321964", "email": EMAIL, "email_verified": true,
        "exp": NOW + 3600, "iat": NOW, "iss": "https://accounts.google.com", "sub": "113774264463038321964",
    })
}

/// The good claims with some replaced; `null` takes one out.
fn with(changes: &Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

/// A key set of one key, and the key.
struct Issuer {
    key: Arc<TestKey>,
    keys: KeySet,
    peer: Peer,
}

fn issuer() -> Issuer {
    let key = Arc::new(TestKey::generate());
    let set = json!({"keys": [key.jwk("k1")]});
    let peer = Peer::replies(vec![
        Reply::json(200, set).with("Cache-Control", "public, max-age=21155"),
    ]);
    Issuer {
        keys: KeySet::new(Http::new().unwrap(), &peer.url),
        key,
        peer,
    }
}

impl Issuer {
    async fn ask(&self, mode: Mode, headers: &HeaderMap) -> Result<Caller, RefusalKind> {
        verify(headers, &rules(mode), &self.keys, now())
            .await
            .map_err(|refusal| refusal.kind)
    }

    async fn oidc(&self, token: &str) -> Result<Caller, RefusalKind> {
        self.ask(Mode::Oidc, &bearer(token)).await
    }
}

#[tokio::test]
async fn what_google_sends_gets_in() {
    let issuer = issuer();
    let caller = Caller {
        email: EMAIL.into(),
        subject: "113774264463038321964".into(),
    };
    let good = [
        json!({}),
        json!({"iss": "accounts.google.com"}),
        json!({"aud": "other"}),
        json!({"aud": [AUDIENCE]}),
        json!({"exp": NOW - 9}),
        json!({"exp": NOW - 9, "iat": NOW - 3609}),
        json!({"iat": NOW + 10, "nbf": NOW + 10}),
        json!({"google": {"compute_engine": {"zone": "a"}}}),
    ];
    for change in good {
        let change = if change.get("exp").is_some() && change.get("iat").is_none() {
            json!({"exp": change["exp"], "iat": NOW - 3609})
        } else {
            change
        };
        let token = issuer.key.token(HEAD, &with(&change));
        assert_eq!(issuer.oidc(&token).await, Ok(caller.clone()), "{change}");
    }
    let token = issuer.key.token(HEAD, &claims().to_string());
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("{scheme} {token}").parse().unwrap());
        assert_eq!(issuer.ask(Mode::Oidc, &headers).await, Ok(caller.clone()), "{scheme}");
    }
    assert_eq!(issuer.peer.requests().len(), 1, "one fetch of the keys");
}

#[tokio::test]
async fn good_tokens_of_others_are_forbidden() {
    let issuer = issuer();
    let others = [
        json!({"aud": "https://platen-abc.a.run.app"}),
        json!({"aud": "https://PLATEN-abc.a.run.app/"}),
        json!({"aud": "http://platen-abc.a.run.app/"}),
        json!({"aud": "https://platen-abc.a.run.app/x"}),
        json!({"aud": "x https://platen-abc.a.run.app/"}),
        json!({"aud": "https://another.a.run.app/"}),
        json!({"aud": ["https://another.a.run.app/"]}),
        json!({"aud": ""}),
        json!({"email": "push@other.iam.gserviceaccount.com"}),
        json!({"email": format!("{EMAIL}.evil.example")}),
        json!({"email": EMAIL.to_uppercase()}),
        json!({"email": "p\u{fc}sh@project.iam.gserviceaccount.com"}),
        json!({"email": format!("{EMAIL} ")}),
    ];
    for change in others {
        let token = issuer.key.token(HEAD, &with(&change));
        assert_eq!(issuer.oidc(&token).await, Err(RefusalKind::WrongCaller), "{change}");
    }
}

#[tokio::test]
async fn claims_that_prove_nothing_are_refused() {
    let issuer = issuer();
    let bad = [
        json!({"exp": null}),
        json!({"exp": (NOW + 3600).to_string()}),
        json!({"exp": NOW - 10, "iat": NOW - 3610}),
        json!({"exp": -1}),
        json!({"exp": 1.5}),
        json!({"exp": true}),
        json!({"iat": null}),
        json!({"iat": NOW + 11}),
        json!({"iat": NOW.to_string()}),
        json!({"iat": NOW + 3600, "exp": NOW + 3600}),
        json!({"nbf": NOW + 11}),
        json!({"nbf": NOW.to_string()}),
        json!({"aud": null}),
        json!({"aud": [AUDIENCE, "https://another.a.run.app/"]}),
        json!({"aud": []}),
        json!({"aud": [[AUDIENCE]]}),
        json!({"aud": {"aud": AUDIENCE}}),
        json!({"iss": null}),
        json!({"iss": "https://evil.example"}),
        json!({"iss": "https://accounts.google.com/"}),
        json!({"iss": "http://accounts.google.com"}),
        json!({"iss": ["https://accounts.google.com"]}),
        json!({"sub": null}),
        json!({"email": null}),
        json!({"email": [EMAIL]}),
        json!({"email_verified": false}),
        json!({"email_verified": "true"}),
        json!({"email_verified": null}),
    ];
    for change in bad {
        let token = issuer.key.token(HEAD, &with(&change));
        assert_eq!(issuer.oidc(&token).await, Err(RefusalKind::Unauthenticated), "{change}");
    }
    let good = claims().to_string();
    let open = good.trim_end_matches('}');
    for text in [
        format!(r#"{open},"aud":"{AUDIENCE}"}}"#),
        format!(r#"{open},"email":"{EMAIL}"}}"#),
        format!(r#"{open},"unknown":1,"unknown":2}}"#),
        good.replace(&(NOW + 3600).to_string(), "1e400"),
        format!("[{good}]"),
        format!("{good}{good}"),
        open.to_owned(),
        String::new(),
        "null".into(),
    ] {
        let token = issuer.key.token(HEAD, &text);
        assert_eq!(issuer.oidc(&token).await, Err(RefusalKind::Unauthenticated), "{text}");
    }
}

#[tokio::test]
async fn headers_that_choose_their_own_rules_are_refused() {
    let issuer = issuer();
    let jwk = issuer.key.jwk("k1");
    let long = "k".repeat(10_000);
    let heads = [
        json!({"alg": "none", "kid": "k1"}),
        json!({"alg": "None", "kid": "k1"}),
        json!({"alg": "nOnE", "kid": "k1"}),
        json!({"alg": "rs256", "kid": "k1"}),
        json!({"alg": "RS384", "kid": "k1"}),
        json!({"alg": "RS512", "kid": "k1"}),
        json!({"alg": "PS256", "kid": "k1"}),
        json!({"alg": "ES256", "kid": "k1"}),
        json!({"alg": ["RS256"], "kid": "k1"}),
        json!({"kid": "k1"}),
        json!({"alg": "RS256"}),
        json!({"alg": "RS256", "kid": ""}),
        json!({"alg": "RS256", "kid": 1}),
        json!({"alg": "RS256", "kid": "k2"}),
        json!({"alg": "RS256", "kid": "../k1"}),
        json!({"alg": "RS256", "kid": "k1' OR '1'='1"}),
        json!({"alg": "RS256", "kid": long}),
        json!({"alg": "RS256", "kid": "k1", "typ": "at+jwt"}),
        json!({"alg": "RS256", "kid": "k1", "typ": 1}),
        json!({"alg": "RS256", "kid": "k1", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "k1", "crit": []}),
        json!({"alg": "RS256", "kid": "k1", "b64": false}),
        json!({"alg": "RS256", "kid": "k1", "jwk": jwk}),
        json!({"alg": "RS256", "kid": "k1", "jku": "https://evil.example"}),
        json!({"alg": "RS256", "kid": "k1", "x5u": "https://evil.example"}),
        json!({"alg": "RS256", "kid": "k1", "x5c": []}),
    ];
    let mut heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    heads.push(r#"{"alg":"RS256","kid":"k1","alg":"RS256"}"#.into());
    heads.push(r#"{"alg":"RS256","kid":"k2","kid":"k1"}"#.into());
    heads.push(r#"{"alg":"RS256","kid":"k1"} x"#.into());
    heads.push(String::new());
    for head in heads {
        let token = issuer.key.token(&head, &claims().to_string());
        assert_eq!(
            issuer.oidc(&token).await,
            Err(RefusalKind::Unauthenticated),
            "{head:.200}"
        );
    }
}

#[tokio::test]
async fn signatures_of_anything_but_the_issuers_key_are_refused() {
    let issuer = issuer();
    let good = issuer.key.token(HEAD, &claims().to_string());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = message.split_once('.').unwrap();
    let evil = TestKey::generate().token(HEAD, &claims().to_string());
    let flipped = |part: &str| {
        let mut bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let hmac_head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"k1","typ":"JWT"}"#);
    let hmac_token = |secret: &[u8]| {
        let message = format!("{hmac_head}.{payload}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    // The last of 342 base64 characters carries four unused bits: another character there is the same signature.
    let unused_bits = format!(
        "{}{}",
        &good[..good.len() - 1],
        if good.ends_with('A') { 'B' } else { 'A' }
    );
    let tokens = [
        evil.clone(),
        format!("{message}.{}", evil.rsplit_once('.').unwrap().1),
        format!("{message}.{}", flipped(signature)),
        format!(
            "{head}.{}.{signature}",
            URL_SAFE_NO_PAD.encode(with(&json!({"email_verified": true, "x": 1})))
        ),
        unused_bits,
        format!("{message}."),
        message.to_owned(),
        format!("{good}.x"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}A"),
        format!("{good}="),
        format!(
            "{head}.{payload}.{}",
            URL_SAFE.encode(URL_SAFE_NO_PAD.decode(signature).unwrap())
        ),
        format!("{head}=.{payload}.{signature}"),
        format!("{message}.SIGNATURE_REMOVED_BY_GOOGLE"),
        hmac_token(issuer.key.pem().as_bytes()),
        hmac_token(&issuer.key.modulus()),
        hmac_token(&STANDARD.decode("").unwrap()),
        "ya29.a0AfH6SMBx-access-token".into(),
        "..".into(),
        String::new(),
    ];
    for token in tokens {
        assert_eq!(issuer.oidc(&token).await, Err(RefusalKind::Unauthenticated), "{token}");
    }
    issuer.oidc(&good).await.unwrap();
}

#[tokio::test]
async fn a_token_is_taken_from_one_authorization_header_only() {
    let issuer = issuer();
    let token = issuer.key.token(HEAD, &claims().to_string());
    let single = [
        format!("Bearer  {token}"),
        format!("Bearer\t{token}"),
        format!("Bearer {token} "),
        format!("Bearer {token}, Bearer {token}"),
        format!("Bearer{token}"),
        format!("Basic {token}"),
        token.clone(),
        "Bearer".into(),
        "Bearer ".into(),
    ];
    for value in single {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().unwrap());
        assert_eq!(
            issuer.ask(Mode::Oidc, &headers).await,
            Err(RefusalKind::Unauthenticated),
            "{value}"
        );
    }
    let mut twice = bearer(&token);
    twice.append("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(issuer.ask(Mode::Oidc, &twice).await, Err(RefusalKind::Unauthenticated));
    let mut elsewhere = HeaderMap::new();
    elsewhere.insert("cookie", format!("token={token}").parse().unwrap());
    elsewhere.insert("x-serverless-authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(
        issuer.ask(Mode::Oidc, &elsewhere).await,
        Err(RefusalKind::Unauthenticated)
    );
}

#[tokio::test]
async fn behind_cloud_run_the_removed_signature_is_good_and_every_claim_still_counts() {
    let issuer = issuer();
    let removed = |claims: &str| {
        let token = issuer.key.token(HEAD, claims);
        format!("{}.SIGNATURE_REMOVED_BY_GOOGLE", token.rsplit_once('.').unwrap().0)
    };
    let good = removed(&claims().to_string());
    issuer.ask(Mode::CloudRunIam, &bearer(&good)).await.unwrap();
    assert!(issuer.peer.requests().is_empty(), "no key is needed");
    issuer
        .ask(
            Mode::CloudRunIam,
            &bearer(&issuer.key.token(HEAD, &claims().to_string())),
        )
        .await
        .unwrap();

    let wrong = removed(&with(&json!({"aud": "https://another.a.run.app/"})));
    assert_eq!(
        issuer.ask(Mode::CloudRunIam, &bearer(&wrong)).await,
        Err(RefusalKind::WrongCaller)
    );
    let expired = removed(&with(&json!({"exp": NOW - 10, "iat": NOW - 3610})));
    let evil = TestKey::generate().token(HEAD, &claims().to_string());
    for token in [expired, evil, format!("{good}x"), good.replace("REMOVED", "removed")] {
        assert_eq!(
            issuer.ask(Mode::CloudRunIam, &bearer(&token)).await,
            Err(RefusalKind::Unauthenticated),
            "{token}"
        );
    }
    let mut both = bearer(&good);
    both.insert("x-serverless-authorization", "Bearer x".parse().unwrap());
    assert_eq!(
        issuer.ask(Mode::CloudRunIam, &both).await,
        Err(RefusalKind::Unauthenticated)
    );
}

#[tokio::test]
async fn without_keys_nothing_is_said_about_a_token() {
    let key = TestKey::generate();
    let keys = KeySet::new(Http::new().unwrap(), nobody());
    let token = key.token(HEAD, &claims().to_string());
    let refusal = verify(&bearer(&token), &rules(Mode::Oidc), &keys, now())
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(!keys.loaded());
    // What is no token at all needs no key to be refused.
    let refusal = verify(&bearer("x.y.z"), &rules(Mode::Oidc), &keys, now())
        .await
        .unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
}

/// Moves the clock without letting time-outs of open connections fire on their own.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn many_at_once_fetch_the_keys_once() {
    let issuer = Arc::new(issuer());
    let token = Arc::new(issuer.key.token(HEAD, &claims().to_string()));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (issuer, token) = (Arc::clone(&issuer), Arc::clone(&token));
            tokio::spawn(async move { issuer.oidc(&token).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert_eq!(issuer.peer.requests().len(), 1);
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_asks_once_a_minute() {
    let issuer = issuer();
    issuer.keys.key("k1").await.unwrap();
    for round in 1..=2 {
        for number in 0..200 {
            let outcome = issuer.keys.key(&format!("made-up-{round}-{number}")).await;
            assert!(matches!(outcome, Err(KeyError::Unknown)));
        }
        assert_eq!(issuer.peer.requests().len(), 1 + round);
        pass(Duration::from_secs(60)).await;
    }
}

#[tokio::test]
async fn a_rotated_key_is_found_at_once_and_the_old_one_is_gone_with_the_set() {
    let (old, new) = (TestKey::generate(), TestKey::generate());
    let age = "public, max-age=21155, must-revalidate, no-transform";
    let peer = Peer::replies(vec![
        Reply::json(200, json!({"keys": [old.jwk("old")]}))
            .with("Cache-Control", age)
            .with("Age", "12"),
        Reply::json(200, json!({"keys": [new.jwk("new")]}))
            .with("Cache-Control", age)
            .with("Age", "12"),
    ]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    keys.key("old").await.unwrap();
    keys.key("new").await.unwrap();
    assert!(matches!(keys.key("old").await, Err(KeyError::Unknown)));
    assert_eq!(peer.requests().len(), 2);
    pass(Duration::from_secs(21_142)).await;
    keys.key("new").await.unwrap();
    assert_eq!(peer.requests().len(), 2, "still fresh");
    pass(Duration::from_secs(2)).await;
    keys.key("new").await.unwrap();
    assert_eq!(peer.requests().len(), 3, "max-age less Age is over");
}

#[tokio::test]
async fn stale_keys_serve_while_no_others_can_be_had_but_not_for_ever() {
    let key = TestKey::generate();
    let set = json!({"keys": [key.jwk("k1")]});
    let peer = Peer::replies(vec![
        Reply::json(200, set.clone()).with("Cache-Control", "max-age=60"),
        Reply::status(503),
    ]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    keys.key("k1").await.unwrap();
    pass(Duration::from_secs(61)).await;
    keys.key("k1").await.unwrap();
    keys.key("k1").await.unwrap();
    assert_eq!(peer.requests().len(), 2, "one try, then a pause");
    assert!(
        matches!(keys.key("k2").await, Err(KeyError::Unavailable(_))),
        "it may be a new one"
    );
    pass(Duration::from_secs(24 * 3600)).await;
    assert!(matches!(keys.key("k1").await, Err(KeyError::Unavailable(_))));
    assert!(!keys.loaded());
}

#[tokio::test]
async fn without_keys_the_task_asks_every_few_seconds() {
    let key = TestKey::generate();
    let peer = Peer::replies(vec![
        Reply::status(500),
        Reply::status(500),
        Reply::json(200, json!({"keys": [key.jwk("k1")]})),
    ]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    let task = tokio::spawn({
        let keys = keys.clone();
        async move { keys.keep_fresh().await }
    });
    for asked in 1..=3 {
        while peer.requests().len() < asked {
            tokio::task::yield_now().await;
        }
        // The answer has to be there before the clock moves, or the pause would not have begun.
        while asked < 3
            && !matches!(keys.key("k1").await, Err(KeyError::Unavailable(error)) if error.status == Some(500))
        {}
        if asked < 3 {
            assert_eq!(peer.requests().len(), asked);
            pass(Duration::from_secs(5)).await;
        }
    }
    keys.key("k1").await.unwrap();
    assert!(keys.loaded());
    task.abort();
}

#[tokio::test]
async fn key_sets_that_cannot_be_trusted_are_refused() {
    let key = TestKey::generate();
    let jwk = |change: Value| {
        let mut jwk = key.jwk("k1");
        for (name, value) in change.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        Reply::json(200, json!({"keys": [jwk]}))
    };
    let short = URL_SAFE_NO_PAD.encode(&key.modulus()[..128]);
    let padded = URL_SAFE_NO_PAD.encode([vec![0; 128], key.modulus()[..128].to_vec()].concat());
    let good = json!({"keys": [key.jwk("k1")]});
    let sets = [
        (
            "two of one id",
            Reply::json(200, json!({"keys": [key.jwk("k1"), TestKey::generate().jwk("k1")]})),
        ),
        ("1024 bits", jwk(json!({"n": short}))),
        ("1024 bits after zeros", jwk(json!({"n": padded}))),
        ("for encryption", jwk(json!({"use": "enc"}))),
        ("another algorithm", jwk(json!({"alg": "RS512"}))),
        ("another type", jwk(json!({"kty": "oct"}))),
        ("exponent 1", jwk(json!({"e": "AQ"}))),
        ("no id", jwk(json!({"kid": null}))),
        ("no keys", Reply::json(200, json!({"keys": []}))),
        ("no set", Reply::json(200, json!([]))),
        ("no JSON", Reply::Full(200, Vec::new(), b"<html>".to_vec())),
        (
            "too large",
            Reply::Full(
                200,
                Vec::new(),
                [good.to_string().into_bytes(), vec![b' '; 5 << 20]].concat(),
            ),
        ),
        ("cut", Reply::Cut(20, 200, Vec::new(), good.to_string().into_bytes())),
        (
            "a redirect",
            Reply::json(302, good.clone()).with("Location", "/elsewhere"),
        ),
        ("not 200", Reply::json(203, good.clone())),
    ];
    for (about, reply) in sets {
        let peer = Peer::replies(vec![reply]);
        let keys = KeySet::new(Http::new().unwrap(), &peer.url);
        let outcome = keys.key("k1").await;
        assert!(
            matches!(outcome, Err(KeyError::Unavailable(_))),
            "{about}: {:?}",
            outcome.err()
        );
        assert_eq!(peer.requests().len(), 1, "{about}");
    }
}

#[tokio::test]
async fn a_key_server_that_stalls_is_left() {
    let peer = Peer::replies(vec![Reply::Stall]);
    let timeouts = Timeouts {
        progress: Duration::from_millis(100),
        ..Timeouts::default()
    };
    let keys = KeySet::new(Http::with(timeouts).unwrap(), &peer.url);
    let Err(KeyError::Unavailable(error)) = keys.key("k1").await else {
        panic!("no answer is no key")
    };
    assert_eq!(error.kind, Kind::Unavailable);
}
