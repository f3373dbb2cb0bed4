//! Topics, subscriptions and messages: what they are called and what Pub/Sub demands of them.

use std::{collections::BTreeMap, time::Duration};

use axum::http::StatusCode;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    super::{Refusal, to_base64},
    filter::Filter,
    manage::refuse_what_is_not_here,
};

/// The most that one publish request may hold, in bytes.
const LARGEST_REQUEST: usize = 10 * 1024 * 1024;

/// A message that is to be published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Draft {
    #[serde(with = "as_base64")]
    pub(in super::super) data: Vec<u8>,
    pub(in super::super) attributes: BTreeMap<String, String>,
    pub(in super::super) ordering_key: String,
}

impl Draft {
    pub(in super::super) fn new(data: Vec<u8>, attributes: BTreeMap<String, String>) -> Self {
        Self {
            data,
            attributes,
            ordering_key: String::new(),
        }
    }

    /// As `PubsubMessage` in JSON: fields without a value are left out.
    pub(super) fn json(&self) -> Value {
        let mut message = Map::new();
        if !self.data.is_empty() {
            message.insert("data".to_owned(), json!(to_base64(&self.data)));
        }
        if !self.attributes.is_empty() {
            message.insert("attributes".to_owned(), json!(self.attributes));
        }
        if !self.ordering_key.is_empty() {
            message.insert("orderingKey".to_owned(), json!(self.ordering_key));
        }
        Value::Object(message)
    }
}

/// A published message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) published: DateTime<Utc>,
    pub(super) draft: Draft,
}

impl Message {
    pub(super) fn publish_time(&self) -> String {
        self.published.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// As `PubsubMessage` in JSON.
    pub(super) fn json(&self) -> Value {
        let mut message = self.draft.json();
        message["messageId"] = json!(self.id);
        message["publishTime"] = json!(self.publish_time());
        message
    }
}

/// A message's data in the journal.
mod as_base64 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::super::super::{base64_of_google, to_base64};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        to_base64(bytes).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64_of_google(&text).ok_or_else(|| D::Error::custom("not base64"))
    }
}

/// Google's limits on what is published in one request.
pub(super) fn check_drafts(drafts: &[Draft]) -> Result<(), Refusal> {
    let too_large = |what: &str, passed: usize, most: usize| {
        Refusal::argument(format!(
            "The value for {what} is too large. You passed {passed} in the request, but the maximum value is {most}."
        ))
    };
    if drafts.is_empty() {
        return Err(Refusal::argument(
            "The value for message_count is too small. You passed 0 in the request, but the minimum value is 1.",
        ));
    }
    if drafts.len() > 1000 {
        return Err(too_large("message_count", drafts.len(), 1000));
    }
    let mut size = 0;
    for draft in drafts {
        if draft.data.is_empty() && draft.attributes.is_empty() {
            return Err(Refusal::argument(
                "One or more messages in the publish request is empty. Each message must contain either non-empty \
                 data, or at least one attribute.",
            ));
        }
        if draft.attributes.len() > 100 {
            return Err(too_large("attribute_count", draft.attributes.len(), 100));
        }
        for (key, value) in &draft.attributes {
            if key.is_empty() || key.len() > 256 {
                return Err(Refusal::argument("An attribute key must have 1 to 256 bytes."));
            }
            if key.starts_with("goog") {
                return Err(Refusal::argument(format!(
                    "The attribute key \"{key}\" starts with the reserved \"goog\"."
                )));
            }
            if value.len() > 1024 {
                return Err(too_large("attribute_value_size", value.len(), 1024));
            }
            size += key.len() + value.len();
        }
        if draft.ordering_key.len() > 1024 {
            return Err(too_large("ordering_key_size", draft.ordering_key.len(), 1024));
        }
        size += draft.data.len() + draft.ordering_key.len();
    }
    if size > LARGEST_REQUEST {
        return Err(too_large("request_size", size, LARGEST_REQUEST));
    }
    Ok(())
}

