//! A job: one generation of one object, what to make of it, and under which names.
//!
//! The job's identity is a hash of exactly these things, so that every delivery of the same work finds what an
//! earlier one left behind.

mod address;
mod format;
mod name;
mod options;
mod secret;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use address::ObjectAddress;
pub use format::Format;
pub use name::{NameTemplate, NameValues};
pub use options::{Metadata, OptionValue, Options, PaperSize};
pub use secret::SecretName;

use crate::error::{Failure, FailureCode};

/// The most that `userData` may take, in bytes of JSON.
const USER_DATA_LIMIT: usize = 8 * 1024;
/// The most outputs that one job may have.
const OUTPUTS_LIMIT: usize = 32;
/// The longest `revision`, in bytes.
const REVISION_LIMIT: usize = 1024;

/// A job as a message writes it: section 2 of the contract.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `gs://bucket/name`.
    pub source: String,
    /// The generation to read; without it the newest at the first look.
    #[serde(default, deserialize_with = "generation")]
    pub generation: Option<i64>,
    /// What to make; without it one PDF.
    #[serde(default)]
    pub outputs: Option<Vec<RequestedOutput>>,
    /// How the links are made.
    #[serde(default, rename = "signedUrl")]
    pub signed_url: SignedUrl,
    /// What opens the document.
    #[serde(default)]
    pub password: Option<Value>,
    /// Part of the job's identity.
    #[serde(default)]
    pub revision: Option<String>,
    /// Echoed in the result.
    #[serde(default, rename = "userData")]
    pub user_data: Option<Value>,
}

/// One output as a message asks for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestedOutput {
    /// `pdf`.
    pub format: String,
    /// A name template of its own; without it `OUTPUT_NAME`.
    #[serde(default)]
    pub name: Option<String>,
    /// Conversion options by name.
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// How a result's link is made.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedUrl {
    /// How long it lasts, as a duration such as `3600s`; without it `SIGNED_URL_TTL`.
    #[serde(default)]
    pub ttl: Option<String>,
    /// Whether a browser saves or shows it.
    #[serde(default)]
    pub disposition: Disposition,
}

/// The type of `Content-Disposition`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Saved under its name.
    #[default]
    Attachment,
    /// Shown in the browser.
    Inline,
}

