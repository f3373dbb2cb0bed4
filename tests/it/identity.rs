//! Who may call: every known attack on an ID token gets the refusal it deserves, and only Google's own form gets in.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair as _;
use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use platen::accept::verify::{Caller, Mode, Verifier, VerifyRules};
use platen::error::RefusalKind;
use platen::google::http::Http;
use platen::google::keys::KeySet;
use serde_json::{Value, json};

use crate::keys::TestKey;
use crate::peer::{Peer, Reply};

pub(crate) const AUDIENCE: &str = "https://platen-abc.a.run.app/";
pub(crate) const EMAIL: &str = "push@project.iam.gserviceaccount.com";
pub(crate) const NOW: i64 = 1_795_303_686;
pub(crate) const HEAD: &str = r#"{"alg":"RS256","kid":"k1","typ":"JWT"}"#;

pub(crate) fn rules(mode: Mode) -> VerifyRules {
    VerifyRules {
        mode,
        audiences: vec!["other".into(), AUDIENCE.into()],
        emails: vec![EMAIL.into()],
    }
}

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).unwrap()
}

/// What Pub/Sub sends.
pub(crate) fn claims() -> Value {
    json!({
        "aud": AUDIENCE, "azp": "113774264463038321964", "email": EMAIL, "email_verified": true,
        "exp": NOW + 3600, "iat": NOW, "iss": "https://accounts.google.com", "sub": "113774264463038321964",
    })
}

/// The good claims with some replaced; `null` takes one out.
pub(crate) fn with(changes: &Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

pub(crate) fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

/// A key set of one key, and the key.
pub(crate) struct Issuer {
    pub(crate) key: TestKey,
    pub(crate) keys: KeySet,
    pub(crate) peer: Peer,
    oidc: Verifier,
    cloud_run_iam: Verifier,
}

pub(crate) fn issuer() -> Issuer {
    let key = TestKey::generate();
    let set = json!({"keys": [key.jwk("k1")]});
    let peer = Peer::replies(vec![
        Reply::json(200, set).with("Cache-Control", "public, max-age=21155"),
    ]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    Issuer {
        oidc: Verifier::new(rules(Mode::Oidc), keys.clone()),
        cloud_run_iam: Verifier::new(rules(Mode::CloudRunIam), keys.clone()),
        keys,
        key,
        peer,
    }
}

impl Issuer {
    async fn ask(&self, mode: Mode, headers: &HeaderMap) -> Result<Caller, RefusalKind> {
        let verifier = match mode {
            Mode::Oidc => &self.oidc,
            Mode::CloudRunIam => &self.cloud_run_iam,
        };
        verifier.verify(headers, now()).await.map_err(|refusal| refusal.kind)
    }

    pub(crate) async fn oidc(&self, token: &str) -> Result<Caller, RefusalKind> {
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
        json!({"exp": i64::MIN}),
        json!({"exp": u64::MAX}),
        json!({"exp": [NOW + 3600]}),
        json!({"exp": NOW + 3600, "iat": i64::MIN}),
        json!({"iat": -1}),
        json!({"iat": i64::MAX, "exp": i64::MAX}),
        json!({"nbf": true}),
        json!({"nbf": i64::MAX}),
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
        json!({"aud": [AUDIENCE, AUDIENCE]}),
        json!({"aud": 1}),
        json!({"iss": "https://ACCOUNTS.google.com"}),
        json!({"iss": "https://accounts.google.com.evil.example"}),
        json!({"sub": 5}),
        json!({"email_verified": 1}),
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
        // The same names, written differently.
        format!(r#"{open},"\u0061ud":"{AUDIENCE}"}}"#),
        format!(r#"{open},"e\u006dail":"{EMAIL}"}}"#),
        format!(r#"{open},"exp":{}}}"#, NOW + 3600),
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
        json!({"alg": "RS256", "kid": "k1", "zip": "DEF"}),
        json!({"alg": "HS256", "kid": "k1"}),
        json!({"alg": "RS256 ", "kid": "k1"}),
        json!({"alg": null, "kid": "k1"}),
        json!({"alg": "RS256", "kid": null}),
        json!({"alg": "RS256", "kid": "K1"}),
        json!({"alg": "RS256", "kid": "k1\u{0}"}),
        json!([{"alg": "RS256", "kid": "k1"}]),
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
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
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
    // What everybody knows of the key, as the secret of a symmetric algorithm.
    let public: PublicKeyX509Der<'_> = issuer.key.pair.public_key().as_der().unwrap();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(public.as_ref())
    );
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
        hmac_token(pem.as_bytes()),
        hmac_token(pem.trim_end().as_bytes()),
        hmac_token(public.as_ref()),
        hmac_token(&issuer.key.modulus()),
        hmac_token(URL_SAFE_NO_PAD.encode(issuer.key.modulus()).as_bytes()),
        hmac_token(b""),
        "ya29.a0AfH6SMBx-access-token".into(),
        "..".into(),
        String::new(),
        format!("{head} .{payload}.{signature}"),
        format!("{head}.{payload}. {signature}"),
        format!("{head}.{payload}"),
        format!("{head}..{signature}"),
        // The same number with a zero before it, and numbers that are no signature.
        format!("{message}.{}", URL_SAFE_NO_PAD.encode([&[0][..], &raw].concat())),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(&raw[1..])),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 256])),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(issuer.key.modulus())),
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
