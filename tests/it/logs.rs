//! The log as Cloud Logging reads it: one line a delivery, with its job, its trace and what each phase took; and the trace
//! on every call to Google.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use platen::local_cloud::{Effect, Fault, Peer as CloudPeer};
use serde_json::{Value, json};

use crate::flight::{deliver, joined, message};
use crate::harness::{INPUT, World, cloud, environment, job, notification, signal, until};
use crate::peer::{Peer, Reply};

const INVOICE: &str = "documents/plain/invoice.docx";
const TRACE: &str = "c0aae0ef90d944452f56027d27af0e97";
const TRACEPARENT: &str = "00-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01";
const LABELS: &str = "logging.googleapis.com/labels";
const PHASES: [&str; 7] = [
    "queuedMs",
    "fetchMs",
    "convertMs",
    "storeMs",
    "signMs",
    "publishMs",
    "totalMs",
];

fn lines(world: &World) -> Vec<Value> {
    let log = world.worker.log();
    // The last line may still be on its way.
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of requests, as soon as there are so many, and that no more come of what the test has done.
async fn requests(world: &World, count: usize) -> Vec<Value> {
    until("each request has its line", || {
        let mut lines = lines(world);
        lines.retain(|line| line.get("httpRequest").is_some());
        assert!(lines.len() <= count, "{lines:#?}");
        (lines.len() == count).then_some(lines)
    })
    .await
}

async fn post_traced(world: &World, event: &Value) -> u16 {
    let request = world.request(event.to_string()).bearer_auth(world.token());
    let answer = request.header("traceparent", TRACEPARENT).send().await.unwrap();
    answer.status().as_u16()
}

fn phases(line: &Value) -> BTreeSet<&'static str> {
    PHASES.into_iter().filter(|phase| line[*phase].is_u64()).collect()
}

