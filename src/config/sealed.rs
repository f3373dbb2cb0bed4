//! The sealed configuration object, as far as configuration goes: where it is, what it is read with, and how the
//! variables in it are laid under the process's own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Config, Problem, Problems, Reader, Strings, parse};
use crate::google::secret::Secret;
use crate::google::{self, token};
use crate::job::ObjectAddress;
use crate::units::duration;

/// Every variable that `platen serve` reads.
pub(super) const VARIABLES: [&str; 41] = [
    "PORT",
    "OUTPUT_BUCKET",
    "OUTPUT_NAME",
    "RESULT_TOPIC",
    "PUSH_AUTH",
    "PUSH_AUDIENCE",
    "PUSH_SERVICE_ACCOUNT",
    "SIGNER_SERVICE_ACCOUNT",
    "SIGNED_URL_TTL",
    "INPUT_BUCKETS",
    "INPUT_INCLUDE",
    "INPUT_EXCLUDE",
    "MAX_INPUT_SIZE",
    "MAX_OUTPUT_SIZE",
    "MAX_PAGES",
    "CONVERT_TIMEOUT",
    "CONVERT_MEMORY",
    "FONTS",
    "DOCUMENT_LOCALE",
    "CONVERT_CONCURRENCY",
    "ACK_DEADLINE",
    "MAX_DELIVERY_ATTEMPTS",
    "SANDBOX",
    "METRICS_PORT",
    "LOG_FORMAT",
    "RUST_LOG",
    "CONFIG_OBJECT",
    "CONFIG_KMS_KEY",
    "CONFIG_RELOAD",
    "STORAGE_EMULATOR_HOST",
    "PUBSUB_EMULATOR_HOST",
    "GCE_METADATA_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
    "IAM_CREDENTIALS_ENDPOINT",
    "STS_ENDPOINT",
    "KMS_ENDPOINT",
    "OAUTH_TOKEN_ENDPOINT",
    "OIDC_JWKS_URL",
];

/// What the object itself is found and read with: in the object it would come too late.
const READ_WITH: [&str; 10] = [
    "CONFIG_OBJECT",
    "CONFIG_KMS_KEY",
    "STORAGE_EMULATOR_HOST",
    "KMS_ENDPOINT",
    "GCE_METADATA_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
    "OAUTH_TOKEN_ENDPOINT",
    "STS_ENDPOINT",
];

/// What a parser is given in place of a sealed value, to hear from it what is allowed without showing what is there.
const STAND_IN: &str = "…";

/// The configuration object of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// `CONFIG_OBJECT`.
    pub object: ObjectAddress,
    /// `CONFIG_KMS_KEY`: `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
    pub key: String,
    /// `CONFIG_RELOAD`.
    pub reload: Duration,
}

/// What it takes to reach Cloud Storage and Cloud KMS.
#[derive(Debug, Clone)]
pub struct Access {
    /// Cloud Storage's base URL.
    pub storage: String,
    /// Whether that is an emulator, which is called without credentials where none are found.
    pub storage_is_emulator: bool,
    /// Cloud KMS's base URL.
    pub kms: String,
    /// How credentials are found.
    pub credentials: token::Settings,
}

impl Access {
    /// Reads the variables that say how to reach Google, for commands that need no more.
    ///
    /// # Errors
    /// All of them that are wrong.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        let mut reader = Reader::new(strings);
        let access = Self::read(&mut reader);
        reader.finish(access)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let iam_credentials = reader.optional("IAM_CREDENTIALS_ENDPOINT", parse::base_url);
        let storage = reader.optional("STORAGE_EMULATOR_HOST", parse::emulator_host);
        let kms = kms_endpoint(reader);
        let credentials = super::cloud::read_credentials(reader, iam_credentials.flatten());
        let storage = storage?;
        Some(Self {
            storage_is_emulator: storage.is_some(),
            storage: storage.unwrap_or_else(|| google::storage::BASE_URL.to_owned()),
            kms: kms?,
            credentials: credentials?,
        })
    }
}

pub(super) fn kms_endpoint(reader: &mut Reader<'_>) -> Option<String> {
    reader.or("KMS_ENDPOINT", google::kms::BASE_URL.to_owned(), parse::base_url)
}

