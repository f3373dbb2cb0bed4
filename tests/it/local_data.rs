//! `platen local --data`, killed and started again: what was acknowledged is there, what was cut off is not, and a directory that is
//! another's is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use nix::sys::signal::Signal;
use platen::local_cloud::{DataDirectory, LocalCloud, Settings};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, client, until};
use crate::local_command::Local;

mod restored;
mod shared;

/// How often the process is killed in the middle of uploads.
const KILLS: u64 = 4;

/// A directory that is not there yet, below one that goes with the test.
fn directory() -> (tempfile::TempDir, std::path::PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    (parent, data)
}

fn start(data: &Path) -> Local {
    Local::with(&["--data", data.to_str().unwrap()])
}

/// Ends it without a chance to write anything more.
fn kill(mut local: Local) {
    local.child.kill().unwrap();
    assert_eq!(local.child.wait().unwrap().signal(), Some(9));
}

/// Starts it where it must refuse to.
fn refused(data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_platen"));
    command.args(["local", "--data", data.to_str().unwrap()]).env_clear();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let ends = std::time::Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > ends {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

impl Local {
    /// An API of Google's, as the project's owner.
    async fn google(&self, method: Method, url: &str, body: Option<&Value>) -> (u16, Value) {
        let request = self.http.request(method, url).bearer_auth(self.token().await);
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn good(&self, method: Method, url: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.google(method, url, body).await;
        assert!(status < 300, "{url}: {status} {answer}");
        answer
    }

    fn bucket(&self, rest: &str) -> String {
        format!("{}/storage/v1/b/{rest}", self.url("storage"))
    }

    fn pubsub(&self, rest: &str) -> String {
        format!("{}/v1/projects/local-project/{rest}", self.url("pubsub"))
    }

    /// Stores bytes; the object's resource, or what was said instead.
    async fn put(&self, bucket: &str, name: &str, content: Vec<u8>) -> Result<Value, String> {
        let url = format!(
            "{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}",
            self.url("storage")
        );
        let request = self.http.post(url).bearer_auth(self.token().await).body(content);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("{status} {text}"));
        }
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    async fn content(&self, bucket: &str, name: &str) -> Vec<u8> {
        let url = self.bucket(&format!("{bucket}/o/{name}?alt=media"));
        let answer = self.http.get(url).bearer_auth(self.token().await).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
        answer.bytes().await.unwrap().to_vec()
    }

    /// Every live object of a bucket, by name.
    async fn objects(&self, bucket: &str) -> BTreeMap<String, Value> {
        let list = self.good(Method::GET, &self.bucket(&format!("{bucket}/o")), None).await;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let named = |item: Value| (item["name"].as_str().unwrap().to_owned(), item);
        items.into_iter().map(named).collect()
    }

    async fn pull(&self, subscription: &str) -> Vec<Value> {
        let url = self.pubsub(&format!("subscriptions/{subscription}:pull"));
        let body = json!({"maxMessages": 1000, "returnImmediately": true});
        let answer = self.good(Method::POST, &url, Some(&body)).await;
        answer["receivedMessages"].as_array().cloned().unwrap_or_default()
    }

    async fn publish(&self, topic: &str, data: &str) -> Value {
        let url = self.pubsub(&format!("topics/{topic}:publish"));
        let body = json!({"messages": [{"data": STANDARD.encode(data), "attributes": {"kept": "yes"}}]});
        self.good(Method::POST, &url, Some(&body)).await["messageIds"][0].clone()
    }
}

/// The process that is gone took no part of this along: settings, versions, metadata, links, messages, keys.
#[tokio::test]
async fn what_there_was_is_there_after_a_kill() {
    let (_parent, data) = directory();
    let local = start(&data);
    let generation: u64 = local
        .upload("documents/plain/invoice.docx", "a.docx")
        .await
        .parse()
        .unwrap();
    let job = local.done("a.docx").await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let link = job["result"]["outputs"][0]["signedUrl"].as_str().unwrap().to_owned();
    let pdf = local.content("pdfs", "a.pdf").await;

    // A bucket that keeps versions, with labels, a notification, and an object that has all that one can say of it.
    let body = json!({"name": "mine", "versioning": {"enabled": true}});
    local
        .good(
            Method::POST,
            &format!("{}/storage/v1/b?project=local-project", local.url("storage")),
            Some(&body),
        )
        .await;
    local
        .good(
            Method::PATCH,
            &local.bucket("mine"),
            Some(&json!({"labels": {"team": "paper"}})),
        )
        .await;
    local
        .good(
            Method::PUT,
            &local.pubsub("topics/mine"),
            Some(&json!({"labels": {"a": "b"}})),
        )
        .await;
    let settings = json!({
        "topic": "projects/local-project/topics/mine", "ackDeadlineSeconds": 33,
        "retryPolicy": {"minimumBackoff": "3s", "maximumBackoff": "4s"},
        "deadLetterPolicy": {"deadLetterTopic": "projects/local-project/topics/dead-letters", "maxDeliveryAttempts": 7},
    });
    local
        .good(Method::PUT, &local.pubsub("subscriptions/mine"), Some(&settings))
        .await;
    let body = json!({
        "topic": "//pubsub.googleapis.com/projects/local-project/topics/mine", "payload_format": "NONE",
        "event_types": ["OBJECT_FINALIZE"],
    });
    local
        .good(Method::POST, &local.bucket("mine/notificationConfigs"), Some(&body))
        .await;
    local.put("mine", "twice.txt", b"one".to_vec()).await.unwrap();
    local.put("mine", "twice.txt", b"two".to_vec()).await.unwrap();
    let about = json!({"contentType": "text/x-two", "metadata": {"k": "v"}, "contentLanguage": "de"});
    local
        .good(Method::PATCH, &local.bucket("mine/o/twice.txt"), Some(&about))
        .await;
    local.put("mine", "gone.txt", b"gone".to_vec()).await.unwrap();
    local.good(Method::DELETE, &local.bucket("mine/o/gone.txt"), None).await;
    let sealed =
        json!({"plaintext": STANDARD.encode("secret"), "additionalAuthenticatedData": STANDARD.encode("here")});
    let key = "projects/local-project/locations/global/keyRings/platen/cryptoKeys/config";
    let url = format!("{}/v1/{key}:encrypt", local.url("kms"));
    let ciphertext = local.good(Method::POST, &url, Some(&sealed)).await["ciphertext"].clone();
    for data in ["one", "two", "three"] {
        local.publish("mine", data).await;
    }
    let message = local.publish("mine", "waits").await;
    let pulled = local.pull("mine").await;
    assert_eq!(pulled.len(), 4, "{pulled:?}");
    let attempt = |message: &Value| message["deliveryAttempt"].clone();
    assert!(pulled.iter().all(|message| attempt(message) == json!(1)));
    let first = json!({"ackIds": [pulled[0]["ackId"]]});
    local
        .good(
            Method::POST,
            &local.pubsub("subscriptions/mine:acknowledge"),
            Some(&first),
        )
        .await;
    let seen = [
        "b/mine",
        "b/mine/o?versions=true",
        "b/mine/notificationConfigs",
        "b/documents/o",
        "b/pdfs/o",
        "b/config/o?versions=true",
    ];
    let mut before = Vec::new();
    for path in seen {
        let url = format!("{}/storage/v1/{path}", local.url("storage"));
        before.push(local.good(Method::GET, &url, None).await);
    }
    let subscription = local.good(Method::GET, &local.pubsub("subscriptions/mine"), None).await;
    let results = local.pull("results").await.len();
    kill(local);

    let local = start(&data);
    for (path, before) in seen.iter().zip(before) {
        let url = format!("{}/storage/v1/{path}", local.url("storage"));
        assert_eq!(local.good(Method::GET, &url, None).await, before, "{path}");
    }
    assert_eq!(local.content("mine", "twice.txt").await, b"two");
    let versions = local
        .good(Method::GET, &local.bucket("mine/o?versions=true"), None)
        .await;
    let old = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["timeDeleted"].is_string() && item["size"] == "3");
    let old = format!(
        "mine/o/twice.txt?alt=media&generation={}",
        old.unwrap()["generation"].as_str().unwrap()
    );
    let answer = local
        .http
        .get(local.bucket(&old))
        .bearer_auth(local.token().await)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.bytes().await.unwrap(), "one");
    let ranged = local
        .http
        .get(local.bucket("mine/o/twice.txt?alt=media"))
        .bearer_auth(local.token().await);
    let ranged = ranged.header("range", "bytes=1-").send().await.unwrap();
    assert_eq!(
        (ranged.status().as_u16(), &*ranged.bytes().await.unwrap()),
        (206, &b"wo"[..])
    );

    // The link's signature was made before, by a key that is still the signer's.
    let answer = local.http.get(&link).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{link}");
    assert_eq!(answer.bytes().await.unwrap(), pdf);

    assert_eq!(
        local.good(Method::GET, &local.pubsub("subscriptions/mine"), None).await,
        subscription
    );
    let again = local.pull("mine").await;
    assert_eq!(again.len(), 3, "what was acknowledged stays so: {again:?}");
    for (old, new) in pulled[1..].iter().zip(&again) {
        assert_eq!(old["message"], new["message"]);
        assert_eq!(attempt(new), json!(2), "attempts are counted on: {new}");
    }
    assert_eq!(again[2]["message"]["messageId"], message);
    assert_eq!(local.pull("results").await.len(), results);
    let opened = json!({"ciphertext": ciphertext, "additionalAuthenticatedData": STANDARD.encode("here")});
    let url = format!("{}/v1/{key}:decrypt", local.url("kms"));
    let opened = local.good(Method::POST, &url, Some(&opened)).await;
    assert_eq!(opened["plaintext"], STANDARD.encode("secret"));

    // The page knows the result that nobody has taken, and the worker does what is new.
    assert_eq!(local.done("a.docx").await["state"], "succeeded");
    let newer: u64 = local
        .upload("documents/plain/invoice.docx", "a.docx")
        .await
        .parse()
        .unwrap();
    assert!(newer > generation, "{newer} after {generation}");
    let newest = newer.to_string();
    local
        .job("a.docx", "is done again", |job| {
            job["generation"] == newest && job["state"] == "succeeded"
        })
        .await;
    let last = local.publish("mine", "last").await;
    assert!(last.as_str().unwrap().parse::<u64>().unwrap() > message.as_str().unwrap().parse().unwrap());
}

