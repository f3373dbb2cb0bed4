//! A job as a message writes it, and how that is checked: section 2 of the contract.

use std::fmt;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::options::options_by_format;
use super::{
    Format, Job, JobId, NameTemplate, Options, Output, SecretName, Source, is_bucket_name, is_object_name,
    parse_generation,
};
use crate::error::{Failure, FailureCode};

/// The most that `userData` may take, in bytes of JSON.
const USER_DATA_LIMIT: usize = 8 * 1024;
/// The most outputs that one job may have.
const OUTPUTS_LIMIT: usize = 32;
/// The longest `revision`, in bytes.
const REVISION_LIMIT: usize = 1024;

/// A job: one object of Cloud Storage, and what to make of it.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Platen job")]
pub struct Request {
    /// The object: `gs://BUCKET/OBJECT`.
    #[schemars(regex(pattern = r"^gs://[^/]+/[^\r\n]+$"))]
    pub source: String,
    /// The generation to read; without it the newest at the first look.
    #[serde(default, deserialize_with = "generation")]
    #[schemars(schema_with = "generation_schema")]
    pub generation: Option<i64>,
    /// What to make; without it one PDF. Each needs a name of its own.
    #[serde(default)]
    #[schemars(length(min = 1, max = OUTPUTS_LIMIT))]
    pub outputs: Option<Vec<RequestedOutput>>,
    /// How the links are made.
    #[serde(default, rename = "signedUrl")]
    #[schemars(schema_with = "signed_url_schema")]
    pub signed_url: SignedUrl,
    /// What opens the document: the name of a password in the worker's configuration.
    #[serde(default)]
    #[schemars(schema_with = "password_schema")]
    pub password: Option<Value>,
    /// Part of the job's identity: another one converts a done job again. At most 1,024 bytes.
    #[serde(default)]
    #[schemars(length(max = REVISION_LIMIT))]
    pub revision: Option<String>,
    /// Any JSON, echoed in the result. At most 8 KiB.
    #[serde(default, rename = "userData")]
    pub user_data: Option<Value>,
}

/// One output.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Output", transform = options_by_format)]
pub struct RequestedOutput {
    /// What it is, by its file extension.
    #[schemars(with = "Format")]
    pub format: String,
    /// A template for its name, such as `{dir}{stem}-{generation}.{ext}`; without it the worker's `OUTPUT_NAME`. There are
    /// `{bucket} {dir} {stem} {name} {generation} {ext} {jobId}`.
    #[serde(default)]
    pub name: Option<String>,
    /// Conversion options by name. Which there are depends on the format.
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// How a result's link is made.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedUrl {
    /// How long it lasts, as a duration such as `3600s`; without it the worker's `SIGNED_URL_TTL`.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]*)?\s*(ms|s|m|h|d)\s*$"))]
    pub ttl: Option<String>,
    /// Whether a browser saves or shows it.
    #[serde(default)]
    pub disposition: Disposition,
}

/// The type of `Content-Disposition`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
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
        self.user_data.as_ref().filter(|data| may_echo(data))
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

/// Whether this is small enough for a job's own data.
pub fn may_echo(user_data: &Value) -> bool {
    user_data.to_string().len() <= USER_DATA_LIMIT
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

fn generation_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({
        "type": ["string", "integer", "null"],
        "pattern": "^0*[1-9][0-9]*$",
        "minimum": 1,
    })
}

/// The derived one would have the field's default written out, with all that is absent as null.
fn signed_url_schema(generator: &mut schemars::SchemaGenerator) -> Schema {
    generator.subschema_for::<SignedUrl>()
}

fn password_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({"anyOf": [SecretName::schema(), {"type": "null"}]})
}
