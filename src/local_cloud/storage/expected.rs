//! The hashes that a client says the content has.

use axum::http::HeaderMap;
use serde_json::Value;

use super::{
    super::{Refusal, base64_of_google},
    object::Hashes,
};

/// The hashes that the client says the content has.
#[derive(Default)]
pub(super) struct Expected {
    crc32c: Option<String>,
    md5: Option<String>,
}

impl Expected {
    pub(super) fn of_json(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Self {
            crc32c: text("crc32c"),
            md5: text("md5Hash"),
        }
    }

    /// `X-Goog-Hash: crc32c=...,md5=...`, in one header or two, and `Content-MD5`.
    pub(super) fn of_headers(headers: &HeaderMap) -> Self {
        let mut expected = Self::default();
        let values = headers
            .get_all("x-goog-hash")
            .iter()
            .filter_map(|value| value.to_str().ok());
        for part in values.flat_map(|value| value.split(',')) {
            match part.trim().split_once('=') {
                Some(("crc32c", hash)) => expected.crc32c = Some(hash.to_owned()),
                Some(("md5", hash)) => expected.md5 = Some(hash.to_owned()),
                _ => {}
            }
        }
        if let Some(hash) = headers.get("content-md5").and_then(|value| value.to_str().ok()) {
            expected.md5 = Some(hash.to_owned());
        }
        expected
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            crc32c: self.crc32c.or(other.crc32c),
            md5: self.md5.or(other.md5),
        }
    }

    pub(super) fn check(&self, actual: &Hashes) -> Result<(), Refusal> {
        let md5 = actual.md5.as_deref().unwrap_or_default();
        for (what, expected, actual) in [("CRC32C", &self.crc32c, &*actual.crc32c), ("MD5 hash", &self.md5, md5)] {
            let Some(expected) = expected else { continue };
            if base64_of_google(expected) != base64_of_google(actual) {
                return Err(Refusal::invalid(format!(
                    "Provided {what} \"{expected}\" doesn't match calculated {what} \"{actual}\"."
                )));
            }
        }
        Ok(())
    }
}