/// An upload that nobody has converted yet is converted by the next process.
#[tokio::test]
async fn a_message_that_waits_is_pushed_to_the_next_worker() {
    let (_parent, data) = directory();
    let local = start(&data);
    local
        .control(Method::POST, "/api/worker", &json!({"action": "stop"}), 200)
        .await;
    let generation = local.upload("documents/plain/invoice.docx", "waits.docx").await;
    local.job("waits.docx", "is announced", |_| true).await;
    kill(local);
    let local = start(&data);
    let job = local.done("waits.docx").await;
    assert_eq!(
        (&job["state"], &job["generation"]),
        (&json!("succeeded"), &json!(generation))
    );
}

/// Only one process uses a directory, and one that holds anything else is not touched.
#[tokio::test]
async fn a_directory_that_is_in_use_or_anothers_is_refused() {
    let (_parent, data) = directory();
    let mut local = start(&data);
    let output = refused(&data);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{message}");
    let process = format!("in use by process {}", local.child.id());
    assert!(message.contains(&process), "{message}");
    // The lock goes with the process, however that ends: the worker, which is its child, does not keep it.
    assert_eq!(local.end(Signal::SIGINT).code(), Some(0), "{}", local.log());
    drop(start(&data));

    let foreign = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("photo.jpg", "mine"),
        ("journal", "Dear diary,\n"),
        ("objects", "no directory"),
    ] {
        std::fs::write(foreign.path().join(name), content).unwrap();
        let output = refused(foreign.path());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{message}");
        assert!(
            message.contains(&format!("'{name}'")) && message.contains("--data"),
            "{message}"
        );
        let there: Vec<_> = std::fs::read_dir(foreign.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(there, [name], "nothing is made where something else is");
        assert_eq!(std::fs::read_to_string(foreign.path().join(name)).unwrap(), content);
        std::fs::remove_file(foreign.path().join(name)).unwrap();
    }
    let journal = data.join("journal");
    let written = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, written.replacen("format 1", "format 2", 1)).unwrap();
    let output = refused(&data);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("format 2; this one reads format 1"), "{message}");
}

