//! The worker's end: what is under way is finished or refused, nothing new begins, and nothing outlives the worker.

use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::engine_limits::processes;
use crate::harness::{self, OUTPUT, PATIENCE, World, children, notification, signal, until};

const INVOICE: &str = "documents/plain/invoice.docx";

/// What a load balancer, a pool or an attacker may hold open.
struct Connection(TcpStream);

impl Connection {
    async fn open(world: &World) -> Self {
        let address = world.worker.url.trim_start_matches("http://");
        Self(TcpStream::connect(address).await.unwrap())
    }

    async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads one answer with a body of JSON; the connection stays open if the worker leaves it so.
    async fn answer(&mut self) -> (u16, Value) {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
                    .unwrap_or(0);
                if body.len() >= length {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return (status, serde_json::from_str(body).unwrap_or_default());
                }
            }
            assert_ne!(
                self.0.read_buf(&mut read).await.unwrap(),
                0,
                "closed in the middle: {text:?}"
            );
        }
    }

    /// Waits until the worker closes, and gives what it still says before.
    async fn closed(&mut self) -> String {
        let mut read = Vec::new();
        // A reset is an end as well.
        let _reset = self.0.read_to_end(&mut read).await;
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// Waits until nobody listens on the worker's port any more.
async fn refuses_connections(world: &World) {
    let address = world.worker.url.trim_start_matches("http://").to_owned();
    let started = std::time::Instant::now();
    while TcpStream::connect(&address).await.is_ok() {
        assert!(started.elapsed() < PATIENCE, "it still takes connections");
        tokio::task::yield_now().await;
    }
}

/// The worker is gone with code 0, and nothing of it is left: no process, no file.
async fn ended_well(world: &mut World) {
    let code = world.worker.exit().await;
    assert_eq!(code, Some(0), "{}", world.worker.log());
    nothing_runs(world.worker.temporary.path()).await;
    assert_eq!(left(world.worker.temporary.path()), Vec::<PathBuf>::new());
}

async fn nothing_runs(work: &Path) {
    until("no process of the engine runs", || {
        processes(work).is_empty().then_some(())
    })
    .await;
}

fn left(directory: &Path) -> Vec<PathBuf> {
    let mut left = Vec::new();
    harness::walk(directory, &mut |path| left.push(path.to_owned()));
    left
}

fn storage_fault(path_prefix: &str, effect: Effect) -> Fault {
    Fault::once(Peer::Storage, "GET", path_prefix, effect)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_finished_is_and_nothing_new_begins() {
    for asked in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::start().await;
        let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
        let event = notification("invoice.docx", &generation);
        let zygote = world.worker.zygote().await;
        let meanwhile = async {
            let child = world.worker.stopped_child(zygote).await;
            let mut idle = Connection::open(&world).await;
            idle.send("GET /health/live HTTP/1.1\r\nHost: w\r\n\r\n").await;
            assert_eq!(idle.answer().await.0, 200);
            let mut unused = Connection::open(&world).await;
            let mut half_a_head = Connection::open(&world).await;
            half_a_head.send("GET /health/ready HTTP/1.1\r\nHost: w\r\n").await;
            let mut half_a_body = Connection::open(&world).await;
            let body = event.to_string();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
                world.token(),
                body.len() + 1
            );
            half_a_body.send(&format!("{head}{body}")).await;
            // The worker reads connections in no order, but each in its own: it has seen the rest when it answers these.
            let mut later = Connection::open(&world).await;
            later.send("GET /health/ready HTTP/1.1\r\nHost: w\r\n\r\n").await;
            assert_eq!(later.answer().await.1["draining"], false);

            // As a terminal or a service manager: to all of the group.
            for pid in [world.worker.pid(), zygote, child] {
                assert!(signal(pid, asked));
            }
            refuses_connections(&world).await;
            assert_eq!((idle.closed().await, unused.closed().await), Default::default());
            let (status, refusal) = half_a_body.answer().await;
            assert_eq!(status, 503, "{refusal}");
            half_a_head.send("\r\n").await;
            let (status, ready) = half_a_head.answer().await;
            assert_eq!(
                (status, &ready["status"], &ready["draining"]),
                (503, &"not ready".into(), &true.into())
            );
            assert_eq!(half_a_head.closed().await, "");
            assert!(signal(child, Signal::SIGCONT));
        };
        let (answer, ()) = tokio::join!(world.post(&event), meanwhile);
        assert_eq!(answer.status(), 204, "{}", world.worker.log());
        assert_eq!(world.result().await.data["status"], "succeeded");
        ended_well(&mut world).await;
        let log = world.worker.log();
        assert!(
            log.contains("all work has ended") && !log.contains("could not be finished"),
            "{log}"
        );
        assert!(
            !log.contains("the engine has ended"),
            "the signal reached the engine: {log}"
        );
    }
}