fn assert_is_traced(line: &Value) {
    let project = "projects/local-project/traces/";
    assert_eq!(
        line["logging.googleapis.com/trace"],
        format!("{project}{TRACE}"),
        "{line}"
    );
    assert_eq!(line["logging.googleapis.com/spanId"], "1397c3bb3cd56200");
    assert_eq!(line["logging.googleapis.com/trace_sampled"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_has_one_line_with_its_job_its_trace_and_every_phase() {
    let world = World::with(&[("LOG_FORMAT", "json")]).await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let mut event = notification("invoice.docx", &generation);
    event["message"]["publishTime"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(post_traced(&world, &event).await, 204);
    let result = world.result().await.data;
    let all = requests(&world, 1).await;
    let line = &all[0];
    assert_eq!(
        (&line["severity"], &line["message"]),
        (&"INFO".into(), &"job done".into())
    );
    assert_is_traced(line);
    let labels = json!({"jobId": result["jobId"], "source": format!("gs://{INPUT}/invoice.docx#{generation}")});
    assert_eq!(line[LABELS], labels);
    let request = &line["httpRequest"];
    assert_eq!(
        (&request["requestMethod"], &request["requestUrl"], &request["status"]),
        (&"POST".into(), &"/".into(), &204.into())
    );
    let latency = request["latency"].as_str().unwrap().strip_suffix('s').unwrap();
    assert!(latency.parse::<f64>().unwrap() > 0.0, "{request}");
    assert_eq!(phases(line), PHASES.into(), "{line}");
    for phase in ["fetchMs", "convertMs", "storeMs"] {
        assert_eq!(line[phase], result["timings"][phase], "{phase}");
    }
    // The result is made before it is published, and the line after that.
    let total = |of: &Value| of["totalMs"].as_u64().unwrap();
    assert!(
        total(line) >= total(&result["timings"]).max(line["publishMs"].as_u64().unwrap()),
        "{line}"
    );
    assert_eq!(
        line["inputBytes"].to_string(),
        result["source"]["size"].as_str().unwrap()
    );
    assert_eq!(
        line["outputBytes"].to_string(),
        result["outputs"][0]["size"].as_str().unwrap()
    );
    assert_eq!(
        (&line["pages"], &line["outputs"], &line["attempt"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(
        (&line["status"], &line["messageId"]),
        (&"succeeded".into(), &"1".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_otherwise_has_one_line_too() {
    let world = World::with(&[("LOG_FORMAT", "json"), ("RUST_LOG", "info")]).await;
    let empty = world.upload("empty.docx", Vec::new()).await;
    assert_eq!(post_traced(&world, &notification("empty.docx", &empty)).await, 204);
    assert_eq!(post_traced(&world, &notification("folder/", "1")).await, 204);
    // Of a generation that is gone.
    let gone = job(&json!({"source": format!("gs://{INPUT}/gone.docx"), "generation": "77"}));
    assert_eq!(post_traced(&world, &gone).await, 204);
    assert_eq!(world.request("{}").send().await.unwrap().status(), 401);
    let all = requests(&world, 4).await;
    let [failed, ignored, superseded, stranger] = &all[..] else {
        unreachable!()
    };
    assert_eq!(failed["severity"], "WARNING");
    assert!(
        failed["message"].as_str().unwrap().starts_with("the job failed: "),
        "{failed}"
    );
    assert_eq!(failed[LABELS]["code"], "source.empty");
    assert_is_traced(failed);
    assert_eq!(phases(failed), ["queuedMs", "publishMs", "totalMs"].into(), "{failed}");
    assert_eq!(
        (&ignored["severity"], &ignored["reason"]),
        (&"INFO".into(), &"folder_placeholder".into())
    );
    assert!(phases(ignored).contains("totalMs"), "{ignored}");
    assert_eq!(ignored["attempt"], 1);
    assert_eq!(
        (&superseded["severity"], &superseded["status"]),
        (&"INFO".into(), &"superseded".into())
    );
    assert_eq!(superseded[LABELS]["source"], format!("gs://{INPUT}/gone.docx#77"));
    assert_eq!(
        (&stranger["severity"], &stranger["httpRequest"]["status"]),
        (&"WARNING".into(), &401.into())
    );
    assert!(
        stranger.get(LABELS).is_none() && stranger.get("logging.googleapis.com/trace").is_none(),
        "{stranger}"
    );
    // No other line repeats the failure.
    assert_eq!(world.worker.log().matches("source.empty").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_delivery_says_how_far_it_came() {
    let world = World::with(&[("LOG_FORMAT", "json")]).await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    world.cloud.add_fault(Fault {
        peer: Some(CloudPeer::Iam),
        method: Some("POST".to_owned()),
        path_prefix: "/v1/projects/-/serviceAccounts/".to_owned(),
        skip: 0,
        count: 1,
        effect: Effect::Status {
            status: 403,
            retry_after: None,
        },
    });
    let mut event = notification("invoice.docx", &generation);
    event["deliveryAttempt"] = 3.into();
    assert_eq!(post_traced(&world, &event).await, 503);
    let all = requests(&world, 1).await;
    let line = &all[0];
    assert_eq!(
        (&line["status"], &line["httpRequest"]["status"]),
        (&"refused".into(), &503.into())
    );
    assert_is_traced(line);
    assert_eq!(
        line[LABELS]["source"],
        format!("gs://{INPUT}/invoice.docx#{generation}")
    );
    let came_to = phases(line);
    for phase in ["fetchMs", "convertMs", "storeMs", "signMs", "totalMs"] {
        assert!(came_to.contains(phase), "{phase}: {line}");
    }
    assert_eq!(line["attempt"], 3, "{line}");
    assert!(line["inputBytes"].is_u64(), "{line}");
    assert!(!came_to.contains("publishMs"), "{line}");
}

/// What HTTP alone shows: nobody would look for a dead letter's cause where nothing was said.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_has_its_line_too() {
    let world = World::with(&[("LOG_FORMAT", "json")]).await;
    let bearer = format!("authorization: Bearer {}", world.token());
    let large = format!("x-large: {}", "a".repeat(17_000));
    for (header, length, status) in [(&bearer, 20_000_000, "413"), (&large, 0, "431")] {
        let address = world.worker.url.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: w\r\n{header}\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer[9..], status.as_bytes());
    }
    let all = requests(&world, 2).await;
    let seen: Vec<_> = all
        .iter()
        .map(|line| (&line["severity"], &line["status"], &line["httpRequest"]["status"]))
        .collect();
    let expected = |status: u16| (json!("WARNING"), json!("refused"), json!(status));
    let expected = [expected(413), expected(431)];
    assert!(
        seen.iter().zip(&expected).all(|(seen, (a, b, c))| *seen == (a, b, c)),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_leaves_a_line_that_says_how_far_it_came() {
    let world = World::with(&[("LOG_FORMAT", "json")]).await;
    let zygote = world.worker.zygote().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = message("again", &json!({"source": format!("gs://{INPUT}/invoice.docx")}));
    let caller = deliver(&world, &event);
    let child = world.worker.stopped_child(zygote).await;
    caller.abort();
    let line = until("the line is there", || {
        lines(&world).into_iter().find(|line| line["status"] == "hung up")
    })
    .await;
    assert_eq!(line["severity"], "WARNING");
    assert!(line.get("httpRequest").is_none(), "nothing was answered: {line}");
    assert_eq!(
        phases(&line),
        ["fetchMs", "convertMs", "totalMs"].into(),
        "the phase that goes on has its time, too: {line}"
    );
    assert_eq!(line["messageId"], "again");
    assert!(line[LABELS]["jobId"].is_string(), "{line}");
    // Who joins the run that goes on has its times, too.
    let other = deliver(&world, &event);
    joined(&world, 1).await;
    assert!(signal(child, nix::sys::signal::Signal::SIGCONT));
    assert_eq!(other.await.unwrap(), 204);
    let all = requests(&world, 1).await;
    let all_but_queued = PHASES.into_iter().filter(|phase| *phase != "queuedMs").collect();
    assert_eq!(phases(&all[0]), all_but_queued, "{}", all[0]);
}

/// A storage that has the source and no output, and lets nobody read: the calls before, inside and after the shared run.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_goes_on_in_every_call_with_a_span_of_its_own() {
    let storage = Peer::start(|request, _| match request.target.as_str() {
        target if target.starts_with("/storage/v1/b/input/o/invoice.docx?alt=media") => Reply::status(403),
        target if target.contains("alt=media") => Reply::status(403),
        target if target.contains("/b/input/o/") => Reply::json(
            200,
            json!({"bucket": INPUT, "name": "invoice.docx", "generation": "7", "size": "10", "crc32c": "AAAAAA=="}),
        ),
        _ => Reply::json(404, json!({"error": {"message": "No such object", "code": 404}})),
    });
    let cloud = cloud().await;
    let mut variables = environment(&cloud);
    variables.insert("STORAGE_EMULATOR_HOST".to_owned(), storage.url.clone());
    variables.insert("LOG_FORMAT".to_owned(), "json".to_owned());
    let mut world = World::on(cloud, &variables);
    world.worker.ready().await;
    assert_eq!(post_traced(&world, &notification("invoice.docx", "7")).await, 503);
    let calls = storage.requests();
    // The look, the find of the run, and its download.
    assert!(calls.len() >= 3, "{calls:?}");
    let mut spans = BTreeSet::new();
    for call in &calls {
        let traceparent = call
            .header("traceparent")
            .unwrap_or_else(|| panic!("no trace: {call:?}"));
        let parts: Vec<&str> = traceparent.split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{traceparent}");
        assert_ne!(parts[2], "1397c3bb3cd56200", "the caller's own span");
        spans.insert(parts[2].to_owned());
    }
    assert_eq!(spans.len(), calls.len(), "each call has a span of its own");
    // Without a trace there is none to name.
    assert_eq!(world.post(&notification("invoice.docx", "7")).await.status(), 503);
    assert!(
        storage.requests()[calls.len()..]
            .iter()
            .all(|call| call.header("traceparent").is_none())
    );
}
