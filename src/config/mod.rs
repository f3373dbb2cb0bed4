//! The worker's configuration: read whole, checked whole, and only then used.
//!
//! Everything comes through [`Strings`], so that a test passes a map, and every problem is reported at once.

mod backfill;
mod cloud;
mod fonts;
pub(crate) mod parse;
mod sealed;
mod sign;
mod time;

use std::fmt;
use std::time::Duration;

pub use backfill::{BackfillConfig, globs};
pub(crate) use cloud::in_universe;
pub use cloud::{CloudConfig, Endpoints};
use globset::GlobSet;
pub use sign::SignConfig;
pub use time::{CHECK_TIME, reserve};

use crate::google;
use crate::job::NameTemplate;
use crate::sandbox;
use crate::units::{duration, size};

pub use crate::google::kms::is_key_name as is_kms_key;
pub use fonts::Fonts;
pub use sealed::{Access, Layered, Sealed, problems_of_what_is_set, sealed};

/// Where settings come from: the environment, or a map in a test.
pub trait Strings {
    /// The value of a variable; none when it is not set.
    fn get(&self, name: &str) -> Option<String>;

    /// Whether the value must not be shown, not even when it is wrong.
    fn is_sealed(&self, _name: &str) -> bool {
        false
    }
}

/// The process's environment.
#[derive(Debug, Clone, Copy)]
pub struct Environment;

impl Strings for Environment {
    /// What is not UTF-8 comes with replacement characters, which no variable takes: it must not count as unset.
    fn get(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }
}

impl Strings for std::collections::HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        Self::get(self, name).cloned()
    }
}

/// How a push token is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushAuth {
    /// The worker checks everything, the signature included.
    Oidc,
    /// The platform has checked the signature and removed it; the worker checks every claim all the same.
    CloudRunIam,
}

/// The topic results go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// `projects/P/topics/T`.
    Full(String),
    /// `T`, in the worker's own project.
    Short(String),
}

/// What one conversion may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the source object.
    pub input_size: u64,
    /// Bytes of one output.
    pub output_size: u64,
    /// Pages of one output.
    pub pages: u32,
    /// Wall time.
    pub time: Duration,
    /// Bytes of memory beyond what the conversion shares with the warm engine.
    pub memory: u64,
}

/// What the engine and `platen convert` need, without any cloud.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// `MAX_INPUT_SIZE`, `MAX_OUTPUT_SIZE`, `MAX_PAGES`, `CONVERT_TIMEOUT`, `CONVERT_MEMORY`.
    pub limits: Limits,
    /// `DOCUMENT_LOCALE`, a POSIX name.
    pub locale: String,
    /// `CONVERT_CONCURRENCY`: conversions at once.
    pub concurrency: usize,
    /// `SANDBOX`.
    pub sandbox: sandbox::Mode,
    /// `FONTS`.
    pub fonts: Option<Fonts>,
}

/// Everything `platen serve` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `PORT`.
    pub port: u16,
    /// `METRICS_PORT`; none: no metrics are served.
    pub metrics_port: Option<u16>,
    /// `OUTPUT_BUCKET`.
    pub output_bucket: String,
    /// `OUTPUT_NAME`.
    pub output_name: NameTemplate,
    /// `RESULT_TOPIC`.
    pub result_topic: Topic,
    /// `PUSH_AUTH`.
    pub push_auth: PushAuth,
    /// `PUSH_AUDIENCE`.
    pub push_audiences: Vec<String>,
    /// `PUSH_SERVICE_ACCOUNT`.
    pub push_service_accounts: Vec<String>,
    /// `SIGNER_SERVICE_ACCOUNT`.
    pub signer_service_account: Option<String>,
    /// `SIGNED_URL_TTL`.
    pub signed_url_ttl: Duration,
    /// `INPUT_BUCKETS`.
    pub input_buckets: Vec<String>,
    /// `INPUT_INCLUDE`; none: all that the engine reads.
    pub input_include: Option<GlobSet>,
    /// `INPUT_EXCLUDE`.
    pub input_exclude: GlobSet,
    /// `ACK_DEADLINE`.
    pub ack_deadline: Duration,
    /// `MAX_DELIVERY_ATTEMPTS`; none: what the subscription says.
    pub max_delivery_attempts: Option<u32>,
    /// The engine's part.
    pub engine: EngineConfig,
    /// Where Google's APIs are.
    pub endpoints: Endpoints,
    /// How credentials are found.
    pub credentials: google::token::Settings,
    /// `GOOGLE_CLOUD_PROJECT`.
    pub project: Option<String>,
    /// `CONFIG_OBJECT`, `CONFIG_KMS_KEY`, `CONFIG_RELOAD`.
    pub sealed: Option<Sealed>,
}

