//! IAM policies of single resources, as `setIamPolicy` takes them: which members have which roles. Permissions of Pub/Sub's roles
//! are those of <https://cloud.google.com/iam/docs/roles-permissions/pubsub>, as far as anything here asks for them.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy::custom_roles;

/// A role and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) role: String,
    pub(super) members: BTreeSet<String>,
}

/// The policy of a resource; how often it was set tells two of them apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Policy {
    pub(super) bindings: Vec<Binding>,
    pub(super) revision: u64,
}

impl Policy {
    /// What a client that changes it sends back.
    pub(super) fn etag(&self) -> String {
        match self.revision {
            // Google's, of a policy that was never set.
            0 => "ACAB".to_owned(),
            revision => STANDARD.encode(revision.to_be_bytes()),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut policy = json!({"etag": self.etag()});
        if !self.bindings.is_empty() {
            policy["version"] = json!(1);
            policy["bindings"] = json!(self.bindings);
        }
        policy
    }
}

/// One binding a role, without those that nobody is in.
pub(super) fn merged(bindings: impl IntoIterator<Item = Binding>) -> Vec<Binding> {
    let mut by_role: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for binding in bindings {
        by_role.entry(binding.role).or_default().extend(binding.members);
    }
    by_role.retain(|_, members| !members.is_empty());
    by_role
        .into_iter()
        .map(|(role, members)| Binding { role, members })
        .collect()
}

/// Everybody, and everybody with an account: there is nobody else here.
pub(super) const EVERYBODY: [&str; 2] = ["allUsers", "allAuthenticatedUsers"];

/// Who gets which permission by these. Groups and domains have no members here.
pub(super) fn grants(project: &str, bindings: &[Binding]) -> BTreeSet<(String, String)> {
    let mut grants = BTreeSet::new();
    for binding in bindings {
        let permissions = permissions(project, &binding.role).unwrap_or_default();
        let emails = binding.members.iter().filter_map(|member| email(member));
        for email in emails {
            grants.extend(
                permissions
                    .iter()
                    .map(|permission| (email.to_owned(), permission.clone())),
            );
        }
    }
    grants
}

/// The account that a member is; one of [`EVERYBODY`] as it is.
pub(super) fn email(member: &str) -> Option<&str> {
    if EVERYBODY.contains(&member) {
        return Some(member);
    }
    let (kind, email) = member.split_once(':')?;
    ["serviceAccount", "user"].contains(&kind).then_some(email)
}

/// The name of a role of `deploy/policy.json` in the project.
pub(super) fn name_of_role(project: &str, role: &str) -> String {
    match role.starts_with("roles/") {
        true => role.to_owned(),
        false => format!("{}{role}", prefix_of_roles(project)),
    }
}

fn prefix_of_roles(project: &str) -> String {
    format!("projects/{project}/roles/platen_")
}

const PUBLISH: [&str; 1] = ["pubsub.topics.publish"];
const SUBSCRIBE: [&str; 3] = [
    "pubsub.snapshots.seek",
    "pubsub.subscriptions.consume",
    "pubsub.topics.attachSubscription",
];
const VIEW: [&str; 6] = [
    "pubsub.snapshots.get",
    "pubsub.snapshots.list",
    "pubsub.subscriptions.get",
    "pubsub.subscriptions.list",
    "pubsub.topics.get",
    "pubsub.topics.list",
];
const EDIT: [&str; 10] = [
    "pubsub.snapshots.create",
    "pubsub.snapshots.delete",
    "pubsub.snapshots.update",
    "pubsub.subscriptions.create",
    "pubsub.subscriptions.delete",
    "pubsub.subscriptions.update",
    "pubsub.topics.create",
    "pubsub.topics.delete",
    "pubsub.topics.detachSubscription",
    "pubsub.topics.update",
];
const GOVERN: [&str; 6] = [
    "pubsub.snapshots.getIamPolicy",
    "pubsub.snapshots.setIamPolicy",
    "pubsub.subscriptions.getIamPolicy",
    "pubsub.subscriptions.setIamPolicy",
    "pubsub.topics.getIamPolicy",
    "pubsub.topics.setIamPolicy",
];

/// What a role allows on a topic, subscription or snapshot; none where there is no such role.
pub(super) fn permissions(project: &str, role: &str) -> Option<Vec<String>> {
    let sets: &[&[&str]] = match role {
        "roles/pubsub.publisher" => &[&PUBLISH],
        "roles/pubsub.subscriber" => &[&SUBSCRIBE],
        "roles/pubsub.viewer" | "roles/viewer" => &[&VIEW],
        "roles/pubsub.editor" | "roles/editor" => &[&PUBLISH, &SUBSCRIBE, &VIEW, &EDIT],
        "roles/pubsub.admin" | "roles/owner" => &[&PUBLISH, &SUBSCRIBE, &VIEW, &EDIT, &GOVERN],
        custom => return custom_roles().remove(custom.strip_prefix(&prefix_of_roles(project))?),
    };
    Some(sets.concat().into_iter().map(str::to_owned).collect())
}
