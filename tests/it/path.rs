//! The main job through the front door: a document in, a signed link on the topic out, and everything it may meet.

use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Value, json};

use crate::harness::{self, INPUT, OUTPUT, World, job, notification};

const INVOICE: &str = "documents/plain/invoice.docx";

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_document_becomes_a_signed_link_on_the_topic() {
    let world = World::start().await;
    world.notify();
    let generation = world.upload_fixture(INVOICE, "2026/q3 ü.docx").await;
    let result = world.result().await;
    let data = &result.data;
    assert_eq!(data["status"], "succeeded", "{data}");
    assert_eq!(data["version"], 1);
    assert_eq!(data["jobId"].as_str().unwrap().len(), 32);
    assert_eq!(data["source"]["name"], "2026/q3 ü.docx");
    assert_eq!(data["source"]["generation"], generation.as_str());
    assert_eq!(data["error"], Value::Null);
    assert_eq!(data["attempt"], 1);
    assert!(
        data["worker"]["engine"]
            .as_str()
            .unwrap()
            .starts_with("LibreOffice 25.2")
    );
    let output = &data["outputs"][0];
    assert_eq!(
        (&output["bucket"], &output["name"]),
        (&json!(OUTPUT), &json!("2026/q3 ü.pdf"))
    );
    assert_eq!(output["contentType"], "application/pdf");

    let stored = world.object(OUTPUT, "2026/q3 ü.pdf").await.unwrap();
    for field in ["generation", "size", "crc32c"] {
        assert_eq!(stored[field], output[field], "{field}");
    }
    assert_eq!(stored["metadata"]["platen-job"], data["jobId"]);
    assert_eq!(
        stored["metadata"]["platen-source"],
        format!("gs://{INPUT}/2026/q3 ü.docx#{generation}")
    );
    assert_eq!(stored["metadata"]["platen-version"], env!("CARGO_PKG_VERSION"));
    assert!(
        stored["contentDisposition"]
            .as_str()
            .unwrap()
            .starts_with("attachment; filename=\"q3 _.pdf\"")
    );

    let url = output["signedUrl"].as_str().unwrap();
    for part in [
        "generation=",
        "response-content-type=application%2Fpdf",
        "response-content-disposition=",
    ] {
        assert!(url.contains(part), "{part} is not signed");
    }
    let answer = world.download(url).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/pdf");
    let pdf = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(pdf.path(), answer.bytes().await.unwrap()).unwrap();
    assert_eq!(
        u64::from(harness::pdf_pages(pdf.path())),
        output["pages"].as_u64().unwrap()
    );
    assert!(
        harness::pdf_text(pdf.path()).contains("Invoice"),
        "{}",
        harness::pdf_text(pdf.path())
    );
    // One character more and the storage refuses: it really verifies.
    assert_eq!(
        world
            .download(&url.replace("generation=", "generation=1"))
            .await
            .status(),
        403
    );

    let attributes = &result.attributes;
    for (name, value) in [
        ("status", "succeeded"),
        ("format", "pdf"),
        ("sourceBucket", INPUT),
        ("sourceObject", "2026/q3 ü.docx"),
        ("sourceGeneration", &generation),
        ("ce-specversion", "1.0"),
        ("ce-type", "dev.platen.conversion.v1.succeeded"),
        ("ce-source", "//platen.dev/input"),
        ("ce-subject", "2026/q3 ü.docx"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(attributes[name], value, "{name}");
    }
    assert_eq!(attributes["jobId"], data["jobId"].as_str().unwrap());
    assert_eq!(attributes["ce-id"], attributes["jobId"]);
    assert!(!attributes.contains_key("code"));
    world.acknowledged().await;
    assert_eq!(world.worker.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_of_a_done_job_converts_nothing_and_says_the_same() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    assert_eq!(
        world.post(&notification("invoice.docx", &generation)).await.status(),
        204
    );
    let first = world.result().await.data;
    let output = world.object(OUTPUT, "invoice.pdf").await.unwrap();
    // Without the source nothing could be converted; the look at it alone must still succeed, so it stays.
    world.cloud.add_fault(Fault {
        peer: Some(Peer::Storage),
        method: Some("GET".to_owned()),
        path_prefix: "/download/".to_owned(),
        skip: 0,
        count: 1000,
        effect: Effect::Status {
            status: 500,
            retry_after: None,
        },
    });
    assert_eq!(
        world.post(&notification("invoice.docx", &generation)).await.status(),
        204
    );
    let second = world.result().await.data;
    assert_eq!(second["jobId"], first["jobId"]);
    for field in ["generation", "size", "crc32c", "pages", "name"] {
        assert_eq!(second["outputs"][0][field], first["outputs"][0][field], "{field}");
    }
    assert_eq!(second["timings"]["convertMs"], 0);
    assert_eq!(
        world.object(OUTPUT, "invoice.pdf").await.unwrap()["generation"],
        output["generation"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_message_says_what_it_wants_and_a_direct_caller_gets_the_result() {
    let world = World::start().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let wanted = job(&json!({
        "source": format!("gs://{INPUT}/invoice.docx"),
        "outputs": [{"format": "pdf", "name": "{dir}{name}-{generation}.{ext}"}],
        "signedUrl": {"ttl": "60s", "disposition": "inline"},
        "revision": "2", "userData": {"ticket": 4711},
    }));
    let answer = world
        .request(wanted.to_string())
        .bearer_auth(world.token())
        .header("prefer", "return=representation")
        .header("traceparent", "00-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let result: Value = answer.json().await.unwrap();
    assert_eq!(result["status"], "succeeded", "{result}");
    assert_eq!(result["userData"], json!({"ticket": 4711}));
    assert_eq!(result["messageId"], "2");
    let generation = result["source"]["generation"].as_str().unwrap();
    assert_eq!(result["outputs"][0]["name"], format!("invoice.docx-{generation}.pdf"));
    let url = result["outputs"][0]["signedUrl"].as_str().unwrap();
    assert!(url.contains("X-Goog-Expires=60&") && url.contains("response-content-disposition=inline"));
    // The topic has the same.
    let published = world.result().await;
    assert_eq!(published.data["jobId"], result["jobId"]);
    assert_eq!(
        published.attributes["traceparent"],
        "00-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01"
    );
    // Another revision is another job: the output is made anew.
    let again = job(&json!({"source": format!("gs://{INPUT}/invoice.docx"), "revision": "3"}));
    assert_eq!(world.post(&again).await.status(), 204);
    assert_ne!(world.result().await.data["jobId"], result["jobId"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_attributes_are_an_event() {
    let world = World::start().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let minimal = json!({"message": {"attributes": {"bucketId": INPUT, "objectId": "invoice.docx"}, "messageId": "3"}});
    assert_eq!(world.post(&minimal).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_reported_once_and_acknowledged() {
    let world = World::start().await;
    world
        .upload_fixture("documents/hostile/zip-cut-short.docx", "cut.docx")
        .await;
    world
        .upload_fixture("documents/hostile/html-named.docx", "html.docx")
        .await;
    world
        .upload_fixture("documents/hostile/password.odt", "locked.odt")
        .await;
    world.upload_fixture("documents/hostile/empty.docx", "empty.docx").await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let source = |name: &str| format!("gs://{INPUT}/{name}");
    for (message, code) in [
        (job(&json!({"source": source("cut.docx")})), "document.corrupt"),
        (job(&json!({"source": source("html.docx")})), "source.unsupported"),
        (job(&json!({"source": source("locked.odt")})), "document.encrypted"),
        (job(&json!({"source": source("empty.docx")})), "source.empty"),
        (job(&json!({"source": source("none.docx")})), "source.not_found"),
        (job(&json!({"source": "gs://elsewhere/a.docx"})), "source.forbidden"),
        (
            job(&json!({"source": source("invoice.docx"), "colour": 1})),
            "message.invalid",
        ),
        (
            job(&json!({"source": source("invoice.docx"), "outputs": [{"format": "docm"}]})),
            "option.invalid",
        ),
        (
            job(&json!({"source": source("invoice.docx"), "outputs": [{"format": "pdf"}, {"format": "pdf"}]})),
            "message.invalid",
        ),
        (
            job(&json!({"source": source("invoice.docx"), "signedUrl": {"ttl": "13h"}})),
            "message.invalid",
        ),
        (json!({"message": {"data": "%%%", "messageId": "9"}}), "message.invalid"),
        (
            json!({"message": {"data": "bm8=", "messageId": "9"}}),
            "message.invalid",
        ),
    ] {
        assert_eq!(world.post(&message).await.status(), 204, "{code}");
        let result = world.result().await;
        assert_eq!(result.data["status"], "failed", "{message}");
        assert_eq!(result.data["error"]["code"], code, "{}", result.data);
        assert_eq!(result.data["outputs"], json!([]));
        assert_eq!(result.attributes["code"], code);
        assert_eq!(result.data["jobId"].as_str().map(str::len), Some(32), "{}", result.data);
        assert!(
            result.data["error"]["message"].as_str().unwrap().ends_with('.'),
            "{}",
            result.data
        );
        assert!(world.pull().await.is_none(), "{code} was published twice");
    }
    assert_eq!(world.outputs().await, 0);
    assert_eq!(world.worker.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_400_and_what_is_not_for_us_is_204() {
    let world = World::start().await;
    for body in ["", "{", "[]", "{}", r#"{"message":{}}"#, r#"{"message":{"data":5}}"#] {
        let answer = world.request(body).bearer_auth(world.token()).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        let body: Value = answer.json().await.unwrap();
        assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string());
    }
    world.upload_fixture(INVOICE, "mine.docx").await;
    let event = |kind: &str, object: &str, data: &str| json!({"message": {"attributes": {"eventType": kind, "bucketId": INPUT, "objectId": object}, "data": data, "messageId": "4"}});
    for message in [
        event("OBJECT_DELETE", "a.docx", ""),
        event("OBJECT_METADATA_UPDATE", "a.docx", ""),
        event("OBJECT_FINALIZE", "folder/", ""),
        event("OBJECT_FINALIZE", "program.exe", ""),
        // {"metadata":{"platen-job":"x"}}
        event(
            "OBJECT_FINALIZE",
            "mine.docx",
            "eyJtZXRhZGF0YSI6eyJwbGF0ZW4tam9iIjoieCJ9fQ==",
        ),
    ] {
        assert_eq!(world.post(&message).await.status(), 204, "{message}");
    }
    assert!(world.pull().await.is_none());
    assert_eq!(world.outputs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_push_accounts_token_for_this_audience_comes_in() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation).to_string();
    let push = world.cloud.settings().push_service_account.clone();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = world.cloud.claims(&push, harness::AUDIENCE);
        change(&mut claims);
        world.cloud.id_token(&claims)
    };
    let good = world.token();
    let (head, signature) = good.rsplit_once('.').unwrap();
    let flipped = format!(
        "{head}.{}{}",
        if signature.starts_with('A') { "B" } else { "A" },
        &signature[1..]
    );
    let hour_ago = chrono::Utc::now().timestamp() - 3600;
    let cases = [
        (None, 401),
        (Some("nonsense".to_owned()), 401),
        (Some(flipped), 401),
        (Some(format!("{head}.SIGNATURE_REMOVED_BY_GOOGLE")), 401),
        (Some(with(&|claims| claims["exp"] = hour_ago.into())), 401),
        (Some(with(&|claims| claims["iss"] = "https://evil.example".into())), 401),
        (
            Some(with(&|claims| claims["aud"] = "https://worker.example/".into())),
            403,
        ),
        (
            Some(with(&|claims| {
                claims["email"] = "other@local-project.iam.gserviceaccount.com".into();
            })),
            403,
        ),
        (Some(with(&|claims| claims["email_verified"] = false.into())), 401),
    ];
    let mut bodies = Vec::new();
    for (token, status) in cases {
        let mut request = world.request(event.clone());
        if let Some(token) = &token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{token:?}");
        if status == 401 {
            bodies.push(answer.text().await.unwrap());
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "a 401 tells why: {bodies:?}");
    assert!(world.pull().await.is_none());
    assert_eq!(world.outputs().await, 0);
    assert_eq!(
        world
            .request(event)
            .header("authorization", format!("bEaReR {good}"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_generation_is_superseded_and_a_foreign_output_is_a_conflict() {
    let world = World::start().await;
    let old = world.upload_fixture(INVOICE, "invoice.docx").await;
    let new = world
        .upload_fixture("documents/plain/contract.docx", "invoice.docx")
        .await;
    assert_eq!(world.post(&notification("invoice.docx", &old)).await.status(), 204);
    let result = world.result().await.data;
    assert_eq!(
        (&result["status"], &result["outputs"]),
        (&json!("superseded"), &json!([]))
    );
    assert_eq!(world.outputs().await, 0);
    assert_eq!(world.post(&notification("invoice.docx", &new)).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
    let first = world.object(OUTPUT, "invoice.pdf").await.unwrap();

    // A newer source replaces its own older output.
    let newer = world.upload_fixture(INVOICE, "invoice.docx").await;
    assert_eq!(world.post(&notification("invoice.docx", &newer)).await.status(), 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
    let second = world.object(OUTPUT, "invoice.pdf").await.unwrap();
    assert_ne!(first["generation"], second["generation"]);
    assert_eq!(
        second["metadata"]["platen-source"],
        format!("gs://{INPUT}/invoice.docx#{newer}")
    );

    // Another source of the same output name may not.
    let other = world.upload_fixture("documents/plain/report.odt", "invoice.odt").await;
    assert_eq!(world.post(&notification("invoice.odt", &other)).await.status(), 204);
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "output.conflict", "{result}");
    assert!(result["error"]["message"].as_str().unwrap().contains("OUTPUT_NAME"));
    assert_eq!(
        world.object(OUTPUT, "invoice.pdf").await.unwrap()["generation"],
        second["generation"]
    );

    // Nor over an object that somebody else put there.
    world.upload_to(OUTPUT, "note.pdf", b"not ours".to_vec()).await;
    let note = world.upload_fixture("documents/plain/note.rtf", "note.rtf").await;
    assert_eq!(world.post(&notification("note.rtf", &note)).await.status(), 204);
    assert_eq!(world.result().await.data["error"]["code"], "output.conflict");
}

/// The most that the worker's own memory has ever been, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The invoice with a part that nothing refers to and that does not compress.
fn invoice_with_ballast(size: usize) -> Vec<u8> {
    use std::io::{Cursor, Write};
    let mut ballast = vec![0; size];
    let mut state = 1_u64;
    for byte in &mut ballast {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    let mut package = Cursor::new(std::fs::read(harness::fixture(INVOICE)).unwrap());
    let mut writer = zip::ZipWriter::new_append(&mut package).unwrap();
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("word/media/ballast.bin", stored).unwrap();
    writer.write_all(&ballast).unwrap();
    writer.finish().unwrap();
    package.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_document_is_never_whole_in_the_workers_memory() {
    const SIZE: usize = 64 << 20;
    let world = World::start().await;
    let small = world.upload_fixture(INVOICE, "small.docx").await;
    assert_eq!(world.post(&notification("small.docx", &small)).await.status(), 204);
    let before = peak_memory(world.worker.pid());
    let large = world.upload("large.docx", invoice_with_ballast(SIZE)).await;
    assert_eq!(world.post(&notification("large.docx", &large)).await.status(), 204);
    for _ in 0..2 {
        let result = world.result().await.data;
        assert_eq!(result["status"], "succeeded", "{result}");
    }
    let grown = peak_memory(world.worker.pid()) - before;
    assert!(
        grown < SIZE as u64 / 2,
        "the worker's memory grew by {grown} bytes for a document of {SIZE}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_retry_can_mend_in_a_job_is_reported_and_never_delivered_for_ever() {
    let world = World::start().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let source = format!("gs://{INPUT}/invoice.docx");
    let named = |name: &str| json!({"source": source, "outputs": [{"format": "pdf", "name": name}]});
    let many: Vec<Value> = (0..40)
        .map(|n| json!({"format": "pdf", "name": format!("{n}.pdf")}))
        .collect();
    for wanted in [
        named("."),
        named(".."),
        named("{dir}"),
        named(".well-known/acme-challenge/x"),
        json!({"source": source, "outputs": many}),
        json!({"source": format!("gs://{}/a.docx", "b".repeat(2000))}),
        json!({"source": "\u{1}".repeat(200_000)}),
        json!({"source": source, "x".repeat(3_000_000): 1}),
        // Of a source that is not there, still what is wrong with the job itself.
        json!({"source": format!("gs://{INPUT}/none.docx"), "outputs": [{"format": "pdf"}, {"format": "pdf"}]}),
    ] {
        let shown = format!("{:.120}", wanted.to_string());
        assert_eq!(
            world.post(&job(&wanted)).await.status(),
            204,
            "{shown}\n{:.2000}",
            world.worker.log()
        );
        let result = world.result().await.data;
        assert_eq!(
            result["error"]["code"],
            "message.invalid",
            "{shown}: {:.500}",
            result.to_string()
        );
        assert!(
            result.to_string().len() < 20_000,
            "{shown}: a result of {} bytes",
            result.to_string().len()
        );
    }
    assert!(world.worker.log().len() < 200_000, "what was sent went to the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_says_all_that_is_known_of_it_and_is_not_taken_for_another() {
    let world = World::start().await;
    let generation = world.upload("empty.docx", Vec::new()).await;
    let source = format!("gs://{INPUT}/empty.docx");
    let post = async |wanted: Value| {
        assert_eq!(world.post(&job(&wanted)).await.status(), 204);
        world.result().await
    };
    let empty = post(json!({"source": source, "userData": 7})).await;
    assert_eq!(empty.data["error"]["code"], "source.empty");
    assert_eq!(empty.data["source"]["generation"], generation.as_str());
    assert_eq!(empty.data["source"]["size"], "0");
    assert_eq!(
        (&empty.data["userData"], &empty.attributes["sourceGeneration"]),
        (&json!(7), &generation)
    );
    world.upload("empty.docx", Vec::new()).await;
    let replaced = post(json!({"source": source, "userData": 7})).await;
    assert_ne!(
        replaced.data["jobId"], empty.data["jobId"],
        "two generations, one identity"
    );

    let wrong = |format: &str, revision: &str| json!({"source": source, "outputs": [{"format": "pdf"}, {"format": format}], "revision": revision, "userData": 8});
    let first = post(wrong("xyz", "1")).await;
    assert_eq!(first.data["error"]["code"], "option.invalid");
    assert_eq!(
        (&first.data["userData"], first.attributes["format"].as_str()),
        (&json!(8), "pdf")
    );
    assert_ne!(first.data["jobId"], post(wrong("abc", "1")).await.data["jobId"]);
    assert_ne!(first.data["jobId"], post(wrong("xyz", "2")).await.data["jobId"]);
    assert_eq!(first.data["jobId"], post(wrong("xyz", "1")).await.data["jobId"]);
    let forbidden = post(json!({"source": "gs://elsewhere/a.docx", "userData": 9})).await;
    assert_eq!(
        (&forbidden.data["error"]["code"], &forbidden.data["userData"]),
        (&json!("source.forbidden"), &json!(9))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_never_got_out_is_published_even_when_its_source_is_gone() {
    let world = World::start().await;
    let generation = world.upload_fixture(INVOICE, "invoice.docx").await;
    let event = notification("invoice.docx", &generation);
    world.cloud.add_fault(Fault {
        peer: Some(Peer::Pubsub),
        method: Some("POST".to_owned()),
        path_prefix: "/v1/projects/local-project/topics/results:publish".to_owned(),
        skip: 0,
        count: 1000,
        effect: Effect::Status {
            status: 403,
            retry_after: None,
        },
    });
    assert_eq!(world.post(&event).await.status(), 503);
    world.cloud.clear_faults();
    world.delete(INPUT, "invoice.docx").await;
    assert_eq!(world.post(&event).await.status(), 204);
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}");
    let url = result["outputs"][0]["signedUrl"].as_str().unwrap();
    assert_eq!(world.download(url).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_stay_in_the_order_they_were_asked_for() {
    let world = World::start().await;
    world.upload_fixture(INVOICE, "invoice.docx").await;
    let wanted = job(&json!({
        "source": format!("gs://{INPUT}/invoice.docx"),
        "outputs": [{"format": "pdf", "name": "a.pdf"}, {"format": "pdf", "name": "b.pdf"}],
    }));
    let names = async || {
        assert_eq!(world.post(&wanted).await.status(), 204, "{}", world.worker.log());
        let result = world.result().await;
        assert_eq!(result.attributes["format"], "pdf");
        let outputs = result.data["outputs"].as_array().unwrap().clone();
        outputs
            .iter()
            .map(|output| output["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["a.pdf", "b.pdf"]);
    world.delete(OUTPUT, "a.pdf").await;
    assert_eq!(names().await, ["a.pdf", "b.pdf"]);
}
