//! The deployment that is looked at: its configuration, and Google as its worker reaches it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::Failure;
use super::super::cloud::{self, Cloud};
use crate::config::{CloudConfig, Config, Topic};
use crate::deliver::NoSigner;
use crate::deliver::sign::{Endpoint, Signer};
use crate::google::grant::{member_of, project_of_account};
use crate::google::http::{Http, Timeouts};
use crate::google::inspect::Inspector;
use crate::google::retry::Budget;
use crate::google::storage::Storage;
use crate::google::token::{Tokens, UNIVERSE_DOMAIN};
use crate::google::{Error, Kind};

/// Google, as the worker reaches it.
pub(super) struct Reach {
    pub(super) http: Http,
    pub(super) cloud: Cloud,
    /// The worker's; none only with emulators.
    pub(super) tokens: Option<Tokens>,
    /// Whose account is impersonated.
    pub(super) impersonated: Option<String>,
    /// The worker, as policies name members.
    pub(super) member: String,
    /// How long one check may take.
    pub(super) limit: Duration,
    pub(super) universe: String,
}

impl Reach {
    pub(super) async fn new(config: CloudConfig, impersonate: Option<&str>, limit: Duration) -> Result<Self, Failure> {
        let http = Http::with(Timeouts {
            connect: limit.min(Timeouts::default().connect),
            progress: limit,
        })
        .map_err(cloud::work)?;
        let cloud = Cloud::connect(config).await?;
        let emulators = cloud.endpoints.storage_is_emulator && cloud.endpoints.pubsub_is_emulator;
        let tokens = if cloud.tokens.is_none() && emulators && impersonate.is_none() {
            None
        } else {
            Some(cloud.tokens_as(impersonate).await?)
        };
        let member = member_of(tokens.as_ref()).await;
        let universe = match &tokens {
            Some(tokens) => tokens.universe_domain().await.map_err(cloud::work)?,
            None => UNIVERSE_DOMAIN.to_owned(),
        };
        Ok(Self {
            http,
            cloud,
            tokens,
            impersonated: impersonate.map(str::to_owned),
            member,
            limit,
            universe,
        })
    }

    /// Retries bridge a hiccup, and no more: who asks is a person that waits.
    pub(super) fn budget(&self) -> Budget {
        Budget::new(self.limit / 3)
    }

    pub(super) fn storage(&self) -> Storage {
        Storage::new(self.http.clone(), &self.cloud.endpoints.storage, self.tokens.clone()).within(&self.budget())
    }

    fn inspector_of(&self, tokens: Option<&Tokens>) -> Inspector {
        let endpoints = &self.cloud.endpoints;
        Inspector::new(
            &self.http,
            &endpoints.storage,
            &endpoints.pubsub,
            tokens,
            &self.budget(),
        )
    }

    pub(super) fn inspector(&self) -> Inspector {
        self.inspector_of(self.tokens.as_ref())
    }

    /// Ends what takes too long.
    pub(super) async fn within<T>(
        &self,
        resource: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let message = format!("no answer within {} s", self.limit.as_secs_f32());
                Err(Error::new(Kind::Unavailable, "a check", resource, message))
            }
        }
    }

    /// Looks as the worker, and where it may not and somebody impersonates it, as that person.
    pub(super) async fn look<T, F>(&self, resource: &str, call: impl Fn(Inspector) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let seen = self.within(resource, call(self.inspector())).await;
        match seen {
            Err(error) if error.kind == Kind::Forbidden && self.impersonated.is_some() => {
                let own = self.inspector_of(self.cloud.tokens.as_ref());
                self.within(resource, call(own)).await
            }
            seen => seen,
        }
    }
}

/// The deployment.
pub(super) struct Patient {
    pub(super) config: Config,
    pub(super) reach: Reach,
    /// `projects/P/topics/T`.
    pub(super) topic: String,
    pub(super) signer: Result<Signer, String>,
    /// Where signed URLs point.
    pub(super) endpoint: Endpoint,
    /// The name of a probe that may be in the output bucket.
    probe: Mutex<Option<String>>,
}

impl Patient {
    pub(super) async fn new(config: Config, mut reach: Reach) -> Result<Self, Failure> {
        // The configuration object may have said more than the environment.
        reach.cloud.endpoints = config.endpoints.clone().in_universe(&reach.universe);
        reach.cloud.project.clone_from(&config.project);
        let topic = match &config.result_topic {
            Topic::Full(name) => name.clone(),
            Topic::Short(name) => match (&reach.impersonated, &config.project) {
                // Its own project, and not that of whoever impersonates it.
                (Some(email), None) if project_of_account(email).is_some() => {
                    format!(
                        "projects/{}/topics/{name}",
                        project_of_account(email).unwrap_or_default()
                    )
                }
                _ => reach.cloud.resource("topics", name).await?,
            },
        };
        let named = config.signer_service_account.as_deref();
        let iam = &reach.cloud.endpoints.iam_credentials;
        let signer = Signer::choose(reach.http.clone(), reach.tokens.as_ref(), iam, named)
            .await
            .map(|signer| signer.within(&reach.budget()))
            .map_err(|error| match error {
                NoSigner::NoCredentials => {
                    "nobody can sign URLs: set SIGNER_SERVICE_ACCOUNT, or run with credentials".to_owned()
                }
                NoSigner::Google(error) => error.to_string(),
            });
        let endpoint = if reach.cloud.endpoints.storage_is_emulator {
            Endpoint::parse(&reach.cloud.endpoints.storage, "http")
        } else {
            Endpoint::universe(&reach.universe)
        };
        Ok(Self {
            config,
            reach,
            topic,
            signer,
            endpoint,
            probe: Mutex::default(),
        })
    }

    /// Notes that a probe may be there from now on, or that none is.
    pub(super) fn note_probe(&self, name: Option<&str>) {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = name.map(str::to_owned);
    }

    /// The name of a probe that may be there.
    pub(super) fn probe(&self) -> Option<String> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
