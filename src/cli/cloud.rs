//! What commands that talk to Google begin with: configuration, credentials, and where the APIs are.

use std::time::Duration;

use super::Failure;
use crate::config::{CloudConfig, Endpoints, Environment};
use crate::google::http::{Http, Timeouts};
use crate::google::token::Tokens;
use crate::google::{Error, Kind};

/// Google, as this command reaches it.
pub(super) struct Cloud {
    /// None only where the APIs in use are emulators.
    pub(super) tokens: Option<Tokens>,
    pub(super) endpoints: Endpoints,
    /// `GOOGLE_CLOUD_PROJECT`.
    pub(super) project: Option<String>,
}

/// Reads the environment and starts the log; before the runtime, as it may end the command.
pub(super) fn configure() -> Result<CloudConfig, Failure> {
    super::configured(CloudConfig::load(&Environment))
}

impl Cloud {
    pub(super) async fn connect(config: CloudConfig) -> Result<Self, Failure> {
        let http = Http::new().map_err(work)?;
        let named = config.credentials.credentials_file.is_some();
        let tokens = Tokens::discover(http, &config.credentials)
            .await
            .map_err(|error| match error.kind {
                Kind::Invalid | Kind::NotFound if named => Failure::Usage(Some(error.to_string())),
                _ => work(error),
            })?;
        let endpoints = match &tokens {
            Some(tokens) => {
                let domain = tokens.universe_domain().await.map_err(work)?;
                config.endpoints.in_universe(&domain)
            }
            None => config.endpoints,
        };
        Ok(Self {
            tokens,
            endpoints,
            project: config.project,
        })
    }

    /// Credentials, for what cannot be done without.
    pub(super) fn required(&self) -> Result<&Tokens, Failure> {
        self.tokens.as_ref().ok_or_else(|| {
            Failure::Usage(Some(
                "there are no credentials: run 'gcloud auth application-default login', set \
                 GOOGLE_APPLICATION_CREDENTIALS, or run on Google Cloud with a service account"
                    .to_owned(),
            ))
        })
    }

    /// The credentials, or, with an account's address, that account's by means of them.
    pub(super) async fn tokens_as(&self, email: Option<&str>) -> Result<Tokens, Failure> {
        let tokens = self.required()?;
        match email {
            None => Ok(tokens.clone()),
            Some(email) => tokens.impersonate(email).await.map_err(|error| match error.kind {
                Kind::Invalid => Failure::Usage(Some(format!("--impersonate {}: {}", error.resource, error.message))),
                _ => work(error),
            }),
        }
    }

    /// `projects/P/KIND/NAME` from that, or from `NAME` alone in the project that is at hand.
    pub(super) async fn resource(&self, kind: &str, name: &str) -> Result<String, Failure> {
        if name.contains('/') {
            return Ok(name.to_owned());
        }
        let project = match (&self.project, &self.tokens) {
            (Some(project), _) => Some(project.clone()),
            (None, Some(tokens)) => tokens.project_id().await.map_err(work)?,
            (None, None) => None,
        };
        let project = project.ok_or_else(|| {
            Failure::Usage(Some(format!(
                "'{name}' is a name alone and the project is not known: write projects/PROJECT/{kind}/{name}, or set \
                 GOOGLE_CLOUD_PROJECT"
            )))
        })?;
        Ok(format!("projects/{project}/{kind}/{name}"))
    }

    /// What Pub/Sub says, and for a missing right the command that gives it.
    pub(super) async fn granting(&self, error: Error, kind: &str, role: &str) -> String {
        let parts: Vec<&str> = error.resource.split('/').collect();
        let (["projects", project, _, name], Some(tokens), Kind::Forbidden) = (&parts[..], &self.tokens, error.kind)
        else {
            return error.to_string();
        };
        let member = tokens.member().await;
        format!(
            "{error}. {member} needs {role}: gcloud pubsub {kind} add-iam-policy-binding {name} --project={project} \
             --member='{member}' --role={role}"
        )
    }

    /// The same of Cloud Storage.
    pub(super) async fn granting_on_bucket(&self, error: Error, bucket: &str, role: &str) -> String {
        let (Some(tokens), Kind::Forbidden) = (&self.tokens, error.kind) else {
            return error.to_string();
        };
        let member = tokens.member().await;
        format!(
            "{error}. {member} needs {role}: gcloud storage buckets add-iam-policy-binding gs://{bucket} \
             --member='{member}' --role={role}"
        )
    }
}

/// A client that waits this long for an answer.
pub(super) fn patient(patience: Duration) -> Result<Http, Failure> {
    Http::with(Timeouts {
        progress: patience,
        ..Timeouts::default()
    })
    .map_err(work)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what errors are mapped with, which are values"
)]
pub(super) fn work(error: Error) -> Failure {
    Failure::Work(Some(error.to_string()))
}
