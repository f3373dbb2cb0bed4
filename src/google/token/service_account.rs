//! A service account's key file: a JWT signed here is exchanged for a token (RFC 7523), or is itself the token.
//!
//! In Google's own universe the exchange is preferred to a self-signed token (google.aip.dev/auth/4111): every API and
//! every private endpoint takes what it gives. Other universes have no such exchange.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::file::{Context, endpoint, fields};
use super::{Issued, SCOPE, TokenAnswer, UNIVERSE_DOMAIN};
use crate::google::Error;
use crate::google::http::{self, Http};
use crate::google::secret::Secret;
use crate::google::signing::SigningKey;

const OPERATION: &str = "exchange a service account key for a token";
/// Google's longest lifetime of such an assertion, in seconds.
const LIFETIME: u64 = 3600;

pub(super) struct ServiceAccount {
    http: Http,
    pub(super) key: SigningKey,
    key_id: Option<String>,
    pub(super) project_id: Option<String>,
    endpoint: String,
    audience: String,
    /// Of a universe where a signed JWT is itself the access token.
    self_signed: bool,
}

#[derive(Deserialize)]
struct File {
    client_email: String,
    private_key: Secret,
    private_key_id: Option<String>,
    project_id: Option<String>,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct IdentityAnswer {
    id_token: Secret,
}

impl ServiceAccount {
    pub(super) fn new(context: &Context<'_>, text: &[u8]) -> Result<Self, Error> {
        let file: File = fields(text, context.shown)?;
        let key = SigningKey::from_pem(file.client_email, file.private_key.expose()).map_err(|error| Error {
            resource: context.shown.to_owned(),
            ..error
        })?;
        let token_uri = match file.token_uri {
            Some(uri) => context.url("token_uri", &uri).map(|_| uri)?,
            None => format!("https://oauth2.{}/token", context.universe),
        };
        Ok(Self {
            http: context.http.clone(),
            key,
            key_id: file.private_key_id,
            project_id: file.project_id,
            endpoint: endpoint(context.settings.oauth_token_endpoint.as_deref(), &token_uri),
            audience: token_uri,
            self_signed: context.universe != UNIVERSE_DOMAIN,
        })
    }

    /// Whether an ID token has to come from `generateIdToken`: there is nothing to exchange an assertion at.
    pub(super) fn is_self_signed(&self) -> bool {
        self.self_signed
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        if self.self_signed {
            return Ok(Issued {
                token: Secret::new(self.jwt(json!({"sub": self.key.client_email, "scope": SCOPE}))?),
                lifetime: Duration::from_secs(LIFETIME),
            });
        }
        let answer: TokenAnswer = self.exchange(json!({"aud": self.audience, "scope": SCOPE})).await?;
        Ok(Issued::from(answer))
    }

    /// Google puts the account's address in whether it is asked to or not.
    pub(super) async fn id_token(&self, audience: &str) -> Result<Secret, Error> {
        let claims = json!({"aud": self.audience, "target_audience": audience});
        self.exchange(claims)
            .await
            .map(|answer: IdentityAnswer| answer.id_token)
    }

    async fn exchange<T: DeserializeOwned>(&self, claims: Value) -> Result<T, Error> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &self.jwt(claims)?),
        ];
        let resource = &self.key.client_email;
        let request = self.http.request(Method::POST, &self.endpoint).form(&form);
        let response = http::send(OPERATION, resource, request).await?;
        http::json(OPERATION, resource, response).await
    }

    /// The audience of an assertion is what the file names even where another endpoint is called: a private endpoint is
    /// only another way to the same server, which knows itself by its public URL.
    fn jwt(&self, mut claims: Value) -> Result<String, Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        claims["iss"] = self.key.client_email.as_str().into();
        claims["iat"] = now.into();
        claims["exp"] = (now + LIFETIME).into();
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes())?);
        Ok(format!("{message}.{signature}"))
    }
}
