//! How the deployment is set up: buckets, notifications, subscriptions. The worker needs none of these rights; what
//! it may not see is left to an operator, and only what was seen to be wrong fails.

use std::collections::BTreeSet;

use super::patient::{Patient, Reach};
use super::report::{Line, State};
use crate::config::PushAuth;
use crate::google::grant::shell;
use crate::google::inspect::{Notification, Subscription};
use crate::google::{Error, Kind};

/// Everything that an operator may see, in the order in which a document goes.
pub(super) async fn look(patient: &Patient, named: Option<&str>) -> Vec<Line> {
    let (config, reach) = (&patient.config, &patient.reach);
    let mut lines = Vec::new();
    let sealed = config.sealed.as_ref().map(|sealed| &sealed.object.bucket);
    let mut buckets: Vec<&String> = config.input_buckets.iter().chain([&config.output_bucket]).collect();
    buckets.sort();
    buckets.extend(sealed);
    let mut seen = BTreeSet::new();
    for bucket in buckets.into_iter().filter(|bucket| seen.insert(*bucket)) {
        lines.push(access(reach, bucket).await);
    }
    let mut topics = BTreeSet::new();
    for bucket in &config.input_buckets {
        lines.push(notifications(reach, bucket, &mut topics).await);
    }
    match named {
        Some(name) => match reach.cloud.resource("subscriptions", name).await {
            Ok(name) => lines.extend(subscription(patient, &name).await),
            Err(_) => lines.push(Line::new(
                State::Unseen,
                format!("push subscription {name}"),
                "the project is not known: write projects/PROJECT/subscriptions/NAME, or set GOOGLE_CLOUD_PROJECT",
            )),
        },
        None if topics.is_empty() => lines.push(Line::new(
            State::Unseen,
            "push subscription",
            "which one it is follows from a notification that was seen, or from --subscription NAME",
        )),
        None => {
            for topic in &topics {
                lines.extend(pushing(patient, topic).await);
            }
        }
    }
    lines.push(subscribed(reach, "results", &patient.topic).await);
    let who = config.push_service_accounts.join(" and ");
    lines.push(Line::new(
        State::Unseen,
        format!("calls by {who}, and the rights of Google's own agents"),
        "see docs/deploy.md: gcloud run services get-iam-policy SERVICE --region=REGION",
    ));
    lines.into_iter().map(Line::for_operators).collect()
}

/// What nobody here may see, with the command that shows it to somebody else; or what else there is instead of an
/// answer.
fn unseen(what: String, error: &Error, command: &str) -> Line {
    match error.kind {
        Kind::Forbidden => Line::new(
            State::Unseen,
            what,
            format!("it takes {}, or: {command}", needed(error.operation)),
        ),
        Kind::NotFound => Line::new(State::Wrong, what, format!("{error}. See that what it names exists")),
        _ => Line::new(State::Unseen, what, error.to_string()),
    }
}

/// The permission behind a method.
fn needed(operation: &str) -> &str {
    match operation {
        // cloud.google.com/storage/docs/json_api/v1/notifications/list
        "storage.notifications.list" => "storage.buckets.get",
        operation => operation,
    }
}

/// Whether a bucket is closed to the public, and has one policy for all that is in it.
async fn access(reach: &Reach, bucket: &str) -> Line {
    let what = format!("access to gs://{bucket}");
    let settings = match reach
        .look(bucket, |inspector| async move { inspector.bucket(bucket).await })
        .await
    {
        Ok(settings) => settings.iam_configuration,
        Err(error) => {
            let command = format!("gcloud storage buckets describe gs://{bucket}");
            return unseen(what, &error, &command);
        }
    };
    let mut flags = Vec::new();
    let mut why = Vec::new();
    if !settings.uniform_bucket_level_access.enabled {
        why.push("single objects have access lists of their own");
        flags.push("--uniform-bucket-level-access");
    }
    if settings.public_access_prevention != "enforced" {
        why.push("nothing keeps it from being opened to the public");
        flags.push("--public-access-prevention");
    }
    if flags.is_empty() {
        return Line::good(format!("{what}: uniform, never public"));
    }
    let why = why.join(", and ");
    let command = format!("gcloud storage buckets update gs://{bucket} {}", flags.join(" "));
    Line::new(State::Wrong, what, format!("{why}. This mends it: {command}"))
}

