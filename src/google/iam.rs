//! IAM Credentials: signatures by a service account whose key Google keeps.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::token::Tokens;
use super::{Error, Kind, encode};

/// Google's own base URL.
pub const BASE_URL: &str = "https://iamcredentials.googleapis.com";

/// For how long a signature of signBlob holds at least: Google may rotate the keys behind it after that.
/// Source: cloud.google.com/storage/docs/authentication/creating-signatures.
pub const KEYS_HOLD: Duration = Duration::from_secs(43_200);

const SIGN_BLOB: &str = "iam.serviceAccounts.signBlob";

/// The API, with credentials.
#[derive(Debug, Clone)]
pub struct Iam {
    api: Api,
    tokens: Option<Tokens>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    key_id: String,
    signed_blob: String,
}

impl Iam {
    /// The API at `base_url`.
    pub fn new(http: Http, base_url: &str, tokens: Option<Tokens>) -> Self {
        Self {
            api: Api::new(http, base_url, tokens.clone()),
            tokens,
        }
    }

    /// The same, drawing its retries from `budget`.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        Self {
            api: self.api.within(budget),
            tokens: self.tokens.clone(),
        }
    }

    /// The RSA-SHA256 signature of `payload` by `email`, and the id of the key that made it. Credentials that
    /// impersonate `email` sign with what they act by, along the same delegates.
    ///
    /// # Errors
    /// `Forbidden` when our account lacks `iam.serviceAccounts.signBlob` on `email`
    /// (roles/iam.serviceAccountTokenCreator), also when both are the same account.
    pub async fn sign_blob(&self, email: &str, payload: &[u8]) -> Result<(String, Vec<u8>), Error> {
        let (api, delegates) = match &self.tokens {
            Some(tokens) => {
                let (tokens, delegates) = tokens.signing_as(email);
                (self.api.with_tokens(tokens), delegates)
            }
            None => (self.api.clone(), Vec::new()),
        };
        let api = &api;
        let url = &api.url(&format!(
            "/v1/projects/-/serviceAccounts/{}:signBlob",
            encode::component(email)
        ));
        let body = &json!({"payload": STANDARD.encode(payload), "delegates": delegates});
        let signed: Signed = api
            .call(Idempotency::Always, |token| async move {
                let request = authorized(api.http.request(Method::POST, url), token.as_ref()).json(body);
                http::json(SIGN_BLOB, email, http::send(SIGN_BLOB, email, request).await?).await
            })
            .await?;
        match STANDARD.decode(&signed.signed_blob) {
            Ok(signature) if !signature.is_empty() => Ok((signed.key_id, signature)),
            _ => Err(Error::new(
                Kind::Invalid,
                SIGN_BLOB,
                email,
                "the answer's signedBlob is not base64 of a signature",
            )),
        }
    }
}
