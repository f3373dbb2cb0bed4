//! `deploy/policy.json` as a test reads it: the bindings with the names that a deployment gives to things.

use std::collections::BTreeSet;

use serde_json::Value;

use super::gcloud::{Binding, NUMBER, PROJECT};

/// What an operator's own key is in these tests.
pub(super) const CMEK_KEY: &str = "projects/my-project/locations/europe-west1/keyRings/own/cryptoKeys/data";
/// And where their own fonts are.
pub(super) const FONTS: &str = "gs://company-fonts/ours/";
pub(super) const DEPLOYER: &str = "dev@example.com";

pub(super) fn policy() -> Value {
    serde_json::from_str(include_str!("../../../deploy/policy.json")).unwrap()
}

/// Every binding, with those that these settings bring.
pub(super) fn bindings(settings: &[&str]) -> BTreeSet<Binding> {
    let policy = policy();
    let wanted = |binding: &&Value| binding["when"].as_str().is_none_or(|when| settings.contains(&when));
    let all = policy["bindings"].as_array().unwrap();
    let found: BTreeSet<Binding> = all
        .iter()
        .filter(wanted)
        .map(|binding| {
            let text = |key: &str| binding[key].as_str().unwrap();
            (
                resource(text("resource")),
                role(&policy, text("role")),
                member(&policy, text("member")),
            )
        })
        .collect();
    assert_eq!(found.len(), all.iter().filter(wanted).count(), "a binding twice");
    found
}

fn resource(name: &str) -> String {
    match name {
        "bucket/input" => "bucket/my-project-platen-in".to_owned(),
        "bucket/output" => "bucket/my-project-platen-out".to_owned(),
        "bucket/config" => "bucket/my-project-platen-config".to_owned(),
        "bucket/build" => "bucket/my-project-platen-build".to_owned(),
        "bucket/fonts" => "bucket/company-fonts".to_owned(),
        "service" => "service/platen".to_owned(),
        "repository" => "repository/platen".to_owned(),
        "project" => format!("project/{PROJECT}"),
        "key" => "key/platen/config".to_owned(),
        "cmek-key" => "key/own/data".to_owned(),
        _ => match name.split_once('/').unwrap() {
            ("account", "worker") => format!("account/platen@{PROJECT}.iam.gserviceaccount.com"),
            ("account", name) => format!("account/platen-{name}@{PROJECT}.iam.gserviceaccount.com"),
            (kind, name) => format!("{kind}/platen-{name}"),
        },
    }
}

fn role(policy: &Value, name: &str) -> String {
    if policy["roles"][name].is_array() {
        format!("projects/{PROJECT}/roles/platen_{name}")
    } else {
        name.to_owned()
    }
}

fn member(policy: &Value, name: &str) -> String {
    if name == "deployer" {
        return format!("user:{DEPLOYER}");
    }
    let email = policy["accounts"][name].as_str().unwrap();
    let email = email.replace("{service}", "platen").replace("{project}", PROJECT);
    format!("serviceAccount:{}", email.replace("{number}", NUMBER))
}
