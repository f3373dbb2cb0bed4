//! A service account's key file: a JWT signed here is exchanged for an access token (RFC 7523).

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Issued, SCOPE, Settings, TokenAnswer, fields, token_endpoint};
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
}

#[derive(Deserialize)]
struct File {
    client_email: String,
    private_key: Secret,
    private_key_id: Option<String>,
    project_id: Option<String>,
    token_uri: String,
}

impl ServiceAccount {
    pub(super) fn new(http: &Http, settings: &Settings, text: &[u8], shown: &str) -> Result<Self, Error> {
        let file: File = fields(text, shown)?;
        let key = SigningKey::from_pem(file.client_email, file.private_key.expose()).map_err(|error| Error {
            resource: shown.to_owned(),
            ..error
        })?;
        Ok(Self {
            http: http.clone(),
            key,
            key_id: file.private_key_id,
            project_id: file.project_id,
            endpoint: token_endpoint(settings, &file.token_uri),
            audience: file.token_uri,
        })
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &self.assertion()?),
        ];
        let resource = &self.key.client_email;
        let response = http::send(
            OPERATION,
            resource,
            self.http.request(Method::POST, &self.endpoint).form(&form),
        )
        .await?;
        http::json::<TokenAnswer>(OPERATION, resource, response)
            .await
            .map(Issued::from)
    }

    /// The audience is what the file names even where another endpoint is called: a private endpoint is only another
    /// way to the same server, which knows itself by its public URL.
    fn assertion(&self) -> Result<String, Error> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = &self.key_id {
            header["kid"] = id.as_str().into();
        }
        let claims = json!({
            "iss": self.key.client_email,
            "scope": SCOPE,
            "aud": self.audience,
            "iat": now,
            "exp": now + LIFETIME,
        });
        let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(&header), encode(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(message.as_bytes())?);
        Ok(format!("{message}.{signature}"))
    }
}
