//! What the stand-in's commands do. A command or a flag that is not listed here is refused, as gcloud refuses it; that
//! the lists are gcloud's own is checked where gcloud is installed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::gcloud::{Answer, Cloud, NUMBER, PROJECT};

const MEMBERS: &str = "flatten format project location region keyring";
const BINDING: &str = "member role condition project location region keyring";

/// Each command and its flags.
const COMMANDS: &[(&str, &str)] = &[
    ("artifacts docker images describe", "project format"),
    ("artifacts repositories add-iam-policy-binding", BINDING),
    (
        "artifacts repositories create",
        "project location repository-format description kms-key",
    ),
    ("artifacts repositories delete", "project location quiet"),
    ("artifacts repositories describe", "project location format"),
    ("artifacts repositories get-iam-policy", MEMBERS),
    ("beta services identity create", "service project"),
    (
        "builds submit",
        "project region config service-account gcs-source-staging-dir substitutions",
    ),
    (
        "builds triggers create manual",
        "name project region repository branch build-config service-account substitutions description",
    ),
    ("beta monitoring channels describe", "project format"),
    ("certificate-manager certificates create", "project domains"),
    ("certificate-manager certificates describe", "project format"),
    ("certificate-manager maps create", "project"),
    ("certificate-manager maps describe", "project format"),
    (
        "certificate-manager maps entries create",
        "project map certificates hostname",
    ),
    ("certificate-manager maps entries describe", "project map format"),
    ("compute addresses create", "project global"),
    ("compute addresses describe", "project global format"),
    ("builds triggers delete", "project region quiet"),
    ("builds triggers describe", "project region format"),
    ("iam roles create", "project title permissions stage"),
    ("iam roles delete", "project quiet"),
    ("iam roles describe", "project format"),
    ("iam roles undelete", "project"),
    ("iam roles update", "project permissions"),
    ("iam service-accounts add-iam-policy-binding", BINDING),
    ("iam service-accounts create", "project display-name"),
    ("iam service-accounts delete", "project quiet"),
    ("iam service-accounts describe", "project format"),
    ("iam service-accounts get-iam-policy", MEMBERS),
    ("iam service-accounts remove-iam-policy-binding", BINDING),
    ("kms keyrings create", "project location"),
    ("kms keyrings describe", "project location format"),
    ("kms keys add-iam-policy-binding", BINDING),
    ("kms keys create", "project location keyring purpose"),
    ("kms keys describe", "project location keyring format"),
    ("kms keys get-iam-policy", MEMBERS),
    ("kms keys remove-iam-policy-binding", BINDING),
    ("logging metrics create", "project config-from-file"),
    ("logging metrics delete", "project quiet"),
    ("logging metrics describe", "project format"),
    ("logging metrics update", "project config-from-file"),
    ("monitoring dashboards create", "project config-from-file"),
    ("monitoring dashboards delete", "project quiet"),
    ("monitoring dashboards list", "project filter format"),
    ("monitoring dashboards update", "project config-from-file"),
    (
        "alpha monitoring policies create",
        "project policy-from-file notification-channels",
    ),
    ("alpha monitoring policies delete", "project quiet"),
    ("alpha monitoring policies list", "project filter format"),
    (
        "alpha monitoring policies update",
        "project policy-from-file set-notification-channels",
    ),
    ("projects add-iam-policy-binding", BINDING),
    ("projects describe", "format"),
    ("projects get-iam-policy", MEMBERS),
    ("projects remove-iam-policy-binding", BINDING),
    ("pubsub subscriptions ack", "project ack-ids"),
    ("pubsub subscriptions remove-iam-policy-binding", "member role project"),
    ("pubsub subscriptions add-iam-policy-binding", "member role project"),
    (
        "pubsub subscriptions create",
        "project topic ack-deadline message-retention-duration expiration-period push-endpoint push-auth-service-account \
         push-auth-token-audience min-retry-delay max-retry-delay dead-letter-topic max-delivery-attempts labels",
    ),
    ("pubsub subscriptions delete", "project quiet"),
    ("pubsub subscriptions describe", "project format"),
    ("pubsub subscriptions get-iam-policy", MEMBERS),
    (
        "pubsub subscriptions modify-message-ack-deadline",
        "project ack-ids ack-deadline",
    ),
    ("pubsub subscriptions pull", "project limit format"),
    (
        "pubsub subscriptions update",
        "project ack-deadline message-retention-duration expiration-period push-endpoint push-auth-service-account \
         push-auth-token-audience min-retry-delay max-retry-delay dead-letter-topic max-delivery-attempts update-labels",
    ),
    ("pubsub topics add-iam-policy-binding", "member role project"),
    ("pubsub topics remove-iam-policy-binding", "member role project"),
    ("pubsub topics create", "project topic-encryption-key"),
    ("pubsub topics delete", "project quiet"),
    ("pubsub topics describe", "project format"),
    ("pubsub topics get-iam-policy", MEMBERS),
    (
        "run deploy",
        "project region image service-account no-allow-unauthenticated ingress execution-environment cpu memory concurrency \
         timeout min-instances max-instances no-cpu-throttling cpu-throttling cpu-boost startup-probe liveness-probe set-env-vars labels",
    ),
    ("run services add-iam-policy-binding", BINDING),
    ("run services delete", "project region quiet"),
    ("run services describe", "project region format"),
    ("run services get-iam-policy", MEMBERS),
    ("run services remove-iam-policy-binding", BINDING),
    (
        "run services update",
        "project region image update-env-vars update-labels",
    ),
    (
        "scheduler jobs create http",
        "project location schedule time-zone http-method uri message-body oauth-service-account-email description",
    ),
    (
        "scheduler jobs update http",
        "project location schedule time-zone http-method uri message-body oauth-service-account-email description",
    ),
    ("scheduler jobs delete", "project location quiet"),
    ("scheduler jobs describe", "project location format"),
    ("services enable", "project"),
    ("services list", "enabled project format"),
    ("storage buckets add-iam-policy-binding", BINDING),
    (
        "storage buckets create",
        "project location uniform-bucket-level-access public-access-prevention soft-delete-duration lifecycle-file \
         default-encryption-key",
    ),
    ("storage buckets describe", "format raw"),
    ("storage buckets get-iam-policy", MEMBERS),
    (
        "storage buckets notifications create",
        "topic event-types payload-format",
    ),
    ("storage buckets notifications delete", ""),
    ("storage buckets notifications list", "format"),
    ("storage buckets remove-iam-policy-binding", BINDING),
    (
        "storage buckets update",
        "update-labels versioning uniform-bucket-level-access public-access-prevention",
    ),
    ("storage cp", ""),
    ("storage objects describe", "format raw"),
    ("storage objects list", "limit format"),
    ("storage objects update", "update-custom-metadata"),
    ("storage rm", "recursive"),
    ("storage service-agent", "project"),
];