/// One variable that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Every variable that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the configuration has {} problem{}:",
            self.0.len(),
            if self.0.len() == 1 { "" } else { "s" }
        )?;
        for problem in &self.0 {
            write!(f, "\n  {} {}", problem.variable, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Bytes. Plain documents of each format convert with 16 MiB, any real picture takes several times as much.
const LEAST_MEMORY: u64 = 64 << 20;

impl EngineConfig {
    /// Reads the engine's variables alone, for commands without a cloud.
    ///
    /// # Errors
    /// All the variables that are wrong.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        let mut reader = Reader::new(strings);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let input_size = reader.or("MAX_INPUT_SIZE", 100 << 20, size);
        let output_size = reader.or("MAX_OUTPUT_SIZE", 500 << 20, size);
        let pages = reader.or("MAX_PAGES", 5000, |text| parse::number(text, &(1..=u32::MAX)));
        let time = reader.or("CONVERT_TIMEOUT", Duration::from_secs(120), duration);
        let memory = reader.or("CONVERT_MEMORY", 1 << 30, |text| match size(text)? {
            bytes if bytes < LEAST_MEMORY => Err(format!(
                "is too little for most documents: at least {} MiB",
                LEAST_MEMORY >> 20
            )),
            bytes => Ok(bytes),
        });
        let locale = reader.or("DOCUMENT_LOCALE", "C.UTF-8".to_owned(), parse::locale);
        let concurrency = reader.or("CONVERT_CONCURRENCY", cpus, |text| parse::number(text, &(1..=1000)));
        let sandbox = reader.or("SANDBOX", sandbox::Mode::Required, |text| match text {
            "required" => Ok(sandbox::Mode::Required),
            "best-effort" => Ok(sandbox::Mode::BestEffort),
            _ => Err("is neither 'required' nor 'best-effort'".to_owned()),
        });
        let fonts = reader.optional("FONTS", fonts::fonts);
        Some(Self {
            limits: Limits {
                input_size: input_size?,
                output_size: output_size?,
                pages: pages?,
                time: time?,
                memory: memory?,
            },
            locale: locale?,
            concurrency: concurrency?,
            sandbox: sandbox?,
            fonts: fonts?,
        })
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All the variables that are wrong.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        let mut reader = Reader::new(strings);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let port = reader.or("PORT", 8080, |text| parse::number(text, &(1..=u16::MAX)));
        let metrics_port = reader.optional("METRICS_PORT", |text| parse::number(text, &(1..=u16::MAX)));
        if port.is_some() && metrics_port.flatten() == port {
            reader.problem("METRICS_PORT", "is PORT too: metrics have a port of their own");
        }
        let output_bucket = reader.required("OUTPUT_BUCKET", parse::bucket);
        let output_name = reader.or("OUTPUT_NAME", NameTemplate::default(), |text| {
            NameTemplate::parse(text).map_err(|error| format!("is not a name template: {error}"))
        });
        let result_topic = reader.required("RESULT_TOPIC", parse::topic);
        let push_auth = reader.required("PUSH_AUTH", |text| match text {
            "oidc" => Ok(PushAuth::Oidc),
            "cloud-run-iam" => Ok(PushAuth::CloudRunIam),
            _ => Err("is neither 'oidc' (the worker verifies the token) nor 'cloud-run-iam' (a private Cloud Run service: the platform has verified it)".to_owned()),
        });
        let push_audiences = reader.required("PUSH_AUDIENCE", parse::list);
        let push_service_accounts = reader.required("PUSH_SERVICE_ACCOUNT", parse::emails);
        let signer_service_account = reader.optional("SIGNER_SERVICE_ACCOUNT", parse::email);
        let signed_url_ttl = reader.or("SIGNED_URL_TTL", Duration::from_secs(3600), parse::signed_url_ttl);
        let input_buckets = reader.required("INPUT_BUCKETS", parse::buckets);
        let input_include = reader.optional("INPUT_INCLUDE", parse::globs);
        let input_exclude = reader.or("INPUT_EXCLUDE", GlobSet::empty(), parse::globs);
        let ack_deadline = reader.or("ACK_DEADLINE", Duration::from_secs(600), parse::ack_deadline);
        // Google's range.
        let max_delivery_attempts = reader.optional("MAX_DELIVERY_ATTEMPTS", |text| parse::number(text, &(5..=100)));
        let engine = EngineConfig::read(reader);
        if let (Some(engine), Some(ack_deadline)) = (&engine, ack_deadline) {
            time::check(reader, engine.limits.time, ack_deadline);
        }
        if let (Some(Some(_)), Some(ttl)) = (&signer_service_account, signed_url_ttl)
            && ttl > google::iam::KEYS_HOLD
        {
            reader.problem("SIGNED_URL_TTL", "is over 12h, and SIGNER_SERVICE_ACCOUNT signs through signBlob, whose keys Google may rotate after that: lower it, or sign with a key file");
        }
        let cloud = CloudConfig::read(reader);
        let sealed = sealed::read(reader);
        let CloudConfig {
            endpoints,
            credentials,
            project,
        } = cloud?;
        Some(Self {
            port: port?,
            metrics_port: metrics_port?,
            output_bucket: output_bucket?,
            output_name: output_name?,
            result_topic: result_topic?,
            push_auth: push_auth?,
            push_audiences: push_audiences?,
            push_service_accounts: push_service_accounts?,
            signer_service_account: signer_service_account?,
            signed_url_ttl: signed_url_ttl?,
            input_buckets: input_buckets?,
            input_include: input_include?,
            input_exclude: input_exclude?,
            ack_deadline: ack_deadline?,
            max_delivery_attempts: max_delivery_attempts?,
            engine: engine?,
            endpoints,
            credentials,
            project,
            sealed: sealed?,
        })
    }
}

/// Collects problems while reading. A value that is set but empty counts as unset.
struct Reader<'a> {
    strings: &'a dyn Strings,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(strings: &'a dyn Strings) -> Self {
        Self {
            strings,
            problems: Vec::new(),
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.strings
            .get(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn problem(&mut self, variable: &'static str, message: impl Into<String>) {
        self.problems.push(Problem {
            variable,
            message: message.into(),
        });
    }

    /// `Some(None)` when it is not set, `None` when it is wrong.
    #[expect(
        clippy::option_option,
        reason = "not set and wrong are two things; the second is already recorded"
    )]
    fn optional<T>(&mut self, variable: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
        debug_assert!(
            sealed::VARIABLES.contains(&variable),
            "{variable} is not among VARIABLES"
        );
        match self.get(variable) {
            None => Some(None),
            Some(text) if text.contains(char::REPLACEMENT_CHARACTER) => {
                self.problem(variable, "is not UTF-8");
                None
            }
            Some(text) => match parse(&text) {
                Ok(value) => Some(Some(value)),
                Err(message) => {
                    let message = sealed::message(self.strings.is_sealed(variable), message, parse);
                    self.problem(variable, message);
                    None
                }
            },
        }
    }

    fn or<T>(&mut self, variable: &'static str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.optional(variable, parse).map(|value| value.unwrap_or(default))
    }

    fn required<T>(&mut self, variable: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.optional(variable, parse)?;
        if value.is_none() {
            self.problem(variable, "is required and not set");
        }
        value
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems(self.problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn good() -> HashMap<String, String> {
        [
            ("OUTPUT_BUCKET", "out"),
            ("RESULT_TOPIC", "results"),
            ("PUSH_AUTH", "oidc"),
            ("PUSH_AUDIENCE", "https://w.example, https://v.example"),
            ("PUSH_SERVICE_ACCOUNT", "push@p.iam.gserviceaccount.com"),
            ("INPUT_BUCKETS", "in"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn required_variables_suffice_and_defaults_are_the_contracts() {
        let config = Config::load(&good()).unwrap();
        assert_eq!(config.port, 8080);
        assert_eq!(config.push_audiences, ["https://w.example", "https://v.example"]);
        assert_eq!(config.signed_url_ttl, Duration::from_secs(3600));
        assert_eq!(config.engine.limits.input_size, 100 * 1024 * 1024);
        assert_eq!(config.engine.limits.pages, 5000);
        assert_eq!(config.engine.locale, "C.UTF-8");
        assert_eq!(config.result_topic, Topic::Short("results".to_owned()));
        assert_eq!(config.endpoints.storage, "https://storage.googleapis.com");
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let mut strings = good();
        strings.remove("OUTPUT_BUCKET");
        for (name, value) in [
            ("PORT", "eighty"),
            ("PUSH_AUTH", "none"),
            ("SIGNED_URL_TTL", "8d"),
            ("CONVERT_TIMEOUT", "120"),
            ("MAX_INPUT_SIZE", "100MB"),
            ("CONVERT_MEMORY", "63MiB"),
            ("ACK_DEADLINE", "5s"),
            ("FONTS", "s3://fonts"),
        ] {
            strings.insert(name.to_owned(), value.to_owned());
        }
        let Problems(problems) = Config::load(&strings).unwrap_err();
        let mut names: Vec<_> = problems.iter().map(|problem| problem.variable).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "ACK_DEADLINE",
                "CONVERT_MEMORY",
                "CONVERT_TIMEOUT",
                "FONTS",
                "MAX_INPUT_SIZE",
                "OUTPUT_BUCKET",
                "PORT",
                "PUSH_AUTH",
                "SIGNED_URL_TTL"
            ]
        );
    }

    #[test]
    fn empty_is_unset() {
        let mut strings = good();
        strings.insert("PORT".to_owned(), String::new());
        strings.insert("RESULT_TOPIC".to_owned(), " ".to_owned());
        let Problems(problems) = Config::load(&strings).unwrap_err();
        assert_eq!(
            problems,
            [Problem {
                variable: "RESULT_TOPIC",
                message: "is required and not set".to_owned()
            }]
        );
    }

    #[test]
    fn what_contradicts_is_named_beside_what_is_wrong() {
        let mut strings = good();
        for (name, value) in [
            ("PORT", "no"),
            ("ACK_DEADLINE", "130s"),
            ("SIGNED_URL_TTL", "13h"),
            ("SIGNER_SERVICE_ACCOUNT", "s@p.iam.gserviceaccount.com"),
            ("IAM_CREDENTIALS_ENDPOINT", "nope"),
            ("INPUT_EXCLUDE", "\u{fffd}"),
            ("GCE_METADATA_HOST", "not a host"),
            ("KMS_ENDPOINT", "kms"),
            ("CONFIG_KMS_KEY", "k"),
        ] {
            strings.insert(name.to_owned(), value.to_owned());
        }
        let Problems(problems) = Config::load(&strings).unwrap_err();
        let mut names: Vec<_> = problems.iter().map(|problem| problem.variable).collect();
        names.sort_unstable();
        let expected = [
            "CONFIG_KMS_KEY",
            "CONVERT_TIMEOUT",
            "GCE_METADATA_HOST",
            "IAM_CREDENTIALS_ENDPOINT",
            "INPUT_EXCLUDE",
            "KMS_ENDPOINT",
            "PORT",
            "SIGNED_URL_TTL",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_conversion_must_fit_the_ack_deadline() {
        let mut strings = good();
        strings.insert("ACK_DEADLINE".to_owned(), "60s".to_owned());
        let Problems(problems) = Config::load(&strings).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].variable, "CONVERT_TIMEOUT");
        assert!(problems[0].message.contains("43s at most"), "{problems:?}");
        strings.insert("CONVERT_TIMEOUT".to_owned(), "43s".to_owned());
        Config::load(&strings).unwrap();
        strings.insert("CONVERT_TIMEOUT".to_owned(), "43001ms".to_owned());
        Config::load(&strings).unwrap_err();
    }
}
