//! Whether as many jobs fit as `CONVERT_CONCURRENCY` lets in, by the sum that the worker makes at its start.

use super::report::{Line, State};
use crate::config::EngineConfig;
use crate::serve;

/// Variables of which one is there where a worker runs: Cloud Run's container contract for services and for jobs, and
/// Kubernetes'. Anywhere else the memory says nothing about the worker's.
const PLACES: [&str; 3] = ["K_SERVICE", "CLOUD_RUN_JOB", "KUBERNETES_SERVICE_HOST"];

/// A line, where this is the kind of place that a worker runs in.
pub(super) fn memory(config: &EngineConfig) -> Option<Line> {
    PLACES.iter().find(|name| std::env::var_os(name).is_some())?;
    let what = "memory and disk for CONVERT_CONCURRENCY jobs";
    Some(match serve::foreseen(config) {
        Ok(None) => Line::good(what),
        Ok(Some(why)) => {
            let why = why.trim_end_matches('.');
            Line::new(
                State::Warning,
                what,
                format!("{why}. It is what this container has: give doctor's job the worker's --memory"),
            )
        }
        Err(error) => Line::new(State::Unseen, what, error.to_string()),
    })
}
