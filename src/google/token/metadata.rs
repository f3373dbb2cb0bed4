//! The metadata server of Google's machines: Cloud Run, GKE with Workload Identity, Compute Engine.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Response};
use tokio::time::timeout;

use super::file::is_domain;
use super::{Issued, TokenAnswer, UNIVERSE_DOMAIN};
use crate::google::encode;
use crate::google::http::{self, Http};
use crate::google::retry::{self, Budget, Idempotency};
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

/// Link-local, the same on every machine of Google's.
const DEFAULT_HOST: &str = "169.254.169.254";
const FLAVOR: &str = "metadata-flavor";
const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";
const OPERATION: &str = "ask the metadata server";

pub(super) struct Metadata {
    http: Http,
    base_url: String,
}

impl Metadata {
    pub(super) fn new(http: Http, host: Option<&str>) -> Self {
        let host = host.unwrap_or(DEFAULT_HOST).trim_end_matches('/');
        let base_url = if host.contains("://") {
            host.to_owned()
        } else {
            format!("http://{host}")
        };
        Self { http, base_url }
    }

    pub(super) fn host(&self) -> &str {
        &self.base_url
    }

    /// Whether this machine has one. Elsewhere the address is mostly dropped silently, hence the short patience; three
    /// tries because a server that has just been started may miss the first.
    pub(super) async fn is_there(&self) -> bool {
        for _ in 0..3 {
            match timeout(Duration::from_secs(1), self.get("/")).await {
                Ok(Ok(_)) => return true,
                Ok(Err(error)) if error.kind != Kind::Unavailable => return false,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        false
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        let response = self.get(&format!("{ACCOUNT}/token")).await?;
        http::json::<TokenAnswer>(OPERATION, &self.base_url, response)
            .await
            .map(Issued::from)
    }

    pub(super) async fn email(&self) -> Result<String, Error> {
        self.text(&format!("{ACCOUNT}/email")).await
    }

    pub(super) async fn project_id(&self) -> Result<String, Error> {
        self.text("/computeMetadata/v1/project/project-id").await
    }

    /// An ID token of the machine's account. Only the full format has the account's address.
    /// Source: cloud.google.com/compute/docs/instances/verifying-instance-identity.
    pub(super) async fn id_token(&self, audience: &str, include_email: bool) -> Result<Secret, Error> {
        let format = if include_email { "full" } else { "standard" };
        let audience = encode::component(audience);
        let path = format!("{ACCOUNT}/identity?audience={audience}&format={format}");
        let response = self.get(&path).await?;
        let body = http::body(OPERATION, &self.base_url, response, 64 * 1024).await?;
        match std::str::from_utf8(&body).map(str::trim) {
            Ok(token) if token.split('.').count() == 3 && !token.contains(char::is_whitespace) => {
                Ok(Secret::new(token))
            }
            _ => Err(self.strange("the answer is not an ID token")),
        }
    }

    /// Machines of Google's own do not always have the entry, or have it empty.
    pub(super) async fn universe_domain(&self) -> Result<String, Error> {
        let body = match self.entry("/computeMetadata/v1/universe/universe-domain").await {
            Err(error) if error.kind == Kind::NotFound => return Ok(UNIVERSE_DOMAIN.to_owned()),
            answer => answer?,
        };
        match std::str::from_utf8(&body).map(str::trim) {
            Ok("") => Ok(UNIVERSE_DOMAIN.to_owned()),
            Ok(domain) if is_domain(domain) => Ok(domain.to_owned()),
            _ => Err(self.strange("the universe is no domain")),
        }
    }

    async fn text(&self, path: &str) -> Result<String, Error> {
        let body = self.entry(path).await?;
        match std::str::from_utf8(&body).map(str::trim) {
            Ok(text) if !text.is_empty() && !text.contains(char::is_whitespace) => Ok(text.to_owned()),
            _ => Err(self.strange("the answer is not one word of text")),
        }
    }

    /// What is asked for once, at the start; whoever needs a token repeats that call as a whole.
    async fn entry(&self, path: &str) -> Result<Bytes, Error> {
        retry::run(&Budget::default(), Idempotency::Always, || async {
            let response = self.get(path).await?;
            http::body(OPERATION, &self.base_url, response, 4096).await
        })
        .await
    }

    /// The header goes both ways: without it in the answer, whoever answers is no metadata server (a captive portal, a
    /// proxy) and what it says is not used.
    async fn get(&self, path: &str) -> Result<Response, Error> {
        let request = self
            .http
            .request(Method::GET, &format!("{}{path}", self.base_url))
            .header(FLAVOR, "Google");
        let response = http::send(OPERATION, &self.base_url, request).await?;
        match response.headers().get(FLAVOR) {
            Some(flavor) if flavor == "Google" => Ok(response),
            _ => Err(self.strange("the answer has no `Metadata-Flavor: Google`, so it is not from a metadata server")),
        }
    }

    fn strange(&self, why: &str) -> Error {
        Error::new(
            Kind::Invalid,
            OPERATION,
            self.base_url.clone(),
            format!("{why}; check GCE_METADATA_HOST"),
        )
    }
}
