//! Who may do what on which resource: the bindings of `deploy/policy.json`, which `deploy/setup.sh` makes in a real project.
//!
//! Enforced once [`LocalCloud::enforce`](super::LocalCloud::enforce) is called, for the accounts that the file names. Everybody
//! else is the project's owner. What Google's own agents do inside (push tokens, notifications, dead letters) is held to it too.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Mutex,
};

use axum::http::StatusCode;
use serde::Deserialize;

use super::{
    Refusal, Settings,
    bindings::{self, EVERYBODY},
    server::lock,
};

/// The file that the deployment is tested against.
const FILE: &str = include_str!("../../deploy/policy.json");

#[derive(Deserialize)]
struct File {
    accounts: BTreeMap<String, String>,
    roles: BTreeMap<String, Vec<String>>,
    google_roles: BTreeMap<String, Vec<String>>,
    bindings: Vec<Binding>,
}

#[derive(Deserialize)]
struct Binding {
    member: String,
    role: String,
    resource: String,
    /// The setting that a binding needs; the plain deployment is without it.
    when: Option<String>,
}

/// Email, permission, resource.
type Right = (String, String, String);

struct Enforced {
    /// By their names in the file.
    accounts: BTreeMap<String, String>,
    /// The full names of resources, by those in the file.
    resources: BTreeMap<String, String>,
    rights: BTreeSet<Right>,
    /// The policies of topics and subscriptions, by their full names: what their `getIamPolicy` says.
    bindings: BTreeMap<String, Vec<bindings::Binding>>,
}

/// The roles that a deployment has beside Google's, and their permissions.
pub(super) fn custom_roles() -> BTreeMap<String, Vec<String>> {
    serde_json::from_str::<File>(FILE)
        .map(|file| file.roles)
        .unwrap_or_default()
}

/// The policies of all resources; nothing is refused until there are any.
#[derive(Default)]
pub(super) struct Policies(Mutex<Option<Enforced>>);

impl Policies {
    pub(super) fn enforce(&self, settings: &Settings, names: &[(&str, &str)]) -> io::Result<()> {
        let file: File = serde_json::from_str(FILE).map_err(io::Error::other)?;
        let mut accounts = BTreeMap::new();
        for (name, pattern) in &file.accounts {
            let email = match name.as_str() {
                "worker" => settings.worker_service_account.clone(),
                "push" => settings.push_service_account.clone(),
                "signer" => settings.signer_service_account.clone(),
                _ => pattern
                    .replace("{service}", "platen")
                    .replace("{project}", &settings.project)
                    .replace("{number}", &settings.project_number.to_string()),
            };
            accounts.insert(name.clone(), email);
        }
        let resources: BTreeMap<String, String> = names
            .iter()
            .map(|(name, id)| ((*name).to_owned(), full_name(settings, name, id)))
            .chain(
                accounts
                    .iter()
                    .map(|(name, email)| (format!("account/{name}"), format!("account/{email}"))),
            )
            .chain([("service".to_owned(), "service".to_owned())])
            .collect();
        let mut rights = BTreeSet::new();
        let mut of_resources: BTreeMap<String, Vec<bindings::Binding>> = BTreeMap::new();
        for binding in file.bindings.iter().filter(|binding| binding.when.is_none()) {
            let permissions = file
                .roles
                .get(&binding.role)
                .or_else(|| file.google_roles.get(&binding.role));
            let (Some(email), Some(resource), Some(permissions)) = (
                accounts.get(&binding.member),
                resources.get(&binding.resource),
                permissions,
            ) else {
                // A resource that this cloud has not, or a role whose permissions nothing here asks for.
                continue;
            };
            for permission in permissions {
                rights.insert((email.clone(), permission.clone(), resource.clone()));
            }
            of_resources
                .entry(resource.clone())
                .or_default()
                .push(bindings::Binding {
                    role: bindings::name_of_role(&settings.project, &binding.role),
                    members: [format!("serviceAccount:{email}")].into(),
                });
        }
        *lock(&self.0) = Some(Enforced {
            accounts,
            resources,
            rights,
            bindings: of_resources
                .into_iter()
                .map(|(name, all)| (name, bindings::merged(all)))
                .collect(),
        });
        Ok(())
    }

    /// What is bound on a resource.
    pub(super) fn bindings(&self, resource: &str) -> Vec<bindings::Binding> {
        let state = lock(&self.0);
        let bound = state.as_ref().and_then(|enforced| enforced.bindings.get(resource));
        bound.cloned().unwrap_or_default()
    }