/// What a bucket announces; the topics come into `topics`.
async fn notifications(reach: &Reach, bucket: &str, topics: &mut BTreeSet<String>) -> Line {
    let what = format!("notifications of gs://{bucket}");
    let seen = reach
        .look(bucket, |inspector| async move { inspector.notifications(bucket).await })
        .await;
    let all = match seen {
        Ok(all) => all,
        Err(error) => {
            let command = format!("gcloud storage buckets notifications list gs://{bucket}");
            return unseen(what, &error, &command);
        }
    };
    let uploads = |notification: &&Notification| {
        let types = &notification.event_types;
        types.is_empty() || types.iter().any(|event| event == "OBJECT_FINALIZE")
    };
    let found: BTreeSet<String> = all
        .iter()
        .filter(uploads)
        .map(|notification| notification.topic().to_owned())
        .collect();
    if found.is_empty() {
        let why = format!(
            "uploads are announced nowhere, so that only jobs that somebody publishes are done. This announces them: \
             gcloud storage buckets notifications create gs://{bucket} --topic=TOPIC --event-types=OBJECT_FINALIZE \
             --payload-format=json"
        );
        return Line::new(State::Warning, what, why);
    }
    let shown = found.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    topics.extend(found);
    Line::good(format!("{what}: uploads go to {shown}"))
}

/// Whether somebody gets what is published on a topic.
async fn subscribed(reach: &Reach, kind: &str, topic: &str) -> Line {
    let what = format!("a subscription on {topic} ({kind})");
    match subscriptions(reach, topic).await {
        Ok(names) if names.is_empty() => Line::new(
            State::Wrong,
            what,
            format!(
                "there is none, so that {kind} are lost. This makes one: gcloud pubsub subscriptions create NAME \
                 --topic={}",
                shell(topic)
            ),
        ),
        Ok(names) => Line::good(format!("{what}: {}", names.join(", "))),
        Err(error) => unseen(what, &error, &list_command(topic)),
    }
}

async fn subscriptions(reach: &Reach, topic: &str) -> Result<Vec<String>, Error> {
    reach
        .look(
            topic,
            |inspector| async move { inspector.subscriptions_of(topic).await },
        )
        .await
}

fn list_command(topic: &str) -> String {
    format!("gcloud pubsub topics list-subscriptions {}", shell(topic))
}

/// The subscriptions of a topic of uploads that push.
async fn pushing(patient: &Patient, topic: &str) -> Vec<Line> {
    let what = format!("push subscription of {topic}");
    let names = match subscriptions(&patient.reach, topic).await {
        Ok(names) => names,
        Err(error) => return vec![unseen(what, &error, &list_command(topic))],
    };
    let mut lines = Vec::new();
    for name in &names {
        let found = patient
            .reach
            .look(name, |inspector| async move { inspector.subscription(name).await })
            .await;
        // One that is pulled is somebody else's.
        if found
            .as_ref()
            .is_ok_and(|settings| settings.push_config.push_endpoint.is_empty())
        {
            continue;
        }
        lines.extend(judged(patient, name, found).await);
    }
    if lines.is_empty() {
        let why = "none of its subscriptions pushes, so that no upload reaches the worker";
        lines.push(Line::new(State::Wrong, what, why));
    }
    lines
}

/// The one that was named.
async fn subscription(patient: &Patient, name: &str) -> Vec<Line> {
    let found = patient
        .reach
        .look(name, |inspector| async move { inspector.subscription(name).await })
        .await;
    judged(patient, name, found).await
}

async fn judged(patient: &Patient, name: &str, found: Result<Subscription, Error>) -> Vec<Line> {
    let settings = match found {
        Ok(settings) => settings,
        Err(error) => {
            let command = format!("gcloud pubsub subscriptions describe {}", shell(name));
            return vec![unseen(format!("push subscription {name}"), &error, &command)];
        }
    };
    let update = format!("gcloud pubsub subscriptions update {}", shell(name));
    let mut lines = vec![
        token(patient, name, &settings, &update),
        ack_deadline(patient, name, &settings, &update),
        retries(name, &settings, &update),
    ];
    lines.extend(dead_letters(patient, name, &settings, &update).await);
    lines
}

fn judge(what: String, wrong: Option<String>) -> Line {
    match wrong {
        Some(why) => Line::new(State::Wrong, what, why),
        None => Line::good(what),
    }
}