/// Whether `name` is `projects/P/<collection>/ID` with an id that Google allows.
pub(super) fn check_name(name: &str, collection: &str) -> Result<(), Refusal> {
    let id = match name.split('/').collect::<Vec<_>>()[..] {
        ["projects", project, kind, id] if kind == collection && !project.is_empty() => id,
        _ => "",
    };
    let legal = (3..=255).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_alphabetic())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+%".contains(&byte))
        && !id.starts_with("goog");
    if legal {
        return Ok(());
    }
    Err(Refusal::argument(format!("Invalid [{collection}] name: (name={name})")))
}

/// What a subscription can have at Google, and what it is called in words.
const NOT_OF_SUBSCRIPTIONS: [(&str, &str); 4] = [
    ("bigqueryConfig", "subscriptions that write to BigQuery"),
    ("cloudStorageConfig", "subscriptions that write to Cloud Storage"),
    ("pubsubExportConfig", "subscriptions that export"),
    ("messageTransforms", "message transforms"),
];

/// Drops what only the service says: a client may send back what it has read.
pub(super) fn without(body: &mut Value, members: &[&str]) {
    if let Some(body) = body.as_object_mut() {
        body.retain(|member, _| !members.contains(&member.as_str()));
    }
}

/// Reads the settings of a subscription.
pub(super) fn subscription(mut body: Value) -> Result<Settings, Refusal> {
    refuse_what_is_not_here(&body, &NOT_OF_SUBSCRIPTIONS)?;
    without(&mut body, &["state"]);
    serde_json::from_value(body).map_err(|error| Refusal::unreadable(&error))
}

/// A subscription's settings, as in the API.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) topic: String,
    #[serde(default)]
    pub(super) push_config: PushConfig,
    #[serde(default)]
    pub(super) ack_deadline_seconds: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) retain_acked_messages: bool,
    #[serde(default = "a_week")]
    pub(super) message_retention_duration: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) enable_message_ordering: bool,
    #[serde(default = "a_month_unused")]
    pub(super) expiration_policy: ExpirationPolicy,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) filter: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dead_letter_policy: Option<DeadLetterPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_policy: Option<RetryPolicy>,
    /// Only `false` is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) enable_exactly_once_delivery: bool,
    /// Whether it was cut off from its topic; a client cannot set it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) detached: bool,
}

fn a_week() -> String {
    "604800s".to_owned()
}

fn a_month_unused() -> ExpirationPolicy {
    ExpirationPolicy {
        ttl: Some("2678400s".to_owned()),
    }
}

