//! METRICS_PORT through the front door: each number moves when its thing happens, and by as much.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::engine_limits::{NEVER_ENDS, TICKS_INSIDE, processor_ticks};
use crate::flight::{deliver, joined, message};
use crate::harness::{PATIENCE, World, children, converting, fixture, job, notification, port, signal, until};

const INVOICE: &str = "documents/plain/invoice.docx";

type Samples = BTreeMap<String, f64>;

async fn get(port: &str, accept: &str) -> reqwest::Response {
    let request = crate::harness::client().get(format!("http://127.0.0.1:{port}/metrics"));
    request.header("accept", accept).send().await.unwrap()
}

/// All samples by name and labels, as they are written.
pub(crate) async fn scrape(port: &str) -> Samples {
    let answer = get(port, "application/openmetrics-text; version=1.0.0").await;
    assert_eq!(answer.status(), 200);
    samples(&answer.text().await.unwrap())
}

fn samples(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// What has moved, less histograms' buckets and times.
fn moved(before: &Samples, after: &Samples) -> Samples {
    let mut moved = Samples::new();
    for (name, value) in after {
        let by = value - before.get(name).unwrap_or(&0.0);
        if by != 0.0 && !name.contains("_bucket") && !name.contains("_sum") {
            moved.insert(name.clone(), by);
        }
    }
    moved
}

fn expected(moves: &[(&str, f64)]) -> Samples {
    moves.iter().map(|(name, by)| ((*name).to_owned(), *by)).collect()
}

/// A worker with metrics; its port is held for it.
struct Measured {
    world: World,
    port: String,
    _held: tokio::net::TcpSocket,
}

impl Measured {
    async fn with(variables: &[(&str, &str)]) -> Self {
        let (port, held) = port();
        let port = port.to_string();
        let variables = [variables, &[("METRICS_PORT", port.as_str())]].concat();
        Self {
            world: World::with(&variables).await,
            port,
            _held: held,
        }
    }

    /// What moves meanwhile. The worker counts an answer before it is sent.
    async fn moves(&self, meanwhile: impl AsyncFnOnce(&World)) -> Samples {
        let before = scrape(&self.port).await;
        meanwhile(&self.world).await;
        moved(&before, &scrape(&self.port).await)
    }
}

const PHASES: [&str; 7] = ["queued", "fetch", "convert", "store", "sign", "publish", "total"];

fn phase(phase: &str) -> String {
    format!("platen_job_phase_duration_seconds_count{{phase=\"{phase}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_moves_what_it_did_and_a_redelivery_only_what_it_did_again() {
    let measured = Measured::with(&[]).await;
    let generation = measured.world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    let mut first = measured
        .moves(async |world| assert_eq!(world.post(&event).await.status(), 204))
        .await;
    let result = measured.world.result().await.data;
    for name in PHASES {
        assert_eq!(first.remove(&phase(name)), Some(1.0), "{name}: {first:?}");
    }
    let bytes = |size: &serde_json::Value| size.as_str().unwrap().parse::<f64>().unwrap();
    let succeeded = "platen_jobs_total{status=\"succeeded\",code=\"\"}";
    let done = expected(&[
        (succeeded, 1.0),
        ("platen_deliveries_total{http_status=\"204\"}", 1.0),
        ("platen_input_bytes_total", bytes(&result["source"]["size"])),
        ("platen_output_bytes_total", bytes(&result["outputs"][0]["size"])),
        ("platen_signatures_total{outcome=\"made\"}", 1.0),
    ]);
    assert_eq!(first, done);

    let mut again = measured
        .moves(async |world| assert_eq!(world.post(&event).await.status(), 204))
        .await;
    for name in ["queued", "sign", "publish", "total"] {
        assert_eq!(again.remove(&phase(name)), Some(1.0), "{name}: {again:?}");
    }
    let reused = expected(&[
        (succeeded, 1.0),
        ("platen_deliveries_total{http_status=\"204\"}", 1.0),
        ("platen_signatures_total{outcome=\"reused\"}", 1.0),
    ]);
    assert_eq!(again, reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_refusals_and_ignored_events_are_counted_by_what_they_were() {
    let measured = Measured::with(&[("MAX_PAGES", "1")]).await;
    let world = &measured.world;
    let empty =
        job(&json!({"source": "gs://input/empty.docx", "generation": world.upload("empty.docx", Vec::new()).await}));
    let without_times = |mut moves: Samples| {
        moves.retain(|name, _| !name.contains("phase_duration"));
        moves
    };
    let failed = measured
        .moves(async |world| assert_eq!(world.post(&empty).await.status(), 204))
        .await;
    assert!(!failed.contains_key(&phase("fetch")), "nothing was fetched: {failed:?}");
    assert_eq!(
        without_times(failed),
        expected(&[
            ("platen_jobs_total{status=\"failed\",code=\"source.empty\"}", 1.0),
            ("platen_deliveries_total{http_status=\"204\"}", 1.0),
        ])
    );

    let generation = world.upload_fixture("documents/plain/handbook.docx", "long.docx").await;
    let long = notification("long.docx", &generation);
    let mut over = measured
        .moves(async |world| assert_eq!(world.post(&long).await.status(), 204))
        .await;
    assert_eq!(over.remove(&phase("convert")), Some(1.0), "it took its time: {over:?}");
    over.remove("platen_input_bytes_total").unwrap();
    assert_eq!(
        without_times(over),
        expected(&[
            (
                "platen_jobs_total{status=\"failed\",code=\"document.too_complex\"}",
                1.0
            ),
            ("platen_conversion_limits_exceeded_total{limit=\"pages\"}", 1.0),
            ("platen_deliveries_total{http_status=\"204\"}", 1.0),
        ])
    );

    let ignored = measured
        .moves(async |world| assert_eq!(world.post(&notification("folder/", "1")).await.status(), 204))
        .await;
    assert_eq!(
        ignored,
        expected(&[
            ("platen_ignored_events_total{reason=\"folder_placeholder\"}", 1.0),
            ("platen_deliveries_total{http_status=\"204\"}", 1.0),
        ])
    );

    let stranger = measured
        .moves(async |world| assert_eq!(world.request("{}").send().await.unwrap().status(), 401))
        .await;
    assert_eq!(
        stranger,
        expected(&[("platen_deliveries_total{http_status=\"401\"}", 1.0)])
    );
}

fn fault(peer: Peer, method: &str, path_prefix: &str, status: u16) -> Fault {
    Fault {
        peer: Some(peer),
        method: Some(method.to_owned()),
        path_prefix: path_prefix.to_owned(),
        skip: 0,
        count: 1,
        effect: Effect::Status {
            status,
            retry_after: None,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_counted_by_call_and_status_and_a_signature_that_fails_too() {
    let measured = Measured::with(&[]).await;
    let generation = measured.world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    let moves = measured
        .moves(async |world| {
            world
                .cloud
                .add_fault(fault(Peer::Storage, "GET", "/storage/v1/b/input/", 503));
            world
                .cloud
                .add_fault(fault(Peer::Pubsub, "POST", "/v1/projects/local-project/topics/", 429));
            world
                .cloud
                .add_fault(fault(Peer::Iam, "POST", "/v1/projects/-/serviceAccounts/", 403));
            assert_eq!(world.post(&event).await.status(), 503);
            assert_eq!(world.post(&event).await.status(), 204);
        })
        .await;
    let retries: Vec<_> = moves
        .iter()
        .filter(|(name, _)| name.contains("google_retries"))
        .collect();
    let (look, publish) = (
        "platen_google_retries_total{operation=\"storage.objects.get\",status=\"503\"}".to_owned(),
        "platen_google_retries_total{operation=\"pubsub.topics.publish\",status=\"429\"}".to_owned(),
    );
    assert_eq!(retries, [(&publish, &1.0), (&look, &1.0)], "{moves:?}");
    assert_eq!(moves["platen_signatures_total{outcome=\"failed\"}"], 1.0);
    assert_eq!(moves["platen_signatures_total{outcome=\"made\"}"], 1.0);
    assert_eq!(moves["platen_deliveries_total{http_status=\"503\"}"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_slot_is_seen_and_a_refusal_for_want_of_one() {
    let measured = Measured::with(&[("CONVERT_CONCURRENCY", "1")]).await;
    let world = &measured.world;
    let first = notification("first.docx", &world.upload_fixture(INVOICE, "first.docx").await);
    let second = notification("second.docx", &world.upload_fixture(INVOICE, "second.docx").await);
    let before = scrape(&measured.port).await;
    assert_eq!(before["platen_conversion_slots"], 1.0);
    assert_eq!(before["platen_conversion_slots_used"], 0.0);
    let zygote = world.worker.zygote().await;
    let meanwhile = async {
        let child = world.worker.stopped_child(zygote).await;
        assert_eq!(scrape(&measured.port).await["platen_conversion_slots_used"], 1.0);
        assert_eq!(world.post(&second).await.status(), 429);
        let now = moved(&before, &scrape(&measured.port).await);
        assert_eq!(now["platen_busy_refusals_total{reason=\"slots\"}"], 1.0);
        assert_eq!(now["platen_deliveries_total{http_status=\"429\"}"], 1.0);
        assert!(signal(child, Signal::SIGCONT));
    };
    let (answer, ()) = tokio::join!(world.post(&first), meanwhile);
    assert_eq!(answer.status(), 204);
    assert_eq!(scrape(&measured.port).await["platen_conversion_slots_used"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_run_counts_once_and_each_delivery_for_itself() {
    let measured = Measured::with(&[]).await;
    measured.world.upload_fixture(INVOICE, "invoice.docx").await;
    let zygote = measured.world.worker.zygote().await;
    let moves = measured
        .moves(async |world| {
            let event = message("again", &json!({"source": "gs://input/invoice.docx"}));
            let hung_up = deliver(world, &event);
            let child = world.worker.stopped_child(zygote).await;
            let others = [deliver(world, &event), deliver(world, &event)];
            joined(world, 2).await;
            hung_up.abort();
            until("it is known to be gone", || {
                world.worker.log().contains("the caller hung up").then_some(())
            })
            .await;
            assert!(signal(child, Signal::SIGCONT));
            for other in others {
                assert_eq!(other.await.unwrap(), 204);
            }
        })
        .await;
    for (name, times) in [
        ("fetch", 1.0),
        ("convert", 1.0),
        ("store", 1.0),
        ("sign", 2.0),
        ("publish", 2.0),
        ("total", 2.0),
    ] {
        assert_eq!(moves.get(&phase(name)), Some(&times), "{name}: {moves:?}");
    }
    assert_eq!(moves["platen_jobs_total{status=\"succeeded\",code=\"\"}"], 2.0);
    assert_eq!(moves["platen_deliveries_total{http_status=\"204\"}"], 2.0);
    assert_eq!(moves["platen_deliveries_total{http_status=\"none\"}"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_delivery_that_is_refused_counts_as_a_job_and_as_what_it_was_answered() {
    let measured = Measured::with(&[("MAX_DELIVERY_ATTEMPTS", "5")]).await;
    let moves = measured
        .moves(async |world| {
            let mut outage = fault(Peer::Storage, "GET", "/storage/v1/b/input/", 403);
            outage.count = Fault::ENDLESS;
            world.cloud.add_fault(outage);
            let mut event = notification("invoice.docx", "7");
            event["deliveryAttempt"] = 5.into();
            assert_eq!(world.post(&event).await.status(), 503);
        })
        .await;
    assert_eq!(
        moves,
        expected(&[
            ("platen_jobs_total{status=\"failed\",code=\"attempts.exhausted\"}", 1.0),
            ("platen_deliveries_total{http_status=\"503\"}", 1.0),
        ])
    );
}

/// What has not happened yet is 0, so that its first time is an increase.
#[tokio::test(flavor = "multi_thread")]
async fn every_failure_code_is_there_from_the_start() {
    let measured = Measured::with(&[]).await;
    let samples = scrape(&measured.port).await;
    for (code, _) in platen::error::FailureCode::ALL {
        let name = format!("platen_jobs_total{{status=\"failed\",code=\"{}\"}}", code.as_str());
        assert_eq!(samples.get(&name), Some(&0.0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_and_the_engines_new_start_are_counted() {
    let measured = Measured::with(&[]).await;
    let world = &measured.world;
    assert_eq!(scrape(&measured.port).await["platen_engine_starts_total"], 1.0);
    let crashed = measured.moves(async |world| crash_twice(world).await).await;
    assert_eq!(crashed["platen_engine_crashes_total"], 2.0);
    assert!(crashed["platen_engine_starts_total"] >= 1.0, "{crashed:?}");
    let failed = "platen_jobs_total{status=\"failed\",code=\"document.engine_crashed\"}";
    assert_eq!(crashed[failed], 1.0, "{}", world.worker.log());
}

/// A document in which LibreOffice crashes, and again in a fresh process.
pub(crate) async fn crash_twice(world: &World) {
    let event = notification("hog.fods", &world.upload("hog.fods", NEVER_ENDS.to_vec()).await);
    let crash = async || {
        until("a child is inside the document", || {
            let zygotes = children(world.worker.pid());
            let mut inside = zygotes.into_iter().flat_map(converting);
            let child = inside.find(|child| processor_ticks(child.cast_signed()) >= TICKS_INSIDE)?;
            signal(child, Signal::SIGSEGV).then_some(child)
        })
        .await
    };
    let crashes = async {
        let first = crash().await;
        until("it is gone", || {
            (!Path::new(&format!("/proc/{first}")).exists()).then_some(())
        })
        .await;
        crash().await;
    };
    let (answer, ()) = tokio::join!(world.post(&event), crashes);
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn key_fetches_are_counted_by_how_they_ended() {
    let (port, _held) = port();
    let port = port.to_string();
    let mut outage = fault(Peer::Jwks, "GET", "/", 500);
    outage.count = 1;
    let mut world = World::unready(&[("METRICS_PORT", port.as_str())], Some(outage)).await;
    world.worker.ready().await;
    let samples = scrape(&port).await;
    assert_eq!(samples["platen_key_fetches_total{outcome=\"failed\"}"], 1.0);
    assert_eq!(samples["platen_key_fetches_total{outcome=\"succeeded\"}"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_answers_metrics_in_both_forms_and_nothing_else() {
    let measured = Measured::with(&[]).await;
    let port = &measured.port;
    let open = get(port, "application/openmetrics-text;version=1.0.0,*/*;q=0.1").await;
    assert_eq!(
        open.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let open = open.text().await.unwrap();
    assert!(open.ends_with("# EOF\n"), "{open}");
    let older = get(port, "*/*").await;
    assert_eq!(
        older.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let older = older.text().await.unwrap();
    assert_eq!(
        samples(&open).keys().collect::<Vec<_>>(),
        samples(&older).keys().collect::<Vec<_>>(),
        "the same samples"
    );
    for form in [
        "# TYPE platen_engine_starts_total counter\n",
        "# TYPE platen_build_info gauge\n",
    ] {
        assert!(older.contains(form) && !open.contains(form), "{form}{older}");
    }
    let http = &measured.world.http;
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for path in ["/", "/health/live", "/metrics/"] {
        assert_eq!(http.get(url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    let posted = http.post(url("/metrics")).send().await.unwrap();
    assert_eq!(
        (posted.status().as_u16(), &posted.headers()["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    let head = http.head(url("/metrics")).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert!(head.text().await.unwrap().is_empty());
    let worker = format!("{}/metrics", measured.world.worker.url);
    assert_eq!(
        http.get(worker).send().await.unwrap().status(),
        404,
        "not on the worker's own port"
    );
}

/// As many as there are places, that ask for much and read nothing: a scraper waits until their time is over, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_keeps_no_scraper_out() {
    let measured = Measured::with(&[]).await;
    let address = format!("127.0.0.1:{}", measured.port);
    let asks = b"GET /metrics HTTP/1.1\r\nhost: w\r\n\r\n".repeat(2000);
    let mut greedy = Vec::new();
    for _ in 0..16 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1024).unwrap();
        let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
        // What it does not take of so many requests is not waited for.
        let _taken = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&asks)).await;
        greedy.push(stream);
    }
    let scraped = tokio::time::timeout(PATIENCE, scrape(&measured.port)).await;
    assert!(scraped.is_ok(), "nobody can scrape");
    drop(greedy);
}

/// One that begins a request's head and does not end it is counted among the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_counted() {
    let measured = Measured::with(&[]).await;
    let moved = measured
        .moves(async |world| {
            let address = world.worker.url.trim_start_matches("http://").to_owned();
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"POST / HTTP/1.1\r\nHost: w\r\nx-slow: ")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        })
        .await;
    assert_eq!(
        moved,
        expected(&[("platen_deliveries_total{http_status=\"408\"}", 1.0)])
    );
}

/// The families that docs/observability.md has a line for are those that there are, and each says what it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_has_every_name() {
    let measured = Measured::with(&[]).await;
    // A call that is repeated, because its series begins with it.
    let world = &measured.world;
    world
        .cloud
        .add_fault(fault(Peer::Storage, "GET", "/storage/v1/b/input/", 503));
    assert_eq!(world.post(&notification("gone.docx", "7")).await.status(), 204);
    let text = get(&measured.port, "*/*").await.text().await.unwrap();
    let families = |keyword: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(keyword));
        lines
            .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
            .collect()
    };
    let exported = families("# TYPE ");
    assert_eq!(exported, families("# HELP "));
    let page = std::fs::read_to_string(fixture("../docs/observability.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `platen_"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| row.split(['`', '{']).next())
        .map(|name| format!("platen_{name}"))
        .collect();
    assert_eq!(exported, documented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_ends_the_worker_and_says_which_variable() {
    let taken = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut world = World::unready(&[("METRICS_PORT", port.as_str())], None).await;
    assert_eq!(world.worker.exit().await, Some(1));
    let log = world.worker.log();
    assert!(
        log.contains("cannot be bound") && log.contains("set METRICS_PORT"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_ends_though_a_scraper_holds_its_connection() {
    let measured = Measured::with(&[]).await;
    let mut world = measured.world;
    let _held = tokio::net::TcpStream::connect(format!("127.0.0.1:{}", measured.port))
        .await
        .unwrap();
    assert!(signal(world.worker.pid(), Signal::SIGTERM));
    assert_eq!(world.worker.exit().await, Some(0));
    until("it said so", || {
        world.worker.log().contains("all work has ended").then_some(())
    })
    .await;
}
