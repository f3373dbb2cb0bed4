//! deploy/monitoring: what the alerts and the dashboard look at is what its metrics make. `deploy` shows that setup.sh lays all of
//! it, once, and `secrets::monitoring` holds the metrics against the worker's own lines.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    let text = text.replace("${SERVICE}", "platen").replace("${METRICS}", "platen_");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON files of one of the directories.
pub(crate) fn files(directory: &str) -> Vec<(PathBuf, Value)> {
    let entries = std::fs::read_dir(monitoring().join(directory)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Each condition and chart: its filter, with how its series become one.
fn filters(value: &Value, found: &mut Vec<(String, Value)>) {
    // One that looks at lines of the log has no metric: the test after the next.
    if let Some(filter) = value["filter"].as_str().filter(|filter| filter.starts_with("metric.")) {
        let aggregation = value
            .get("aggregation")
            .or_else(|| value.pointer("/aggregations/0"))
            .unwrap();
        found.push((filter.to_owned(), aggregation.clone()));
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
        let name = format!("platen_{}", path.file_stem().unwrap().display());
        assert_eq!(metric["name"], name);
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
    for (filter, aggregation) in &looks {
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
        // A series of Cloud Run and one of Kubernetes: what a label of one of them restricts, the other has not.
        let rest = filter.split_once(" AND ").unwrap().1;
        let rest = rest.strip_prefix("resource.type=one_of(\"cloud_run_revision\", \"k8s_container\")");
        let rest = rest.unwrap_or_else(|| panic!("{filter}"));
        let restricted = rest.split(" AND ").skip(1).map(|term| term.split('=').next().unwrap());
        let groups = aggregation["groupByFields"].as_array().into_iter().flatten();
        for name in restricted.chain(groups.map(|group| group.as_str().unwrap())) {
            let label = name
                .strip_prefix("metric.labels.")
                .unwrap_or_else(|| panic!("{filter}"));
            assert!(
                metric["labelExtractors"][label].is_string(),
                "{own} has no label {label}"
            );
        }
        // A percentile is one of all values: of percentiles there is neither mean nor maximum.
        let reducer = aggregation["crossSeriesReducer"].as_str().unwrap();
        let distribution = metric["metricDescriptor"]["valueType"] == "DISTRIBUTION";
        assert_eq!(
            reducer.starts_with("REDUCE_PERCENTILE_"),
            distribution,
            "{filter}: {reducer}"
        );
        assert_eq!(aggregation["perSeriesAligner"], "ALIGN_DELTA", "{filter}");
        // A refusal is over in no time.
        let of_successes = rest.contains("metric.labels.status=\"succeeded\"");
        assert_eq!(own == "platen_total_time", of_successes, "{filter}");
    }
    let made: BTreeSet<_> = metrics
        .iter()
        .filter_map(|(_, metric)| metric["name"].as_str())
        .collect();
    assert_eq!(seen, made, "each metric is looked at");
}

/// An alert without a metric looks at lines of the log, by the tag that cloudbuild.yaml gives its builds.
#[test]
fn the_alert_on_builds_looks_at_the_builds_of_this_service() {
    let alerts = files("alerts");
    let looks: Vec<&str> = alerts
        .iter()
        .filter_map(|(_, policy)| policy["conditions"][0]["conditionMatchedLog"]["filter"].as_str())
        .collect();
    let [filter] = looks[..] else { panic!("{looks:?}") };
    assert!(filter.contains("labels.build_tags:\"platen-platen\""), "{filter}");
    let build = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("cloudbuild.yaml")).unwrap();
    assert!(build.contains("\ntags: ['platen-${_SERVICE_NAME}']\n"));
    // Google takes such a policy with a limit of notifications alone.
    for (path, policy) in &alerts {
        let by_lines = policy["conditions"][0]["conditionMatchedLog"].is_object();
        assert_eq!(
            by_lines,
            policy["alertStrategy"]["notificationRateLimit"].is_object(),
            "{}",
            path.display()
        );
    }
}