/// Three jobs that hang in three ways, connections that never do anything, and a client that reads nothing. Beside it a
/// worker that is told twice, and one that has nothing but a request that never comes to its end: both are told later, and
/// end earlier.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_finished_is_killed_and_refused_and_a_second_signal_does_so_at_once() {
    let variables = [("CONVERT_CONCURRENCY", "4")];
    let (mut patient, mut hurried, mut quiet) = tokio::join!(
        World::with(&variables),
        World::with(&variables),
        World::with(&variables)
    );
    let stalled = "/download/storage/v1/b/input/o/stalled.docx";
    patient
        .cloud
        .add_fault(storage_fault(stalled, Effect::Stall { stall_after: 1000 }));
    patient.cloud.add_fault(Fault {
        peer: Some(Peer::Pubsub),
        method: Some("POST".to_owned()),
        ..storage_fault(
            "/v1/projects/local-project/topics/results:publish",
            Effect::Silence { silence: true },
        )
    });
    let mut events = Vec::new();
    for name in ["unpublished.docx", "stalled.docx", "stopped.docx"] {
        let generation = patient.upload_fixture(INVOICE, name).await;
        events.push(notification(name, &generation));
    }
    let generation = hurried.upload_fixture(INVOICE, "stopped.docx").await;
    let hurried_event = notification("stopped.docx", &generation);

    let terminate = async {
        let mut half_a_head = Connection::open(&patient).await;
        half_a_head.send("POST / HTTP/1.1\r\nHost: w\r\nx-never: ").await;
        // It asks for more answers than any buffer holds, and reads none.
        let mut deaf = Connection::open(&patient).await;
        let questions = "GET /health/ready HTTP/1.1\r\nHost: w\r\n\r\n".repeat(1000);
        let asking = async { while deaf.0.write_all(questions.as_bytes()).await.is_ok() {} };
        let ending = async {
            let hurried_child = hurried.worker.stopped_child(hurried.worker.zygote().await);
            let child = patient.worker.stopped_child(patient.worker.zygote().await);
            // At once: neither waits to be seen.
            let _both_hang = tokio::join!(child, hurried_child);
            let mut never = Connection::open(&quiet).await;
            never.send("POST / HTTP/1.1\r\nHost: w\r\nx-never: ").await;
            assert!(signal(patient.worker.pid(), Signal::SIGTERM));
            refuses_connections(&patient).await;
            assert!(signal(quiet.worker.pid(), Signal::SIGTERM));
            ended_well(&mut quiet).await;
            let log = patient.worker.log();
            assert!(
                !log.contains("could not be finished"),
                "a request that never comes was waited for: {log}"
            );
            assert!(signal(hurried.worker.pid(), Signal::SIGTERM));
            refuses_connections(&hurried).await;
            assert!(signal(hurried.worker.pid(), Signal::SIGINT));
        };
        tokio::join!(asking, ending)
    };
    // One after the other comes to where it hangs: with its output stored and its result not published, in its fetch,
    // in its conversion.
    let stored = async {
        while patient.object(OUTPUT, "unpublished.pdf").await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    let fetching = until("the fetch has begun", || {
        let mut fetched = false;
        harness::walk(patient.worker.temporary.path(), &mut |path| {
            fetched |= path.ends_with("source") && path.metadata().is_ok_and(|file| file.len() > 0);
        });
        fetched.then_some(())
    });
    let told_twice = async {
        let answer = hurried.post(&hurried_event).await;
        (answer.status().as_u16(), patient.worker.log())
    };
    let stalled_and_stopped = async {
        let stopped = async {
            fetching.await;
            tokio::join!(patient.post(&events[2]), told_twice, terminate)
        };
        tokio::join!(patient.post(&events[1]), stopped)
    };
    let others = async {
        stored.await;
        stalled_and_stopped.await
    };
    let (unpublished, (stalled, (stopped, (hurried_status, of_the_patient), _))) =
        tokio::join!(patient.post(&events[0]), others);
    assert_eq!(hurried_status, 503);
    assert!(
        of_the_patient.contains("shutting down") && !of_the_patient.contains("could not be finished"),
        "the one that was told first and once did not wait, or the one that was told twice did: {of_the_patient}"
    );
    for answer in [unpublished, stalled, stopped] {
        assert_eq!(answer.status(), 503, "{}", patient.worker.log());
        assert!(answer.headers().contains_key("retry-after"));
    }
    ended_well(&mut hurried).await;
    ended_well(&mut patient).await;
    let log = patient.worker.log();
    assert!(log.contains("3 deliveries could not be finished"), "{log}");
    assert!(patient.pull().await.is_none(), "a result of a job that was refused");

    // Another instance does them.
    patient.cloud.clear_faults();
    let old = format!("{}/v1/{}", patient.cloud.urls().pubsub, patient.push);
    let token = patient.cloud.access_token(harness::USER);
    let deleted = patient.http.delete(old).bearer_auth(token).send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    let mut next = World::beside(patient.cloud, &variables);
    next.worker.ready().await;
    for event in &events {
        assert_eq!(next.post(event).await.status(), 204, "{}", next.worker.log());
        assert_eq!(next.result().await.data["status"], "succeeded");
    }
    assert_eq!(next.outputs().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_takes_its_children_along() {
    let mut world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    let zygote = world.worker.zygote().await;
    let pid = world.worker.pid();
    let kill = async {
        let child = world.worker.stopped_child(zygote).await;
        let waiting = until("another child waits", || {
            children(zygote).into_iter().find(|other| *other != child)
        });
        let family = [zygote, child, waiting.await].map(u32::cast_signed);
        let running = processes(world.worker.temporary.path());
        assert!(
            family
                .iter()
                .all(|pid| running.iter().any(|process| process.pid == *pid))
        );
        assert!(signal(pid, Signal::SIGKILL));
    };
    let request = world.request(event.to_string()).bearer_auth(world.token());
    let (answer, ()) = tokio::join!(request.send(), kill);
    assert!(answer.is_err());
    assert_eq!(world.worker.exit().await, None);
    nothing_runs(world.worker.temporary.path()).await;
}

/// The places where a start can be when it is told to end, each with what shows that it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_told_to_end_ends_and_leaves_nothing() {
    let silent = |peer, prefix: &str| Fault {
        peer: Some(peer),
        ..storage_fault(prefix, Effect::Silence { silence: true })
    };
    let configuration = [
        ("CONFIG_OBJECT", "gs://input/configuration"),
        ("CONFIG_KMS_KEY", "projects/p/locations/l/keyRings/r/cryptoKeys/k"),
    ];
    let fonts = [("FONTS", "gs://input/fonts/")];
    let metadata = silent(Peer::Metadata, "/");
    // What hangs there, what shows it, and what the worker is told.
    type Case<'a> = (&'a str, Option<Fault>, &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 4] = [
        (
            "the configuration object",
            Some(silent(Peer::Storage, "/")),
            &configuration,
        ),
        ("the credentials", Some(metadata), &[]),
        (
            "the fonts",
            Some(silent(Peer::Storage, "/storage/v1/b/input/o")),
            &fonts,
        ),
        ("the engine", None, &[]),
    ];
    for (what, fault, variables) in cases {
        for asked in [Signal::SIGTERM, Signal::SIGINT] {
            let hangs = fault.is_some();
            let mut world = World::unready(variables, fault.clone()).await;
            if hangs {
                while faults_left(&world).await > 0 {
                    tokio::task::yield_now().await;
                }
            } else {
                let zygote = world.worker.zygote().await;
                assert!(
                    signal(zygote, Signal::SIGSTOP),
                    "it does not get warm before it is told"
                );
            }
            assert!(signal(world.worker.pid(), asked));
            ended_well(&mut world).await;
            assert!(
                !world.worker.log().contains("listening"),
                "{what}: {}",
                world.worker.log()
            );
        }
    }
}

