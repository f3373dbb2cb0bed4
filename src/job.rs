//! A job: one generation of one object, what to make of it, and under which names.
//!
//! The job's identity is a hash of exactly these things, so that every delivery of the same work finds what an
//! earlier one left behind.

mod address;
mod format;
mod name;
mod options;
mod request;
mod secret;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use address::ObjectAddress;
pub use format::Format;
pub use name::{NameTemplate, NameValues};
pub use options::{Metadata, OptionValue, Options, PaperSize};
pub use request::{Disposition, Request, RequestedOutput, SignedUrl};
pub use secret::SecretName;

/// An object, and the generation of it if one was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The bucket.
    pub bucket: String,
    /// The object's name, exactly as Cloud Storage has it.
    pub name: String,
    /// The generation that was named.
    pub generation: Option<i64>,
}

impl Source {
    /// The source as a person and our own metadata write it.
    pub fn display(&self) -> String {
        match self.generation {
            Some(generation) => format!("gs://{}/{}#{generation}", self.bucket, self.name),
            None => format!("gs://{}/{}", self.bucket, self.name),
        }
    }
}

/// One output of a job.
#[derive(Debug, Clone)]
pub struct Output {
    /// What it is.
    pub format: Format,
    /// How it is named.
    pub name: NameTemplate,
    /// How it is made.
    pub options: Options,
}

/// A job that has been checked: everything but the source's generation is settled.
#[derive(Debug, Clone)]
pub struct Job {
    /// What to read.
    pub source: Source,
    /// What to make; at least one.
    pub outputs: Vec<Output>,
    /// How long links last, when the job says so.
    pub signed_url_ttl: Option<Duration>,
    /// What browsers do with them.
    pub disposition: Disposition,
    /// Part of the identity.
    pub revision: Option<String>,
    /// Echoed in the result.
    pub user_data: Option<Value>,
    /// The name of the password that opens the document. Not part of the identity: it changes nothing in the outputs.
    pub password: Option<SecretName>,
}

impl Job {
    /// The job that a plain event asks for: one PDF.
    pub fn of_event(source: Source, output_name: &NameTemplate) -> Self {
        Self {
            source,
            outputs: vec![Output {
                format: Format::Pdf,
                name: output_name.clone(),
                options: Options::default(),
            }],
            signed_url_ttl: None,
            disposition: Disposition::default(),
            revision: None,
            user_data: None,
            password: None,
        }
    }

    /// The identity: 32 hex digits, the same for the same source generation, outputs and revision.
    pub fn id(&self, generation: Option<i64>) -> JobId {
        let outputs: Vec<Value> = self
            .outputs
            .iter()
            .map(|output| serde_json::json!([output.format.as_str(), output.name.as_str(), output.options.to_json()]))
            .collect();
        JobId::hash(&serde_json::json!([
            "job",
            self.source.bucket,
            self.source.name,
            generation.or(self.source.generation),
            outputs,
            self.revision
        ]))
    }
}

/// The identity of a job, as result messages and object metadata carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct JobId(String);

impl JobId {
    fn hash(identity: &Value) -> Self {
        let digest = Sha256::digest(identity.to_string().as_bytes());
        Self(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// For a job that could not be read further than its source.
    pub fn of_source(source: &Source) -> Self {
        Self::hash(&serde_json::json!([
            "source",
            source.bucket,
            source.name,
            source.generation
        ]))
    }

    /// For a message that could not be read at all.
    pub fn of_message(message_id: &str) -> Self {
        Self::hash(&serde_json::json!(["message", message_id]))
    }

    /// The 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether Cloud Storage takes this as an object's name: 1 to 1,024 bytes of UTF-8 without line breaks, and none of the
/// names that it keeps to itself.
/// Source: cloud.google.com/storage/docs/objects#naming.
pub fn is_object_name(name: &str) -> bool {
    (1..=1024).contains(&name.len())
        && !name.contains(['\r', '\n'])
        && name != "."
        && name != ".."
        && !name.starts_with(".well-known/acme-challenge/")
}

/// Whether this can be a bucket's name, by Google's rules for characters and length; emulators take names that are
/// shorter than Google's three.
/// Source: cloud.google.com/storage/docs/buckets#naming.
pub fn is_bucket_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=222).contains(&name.len())
        && name.chars().all(|c| plain(c) || "-_.".contains(c))
        && name.starts_with(plain)
        && name.ends_with(plain)
}

/// A generation from a JSON string or number.
pub fn parse_generation(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
        Value::Number(number) => number.as_i64()?,
        _ => return None,
    };
    (number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Failure, FailureCode};

    fn read(json: &str) -> Result<Job, Failure> {
        Request::from_json(json.as_bytes())?.into_job(&NameTemplate::default())
    }

