//! Who signs: a key file, a key that the credentials hold, or an account through signBlob.

use std::path::Path;

use serde::Deserialize;

use super::sign::{SignError, Signer, UNIVERSE_DOMAIN};
use crate::google;
use crate::google::grant::{Grant, member_of};
use crate::google::http::Http;
use crate::google::iam::Iam;
use crate::google::secret::Secret;
use crate::google::signing::SigningKey;
use crate::google::token::{Settings, Tokens};

/// Why there is nobody to sign.
#[derive(Debug, thiserror::Error)]
pub enum NoSigner {
    /// There are neither credentials nor an account that could be asked without any.
    #[error("there are no credentials, and no account to sign as is named")]
    NoCredentials,
    /// The credentials cannot be used, or do not say whose they are.
    #[error(transparent)]
    Google(#[from] google::Error),
}

impl Signer {
    /// By the contract's order: signBlob as the account that is named, else a key that the credentials hold, else
    /// signBlob as the credentials' own account.
    ///
    /// # Errors
    /// See [`NoSigner`].
    pub async fn choose(
        http: Http,
        tokens: Option<&Tokens>,
        iam_base_url: &str,
        named: Option<&str>,
    ) -> Result<Self, NoSigner> {
        let email = match (named, tokens) {
            (Some(email), _) => email.to_owned(),
            (None, None) => return Err(NoSigner::NoCredentials),
            (None, Some(tokens)) => match tokens.local_key() {
                Some(key) => return Ok(Self::Key(key.clone())),
                None => tokens.email().await?,
            },
        };
        let iam = Iam::new(http, iam_base_url, tokens.cloned());
        Ok(Self::Blob { iam, email })
    }
}

/// A signer with what is known about who asks it to sign.
#[derive(Debug)]
pub struct Discovered {
    /// Who signs.
    pub signer: Signer,
    /// The universe that the credentials are of, when they say it.
    pub universe_domain: Option<String>,
    tokens: Option<Tokens>,
}

impl Discovered {
    /// With the private key of a service account's key file. Nothing is asked of anybody.
    ///
    /// # Errors
    /// A sentence that names the file and never what is in it.
    pub fn from_key_file(file: &Path) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct KeyFile {
            client_email: String,
            private_key: Secret,
            universe_domain: Option<String>,
        }
        let shown = file.display();
        let text = std::fs::read(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let key: KeyFile = serde_json::from_slice(&text).map_err(|_| {
            format!(
                "{shown} is no service account's key file (JSON with client_email and private_key): make one with \
                 'gcloud iam service-accounts keys create', or sign without a key with --signer EMAIL"
            )
        })?;
        let signing = SigningKey::from_pem(key.client_email, key.private_key.expose())
            .map_err(|error| format!("{shown}: {}", error.message))?;
        Ok(Self {
            signer: Signer::Key(signing),
            universe_domain: key.universe_domain,
            tokens: None,
        })
    }

    /// With Application Default Credentials, as `named` or as whoever they are. `iam_base_url` gives the API of a
    /// universe: of `universe_domain`, where one is named, else of the credentials' own.
    ///
    /// # Errors
    /// See [`NoSigner`].
    pub async fn from_environment(
        credentials: &Settings,
        universe_domain: Option<&str>,
        iam_base_url: impl Fn(&str) -> String,
        named: Option<&str>,
    ) -> Result<Self, NoSigner> {
        let http = Http::new()?;
        let tokens = Tokens::discover(http.clone(), credentials).await?;
        let universe_domain = match (universe_domain, &tokens) {
            (Some(domain), _) => domain.to_owned(),
            (None, Some(tokens)) => tokens.universe_domain().await?,
            (None, None) => UNIVERSE_DOMAIN.to_owned(),
        };
        let signer = Signer::choose(http, tokens.as_ref(), &iam_base_url(&universe_domain), named).await?;
        Ok(Self {
            signer,
            universe_domain: Some(universe_domain),
            tokens,
        })
    }

    /// What a person should do about an error of this signer: who lacks which right on what, and what gives it.
    pub async fn advice(&self, error: &SignError) -> String {
        let SignError::Google(google) = error else {
            return error.to_string();
        };
        let grant = Grant::sign_as(self.signer.email());
        if !grant.is_about(google) {
            return error.to_string();
        }
        let member = match &self.tokens {
            Some(tokens) => member_of(Some(tokens)).await,
            None => "user:YOUR_ADDRESS".to_owned(),
        };
        format!("{}. {}", error.to_string().trim_end_matches('.'), grant.remedy(&member))
    }
}
