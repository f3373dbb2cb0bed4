//! Another service account's tokens, asked for with credentials that may act as it: directly, or along a chain of
//! accounts each of which may act as the next (`gcloud auth application-default login --impersonate-service-account`,
//! federation files with a service account, `--impersonate`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::file::{self, Context, fields};
use super::{Issued, SCOPE, Source, Tokens};
use crate::google::api::{Api, authorized};
use crate::google::http::{self, Http};
use crate::google::retry::{Budget, Idempotency};
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

const ACCESS: &str = "iam.serviceAccounts.getAccessToken";
const IDENTITY: &str = "iam.serviceAccounts.getOpenIdToken";
/// Google's default, and the longest without an organisation policy that allows more.
const LIFETIME: Duration = Duration::from_secs(3600);

pub(super) struct Impersonated {
    iam: Api,
    /// Who may act as the account.
    pub(super) source: Tokens,
    /// The accounts between, as the API names them.
    pub(super) delegates: Vec<String>,
    /// The account that is impersonated.
    pub(super) email: String,
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
pub(super) struct ImpersonatedFile {
    service_account_impersonation_url: String,
    #[serde(default)]
    delegates: Vec<String>,
    source_credentials: Value,
}

impl ImpersonatedFile {
    pub(super) fn read(context: &Context<'_>, text: &[u8]) -> Result<Impersonated, Error> {
        let file: Self = fields(text, context.shown)?;
        let (base, email) = target(context, &file.service_account_impersonation_url)?;
        if file.source_credentials["type"] == "impersonated_service_account" {
            return Err(
                context.refused("impersonates from an impersonation; list the accounts between under `delegates`")
            );
        }
        let inner = file.source_credentials.to_string();
        let source = file::read(context.http, context.settings, inner.as_bytes(), context.shown)?;
        Impersonated::new(context.http, source, &base, &email, file.delegates).map_err(|error| Error {
            resource: context.shown.to_owned(),
            ..error
        })
    }
}

/// Base URL and account of `BASE/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken`.
pub(super) fn target(context: &Context<'_>, url: &str) -> Result<(String, String), Error> {
    let parts = url.find("/v1/projects/").and_then(|at| {
        let (_, account) = url[at..].split_once("/serviceAccounts/")?;
        let account = account.strip_suffix(":generateAccessToken")?;
        is_account(account).then(|| (url[..at].to_owned(), account.to_owned()))
    });
    let Some((base, email)) = parts else {
        return Err(context.refused(
            "its service_account_impersonation_url is not .../v1/projects/-/serviceAccounts/EMAIL:generateAccessToken",
        ));
    };
    match &context.settings.iam_credentials_endpoint {
        Some(given) => Ok((given.clone(), email)),
        None => {
            context.url_of_google("service_account_impersonation_url", url)?;
            Ok((base, email))
        }
    }
}

/// An address that can stand in a path as it is.
fn is_account(text: &str) -> bool {
    text.contains('@')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"@.-_+:".contains(&byte))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccessAnswer {
    access_token: Secret,
    expire_time: DateTime<Utc>,
}

#[derive(Deserialize)]
struct IdentityAnswer {
    token: Secret,
}

impl Impersonated {
    /// `delegates` are addresses, or already `projects/-/serviceAccounts/EMAIL`: files have both.
    pub(super) fn new(
        http: &Http,
        source: Tokens,
        base: &str,
        email: &str,
        delegates: Vec<String>,
    ) -> Result<Self, Error> {
        let delegates = delegates
            .into_iter()
            .map(|delegate| match delegate.strip_prefix("projects/-/serviceAccounts/") {
                Some(_) => delegate,
                None => format!("projects/-/serviceAccounts/{delegate}"),
            })
            .collect();
        if !is_account(email) {
            let message = "that is no service account's address: write NAME@PROJECT.iam.gserviceaccount.com";
            return Err(Error::new(Kind::Invalid, "impersonate", email, message));
        }
        // Whoever wants the token repeats the call: two policies on top of each other would multiply.
        let once = Budget::new(Duration::ZERO);
        Ok(Self {
            iam: Api::new(http.clone(), base, Some(source.clone())).within(&once),
            source,
            delegates,
            email: email.to_owned(),
            lifetime: LIFETIME,
        })
    }

    /// A federated identity gets roles/iam.workloadIdentityUser on the account, which does not hold signBlob: there the
    /// account signs for itself. All others are Token Creators, and may sign as it.
    /// Source: cloud.google.com/iam/docs/roles-permissions/iam.
    pub(super) fn may_sign(&self) -> bool {
        !matches!(self.source.0.source, Source::Federated(_))
    }

    pub(super) async fn issue(&self) -> Result<Issued, Error> {
        let lifetime = format!("{}s", self.lifetime.as_secs());
        let body = json!({"delegates": self.delegates, "scope": [SCOPE], "lifetime": lifetime});
        let answer: AccessAnswer = self.call(ACCESS, "generateAccessToken", &body).await?;
        let lifetime = (answer.expire_time - Utc::now()).to_std().unwrap_or(Duration::ZERO);
        Ok(Issued {
            token: answer.access_token,
            lifetime,
        })
    }

    pub(super) async fn id_token(&self, audience: &str, include_email: bool) -> Result<Secret, Error> {
        let body = json!({"delegates": self.delegates, "audience": audience, "includeEmail": include_email});
        let answer: IdentityAnswer = self.call(IDENTITY, "generateIdToken", &body).await?;
        Ok(answer.token)
    }

    async fn call<T: DeserializeOwned>(&self, operation: &'static str, verb: &str, body: &Value) -> Result<T, Error> {
        let url = &self
            .iam
            .url(&format!("/v1/projects/-/serviceAccounts/{}:{verb}", self.email));
        let answer = self
            .iam
            .call(Idempotency::Always, |access| async move {
                let request = authorized(self.iam.http.request(Method::POST, url), access.as_ref()).json(body);
                let response = http::send(operation, &self.email, request).await?;
                http::json(operation, &self.email, response).await
            })
            .await;
        match answer {
            Err(error) if error.kind == Kind::Forbidden && error.operation == operation => {
                let message = format!(
                    "{}. {}",
                    error.message.trim_end_matches('.'),
                    self.grant(operation).await
                );
                Err(Error { message, ..error })
            }
            answer => answer,
        }
    }

    /// Who needs which role on what, and the command that gives it.
    async fn grant(&self, operation: &str) -> String {
        let role = match (&self.source.0.source, operation) {
            (Source::Federated(_), _) => "roles/iam.workloadIdentityUser",
            (_, IDENTITY) => "roles/iam.serviceAccountOpenIdTokenCreator",
            _ => "roles/iam.serviceAccountTokenCreator",
        };
        let member = self.source.member().await;
        let command = |account: &str, member: &str, role: &str| {
            format!("gcloud iam service-accounts add-iam-policy-binding {account} --member='{member}' --role={role}")
        };
        if self.delegates.is_empty() {
            return format!(
                "{member} needs {role} on {}: {}",
                self.email,
                command(&self.email, &member, role)
            );
        }
        let mut commands = Vec::new();
        let mut before = member;
        for account in self.delegates.iter().chain([&self.email]) {
            let account = account.rsplit('/').next().unwrap_or_default();
            // Only the last step is the call itself; before it every account makes a token of the next.
            let last = account == self.email;
            let role = if last {
                role
            } else {
                "roles/iam.serviceAccountTokenCreator"
            };
            commands.push(command(account, &before, role));
            before = format!("serviceAccount:{account}");
        }
        format!(
            "Every account of the chain needs its role on the next: {}",
            commands.join(" ; ")
        )
    }
}
