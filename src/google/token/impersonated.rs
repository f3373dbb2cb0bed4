//! Another service account's token, asked for with credentials that may do so (`gcloud auth application-default login
//! --impersonate-service-account`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{DISCOVER, Issued, SCOPE, Settings, Source, fields, source_from_json};
use crate::google::http::{self, Http};
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

const OPERATION: &str = "iam.serviceAccounts.getAccessToken";

pub(super) struct Impersonated {
    http: Http,
    source: Source,
    url: String,
    delegates: Vec<String>,
    /// The account that is impersonated.
    pub(super) email: String,
}

#[derive(Deserialize)]
struct File {
    service_account_impersonation_url: String,
    #[serde(default)]
    delegates: Vec<String>,
    source_credentials: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: Secret,
    expire_time: DateTime<Utc>,
}

impl Impersonated {
    pub(super) fn new(http: &Http, settings: &Settings, text: &[u8], shown: &str) -> Result<Self, Error> {
        let file: File = fields(text, shown)?;
        let refused = |message: &str| Error::new(Kind::Invalid, DISCOVER, shown, message);
        let path = file
            .service_account_impersonation_url
            .find("/v1/projects/")
            .map(|at| &file.service_account_impersonation_url[at..]);
        let (Some(path), Some(email)) = (path, path.and_then(account)) else {
            return Err(refused(
                "its service_account_impersonation_url is not \
                 .../v1/projects/-/serviceAccounts/EMAIL:generateAccessToken",
            ));
        };
        if file.source_credentials["type"] == "impersonated_service_account" {
            return Err(refused(
                "impersonates from an impersonation; list the accounts between under `delegates`",
            ));
        }
        let url = match &settings.iam_credentials_endpoint {
            Some(base) => format!("{}{path}", base.trim_end_matches('/')),
            None => file.service_account_impersonation_url.clone(),
        };
        let inner = file.source_credentials.to_string();
        let (source, _) = source_from_json(http, settings, inner.as_bytes(), shown)?;
        Ok(Self {
            http: http.clone(),
            source,
            url,
            delegates: file.delegates,
            email: email.to_owned(),
        })
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        // A recursive async function needs one box; the nesting is one deep, see `new`.
        let own = Box::pin(self.source.issue()).await?;
        let body = json!({"delegates": self.delegates, "scope": [SCOPE], "lifetime": "3600s"});
        let request = self
            .http
            .request(Method::POST, &self.url)
            .bearer_auth(own.token.expose())
            .json(&body);
        let response = http::send(OPERATION, &self.email, request).await?;
        let answer: Answer = http::json(OPERATION, &self.email, response).await?;
        let lifetime = (answer.expire_time - Utc::now()).to_std().unwrap_or(Duration::ZERO);
        Ok(Issued {
            token: answer.access_token,
            lifetime,
        })
    }
}

fn account(path: &str) -> Option<&str> {
    let (_, account) = path.split_once("/serviceAccounts/")?;
    account
        .strip_suffix(":generateAccessToken")
        .filter(|account| account.contains('@') && !account.contains('/'))
}
