//! What Google's side and the engine do to a job under way: nothing is lost, nothing is doubled, nothing is left.

use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::json;

use crate::harness::{INPUT, OUTPUT, World, job, notification, signal, until};

const INVOICE: &str = "documents/plain/invoice.docx";

fn fault(peer: Peer, method: &str, path_prefix: &str, count: u32, effect: Effect) -> Fault {
    Fault {
        count,
        ..Fault::once(peer, method, path_prefix, effect)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_of_every_api_are_ridden_out() {
    let world = World::start().await;
    world.notify();
    for fault in [
        fault(Peer::Storage, "GET", "/storage/v1/b/input/", 1, Effect::status(503)),
        fault(Peer::Storage, "GET", "/download/", 1, Effect::Cut { cut_after: 1000 }),
        fault(Peer::Storage, "GET", "/download/", 1, Effect::Reset { reset: true }),
        fault(
            Peer::Storage,
            "POST",
            "/upload/storage/v1/b/output/",
            1,
            Effect::status(500),
        ),
        fault(
            Peer::Iam,
            "POST",
            "/v1/projects/-/serviceAccounts/",
            1,
            Effect::status(429),
        ),
        fault(
            Peer::Pubsub,
            "POST",
            "/v1/projects/local-project/topics/results:publish",
            1,
            Effect::status(503),
        ),
        fault(
            Peer::Metadata,
            "GET",
            "/computeMetadata/v1/instance/service-accounts/default/token",
            1,
            Effect::status(503),
        ),
    ] {
        world.cloud.add_fault(fault);
    }
    world.cloud.revoke_access_tokens();
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}\n{}", world.worker.log());
    world.acknowledged().await;
    assert_eq!(world.outputs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_download_is_noticed_and_never_converted() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    world.cloud.add_fault(fault(
        Peer::Storage,
        "GET",
        "/download/",
        1000,
        Effect::Corrupt { corrupt: true },
    ));
    assert_eq!(
        world.post(&notification("invoice.docx", &generation)).await.status(),
        503
    );
    assert!(
        world.pull().await.is_none(),
        "a retry can fix it: it must not be reported"
    );
    assert_eq!(world.outputs().await, 0);
    world.cloud.clear_faults();
    assert_eq!(
        world.post(&notification("invoice.docx", &generation)).await.status(),
        204
    );
    assert_eq!(world.result().await.data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_after_the_write_is_our_own_success() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let upload = fault(
        Peer::Storage,
        "POST",
        "/upload/storage/v1/b/output/",
        1,
        Effect::LoseAnswer { lose_answer: true },
    );
    world.cloud.add_fault(upload);
    assert_eq!(
        world.post(&notification("invoice.docx", &generation)).await.status(),
        204,
        "{}",
        world.worker.log()
    );
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}");
    let stored = world.object(OUTPUT, "invoice.pdf").await.unwrap();
    assert_eq!(stored["generation"], result["outputs"][0]["generation"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_while_a_result_cannot_be_published() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let down = fault(
        Peer::Pubsub,
        "POST",
        "/v1/projects/local-project/topics/results:publish",
        1000,
        Effect::status(403),
    );
    world.cloud.add_fault(down);
    let answer = world.post(&notification("invoice.docx", &generation)).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    // The line may be read after the answer.
    until("the role is named", || {
        world.worker.log().contains("roles/pubsub.publisher").then_some(())
    })
    .await;
    // A failure that is to be reported waits in the same way.
    let bad = job(&json!({"source": format!("gs://{INPUT}/none.docx")}));
    assert_eq!(world.post(&bad).await.status(), 503);
    world.cloud.clear_faults();
    let output = world.object(OUTPUT, "invoice.pdf").await.unwrap();
    assert_eq!(
        world.post(&notification("invoice.docx", &generation)).await.status(),
        204
    );
    let result = world.result().await.data;
    assert_eq!(
        result["outputs"][0]["generation"], output["generation"],
        "it was converted again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_killed_in_the_middle_of_a_job_costs_one_delivery() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    let zygote = world.worker.zygote().await;
    let kill = async {
        world.worker.stopped_child(zygote).await;
        assert!(signal(zygote, Signal::SIGKILL));
    };
    let (answer, ()) = tokio::join!(world.post(&event), kill);
    assert_eq!(answer.status(), 503, "{}", world.worker.log());
    assert!(answer.headers().contains_key("retry-after"));
    assert!(world.pull().await.is_none());
    until("the job's directory is gone", || {
        world.worker.leftovers().is_empty().then_some(())
    })
    .await;
    // The worker is the same, its engine a new one.
    until("there is another zygote", || {
        crate::harness::children(world.worker.pid())
            .iter()
            .any(|pid| *pid != zygote)
            .then_some(())
    })
    .await;
    let mut worker = world;
    worker.worker.ready().await;
    assert_eq!(worker.post(&event).await.status(), 204, "{}", worker.worker.log());
    assert_eq!(worker.result().await.data["status"], "succeeded");
    assert_eq!(worker.worker.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_slot_taken_the_answer_is_429() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1")]).await;
    let first = world.upload_fixture(INVOICE, "a.docx").await;
    let second = world.upload_fixture(INVOICE, "b.docx").await;
    let (first, second) = (notification("a.docx", &first), notification("b.docx", &second));
    let zygote = world.worker.zygote().await;
    let meanwhile = async {
        let child = world.worker.stopped_child(zygote).await;
        let answer = world.post(&second).await;
        assert_eq!(answer.status(), 429);
        assert!(
            answer.headers()["retry-after"]
                .to_str()
                .unwrap()
                .parse::<u32>()
                .unwrap()
                > 0
        );
        assert!(signal(child, Signal::SIGCONT));
    };
    let (answer, ()) = tokio::join!(world.post(&first), meanwhile);
    assert_eq!(answer.status(), 204);
    assert_eq!(world.post(&second).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_answer_is_503_and_the_worker_is_not_ready() {
    let mut world = World::unready(&[], Some(fault(Peer::Jwks, "GET", "/", 1_000_000, Effect::status(500)))).await;
    let generation = world.upload_fixture(INVOICE, "a.docx").await;
    let event = notification("a.docx", &generation);
    let get = async |path: &str| {
        Some(
            world
                .http
                .get(format!("{}{path}", world.worker.url))
                .send()
                .await
                .ok()?
                .status()
                .as_u16(),
        )
    };
    let started = std::time::Instant::now();
    while get("/health/live").await != Some(200) {
        assert!(started.elapsed() < crate::harness::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(get("/health/ready").await, Some(503));
    let answer = world.post(&event).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    world.cloud.clear_faults();
    world.worker.ready().await;
    assert_eq!(world.post(&event).await.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_never_ends_is_reported_at_the_limit() {
    let world = World::with(&[("CONVERT_TIMEOUT", "3s")]).await;
    let generation = world
        .upload_fixture("documents/hostile/never-ends.ods", "never-ends.ods")
        .await;
    assert_eq!(
        world.post(&notification("never-ends.ods", &generation)).await.status(),
        204
    );
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "document.too_complex", "{result}");
    let detail = &result["error"]["detail"];
    assert_eq!(
        (&detail["limit"], &detail["value"]),
        (&"time".into(), &3000.into()),
        "{result}"
    );
    assert!(detail["measured"].as_u64().unwrap() >= 3000, "{result}");
    assert_eq!(world.worker.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_a_log() {
    let world = World::with(&[("RUST_LOG", "trace"), ("LOG_FORMAT", "json")]).await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let token = world.token();
    let event = notification("invoice.docx", &generation).to_string();
    assert_eq!(
        world
            .request(event.clone())
            .bearer_auth(&token)
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        world
            .request(event)
            .bearer_auth(format!("{token}x"))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    let result = world.result().await.data;
    let url = result["outputs"][0]["signedUrl"].as_str().unwrap();
    let signature = url.split("X-Goog-Signature=").nth(1).unwrap();
    let log = world.worker.log();
    assert!(log.contains("job done"));
    for (what, canary) in [
        ("a push token", token.rsplit_once('.').unwrap().1),
        ("a token's claims", token.split('.').nth(1).unwrap()),
        ("a signature", signature),
        ("a signed URL's query", "X-Goog-Credential"),
        ("the document's text", "Invoice"),
        ("an access token", "ya29."),
    ] {
        assert!(!log.contains(canary), "{what} is in the log");
    }
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        assert!(line["severity"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployments_mistake_is_an_error_in_the_log_with_its_mend_and_costs_no_conversion() {
    let world = World::with(&[("OUTPUT_BUCKET", "nowhere")]).await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    assert_eq!(world.post(&event).await.status(), 503);
    assert!(world.worker.log().contains("ERROR"), "{}", world.worker.log());
    assert!(crate::harness::converting(world.worker.zygote().await).is_empty());
    let forbidden = fault(Peer::Storage, "GET", "/storage/v1/b/input/", 1, Effect::status(403));
    world.cloud.add_fault(forbidden);
    assert_eq!(world.post(&event).await.status(), 503);
    let command = "gcloud storage buckets add-iam-policy-binding gs://input";
    until("the command is in the log", || {
        world.worker.log().contains(command).then_some(())
    })
    .await;
}
