//! The last delivery of a message that cannot be served now: a result says so, and the message still reaches the dead
//! letter.

use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer, Subscription};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{INPUT, PATIENCE, World, gives_up, notification, signal, until};

const INVOICE: &str = "documents/plain/invoice.docx";
const NAME: &str = "projects/local-project/subscriptions/with-dead-letter";

fn fault(peer: Peer, method: &str, path_prefix: &str, count: u32, status: u16) -> Fault {
    Fault {
        count,
        ..Fault::once(peer, method, path_prefix, Effect::status(status))
    }
}

/// The worker may not read the source: refused with 503 at once, and however often it is tried.
fn source_is_closed() -> Fault {
    fault(Peer::Storage, "GET", "/storage/v1/b/input/", 1_000_000, 403)
}

/// The requests that a rule has seen which never comes to its turn.
fn counter(peer: Peer, path_prefix: &str) -> Fault {
    Fault {
        skip: 1_000_000,
        ..fault(peer, "GET", path_prefix, 1, 500)
    }
}

async fn counted(world: &World, path_prefix: &str) -> u64 {
    let url = format!("{}/_faults", world.cloud.urls().pubsub);
    let rules: Value = world.http.get(url).send().await.unwrap().json().await.unwrap();
    let rules = rules.as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["pathPrefix"] == path_prefix).unwrap();
    1_000_000 - rule["skip"].as_u64().unwrap()
}

/// What docs/messages.md has an operator grant, on a subscription of the test's own.
fn let_it_look_at(world: &World, subscription: &str) {
    world.cloud.give(
        "worker",
        "pubsub.subscriptions.get",
        &format!("subscription/{subscription}"),
    );
}

/// A pulled subscription that has the dead-letter policy of the pushes that a test makes itself.
fn subscription(world: &World, most: Option<u32>) {
    let_it_look_at(world, NAME);
    world.cloud.create_topic("dead-letters").unwrap();
    world
        .cloud
        .create_subscription(&Subscription {
            name: "with-dead-letter",
            topic: "events",
            dead_letter: most.map(|most| ("dead-letters", most)),
            ..Subscription::default()
        })
        .unwrap();
}

