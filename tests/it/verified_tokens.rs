//! A token that was verified once is looked up the next time, and never outlives its time or its key.

use std::time::Duration;

use chrono::TimeDelta;
use platen::accept::verify::{Mode, Verifier};
use platen::error::RefusalKind;
use platen::google::http::Http;
use platen::google::keys::KeySet;
use serde_json::{Value, json};

use crate::identity::{AUDIENCE, EMAIL, HEAD, NOW, bearer, claims, now, rules, with};
use crate::key_set::pass;
use crate::keys::TestKey;
use crate::peer::{Peer, Reply};

fn verifier(sets: Vec<Value>) -> (Verifier, Peer) {
    let replies = sets.into_iter().map(|keys| Reply::json(200, json!({"keys": keys})));
    let peer = Peer::replies(
        replies
            .map(|reply| reply.with("Cache-Control", "max-age=600"))
            .collect(),
    );
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    (Verifier::new(rules(Mode::Oidc), keys), peer)
}

async fn ask(verifier: &Verifier, token: &str, after: i64) -> Result<String, RefusalKind> {
    let outcome = verifier.verify(&bearer(token), now() + TimeDelta::seconds(after)).await;
    outcome.map(|caller| caller.email).map_err(|refusal| refusal.kind)
}

#[tokio::test]
async fn a_token_ends_with_its_time_however_often_it_was_good() {
    let key = TestKey::generate();
    let (verifier, _peer) = verifier(vec![json!([key.jwk("k1")])]);
    let token = key.token(
        HEAD,
        &with(&json!({"iat": NOW - 3000, "nbf": NOW - 100, "exp": NOW + 600})),
    );
    for after in [0, 1, 599, 609] {
        assert_eq!(ask(&verifier, &token, after).await.as_deref(), Ok(EMAIL), "{after}");
    }
    for after in [610, 100_000] {
        assert_eq!(
            ask(&verifier, &token, after).await,
            Err(RefusalKind::Unauthenticated),
            "{after}"
        );
    }
    // A clock that was wrong and is set back: the token is not good before its time either.
    assert_eq!(ask(&verifier, &token, -110).await.as_deref(), Ok(EMAIL));
    assert_eq!(ask(&verifier, &token, -111).await, Err(RefusalKind::Unauthenticated));
}

#[tokio::test]
async fn a_token_ends_with_its_key() {
    let (old, new) = (TestKey::generate(), TestKey::generate());
    let (verifier, peer) = verifier(vec![json!([old.jwk("k1")]), json!([new.jwk("k2")])]);
    let token = old.token(HEAD, &claims().to_string());
    ask(&verifier, &token, 0).await.unwrap();
    ask(&verifier, &token, 0).await.unwrap();
    // Another key's first token brings the new set, and the old key is not in it.
    let head = HEAD.replace("k1", "k2");
    ask(&verifier, &new.token(&head, &claims().to_string()), 0)
        .await
        .unwrap();
    assert_eq!(ask(&verifier, &token, 0).await, Err(RefusalKind::Unauthenticated));
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn a_token_ends_with_its_key_also_when_another_takes_its_id() {
    let (old, new) = (TestKey::generate(), TestKey::generate());
    let (verifier, _peer) = verifier(vec![json!([old.jwk("k1")]), json!([new.jwk("k1")])]);
    let token = old.token(HEAD, &claims().to_string());
    ask(&verifier, &token, 0).await.unwrap();
    pass(Duration::from_secs(601)).await;
    assert_eq!(ask(&verifier, &token, 0).await, Err(RefusalKind::Unauthenticated));
    ask(&verifier, &new.token(HEAD, &claims().to_string()), 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_verified_token_needs_keys_that_may_still_be_used() {
    let key = TestKey::generate();
    let set = json!({"keys": [key.jwk("k1")]});
    let peer = Peer::replies(vec![
        Reply::json(200, set).with("Cache-Control", "max-age=600"),
        Reply::status(503),
    ]);
    let verifier = Verifier::new(rules(Mode::Oidc), KeySet::new(Http::new().unwrap(), &peer.url));
    let token = key.token(HEAD, &claims().to_string());
    ask(&verifier, &token, 0).await.unwrap();
    pass(Duration::from_secs(601)).await;
    ask(&verifier, &token, 0).await.unwrap();
    pass(Duration::from_secs(24 * 3600)).await;
    assert_eq!(ask(&verifier, &token, 0).await, Err(RefusalKind::Unavailable));
}

#[tokio::test]
async fn one_changed_character_is_another_token() {
    let key = TestKey::generate();
    let (verifier, _peer) = verifier(vec![json!([key.jwk("k1")])]);
    let token = key.token(HEAD, &claims().to_string());
    ask(&verifier, &token, 0).await.unwrap();
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(
            ask(&verifier, &changed, 0).await,
            Err(RefusalKind::Unauthenticated),
            "at {at}"
        );
    }
}

#[tokio::test]
async fn refused_tokens_are_not_remembered_and_many_good_ones_stay_bounded() {
    let key = TestKey::generate();
    let (verifier, _peer) = verifier(vec![json!([key.jwk("k1")])]);
    let other = key.token(HEAD, &with(&json!({"aud": "https://another.a.run.app/"})));
    for _ in 0..3 {
        assert_eq!(ask(&verifier, &other, 0).await, Err(RefusalKind::WrongCaller));
    }
    assert_eq!(verifier.remembered(), 0);
    for number in 0..1100 {
        let token = key.token(HEAD, &with(&json!({"aud": AUDIENCE, "exp": NOW + 3600 + number})));
        ask(&verifier, &token, 0).await.unwrap();
    }
    assert_eq!(verifier.remembered(), 1024);
}