async fn faults_left(world: &World) -> usize {
    let url = format!("{}/_faults", world.cloud.urls().storage);
    let faults: Value = world.http.get(url).send().await.unwrap().json().await.unwrap();
    faults.as_array().unwrap().len()
}

/// At every moment of a start, as far as the work directory shows them.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_can_be_ended_at_any_moment() {
    for entries in [1, 3, 8, 40] {
        for (end, code) in [(Signal::SIGTERM, Some(0)), (Signal::SIGKILL, None)] {
            let mut world = World::unready(&[], None).await;
            until("the start has come so far", || {
                let so_far = left(world.worker.temporary.path()).len() >= entries;
                (so_far || world.worker.log().contains("listening")).then_some(())
            })
            .await;
            assert!(signal(world.worker.pid(), end));
            if end == Signal::SIGTERM {
                ended_well(&mut world).await;
            } else {
                assert_eq!(world.worker.exit().await, code);
                nothing_runs(world.worker.temporary.path()).await;
            }
        }
    }
}

/// A file that never comes to its end, as on a file system that does not answer: a thread hangs in the kernel.
#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_does_not_keep_the_worker_from_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let never = directory.path().join("credentials.json");
    nix::unistd::mkfifo(&never, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut world = World::unready(&[("GOOGLE_APPLICATION_CREDENTIALS", never.to_str().unwrap())], None).await;
    let pid = world.worker.pid();
    // It can be opened for writing once somebody reads.
    let _silent = until("it opens the file", || {
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        nix::fcntl::open(&never, flags, nix::sys::stat::Mode::empty()).ok()
    })
    .await;
    assert!(signal(pid, Signal::SIGTERM));
    assert!(signal(pid, Signal::SIGINT));
    assert_eq!(world.worker.exit().await, Some(0), "{}", world.worker.log());
    assert!(world.worker.log().contains("something hangs"), "{}", world.worker.log());
}
