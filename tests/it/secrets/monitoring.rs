//! deploy/monitoring/metrics against what a worker writes: each filter finds its line, each extractor its value.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{KEY, cloud, seal, seal_by_hand, worker};
use crate::harness::{World, notification, until};
use crate::metrics::crash_twice;
use crate::monitoring::files;

const INVOICE: &str = "documents/plain/invoice.docx";

/// A line as Cloud Logging has it: its special fields moved out of the payload.
/// Source: cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields, which holds for both resources.
fn entry(line: &Value, resource: &Value) -> Value {
    let mut payload = line.clone();
    let mut take = |name: &str| {
        payload
            .as_object_mut()
            .and_then(|line| line.remove(name))
            .unwrap_or_default()
    };
    let (labels, request, severity) = (
        take("logging.googleapis.com/labels"),
        take("httpRequest"),
        take("severity"),
    );
    for special in [
        "time",
        "logging.googleapis.com/sourceLocation",
        "logging.googleapis.com/trace",
        "logging.googleapis.com/spanId",
        "logging.googleapis.com/trace_sampled",
    ] {
        take(special);
    }
    let mut entry = json!({"resource": resource, "labels": labels, "httpRequest": request, "severity": severity});
    // A message that is alone becomes the text of an entry without a JSON payload.
    match payload.as_object() {
        Some(fields) if fields.keys().eq(["message"]) => entry["textPayload"] = payload["message"].clone(),
        _ => entry["jsonPayload"] = payload,
    }
    entry
}

fn value<'a>(entry: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(entry, |value, name| &value[name])
}

/// One comparison of Logging's query language, of the few forms that the filters use.
fn holds(entry: &Value, term: &str) -> bool {
    let at = term.find([':', '=', '>']).unwrap_or_else(|| panic!("what is {term}?"));
    let (path, rest) = term.split_at(at);
    let found = value(entry, path);
    let text = || found.as_str().unwrap_or_default();
    match rest {
        ":*" => !found.is_null(),
        _ if rest.starts_with(":\"") => text().contains(rest[1..].trim_matches('"')),
        _ if rest.starts_with("=\"") => text() == rest[1..].trim_matches('"'),
        _ if rest.starts_with(">=") => found
            .as_f64()
            .is_some_and(|found| found >= rest[2..].parse::<f64>().unwrap()),
        _ if rest.starts_with('>') => found
            .as_f64()
            .is_some_and(|found| found > rest[1..].parse::<f64>().unwrap()),
        _ => found
            .as_f64()
            .is_some_and(|found| found == rest[1..].parse::<f64>().unwrap()),
    }
}

/// What stands between this word, outside of parentheses.
fn split<'a>(filter: &'a str, word: &str) -> Vec<&'a str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in filter.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && filter[at..].starts_with(word) => {
                parts.push(&filter[start..at]);
                start = at + word.len();
            }
            _ => {}
        }
    }
    parts.push(&filter[start..]);
    parts
}

fn matches(entry: &Value, filter: &str) -> bool {
    let (all, any) = (split(filter, " AND "), split(filter, " OR "));
    // Google's language reads OR before AND.
    assert!(all.len() == 1 || any.len() == 1, "wants parentheses: {filter}");
    if any.len() > 1 {
        return any.iter().any(|term| matches(entry, term));
    }
    all.iter().all(
        |term| match term.strip_prefix('(').and_then(|term| term.strip_suffix(')')) {
            Some(inner) => matches(entry, inner),
            None => holds(entry, term),
        },
    )
}

/// Who writes: the service on Cloud Run, and the container that deploy/gke makes of it.
fn resources(service: &str) -> [Value; 2] {
    let container = json!({"namespace_name": "platen", "container_name": service, "pod_name": "platen-1"});
    [
        json!({"type": "cloud_run_revision", "labels": {"service_name": service}}),
        json!({"type": "k8s_container", "labels": container}),
    ]
}

fn extracted<'a>(entry: &'a Value, extractor: &str) -> &'a Value {
    let path = extractor
        .strip_prefix("EXTRACT(")
        .and_then(|path| path.strip_suffix(')'));
    value(entry, path.unwrap())
}

