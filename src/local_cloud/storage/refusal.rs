//! The words of Cloud Storage's JSON API for what it does not do.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::json;

use super::super::{
    Refusal,
    data::NotKept,
    server::{json as json_answer, text},
};

/// Cloud Storage's words for a change that could not be kept.
pub(super) fn backend(error: NotKept) -> Refusal {
    reworded(error.into())
}

pub(super) fn reworded(refusal: Refusal) -> Refusal {
    match refusal.status {
        "UNAVAILABLE" => Refusal {
            status: "backendError",
            ..refusal
        },
        _ => refusal,
    }
}

impl Refusal {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(super) fn required(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "required", message)
    }

    pub(super) fn precondition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::new(StatusCode::PRECONDITION_FAILED, "conditionNotMet", message)
    }

    pub(super) fn not_modified() -> Self {
        Self::new(StatusCode::NOT_MODIFIED, "notModified", "Not Modified")
    }

    pub(super) fn no_bucket() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "notFound",
            "The specified bucket does not exist.",
        )
    }

    pub(super) fn no_object(bucket: &str, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "notFound",
            format!("No such object: {bucket}/{name}"),
        )
    }

    pub(super) fn is_no_object(&self) -> bool {
        self.code == StatusCode::NOT_FOUND && self.message.starts_with("No such object")
    }

    /// The error as the JSON API answers it; 304 has no body.
    pub(super) fn answer(&self) -> Response {
        if self.code == StatusCode::NOT_MODIFIED {
            return text(self.code, "");
        }
        let mut error = json!({"message": self.message, "domain": "global", "reason": self.status});
        match self.code {
            StatusCode::PRECONDITION_FAILED => {
                error["locationType"] = json!("header");
                error["location"] = json!("If-Match");
            }
            StatusCode::UNAUTHORIZED => {
                error["locationType"] = json!("header");
                error["location"] = json!("Authorization");
            }
            _ => {}
        }
        let code = self.code.as_u16();
        let mut answer = json_answer(
            self.code,
            &json!({"error": {"code": code, "message": self.message, "errors": [error]}}),
        );
        if self.code == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}
