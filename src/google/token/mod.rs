//! Access tokens from whatever credentials are there: one file a kind, one cache for all.

mod cache;
mod impersonated;
mod metadata;
mod service_account;
mod user;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::OnceCell;

use super::http::Http;
use super::secret::Secret;
use super::signing::SigningKey;
use super::{Error, Kind};
use cache::Cache;

const DISCOVER: &str = "find credentials";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Where to look. Every value comes from the configuration; nothing here reads the environment.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `GOOGLE_APPLICATION_CREDENTIALS`: must exist when it is set.
    pub credentials_file: Option<PathBuf>,
    /// gcloud's `application_default_credentials.json`: used when it exists.
    pub well_known_file: Option<PathBuf>,
    /// `GCE_METADATA_HOST`: `host` or `host:port`. When it is set the server is taken to be there.
    pub metadata_host: Option<String>,
    /// `OAUTH_TOKEN_ENDPOINT`: instead of the `token_uri` of a key file and of Google's own.
    pub oauth_token_endpoint: Option<String>,
    /// `IAM_CREDENTIALS_ENDPOINT`: base URL, instead of the one in an impersonation URL.
    pub iam_credentials_endpoint: Option<String>,
}

/// An access token as it was answered, and for how long it is good.
pub(crate) struct Issued {
    pub(crate) token: Secret,
    pub(crate) lifetime: Duration,
}

/// A source of access tokens with its cache. Clones share the cache.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    source: Source,
    described: String,
    cache: Cache,
    email: OnceCell<String>,
    project: OnceCell<Option<String>>,
}

/// The kinds of credentials.
enum Source {
    Metadata(metadata::Metadata),
    ServiceAccount(service_account::ServiceAccount),
    User(user::User),
    Impersonated(Box<impersonated::Impersonated>),
}

impl Source {
    async fn issue(&self) -> Result<Issued, Error> {
        match self {
            Self::Metadata(source) => source.issue().await,
            Self::ServiceAccount(source) => source.issue().await,
            Self::User(source) => source.issue().await,
            Self::Impersonated(source) => source.issue().await,
        }
    }
}

impl Tokens {
    /// Finds credentials in Google's order: the file that is named, gcloud's file, the metadata server. `None` when
    /// there are none, which is right with an emulator and wrong without.
    ///
    /// # Errors
    /// When a file is there but cannot be used. The metadata server is probed only when no host is set.
    pub async fn discover(http: Http, settings: &Settings) -> Result<Option<Self>, Error> {
        if let Some(file) = &settings.credentials_file {
            return Self::from_file(&http, settings, file).map(Some);
        }
        if let Some(file) = settings.well_known_file.as_ref().filter(|file| file.exists()) {
            return Self::from_file(&http, settings, file).map(Some);
        }
        let source = metadata::Metadata::new(http, settings.metadata_host.as_deref());
        if settings.metadata_host.is_none() && !source.is_there().await {
            return Ok(None);
        }
        let described = format!("metadata server at {}", source.host());
        Ok(Some(Self::new(Source::Metadata(source), described)))
    }

    fn new(source: Source, described: String) -> Self {
        Self(Arc::new(Inner {
            source,
            described,
            cache: Cache::new(),
            email: OnceCell::new(),
            project: OnceCell::new(),
        }))
    }

    fn from_file(http: &Http, settings: &Settings, file: &Path) -> Result<Self, Error> {
        let shown = file.display().to_string();
        let text = std::fs::read(file).map_err(|error| {
            let message = format!("cannot be read ({error}); set GOOGLE_APPLICATION_CREDENTIALS to a credentials file");
            Error::new(Kind::Invalid, DISCOVER, shown.clone(), message)
        })?;
        let (source, kind) = source_from_json(http, settings, &text, &shown)?;
        Ok(Self::new(source, format!("{kind} in {shown}")))
    }

    /// An access token that is good for a while: cached, asked for once however many want it, and renewed in the
    /// background before it expires.
    ///
    /// # Errors
    /// When there is no token that is still good and the source gives none.
    pub async fn access_token(&self) -> Result<Secret, Error> {
        self.0.cache.get(|| self.0.source.issue(), self.renewal()).await
    }

    /// What a background renewal runs, independent of the request that happened to see the need.
    fn renewal(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let inner = Arc::clone(&self.0);
        async move { inner.cache.renew(inner.source.issue()).await }
    }

    /// Forgets this token because an API said 401 to it; a newer one stays.
    pub(crate) fn reject(&self, token: &Secret) {
        self.0.cache.reject(token);
    }

