//! A person's own credentials, as `gcloud auth application-default login` writes them: a refresh token.

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::file::{Context, endpoint, fields};
use super::{Issued, TokenAnswer};
use crate::google::Error;
use crate::google::http::{self, Http};
use crate::google::secret::Secret;

const OPERATION: &str = "refresh a user's token";

pub(super) struct User {
    http: Http,
    pub(super) client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
    token_uri: String,
}

#[derive(Deserialize)]
struct File {
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct IdentityAnswer {
    id_token: Secret,
}

impl User {
    pub(super) fn new(context: &Context<'_>, text: &[u8]) -> Result<Self, Error> {
        let file: File = fields(text, context.shown)?;
        let token_uri = match file.token_uri {
            Some(uri) => context.url("token_uri", &uri).map(|_| uri)?,
            None => format!("https://oauth2.{}/token", context.universe),
        };
        Ok(Self {
            http: context.http.clone(),
            client_id: file.client_id,
            client_secret: file.client_secret,
            refresh_token: file.refresh_token,
            token_uri: endpoint(context.settings.oauth_token_endpoint.as_deref(), &token_uri),
        })
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        self.refresh().await.map(|answer: TokenAnswer| Issued::from(answer))
    }

    /// Its audience is the OAuth client, whatever anybody asks for.
    pub(super) async fn id_token(&self) -> Result<Secret, Error> {
        self.refresh().await.map(|answer: IdentityAnswer| answer.id_token)
    }

    async fn refresh<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose()),
            ("refresh_token", self.refresh_token.expose()),
        ];
        let request = self.http.request(Method::POST, &self.token_uri).form(&form);
        let response = http::send(OPERATION, &self.client_id, request).await?;
        http::json(OPERATION, &self.client_id, response).await
    }
}
