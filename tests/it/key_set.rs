//! The cache of Google's token keys: when it asks, when it does not, and what it does while nobody answers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use platen::accept::verify::{Mode, Verifier};
use platen::error::RefusalKind;
use platen::google::Kind;
use platen::google::http::{Http, Timeouts};
use platen::google::keys::{KeyError, KeySet};
use serde_json::{Value, json};

use crate::identity::{HEAD, bearer, claims, issuer, now, rules};
use crate::keys::TestKey;
use crate::peer::{Peer, Reply, nobody};

#[tokio::test]
async fn without_keys_nothing_is_said_about_a_token() {
    let key = TestKey::generate();
    let keys = KeySet::new(Http::new().unwrap(), nobody());
    let token = key.token(HEAD, &claims().to_string());
    let verifier = Verifier::new(rules(Mode::Oidc), keys.clone());
    let refusal = verifier.verify(&bearer(&token), now()).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(!keys.loaded());
    // What is no token at all needs no key to be refused.
    let refusal = verifier.verify(&bearer("x.y.z"), now()).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Unauthenticated);
}

/// Moves the clock without letting time-outs of open connections fire on their own.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn sixty_four_cold_verifications_cost_one_fetch_and_all_succeed() {
    let issuer = Arc::new(issuer());
    let token = Arc::new(issuer.key.token(HEAD, &claims().to_string()));
    let callers: Vec<_> = (0..64)
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

#[tokio::test]
async fn ten_thousand_unknown_key_ids_cost_one_fetch_more_while_good_tokens_pass() {
    let issuer = issuer();
    let good = issuer.key.token(HEAD, &claims().to_string());
    let (_, signed) = good.split_once('.').unwrap();
    for number in 0..10_000 {
        let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","kid":"made-up-{number}"}}"#));
        assert_eq!(
            issuer.oidc(&format!("{head}.{signed}")).await,
            Err(RefusalKind::Unauthenticated)
        );
        if number % 100 == 0 {
            issuer.oidc(&good).await.unwrap();
        }
    }
    assert!(issuer.peer.requests().len() <= 2, "{}", issuer.peer.requests().len());
}

/// Hyper drops what a request does when its client hangs up. Somebody who sends a made-up key id and leaves must not
/// use up the one question a minute: no new key would be found until the old ones are over.
#[tokio::test]
async fn a_client_that_hangs_up_takes_no_question_with_it() {
    let (old, new) = (TestKey::generate(), TestKey::generate());
    let (set, next) = (json!({"keys": [old.jwk("old")]}), json!({"keys": [new.jwk("new")]}));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let peer = Peer::start(move |_, number| {
        if number == 0 {
            return Reply::json(200, set.clone()).with("Cache-Control", "max-age=3600");
        }
        wait.lock().unwrap().recv().unwrap();
        Reply::json(200, next.clone()).with("Cache-Control", "max-age=3600")
    });
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    keys.key("old").await.unwrap();
    let asked = tokio::spawn({
        let keys = keys.clone();
        async move { keys.key("made-up").await }
    });
    while peer.requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    go.send(()).unwrap();
    keys.key("new").await.unwrap();
    assert_eq!(peer.requests().len(), 2);
}