/// What only looks.
const LOOKS: [&str; 5] = ["describe", "get-iam-policy", "list", "pull", "service-agent"];

/// A command's words, sorted.
pub(super) struct Words {
    pub(super) command: &'static str,
    pub(super) names: Vec<String>,
    pub(super) flags: BTreeMap<String, String>,
    /// What it is given on its standard input.
    input: Value,
}

impl Words {
    pub(super) fn parse(words: &[String], input: &str) -> Result<Self, String> {
        let (flags, names): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.starts_with("--"));
        let line = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
        let (command, allowed) = COMMANDS
            .iter()
            .filter(|(command, _)| line == *command || line.starts_with(&format!("{command} ")))
            .max_by_key(|(command, _)| command.len())
            .ok_or_else(|| format!("ERROR: (gcloud) Invalid choice: '{line}'"))?;
        let mut given = BTreeMap::new();
        for flag in flags {
            let (name, value) = flag[2..].split_once('=').unwrap_or((&flag[2..], "True"));
            if !allowed.split_whitespace().any(|known| known == name) {
                return Err(format!("ERROR: (gcloud.{command}) unrecognized arguments: {flag}"));
            }
            given.insert(name.to_owned(), value.to_owned());
        }
        let project = given.get("project").map_or(PROJECT, String::as_str);
        if project != PROJECT {
            return Err(format!(
                "ERROR: (gcloud) PERMISSION_DENIED on project {project} (or it may not exist)"
            ));
        }
        Ok(Self {
            command,
            names: names[command.split(' ').count()..]
                .iter()
                .map(|name| (*name).clone())
                .collect(),
            flags: given,
            input: match input {
                "" => Value::Null,
                text => serde_json::from_str(text).map_err(|error| format!("ERROR: (gcloud) malformed: {error}"))?,
            },
        })
    }

    pub(super) fn changes(&self) -> bool {
        let verb = self.command.rsplit(' ').next().unwrap();
        !LOOKS.contains(&verb)
    }

    pub(super) fn text(&self) -> String {
        let flags: String = self
            .flags
            .iter()
            .map(|(name, value)| format!(" --{name}={value}"))
            .collect();
        format!("{} {}{flags}", self.command, self.names.join(" "))
    }

    /// The same, whichever messages it is about.
    pub(super) fn kind_of_change(&self) -> String {
        self.text().split(" --ack-ids").next().unwrap_or_default().to_owned()
    }

    fn flag(&self, name: &str) -> &str {
        self.flags.get(name).map_or("", String::as_str)
    }

    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// What it is about: `topic/platen-events`.
    fn resource(&self) -> String {
        let name = self.name();
        let kinds = [
            ("artifacts docker images", "image"),
            ("artifacts repositories", "repository"),
            ("builds submit", "image"),
            ("builds triggers", "trigger"),
            ("beta monitoring channels", "channel"),
            ("certificate-manager certificates", "certificate"),
            ("certificate-manager maps entries", "entry"),
            ("certificate-manager maps", "map"),
            ("compute addresses", "address"),
            ("iam roles", "role"),
            ("iam service-accounts", "account"),
            ("kms keyrings", "keyring"),
            ("logging metrics", "metric"),
            ("monitoring dashboards", "dashboard"),
            ("alpha monitoring policies", "alert"),
            ("kms keys", "key"),
            ("projects", "project"),
            ("pubsub subscriptions", "subscription"),
            ("pubsub topics", "topic"),
            ("run", "service"),
            ("scheduler jobs", "job"),
            ("storage buckets", "bucket"),
            ("storage objects", "object"),
        ];
        let kind = kinds
            .iter()
            .find(|(prefix, _)| self.command.starts_with(prefix))
            .map_or("none", |(_, kind)| kind);
        match kind {
            "key" => format!("key/{}/{name}", self.flag("keyring")),
            "account" if !name.contains('@') => format!("account/{name}@{PROJECT}.iam.gserviceaccount.com"),
            "dashboard" | "alert" if name.is_empty() => {
                let title = self.input["displayName"].as_str().unwrap_or_default();
                format!("{kind}/{}", titled(title))
            }
            "trigger" | "job" if name.is_empty() => format!("{kind}/{}", self.flag("name")),
            _ => format!("{kind}/{}", name.trim_start_matches("gs://")),
        }
    }
}

