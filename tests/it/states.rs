//! The states of a job, row by row of ARCHITECTURE.md's tables: what a delivery finds in storage decides what it does,
//! and nothing else.

use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Map, Value, json};

use crate::flight::{Calls, DOWNLOADS, UPLOADS};
use crate::harness::{INPUT, OUTPUT, World, job, signal, upload_to, versioned_input};

const INVOICE: &str = "documents/plain/invoice.docx";
pub(crate) const ARCHIVE: &str = "archive";

/// The source when the delivery looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The generation that the job names is the live one.
    There,
    /// The job names no generation.
    NotNamed,
    /// The generation that the job names has been replaced, and its bucket keeps old ones.
    Archived,
    /// It has been replaced, and is gone.
    Replaced,
    /// It has been deleted.
    Deleted,
    /// The job names no generation, and there is none.
    NotNamedAndGone,
}

/// What is under the output's name then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Absent,
    Done,
    /// The first of two is done.
    DoneInPart,
    OtherRevision,
    Older,
    Newer,
    OtherSource,
    NotOurs,
    DamagedSource,
    NoJob,
    OtherBytes,
}

const SOURCES: [Source; 6] = [
    Source::There,
    Source::NotNamed,
    Source::Archived,
    Source::Replaced,
    Source::Deleted,
    Source::NotNamedAndGone,
];

const OUTPUTS: [Output; 11] = [
    Output::Absent,
    Output::Done,
    Output::DoneInPart,
    Output::OtherRevision,
    Output::Older,
    Output::Newer,
    Output::OtherSource,
    Output::NotOurs,
    Output::DamagedSource,
    Output::NoJob,
    Output::OtherBytes,
];

/// How a delivery ends, and what it did for that.
#[derive(Debug, PartialEq, Eq)]
struct End {
    status: &'static str,
    code: Option<&'static str>,
    /// Conversions, each of which fetches the source once, and uploads, also those that are refused.
    work: (u32, u32),
    /// Of the first output: whether the generation that was there before is the one there after.
    kept: bool,
}

const fn end(status: &'static str, code: Option<&'static str>, work: (u32, u32), kept: bool) -> End {
    End {
        status,
        code,
        work,
        kept,
    }
}

/// The table. S1 to S6, S8 to S10 of ARCHITECTURE.md.
fn expected(source: Source, output: Output) -> End {
    use Output::{Absent, Done, DoneInPart, Newer, Older, OtherRevision};
    match (source, output) {
        (Source::NotNamedAndGone, _) => end("failed", Some("source.not_found"), (0, 0), true),
        (Source::Replaced | Source::Deleted, Done) => end("succeeded", None, (0, 0), true),
        (Source::Replaced | Source::Deleted, _) => end("superseded", None, (0, 0), true),
        (_, Absent | Older | OtherRevision) => end("succeeded", None, (1, 1), false),
        (_, Done) => end("succeeded", None, (0, 0), true),
        (_, DoneInPart) => end("succeeded", None, (1, 1), true),
        (_, Newer) => end("superseded", None, (0, 0), true),
        _ => end("failed", Some("output.conflict"), (0, 0), true),
    }
}

/// A document that is converted, with what a test knows of it.
struct Document {
    bucket: &'static str,
    stem: String,
    generation: String,
}

impl Document {
    async fn upload(world: &World, bucket: &'static str, stem: &str) -> Self {
        let bytes = std::fs::read(crate::harness::fixture(INVOICE)).unwrap();
        let generation = upload_to(&world.cloud, bucket, &format!("{stem}.docx"), bytes).await;
        Self {
            bucket,
            stem: stem.to_owned(),
            generation,
        }
    }

    fn object(&self) -> String {
        format!("{}.docx", self.stem)
    }

    fn output(&self) -> String {
        format!("{}.pdf", self.stem)
    }

    fn second(&self) -> String {
        format!("{}-2.pdf", self.stem)
    }

    fn address(&self) -> String {
        format!("gs://{}/{}", self.bucket, self.object())
    }

    fn job(&self, is_named: bool, outputs: usize, revision: &str) -> Value {
        let mut wanted = json!({"source": self.address(), "revision": revision});
        if is_named {
            wanted["generation"] = self.generation.as_str().into();
        }
        if outputs == 2 {
            wanted["outputs"] = json!([{"format": "pdf"}, {"format": "pdf", "name": "{dir}{stem}-2.{ext}"}]);
        }
        job(&wanted)
    }