/// When an unused subscription would be deleted; here it is kept and shown, and nothing is deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ExpirationPolicy {
    /// Never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PushConfig {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) push_endpoint: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) oidc_token: Option<OidcToken>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) no_wrapper: Option<NoWrapper>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pubsub_wrapper: Option<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OidcToken {
    pub(super) service_account_email: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) audience: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NoWrapper {
    #[serde(default)]
    pub(super) write_metadata: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeadLetterPolicy {
    pub(super) dead_letter_topic: String,
    #[serde(default)]
    pub(super) max_delivery_attempts: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryPolicy {
    #[serde(default = "ten_seconds")]
    pub(super) minimum_backoff: String,
    #[serde(default = "ten_minutes")]
    pub(super) maximum_backoff: String,
}

fn ten_seconds() -> String {
    "10s".to_owned()
}

fn ten_minutes() -> String {
    "600s".to_owned()
}

impl RetryPolicy {
    /// The exponential delay after this many attempts, in Pub/Sub's seconds.
    pub(super) fn delay(&self, attempts: u32) -> f64 {
        let [least, most] = [&self.minimum_backoff, &self.maximum_backoff].map(|text| backoff(text).unwrap_or(0.0));
        let exponent = i32::try_from(attempts.saturating_sub(1).min(30)).unwrap_or(30);
        (least * 2f64.powi(exponent)).min(most)
    }
}

/// `"1.5s"`, in seconds.
pub(super) fn seconds(text: &str) -> Option<f64> {
    text.strip_suffix('s')?
        .parse()
        .ok()
        .filter(|seconds: &f64| seconds.is_finite())
}

fn backoff(text: &str) -> Option<f64> {
    seconds(text).filter(|seconds| (0.0..=600.0).contains(seconds))
}

const MINUTE: f64 = 60.0;
const DAY: f64 = 24.0 * 60.0 * MINUTE;

/// Google's bounds of how long messages are retained: 10 minutes to 31 days.
pub(super) fn check_retention(duration: &str) -> Result<(), Refusal> {
    if seconds(duration).is_some_and(|seconds| (10.0 * MINUTE..=31.0 * DAY).contains(&seconds)) {
        return Ok(());
    }
    Err(Refusal::argument(format!(
        "Invalid message retention duration given: (message_retention_duration={duration}); it must be between 600s and \
         2678400s."
    )))
}

impl Settings {
    /// Fills in Google's defaults and checks Google's limits.
    pub(super) fn checked(mut self) -> Result<Self, Refusal> {
        if self.ack_deadline_seconds == 0 {
            self.ack_deadline_seconds = 10;
        }
        if !(10..=600).contains(&self.ack_deadline_seconds) {
            return Err(Refusal::argument(format!(
                "Invalid ack deadline given: (ack_deadline_seconds={}); it must be between 10 and 600.",
                self.ack_deadline_seconds
            )));
        }
        self.parsed_filter()?;
        check_retention(&self.message_retention_duration)?;
        if let Some(ttl) = &self.expiration_policy.ttl
            && seconds(ttl).is_none_or(|seconds| seconds < DAY)
        {
            return Err(Refusal::argument(format!(
                "Invalid expiration policy given: (ttl={ttl}); it must be at least 86400s."
            )));
        }
        if self.enable_exactly_once_delivery {
            return Err(Refusal::not_here("exactly-once delivery"));
        }
        if let Some(policy) = &mut self.dead_letter_policy {
            if policy.max_delivery_attempts == 0 {
                policy.max_delivery_attempts = 5;
            }
            let attempts = policy.max_delivery_attempts;
            let bound = match attempts {
                ..5 => Some(("small", "minimum", 5)),
                5..=100 => None,
                101.. => Some(("large", "maximum", 100)),
            };
            if let Some((size, which, bound)) = bound {
                let message = format!(
                    "The value for max_delivery_attempts is too {size}. You passed {attempts} in the request, but the \
                     {which} value is {bound}."
                );
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "OUT_OF_RANGE", message));
            }
            check_name(&policy.dead_letter_topic, "topics")?;
        }
        if let Some(policy) = &self.retry_policy {
            let bounds = backoff(&policy.minimum_backoff).zip(backoff(&policy.maximum_backoff));
            if !bounds.is_some_and(|(least, most)| least <= most) {
                return Err(Refusal::argument(
                    "A retry policy's backoffs are durations of 0s to 600s, least first.",
                ));
            }
        }
        let endpoint = &self.push_config.push_endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Refusal::argument(format!(
                "Invalid push endpoint given: (endpoint={endpoint})."
            )));
        }
        Ok(self)
    }

    /// None where every message is delivered.
    pub(super) fn parsed_filter(&self) -> Result<Option<Filter>, Refusal> {
        if self.filter.is_empty() {
            return Ok(None);
        }
        Filter::parse(&self.filter).map(Some).map_err(|why| {
            let filter = &self.filter;
            Refusal::argument(format!("Invalid filter given: (filter={filter}): {why}."))
        })
    }

    /// How long a message is kept.
    pub(super) fn retention(&self) -> TimeDelta {
        let seconds = seconds(&self.message_retention_duration).unwrap_or(7.0 * DAY);
        Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|duration| TimeDelta::from_std(duration).ok())
            .unwrap_or(TimeDelta::days(7))
    }

    pub(super) fn ack_deadline(&self, second: Duration) -> Duration {
        second * self.ack_deadline_seconds
    }

    pub(super) fn json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["state"] = json!("ACTIVE");
        value
    }
}
