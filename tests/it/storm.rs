//! A storm: thousands of messages, three workers, faults on every way, and workers that die. Whatever breaks, every
//! message ends in a result or in the dead letter, and every output is the right one.
//!
//! 150 messages in the suite; `PLATEN_STORM=10000` for the whole storm. The engine is the real one, the documents are
//! tiny. One seed (`PLATEN_SEED`) fixes what is published, in which order, which requests meet which fault, and who is
//! killed; what runs beside what is the machine's choice.

mod check;
mod documents;
mod door;
mod feed;
mod fleet;
mod results;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use platen::local_cloud::{Effect, Fault, LocalCloud, Peer, Settings, Subscription};

use self::door::Door;
use self::feed::Feed;
use self::fleet::Fleet;
use self::results::Results;
use crate::harness::{AUDIENCE, INPUT, OUTPUT, USER, client, versioned_input};

/// Deliveries before a message is given up.
const ATTEMPTS: u32 = 12;
const WORKERS: usize = 3;
/// A second bucket of sources. It keeps what is replaced: what is late finds its generation, and must not win.
const ARCHIVE: &str = "archive";
/// Of how many requests to each peer one meets a fault: 5 %.
const PROBABILITY: f64 = 0.05;
/// What takes the whole of a time-out is rarer, or the storm would be a calm: one of 500, and none in a short one.
const RARE: f64 = 0.002;
const WITH_STALLS: u64 = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn every_message_ends_in_a_result_or_in_the_dead_letter() {
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (count, seed) = (number("PLATEN_STORM", 150), number("PLATEN_SEED", 20_260_101));
    println!("PLATEN_STORM={count} PLATEN_SEED={seed} cargo test --test it storm:: -- --nocapture");
    let cloud = cloud().await;
    let door = Door::open(WORKERS).await;
    // Before there are faults: whether a worker starts under them is shown by each that is killed.
    let mut fleet = Fleet::start(&cloud, &door, seed).await;
    let push = subscribe(&cloud, &door);
    let mut feed = Feed::new(&cloud, seed, usize::try_from(count).unwrap()).await;
    let already_unconditional = cloud.unconditional_writes(OUTPUT).unwrap();
    script_faults(&cloud, seed, count >= WITH_STALLS);

    let mut results = Results::new(&cloud);
    let over = AtomicBool::new(false);
    let every = usize::try_from(count).unwrap().div_ceil(60).max(20);
    tokio::join!(
        async {
            feed.all(&cloud, &push).await;
            over.store(true, Ordering::Release);
        },
        fleet.kill_now_and_then(&door, every, &over),
        results.collect_until(&over),
    );
    cloud.clear_faults();
    fleet.stop().await;
    results.collect_the_rest().await;

    let ways = check::messages(&feed.ledger, &results, &door);
    let outputs = check::outputs(&cloud, &feed.ledger, &results).await;
    println!("{}", table::table(&ways, &outputs, &door, &fleet, &cloud));
    assert_eq!(
        cloud.unconditional_writes(OUTPUT).unwrap(),
        already_unconditional,
        "an object was written whatever was there"
    );
    check::exercised(&cloud, &fleet, count >= WITH_STALLS);
    assert!(ways.problems.is_empty(), "{}", ways.problems.join("\n"));
    assert!(outputs.problems.is_empty(), "{}", outputs.problems.join("\n"));
}

/// Pub/Sub runs twenty times as fast, tokens and keys are short-lived, and the output bucket keeps what is replaced.
async fn cloud() -> LocalCloud {
    let cloud = LocalCloud::start(Settings {
        pubsub_second: Duration::from_millis(50),
        push_window: 12,
        key_set_max_age: Duration::from_secs(5),
        key_set_age: Duration::ZERO,
        access_token_lifetime: TimeDelta::seconds(30),
        ..Settings::default()
    })
    .await
    .unwrap();
    cloud.create_bucket(INPUT, false).unwrap();
    cloud.create_bucket(OUTPUT, true).unwrap();
    for topic in ["events", "results", "given-up", feed::MARKS] {
        cloud.create_topic(topic).unwrap();
    }
    for (name, topic) in [("results", "results"), ("given-up", "given-up")] {
        let pulled = Subscription {
            name,
            topic,
            ack_deadline_seconds: Some(600),
            ..Subscription::default()
        };
        cloud.create_subscription(&pulled).unwrap();
    }
    cloud.create_service_account(USER);
    cloud
        .enforce(&[
            ("bucket/input", INPUT),
            ("bucket/output", OUTPUT),
            ("topic/events", "events"),
            ("topic/results", "results"),
            ("topic/dead-letter", "given-up"),
            ("subscription/push", "push"),
        ])
        .unwrap();
    versioned_input(&cloud, ARCHIVE);
    cloud
}

