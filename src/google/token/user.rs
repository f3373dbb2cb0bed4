//! A person's own credentials, as `gcloud auth application-default login` writes them: a refresh token.

use reqwest::Method;
use serde::Deserialize;

use super::{Issued, Settings, TokenAnswer, fields, token_endpoint};
use crate::google::Error;
use crate::google::http::{self, Http};
use crate::google::secret::Secret;

const OPERATION: &str = "refresh a user's access token";
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

pub(super) struct User {
    http: Http,
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
    pub(super) quota_project_id: Option<String>,
    token_uri: String,
}

#[derive(Deserialize)]
struct File {
    client_id: String,
    client_secret: Secret,
    refresh_token: Secret,
    quota_project_id: Option<String>,
    token_uri: Option<String>,
}

impl User {
    pub(super) fn new(http: &Http, settings: &Settings, text: &[u8], shown: &str) -> Result<Self, Error> {
        let file: File = fields(text, shown)?;
        Ok(Self {
            http: http.clone(),
            client_id: file.client_id,
            client_secret: file.client_secret,
            refresh_token: file.refresh_token,
            quota_project_id: file.quota_project_id,
            token_uri: token_endpoint(settings, file.token_uri.as_deref().unwrap_or(TOKEN_URI)),
        })
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose()),
            ("refresh_token", self.refresh_token.expose()),
        ];
        let request = self.http.request(Method::POST, &self.token_uri).form(&form);
        let response = http::send(OPERATION, &self.client_id, request).await?;
        http::json::<TokenAnswer>(OPERATION, &self.client_id, response)
            .await
            .map(Issued::from)
    }
}