    /// Replaces what is bound on a resource. A permission that was taken away or given by itself stays so where the bindings say
    /// about it what they said before.
    pub(super) fn bind(&self, project: &str, resource: &str, new: Vec<bindings::Binding>) {
        let mut state = lock(&self.0);
        let Some(enforced) = state.as_mut() else { return };
        let given = bindings::grants(project, &new);
        let old = enforced.bindings.insert(resource.to_owned(), new).unwrap_or_default();
        let before = bindings::grants(project, &old);
        let right = |(email, permission): &(String, String)| (email.clone(), permission.clone(), resource.to_owned());
        for gone in before.difference(&given).map(right) {
            enforced.rights.remove(&gone);
        }
        enforced.rights.extend(given.difference(&before).map(right));
    }

    /// Takes one permission of one account on one resource away, all three as the file names them; whether it was there.
    pub(super) fn take_away(&self, account: &str, permission: &str, resource: &str) -> bool {
        let mut state = lock(&self.0);
        state.as_mut().is_some_and(|enforced| {
            enforced
                .right(account, permission, resource)
                .is_some_and(|right| enforced.rights.remove(&right))
        })
    }

    /// Gives one permission more.
    pub(super) fn give(&self, account: &str, permission: &str, resource: &str) {
        if let Some(enforced) = lock(&self.0).as_mut()
            && let Some(right) = enforced.right(account, permission, resource)
        {
            enforced.rights.insert(right);
        }
    }

    /// Every right that is enforced: account, permission, resource, as the file names them.
    pub(super) fn rights(&self) -> Vec<(String, String, String)> {
        let state = lock(&self.0);
        let named = |names: &BTreeMap<String, String>, full: &str| {
            names
                .iter()
                .find(|(_, name)| *name == full)
                .map_or_else(|| full.to_owned(), |(name, _)| name.clone())
        };
        let of = |enforced: &Enforced| {
            let rights = enforced.rights.iter();
            rights
                .map(|(email, permission, resource)| {
                    (
                        named(&enforced.accounts, email),
                        permission.clone(),
                        named(&enforced.resources, resource),
                    )
                })
                .collect()
        };
        state.as_ref().map(of).unwrap_or_default()
    }

    /// Whether an account (its email) has a permission on a resource (`bucket/NAME`, `topic/projects/P/topics/T`,
    /// `subscription/projects/P/subscriptions/S`, `key/projects/...`, `account/EMAIL`, `service`).
    pub(super) fn allows(&self, email: &str, permission: &str, resource: &str) -> bool {
        let state = lock(&self.0);
        let Some(enforced) = state.as_ref() else {
            return true;
        };
        let subject = enforced.accounts.values().any(|account| account == email);
        let has = |who: &str| {
            let right = (who.to_owned(), permission.to_owned(), resource.to_owned());
            enforced.rights.contains(&right)
        };
        !subject || has(email) || EVERYBODY.into_iter().any(has)
    }

    /// The same of one of Google's own agents, by its name in the file.
    pub(super) fn agent_may(&self, agent: &str, permission: &str, resource: &str) -> bool {
        let email = lock(&self.0)
            .as_ref()
            .and_then(|enforced| enforced.accounts.get(agent).cloned());
        email.is_none_or(|email| self.allows(&email, permission, resource))
    }

    /// Whether rights on accounts come from here and not from single grants.
    pub(super) fn covers(&self, email: &str) -> bool {
        lock(&self.0)
            .as_ref()
            .is_some_and(|enforced| enforced.accounts.values().any(|account| account == email))
    }
}

impl Enforced {
    fn right(&self, account: &str, permission: &str, resource: &str) -> Option<Right> {
        let email = self.accounts.get(account)?.clone();
        let resource = self.resources.get(resource).map_or(resource, String::as_str);
        Some((email, permission.to_owned(), resource.to_owned()))
    }
}

fn full_name(settings: &Settings, name: &str, id: &str) -> String {
    let project = &settings.project;
    match name.split('/').next().unwrap_or_default() {
        "topic" => format!("topic/projects/{project}/topics/{id}"),
        "subscription" => format!("subscription/projects/{project}/subscriptions/{id}"),
        kind => format!("{kind}/{id}"),
    }
}

/// Cloud Storage's refusal of a caller who is known.
pub(super) fn storage_refusal(email: &str, permission: &str) -> Refusal {
    let what = if permission.starts_with("storage.buckets.") || permission == "storage.objects.list" {
        "bucket"
    } else {
        "object"
    };
    Refusal::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!(
            "{email} does not have {permission} access to the Google Cloud Storage {what}. Permission '{permission}' \
             denied on resource (or it may not exist)."
        ),
    )
}

/// Pub/Sub's.
pub(super) fn pubsub_refusal() -> Refusal {
    let message = "User not authorized to perform this action.";
    Refusal::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
}
