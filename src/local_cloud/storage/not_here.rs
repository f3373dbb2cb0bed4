//! What a request can ask of Cloud Storage and not of this one: refused, so that nothing is promised that is not done.

use axum::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{
    super::{Refusal, server::Request},
    xml::XmlError,
};

/// Parts of buckets and objects that the XML API has addresses for, and steps of uploads in parts.
const SUBRESOURCES: [&str; 22] = [
    "acl",
    "billing",
    "compose",
    "cors",
    "defaultObjectAcl",
    "encryption",
    "encryptionConfig",
    "lifecycle",
    "location",
    "logging",
    "object-lock",
    "partNumber",
    "policy",
    "restore",
    "retention",
    "storageClass",
    "tagging",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// Headers of the XML API, by what they begin with.
const HEADERS: [&str; 6] = [
    "x-amz-copy-source",
    "x-goog-copy-source",
    "x-goog-custom-time",
    "x-goog-object-lock",
    "x-goog-retention",
    "x-goog-tagging",
];

/// Refuses it in the words of the JSON API.
pub(super) fn asked(request: &Request) -> Result<(), Refusal> {
    decodes(request)?;
    no_keys(request)?;
    for (name, _) in request.parameters() {
        match name.as_str() {
            "predefinedAcl" | "destinationPredefinedAcl" | "predefinedDefaultObjectAcl" => return Err(legacy_acl()),
            "kmsKeyName" | "destinationKmsKeyName" => return Err(encryption()),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses it in the words of the XML API.
pub(super) fn asked_by_xml(request: &Request) -> Result<(), XmlError> {
    decodes(request)?;
    no_keys(request)?;
    if request.headers.contains_key("x-goog-acl") {
        return Err(legacy_acl().into());
    }
    let header = request.headers.keys().map(axum::http::HeaderName::as_str);
    let header = header
        .into_iter()
        .find(|name| HEADERS.iter().any(|start| name.starts_with(start)));
    let parameters = request.parameters();
    let part = parameters.iter().map(|(name, _)| name.as_str());
    let Some(what) = header.or_else(|| part.into_iter().find(|name| SUBRESOURCES.contains(name))) else {
        return Ok(());
    };
    let message = "A header or query you provided requested a function that is not implemented.";
    Err(XmlError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
        .details(format!("The local cloud's XML API has no {what}.")))
}

/// Names are UTF-8; two that are not would become the same one.
fn decodes(request: &Request) -> Result<(), Refusal> {
    let whole = [&request.path, &request.query];
    match whole.iter().all(|text| percent_decode_str(text).decode_utf8().is_ok()) {
        true => Ok(()),
        false => Err(Refusal::invalid("The address is not UTF-8 when percent-decoded.")),
    }
}

fn no_keys(request: &Request) -> Result<(), Refusal> {
    let is_key =
        |name: &str| name.starts_with("x-goog-encryption-") || name.starts_with("x-goog-copy-source-encryption-");
    match request.headers.keys().any(|name| is_key(name.as_str())) {
        true => Err(encryption()),
        false => Ok(()),
    }
}

fn encryption() -> Refusal {
    Refusal::invalid("The local cloud's objects cannot have encryption keys.")
}

fn legacy_acl() -> Refusal {
    Refusal::invalid(
        "Cannot insert legacy ACL for an object when uniform bucket-level access is enabled. Read more at \
         https://cloud.google.com/storage/docs/uniform-bucket-level-access",
    )
}
