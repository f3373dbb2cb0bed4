//! Poison: messages that can never be served. Each ends in a result that says whose it is, and is acknowledged; only
//! what is no envelope at all is refused, because there is nobody to report to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{INPUT, World, job};

const FINALIZED: &str = "google.cloud.storage.object.v1.finalized";
const PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";
const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");

struct Case {
    name: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn case(name: &str, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Case {
    Case {
        name: name.to_owned(),
        headers: headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        body: body.into(),
    }
}

/// A wrapped push whose message has this id.
fn wrapped(id: &str, message: Value) -> Value {
    let mut message = message;
    message["messageId"] = id.into();
    json!({"message": message, "subscription": "projects/p/subscriptions/s"})
}

fn data(bytes: impl AsRef<[u8]>) -> Value {
    json!({"data": STANDARD.encode(bytes)})
}

async fn send(world: &World, case: &Case) -> reqwest::Response {
    let mut request = world.http.post(&world.worker.url).bearer_auth(world.token());
    if !case.headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in &case.headers {
        request = request.header(*name, value.as_bytes());
    }
    request.body(case.body.clone()).send().await.unwrap()
}

/// Data that is no job, whatever carries it.
fn contents() -> Vec<(&'static str, Vec<u8>)> {
    let source = format!("gs://{INPUT}/a.docx");
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with = |field: &str| format!(r#"{{"source":"{source}",{field}}}"#).into_bytes();
    vec![
        ("nothing but blanks", b"  \r\n\t ".to_vec()),
        ("text", b"hello".to_vec()),
        ("a document in place of a job", b"PK\x03\x04\x14\x00\x06\x00".to_vec()),
        ("a number", b"5".to_vec()),
        ("null", b"null".to_vec()),
        ("a list of jobs", format!(r#"[{{"source":"{source}"}}]"#).into_bytes()),
        ("an empty object", b"{}".to_vec()),
        (
            "JSON that is cut short",
            format!(r#"{{"source":"{source}""#).into_bytes(),
        ),
        (
            "two jobs one after the other",
            format!(r#"{{"source":"{source}"}}{{"source":"{source}"}}"#).into_bytes(),
        ),
        ("JSON5", format!("{{source:'{source}',}}").into_bytes()),
        (
            "a byte order mark before JSON",
            format!("\u{feff}{{\"source\":\"{source}\"}}").into_bytes(),
        ),
        (
            "UTF-16",
            "{\"source\":\"gs://input/a\"}"
                .encode_utf16()
                .flat_map(u16::to_be_bytes)
                .collect(),
        ),
        (
            "bytes that are not UTF-8",
            [br#"{"source":"gs://input/"#.as_slice(), b"\xff\xfe", br#""}"#].concat(),
        ),
        (
            "a lone surrogate in the name",
            br#"{"source":"gs://input/\ud800.docx"}"#.to_vec(),
        ),
        ("a lone surrogate in userData", with(r#""userData":"\udfff""#)),
        (
            "a control character that is not escaped",
            b"{\"source\":\"gs://input/a\x01\"}".to_vec(),
        ),
        ("a field twice", with(&format!(r#""source":"{source}""#))),
        ("an unknown field", with(r#""colour":1"#)),
        (
            "an unknown field in an output",
            with(r#""outputs":[{"format":"pdf","nmae":"x"}]"#),
        ),
        (
            "a source that is a list",
            format!(r#"{{"source":["{source}"]}}"#).into_bytes(),
        ),
        ("a source that is null", br#"{"source":null}"#.to_vec()),
        (
            "a source of another scheme",
            br#"{"source":"https://storage.googleapis.com/input/a.docx"}"#.to_vec(),
        ),
        ("a source without an object", br#"{"source":"gs://input"}"#.to_vec()),
        ("a source with an empty object", br#"{"source":"gs://input/"}"#.to_vec()),
        (
            "a name of 1025 bytes",
            format!(r#"{{"source":"gs://input/{}"}}"#, "x".repeat(1025)).into_bytes(),
        ),
        (
            "a name of 1025 bytes in 342 characters",
            format!(r#"{{"source":"gs://input/{}"}}"#, "猫".repeat(342)).into_bytes(),
        ),
        (
            "a name with a line break",
            br#"{"source":"gs://input/a\nb.docx"}"#.to_vec(),
        ),
        ("the name of a directory", br#"{"source":"gs://input/.."}"#.to_vec()),
        ("a bucket in capitals", br#"{"source":"gs://INPUT/a.docx"}"#.to_vec()),
        ("a generation of 0", with(r#""generation":"0""#)),
        ("a generation below 0", with(r#""generation":-5"#)),
        (
            "a generation over 64 bits",
            with(r#""generation":"99999999999999999999""#),
        ),
        ("a generation with a fraction", with(r#""generation":1.5"#)),
        ("a generation in words", with(r#""generation":"newest""#)),
        ("no outputs", with(r#""outputs":[]"#)),
        ("outputs that are an object", with(r#""outputs":{"format":"pdf"}"#)),
        ("an output that is a string", with(r#""outputs":["pdf"]"#)),
        ("an output without a format", with(r#""outputs":[{}]"#)),
        (
            "an output with an unknown field of its name",
            with(r#""outputs":[{"format":"pdf","name":"{year}.pdf"}]"#),
        ),
        ("an output named .", with(r#""outputs":[{"format":"pdf","name":"."}]"#)),
        (
            "two outputs of one name",
            with(r#""outputs":[{"format":"pdf"},{"format":"pdf"}]"#),
        ),
        (
            "ten thousand outputs",
            with(&format!(
                r#""outputs":[{}]"#,
                vec![r#"{"format":"pdf"}"#; 10_000].join(",")
            )),
        ),
        ("a ttl in words", with(r#""signedUrl":{"ttl":"soon"}"#)),
        ("a ttl over the longest", with(r#""signedUrl":{"ttl":"13h"}"#)),
        (
            "a disposition of its own",
            with(r#""signedUrl":{"disposition":"both"}"#),
        ),
        (
            "a revision of 2 kB",
            with(&format!(r#""revision":"{}""#, "x".repeat(2000))),
        ),
        ("a revision that is a number", with(r#""revision":5"#)),
        (
            "userData over 8 KiB",
            with(&format!(r#""userData":"{}""#, "x".repeat(9000))),
        ),
        (
            "userData of 5 MB",
            with(&format!(r#""userData":"{}""#, "x".repeat(5_000_000))),
        ),
        (
            "userData 200 levels deep",
            with(&format!(r#""userData":{}"#, nested(200))),
        ),
        (
            "userData 100,000 levels deep",
            with(&format!(r#""userData":{}"#, nested(100_000))),
        ),
        ("a number that no float holds", with(r#""userData":1e999"#)),
        ("100,000 levels and nothing else", nested(100_000).into_bytes()),
        ("100,000 levels that never close", "[".repeat(100_000).into_bytes()),
        (
            "a field name of 1 MB",
            with(&format!(r#""{}":1"#, "x".repeat(1_000_000))),
        ),
        (
            "an object resource without a name",
            br#"{"kind":"storage#object","bucket":"input"}"#.to_vec(),
        ),
        (
            "an object resource with a bad generation",
            br#"{"bucket":"input","name":"a.docx","generation":"x"}"#.to_vec(),
        ),
    ]
}

/// Envelopes around content that can never be served. All of them have the message id `4711`.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, content) in contents() {
        cases.push(case(name, &[], wrapped("4711", data(&content)).to_string()));
        let id = ("x-goog-pubsub-message-id", "4711");
        cases.push(case(&format!("{name}, unwrapped"), &[id], content.clone()));
    }
    for (name, message) in [
        ("base64 that is none", json!({"data": "%%%"})),
        (
            "base64 that is cut short",
            json!({"data": "eyJzb3VyY2UiOiJnczovL2luL2EifQ=="[..29]}),
        ),
        ("base64 with blanks", json!({"data": "bm8 ="})),
        ("an empty message", json!({"data": "", "attributes": {}})),
        ("empty data alone", json!({"data": ""})),
        ("data that is null", json!({"data": null})),
        ("no attributes alone", json!({"attributes": {}})),
        (
            "attributes that mean nothing",
            json!({"attributes": {"eventType": "OBJECT_FINALIZE", "objectId": "a.docx"}}),
        ),
        ("a bucket without an object", json!({"attributes": {"bucketId": INPUT}})),
        (
            "a notification of an empty name",
            json!({"attributes": {"bucketId": INPUT, "objectId": ""}}),
        ),
        (
            "a notification of a name of 1025 bytes",
            json!({"attributes": {"bucketId": INPUT, "objectId": "x".repeat(1025)}}),
        ),
        (
            "a notification of no bucket's name",
            json!({"attributes": {"bucketId": "NO BUCKET", "objectId": "a.docx"}}),
        ),
        (
            "a notification of a generation in words",
            json!({"attributes": {
            "eventType": "OBJECT_FINALIZE", "bucketId": INPUT, "objectId": "a.docx", "objectGeneration": "latest"}}),
        ),
        (
            "a notification of an empty generation",
            json!({"attributes": {
            "eventType": "OBJECT_FINALIZE", "bucketId": INPUT, "objectId": "a.docx", "objectGeneration": ""}}),
        ),
        (
            "a CloudEvent in attributes without a resource",
            json!({"attributes": {"ce-type": FINALIZED, "ce-id": "7"}}),
        ),
        (
            "a CloudEvent in attributes around no JSON",
            json!({"attributes": {"ce-type": FINALIZED}, "data": "bm8="}),
        ),
        (
            "a message in attributes around a broken one",
            json!({
            "attributes": {"ce-type": PUBLISHED}, "data": STANDARD.encode(r#"{"message":{"data":5}}"#)}),
        ),
        (
            "a message in attributes around none",
            json!({
            "attributes": {"ce-type": PUBLISHED}, "data": STANDARD.encode(r#"{"message":[]}"#)}),
        ),
        (
            "a message in attributes around nothing",
            json!({"attributes": {"ce-type": PUBLISHED}}),
        ),
        (
            "a CloudEvent of another type in attributes",
            json!({"attributes": {"ce-type": "order.created"}, "data": "bm8="}),
        ),
    ] {
        cases.push(case(name, &[], wrapped("4711", message).to_string()));
    }
    // Beside what is wrong with the content, what may be wrong with the rest of the message.
    for (name, field, value) in [
        ("an ordering key of 5 kB", "orderingKey", json!("k".repeat(5000))),
        ("an ordering key that is a list", "orderingKey", json!([1])),
        ("a publish time in words", "publishTime", json!("yesterday")),
        ("a publish time that is a number", "publishTime", json!(1_700_000_000)),
        (
            "a publish time before all time",
            "publishTime",
            json!("0000-01-01T00:00:00Z"),
        ),
        (
            "a publish time after all time",
            "publishTime",
            json!("9999-12-31T23:59:59.999999999Z"),
        ),
        ("a field of tomorrow", "somethingNew", json!({"a": [1]})),
    ] {
        let mut message = data("no job");
        message[field] = value;
        cases.push(case(name, &[], wrapped("4711", message).to_string()));
    }
    let binary = |kind| [("ce-specversion", "1.0"), ("ce-id", "4711"), ("ce-type", kind)];
    for (name, body) in [
        ("a CloudEvent without a body", ""),
        ("a CloudEvent around no JSON", "no"),
        ("a CloudEvent around a list", "[]"),
        ("a CloudEvent around null", "null"),
        ("a CloudEvent of an object without a bucket", r#"{"name":"a.docx"}"#),
        (
            "a CloudEvent of a bucket that is a number",
            r#"{"bucket":5,"name":"a.docx"}"#,
        ),
        (
            "a CloudEvent of a bad generation",
            r#"{"bucket":"input","name":"a.docx","generation":"-1"}"#,
        ),
    ] {
        cases.push(case(name, &binary(FINALIZED), body));
    }
    for (name, data) in [
        ("a structured CloudEvent without data", json!({})),
        ("a structured CloudEvent whose data is null", json!({"data": null})),
        ("a structured CloudEvent whose data is a string", json!({"data": "no"})),
        (
            "a structured CloudEvent whose base64 is none",
            json!({"data_base64": "%%%"}),
        ),
        (
            "a structured CloudEvent whose base64 is a number",
            json!({"data_base64": 5}),
        ),
        (
            "a structured CloudEvent whose base64 is no JSON",
            json!({"data_base64": "bm8="}),
        ),
        (
            "a structured CloudEvent of a resource without a name",
            json!({"data": {"bucket": INPUT}}),
        ),
    ] {
        let mut event = json!({"specversion": "1.0", "id": "4711", "type": FINALIZED});
        event.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
        cases.push(case(name, &[STRUCTURED], event.to_string()));
    }
    let published = json!({"message": {"data": "bm8="}});
    cases.push(case(
        "messagePublished around no job",
        &binary(PUBLISHED),
        published.to_string(),
    ));
    let event = json!({"specversion": "1.0", "id": "4711", "type": PUBLISHED, "data": published});
    cases.push(case(
        "messagePublished, structured, around no job",
        &[STRUCTURED],
        event.to_string(),
    ));
    let unwrapped = [
        ("x-goog-pubsub-message-id", "4711"),
        ("bucketid", INPUT),
        ("objectid", "a.docx"),
        ("objectgeneration", "x"),
    ];
    cases.push(case("an unwrapped notification of a bad generation", &unwrapped, ""));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_poison_ends_in_a_result_with_its_message_id_and_is_acknowledged() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for case in cases() {
        let answer = send(&world, &case).await;
        let status = answer.status();
        if status != 204 {
            wrong.push(format!("{}: {status} {:.300}", case.name, answer.text().await.unwrap()));
            continue;
        }
        let Some(result) = world.pull().await else {
            wrong.push(format!("{}: acknowledged without a result", case.name));
            continue;
        };
        let data = &result.data;
        let is_right = data["status"] == "failed"
            && ["message.invalid", "option.invalid"].contains(&data["error"]["code"].as_str().unwrap_or_default())
            && data["messageId"] == "4711"
            && data["jobId"].as_str().is_some_and(|id| id.len() == 32)
            && data["outputs"] == json!([])
            && data["error"]["message"]
                .as_str()
                .is_some_and(|text| text.ends_with('.'))
            && result.attributes["jobId"] == data["jobId"]
            && data.to_string().len() < 20_000;
        if !is_right {
            wrong.push(format!("{}: {:.600}", case.name, data.to_string()));
        }
    }
    if let Some(result) = world.pull().await {
        wrong.push(format!("one was reported twice; one result more: {}", result.data));
    }
    assert_eq!(wrong, Vec::<String>::new(), "{:.3000}", world.worker.log());
    assert_eq!(world.outputs().await, 0);
    assert_eq!(world.worker.leftovers(), Vec::<std::path::PathBuf>::new());
    assert!(!world.worker.log().contains("panicked"), "{:.3000}", world.worker.log());
    assert!(world.worker.log().len() < 500_000, "what was sent went to the log");
}

/// A result says whose it is as far as the message does, also where that is all that can be read of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_of_a_poisoned_message_is_in_its_result() {
    let world = World::start().await;
    let source = |generation: Value| json!({"bucket": INPUT, "name": "a/b.docx", "generation": generation, "size": null, "contentType": null});
    let url = format!("gs://{INPUT}/a/b.docx");
    let resource = json!({"bucket": INPUT, "name": "a/b.docx", "generation": "x"});
    let post = async |case: Case| {
        assert_eq!(send(&world, &case).await.status(), 204, "{}", case.name);
        world.result().await
    };
    for (name, body, generation, user_data) in [
        (
            "a job",
            job(&json!({"source": url, "generation": "5", "colour": 1, "userData": {"ticket": 4711}})),
            json!("5"),
            json!({"ticket": 4711}),
        ),
        (
            "a job of a bad generation",
            job(&json!({"source": url, "generation": "x", "userData": 7})),
            Value::Null,
            json!(7),
        ),
        (
            "a job whose data is over its limit",
            job(&json!({"source": url, "userData": "x".repeat(9000)})),
            Value::Null,
            Value::Null,
        ),
        (
            "a notification",
            wrapped(
                "2",
                json!({"attributes": {"bucketId": INPUT, "objectId": "a/b.docx", "objectGeneration": "x"}}),
            ),
            Value::Null,
            Value::Null,
        ),
        ("an object resource", job(&resource), Value::Null, Value::Null),
    ] {
        let result = post(case(name, &[], body.to_string())).await;
        assert_eq!(result.data["source"], source(generation), "{name}: {}", result.data);
        assert_eq!(result.data["userData"], user_data, "{name}: {}", result.data);
        assert_eq!(result.data["messageId"], "2", "{name}");
        assert_eq!(result.attributes["sourceObject"], "a/b.docx", "{name}");
    }
    // Two broken messages about one object are two jobs; without an id of a message the source is the identity.
    let broken = |colour: u8| json!({"source": url, "colour": colour});
    let with_id = |id: &str| wrapped(id, data(broken(1).to_string())).to_string();
    let first = post(case("first", &[], with_id("1"))).await.data;
    let second = post(case("second", &[], with_id("2"))).await.data;
    assert_ne!(first["jobId"], second["jobId"]);
    let bare = post(case("bare", &[], broken(1).to_string())).await.data;
    assert_eq!(bare["messageId"], Value::Null);
    assert_eq!(bare["jobId"].as_str().map(str::len), Some(32), "{bare}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_none_never_makes_a_loop() {
    let world = World::start().await;
    let long = "i".repeat(10_000);
    for (name, id, expected) in [
        ("a number", json!(4711), json!("4711")),
        ("10 kB", json!(long), json!(long)),
        ("5 MB", json!("i".repeat(5_000_000)), Value::Null),
        ("empty", json!(""), Value::Null),
        ("null", Value::Null, Value::Null),
        ("a list", json!(["4711"]), Value::Null),
        ("an object", json!({"id": "4711"}), Value::Null),
        ("true", json!(true), Value::Null),
        (
            "with control characters",
            json!("\u{0}\u{1f}\u{7f}\r\n"),
            json!("\u{0}\u{1f}\u{7f}\r\n"),
        ),
    ] {
        let mut envelope = wrapped("", data("no job"));
        envelope["message"]["messageId"] = id;
        assert_eq!(world.post(&envelope).await.status(), 204, "{name}");
        let result = world.result().await.data;
        assert_eq!(result["messageId"], expected, "{name}");
        assert_eq!(result["jobId"].is_null(), expected.is_null(), "{name}: {result}");
        // The other spelling has it all the same.
        envelope["message"]["message_id"] = json!("other");
        assert_eq!(world.post(&envelope).await.status(), 204, "{name}");
        let result = world.result().await.data;
        assert_eq!(
            result["messageId"],
            if expected.is_null() { json!("other") } else { expected },
            "{name}"
        );
    }
    for attempt in [json!(0), json!(-1), json!("2"), json!(1.5), json!([2]), Value::Null] {
        let mut envelope = wrapped("1", data("no job"));
        envelope["deliveryAttempt"] = attempt.clone();
        assert_eq!(world.post(&envelope).await.status(), 204, "{attempt}");
        assert_eq!(world.result().await.data["attempt"], 1, "{attempt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_broken_envelope_is_refused() {
    let world = World::start().await;
    let binary = |kind| [("ce-specversion", "1.0"), ("ce-id", "4711"), ("ce-type", kind)];
    let text = |value: Value| value.to_string();
    let refused = [
        case("nothing", &[], ""),
        case("no JSON", &[], "hello"),
        case("a list", &[], "[]"),
        case("an object that says nothing", &[], r#"{"hello":"world"}"#),
        case("a message that is none", &[], r#"{"message":5}"#),
        case("neither data nor attributes", &[], text(wrapped("1", json!({})))),
        case("data that is a number", &[], text(wrapped("1", json!({"data": 5})))),
        case(
            "attributes that are a list",
            &[],
            text(wrapped("1", json!({"attributes": []}))),
        ),
        case(
            "an attribute that is a number",
            &[],
            text(wrapped("1", json!({"attributes": {"a": 1}}))),
        ),
        case(
            "a lone surrogate in an attribute",
            &[],
            r#"{"message":{"messageId":"1","attributes":{"a":"\ud800"}}}"#,
        ),
        case(
            "an envelope 100,000 levels deep",
            &[],
            format!(r#"{{"message":{}"#, "[".repeat(100_000)),
        ),
        case("a CloudEvent of another type", &binary("order.created"), "{}"),
        case("messagePublished without a body", &binary(PUBLISHED), ""),
        case("messagePublished without a message", &binary(PUBLISHED), "{}"),
        case("a structured CloudEvent that is no JSON", &[STRUCTURED], "no"),
        case("a structured CloudEvent that is a list", &[STRUCTURED], "[]"),
        case(
            "a structured CloudEvent without a type",
            &[STRUCTURED],
            r#"{"id":"1","data":{}}"#,
        ),
        case(
            "messagePublished, structured, without data",
            &[STRUCTURED],
            json!({"id": "1", "type": PUBLISHED}).to_string(),
        ),
    ];
    for case in refused {
        let answer = send(&world, &case).await;
        assert_eq!(answer.status(), 400, "{}", case.name);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "request.not_an_event", "{}", case.name);
        assert!(body.to_string().len() < 10_000, "{}", case.name);
    }
    assert!(world.pull().await.is_none());
}

/// A good job with one byte changed, left out or put in, many times over: acknowledged, with a result.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_jobs_bytes_there_is_a_result() {
    const ROUNDS: usize = 400;
    let world = World::start().await;
    let good = json!({
        "source": format!("gs://{INPUT}/none.docx"), "generation": "5", "outputs": [{"format": "pdf", "options": {"quality": 50}}],
        "signedUrl": {"ttl": "60s"}, "password": {"secret": "x"}, "revision": "ü", "userData": [1.5e3, null, "\u{1F408}"],
    })
    .to_string();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..ROUNDS {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[]\",:\\0-\x00\xff"[random(12)]),
                _ => bytes.truncate(at + 1),
            }
        }
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let id = format!("round-{round}");
        let answer = world.post(&wrapped(&id, data(&bytes))).await;
        assert_eq!(answer.status(), 204, "{shown}");
        // A name that now ends in a slash is a folder's.
        match world.pull().await {
            Some(result) => assert_eq!(result.data["messageId"], id.as_str(), "{shown}"),
            None => assert!(shown.contains("/\""), "acknowledged without a result: {shown}"),
        }
    }
    assert!(!world.worker.log().contains("panicked"));
}
