//! IAM of topics and subscriptions: `getIamPolicy`, `setIamPolicy`, `testIamPermissions`. What is bound takes effect at
//! once for the accounts that are held to policies, Google's agents among them; everybody else is an owner.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        Refusal, World,
        bindings::{Binding, EVERYBODY, Policy, email, merged, permissions},
        data::NotKept,
        server::{Request, lock},
    },
    rest::parse,
};

/// What policies call a resource of this name.
pub(super) fn resource(name: &str) -> String {
    let kind = name.split('/').nth(2).unwrap_or_default();
    format!("{}/{name}", kind.trim_end_matches('s'))
}

/// Calls on a policy have one of these verbs.
pub(super) fn is_about_access(verb: &str) -> bool {
    ["getIamPolicy", "setIamPolicy", "testIamPermissions"].contains(&verb)
}

/// One of these calls.
pub(super) async fn call(
    world: &World,
    caller: Option<&str>,
    name: &str,
    verb: &str,
    request: &Request,
) -> Result<Value, Refusal> {
    let is_there = match &world.pubsub.emulator {
        Some(emulator) => emulator.has(world, name).await,
        None => world.pubsub.has(name),
    };
    match (request.method.as_str(), verb) {
        ("POST", "testIamPermissions") => test(world, caller, name, is_there, request),
        ("GET" | "POST", "getIamPolicy" | "setIamPolicy") if !is_there => Err(Refusal::no_resource(name)),
        ("GET", "getIamPolicy") => Ok(world.pubsub.policy(world, name).json()),
        ("POST", "setIamPolicy") => set(world, name, request),
        _ => Err(Refusal::unknown_method()),
    }
}

impl super::Pubsub {
    /// The policy that was set, or what the deployment has bound.
    fn policy(&self, world: &World, name: &str) -> Policy {
        let set = self.access.look().get(name).cloned();
        set.unwrap_or_else(|| Policy {
            bindings: world.policies.bindings(&resource(name)),
            revision: 0,
        })
    }

    /// Puts into force what was set before the process began.
    pub(in super::super) fn apply_policies(&self, world: &World) {
        for (name, policy) in &*self.access.look() {
            world
                .policies
                .bind(&world.settings.project, &resource(name), policy.bindings.clone());
        }
    }
}

/// Which of these permissions the caller has; of a resource that is not there, none.
fn test(world: &World, caller: Option<&str>, name: &str, is_there: bool, request: &Request) -> Result<Value, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        permissions: Vec<String>,
    }
    let Asked { mut permissions } = parse(request)?;
    let resource = resource(name);
    permissions.retain(|permission| {
        is_there && caller.is_none_or(|caller| world.policies.allows(caller, permission, &resource))
    });
    if permissions.is_empty() {
        return Ok(json!({}));
    }
    Ok(json!({"permissions": permissions}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Set {
    policy: Wanted,
    #[serde(default)]
    update_mask: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    bindings: Vec<WantedBinding>,
    #[serde(default)]
    etag: String,
    #[serde(default)]
    audit_configs: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedBinding {
    role: String,
    #[serde(default)]
    members: BTreeSet<String>,
    condition: Option<Value>,
}

fn set(world: &World, name: &str, request: &Request) -> Result<Value, Refusal> {
    let Set { policy, update_mask } = parse(request)?;
    if ![0, 1, 3].contains(&policy.version) {
        return Err(Refusal::argument("Invalid policy version: it is 0, 1 or 3."));
    }
    if !policy.audit_configs.is_empty() {
        return Err(Refusal::not_here("audit configurations"));
    }
    let unknown = |path: &&str| !["bindings", "etag", "version"].contains(path);
    if let Some(path) = update_mask
        .split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty())
        .find(unknown)
    {
        return Err(Refusal::argument(format!(
            "Invalid update_mask: '{path}' is no field of a policy."
        )));
    }
    let mut bindings = Vec::new();
    for WantedBinding {
        role,
        members,
        condition,
    } in policy.bindings
    {
        if condition.is_some() {
            return Err(Refusal::not_here("conditions of bindings"));
        }
        if permissions(&world.settings.project, &role).is_none() {
            let message = format!("Role {role} is not supported for this resource.");
            return Err(Refusal::argument(message));
        }
        for member in &members {
            check_member(world, member)?;
        }
        bindings.push(Binding { role, members });
    }
    let pubsub = &world.pubsub;
    let _alone = lock(&pubsub.configuring);
    if pubsub.emulator.is_none() && !pubsub.has(name) {
        return Err(Refusal::no_resource(name));
    }
    let old = pubsub.policy(world, name);
    if !policy.etag.is_empty() && policy.etag != old.etag() {
        let message = "There were concurrent policy changes. Please retry the whole read-modify-write with exponential \
                       backoff.";
        return Err(Refusal::new(StatusCode::CONFLICT, "ABORTED", message));
    }
    let new = Policy {
        bindings: merged(bindings),
        revision: old.revision + 1,
    };
    pubsub.access.change(|access| {
        access.insert(name.to_owned(), new.clone());
        Ok::<_, NotKept>(())
    })?;
    world
        .policies
        .bind(&world.settings.project, &resource(name), new.bindings.clone());
    // Dead letters may go now that could not, or the other way round.
    for subscription in lock(&pubsub.subscriptions).values() {
        subscription.touch();
    }
    Ok(new.json())
}

fn check_member(world: &World, member: &str) -> Result<(), Refusal> {
    const KINDS: [&str; 6] = ["user", "serviceAccount", "group", "domain", "principal", "principalSet"];
    let is_one = EVERYBODY.contains(&member)
        || member
            .split_once(':')
            .is_some_and(|(kind, value)| KINDS.contains(&kind) && !value.is_empty());
    if !is_one {
        return Err(Refusal::argument(format!("Invalid member: {member}.")));
    }
    // Accounts of other projects may be anywhere.
    let of_project = format!("@{}.iam.gserviceaccount.com", world.settings.project);
    match email(member) {
        Some(email)
            if email.ends_with(&of_project) && !world.identity.knows(email) && !world.policies.covers(email) =>
        {
            Err(Refusal::argument(format!("Service account {email} does not exist.")))
        }
        _ => Ok(()),
    }
}