impl Disposition {
    /// As the header writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attachment => "attachment",
            Self::Inline => "inline",
        }
    }
}

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Reads a job from a message's data.
    ///
    /// # Errors
    /// `message.invalid`, naming the field and what is wrong with it.
    pub fn from_json(data: &[u8]) -> Result<Self, Failure> {
        let mut deserializer = serde_json::Deserializer::from_slice(data);
        let request = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let at = if path == "." {
                String::new()
            } else {
                format!(" at {path:?}")
            };
            invalid(format!(
                "The message is not a job: {}{at}.",
                without_values(error.inner())
            ))
        })?;
        deserializer
            .end()
            .map_err(|error| invalid(format!("The message is not a job: {error}.")))?;
        Ok(request)
    }

    /// The source alone, for a report of what else is wrong.
    ///
    /// # Errors
    /// `message.invalid` when it is not `gs://bucket/name`.
    pub fn source(&self) -> Result<Source, Failure> {
        let (bucket, name) = self
            .source
            .strip_prefix("gs://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(bucket, name)| is_bucket_name(bucket) && is_object_name(name))
            .ok_or_else(|| {
                invalid(format!(
                    "The source {:?} is not an object's URL: write gs://BUCKET/OBJECT, with a name that Cloud Storage takes.",
                    self.source
                ))
            })?;
        Ok(Source {
            bucket: bucket.to_owned(),
            name: name.to_owned(),
            generation: self.generation,
        })
    }

    /// What a result echoes, also a result that says what else is wrong: nothing when it is over its limit.
    pub fn echoed_user_data(&self) -> Option<&Value> {
        self.user_data
            .as_ref()
            .filter(|data| data.to_string().len() <= USER_DATA_LIMIT)
    }

    /// An identity for a job that cannot be checked to its end: two that differ must not look like one.
    pub fn provisional_id(&self) -> JobId {
        let outputs: Vec<Value> = self
            .outputs
            .iter()
            .flatten()
            .map(|output| serde_json::json!([output.format, output.name, output.options]))
            .collect();
        JobId::hash(&serde_json::json!([
            "request",
            self.source,
            self.generation,
            outputs,
            self.revision
        ]))
    }

    /// Checks everything that can be checked without looking at the object.
    ///
    /// # Errors
    /// `message.invalid` or `option.invalid`.
    pub fn into_job(self, output_name: &NameTemplate) -> Result<Job, Failure> {
        let source = self.source()?;
        let password = match &self.password {
            None => None,
            Some(value) => Some(SecretName::read(value).ok_or_else(|| {
                Failure::new(
                    FailureCode::OptionInvalid,
                    format!("The job's field \"password\" takes {}.", SecretName::ALLOWED),
                )
                .with("option", "password")
            })?),
        };
        if self.echoed_user_data().is_none() && self.user_data.is_some() {
            return Err(invalid(format!("userData takes over {USER_DATA_LIMIT} bytes of JSON.")));
        }
        let requested = match self.outputs {
            None => vec![RequestedOutput {
                format: "pdf".to_owned(),
                name: None,
                options: Map::new(),
            }],
            Some(outputs) if outputs.is_empty() => {
                return Err(invalid(
                    "The job's list of outputs is empty: name one, or leave the field out for a PDF.",
                ));
            }
            Some(outputs) if outputs.len() > OUTPUTS_LIMIT => {
                return Err(invalid(format!(
                    "The job has {} outputs: {OUTPUTS_LIMIT} are allowed.",
                    outputs.len()
                )));
            }
            Some(outputs) => outputs,
        };
        if self
            .revision
            .as_ref()
            .is_some_and(|revision| revision.len() > REVISION_LIMIT)
        {
            return Err(invalid(format!("The job's revision is over {REVISION_LIMIT} bytes.")));
        }
        let mut outputs = Vec::with_capacity(requested.len());
        for output in requested {
            outputs.push(output.check(output_name)?);
        }
        let signed_url_ttl = match self.signed_url.ttl.as_deref() {
            None => None,
            Some(text) => {
                Some(crate::units::duration(text).map_err(|message| invalid(format!("signedUrl.ttl {message}.")))?)
            }
        };
        Ok(Job {
            source,
            outputs,
            signed_url_ttl,
            disposition: self.signed_url.disposition,
            revision: self.revision,
            user_data: self.user_data,
            password,
        })
    }
}

impl RequestedOutput {
    fn check(self, default_name: &NameTemplate) -> Result<Output, Failure> {
        let format = Format::parse(&self.format)?;
        let options = Options::parse(format, &self.options)?;
        let name = match self.name {
            None => default_name.clone(),
            Some(text) => NameTemplate::parse(&text)
                .map_err(|error| invalid(format!("The output name {text:?} is not a name template: {error}.")))?,
        };
        Ok(Output { format, name, options })
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

/// What serde says, less the values it quotes: somebody may have put a password where it does not belong.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let kinds = ["invalid type", "invalid value", "unknown variant"];
    match (
        kinds.iter().find(|kind| text.starts_with(**kind)),
        // The last one: the value before it may hold one too.
        text.rsplit_once(", expected "),
    ) {
        (Some(kind), Some((_, expected))) => format!("{kind}, expected {expected}"),
        _ => text,
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureCode::MessageInvalid, message)
}

/// A generation is a positive 64-bit number; Google writes such as strings, and CloudEvents samples as numbers.
fn generation<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    match value {
        None => Ok(None),
        Some(value) => parse_generation(&value)
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom(format!("generation {value} is not a positive whole number"))),
    }
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