/// The same before there are any keys: each would begin a question of its own.
#[tokio::test]
async fn clients_that_hang_up_before_there_are_keys_ask_once() {
    let peer = Peer::replies(vec![Reply::Stall]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    for _ in 0..20 {
        let asked = tokio::spawn({
            let keys = keys.clone();
            async move { keys.key("k1").await }
        });
        while peer.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        // As far as it gets without an answer.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
    }
    assert_eq!(peer.requests().len(), 1);
}

#[tokio::test]
async fn the_servers_word_on_how_long_keys_are_good_is_kept() {
    let key = TestKey::generate();
    let second = Duration::from_secs(1);
    let day = Duration::from_secs(24 * 3600);
    let least = Duration::from_secs(5);
    for (cache_control, age, good_for) in [
        (
            Some("public, max-age=21155, must-revalidate, no-transform"),
            Some("12"),
            21143 * second,
        ),
        (Some("Public,MAX-AGE=100"), None, 100 * second),
        (Some("max-age=\"100\""), None, 100 * second),
        (Some("max-age=100, max-age=200"), None, 100 * second),
        (Some("s-maxage=7, max-age=100"), None, 100 * second),
        (Some("max-age=100"), Some("yesterday"), 100 * second),
        (Some("max-age=100"), Some("-5"), 100 * second),
        (None, None, 3600 * second),
        (Some("public"), Some("12"), 3600 * second),
        (Some("max-age=-1"), None, 3600 * second),
        // Within bounds, whatever it says: a set is neither asked for all the time nor kept for ever.
        (Some("max-age=0"), None, least),
        (Some("no-store"), None, least),
        (Some("no-cache, max-age=100"), None, least),
        (Some("max-age=100"), Some("100"), least),
        (Some("max-age=100"), Some("99999999999999999999999"), least),
        (Some("max-age=31536000"), None, day),
        (Some("max-age=99999999999999999999999"), None, day),
    ] {
        let mut reply = Reply::json(200, json!({"keys": [key.jwk("k1")]}));
        for (name, value) in [("Cache-Control", cache_control), ("Age", age)] {
            if let Some(value) = value {
                reply = reply.with(name, value);
            }
        }
        let about = format!("{cache_control:?} {age:?}");
        let peer = Peer::replies(vec![reply]);
        let keys = KeySet::new(Http::new().unwrap(), &peer.url);
        keys.key("k1").await.unwrap();
        // The clock also goes on its own: a slow machine gets some of it.
        pass(good_for - 3 * second).await;
        keys.key("k1").await.unwrap();
        assert_eq!(peer.requests().len(), 1, "{about}: asked too early");
        pass(3 * second).await;
        keys.key("k1").await.unwrap();
        assert_eq!(peer.requests().len(), 2, "{about}: asked too late");
    }
}

#[tokio::test]
async fn while_the_keys_are_stale_and_nobody_answers_good_tokens_wait_once_and_then_not_at_all() {
    let key = TestKey::generate();
    let set = json!({"keys": [key.jwk("k1")]});
    let peer = Peer::replies(vec![
        Reply::json(200, set).with("Cache-Control", "max-age=60"),
        Reply::status(503),
        Reply::Stall,
    ]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    keys.key("k1").await.unwrap();
    pass(Duration::from_secs(61)).await;
    // The first one asks and is told that there is nothing new.
    keys.key("k1").await.unwrap();
    assert_eq!(peer.requests().len(), 2);
    // The second question is never answered, and nobody waits for it: while they are served it cannot even be put.
    pass(Duration::from_secs(30)).await;
    for _ in 0..100 {
        keys.key("k1").await.unwrap();
    }
    assert_eq!(peer.requests().len(), 2, "somebody waited");
    while peer.requests().len() < 3 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        keys.key("k1").await.unwrap();
    }
    assert_eq!(peer.requests().len(), 3, "one question at a time");
}

#[tokio::test]
async fn after_a_rest_stale_keys_are_not_used_before_new_ones_were_asked_for() {
    let (old, new) = (TestKey::generate(), TestKey::generate());
    let peer = Peer::replies(vec![
        Reply::json(200, json!({"keys": [old.jwk("old")]})).with("Cache-Control", "max-age=60"),
        Reply::status(503),
        Reply::json(200, json!({"keys": [new.jwk("new")]})),
    ]);
    let keys = KeySet::new(Http::new().unwrap(), &peer.url);
    keys.key("old").await.unwrap();
    pass(Duration::from_secs(61)).await;
    keys.key("old").await.unwrap();
    // Without a request, and so without a processor.
    pass(Duration::from_secs(400)).await;
    assert!(matches!(keys.key("old").await, Err(KeyError::Unknown)));
    keys.key("new").await.unwrap();
}

/// A key server that sends one byte of its answer at a time, for ever.
fn dripping() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 4096]).unwrap();
            let _head = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
            // Until the client is gone.
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    url
}

#[tokio::test]
async fn a_key_server_that_drips_is_left_in_time() {
    let keys = KeySet::new(Http::new().unwrap(), dripping());
    let asked = tokio::spawn({
        let keys = keys.clone();
        async move { keys.key("k1").await }
    });
    // Never a pause long enough for a time-out between bytes: only the limit on the whole ends it.
    while !asked.is_finished() {
        pass(Duration::from_millis(50)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let Err(KeyError::Unavailable(error)) = asked.await.unwrap() else {
        panic!("no answer is no key")
    };
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.to_string().contains("no complete answer"), "{error}");
}

#[tokio::test]
async fn keys_that_are_not_for_tokens_stay_out_and_the_others_count() {
    let (good, other) = (TestKey::generate(), TestKey::generate());
    let mut jwks = vec![good.jwk("k1")];
    for (number, (field, value)) in [
        ("use", "enc"),
        ("alg", "RS512"),
        ("kty", "EC"),
        ("e", "Aw"),
        ("n", "AQAB"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut jwk = other.jwk(&format!("bad-{number}"));
        jwk[field] = value.into();
        jwks.push(jwk);
    }
    jwks.push(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "bad-5", "alg": "HS256"}));
    let peer = Peer::replies(vec![Reply::json(200, json!({"keys": jwks}))]);
    let verifier = Verifier::new(rules(Mode::Oidc), KeySet::new(Http::new().unwrap(), &peer.url));
    for number in 0..6 {
        let head = format!(r#"{{"alg":"RS256","kid":"bad-{number}"}}"#);
        let refusal = verifier
            .verify(&bearer(&other.token(&head, &claims().to_string())), now())
            .await
            .unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Unauthenticated, "{number}");
    }
    let token = good.token(HEAD, &claims().to_string());
    verifier.verify(&bearer(&token), now()).await.unwrap();
}
