//! Log-based metrics, alerts and the dashboard: what the stand-in keeps of them, and how setup.sh lays them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::commands::Words;
use super::gcloud::{Answer, Cloud, Gcloud};
use super::set_up;
use crate::monitoring::{files, monitoring, read};

/// The id of what has no name of its own.
fn id(title: &str) -> String {
    title.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// What `deploy/monitoring` makes for a service.
pub(super) fn resources(service: &str) -> Vec<String> {
    let titled = |kind: &str, file: &Value| {
        let title = file["displayName"].as_str().unwrap().replace("${SERVICE}", service);
        format!("{kind}/{}", id(&title))
    };
    let prefix = service.replace('-', "_");
    let metrics = files("metrics").into_iter().map(|(_, metric)| {
        let name = metric["name"]
            .as_str()
            .unwrap()
            .strip_prefix("platen")
            .unwrap()
            .to_owned();
        format!("metric/{prefix}{name}")
    });
    let alerts = files("alerts").into_iter().map(|(_, alert)| titled("alert", &alert));
    let dashboard = titled("dashboard", &read(&monitoring().join("dashboard.json")));
    metrics.chain(alerts).chain([dashboard]).collect()
}

/// A list as gcloud prints it.
pub(super) fn list(cloud: &Cloud, words: &Words) -> String {
    let kind = words.resource();
    let all = cloud
        .resources
        .iter()
        .filter_map(|(name, of_it)| Some((name.strip_prefix(&kind)?, of_it)));
    let lines = all.map(|(id, of_it)| match words.flag("format") {
        "value(displayName)" => format!("{}\n", of_it["displayName"]),
        _ => format!("{id}|{}|{}\n", of_it["platen"], of_it["displayName"]),
    });
    lines.collect()
}

/// Makes or changes one of what a file says.
pub(super) fn lay(cloud: &mut Cloud, words: &Words, path: &str) -> Answer {
    let text = std::fs::read_to_string(path).map_err(|error| format!("ERROR: (gcloud) {path}: {error}"))?;
    let file: Value = serde_json::from_str(&text).map_err(|error| format!("ERROR: (gcloud) {path}: {error}"))?;
    let said = |pointer: &str| file.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut resource = words.resource();
    let (is_metric, creates) = (resource.starts_with("metric/"), words.command.ends_with("create"));
    if is_metric && said("/name") != words.name() {
        return Err("ERROR: (gcloud.logging.metrics) INVALID_ARGUMENT: the name is another".to_owned());
    }
    if creates && !is_metric {
        resource.push_str(&id(&said("/displayName")));
        // Google makes a second one of the same title.
        while cloud.resources.contains_key(&resource) {
            resource.push_str("-again");
        }
    }
    match cloud.resources.contains_key(&resource) {
        true if creates => return Err(format!("ERROR: (gcloud) ALREADY_EXISTS: {resource} already exists")),
        false if !creates => return Err(format!("ERROR: (gcloud) NOT_FOUND: {resource} was not found")),
        _ => {}
    }
    if resource.starts_with("dashboard/") && !creates && said("/etag") != cloud.resources[&resource]["etag"] {
        return Err("ERROR: (gcloud) ABORTED: the etag is another version's".to_owned());
    }
    cloud.ids += 1;
    let channels = words.flag("notification-channels").to_owned() + words.flag("set-notification-channels");
    let kept = [
        ("text", text.clone()),
        ("description", said("/description")),
        ("displayName", said("/displayName")),
        ("platen", said("/userLabels/platen") + &said("/labels/platen")),
        ("etag", format!("etag-{}", cloud.ids)),
        ("channels", channels),
    ];
    let kept: BTreeMap<_, _> = kept.map(|(name, value)| (name.to_owned(), value)).into();
    cloud.resources.insert(resource, kept);
    Ok(String::new())
}

fn texts(gcloud: &Gcloud, service: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let wanted = resources(service);
    gcloud.with(|cloud| {
        let of_it = wanted
            .into_iter()
            .map(|name| (name.clone(), cloud.resources[&name].clone()));
        of_it.collect()
    })
}

#[test]
fn each_service_has_metrics_alerts_and_a_dashboard_of_its_own() {
    let gcloud = set_up(&[]);
    let other = [
        ("SERVICE", "other-one"),
        ("REPOSITORY", "platen"),
        ("CHANNELS", "projects/my-project/notificationChannels/1"),
    ];
    gcloud.script("setup.sh", &["--only", "metrics"], &other).good();
    gcloud.script("setup.sh", &["--only", "alerts"], &other).good();
    for (service, prefix) in [("platen", "platen"), ("other-one", "other_one")] {
        for (name, made) in texts(&gcloud, service) {
            let text = &made["text"];
            assert!(!text.contains("${"), "{name} is not filled in: {text}");
            let strangers = text.split("logging.googleapis.com/user/").skip(1);
            for metric in strangers {
                assert!(metric.starts_with(&format!("{prefix}_")), "{name} looks at {metric}");
            }
            for service_name in text.split("service_name=\\\"").skip(1) {
                assert!(service_name.starts_with(&format!("{service}\\\"")), "{name}: {text}");
            }
            for subscription in text.split("subscription_id=\\\"").skip(1) {
                assert!(
                    subscription.starts_with(&format!("{service}-push\\\"")),
                    "{name}: {text}"
                );
            }
            let told = name.starts_with("alert/") && service == "other-one";
            assert_eq!(!made["channels"].is_empty(), told, "{name}");
        }
    }
    gcloud.script("cleanup.sh", &["--yes"], &other).good();
    gcloud.with(|cloud| {
        assert!(
            resources("other-one")
                .iter()
                .all(|name| !cloud.resources.contains_key(name))
        );
        assert!(
            resources("platen")
                .iter()
                .all(|name| cloud.resources.contains_key(name))
        );
    });
}

#[test]
fn a_changed_setting_brings_up_to_date_what_says_it() {
    let gcloud = set_up(&[]);
    gcloud.changes();
    let channels = "projects/my-project/notificationChannels/1";
    let again = |step: &str| {
        gcloud
            .script("setup.sh", &["--only", step], &[("CHANNELS", channels)])
            .good();
        gcloud.changes()
    };
    let changes = again("alerts");
    assert_eq!(changes.len(), files("alerts").len() + 1, "{changes:?}");
    assert!(changes.iter().all(|change| change.contains(" update ")), "{changes:?}");
    for (name, made) in texts(&gcloud, "platen") {
        if name.starts_with("alert/") {
            assert_eq!(made["channels"], channels, "{name}");
        }
    }
    assert_eq!(again("alerts"), [""; 0], "a second run");
    let refused = gcloud.script("setup.sh", &[], &[("CHANNELS", "me@example.com")]);
    assert_eq!(refused.code, Some(64), "{}", refused.err);
}
