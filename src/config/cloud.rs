//! How Google is found: credentials and endpoints, for the worker and for every command that talks to Google.

use std::path::PathBuf;

use super::{Problems, Reader, Strings, parse, sealed};
use crate::google;
use crate::google::token::UNIVERSE_DOMAIN;

/// Base URLs of Google's APIs, without a slash at the end.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// Cloud Storage's JSON API.
    pub storage: String,
    /// Whether that is an emulator: then calls go without credentials where none are found.
    pub storage_is_emulator: bool,
    /// Pub/Sub's REST API.
    pub pubsub: String,
    /// Whether that is an emulator.
    pub pubsub_is_emulator: bool,
    /// IAM Credentials.
    pub iam_credentials: String,
    /// Cloud KMS.
    pub kms: String,
    /// The keys that push tokens are signed with.
    pub jwks: String,
}

impl Endpoints {
    /// The same in the universe of the credentials: what the configuration named stays, Google's own hosts follow. The
    /// key set does not: who signs ID tokens is not part of a credentials file.
    #[must_use]
    pub fn in_universe(self, domain: &str) -> Self {
        Self {
            storage: in_universe(&self.storage, google::storage::BASE_URL, domain),
            pubsub: in_universe(&self.pubsub, google::pubsub::BASE_URL, domain),
            iam_credentials: in_universe(&self.iam_credentials, google::iam::BASE_URL, domain),
            kms: in_universe(&self.kms, google::kms::BASE_URL, domain),
            ..self
        }
    }
}

/// A base URL in a universe: Google's own one follows, what an operator has named stays.
pub(crate) fn in_universe(url: &str, own: &str, domain: &str) -> String {
    if url == own {
        url.replace(UNIVERSE_DOMAIN, domain)
    } else {
        url.to_owned()
    }
}

/// What every command that talks to Google is told by its environment.
#[derive(Debug, Clone)]
pub struct CloudConfig {
    /// Where Google's APIs are.
    pub endpoints: Endpoints,
    /// How credentials are found.
    pub credentials: google::token::Settings,
    /// `GOOGLE_CLOUD_PROJECT`.
    pub project: Option<String>,
}

impl CloudConfig {
    /// Reads these variables alone.
    ///
    /// # Errors
    /// All the variables that are wrong.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        let mut reader = Reader::new(strings);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let storage = reader.optional("STORAGE_EMULATOR_HOST", parse::emulator_host);
        let pubsub = reader.optional("PUBSUB_EMULATOR_HOST", parse::emulator_host);
        let jwks = reader.or("OIDC_JWKS_URL", google::keys::URL.to_owned(), parse::base_url);
        let iam_credentials = reader.optional("IAM_CREDENTIALS_ENDPOINT", parse::base_url);
        let credentials = read_credentials(reader, iam_credentials.clone().flatten());
        let kms = sealed::kms_endpoint(reader);
        let (storage, pubsub, iam_credentials, credentials) = (storage?, pubsub?, iam_credentials?, credentials?);
        let endpoints = Endpoints {
            storage_is_emulator: storage.is_some(),
            storage: storage.unwrap_or_else(|| google::storage::BASE_URL.to_owned()),
            pubsub_is_emulator: pubsub.is_some(),
            pubsub: pubsub.unwrap_or_else(|| google::pubsub::BASE_URL.to_owned()),
            iam_credentials: iam_credentials.unwrap_or_else(|| google::iam::BASE_URL.to_owned()),
            kms: kms?,
            jwks: jwks?,
        };
        Some(Self {
            endpoints,
            credentials,
            project: reader.get("GOOGLE_CLOUD_PROJECT"),
        })
    }
}

/// How credentials are found. `iam_credentials` is what `IAM_CREDENTIALS_ENDPOINT` says.
pub(super) fn read_credentials(
    reader: &mut Reader<'_>,
    iam_credentials: Option<String>,
) -> Option<google::token::Settings> {
    let oauth_token = reader.optional("OAUTH_TOKEN_ENDPOINT", parse::base_url);
    let sts = reader.optional("STS_ENDPOINT", parse::base_url);
    let metadata_host = reader.optional("GCE_METADATA_HOST", parse::host);
    let quota_project = reader.optional("GOOGLE_CLOUD_QUOTA_PROJECT", parse::project);
    Some(google::token::Settings {
        credentials_file: reader.get("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
        well_known_file: well_known_file(reader),
        metadata_host: metadata_host?,
        oauth_token_endpoint: oauth_token?,
        iam_credentials_endpoint: iam_credentials,
        sts_endpoint: sts?,
        allow_executables: reader.get("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES").as_deref() == Some("1"),
        quota_project: quota_project?,
    })
}

/// Where gcloud keeps Application Default Credentials.
fn well_known_file(reader: &Reader<'_>) -> Option<PathBuf> {
    let directory = match reader.get("CLOUDSDK_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(reader.get("HOME")?).join(".config/gcloud"),
    };
    Some(directory.join("application_default_credentials.json"))
}
