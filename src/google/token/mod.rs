//! Application Default Credentials: access tokens and ID tokens from whatever is there. One file a kind, one cache for
//! all.
//!
//! | kind | access token | ID token |
//! |---|---|---|
//! | [`metadata`] | the machine's account | the same |
//! | [`service_account`] | a JWT signed here is exchanged; in another universe it is the token | the same way |
//! | [`user`] | a refresh token is exchanged | for the OAuth client alone: impersonate |
//! | [`impersonated`] | `generateAccessToken` with other credentials | `generateIdToken` |
//! | [`external`] | STS, with a token of somebody else's | impersonate |

mod cache;
mod external;
mod file;
mod identity;
mod impersonated;
mod metadata;
mod service_account;
mod user;

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::OnceCell;

use super::http::Http;
use super::secret::Secret;
use super::signing::SigningKey;
use super::{Error, Kind};
use cache::Cache;
use impersonated::Impersonated;

const DISCOVER: &str = "find credentials";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Where Google itself is; everywhere else has a universe domain of its own.
/// Source: google.aip.dev/auth/4115 and the `universe_domain` of credentials files.
pub const UNIVERSE_DOMAIN: &str = "googleapis.com";

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
    /// `STS_ENDPOINT`: base URL, instead of the one in a federation file.
    pub sts_endpoint: Option<String>,
    /// `GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES` is 1: a federation file may name a program to run.
    pub allow_executables: bool,
    /// `GOOGLE_CLOUD_QUOTA_PROJECT`: who pays for calls, instead of the credentials file's `quota_project_id`.
    pub quota_project: Option<String>,
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
    quota_project: Option<String>,
    universe_domain: OnceCell<String>,
    http: Http,
    iam_credentials_endpoint: Option<String>,
}

/// The kinds of credentials.
enum Source {
    Metadata(metadata::Metadata),
    ServiceAccount(service_account::ServiceAccount),
    User(user::User),
    Impersonated(Box<Impersonated>),
    Federated(Box<external::Federated>),
}

/// Credentials may hold credentials, so what they give is boxed: a future cannot hold itself.
type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Issued, Error>> + Send + 'a>>;

impl Source {
    fn issue(&self) -> Issuing<'_> {
        match self {
            Self::Metadata(source) => Box::pin(source.issue()),
            Self::ServiceAccount(source) => Box::pin(source.issue()),
            Self::User(source) => Box::pin(source.issue()),
            Self::Impersonated(source) => Box::pin(source.issue()),
            Self::Federated(source) => Box::pin(source.issue()),
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
        let source = metadata::Metadata::new(http.clone(), settings.metadata_host.as_deref());
        if settings.metadata_host.is_none() && !source.is_there().await {
            return Ok(None);
        }
        let described = format!("metadata server at {}", source.host());
        let about = About {
            described,
            quota_project: None,
            universe_domain: None,
        };
        Ok(Some(Self::new(&http, settings, Source::Metadata(source), about)))
    }

    fn new(http: &Http, settings: &Settings, source: Source, about: About) -> Self {
        Self(Arc::new(Inner {
            source,
            described: about.described,
            cache: Cache::new(),
            email: OnceCell::new(),
            project: OnceCell::new(),
            quota_project: settings.quota_project.clone().or(about.quota_project),
            universe_domain: OnceCell::new_with(about.universe_domain),
            http: http.clone(),
            iam_credentials_endpoint: settings.iam_credentials_endpoint.clone(),
        }))
    }

    fn from_file(http: &Http, settings: &Settings, file: &Path) -> Result<Self, Error> {
        let shown = file.display().to_string();
        let text = std::fs::read(file).map_err(|error| {
            let message = format!("cannot be read ({error}); set GOOGLE_APPLICATION_CREDENTIALS to a credentials file");
            Error::new(Kind::Invalid, DISCOVER, shown.clone(), message)
        })?;
        file::read(http, settings, &text, &shown)
    }