/// A name of Google's making, which is none of a file: it goes into one command after the other.
pub(super) fn titled(title: &str) -> String {
    title
        .chars()
        .map(|character| if character.is_alphanumeric() { character } else { '-' })
        .collect()
}

/// The dashboards and alerts of one display name.
fn titles(cloud: &Cloud, words: &Words) -> Answer {
    let title = words
        .flag("filter")
        .strip_prefix("displayName=\"")
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or("ERROR: the stand-in does not know this filter")?;
    let resource = format!("{}{}", words.resource(), titled(title));
    let Some(found) = cloud.resources.get(&resource) else {
        return Ok(String::new());
    };
    let input: Value = serde_json::from_str(&found["input"]).unwrap();
    let name = resource.split('/').nth(1).unwrap();
    Ok(match words.flag("format") {
        "value(name)" => name.to_owned(),
        "value[separator=\"|\"](name,userLabels.platen-settings)" => {
            format!("{name}|{}", input["userLabels"]["platen-settings"].as_str().unwrap())
        }
        "value[separator=\"|\"](name,etag,labels)" => {
            let labels: Vec<_> = input["labels"].as_object().unwrap().keys().cloned().collect();
            format!("{name}|{}|{}", found["etag"], labels.join("=;"))
        }
        other => return Err(format!("the stand-in does not know the format {other}")),
    })
}