/// `Some(None)` without a configuration object, `None` when something about it is wrong.
#[expect(clippy::option_option, reason = "as Reader::optional")]
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Option<Sealed>> {
    let object = reader.optional("CONFIG_OBJECT", str::parse);
    let key = reader.optional("CONFIG_KMS_KEY", parse::kms_key);
    let reload = reader.or("CONFIG_RELOAD", Duration::from_mins(15), |text| match duration(text)? {
        interval if interval < Duration::from_secs(1) => Err(format!("is '{text}': at least 1s")),
        interval => Ok(interval),
    });
    match (object?, key?, reload?) {
        (Some(object), Some(key), reload) => Some(Some(Sealed { object, key, reload })),
        (None, None, _) => Some(None),
        (Some(_), None, _) => {
            reader.problem("CONFIG_KMS_KEY", "is required with CONFIG_OBJECT: it names the key that the object is sealed with, projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY");
            None
        }
        (None, Some(_), _) => {
            reader.problem("CONFIG_OBJECT", "is required with CONFIG_KMS_KEY: it names the object that the key opens, gs://BUCKET/OBJECT; or unset both");
            None
        }
    }
}

/// Where the configuration object is and what it is read with, before the rest of the configuration can be known.
///
/// # Errors
/// The variables about it that are wrong, and all others that the process sets and that are wrong. One that is missing
/// may be in the object.
pub fn sealed(strings: &dyn Strings) -> Result<Option<(Sealed, Access)>, Problems> {
    let mut reader = Reader::new(strings);
    let Some(sealed) = read(&mut reader) else {
        let mut problems = problems_of_what_is_set(strings);
        // Of two that belong together one may be missing.
        problems.extend(
            reader
                .problems
                .into_iter()
                .filter(|problem| !is_set(strings, problem.variable)),
        );
        return Err(Problems(problems));
    };
    match (sealed, Access::read(&mut reader)) {
        (None, _) => Ok(None),
        (Some(sealed), Some(access)) if reader.problems.is_empty() => Ok(Some((sealed, access))),
        _ => Err(Problems(problems_of_what_is_set(strings))),
    }
}

/// What is wrong with the variables that are set: those that are missing may be elsewhere.
pub fn problems_of_what_is_set(strings: &dyn Strings) -> Vec<Problem> {
    let Err(Problems(mut problems)) = Config::load(strings) else {
        return Vec::new();
    };
    problems.retain(|problem| is_set(strings, problem.variable));
    problems
}

fn is_set(strings: &dyn Strings, name: &str) -> bool {
    strings.get(name).is_some_and(|value| !value.trim().is_empty())
}

/// The process's variables, and under them those of the configuration object.
pub struct Layered<'a> {
    process: &'a dyn Strings,
    sealed: &'a BTreeMap<String, Secret>,
}

impl<'a> Layered<'a> {
    /// The variables of the object, where the process does not set them to something.
    pub fn new(process: &'a dyn Strings, sealed: &'a BTreeMap<String, Secret>) -> Self {
        Self { process, sealed }
    }

    fn own(&self, name: &str) -> Option<String> {
        self.process.get(name).filter(|value| !value.trim().is_empty())
    }

    /// What the object holds and cannot: names that no variable has, and variables that it is read with itself.
    pub fn misplaced(&self) -> Vec<Problem> {
        let problem = |name: &String| {
            let message = if !VARIABLES.contains(&name.as_str()) {
                format!("holds the variable {name:?}, which platen serve does not have")
            } else if READ_WITH.contains(&name.as_str()) && self.is_sealed(name) {
                format!("holds the variable {name}, which the object itself is read with: set it for the process")
            } else {
                return None;
            };
            Some(Problem {
                variable: "CONFIG_OBJECT",
                message,
            })
        };
        self.sealed.keys().filter_map(problem).collect()
    }
}

impl Strings for Layered<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.own(name)
            .or_else(|| self.sealed.get(name).map(|value| value.expose().to_owned()))
    }

    fn is_sealed(&self, name: &str) -> bool {
        self.sealed.contains_key(name) && self.own(name).is_none()
    }
}

/// What a parser says of a value, or where that is sealed, what it says of something else.
pub(super) fn message<T>(is_sealed: bool, message: String, parse: impl Fn(&str) -> Result<T, String>) -> String {
    match (is_sealed, parse(STAND_IN)) {
        (false, _) => message,
        (true, Err(allowed)) => format!("{allowed} ('{STAND_IN}' stands for its value, which is sealed)"),
        (true, Ok(_)) => "has a value that is not allowed, which is not shown because it is sealed".to_owned(),
    }
}
