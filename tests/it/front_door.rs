//! The worker as a private Cloud Run service: the platform verifies the token and removes its signature, and the worker
//! checks all that is left. And refusals, which tell nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{AUDIENCE, World, notification};

/// No conversion is needed to see who comes in.
fn event() -> Value {
    let mut event = notification("a.docx", "1");
    event["message"]["attributes"]["eventType"] = "OBJECT_DELETE".into();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_platforms_door_only_what_it_has_checked_comes_in() {
    let world = World::with(&[("PUSH_AUTH", "cloud-run-iam")]).await;
    let push = world.cloud.settings().push_service_account.clone();
    let invoker = "invoker@local-project.iam.gserviceaccount.com";
    world.cloud.create_service_account(invoker);
    world.cloud.open_front_door(
        &world.worker.url,
        &[AUDIENCE, "https://other.example"],
        &[&push, invoker],
    );
    let door = world.cloud.urls().front_door.clone();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = world.http.post(&door).body(event().to_string());
        for (name, token) in headers {
            request = request.header(*name, format!("Bearer {token}"));
        }
        request.send().await.unwrap().status().as_u16()
    };
    let token = |email: &str, audience: &str| world.cloud.id_token(&world.cloud.claims(email, audience));
    let good = token(&push, AUDIENCE);
    assert_eq!(send(&[("authorization", &good)]).await, 204, "{}", world.worker.log());
    // The platform lets these in; they are not the worker's callers.
    assert_eq!(send(&[("authorization", &token(invoker, AUDIENCE))]).await, 403);
    assert_eq!(
        send(&[("authorization", &token(&push, "https://other.example"))]).await,
        403
    );
    // Whoever may invoke the service puts a forged token beside its own: the platform does not look at it.
    let forged = format!("{}.SIGNATURE_REMOVED_BY_GOOGLE", good.rsplit_once('.').unwrap().0);
    let own = token(invoker, AUDIENCE);
    let smuggled = [("x-serverless-authorization", own.as_str()), ("authorization", &forged)];
    assert_eq!(send(&smuggled).await, 401);
    assert_eq!(send(&[("x-serverless-authorization", &good)]).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_401_is_the_same_answer_and_a_token_elsewhere_is_none() {
    let world = World::start().await;
    let good = world.token();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let cases = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some(format!("Basic {good}")),
        Some(format!("Bearer {signed}.")),
        Some(format!("Bearer {signed}.{}", signature.replace('A', "B"))),
        Some(format!("Bearer {signed}.SIGNATURE_REMOVED_BY_GOOGLE")),
        Some(format!("Bearer {head}.{}.{signature}", claims.replace('a', "b"))),
        Some("Bearer ya29.an-access-token".to_owned()),
        Some(format!("Bearer {}", "k".repeat(10_000))),
    ];
    let mut answers = BTreeSet::new();
    for value in cases {
        let mut request = world
            .http
            .post(format!("{}/?access_token={good}&token={good}", world.worker.url))
            .header("cookie", format!("token={good}"))
            .header("x-goog-iap-jwt-assertion", &good)
            .header("proxy-authorization", format!("Bearer {good}"))
            .body(event().to_string());
        if let Some(value) = &value {
            request = request.header("authorization", value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401, "{value:?}");
        let headers: Vec<_> = answer
            .headers()
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        answers.insert((headers, answer.text().await.unwrap()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

/// Whoever floods a worker that is open to all pays with a token's worth of bytes; the worker must not pay with a line
/// of its log for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_without_tokens_does_not_flood_the_log() {
    let world = World::start().await;
    let send = async |token: &str| {
        let request = world.http.post(&world.worker.url).bearer_auth(token).body("{}");
        assert_eq!(request.send().await.unwrap().status(), 401);
    };
    for number in 0..1000 {
        send(&format!("a.b.{number}")).await;
    }
    let lines = || {
        world
            .worker
            .log()
            .lines()
            .filter(|line| line.contains("401: the token"))
            .count()
    };
    assert!((1..1000).contains(&lines()), "{} lines", lines());
    // The first one of a later second says how many there were. It costs a request to hear it.
    let counted = || world.worker.log().contains("401:") && world.worker.log().contains("more requests were refused");
    while !counted() {
        send("a.b.c").await;
        tokio::task::yield_now().await;
    }
}