/// A last line that was cut off, anywhere, is dropped and all before it is there; a line in the middle that is not what was written
/// is not guessed at, nor is an object whose bytes are gone.
#[tokio::test]
async fn a_torn_change_is_dropped_and_damage_is_refused() {
    let (_parent, data) = directory();
    let journal = data.join("journal");
    let local = start(&data);
    local.put("documents", "first.ignored/", b"1".to_vec()).await.unwrap();
    local
        .control(Method::POST, "/api/worker", &json!({"action": "stop"}), 200)
        .await;
    local.put("config", "kept.txt", b"kept".to_vec()).await.unwrap();
    let before = std::fs::read(&journal).unwrap();
    local.put("config", "torn.txt", b"torn".to_vec()).await.unwrap();
    kill(local);
    // An object and what it is announced by are one change.
    let text = String::from_utf8(before.clone()).unwrap();
    let line = text
        .lines()
        .find(|line| line.contains(r#""storage/object/documents/first.ignored/":"#));
    assert!(line.unwrap().contains("/subscriptions/worker/message/"), "{line:?}");
    let after = std::fs::read(&journal).unwrap();
    assert!(after.starts_with(&before) && after[before.len()..].iter().filter(|byte| **byte == b'\n').count() == 1);
    // Without its last byte, with its first bytes only, and with its end as zeros, as a loss of power leaves it.
    let mut zeros = after.clone();
    zeros[before.len() + 40..].fill(0);
    for torn in [&after[..after.len() - 1], &after[..before.len() + 5], &zeros] {
        std::fs::write(&journal, torn).unwrap();
        let local = start(&data);
        let objects = local.objects("config").await;
        let names: Vec<&str> = objects.keys().map(String::as_str).collect();
        assert_eq!(names, ["kept.txt", "worker.enc"]);
        assert_eq!(local.content("config", "kept.txt").await, b"kept");
        let known: BTreeSet<&str> = ["first.ignored/"].into();
        assert_eq!(
            local
                .objects("documents")
                .await
                .keys()
                .map(String::as_str)
                .collect::<BTreeSet<_>>(),
            known
        );
        // The bytes that no record names are gone: three objects are left.
        assert_eq!(std::fs::read_dir(data.join("objects")).unwrap().count(), 3);
        // And it goes on from there.
        local.put("config", "torn.txt", b"again".to_vec()).await.unwrap();
        local
            .good(Method::DELETE, &local.bucket("config/o/torn.txt"), None)
            .await;
        kill(local);
        drop(DataDirectory::open(&data, |_| {}).unwrap());
        std::fs::write(&journal, &before).unwrap();
    }

    let mut damaged = before.clone();
    let middle = before.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&journal, &damaged).unwrap();
    let output = refused(&data);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.contains("is damaged: its journal does not read from byte"),
        "{message}"
    );
    assert_eq!(
        std::fs::read(&journal).unwrap(),
        damaged,
        "nothing is mended in what is not understood"
    );

    std::fs::write(&journal, &before).unwrap();
    let objects = || {
        std::fs::read_dir(data.join("objects"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let object = objects().find(|path| std::fs::read(path).unwrap() == b"kept").unwrap();
    std::fs::write(&object, b"kep").unwrap();
    let output = refused(&data);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        message.contains("gs://config/kept.txt") && message.contains("4 bytes: 3 bytes"),
        "{message}"
    );
}

/// A process that may not write another byte says so to whoever wants to change something, and shows nothing of it; as soon as there
/// is room it goes on.
#[tokio::test]
async fn a_full_disk_is_an_error_and_nothing_half_written_is_seen() {
    let (_parent, data) = directory();
    let local = Local::start_under(
        &["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""],
        &["--data", data.to_str().unwrap()],
    );
    local
        .control(Method::POST, "/api/worker", &json!({"action": "stop"}), 200)
        .await;
    local.put("config", "before.txt", b"before".to_vec()).await.unwrap();
    local.good(Method::PUT, &local.pubsub("topics/mine"), None).await;
    let body = json!({"topic": "projects/local-project/topics/mine"});
    local
        .good(Method::PUT, &local.pubsub("subscriptions/mine"), Some(&body))
        .await;
    local.publish("mine", "waits").await;
    let list = local.objects("config").await;
    let files = || std::fs::read_dir(data.join("objects")).unwrap().count();
    let (journal, stored) = (std::fs::metadata(data.join("journal")).unwrap().len(), files());
    let limit = |size: &str| {
        let mut command = Command::new("prlimit");
        command.args([
            "--pid",
            &local.child.id().to_string(),
            &format!("--fsize={size}:unlimited"),
        ]);
        assert!(command.status().unwrap().success());
    };
    // Objects find room, and the journal does not; then nothing does.
    for room in [journal + 20, 0] {
        limit(&room.to_string());
        for name in ["new.txt", "before.txt"] {
            let error = local.put("config", name, b"after".to_vec()).await.unwrap_err();
            assert!(error.starts_with("503") && error.contains("data directory"), "{error}");
        }
        for (method, url, body) in [
            (Method::DELETE, local.bucket("config/o/before.txt"), None),
            (
                Method::PATCH,
                local.bucket("config/o/before.txt"),
                Some(json!({"contentType": "text/lost"})),
            ),
            (
                Method::PATCH,
                local.bucket("config"),
                Some(json!({"labels": {"lost": "1"}})),
            ),
            (
                Method::POST,
                local.bucket("config/o/before.txt/copyTo/b/config/o/copy.txt"),
                None,
            ),
            (Method::PUT, local.pubsub("topics/lost"), None),
            (Method::PUT, local.pubsub("subscriptions/lost"), Some(body.clone())),
            (Method::DELETE, local.pubsub("subscriptions/mine"), None),
            (Method::DELETE, local.pubsub("topics/mine"), None),
            (
                Method::POST,
                local.pubsub("topics/mine:publish"),
                Some(json!({"messages": [{"data": "bG9zdA=="}]})),
            ),
            (
                Method::POST,
                local.pubsub("subscriptions/mine:pull"),
                Some(json!({"maxMessages": 1})),
            ),
        ] {
            let (status, answer) = local.google(method.clone(), &url, body.as_ref()).await;
            assert_eq!(status, 503, "{method} {url}: {answer}");
            assert!(answer.to_string().contains("data directory"), "{answer}");
        }
        assert_eq!(local.objects("config").await, list);
        assert_eq!(local.content("config", "before.txt").await, b"before");
        assert_eq!(std::fs::metadata(data.join("journal")).unwrap().len(), journal);
    }
    limit("unlimited");
    let pulled = local.pull("mine").await;
    assert_eq!(pulled.len(), 1, "{pulled:?}");
    assert_eq!(pulled[0]["message"]["data"], STANDARD.encode("waits"));
    assert_eq!(
        local.google(Method::GET, &local.pubsub("topics/lost"), None).await.0,
        404
    );
    local.put("config", "before.txt", b"after".to_vec()).await.unwrap();
    assert_eq!(local.content("config", "before.txt").await, b"after");
    assert_eq!(
        files(),
        stored + 1,
        "the version before, the one after, and nothing of what failed"
    );
    kill(local);
    let local = start(&data);
    assert_eq!(local.content("config", "before.txt").await, b"after");
    assert_eq!(local.pull("mine").await.len(), 1);
}

/// Killed again and again while uploads and deletions come in, of a bucket that keeps no versions: all that was answered is so, with these bytes, and what is listed can
/// be read whole.
#[tokio::test]
async fn every_upload_that_was_answered_is_there_whenever_it_is_killed() {
    let (_parent, data) = directory();
    // What each name must be, or may be where the last call for it was not answered.
    let mut certain: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let mut in_doubt: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    let mut newest = 0;
    let mut answered = 0;
    for round in 0..=KILLS {
        let local = start(&data);
        let objects = local.objects("pdfs").await;
        for (name, content) in &certain {
            let there = match objects.get(name) {
                Some(_) => Some(local.content("pdfs", name).await),
                None => None,
            };
            let may_be = in_doubt.get(name).is_some_and(|content| *content == there);
            assert!(
                there == *content || may_be,
                "{name} in round {round}: {} bytes",
                there.map_or(0, |there| there.len())
            );
        }
        for (name, content) in std::mem::take(&mut in_doubt) {
            let Some(object) = objects.get(&name) else {
                certain.insert(name, None);
                continue;
            };
            let there = local.content("pdfs", &name).await;
            assert_eq!(object["size"], there.len().to_string(), "{name}");
            assert!(
                Some(&there) == content.as_ref() || certain.get(&name) == Some(&Some(there.clone())),
                "{name}"
            );
            certain.insert(name, Some(there));
        }
        if round == KILLS {
            break;
        }
        // Killed somewhere in what follows: the moment moves with the round.
        let (pid, moment) = (local.child.id(), Duration::from_millis(40 + 97 * round));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(moment);
            assert!(crate::harness::signal(pid, Signal::SIGKILL));
        });
        let token = local.token().await;
        for number in 0.. {
            let name = format!("{}.bin", number % 7);
            let deletes = number % 5 == 4;
            let content = (!deletes).then(|| format!("{round} {number} ").into_bytes().repeat(2000));
            in_doubt.insert(name.clone(), content.clone());
            let request = match &content {
                Some(content) => {
                    let url = format!(
                        "{}/upload/storage/v1/b/pdfs/o?uploadType=media&name={name}",
                        local.url("storage")
                    );
                    local.http.post(url).body(content.clone())
                }
                None => local.http.delete(local.bucket(&format!("pdfs/o/{name}"))),
            };
            let Ok(answer) = request.bearer_auth(&token).send().await else {
                break;
            };
            let status = answer.status().as_u16();
            let Ok(object) = answer.bytes().await else { break };
            assert!(status < 300 || deletes && status == 404, "{status}");
            if !deletes {
                let object: Value = serde_json::from_slice(&object).unwrap();
                let generation: u64 = object["generation"].as_str().unwrap().parse().unwrap();
                assert!(generation > newest, "{generation} after {newest}");
                newest = generation;
            }
            in_doubt.remove(&name);
            certain.insert(name, content);
            answered += 1;
        }
        killer.join().unwrap();
    }
    assert!(answered > 20, "only {answered} calls were answered before the kills");
    println!("{KILLS} kills in {answered} calls");
}

/// A bucket's worth of bytes is on the disk and not in memory, and a journal that is mostly out of date is written anew.
#[tokio::test]
async fn neither_memory_nor_the_journal_grows_with_what_is_replaced() {
    const SIZE: usize = 4 << 20;
    let (_parent, data) = directory();
    let local = start(&data);
    local
        .control(Method::POST, "/api/worker", &json!({"action": "stop"}), 200)
        .await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", local.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let content = |number: u8| vec![number; SIZE];
    local.put("pdfs", "warm.bin", content(0)).await.unwrap();
    let before = resident();
    for number in 0..40 {
        local
            .put("pdfs", &format!("{number}.bin"), content(number))
            .await
            .unwrap();
    }
    assert_eq!(local.content("pdfs", "39.bin").await, content(39));
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 10 * SIZE,
        "40 objects of {SIZE} bytes, and {grown} bytes more in memory"
    );

    // A long value again and again: 200 times 60 kB are written, and one of them is current.
    let journal = || std::fs::metadata(data.join("journal")).unwrap().len();
    for number in 0..200 {
        let value = format!("{number:04}").repeat(15_000);
        let about = json!({"contentDisposition": value});
        local
            .good(Method::PATCH, &local.bucket("pdfs/o/warm.bin"), Some(&about))
            .await;
    }
    assert!(journal() < 8 << 20, "{} bytes", journal());
    kill(local);
    let local = start(&data);
    let about = local.good(Method::GET, &local.bucket("pdfs/o/warm.bin"), None).await;
    assert_eq!(about["contentDisposition"], "0199".repeat(15_000));
    assert_eq!(about["metageneration"], "201");
    assert_eq!(local.objects("pdfs").await.len(), 41);
}