/// What a file of Cloud Monitoring's makes, or takes the place of.
fn lay(cloud: &mut Cloud, words: &Words) -> Answer {
    let (resource, input) = (words.resource(), words.input.to_string());
    if input.contains("${") {
        return Err(format!("ERROR: (gcloud) a variable is not filled in: {input}"));
    }
    let updates = words.command.ends_with("update");
    let there = cloud.resources.get(&resource);
    if updates != there.is_some() {
        return Err(format!("ERROR: (gcloud) {resource}: ALREADY_EXISTS, or NOT_FOUND"));
    }
    if let Some(metric) = resource.strip_prefix("metric/") {
        if words.input["name"] != metric {
            return Err(format!("ERROR: (gcloud) INVALID_ARGUMENT: {metric} is not the file's"));
        }
    } else {
        // Who looks at a metric needs one.
        for own in input.split("logging.googleapis.com/user/").skip(1) {
            let name = own.split('\\').next().unwrap();
            if !cloud.resources.contains_key(&format!("metric/{name}")) || cloud.metrics_are_known_after > 0 {
                cloud.metrics_are_known_after = cloud.metrics_are_known_after.saturating_sub(1);
                return Err(format!(
                    "ERROR: (gcloud) INVALID_ARGUMENT: Cannot find metric that matches type = \"{name}\". If a metric was \
                     created recently, it could take up to 10 minutes to become available. Please try again soon."
                ));
            }
        }
        if resource.starts_with("dashboard/")
            && updates
            && there.is_some_and(|there| words.input["etag"] != *there["etag"])
        {
            return Err("ERROR: (gcloud) ABORTED: the etag is not the dashboard's".to_owned());
        }
    }
    cloud.ids += 1;
    let etag = format!("etag-{}", cloud.ids);
    let channels = words.flag("notification-channels").to_owned() + words.flag("set-notification-channels");
    let attributes = [("input", input), ("etag", etag), ("channels", channels)];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value));
    cloud.resources.insert(resource, attributes.into());
    Ok(String::new())
}

