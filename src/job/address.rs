//! An object's address as people write it: `gs://bucket/name`.

use std::fmt;
use std::str::FromStr;

use super::{is_bucket_name, is_object_name};

/// A bucket and an object's name in it, of whatever generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectAddress {
    /// The bucket.
    pub bucket: String,
    /// The name, any UTF-8 of at most 1,024 bytes.
    pub name: String,
}

impl FromStr for ObjectAddress {
    type Err = String;

    /// # Errors
    /// The rest of a sentence that begins with what the address is the value of.
    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix("gs://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(bucket, name)| is_bucket_name(bucket) && is_object_name(name))
            .map(|(bucket, name)| Self {
                bucket: bucket.to_owned(),
                name: name.to_owned(),
            })
            .ok_or_else(|| format!("is '{text}', not an object's address: write gs://BUCKET/OBJECT"))
    }
}

impl fmt::Display for ObjectAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gs://{}/{}", self.bucket, self.name)
    }
}