/// A directory in this process, as soon as the cloud that had it is gone.
pub(crate) async fn cloud(data: &Path) -> LocalCloud {
    let directory = until("the directory is free", || DataDirectory::open(data, |_| {}).ok()).await;
    LocalCloud::start_with(Settings::default(), Some(directory))
        .await
        .unwrap()
}

/// The clock of the machine is set back: what is written later is still newer.
#[tokio::test]
async fn generations_and_message_ids_never_go_back() {
    let (_parent, data) = directory();
    let before = cloud(&data).await;
    before.clock().advance(TimeDelta::days(1));
    before.create_bucket("bucket", false).unwrap();
    before.create_topic("topic").unwrap();
    let put = |cloud: &LocalCloud| {
        let object = cloud.put("bucket", "a.txt", "text/plain", "a".into()).unwrap();
        object["generation"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let (generation, id) = (put(&before), before.publish("topic", b"a", &[]).unwrap());
    drop(before);
    let after = cloud(&data).await;
    let newer = put(&after);
    assert!(newer > generation, "{newer} after {generation}");
    let next = after.publish("topic", b"a", &[]).unwrap();
    assert_eq!(next.parse::<u64>().unwrap(), id.parse::<u64>().unwrap() + 1);
}

/// A key file that was handed out before a restart still signs; a key that was never registered does not.
#[tokio::test]
async fn key_files_of_before_sign_after() {
    let (parent, data) = directory();
    let before = cloud(&data).await;
    let account = before.settings().signer_service_account.clone();
    before.create_bucket("bucket", false).unwrap();
    before.put("bucket", "a.txt", "text/plain", "a".into()).unwrap();
    let file = before.create_key_file(&account).unwrap();
    drop(before);
    let mut elsewhere = file.clone();
    let other_directory = parent.path().join("other");
    elsewhere["private_key"] = cloud(&other_directory).await.create_key_file(&account).unwrap()["private_key"].clone();
    let after = cloud(&data).await;
    for (file, status) in [(file, 200), (elsewhere, 403)] {
        let path = parent.path().join("key.json");
        std::fs::write(&path, file.to_string()).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_platen"));
        command.env_clear().env("STORAGE_EMULATOR_HOST", &after.urls().storage);
        command.args(["sign", "gs://bucket/a.txt", "--key-file", path.to_str().unwrap()]);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let answer = client().get(said.lines().last().unwrap()).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
}