pub(super) fn look(cloud: &mut Cloud, words: &Words) -> Answer {
    let resource = words.resource();
    let not_found = || format!("ERROR: (gcloud.{}) NOT_FOUND: {resource} was not found", words.command);
    match words.command {
        "services list" => return Ok(cloud.apis.iter().cloned().collect::<Vec<_>>().join("\n")),
        "storage service-agent" => {
            let agent = format!("service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com");
            cloud.agents.insert(agent.clone());
            return Ok(agent);
        }
        "projects describe" if words.name() == PROJECT => return Ok(NUMBER.to_owned()),
        "projects describe" => {
            return Err("ERROR: The caller does not have permission (or it may not exist)".to_owned());
        }
        "monitoring dashboards list" | "alpha monitoring policies list" => return titles(cloud, words),
        "pubsub subscriptions pull" => {
            exists(cloud, &resource).then_some(()).ok_or_else(not_found)?;
            return Ok(cloud.messages.iter().map(|(_, line)| format!("{line}\n")).collect());
        }
        "storage buckets notifications list" => {
            let bucket = cloud.resources.get(&resource).ok_or_else(not_found)?;
            let list = bucket
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix("notification-")?, value)));
            return Ok(list
                .map(|(id, topic)| format!("{id}|//pubsub.googleapis.com/{topic}\n"))
                .collect());
        }
        "storage objects list" => {
            let prefix = format!("object/{}/", words.name().trim_start_matches("gs://"));
            let names = cloud.resources.keys().filter_map(|name| name.strip_prefix(&prefix));
            return Ok(names.map(|name| format!("{name}\n")).collect());
        }
        _ => {}
    }
    if words.command.ends_with("get-iam-policy") {
        exists(cloud, &resource).then_some(()).ok_or_else(not_found)?;
        let of_it = cloud.bindings.iter().filter(|(on, _, _)| *on == resource);
        return Ok(of_it.map(|(_, role, member)| format!("{role},{member},\n")).collect());
    }
    // Names of buckets are the whole world's.
    if resource.starts_with("bucket/forbidden") {
        return Err(format!(
            "ERROR: (gcloud) [you] does not have permission to access b instance [{}] (or it may not exist)",
            words.name()
        ));
    }
    let found = cloud.resources.get(&resource).ok_or_else(not_found)?;
    let attribute = |name: &str| found.get(name).cloned().unwrap_or_default();
    let label = |name: &str| attribute(&format!("label {name}"));
    Ok(match words.flag("format") {
        "value(name)" | "value(email)" | "" => words.name().to_owned(),
        "value(image_summary.digest)" => attribute("digest"),
        "value[separator=\"|\"](deleted,includedPermissions)" => {
            format!(
                "{}|{}",
                attribute("deleted"),
                attribute("permissions").replace(',', ";")
            )
        }
        "value(deleted)" => attribute("deleted"),
        "value[separator=\"|\"](projectNumber,iamConfiguration.uniformBucketLevelAccess.enabled,iamConfiguration.publicAccessPrevention,labels.platen)" =>
        {
            let enforced = attribute("public-access-prevention").replace("True", "enforced");
            let number = found.get("number").map_or(NUMBER, String::as_str);
            format!(
                "{number}|{}|{enforced}|{}",
                attribute("uniform-bucket-level-access"),
                label("platen")
            )
        }
        "value(versioning.enabled)" => attribute("versioning"),
        "value(labels.platen)" => label("platen"),
        "value[separator=\"|\"](labels.platen-settings,labels.platen-push)" => {
            format!("{}|{}", label("platen-settings"), label("platen-push"))
        }
        "value[separator=\"|\"](pushConfig.pushEndpoint,pushConfig.oidcToken.audience,pushConfig.oidcToken.serviceAccountEmail)" =>
        {
            format!(
                "{}|{}|{}",
                attribute("push-endpoint"),
                attribute("push-auth-token-audience"),
                attribute("push-auth-service-account")
            )
        }
        "value(address)" => "203.0.113.7".to_owned(),
        "value(metadata.labels.platen-callers)" => label("platen-callers"),
        "value[separator=\"|\"](metadata.labels.platen-settings,metadata.labels.platen-callers,spec.template.spec.containers[0].image)" =>
        {
            format!(
                "{}|{}|{}",
                label("platen-settings"),
                label("platen-callers"),
                attribute("image")
            )
        }
        "value(description)" if found.contains_key("description") => attribute("description"),
        "value(description)" => {
            let input: Value = serde_json::from_str(&attribute("input")).unwrap();
            input["description"].as_str().unwrap().to_owned()
        }
        "value(generation)" => attribute("generation"),
        "value(metadata.proven)" => attribute("custom-metadata").replace("proven=", ""),
        other => return Err(format!("the stand-in does not know the format {other}")),
    })
}

fn exists(cloud: &Cloud, resource: &str) -> bool {
    resource == format!("project/{PROJECT}") || cloud.resources.contains_key(resource)
}

