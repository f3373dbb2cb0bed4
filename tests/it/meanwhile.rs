//! What happens between two calls of one job: the worker's storage is behind a door that holds a call until the test has
//! changed what the call is about.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::harness::{INPUT, OUTPUT, USER, World, client, cloud, encode, job, pdf_text, until, versioned_input};
use crate::states::{ARCHIVE, put};

/// A call that waits.
struct Held {
    /// Path and query, as sent.
    target: String,
    go: oneshot::Sender<()>,
}

impl Held {
    /// The value of a query parameter.
    fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// Lets the call through.
    fn go(self) {
        self.go.send(()).expect("the worker still waits");
    }
}

/// The door: calls of this method whose path begins so are held, all others pass.
struct Door {
    url: String,
    held: mpsc::UnboundedReceiver<Held>,
}

impl Door {
    async fn open(storage: &str, method: Method, path: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, held) = mpsc::unbounded_channel();
        let (storage, http): (Arc<str>, _) = (storage.into(), client());
        let router = Router::new().fallback(move |request: Request| {
            let (storage, http, sender, method) = (Arc::clone(&storage), http.clone(), sender.clone(), method.clone());
            async move {
                let target = request.uri().path_and_query().unwrap().to_string();
                let (parts, body) = request.into_parts();
                let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                if parts.method == method && target.starts_with(path) {
                    let (go, gone) = oneshot::channel();
                    let held = Held {
                        target: target.clone(),
                        go,
                    };
                    // A test that is over holds nothing.
                    if sender.send(held).is_ok() {
                        let _over = gone.await;
                    }
                }
                let mut headers = parts.headers;
                headers.remove(header::HOST);
                let request = http
                    .request(parts.method, format!("{storage}{target}"))
                    .headers(headers);
                let answer = request.body(body).send().await.unwrap();
                let (status, headers) = (answer.status(), answer.headers().clone());
                let mut passed = Response::new(Body::from(answer.bytes().await.unwrap()));
                (*passed.status_mut(), *passed.headers_mut()) = (status, headers);
                passed
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, held }
    }

    async fn next(&mut self) -> Held {
        self.held.recv().await.unwrap()
    }
}

/// A worker whose storage is behind a door.
async fn behind_a_door(method: Method, path: &'static str) -> (World, Door) {
    let cloud = cloud().await;
    versioned_input(&cloud, ARCHIVE);
    let door = Door::open(&cloud.urls().storage, method, path).await;
    let variables = [
        ("STORAGE_EMULATOR_HOST", door.url.as_str()),
        ("INPUT_BUCKETS", "input,archive"),
    ];
    let mut world = World::beside(cloud, &variables);
    world.worker.ready().await;
    (world, door)
}

/// What can be read in an output.
async fn text(world: &World, name: &str) -> String {
    let url = format!(
        "{}/storage/v1/b/{OUTPUT}/o/{}?alt=media",
        world.cloud.urls().storage,
        encode(name)
    );
    let request = world.http.get(url).bearer_auth(world.cloud.access_token(USER));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), request.send().await.unwrap().bytes().await.unwrap()).unwrap();
    pdf_text(file.path()).trim().to_owned()
}

