//! deploy/monitoring: what the alerts and the dashboard look at is what its metrics make, and `setup.sh` lays all of it,
//! once. `secrets::monitoring` holds the metrics against the worker's own lines.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Metrics of Google's own that the files use. Source: cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub.
const OF_PUBSUB: [&str; 3] = [
    "pubsub.googleapis.com/subscription/dead_letter_message_count",
    "pubsub.googleapis.com/subscription/num_undelivered_messages",
    "pubsub.googleapis.com/subscription/oldest_unacked_message_age",
];

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON files of one of the directories.
pub(crate) fn files(directory: &str) -> Vec<(PathBuf, Value)> {
    let entries = std::fs::read_dir(monitoring().join(directory)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Each condition and chart: its filter, with what it is grouped by.
fn filters(value: &Value, found: &mut Vec<(String, Vec<String>)>) {
    if let Some(filter) = value["filter"].as_str() {
        let aggregation = value
            .get("aggregation")
            .or_else(|| value.pointer("/aggregations/0"))
            .unwrap();
        let groups = aggregation["groupByFields"].as_array().into_iter().flatten();
        let groups = groups.map(|group| group.as_str().unwrap().to_owned()).collect();
        found.push((filter.to_owned(), groups));
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|value| filters(value, found)),
        Value::Array(values) => values.iter().for_each(|value| filters(value, found)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboard_look_at_metrics_and_labels_that_there_are() {
    let metrics = files("metrics");
    for (path, metric) in &metrics {
        assert_eq!(path.file_stem().unwrap().to_str(), metric["name"].as_str());
        let labels = metric["metricDescriptor"]["labels"].as_array().into_iter().flatten();
        let described: BTreeSet<_> = labels.map(|label| label["key"].as_str().unwrap()).collect();
        let extractors = metric["labelExtractors"].as_object().into_iter().flatten();
        assert_eq!(
            described,
            extractors.map(|(label, _)| label.as_str()).collect(),
            "{}",
            path.display()
        );
    }
    let mut looks = Vec::new();
    for (_, policy) in files("alerts") {
        filters(&policy, &mut looks);
    }
    filters(&read(&monitoring().join("dashboard.json")), &mut looks);
    let mut seen = BTreeSet::new();
    for (filter, groups) in &looks {
        let name = filter
            .strip_prefix("metric.type=\"")
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        let Some(own) = name.strip_prefix("logging.googleapis.com/user/") else {
            assert!(OF_PUBSUB.contains(&name), "{name}");
            continue;
        };
        let metric = metrics.iter().find(|(_, metric)| metric["name"] == own);
        let (_, metric) = metric.unwrap_or_else(|| panic!("nothing makes {own}"));
        seen.insert(own);
        for group in groups {
            let label = group.strip_prefix("metric.labels.").unwrap();
            assert!(
                metric["labelExtractors"][label].is_string(),
                "{own} has no label {label}"
            );
        }
    }
    let made: BTreeSet<_> = metrics
        .iter()
        .filter_map(|(_, metric)| metric["name"].as_str())
        .collect();
    assert_eq!(seen, made, "each metric is looked at");
}

/// A gcloud that writes down what it is told and remembers what was made.
const STAND_IN: &str = r#"#!/usr/bin/env bash
set -eu
there="$STATE/there"; touch "$there"
case "$*" in
  "logging metrics describe "*) grep -qx "$4" "$there" ;;
  *" list "*) for word in "$@"; do case "$word" in --filter=*) grep -qxF "${word#--filter=}" "$there" && echo projects/p/x/1 || true ;; esac; done ;;
  *" describe "*) echo an-etag ;;
  *)
    echo "$*" | sed 's|=/[^ ]*/|=|g' >>"$STATE/calls"
    for word in "$@"; do
      case "$word" in *-from-file=*)
        file=${word#*=}
        if grep -q '\${' "$file"; then echo "$file is not filled in" >&2; exit 1; fi
        named=$(sed -n 's/^  "displayName": \(.*\),$/displayName=\1/p' "$file")
        if [ "$1" = logging ]; then echo "$4" >>"$there"; else echo "$named" >>"$there"; fi
        cp "$file" "$STATE/" ;;
      esac
    done ;;
esac
"#;

fn setup(state: &Path, arguments: &[&str], service: &str) -> (Option<i32>, String) {
    let binaries = state.join("bin");
    std::fs::create_dir_all(&binaries).unwrap();
    let gcloud = binaries.join("gcloud");
    std::fs::write(&gcloud, STAND_IN).unwrap();
    std::fs::set_permissions(&gcloud, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .arg(monitoring().join("setup.sh"))
        .args(arguments)
        .envs([
            ("PROJECT", "p"),
            ("SERVICE", service),
            ("PUSH_SUBSCRIPTION", "platen-push"),
        ])
        .envs([
            ("CHANNELS", "projects/p/notificationChannels/1"),
            ("PATH", path.as_str()),
        ])
        .env("STATE", state)
        .output()
        .unwrap();
    let calls = std::fs::read_to_string(state.join("calls")).unwrap_or_default();
    drop(std::fs::remove_file(state.join("calls")));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), if calls.is_empty() { said } else { calls })
}

#[test]
fn setup_lays_everything_once_and_brings_it_up_to_date_after_that() {
    let state = tempfile::tempdir().unwrap();
    let (code, said) = setup(state.path(), &["--dry-run"], "platen");
    assert_eq!(code, Some(0), "{said}");
    let count = files("metrics").len() + files("alerts").len() + 1;
    assert_eq!(
        said.lines().filter(|line| line.contains(" create ")).count(),
        count,
        "{said}"
    );
    assert!(
        !state.path().join("dashboard.json").exists(),
        "a dry run changes nothing"
    );

    let (code, first) = setup(state.path(), &[], "platen");
    assert_eq!(code, Some(0), "{first}");
    for (directory, call) in [
        ("metrics", "logging metrics create"),
        ("alerts", "monitoring policies create"),
    ] {
        for (path, _) in files(directory) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let mut lines = first
                .lines()
                .filter(|line| line.starts_with(call) && line.contains(name));
            let line = lines.next().unwrap_or_else(|| panic!("{name}: {first}"));
            assert!(line.contains("--project=p"), "{line}");
            assert_eq!(
                line.contains("--notification-channels=projects/p/notificationChannels/1"),
                directory == "alerts"
            );
        }
    }
    assert!(first.contains("monitoring dashboards create"), "{first}");
    let alert = read(&state.path().join("backlog-age.json"));
    let filter = alert["conditions"][0]["conditionThreshold"]["filter"].as_str().unwrap();
    assert!(filter.contains("subscription_id=\"platen-push\""), "{filter}");

    let (code, second) = setup(state.path(), &[], "platen");
    assert_eq!(code, Some(0), "{second}");
    assert_eq!(second.lines().count(), count, "{second}");
    assert!(second.lines().all(|line| line.contains(" update ")), "{second}");
    assert_eq!(read(&state.path().join("dashboard.json"))["etag"], "an-etag");
}

#[test]
fn a_name_that_is_none_goes_into_no_filter() {
    let state = tempfile::tempdir().unwrap();
    let (code, said) = setup(state.path(), &[], "a|b\" OR true");
    assert_eq!(code, Some(64), "{said}");
}