pub(super) fn change(cloud: &mut Cloud, words: &Words) -> Answer {
    let resource = words.resource();
    let verb = words.command.rsplit(' ').next().unwrap();
    match words.command {
        "services enable" => {
            cloud.apis.extend(words.names.iter().cloned());
            return Ok(String::new());
        }
        "beta services identity create" => {
            let name = words.flag("service").trim_end_matches(".googleapis.com");
            cloud
                .agents
                .insert(format!("service-{NUMBER}@gcp-sa-{name}.iam.gserviceaccount.com"));
            return Ok(String::new());
        }
        "logging metrics create"
        | "logging metrics update"
        | "monitoring dashboards create"
        | "monitoring dashboards update"
        | "alpha monitoring policies create"
        | "alpha monitoring policies update" => return lay(cloud, words),
        "storage cp" => return upload(cloud, words),
        "storage rm" => {
            let bucket = words.name().trim_start_matches("gs://").to_owned();
            let (own, objects) = (format!("bucket/{bucket}"), format!("object/{bucket}/"));
            cloud
                .resources
                .retain(|name, _| *name != own && !name.starts_with(&objects));
            cloud.bindings.retain(|(on, _, _)| *on != own);
            return Ok(String::new());
        }
        "storage buckets notifications create" => {
            let topic = words.flag("topic").to_owned();
            let short = format!("topic/{}", topic.rsplit('/').next().unwrap());
            let agent = format!("serviceAccount:service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com");
            if !cloud
                .bindings
                .contains(&(short, "roles/pubsub.publisher".to_owned(), agent))
            {
                return Err(
                    "ERROR: (gcloud) HTTPError 403: the service account may not publish on the topic".to_owned(),
                );
            }
            cloud.ids += 1;
            let id = format!("notification-{}", cloud.ids);
            cloud
                .resources
                .get_mut(&resource)
                .ok_or("NOT_FOUND: bucket")?
                .insert(id, topic);
            return Ok(String::new());
        }
        "storage buckets notifications delete" => {
            let (_, rest) = words
                .name()
                .split_once("projects/_/buckets/")
                .ok_or("ERROR: malformed")?;
            let (bucket, id) = rest.split_once("/notificationConfigs/").ok_or("ERROR: malformed")?;
            let bucket = cloud
                .resources
                .get_mut(&format!("bucket/{bucket}"))
                .ok_or("NOT_FOUND")?;
            bucket.remove(&format!("notification-{id}")).ok_or("NOT_FOUND")?;
            return Ok(String::new());
        }
        "pubsub subscriptions ack" => {
            let ids: BTreeSet<&str> = words.flag("ack-ids").split(',').collect();
            cloud.messages.retain(|(id, _)| !ids.contains(id.as_str()));
            return Ok(String::new());
        }
        "pubsub subscriptions modify-message-ack-deadline" => return Ok(String::new()),
        _ => {}
    }
    let there = exists(cloud, &resource);
    match verb {
        "add-iam-policy-binding" | "remove-iam-policy-binding" => {
            let (role, member) = (words.flag("role").to_owned(), words.flag("member").to_owned());
            let known_role = role.strip_prefix(&format!("projects/{PROJECT}/roles/"));
            let account = member.strip_prefix("serviceAccount:");
            if !there || known_role.is_some_and(|id| !cloud.resources.contains_key(&format!("role/{id}"))) {
                return Err(format!("ERROR: (gcloud) NOT_FOUND: {resource} or {role} was not found"));
            }
            if account.is_some_and(|account| !knows(cloud, account)) {
                return Err(format!(
                    "ERROR: (gcloud) INVALID_ARGUMENT: Service account {member} does not exist."
                ));
            }
            let binding = (resource, role, member);
            if verb.starts_with("add") {
                cloud.bindings.insert(binding);
            } else if !cloud.bindings.remove(&binding) {
                return Err("ERROR: (gcloud) Policy binding not found".to_owned());
            }
        }
        "http" if words.command.contains(" update ") => {
            apply(cloud.resources.get_mut(&resource).ok_or("NOT_FOUND: job")?, words);
        }
        "create" | "http" | "manual" | "submit" if there => {
            return Err(format!("ERROR: (gcloud) ALREADY_EXISTS: {resource} already exists"));
        }
        "submit" => {
            let value = |name: &str| {
                words
                    .flag("substitutions")
                    .trim_start_matches("^|^")
                    .split('|')
                    .find_map(|pair| pair.strip_prefix(name))
                    .unwrap_or("")
            };
            let name = format!("image/{}:{}", value("_IMAGE="), value("_TAG="));
            cloud.ids += 1;
            let digest = format!("sha256:{:064x}", cloud.ids);
            cloud.resources.insert(name, [("digest".to_owned(), digest)].into());
        }
        "create" | "http" | "manual" | "deploy" => {
            if let Some(account) = words.flags.get("service-account").filter(|_| verb == "deploy")
                && !knows(cloud, account)
            {
                return Err(format!(
                    "ERROR: (gcloud) NOT_FOUND: Service account {account} was not found"
                ));
            }
            apply(cloud.resources.entry(resource).or_default(), words);
        }
        "update" | "undelete" => {
            let found = cloud
                .resources
                .get_mut(&resource)
                .ok_or_else(|| format!("NOT_FOUND: {resource}"))?;
            if verb == "undelete" {
                found.remove("deleted");
            }
            apply(found, words);
        }
        "delete" => {
            let found = cloud
                .resources
                .get_mut(&resource)
                .ok_or_else(|| format!("NOT_FOUND: {resource}"))?;
            if resource.starts_with("role/") {
                found.insert("deleted".to_owned(), "True".to_owned());
            } else {
                cloud.resources.remove(&resource);
                cloud.bindings.retain(|(on, _, _)| *on != resource);
            }
        }
        other => return Err(format!("the stand-in does not know the verb {other}")),
    }
    Ok(String::new())
}