/// The generation pin. Where the new bytes are the old ones again, no checksum sees that another generation was read.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_between_the_look_and_the_fetch_is_not_read_in_its_place() {
    const OLD: &str = "The first words.";
    let (world, mut door) = behind_a_door(Method::GET, "/download/").await;
    let mut number = 0;
    for bucket in [INPUT, ARCHIVE] {
        for new in [OLD, "Other words."] {
            for is_named in [true, false] {
                number += 1;
                let shown = format!("{bucket}, {new}, named: {is_named}");
                let (object, output) = (format!("{number}.txt"), format!("{number}.pdf"));
                let looked_at = world.upload_to(bucket, &object, OLD.into()).await;
                let mut wanted = json!({"source": format!("gs://{bucket}/{object}")});
                if is_named {
                    wanted["generation"] = json!(looked_at);
                }
                let message = job(&wanted);
                let replaced = async {
                    let download = door.next().await;
                    assert_eq!(download.parameter("generation"), Some(looked_at.as_str()), "{shown}");
                    world.upload_to(bucket, &object, new.into()).await;
                    download.go();
                };
                let (answer, ()) = tokio::join!(world.post(&message), replaced);
                if bucket == INPUT && !is_named {
                    // It is gone, and whoever named no generation means the newest.
                    assert_eq!(answer.status(), 503, "{shown}: {}", world.worker.log());
                    assert!(world.pull().await.is_none(), "{shown}");
                    let again = async {
                        let download = door.next().await;
                        download.go();
                    };
                    let (answer, ()) = tokio::join!(world.post(&message), again);
                    assert_eq!(answer.status(), 204, "{shown}: {}", world.worker.log());
                    let result = world.result().await.data;
                    assert_eq!(result["status"], "succeeded", "{shown}: {result}");
                    assert_eq!(text(&world, &output).await, new, "{shown}");
                    continue;
                }
                assert_eq!(answer.status(), 204, "{shown}: {}", world.worker.log());
                let result = world.result().await.data;
                assert_eq!(result["source"]["generation"], looked_at, "{shown}: {result}");
                let stored = world.object(OUTPUT, &output).await;
                if bucket == INPUT {
                    // It is gone.
                    assert_eq!(result["status"], "superseded", "{shown}: {result}");
                    assert_eq!(stored, None, "{shown}");
                    continue;
                }
                // It is kept, and what was looked at is what is read.
                assert_eq!(result["status"], "succeeded", "{shown}: {result}");
                let source = format!("gs://{bucket}/{object}#{looked_at}");
                assert_eq!(stored.unwrap()["metadata"]["platen-source"], source, "{shown}");
                assert_eq!(text(&world, &output).await, OLD, "{shown}");
            }
        }
    }
    assert!(world.pull().await.is_none(), "a job has two results");
}

/// C2 of ARCHITECTURE.md, to its end: somebody else is faster every time.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_before_every_write_is_left_to_the_next_delivery() {
    let (world, mut door) = behind_a_door(Method::POST, "/upload/storage/v1/b/output/").await;
    let generation = world.upload("a.txt", b"Some words.".to_vec()).await;
    let message = job(&json!({"source": format!("gs://{INPUT}/a.txt"), "generation": generation}));
    let older = |made_from: usize| -> Value {
        json!({
            "platen-job": "0123456789abcdef0123456789abcdef", "platen-source": format!("gs://{INPUT}/a.txt#{made_from}"),
            "platen-version": "0",
        })
    };
    let mut there = vec!["0".to_owned()];
    let changed = async {
        for round in 1..=3 {
            let write = door.next().await;
            assert_eq!(write.parameter("ifGenerationMatch"), there.last().map(String::as_str));
            there.push(put(&world, "a.pdf", &older(round), b"older").await);
            write.go();
        }
        // The answer comes while a fourth write is waited for.
        door.next().await.target
    };
    let answer = tokio::select! {
        answer = world.post(&message) => answer,
        more = changed => panic!("one write more: {more}"),
    };
    assert_eq!(there.len(), 1 + 3, "it has written less often than it says");
    assert_eq!(answer.status(), 503, "{}", world.worker.log());
    assert!(answer.headers().contains_key("retry-after"));
    let said = "gs://output/a.pdf changed 3 times while it was being written";
    // The log comes through a pipe, when it comes.
    until(said, || world.worker.log().contains(said).then_some(())).await;
    assert!(world.pull().await.is_none(), "it is not done, and not failed");
    let left = world.object(OUTPUT, "a.pdf").await.unwrap();
    assert_eq!(left["generation"].as_str(), there.last().map(String::as_str));

    let undisturbed = async {
        let write = door.next().await;
        assert_eq!(write.parameter("ifGenerationMatch"), there.last().map(String::as_str));
        write.go();
    };
    let (answer, ()) = tokio::join!(world.post(&message), undisturbed);
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}");
    let stored = world.object(OUTPUT, "a.pdf").await.unwrap();
    assert_eq!(stored["generation"], result["outputs"][0]["generation"]);
    assert_eq!(text(&world, "a.pdf").await, "Some words.");
    assert!(world.pull().await.is_none());
}
