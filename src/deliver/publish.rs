//! Publishes the result; only then may the message that asked for it be acknowledged.

use std::collections::BTreeMap;

use chrono::{SecondsFormat, Utc};

use super::result::{Report, ResultMessage};
use crate::error::{Refusal, RefusalKind};
use crate::google::grant::Grant;
use crate::google::pubsub::Publisher;

/// Where results go.
#[derive(Debug, Clone)]
pub struct Results {
    /// The client.
    pub publisher: Publisher,
    /// `projects/P/topics/T`.
    pub topic: String,
}

/// Publishes a result.
///
/// # Errors
/// Refused when Pub/Sub cannot take it now: then nothing is acknowledged, and a redelivery finds the work done.
pub async fn publish(results: &Results, report: &Report, message: &ResultMessage) -> Result<(), Refusal> {
    let data = serde_json::to_vec(message).map_err(|error| {
        Refusal::new(
            RefusalKind::Bug,
            format!("a result message cannot be written as JSON: {error}"),
        )
    })?;
    results
        .publisher
        .publish(&results.topic, &data, &attributes(report, message))
        .await
        .map(|_| ())
        .map_err(|error| Refusal::unavailable(&error, Grant::publish(&results.topic)))
}

/// What subscriptions filter on. What is not known is left out.
fn attributes(report: &Report, message: &ResultMessage) -> BTreeMap<String, String> {
    let status = message.status.as_str();
    let mut formats: Vec<&str> = Vec::new();
    for format in report.formats() {
        if !formats.contains(&format.as_str()) {
            formats.push(format.as_str());
        }
    }
    let source = message.source.as_ref();
    let known = [
        ("status", Some(status.to_owned())),
        ("jobId", message.job_id.clone()),
        ("code", message.error.as_ref().map(|error| error.code.to_owned())),
        ("sourceBucket", source.map(|source| source.bucket.clone())),
        ("sourceObject", source.map(|source| source.name.clone())),
        ("sourceGeneration", source.and_then(|source| source.generation.clone())),
        ("format", (!formats.is_empty()).then(|| formats.join(","))),
        ("ce-specversion", Some("1.0".to_owned())),
        ("ce-id", message.job_id.clone()),
        (
            "ce-source",
            source.map(|source| format!("//platen.dev/{}", source.bucket)),
        ),
        ("ce-type", Some(format!("dev.platen.conversion.v1.{status}"))),
        ("ce-time", Some(Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true))),
        ("ce-subject", source.map(|source| source.name.clone())),
        ("content-type", Some("application/json".to_owned())),
        ("traceparent", report.trace().map(crate::accept::Trace::traceparent)),
    ];
    known
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}