/// Labels and variables are merged into what is there; any other flag takes the place of what it says.
fn apply(found: &mut BTreeMap<String, String>, words: &Words) {
    for (flag, value) in &words.flags {
        if flag == "set-env-vars" {
            found.retain(|key, _| !key.starts_with("env "));
        }
        let name = flag
            .strip_prefix("update-")
            .or(flag.strip_prefix("set-"))
            .unwrap_or(flag);
        let (prefix, pairs) = match name {
            "labels" => ("label", value.split(',').collect::<Vec<_>>()),
            "env-vars" => ("env", value.trim_start_matches("^|^").split('|').collect()),
            _ => {
                found.insert(name.to_owned(), value.clone());
                continue;
            }
        };
        for pair in pairs {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            found.insert(format!("{prefix} {key}"), value.to_owned());
        }
    }
}

fn knows(cloud: &Cloud, account: &str) -> bool {
    cloud.agents.contains(account)
        || cloud.resources.contains_key(&format!("account/{account}"))
        || !account.ends_with(&format!("@{PROJECT}.iam.gserviceaccount.com")) && !account.contains("service-")
}

/// An upload, and what the deployment then makes of it when all its parts are there.
fn upload(cloud: &mut Cloud, words: &Words) -> Answer {
    let target = words
        .names
        .get(1)
        .ok_or("ERROR: no target")?
        .trim_start_matches("gs://")
        .to_owned();
    if !std::path::Path::new(&words.names[0]).exists() {
        return Err(format!("ERROR: (gcloud.storage.cp) {} was not found", words.names[0]));
    }
    cloud.ids += 1;
    let generation = cloud.ids.to_string();
    let attributes = [("generation".to_owned(), generation.clone())].into();
    cloud.resources.insert(format!("object/{target}"), attributes);
    let (bucket, name) = target.split_once('/').ok_or("ERROR: no object")?;
    let notified = cloud.resources[&format!("bucket/{bucket}")]
        .keys()
        .any(|key| key.starts_with("notification-"));
    let kinds = |kind: &str| cloud.resources.keys().any(|resource| resource.starts_with(kind));
    if notified && kinds("service/") && kinds("subscription/platen-push") {
        let data = format!(r#"{{"version":1,"outputs":[{{"signedUrl":"{}"}}]}}"#, cloud.signed_url);
        let id = format!("ack-{generation}");
        let line = format!("{id}|{name}|{generation}|succeeded|{data}");
        cloud.messages.push((id, line));
    }
    Ok(String::new())
}
