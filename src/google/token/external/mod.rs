//! Workload and Workforce Identity Federation: a token of somebody else's is exchanged for one of Google's at the
//! Security Token Service (google.aip.dev/auth/4117, RFC 8693). With a service account in the file, that one's tokens
//! are then asked for like any impersonated account's.

mod executable;
mod source;

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use super::file::{Context, endpoint, fields};
use super::impersonated::{self, Impersonated};
use super::{About, Issued, SCOPE, Source, Tokens};
use crate::google::Error;
use crate::google::http::{self, Http};
use crate::google::secret::Secret;
use source::{CredentialSource, SubjectToken};

const OPERATION: &str = "exchange a federated token at the Security Token Service";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Enough for a token that only serves to act as a service account.
const SCOPE_OF_IAM: &str = "https://www.googleapis.com/auth/iam";
/// What an impersonated token may live, in seconds; over an hour takes an organisation policy that allows it.
const LIFETIMES: std::ops::RangeInclusive<u64> = 600..=43_200;

/// An identity of a pool.
pub(super) struct Federated {
    http: Http,
    audience: String,
    subject_token_type: String,
    subject_token: SubjectToken,
    token_url: String,
    client: Option<(String, Secret)>,
    /// Who is charged for the exchange, of a workforce pool.
    user_project: Option<String>,
    scope: &'static str,
}

#[derive(Deserialize)]
struct File {
    audience: String,
    subject_token_type: String,
    token_url: Option<String>,
    credential_source: CredentialSource,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: Impersonation,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    workforce_pool_user_project: Option<String>,
}

#[derive(Default, Deserialize)]
struct Impersonation {
    token_lifetime_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Exchanged {
    access_token: Secret,
    #[serde(default = "an_hour")]
    expires_in: u64,
}

fn an_hour() -> u64 {
    3600
}

/// Reads a federation file.
pub(super) fn read(context: &Context<'_>, text: &[u8]) -> Result<Source, Error> {
    let file: File = fields(text, context.shown)?;
    let token_url = match &file.token_url {
        Some(url) => url.clone(),
        None => format!("https://sts.{}/v1/token", context.universe),
    };
    if context.settings.sts_endpoint.is_none() {
        context.url_of_google("token_url", &token_url)?;
    }
    let of_workforce = file.audience.contains("/workforcePools/");
    if file.workforce_pool_user_project.is_some() && !of_workforce {
        return Err(context
            .refused("has a workforce_pool_user_project, and its audience is no workforce pool's: remove the field"));
    }
    let account = match &file.service_account_impersonation_url {
        Some(url) => Some(impersonated::target(context, url)?),
        None => None,
    };
    let subject = source::Subject {
        audience: &file.audience,
        token_type: &file.subject_token_type,
        account: account.as_ref().map(|(_, email)| email.as_str()),
    };
    let subject_token = file.credential_source.read(context, &subject)?;
    let federated = Federated {
        http: context.http.clone(),
        subject_token,
        token_url: endpoint(context.settings.sts_endpoint.as_deref(), &token_url),
        client: file
            .client_id
            .map(|id| (id, file.client_secret.unwrap_or_else(|| Secret::new("")))),
        user_project: file.workforce_pool_user_project,
        scope: if account.is_some() { SCOPE_OF_IAM } else { SCOPE },
        audience: file.audience,
        subject_token_type: file.subject_token_type,
    };
    let source = Source::Federated(Box::new(federated));
    let Some((base, email)) = account else {
        return Ok(source);
    };
    let about = About {
        described: format!("the federated identity in {}", context.shown),
        quota_project: None,
        universe_domain: Some(context.universe.to_owned()),
    };
    let tokens = Tokens::new(context.http, context.settings, source, about);
    let mut impersonated = Impersonated::new(context.http, tokens, &base, &email, Vec::new())?;
    if let Some(seconds) = file.service_account_impersonation.token_lifetime_seconds {
        if !LIFETIMES.contains(&seconds) {
            return Err(context.refused("has a token_lifetime_seconds that is not 600 to 43200"));
        }
        impersonated.lifetime = Duration::from_secs(seconds);
    }
    Ok(Source::Impersonated(Box::new(impersonated)))
}

impl Federated {
    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        let subject_token = self.subject_token.get(&self.http).await?;
        let mut form = vec![
            ("grant_type", GRANT),
            ("audience", &self.audience),
            ("scope", self.scope),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token", subject_token.expose()),
            ("subject_token_type", &self.subject_token_type),
        ];
        // A client that identifies itself is charged for the exchange; otherwise the user's project is.
        let options = match (&self.user_project, &self.client) {
            (Some(project), None) => Some(serde_json::json!({"userProject": project}).to_string()),
            _ => None,
        };
        if let Some(options) = &options {
            form.push(("options", options));
        }
        let mut request = self.http.request(Method::POST, &self.token_url).form(&form);
        if let Some((id, secret)) = &self.client {
            request = request.basic_auth(id, Some(secret.expose()));
        }
        let response = http::send(OPERATION, &self.audience, request).await?;
        let answer: Exchanged = http::json(OPERATION, &self.audience, response).await?;
        Ok(Issued {
            token: answer.access_token,
            lifetime: Duration::from_secs(answer.expires_in),
        })
    }

    /// The whole pool, as an IAM policy names it: the subject is known to the provider alone.
    /// Source: cloud.google.com/iam/docs/principal-identifiers.
    pub(super) fn member(&self) -> String {
        let pool = self.audience.split("/providers/").next().unwrap_or_default();
        format!("principalSet:{pool}/*")
    }
}