    /// The address of the account that calls are made as.
    ///
    /// # Errors
    /// When the metadata server does not say, and for a user's own credentials, which name nobody.
    pub async fn email(&self) -> Result<String, Error> {
        let email = self.0.email.get_or_try_init(|| async {
            match &self.0.source {
                Source::Metadata(source) => source.email().await,
                Source::ServiceAccount(source) => Ok(source.key.client_email.clone()),
                Source::Impersonated(source) => Ok(source.email.clone()),
                Source::User(_) => Err(Error::new(
                    Kind::Invalid,
                    "find our own account",
                    self.source(),
                    "credentials of a user name no service account; set SIGNER_SERVICE_ACCOUNT",
                )),
            }
        });
        email.await.cloned()
    }

    /// The private key, when the credentials hold one.
    pub fn local_key(&self) -> Option<&SigningKey> {
        match &self.0.source {
            Source::ServiceAccount(source) => Some(&source.key),
            _ => None,
        }
    }

    /// The project of the credentials, when they say one.
    ///
    /// # Errors
    /// When the metadata server does not answer.
    pub async fn project_id(&self) -> Result<Option<String>, Error> {
        let project = self.0.project.get_or_try_init(|| async {
            match &self.0.source {
                Source::Metadata(source) => source.project_id().await.map(Some),
                Source::ServiceAccount(source) => Ok(source.project_id.clone()),
                Source::User(source) => Ok(source.quota_project_id.clone()),
                Source::Impersonated(_) => Ok(None),
            }
        });
        project.await.cloned()
    }

    /// Which credentials these are, for a person.
    pub fn source(&self) -> &str {
        &self.0.described
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.0.described).finish()
    }
}

/// Reads a credentials file of any kind; an impersonation file holds another one inside.
fn source_from_json(
    http: &Http,
    settings: &Settings,
    text: &[u8],
    shown: &str,
) -> Result<(Source, &'static str), Error> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        kind: String,
    }
    let refused = |message: String| Error::new(Kind::Invalid, DISCOVER, shown, message);
    let Typed { kind } = serde_json::from_slice(text)
        .map_err(|_| refused("is no credentials file: it has to be a JSON object with a `type`".into()))?;
    match kind.as_str() {
        "service_account" => {
            let source = service_account::ServiceAccount::new(http, settings, text, shown)?;
            Ok((Source::ServiceAccount(source), "service_account"))
        }
        "authorized_user" => Ok((
            Source::User(user::User::new(http, settings, text, shown)?),
            "authorized_user",
        )),
        "impersonated_service_account" => {
            let source = impersonated::Impersonated::new(http, settings, text, shown)?;
            Ok((Source::Impersonated(Box::new(source)), "impersonated_service_account"))
        }
        other => Err(refused(format!(
            "holds credentials of type {}, which Platen cannot use; use one of service_account, authorized_user, \
             impersonated_service_account or the metadata server",
            other.chars().filter(|c| !c.is_control()).take(40).collect::<String>(),
        ))),
    }
}

/// Reads the fields of one kind, naming the file and never its content.
fn fields<'a, T: Deserialize<'a>>(text: &'a [u8], shown: &str) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| {
        // Of serde's messages only those about missing fields are free of the file's values.
        let why = match error.to_string() {
            message if message.starts_with("missing field") => message,
            _ => format!(
                "a field is not as expected at line {} column {}",
                error.line(),
                error.column()
            ),
        };
        Error::new(
            Kind::Invalid,
            DISCOVER,
            shown,
            format!("is not a complete credentials file: {why}"),
        )
    })
}

/// The token endpoint to call: the one that is named, or the one that was given in its place. A base URL without a path
/// gets the path of the one it replaces.
fn token_endpoint(settings: &Settings, named: &str) -> String {
    let Some(given) = &settings.oauth_token_endpoint else {
        return named.to_owned();
    };
    let path = |url: &str| {
        url.split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()))
    };
    match path(given).as_deref() {
        None | Some("/") => format!(
            "{}{}",
            given.trim_end_matches('/'),
            path(named).unwrap_or_else(|| "/token".into())
        ),
        Some(_) => given.clone(),
    }
}

/// What the OAuth token endpoint and the metadata server answer.
#[derive(Deserialize)]
pub(crate) struct TokenAnswer {
    access_token: Secret,
    expires_in: u64,
}

impl From<TokenAnswer> for Issued {
    fn from(answer: TokenAnswer) -> Self {
        Self {
            token: answer.access_token,
            lifetime: Duration::from_secs(answer.expires_in),
        }
    }
}