fn subscribe(cloud: &LocalCloud, door: &Door) -> String {
    cloud
        .create_subscription(&Subscription {
            name: "push",
            topic: "events",
            push_endpoint: Some(&door.url),
            audience: Some(AUDIENCE),
            service_account: Some(&cloud.settings().push_service_account),
            ack_deadline_seconds: Some(600),
            retry_seconds: Some((1, 10)),
            dead_letter: Some(("given-up", ATTEMPTS)),
            ordered: true,
            ..Subscription::default()
        })
        .unwrap()
}

/// Faults of every kind on every way that a worker goes, and on the way to it.
fn script_faults(cloud: &LocalCloud, seed: u64, stalls: bool) {
    let rare = if stalls { RARE } else { 0.0 };
    let status = |status: u16, retry_after: Option<u64>| Effect::Status { status, retry_after };
    let usual = || {
        vec![
            status(500, None),
            status(503, None),
            status(429, Some(1)),
            Effect::Reset { reset: true },
            Effect::LoseAnswer { lose_answer: true },
            Effect::Cut { cut_after: 5 },
            Effect::Delay {
                delay_milliseconds: 400,
            },
            Effect::Drip {
                drip_bytes: 200,
                every_milliseconds: 10,
            },
        ]
    };
    let with = |more: &[Effect]| [usual(), more.to_vec()].concat();
    let corrupt = Effect::Corrupt { corrupt: true };
    let cut_request = |bytes| Effect::CutRequest {
        cut_request_after: bytes,
    };
    let stall = || vec![Effect::Stall { stall_after: 20 }, Effect::Silence { silence: true }];
    let pushes = vec![
        status(503, None),
        Effect::Reset { reset: true },
        Effect::LoseAnswer { lose_answer: true },
        cut_request(50),
        Effect::Delay {
            delay_milliseconds: 400,
        },
    ];
    // What no retry helps against, so that some messages are given up.
    let forbidden = Fault {
        peer: Some(Peer::Storage),
        method: Some("GET".to_owned()),
        path_prefix: format!("/storage/v1/b/{INPUT}/o/cursed"),
        skip: 0,
        count: Fault::ENDLESS,
        effect: status(403, None),
    };
    cloud.add_fault(forbidden);
    let results = "/v1/projects/local-project/topics/results:publish";
    let ways: [(Peer, &str, &str, f64, Vec<Effect>); 11] = [
        (Peer::Storage, "GET", "/storage/v1/b/", PROBABILITY, usual()),
        (Peer::Storage, "GET", "/storage/v1/b/", rare, stall()),
        (Peer::Storage, "GET", "/download/", PROBABILITY, with(&[corrupt])),
        (Peer::Storage, "GET", "/download/", rare, stall()),
        (
            Peer::Storage,
            "POST",
            "/upload/storage/v1/b/output/",
            PROBABILITY,
            with(&[cut_request(100)]),
        ),
        (Peer::Pubsub, "POST", results, PROBABILITY, with(&[cut_request(100)])),
        (
            Peer::Pubsub,
            "GET",
            "/v1/projects/local-project/subscriptions/",
            PROBABILITY,
            usual(),
        ),
        (
            Peer::Iam,
            "POST",
            "/v1/projects/-/serviceAccounts/",
            PROBABILITY,
            usual(),
        ),
        (Peer::Metadata, "GET", "/", PROBABILITY, usual()),
        (Peer::Jwks, "GET", "/", PROBABILITY, usual()),
        (Peer::Push, "POST", "/", PROBABILITY, pushes),
    ];
    for (number, (peer, method, path_prefix, probability, one_of)) in (1..).zip(ways) {
        cloud.add_fault(Fault {
            count: Fault::ENDLESS,
            ..Fault::once(
                peer,
                method,
                path_prefix,
                Effect::Chance {
                    probability,
                    seed: seed.wrapping_add(number),
                    one_of,
                },
            )
        });
    }
}

/// A client with the user's token.
async fn call(request: reqwest::RequestBuilder, cloud: &LocalCloud) -> serde_json::Value {
    let answer = request.bearer_auth(cloud.access_token(USER)).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn http() -> reqwest::Client {
    client()
}