    /// Metadata as of an output made of a generation of this document by some job.
    fn made_from(&self, generation: &str) -> Value {
        json!({"platen-job": "0123456789abcdef0123456789abcdef", "platen-source": format!("{}#{generation}", self.address()), "platen-version": "0"})
    }
}

/// Writes over an output, metadata and all, as anybody may who has the right.
pub(crate) async fn put(world: &World, name: &str, metadata: &Value, bytes: &[u8]) -> String {
    let url = format!(
        "{}/upload/storage/v1/b/{OUTPUT}/o?uploadType=multipart",
        world.cloud.urls().storage
    );
    let resource = json!({"name": name, "contentType": "application/pdf", "metadata": metadata});
    let mut body = format!(
        "--b\r\ncontent-type: application/json\r\n\r\n{resource}\r\n--b\r\ncontent-type: application/pdf\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let answer = world
        .http
        .post(url)
        .header("content-type", "multipart/related; boundary=b")
        .bearer_auth(world.cloud.access_token("user@local-project.iam.gserviceaccount.com"))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let object: Value = answer.json().await.unwrap();
    object["generation"].as_str().unwrap().to_owned()
}

async fn generation(world: &World, name: &str) -> Option<String> {
    let object = world.object(OUTPUT, name).await?;
    Some(object["generation"].as_str().unwrap().to_owned())
}

/// Delivers, and gives the result.
async fn deliver(world: &World, message: &Value) -> Value {
    let status = world.post(message).await.status();
    assert_eq!(status, 204, "{message}\n{:.5000}", world.worker.log());
    world.result().await.data
}

async fn metadata(world: &World, name: &str) -> Map<String, Value> {
    world.object(OUTPUT, name).await.unwrap()["metadata"]
        .as_object()
        .unwrap()
        .clone()
}

/// Brings the output into its state while the source is still there.
async fn prepare(world: &World, document: &Document, is_named: bool, output: Output) {
    let name = document.output();
    let made = async |outputs: usize, revision: &str| {
        let result = deliver(world, &document.job(is_named, outputs, revision)).await;
        assert_eq!(result["status"], "succeeded", "{result}");
    };
    let own: i64 = document.generation.parse().unwrap();
    match output {
        Output::Absent => {}
        Output::Done => made(1, "now").await,
        Output::DoneInPart => {
            made(2, "now").await;
            world.delete(OUTPUT, &document.second()).await;
        }
        Output::OtherRevision => made(1, "before").await,
        Output::Older => drop(put(world, &name, &document.made_from("1"), b"older").await),
        Output::Newer => {
            let metadata = document.made_from(&(own + 1_000_000_000).to_string());
            put(world, &name, &metadata, b"newer").await;
        }
        Output::OtherSource => {
            let mut metadata = document.made_from("1");
            metadata["platen-source"] = format!("gs://{INPUT}/another.odt#1").into();
            put(world, &name, &metadata, b"another").await;
        }
        Output::NotOurs => drop(put(world, &name, &json!({"author": "somebody"}), b"theirs").await),
        Output::DamagedSource | Output::NoJob | Output::OtherBytes => {
            made(1, "now").await;
            let mut metadata = metadata(world, &name).await;
            let bytes = match output {
                Output::DamagedSource => {
                    metadata["platen-source"] = document.address().into();
                    b"as it was".as_slice()
                }
                Output::NoJob => {
                    metadata.remove("platen-job");
                    b"as it was".as_slice()
                }
                _ => b"%PDF-1.7, with a stamp",
            };
            put(world, &name, &metadata.into(), bytes).await;
        }
    }
}

async fn change_source(world: &World, document: &Document, source: Source) {
    match source {
        Source::There | Source::NotNamed => {}
        Source::Archived | Source::Replaced => {
            Document::upload(world, document.bucket, &document.stem).await;
        }
        Source::Deleted | Source::NotNamedAndGone => world.delete(document.bucket, &document.object()).await,
    }
}

async fn world() -> World {
    let cloud = crate::harness::cloud().await;
    versioned_input(&cloud, ARCHIVE);
    let mut world = World::beside(cloud, &[("INPUT_BUCKETS", "input,archive")]);
    world.worker.ready().await;
    world
}

async fn rows(sources: &[Source]) {
    let world = world().await;
    let calls = Calls::count(&world);
    let mut wrong = Vec::new();
    for (source, output) in sources
        .iter()
        .flat_map(|source| OUTPUTS.map(|output| (*source, output)))
    {
        let bucket = if source == Source::Archived { ARCHIVE } else { INPUT };
        let is_named = !matches!(source, Source::NotNamed | Source::NotNamedAndGone);
        let document = Document::upload(&world, bucket, &format!("{source:?}-{output:?}")).await;
        prepare(&world, &document, is_named, output).await;
        change_source(&world, &document, source).await;

        let (name, outputs) = (document.output(), if output == Output::DoneInPart { 2 } else { 1 });
        let before = generation(&world, &name).await;
        let (downloads, uploads) = (calls.of(DOWNLOADS).await, calls.of(UPLOADS).await);
        let result = deliver(&world, &document.job(is_named, outputs, "now")).await;
        let work = (calls.of(DOWNLOADS).await - downloads, calls.of(UPLOADS).await - uploads);
        let after = generation(&world, &name).await;

        let expected = expected(source, output);
        let is_right = result["status"] == expected.status
            && result["error"]["code"].as_str() == expected.code
            && work == expected.work
            && (before == after) == expected.kept;
        if !is_right {
            let kept = before == after;
            wrong.push(format!(
                "{source:?}, {output:?}: {work:?}, kept: {kept}, not {expected:?}: {result}"
            ));
            continue;
        }
        let said = result["outputs"].as_array().unwrap();
        if expected.status != "succeeded" {
            assert!(said.is_empty(), "{source:?}, {output:?}: {result}");
            continue;
        }
        assert_eq!(said.len(), outputs, "{source:?}, {output:?}: {result}");
        for said in said {
            let there = world.object(OUTPUT, said["name"].as_str().unwrap()).await.unwrap();
            for field in ["generation", "size", "crc32c"] {
                assert_eq!(there[field], said[field], "{source:?}, {output:?}: {field}");
            }
            assert_eq!(there["metadata"]["platen-job"], result["jobId"]);
            assert_eq!(there["metadata"]["platen-crc32c"], there["crc32c"]);
            assert_eq!(
                there["metadata"]["platen-source"],
                format!("{}#{}", document.address(), document.generation)
            );
            let answer = world.download(said["signedUrl"].as_str().unwrap()).await;
            assert!(
                answer.bytes().await.unwrap().starts_with(b"%PDF-"),
                "{source:?}, {output:?}"
            );
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(world.pull().await.is_none(), "a job has two results");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_source_that_is_there_has_its_end() {
    rows(&SOURCES[..3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_source_that_is_gone_has_its_end() {
    rows(&SOURCES[3..]).await;
}

/// What becomes of the output's name between the look at it and the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    SomebodyElse,
    OtherSource,
    Newer,
    Older,
    Deleted,
    SameJobElsewhere,
    SameJobDamaged,
}

/// C2: a precondition that fails is looked into, and what is there then decides.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_between_the_look_and_the_write_is_looked_into() {
    use Meanwhile::{Deleted, Newer, Nothing, Older, OtherSource, SameJobDamaged, SameJobElsewhere, SomebodyElse};
    let world = world().await;
    let calls = Calls::count(&world);
    let zygote = world.worker.zygote().await;
    for (first, meanwhile, status, code, uploads) in [
        (Output::Absent, Nothing, "succeeded", None, 1),
        (Output::Absent, SomebodyElse, "failed", Some("output.conflict"), 1),
        (Output::Absent, OtherSource, "failed", Some("output.conflict"), 1),
        (Output::Absent, Newer, "superseded", None, 1),
        (Output::Absent, Older, "succeeded", None, 2),
        (Output::Absent, SameJobElsewhere, "succeeded", None, 1),
        (Output::Absent, SameJobDamaged, "failed", Some("output.conflict"), 1),
        (Output::Older, Nothing, "succeeded", None, 1),
        (Output::Older, SomebodyElse, "failed", Some("output.conflict"), 1),
        (Output::Older, OtherSource, "failed", Some("output.conflict"), 1),
        (Output::Older, Newer, "superseded", None, 1),
        (Output::Older, Older, "succeeded", None, 2),
        (Output::Older, Deleted, "succeeded", None, 2),
        (Output::Older, SameJobElsewhere, "succeeded", None, 1),
        (Output::Older, SameJobDamaged, "failed", Some("output.conflict"), 1),
    ] {
        let shown = format!("{first:?}, then {meanwhile:?}");
        let document = Document::upload(&world, INPUT, &format!("{first:?}-{meanwhile:?}")).await;
        let (name, message) = (document.output(), document.job(true, 1, "now"));
        // What this very job writes, known before, for the instance that is first.
        let own = deliver(&world, &message).await;
        assert_eq!(own["status"], "succeeded", "{shown}: {own}");
        let own = metadata(&world, &name).await;
        world.delete(OUTPUT, &name).await;
        prepare(&world, &document, true, first).await;

        let before = calls.of(UPLOADS).await;
        let changed = async {
            let child = world.worker.stopped_child(zygote).await;
            let newer = (document.generation.parse::<i64>().unwrap() + 1_000_000_000).to_string();
            let mut other = document.made_from("1");
            other["platen-source"] = format!("gs://{INPUT}/another.odt#1").into();
            // Another run's bytes, with the note of them that a writer makes.
            let mut elsewhere = own.clone();
            elsewhere["platen-crc32c"] = "CJJdsw==".into();
            let (metadata, bytes) = match meanwhile {
                Nothing => (None, b"".as_slice()),
                Deleted => {
                    world.delete(OUTPUT, &name).await;
                    (None, b"".as_slice())
                }
                SomebodyElse => (Some(json!({"author": "somebody"})), b"theirs".as_slice()),
                OtherSource => (Some(other), b"another".as_slice()),
                Newer => (Some(document.made_from(&newer)), b"newer".as_slice()),
                Older => (Some(document.made_from("2")), b"older".as_slice()),
                SameJobElsewhere => (Some(elsewhere.into()), ELSEWHERE),
                SameJobDamaged => (Some(own.clone().into()), b"%PDF-1.7 cut sho".as_slice()),
            };
            let put = match metadata {
                Some(metadata) => Some(put(&world, &name, &metadata, bytes).await),
                None => None,
            };
            assert!(signal(child, nix::sys::signal::Signal::SIGCONT));
            put
        };
        let (answer, put) = tokio::join!(world.post(&message), changed);
        assert_eq!(answer.status(), 204, "{shown}: {:.5000}", world.worker.log());
        let result = world.result().await.data;
        assert_eq!(result["status"], status, "{shown}: {result}");
        assert_eq!(result["error"]["code"].as_str(), code, "{shown}: {result}");
        let own_puts = u32::from(put.is_some());
        assert_eq!(calls.of(UPLOADS).await - before - own_puts, uploads, "{shown}: uploads");
        let there = generation(&world, &name).await;
        let is_kept = status != "succeeded" || meanwhile == SameJobElsewhere;
        if is_kept {
            assert_eq!(there, put, "{shown}: somebody's write was lost");
        } else {
            assert_ne!(there, put, "{shown}");
        }
        if status == "succeeded" {
            assert_eq!(result["outputs"][0]["generation"].as_str(), there.as_deref(), "{shown}");
            let resource = world.object(OUTPUT, &name).await.unwrap();
            assert_eq!(resource["metadata"]["platen-job"], result["jobId"], "{shown}");
            assert_eq!(resource["crc32c"], result["outputs"][0]["crc32c"], "{shown}");
        }
    }
    assert!(world.pull().await.is_none());
}

const ELSEWHERE: &[u8] = b"%PDF-1.7 of another run";

fn fault(peer: Peer, method: &str, path_prefix: &str, skip: u32, count: u32, effect: Effect) -> Fault {
    Fault {
        skip,
        count,
        ..Fault::once(peer, method, path_prefix, effect)
    }
}

/// C2 again: the write was done and its answer lost, for a new output and for one that replaces an older one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_our_own_success() {
    let world = world().await;
    for (n, first) in [Output::Absent, Output::Older].into_iter().enumerate() {
        let document = Document::upload(&world, INPUT, &format!("lost-{n}")).await;
        prepare(&world, &document, true, first).await;
        let lost = fault(
            Peer::Storage,
            "POST",
            UPLOADS,
            0,
            1,
            Effect::LoseAnswer { lose_answer: true },
        );
        world.cloud.add_fault(lost);
        let result = deliver(&world, &document.job(true, 1, "now")).await;
        assert_eq!(result["status"], "succeeded", "{first:?}: {result}");
        let there = world.object(OUTPUT, &document.output()).await.unwrap();
        for field in ["generation", "size", "crc32c"] {
            assert_eq!(there[field], result["outputs"][0][field], "{first:?}: {field}");
        }
        crate::harness::until("the log says what was found", || {
            (world.worker.log().matches("these very bytes").count() == n + 1).then_some(())
        })
        .await;
        let log = world.worker.log();
        assert!(!log.contains("as another instance made it"));
    }
}

/// C1, C3, C4, C5, and S7, S11, S12.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_on_the_way_costs_a_delivery_and_no_second_conversion() {
    let world = world().await;
    let download = "/download/storage/v1/b/input/";
    let sign = "/v1/projects/-/serviceAccounts/";
    let publish = "/v1/projects/local-project/topics/results:publish";
    let look = "/storage/v1/b/input/";
    let find = "/storage/v1/b/output/";

    // C1: it goes while it is fetched.
    let document = Document::upload(&world, INPUT, "c1").await;
    world
        .cloud
        .add_fault(fault(Peer::Storage, "GET", download, 0, 1, Effect::status(404)));
    let result = deliver(&world, &document.job(true, 1, "now")).await;
    assert_eq!(result["status"], "superseded", "{result}");
    assert_eq!(generation(&world, &document.output()).await, None);

    // C3, C4, S12: refused, without a result; then only what is missing is done.
    for (name, fault, work) in [
        (
            "c3",
            fault(Peer::Storage, "POST", UPLOADS, 1, 1000, Effect::status(403)),
            (1, 1),
        ),
        (
            "c4-signing",
            fault(Peer::Iam, "POST", sign, 0, 1000, Effect::status(403)),
            (0, 0),
        ),
        (
            "c4-publishing",
            fault(Peer::Pubsub, "POST", publish, 0, 1000, Effect::status(403)),
            (0, 0),
        ),
        (
            "s12-source",
            fault(Peer::Storage, "GET", look, 0, 1000, Effect::status(403)),
            (1, 2),
        ),
        (
            "s12-output",
            fault(Peer::Storage, "GET", find, 0, 1000, Effect::status(403)),
            (1, 2),
        ),
    ] {
        let document = Document::upload(&world, INPUT, name).await;
        let message = document.job(true, 2, "now");
        world.cloud.add_fault(fault);
        assert_eq!(world.post(&message).await.status(), 503, "{name}");
        world.cloud.clear_faults();
        let first = generation(&world, &document.output()).await;
        let calls = Calls::count(&world);
        let result = deliver(&world, &message).await;
        assert_eq!(result["status"], "succeeded", "{name}: {result}");
        assert_eq!(result["outputs"].as_array().map(Vec::len), Some(2), "{name}: {result}");
        assert_eq!((calls.of(DOWNLOADS).await, calls.of(UPLOADS).await), work, "{name}");
        if name.starts_with('c') {
            assert!(first.is_some(), "{name}");
            assert_eq!(generation(&world, &document.output()).await, first, "{name}");
        }
        world.cloud.clear_faults();
    }

    // C5: the result is out and Pub/Sub's answer lost: it is there twice, under one identity.
    let document = Document::upload(&world, INPUT, "c5").await;
    let lost = fault(
        Peer::Pubsub,
        "POST",
        publish,
        0,
        1,
        Effect::LoseAnswer { lose_answer: true },
    );
    world.cloud.add_fault(lost);
    let (first, second) = (
        deliver(&world, &document.job(true, 1, "now")).await,
        world.result().await.data,
    );
    assert_eq!(first["status"], "succeeded");
    assert_eq!(first, second);

    // S7: not looked at further, whatever is under the output's name.
    put(&world, "s7.pdf", &json!({}), b"theirs").await;
    let generation = world.upload("s7.docx", Vec::new()).await;
    let empty = json!({"source": format!("gs://{INPUT}/s7.docx"), "generation": generation});
    assert_eq!(deliver(&world, &job(&empty)).await["error"]["code"], "source.empty");

    // S11: an output of ours, copied to where inputs come from.
    let made = metadata(&world, "c5.pdf").await;
    let url = format!(
        "{}/upload/storage/v1/b/{INPUT}/o?uploadType=multipart",
        world.cloud.urls().storage
    );
    let resource = json!({"name": "s11.pdf", "metadata": made});
    let body = format!(
        "--b\r\ncontent-type: application/json\r\n\r\n{resource}\r\n--b\r\ncontent-type: application/pdf\r\n\r\n%PDF-\r\n--b--\r\n"
    );
    let request = world
        .http
        .post(url)
        .header("content-type", "multipart/related; boundary=b");
    let request = request.bearer_auth(world.cloud.access_token("user@local-project.iam.gserviceaccount.com"));
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    let own = job(&json!({"source": format!("gs://{INPUT}/s11.pdf")}));
    assert_eq!(world.post(&own).await.status(), 204);
    assert!(world.pull().await.is_none(), "an output of ours is nobody's job");
}
