//! The object resource of the JSON API, as far as we use it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, de};

/// What Cloud Storage says about one generation of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The bucket.
    pub bucket: String,
    /// The name, any UTF-8 of at most 1,024 bytes.
    pub name: String,
    /// Which content this is: every write of the name has its own.
    #[serde(deserialize_with = "integer")]
    pub generation: i64,
    /// Stored bytes (with `content_encoding` gzip: compressed ones).
    #[serde(deserialize_with = "integer")]
    pub size: u64,
    /// As it was given at the upload: nobody has checked it.
    pub content_type: Option<String>,
    /// `gzip` when the stored bytes are compressed.
    pub content_encoding: Option<String>,
    /// Of the stored bytes.
    #[serde(default, deserialize_with = "crc32c")]
    pub crc32c: Option<u32>,
    /// The custom metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// 64-bit integers come as JSON strings, and in CloudEvents samples as numbers.
fn integer<'de, D: Deserializer<'de>, T: std::str::FromStr + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Text(String),
        Number(T),
    }
    match Either::deserialize(deserializer)? {
        Either::Text(text) => text.parse().map_err(|_| de::Error::custom("not an integer")),
        Either::Number(number) => Ok(number),
    }
}

fn crc32c<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) => decode_crc32c(&text)
            .map(Some)
            .ok_or_else(|| de::Error::custom("not a CRC32C")),
    }
}

/// Base64 of the big-endian value.
pub(super) fn decode_crc32c(text: &str) -> Option<u32> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn encode_crc32c(crc32c: u32) -> String {
    STANDARD.encode(crc32c.to_be_bytes())
}
