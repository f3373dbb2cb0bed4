//! What Pub/Sub answers to what it does not do.

use axum::http::StatusCode;

use super::super::Refusal;

impl Refusal {
    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
    }

    /// A body that is no JSON, or has members that are not known.
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        Self::argument(format!("Invalid JSON payload received. {error}"))
    }

    pub(super) fn unknown_method() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.")
    }

    /// What Google has and this cloud has not.
    pub(super) fn not_here(what: &str) -> Self {
        let message = format!("The local cloud has no {what}.");
        Self::new(StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED", message)
    }

    pub(super) fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", message)
    }

    pub(super) fn no_resource(name: &str) -> Self {
        let id = name.rsplit('/').next().unwrap_or_default();
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format!("Resource not found (resource={id})."),
        )
    }

    pub(super) fn resource_exists(name: &str) -> Self {
        let id = name.rsplit('/').next().unwrap_or_default();
        let message = format!("Resource already exists in the project (resource={id}).");
        Self::new(StatusCode::CONFLICT, "ALREADY_EXISTS", message)
    }
}
