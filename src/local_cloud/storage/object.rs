//! One generation of an object: what it says about itself, its bytes and their hashes.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::super::{
    Refusal, base64_of_google,
    data::{Content, blocking},
};

/// What a client may say about an object; the names are those of the JSON API.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
}

impl Fields {
    /// What Google demands of them.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let metadata = self.metadata.iter().flatten();
        let size: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
        if size > MOST_METADATA {
            return Err(Refusal::invalid(format!(
                "The custom metadata has {size} bytes, and the most are {MOST_METADATA}."
            )));
        }
        let known = |class: &str| STORAGE_CLASSES.iter().chain(&OLD_CLASSES).any(|known| *known == class);
        match self.storage_class.as_deref().filter(|class| !known(class)) {
            Some(class) => Err(Refusal::invalid(format!("Invalid storage class: {class}"))),
            None => Ok(()),
        }
    }
}

/// Keys and values of custom metadata, in bytes (cloud.google.com/storage/quotas#objects).
const MOST_METADATA: usize = 8 * 1024;
pub(super) const STORAGE_CLASSES: [&str; 4] = [STANDARD_CLASS, "NEARLINE", "COLDLINE", "ARCHIVE"];
/// Objects can still have them.
const OLD_CLASSES: [&str; 3] = ["MULTI_REGIONAL", "REGIONAL", "DURABLE_REDUCED_AVAILABILITY"];

/// What buckets and objects are that were not asked to be anything else.
pub(super) const STANDARD_CLASS: &str = "STANDARD";

/// One generation of an object; with a data directory a record is all that is here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) generation: i64,
    pub(super) metageneration: i64,
    pub(super) created: DateTime<Utc>,
    pub(super) updated: DateTime<Utc>,
    /// When it stopped to be the live one.
    pub(super) deleted: Option<DateTime<Utc>>,
    pub(super) content: Content,
    pub(super) fields: Fields,
    pub(super) crc32c: String,
    /// None of an object that was composed.
    pub(super) md5: Option<String>,
    /// Of how many parts it was composed; none of an object that was uploaded.
    pub(super) components: Option<u32>,
}

impl Object {
    /// As Google's: a protocol buffer of generation and metageneration.
    pub(super) fn etag(&self) -> String {
        let mut bytes = vec![0x08];
        varint(&mut bytes, self.generation);
        bytes.push(0x10);
        varint(&mut bytes, self.metageneration);
        STANDARD.encode(bytes)
    }

    /// `x-goog-hash`, on every answer about the object.
    pub(super) fn hashes(&self) -> String {
        let md5 = self.md5.as_ref().map(|md5| format!(",md5={md5}"));
        format!("crc32c={}{}", self.crc32c, md5.unwrap_or_default())
    }

    /// The XML API's etag: the MD5 in hexadecimal digits, as long as an object has one.
    pub(super) fn xml_etag(&self) -> String {
        let Some(md5) = self.md5.as_deref().and_then(base64_of_google) else {
            return format!("\"-{}\"", self.etag());
        };
        let digits: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"{digits}\"")
    }

    pub(super) fn content_type(&self) -> &str {
        self.fields
            .content_type
            .as_deref()
            .unwrap_or("application/octet-stream")
    }
}

fn varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = value.unsigned_abs();
    while rest >= 0x80 {
        bytes.push((rest & 0x7f).to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
}

/// The CRC32C of these bytes as Google words it: base64 of the big-endian number.
fn crc32c_text(content: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(content).to_be_bytes())
}

/// The MD5 of these bytes in base64.
fn md5_text(content: &[u8]) -> String {
    STANDARD.encode(Md5::digest(content))
}

/// Bytes whose hashes are made in no time.
const QUICK: usize = 64 * 1024;

/// The hashes of bytes.
pub(super) struct Hashes {
    pub(super) crc32c: String,
    /// None is made of what was composed.
    pub(super) md5: Option<String>,
}

impl Hashes {
    /// Reads all of it, which takes a while: nothing may be locked.
    pub(super) fn of(content: &[u8]) -> Self {
        let hash = || Self {
            crc32c: crc32c_text(content),
            md5: Some(md5_text(content)),
        };
        match content.len() < QUICK {
            true => hash(),
            false => blocking(hash),
        }
    }

    pub(super) fn of_composed(content: &[u8]) -> Self {
        Self {
            crc32c: blocking(|| crc32c_text(content)),
            md5: None,
        }
    }
}

/// The bytes of an object that is to be, with their hashes.
pub(super) struct Payload {
    pub(super) content: Content,
    pub(super) crc32c: String,
    /// None of what was composed.
    pub(super) md5: Option<String>,
    /// Of how many parts it was composed.
    pub(super) components: Option<u32>,
}

impl From<&Object> for Payload {
    fn from(object: &Object) -> Self {
        Self {
            content: object.content.clone(),
            crc32c: object.crc32c.clone(),
            md5: object.md5.clone(),
            components: object.components,
        }
    }
}

/// Google's rules for names: 1 to 1024 bytes, no CR or LF, not `.` or `..`.
pub(super) fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::required("Required parameter: name"));
    }
    if name.len() > 1024
        || name.contains(['\r', '\n'])
        || name == "."
        || name == ".."
        || name.starts_with(".well-known/acme-challenge/")
    {
        return Err(Refusal::invalid("Invalid object name.".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::clock::Clock, preconditions::Preconditions, store::Store},
        *,
    };

    /// 300 is `ac 02` in the encoding's own documentation; `CK...EAE=` is the shape of a real object's.
    #[test]
    fn etag_is_a_protocol_buffer() {
        let (mut store, clock) = (Store::default(), Clock::default());
        store.create_bucket("bucket", false, &clock).unwrap();
        let address = ("bucket", "object");
        let content = Payload {
            content: Content::new(None, axum::body::Bytes::new()).unwrap(),
            crc32c: crc32c_text(&[]),
            md5: Some(md5_text(&[])),
            components: None,
        };
        let inserted = store.insert(address, Fields::default(), content, &Preconditions::default(), &clock);
        let mut object = inserted.unwrap().0;
        object.generation = 300;
        assert_eq!(STANDARD.decode(object.etag()).unwrap(), [0x08, 0xac, 0x02, 0x10, 0x01]);
        object.generation = 1_736_358_966_947_877;
        assert_eq!(
            STANDARD.decode(object.etag()).unwrap(),
            [0x08, 0xa5, 0xe0, 0xb5, 0x9b, 0xd9, 0xe6, 0x8a, 0x03, 0x10, 0x01]
        );
    }
}
