//! A new object from a file: what every upload has, whichever way it goes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::object::encode_crc32c;
use super::{Object, check_names, multipart, resumable, shown};
use crate::google::api::Api;
use crate::google::{Error, Kind, encode};
use crate::metrics;

pub(super) const INSERT: &str = "storage.objects.create";

/// The most that goes in one request, which is sent again from its beginning when it breaks; more goes in a session.
pub(super) const LARGEST_MULTIPART: u64 = 8 * 1024 * 1024;

/// How often bytes that arrived damaged are sent: as in `kms`, damage is no matter of waiting.
const ATTEMPTS: u32 = 3;

/// A new object. The precondition is not optional: without one a retry could overwrite what somebody else wrote.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// Where to.
    pub bucket: &'a str,
    /// The name, at most 1,024 bytes of UTF-8.
    pub name: &'a str,
    /// `Content-Type` that it is served with.
    pub content_type: &'a str,
    /// `Content-Disposition` that it is served with.
    pub content_disposition: Option<&'a str>,
    /// Custom metadata.
    pub metadata: &'a BTreeMap<String, String>,
    /// What to send.
    pub file: &'a Path,
    /// The file's length in bytes.
    pub size: u64,
    /// The file's CRC32C.
    pub crc32c: u32,
    /// The generation that must be there now; 0: none.
    pub if_generation_match: i64,
}

impl Upload<'_> {
    /// Where an upload of this type begins, its precondition included.
    pub(super) fn url(&self, api: &Api, upload_type: &str) -> String {
        api.url(&format!(
            "/upload/storage/v1/b/{}/o?uploadType={upload_type}&name={}&ifGenerationMatch={}",
            encode::component(self.bucket),
            encode::component(self.name),
            self.if_generation_match,
        ))
    }

    /// The object resource. With its CRC32C the server keeps nothing that has another one.
    pub(super) fn resource(&self) -> Value {
        let mut resource = json!({
            "name": self.name,
            "contentType": self.content_type,
            "crc32c": encode_crc32c(self.crc32c),
            "metadata": self.metadata,
        });
        if let Some(disposition) = self.content_disposition {
            resource["contentDisposition"] = disposition.into();
        }
        resource
    }
}

pub(super) async fn run(api: &Api, upload: &Upload<'_>) -> Result<Object, Error> {
    check_names(INSERT, upload.bucket, upload.name)?;
    let resource = shown(upload.bucket, upload.name, None);
    let object = undamaged(api, upload, &resource).await?;
    if object.size != upload.size || object.crc32c.is_some_and(|stored| stored != upload.crc32c) {
        return Err(Error::new(
            Kind::Corrupt,
            INSERT,
            shown(upload.bucket, upload.name, Some(object.generation)),
            format!(
                "{} bytes were stored, {} were sent, or their CRC32C differs",
                object.size, upload.size
            ),
        ));
    }
    Ok(object)
}

/// Sends again what the server says has arrived damaged; it has kept nothing of it.
async fn undamaged(api: &Api, upload: &Upload<'_>, resource: &str) -> Result<Object, Error> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        let outcome = if upload.size > LARGEST_MULTIPART {
            resumable::run(api, upload, resource).await
        } else {
            multipart::run(api, upload, resource).await
        };
        match outcome {
            // "Provided CRC32C ... doesn't match calculated CRC32C ...": Cloud Storage has no reason of its own for it.
            Err(error) if error.status == Some(400) && error.message.contains("match calculated CRC32C") => {
                let error = Error {
                    kind: Kind::Corrupt,
                    ..error
                };
                if left == 0 {
                    return Err(error);
                }
                tracing::debug!(%error, "sending again");
                metrics::retried(error.operation, error.status);
            }
            outcome => return outcome,
        }
    }
}