    /// The tokens of another service account, which these credentials may act as.
    ///
    /// # Errors
    /// `Invalid` for what is no account's address; when the metadata server does not say in which universe it is.
    pub async fn impersonate(&self, email: &str) -> Result<Self, Error> {
        let (inner, universe) = (&self.0, self.universe_domain().await?);
        let base = self.iam_credentials().await?;
        let source = Impersonated::new(&inner.http, self.clone(), &base, email, Vec::new())?;
        let settings = Settings {
            iam_credentials_endpoint: inner.iam_credentials_endpoint.clone(),
            ..Settings::default()
        };
        let about = About {
            described: format!("{email}, impersonated with {}", inner.described),
            quota_project: inner.quota_project.clone(),
            universe_domain: Some(universe),
        };
        let source = Source::Impersonated(Box::new(source));
        Ok(Self::new(&inner.http, &settings, source, about))
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
    /// When the metadata server does not say, and for credentials that are no service account's: a user's own, a
    /// federated identity's, a Kubernetes service account's.
    pub async fn email(&self) -> Result<String, Error> {
        let nobody = |whose: &str| {
            let message = format!("{whose} name no service account; set SIGNER_SERVICE_ACCOUNT");
            Error::new(Kind::Invalid, "find our own account", self.source(), message)
        };
        let email = self.0.email.get_or_try_init(|| async {
            match &self.0.source {
                // With Workload Identity and no account of Google's, GKE names the pool: `PROJECT.svc.id.goog`.
                Source::Metadata(source) => match source.email().await? {
                    email if email.contains('@') => Ok(email),
                    _ => Err(nobody("credentials of a Kubernetes service account")),
                },
                Source::ServiceAccount(source) => Ok(source.key.client_email.clone()),
                Source::Impersonated(source) => Ok(source.email.clone()),
                Source::User(_) => Err(nobody("credentials of a user")),
                Source::Federated(_) => Err(nobody("credentials of a federated identity")),
            }
        });
        email.await.cloned()
    }

    /// Who these credentials are, as an IAM policy names members; a word in capitals where they do not say.
    pub(crate) async fn member(&self) -> String {
        match &self.0.source {
            Source::User(_) => "user:YOUR_ADDRESS".to_owned(),
            Source::Federated(source) => source.member(),
            _ => match self.email().await {
                Ok(email) => format!("serviceAccount:{email}"),
                Err(_) => "serviceAccount:YOUR_ACCOUNT".to_owned(),
            },
        }
    }

    /// The private key, when the credentials hold one.
    pub fn local_key(&self) -> Option<&SigningKey> {
        match &self.0.source {
            Source::ServiceAccount(source) => Some(&source.key),
            _ => None,
        }
    }

    /// With what to call `signBlob` as `email`: these credentials, or, where they impersonate that very account, those
    /// that may act as it, along the accounts between. Its own token would need a right on itself.
    pub(crate) fn signing_as(&self, email: &str) -> (Self, Vec<String>) {
        match &self.0.source {
            Source::Impersonated(source) if source.email == email && source.may_sign() => {
                (source.source.clone(), source.delegates.clone())
            }
            _ => (self.clone(), Vec::new()),
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
                Source::User(_) => Ok(self.0.quota_project.clone()),
                Source::Impersonated(_) | Source::Federated(_) => Ok(None),
            }
        });
        project.await.cloned()
    }

    /// The project that pays for calls, when one is named.
    pub(crate) fn quota_project(&self) -> Option<&str> {
        self.0.quota_project.as_deref()
    }

    /// The domain that Google's APIs have in the credentials' universe: `googleapis.com` but in clouds that partners
    /// run.
    ///
    /// # Errors
    /// When the metadata server does not answer.
    pub async fn universe_domain(&self) -> Result<String, Error> {
        let domain = self.0.universe_domain.get_or_try_init(|| async {
            match &self.0.source {
                Source::Metadata(source) => source.universe_domain().await,
                _ => Ok(UNIVERSE_DOMAIN.to_owned()),
            }
        });
        domain.await.cloned()
    }

    /// The base URL of IAM Credentials: what was given, or Google's in this universe.
    async fn iam_credentials(&self) -> Result<String, Error> {
        match &self.0.iam_credentials_endpoint {
            Some(base) => Ok(base.clone()),
            None => Ok(format!("https://iamcredentials.{}", self.universe_domain().await?)),
        }
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

/// What goes with every kind.
struct About {
    described: String,
    quota_project: Option<String>,
    /// None where it has to be asked for.
    universe_domain: Option<String>,
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