fn delivery(event: &Value, attempt: u32) -> Value {
    let mut event = event.clone();
    event["deliveryAttempt"] = attempt.into();
    event["subscription"] = NAME.into();
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_delivery_is_reported_and_refused_all_the_same() {
    let world = World::start().await;
    subscription(&world, Some(7));
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    world.cloud.add_fault(source_is_closed());
    let path = format!("/v1/{NAME}");
    world.cloud.add_fault(counter(Peer::Pubsub, &path));
    for attempt in 1..=6 {
        assert_eq!(world.post(&delivery(&event, attempt)).await.status(), 503, "{attempt}");
    }
    // Without an attempt nobody knows that it is the last.
    assert_eq!(world.post(&event).await.status(), 503);
    if let Some(result) = world.pull().await {
        panic!("none of these was the last: {}", result.data);
    }
    for attempt in [7, 8] {
        let answer = world.post(&delivery(&event, attempt)).await;
        assert_eq!(answer.status(), 503, "acknowledged, it would not reach the dead letter");
        assert!(answer.headers().contains_key("retry-after"));
        let result = world.result().await;
        let data = &result.data;
        assert_eq!(data["status"], "failed", "{data}");
        assert_eq!(
            (&data["error"]["code"], &result.attributes["code"]),
            (&json!("attempts.exhausted"), &"attempts.exhausted".to_owned())
        );
        let detail = &data["error"]["detail"];
        assert_eq!(
            (&detail["attempt"], &detail["maximum"]),
            (&json!(attempt), &json!(7)),
            "{data}"
        );
        assert_eq!(detail["cause"]["code"], "unavailable");
        let cause = detail["cause"]["message"].as_str().unwrap();
        assert!(cause.contains("storage.objects.get"), "{cause}");
        assert!(data["error"]["message"].as_str().unwrap().contains(cause), "{data}");
        assert_eq!(data["outputs"], json!([]));
        assert_eq!((&data["attempt"], &data["messageId"]), (&json!(attempt), &json!("1")));
        assert_eq!(data["source"]["name"], "invoice.docx");
        assert_eq!(data["source"]["generation"], generation.as_str());
        assert_eq!(data["jobId"].as_str().map(str::len), Some(32));
        for secret in [&world.token(), "ya29.", "Bearer"] {
            assert!(!data.to_string().contains(secret), "{data}");
        }
    }
    assert!(world.pull().await.is_none(), "one was published twice");
    assert_eq!(counted(&world, &path).await, 1, "it was asked more than once");
    // Replayed once its cause is gone, the same job has another end.
    let exhausted = world.result_of(&delivery(&event, 7)).await;
    world.cloud.clear_faults();
    assert_eq!(world.post(&event).await.status(), 204);
    let replayed = world.result().await.data;
    assert_eq!(replayed["status"], "succeeded");
    assert_eq!(replayed["jobId"], exhausted["jobId"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pubsub_delivers_five_times_and_then_the_dead_letter_and_a_result_are_there() {
    let world = World::start().await;
    world.cloud.create_topic("closed").unwrap();
    world.cloud.create_topic("dead-letters").unwrap();
    let dead = world
        .cloud
        .create_subscription(&Subscription {
            name: "dead-letters",
            topic: "dead-letters",
            ..Subscription::default()
        })
        .unwrap();
    let pushed = world
        .cloud
        .create_subscription(&Subscription {
            name: "pushed",
            topic: "closed",
            push_endpoint: Some(&world.worker.url),
            audience: Some(crate::harness::AUDIENCE),
            service_account: Some(&world.cloud.settings().push_service_account),
            ack_deadline_seconds: Some(600),
            dead_letter: Some(("dead-letters", 5)),
            ..Subscription::default()
        })
        .unwrap();
    let_it_look_at(&world, &pushed);
    gives_up(&world.cloud, &pushed, "projects/local-project/topics/dead-letters");
    world.upload_fixture(INVOICE, "invoice.docx").await;
    world.cloud.add_fault(source_is_closed());
    let attributes = [("bucketId", INPUT), ("objectId", "invoice.docx")];
    let id = world.cloud.publish("closed", &[], &attributes).unwrap();
    until("the message is in the dead letter", || {
        (world.cloud.backlog(&dead).unwrap() == 1).then_some(())
    })
    .await;
    assert_eq!(world.cloud.backlog(&pushed).unwrap(), 0);
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "attempts.exhausted", "{result}");
    assert_eq!(
        (&result["messageId"], &result["attempt"]),
        (&json!(id), &json!(5)),
        "{result}"
    );
    assert!(world.pull().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variable_says_how_many_and_then_nobody_is_asked() {
    let world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "6")]).await;
    subscription(&world, Some(5));
    let event = notification("invoice.docx", &world.upload_fixture(INVOICE, "invoice.docx").await);
    world.cloud.add_fault(source_is_closed());
    let path = format!("/v1/{NAME}");
    world.cloud.add_fault(counter(Peer::Pubsub, &path));
    assert_eq!(world.post(&delivery(&event, 5)).await.status(), 503);
    assert!(world.pull().await.is_none());
    assert_eq!(
        world.result_of(&delivery(&event, 6)).await["error"]["detail"]["maximum"],
        6
    );
    assert_eq!(counted(&world, &path).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_cannot_be_read_counts_as_googles_default_and_is_said_once() {
    let world = World::start().await;
    let event = notification("invoice.docx", &world.upload_fixture(INVOICE, "invoice.docx").await);
    world.cloud.add_fault(source_is_closed());
    // Refused, not there, and named like nothing that could be asked for.
    world
        .cloud
        .add_fault(fault(Peer::Pubsub, "GET", &format!("/v1/{NAME}"), 1, 403));
    let named = |name: Value| {
        let mut event = delivery(&event, 5);
        event["subscription"] = name;
        event
    };
    for name in [
        json!(NAME),
        json!("projects/local-project/subscriptions/none"),
        json!("x/../y"),
        json!("x".repeat(100_000)),
        json!(5),
    ] {
        let result = world.result_of(&named(name)).await;
        assert_eq!(result["error"]["detail"]["maximum"], 5, "{result}");
    }
    until("the log has it", || {
        world.worker.log().contains("MAX_DELIVERY_ATTEMPTS").then_some(())
    })
    .await;
    let log = world.worker.log();
    assert_eq!(log.matches("MAX_DELIVERY_ATTEMPTS").count(), 1, "{log:.5000}");
    assert!(log.contains("platen_inspector --project=local-project"), "{log:.5000}");
    assert!(log.len() < 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_delays_the_refusal_and_does_not_prevent_the_result() {
    let world = World::start().await;
    let event = notification("invoice.docx", &world.upload_fixture(INVOICE, "invoice.docx").await);
    world.cloud.add_fault(source_is_closed());
    world.cloud.add_fault(Fault {
        effect: Effect::Silence { silence: true },
        ..fault(Peer::Pubsub, "GET", &format!("/v1/{NAME}"), 1000, 500)
    });
    // All at once: they share the question, and its silence.
    let event = delivery(&event, 5);
    let deliveries = (0..4).map(|_| world.post(&event));
    let answers = tokio::time::timeout(PATIENCE, futures_util::future::join_all(deliveries))
        .await
        .unwrap();
    for answer in answers {
        assert_eq!(answer.status(), 503);
        assert_eq!(world.result().await.data["error"]["code"], "attempts.exhausted");
    }
    let url = format!("{}/_faults", world.cloud.urls().pubsub);
    let rules: Value = world.http.get(url).send().await.unwrap().json().await.unwrap();
    let silent = rules
        .as_array()
        .unwrap()
        .iter()
        .find(|rule| rule["count"] != 0 && rule["peer"] == "pubsub");
    assert_eq!(silent.unwrap()["count"], 999, "{rules}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dead_letter_no_delivery_is_the_last() {
    let world = World::start().await;
    subscription(&world, None);
    let event = notification("invoice.docx", &world.upload_fixture(INVOICE, "invoice.docx").await);
    world.cloud.add_fault(source_is_closed());
    for attempt in [5, 100, 1000] {
        assert_eq!(world.post(&delivery(&event, attempt)).await.status(), 503);
    }
    assert!(world.pull().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_worker_reports_too_and_a_job_that_ends_does_not() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1"), ("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let first = notification("a.docx", &world.upload_fixture(INVOICE, "a.docx").await);
    let second = notification("b.docx", &world.upload_fixture(INVOICE, "b.docx").await);
    let zygote = world.worker.zygote().await;
    let meanwhile = async {
        let child = world.worker.stopped_child(zygote).await;
        assert_eq!(world.post(&delivery(&second, 5)).await.status(), 429);
        let result = world.result().await.data;
        assert_eq!(result["error"]["detail"]["cause"]["code"], "busy", "{result}");
        assert_eq!(result["source"]["name"], "b.docx");
        assert!(signal(child, Signal::SIGCONT));
    };
    let first = delivery(&first, 5);
    let (answer, ()) = tokio::join!(world.post(&first), meanwhile);
    assert_eq!(answer.status(), 204);
    let result = world.result().await.data;
    assert_eq!(
        (&result["status"], &result["attempt"]),
        (&json!("succeeded"), &json!(5))
    );
    assert!(world.pull().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_no_event_or_was_not_allowed_in_is_never_reported() {
    let world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let broken = json!({"message": {"messageId": "1"}, "deliveryAttempt": 5, "subscription": NAME});
    assert_eq!(world.post(&broken).await.status(), 400);
    let event = delivery(&notification("invoice.docx", "1"), 5).to_string();
    assert_eq!(world.request(event.clone()).send().await.unwrap().status(), 401);
    let stranger = world.cloud.claims(
        "stranger@local-project.iam.gserviceaccount.com",
        crate::harness::AUDIENCE,
    );
    let stranger = world.request(event).bearer_auth(world.cloud.id_token(&stranger));
    assert_eq!(stranger.send().await.unwrap().status(), 403);
    assert!(world.pull().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_published_is_an_error_in_the_log_and_the_answer_stays() {
    let world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "5"), ("LOG_FORMAT", "json")]).await;
    let mut event = notification("invoice.docx", &world.upload_fixture(INVOICE, "invoice.docx").await);
    event["message"]["messageId"] = "4711".into();
    world.cloud.add_fault(source_is_closed());
    let publish = "/v1/projects/local-project/topics/results:publish";
    world.cloud.add_fault(fault(Peer::Pubsub, "POST", publish, 1000, 404));
    assert_eq!(world.post(&delivery(&event, 5)).await.status(), 503);
    // What the worker has written may still be on its way here.
    let lines: Vec<Value> = until("the log has it", || {
        let log = world.worker.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let lines: Vec<Value> = lines
            .filter(|line: &Value| line["severity"] == "ERROR" && line["messageId"] == "4711")
            .collect();
        (lines.len() > 1).then_some(lines)
    })
    .await;
    // And the delivery's own.
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, part) in lines
        .iter()
        .zip(["without a result", "503: storage.objects.get on gs://input/"])
    {
        assert!(line["message"].as_str().unwrap().contains(part), "{lines:?}");
    }
}

/// A head that has arrived in part keeps its connection open when the worker is told to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_delivery_that_comes_while_shutting_down_is_reported() {
    let world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let first = notification("a.docx", &world.upload_fixture(INVOICE, "a.docx").await);
    let second = notification("b.docx", &world.upload_fixture(INVOICE, "b.docx").await);
    let ignored = notification("folder/", "1");
    let zygote = world.worker.zygote().await;
    let meanwhile = async {
        let child = world.worker.stopped_child(zygote).await;
        let mut open = Vec::new();
        for event in [&ignored, &second] {
            let body = delivery(event, 5).to_string();
            let head = format!(
                "POST / HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
                world.token(),
                body.len()
            );
            let mut stream = tokio::net::TcpStream::connect(world.worker.url.trim_start_matches("http://"))
                .await
                .unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            open.push((stream, body));
        }
        // What the worker has read of them cannot be seen from outside; that it accepted later connections can.
        let live = format!("{}/health/live", world.worker.url);
        assert_eq!(world.http.get(&live).send().await.unwrap().status(), 200);
        assert!(signal(world.worker.pid(), Signal::SIGTERM));
        until("it says so", || {
            world.worker.log().contains("shutting down").then_some(())
        })
        .await;
        for (mut stream, body) in open {
            stream.write_all(format!("\r\n{body}").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}\n{}", world.worker.log());
        }
        let result = world.result().await.data;
        assert_eq!(result["error"]["code"], "attempts.exhausted", "{result}");
        assert!(
            result["error"]["message"].as_str().unwrap().contains("shutting down"),
            "{result}"
        );
        assert_eq!(result["source"]["name"], "b.docx", "{result}");
        assert!(signal(child, Signal::SIGCONT));
    };
    let first = delivery(&first, 5);
    let (answer, ()) = tokio::join!(world.post(&first), meanwhile);
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
    assert_eq!(world.result().await.data["status"], "succeeded");
    assert!(world.pull().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_delivery_that_the_shutdown_ends_is_reported() {
    let mut world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let event = notification("a.docx", &world.upload_fixture(INVOICE, "a.docx").await);
    let zygote = world.worker.zygote().await;
    let pid = world.worker.pid();
    let meanwhile = async {
        world.worker.stopped_child(zygote).await;
        assert!(signal(pid, Signal::SIGTERM));
        until("it says so", || {
            world.worker.log().contains("shutting down").then_some(())
        })
        .await;
        // The second one ends what is under way at once.
        assert!(signal(pid, Signal::SIGTERM));
    };
    let event = delivery(&event, 5);
    let (answer, ()) = tokio::join!(world.post(&event), meanwhile);
    assert_eq!(answer.status(), 503, "{}", world.worker.log());
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "attempts.exhausted", "{result}");
    assert_eq!(world.worker.exit().await, Some(0));
}

/// Nobody delivers it again, so that what it comes to must not hang on its caller.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_delivery_goes_on_to_its_result_when_its_caller_has_hung_up() {
    let world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let event = delivery(
        &notification("a.docx", &world.upload_fixture(INVOICE, "a.docx").await),
        5,
    );
    let zygote = world.worker.zygote().await;
    for killed in [true, false] {
        let child = tokio::select! {
            answer = world.post(&event) => panic!("an answer before the child was stopped: {}", answer.status()),
            child = world.worker.stopped_child(world.worker.zygote().await) => child,
        };
        if killed {
            assert!(signal(zygote, Signal::SIGKILL));
            let result = world.result().await.data;
            assert_eq!(result["error"]["code"], "attempts.exhausted", "{result}");
            until("there is another zygote", || {
                let zygotes = crate::harness::children(world.worker.pid());
                zygotes.iter().any(|pid| *pid != zygote).then_some(())
            })
            .await;
            world.warm().await;
        } else {
            assert!(signal(child, Signal::SIGCONT));
            assert_eq!(world.result().await.data["status"], "succeeded");
        }
    }
    assert!(world.pull().await.is_none());
}

/// One that may be the last, and is not, is refused to nobody: the log has it all the same, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_whose_caller_has_hung_up_has_its_line() {
    let world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "6")]).await;
    let event = delivery(
        &notification("a.docx", &world.upload_fixture(INVOICE, "a.docx").await),
        5,
    );
    let child = tokio::select! {
        answer = world.post(&event) => panic!("an answer before the child was stopped: {}", answer.status()),
        child = world.worker.stopped_child(world.worker.zygote().await) => child,
    };
    assert!(
        world
            .cloud
            .take_away("worker", "storage.objects.create", "bucket/output")
    );
    assert!(signal(child, Signal::SIGCONT));
    let lines = || -> Vec<String> {
        let log = world.worker.log();
        let refused = log
            .lines()
            .filter(|line| line.contains("storage.objects.create on gs://output"));
        refused.map(str::to_owned).collect()
    };
    until("it is refused", || (!lines().is_empty()).then_some(())).await;
    let worker = &world.cloud.settings().worker_service_account;
    let line = &lines()[0];
    for part in ["ERROR", "refused after its caller had hung up", "a.docx", worker] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(world.pull().await.is_none(), "it was not the last");
    assert_eq!(lines().len(), 1, "{:?}", lines());
}

/// And the worker's end waits for it, though no connection is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_delivery_whose_caller_has_hung_up_is_finished_before_the_worker_ends() {
    let mut world = World::with(&[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let event = notification("a.docx", &world.upload_fixture(INVOICE, "a.docx").await);
    let zygote = world.worker.zygote().await;
    // On a connection of its own, that ends with it.
    let body = delivery(&event, 5).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        world.token(),
        body.len()
    );
    let address = world.worker.url.trim_start_matches("http://").to_owned();
    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    caller.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let child = world.worker.stopped_child(zygote).await;
    drop(caller);
    // Nothing else is open: what this test has asked is closed by the worker.
    assert!(signal(world.worker.pid(), Signal::SIGTERM));
    until("it says so", || {
        world.worker.log().contains("shutting down").then_some(())
    })
    .await;
    assert!(signal(child, Signal::SIGCONT));
    assert_eq!(world.worker.exit().await, Some(0), "{}", world.worker.log());
    let log = world.worker.log();
    assert!(log.contains("all work has ended"), "{log}");
    assert_eq!(world.result().await.data["status"], "succeeded");
    assert!(world.pull().await.is_none());
}

impl World {
    /// Waits until the engine is warm again.
    async fn warm(&self) {
        let ready = format!("{}/health/ready", self.worker.url);
        let warm = async {
            while self.http.get(&ready).send().await.unwrap().status() != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, warm).await.unwrap();
    }

    /// The result of a delivery that is refused with 503.
    async fn result_of(&self, delivery: &Value) -> Value {
        let answer = tokio::time::timeout(PATIENCE, self.post(delivery)).await.unwrap();
        assert_eq!(answer.status(), 503, "{:.3000}", self.worker.log());
        self.result().await.data
    }
}