    #[test]
    fn only_the_source_is_required() {
        let job = read(r#"{"source":"gs://in/reports/q3.docx"}"#).unwrap();
        assert_eq!(job.source.bucket, "in");
        assert_eq!(job.source.name, "reports/q3.docx");
        assert_eq!(job.outputs.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (r#"{"source":"gs://in/a","colour":1}"#, "colour"),
            (r#"{"source":"in/a"}"#, "in/a"),
            (r#"{"source":"gs://in/"}"#, "gs://in/"),
            (r#"{"source":"gs://in/a","generation":"-1"}"#, "generation"),
            (r#"{"source":"gs://in/a","outputs":[]}"#, "outputs"),
            (
                r#"{"source":"gs://in/a","outputs":[{"format":"pdf","nmae":"x"}]}"#,
                "outputs[0]",
            ),
            (r#"{"source":"gs://in/a"} {}"#, "trailing"),
            (r#"{"source":"gs://IN/a"}"#, "gs://IN/a"),
            (
                r#"{"source":"gs://in/a","outputs":[{"format":"pdf","name":"{year}.pdf"}]}"#,
                "{year}",
            ),
            (r#"{"source":"gs://in/a","signedUrl":{"ttl":"soon"}}"#, "signedUrl.ttl"),
            (r#"{"generation":"1"}"#, "source"),
        ] {
            let failure = read(json).unwrap_err();
            assert_eq!(failure.code, FailureCode::MessageInvalid, "{json}");
            assert!(failure.message.contains(part), "{json}: {failure}");
        }
        for json in [
            r#"{"source":"gs://in/a","outputs":[{"format":"docm"}]}"#,
            r#"{"source":"gs://in/a","outputs":[{"format":"pdf","options":{"zzz":1}}]}"#,
            r#"{"source":"gs://in/a","password":"hunter2"}"#,
        ] {
            assert_eq!(read(json).unwrap_err().code, FailureCode::OptionInvalid, "{json}");
        }
        let big = format!(r#"{{"source":"gs://in/a","userData":"{}"}}"#, "x".repeat(9000));
        assert!(read(&big).unwrap_err().message.contains("userData"));
    }

    #[test]
    fn a_password_is_a_name_and_not_part_of_the_identity() {
        let base = read(r#"{"source":"gs://in/a.docx"}"#).unwrap();
        let locked = read(r#"{"source":"gs://in/a.docx","password":{"secret":"contracts"}}"#).unwrap();
        assert_eq!(locked.password.as_ref().map(SecretName::as_str), Some("contracts"));
        assert_eq!(base.id(Some(1)), locked.id(Some(1)));
    }

    #[test]
    fn a_value_in_the_wrong_place_is_not_repeated() {
        for json in [
            r#"{"source":"gs://in/a","password":"hunter2"}"#,
            r#"{"source":"gs://in/a","password":{"secret":["hunter2"]}}"#,
            r#"{"source":"gs://in/a","password":{"secret":"x","value":"hunter2"}}"#,
            r#"{"source":"gs://in/a","outputs":[{"format":"pdf","options":{"userPassword":"hunter2"}}]}"#,
            r#"{"source":"gs://in/a","outputs":"hunter2"}"#,
            r#"{"source":"gs://in/a","outputs":"x, expected hunter2"}"#,
            r#"{"source":"gs://in/a","signedUrl":{"disposition":"hunter2"}}"#,
        ] {
            let failure = read(json).unwrap_err();
            assert!(!failure.message.contains("hunter2"), "{failure}");
            assert!(!format!("{:?}", failure.detail).contains("hunter2"), "{failure}");
        }
    }

    #[test]
    fn what_is_quoted_is_cut() {
        let failure = read(&format!(r#"{{"source":"gs://in/{}"}}"#, "\\u0001".repeat(100_000))).unwrap_err();
        assert!(failure.message.len() < 3000);
    }

    #[test]
    fn the_identity_is_the_source_generation_outputs_and_revision() {
        let base = read(r#"{"source":"gs://in/a.docx"}"#).unwrap();
        assert_eq!(base.id(Some(1)).as_str().len(), 32);
        assert_eq!(
            base.id(Some(1)),
            read(r#"{"source":"gs://in/a.docx","generation":"1"}"#)
                .unwrap()
                .id(None)
        );
        assert_eq!(
            base.id(Some(1)),
            read(r#"{"source":"gs://in/a.docx","userData":5}"#).unwrap().id(Some(1))
        );
        // A default is no option, so what earlier versions made is found again.
        let defaults = r#"{"source":"gs://in/a.docx","outputs":[{"format":"pdf","options":{"quality":90}}]}"#;
        assert_eq!(base.id(Some(1)), read(defaults).unwrap().id(Some(1)));
        for other in [
            r#"{"source":"gs://in/a.docx","revision":"2"}"#,
            r#"{"source":"gs://in/b.docx"}"#,
            r#"{"source":"gs://in/a.docx","outputs":[{"format":"pdf","name":"{stem}-2.pdf"}]}"#,
            r#"{"source":"gs://in/a.docx","outputs":[{"format":"pdf","options":{"quality":50}}]}"#,
        ] {
            assert_ne!(base.id(Some(1)), read(other).unwrap().id(Some(1)), "{other}");
        }
        assert_ne!(base.id(Some(1)), base.id(Some(2)));
    }
}