/// Whether the worker takes the token of its pushes.
fn token(patient: &Patient, name: &str, settings: &Subscription, update: &str) -> Line {
    let config = &patient.config;
    let endpoint = &settings.push_config.push_endpoint;
    let what = format!("token of pushes by {name}");
    let (Some(email), Some(audience)) = (config.push_service_accounts.first(), config.push_audiences.first()) else {
        return Line::new(State::Unseen, what, "no caller is configured");
    };
    if endpoint.is_empty() {
        return Line::new(State::Wrong, what, "it does not push: it has no endpoint");
    }
    let mend = format!(
        "This mends it: {update} --push-endpoint={} --push-auth-service-account={email} --push-auth-token-audience={}",
        shell(endpoint),
        shell(audience)
    );
    let Some(token) = &settings.push_config.oidc_token else {
        return Line::new(State::Wrong, what, format!("pushes carry none. {mend}"));
    };
    // Pub/Sub's own default.
    let seen = if token.audience.is_empty() {
        endpoint
    } else {
        &token.audience
    };
    let mut wrong = Vec::new();
    if !config.push_service_accounts.contains(&token.service_account_email) {
        wrong.push(format!(
            "it is of {}, and PUSH_SERVICE_ACCOUNT is {}",
            token.service_account_email,
            config.push_service_accounts.join(",")
        ));
    }
    if !config.push_audiences.contains(seen) {
        wrong.push(format!(
            "it is for {seen}, and PUSH_AUDIENCE is {}",
            config.push_audiences.join(",")
        ));
    }
    if !wrong.is_empty() {
        return Line::new(State::Wrong, what, format!("{}. {mend}", wrong.join("; ")));
    }
    if config.push_auth == PushAuth::CloudRunIam && !endpoint.starts_with(seen.as_str()) {
        let why = format!(
            "it is for {seen}, which is not the address that it is sent to: Cloud Run takes it only where it is one \
             of the service's custom audiences"
        );
        return Line::new(State::Warning, what, why);
    }
    Line::good(what)
}

/// The worker divides the time that it is told; Pub/Sub waits for the time that it has.
fn ack_deadline(patient: &Patient, name: &str, settings: &Subscription, update: &str) -> Line {
    let told = patient.config.ack_deadline.as_secs();
    let has = settings.ack_deadline_seconds;
    let wrong = (has != told).then(|| {
        let effect = if has < told {
            "a document that takes longer is delivered again while it is still worked on"
        } else {
            "the worker gives up earlier than it has to"
        };
        format!("it is {has} s, and ACK_DEADLINE is {told} s: {effect}. This mends it: {update} --ack-deadline={told}")
    });
    judge(format!("ack deadline of {name}"), wrong)
}

fn retries(name: &str, settings: &Subscription, update: &str) -> Line {
    let what = format!("retry policy of {name}");
    if settings.retry_policy.is_some() {
        return Line::good(what);
    }
    let why = format!(
        "there is none, so that what fails comes again at once until it is a dead letter. This makes one: {update} \
         --min-retry-delay=10s --max-retry-delay=600s"
    );
    Line::new(State::Warning, what, why)
}

/// Where messages end that are delivered too often, and whether somebody finds them there.
async fn dead_letters(patient: &Patient, name: &str, settings: &Subscription, update: &str) -> Vec<Line> {
    let what = format!("dead letters of {name}");
    let Some(policy) = &settings.dead_letter_policy else {
        let why = format!(
            "there is no topic for them, so that a message that never succeeds comes again until it is a week old. \
             This sets one: {update} --dead-letter-topic=TOPIC --max-delivery-attempts=20"
        );
        return vec![Line::new(State::Wrong, what, why)];
    };
    // Google's default where nothing is said.
    let has = if policy.max_delivery_attempts == 0 {
        5
    } else {
        policy.max_delivery_attempts
    };
    let wrong = match patient.config.max_delivery_attempts {
        Some(told) if told != has => Some(format!(
            "after {has} deliveries, and MAX_DELIVERY_ATTEMPTS is {told}. This mends it: {update} \
             --max-delivery-attempts={told}"
        )),
        _ => None,
    };
    let topic = &policy.dead_letter_topic;
    vec![
        judge(what, wrong),
        subscribed(&patient.reach, "dead letters", topic).await,
    ]
}