/// Everything that the metrics are about, once.
async fn eventful_world() -> World {
    let cloud = cloud().await;
    seal(&cloud, &json!({}));
    let variables = [("CONFIG_RELOAD", "1s"), ("LOG_FORMAT", "json")];
    let mut world = worker(cloud, &variables, &[]).await;
    world.worker.ready().await;
    let mut invoice = notification("invoice.docx", &world.upload_fixture(INVOICE, "invoice.docx").await);
    invoice["message"]["publishTime"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(world.post(&invoice).await.status(), 204);
    crash_twice(&world).await;
    let empty = notification("empty.docx", &world.upload("empty.docx", Vec::new()).await);
    assert_eq!(world.post(&empty).await.status(), 204);
    assert!(
        world
            .cloud
            .take_away("worker", "iam.serviceAccounts.signBlob", "account/signer")
    );
    let other = notification("other.docx", &world.upload_fixture(INVOICE, "other.docx").await);
    assert_eq!(world.post(&other).await.status(), 503);
    seal_by_hand(&world.cloud, KEY, b"{}", Some("gs://config/other.enc")).await;
    until("the reload has failed", || {
        world.worker.log().contains("could not be reloaded").then_some(())
    })
    .await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn every_log_based_metric_finds_its_line_and_its_values() {
    let world = eventful_world().await;
    let metrics: Vec<(PathBuf, Value)> = files("metrics");
    assert!(metrics.len() > 5);
    // The last line may still be on its way.
    let mut missing = Vec::new();
    let each = |path| resources("platen").map(|resource| (path, resource));
    for ((path, resource), metric) in metrics
        .iter()
        .flat_map(|(path, metric)| each(path).map(|look| (look, metric)))
    {
        let found = |resource: &Value| {
            let log = world.worker.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
            let mut entries = lines.map(|line: Value| entry(&line, resource));
            entries.find(|entry| matches(entry, metric["filter"].as_str().unwrap()))
        };
        let Some(entry) = found(&resource) else {
            missing.push((path, resource));
            continue;
        };
        for other in resources("another") {
            assert_eq!(found(&other), None, "{}: another service's", path.display());
        }
        let extractors = metric["labelExtractors"].as_object().into_iter().flatten();
        for (label, extractor) in extractors {
            let value = extracted(&entry, extractor.as_str().unwrap());
            assert!(
                value.is_string() || value.is_number(),
                "{}: {label}: {entry}",
                path.display()
            );
        }
        if let Some(extractor) = metric["valueExtractor"].as_str() {
            assert!(extracted(&entry, extractor).is_number(), "{}: {entry}", path.display());
        }
    }
    assert!(missing.is_empty(), "no line for {missing:?}\n{}", world.worker.log());
}

/// What `gcloud logging read --format='value(...)'` prints of an entry. Source: cloud.google.com/sdk/gcloud/reference/topic/formats.
fn printed(entry: &Value, format: &str) -> String {
    let fields = format
        .strip_prefix("value(")
        .and_then(|fields| fields.strip_suffix(')'));
    let fields = fields.unwrap_or_else(|| panic!("what is {format}?"));
    let shown = fields.split(',').map(|path| match value(entry, path) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    shown.collect::<Vec<_>>().join("\t")
}

/// The formats in which pages have the worker's lines printed.
fn formats_of_the_pages() -> Vec<(PathBuf, String)> {
    let mut formats = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for place in ["docs", "deploy"] {
        crate::harness::walk(&root.join(place), &mut |path| {
            let text = std::fs::read_to_string(path).unwrap_or_default().replace("\\\n", " ");
            let commands = text.lines().filter(|line| {
                line.starts_with("gcloud logging read")
                    && line.contains("cloud_run_revision")
                    && line.contains("--format")
            });
            for command in commands {
                let (_, format) = command.split_once("--format").unwrap();
                let format = format.trim_start_matches(['=', ' ', '\'']).split('\'').next().unwrap();
                formats.push((path.to_owned(), format.to_owned()));
            }
        });
    }
    formats
}

/// Lines with fields beside their message, and lines that are nothing but it: of each a page's command prints the message.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_pages_have_printed_holds_every_message() {
    let world = World::with(&[("LOG_FORMAT", "json")]).await;
    assert_eq!(world.post(&notification("gone.docx", "7")).await.status(), 204);
    let lines = || -> Vec<Value> {
        let log = world.worker.log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let entries = until("there are lines of both kinds", || {
        let entries: Vec<(Value, Value)> = lines()
            .into_iter()
            .map(|line| (line["message"].clone(), entry(&line, &resources("platen")[0])))
            .collect();
        let with = |payload: &str| entries.iter().any(|(_, entry)| !entry[payload].is_null());
        (with("textPayload") && with("jsonPayload")).then_some(entries)
    })
    .await;
    let formats = formats_of_the_pages();
    assert!(formats.len() >= 2, "{formats:?}");
    for (path, format) in &formats {
        for (message, entry) in &entries {
            let message = message.as_str().unwrap();
            assert!(
                printed(entry, format).contains(message),
                "{}: {format} prints nothing of: {message}",
                path.display()
            );
        }
    }
}

#[test]
fn the_check_of_filters_can_fail() {
    let alone = entry(
        &json!({"severity": "ERROR", "time": "2026", "message": "it failed"}),
        &resources("platen")[0],
    );
    assert!(!matches(&alone, r#"jsonPayload.message="it failed""#), "{alone}");
    let line = json!({
        "severity": "ERROR", "message": "it failed for want of room", "totalMs": 7,
        "logging.googleapis.com/labels": {"code": "a.b"}, "httpRequest": {"status": 503},
    });
    let entry = entry(&line, &resources("platen")[1]);
    for (filter, expected) in [
        (
            r#"resource.type="k8s_container" AND labels.code:* AND httpRequest.status=503"#,
            true,
        ),
        (r#"resource.type="x" AND labels.code:*"#, false),
        (r#"(severity="INFO") OR (severity="ERROR" AND labels.code:*)"#, true),
        (r#"((severity="INFO") OR (severity="ERROR")) AND labels.jobId:*"#, false),
        (r#"severity="ERROR" AND jsonPayload.message:"want of""#, true),
        (r#"jsonPayload.message="it failed""#, false),
        ("jsonPayload.totalMs>=7 AND httpRequest.status>0", true),
        ("jsonPayload.totalMs>7", false),
        ("labels.jobId:*", false),
        ("jsonPayload.code:*", false),
    ] {
        assert_eq!(matches(&entry, filter), expected, "{filter}");
    }
}
