//! What all APIs share: base URL, access token, retries.

use std::sync::atomic::{AtomicBool, Ordering};

use super::grant::member_of;
use super::http::Http;
use super::retry::{self, Budget, Idempotency, Retries};
use super::secret::Secret;
use super::token::Tokens;
use super::{Error, Kind};

/// What authorizes one attempt: a token, and the project that pays for the call where the credentials name one.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    token: Secret,
    quota_project: Option<String>,
}

/// One API's endpoint with the credentials for it.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) http: Http,
    base_url: String,
    tokens: Option<Tokens>,
    budget: Option<Budget>,
}

impl Api {
    pub(crate) fn new(http: Http, base_url: &str, tokens: Option<Tokens>) -> Self {
        Self {
            http,
            base_url: base_url.trim_end_matches('/').to_owned(),
            tokens,
            budget: None,
        }
    }

    /// The same endpoint, drawing its retries from `budget`.
    pub(crate) fn within(&self, budget: &Budget) -> Self {
        Self {
            budget: Some(budget.clone()),
            ..self.clone()
        }
    }

    /// The same endpoint with other credentials.
    /// Who calls.
    pub(crate) async fn member(&self) -> String {
        member_of(self.tokens.as_ref()).await
    }

    pub(crate) fn with_tokens(&self, tokens: Tokens) -> Self {
        Self {
            tokens: Some(tokens),
            ..self.clone()
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// A budget for work that goes beyond one call: a download with its resumptions.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone().unwrap_or_default()
    }

    /// Runs `attempt` with an access token under the retry policy. A 401 gets a fresh token once: it says that nothing
    /// was done, so this holds for every call.
    pub(crate) async fn call<T, F>(
        &self,
        idempotency: Idempotency,
        attempt: impl Fn(Option<Access>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let renewed = AtomicBool::new(false);
        retry::run(&self.budget(), idempotency, || self.attempt(&renewed, &attempt)).await
    }

    /// The same for what goes on after `error` in a transfer whose pauses are `retries`.
    pub(crate) async fn again<T, F>(
        &self,
        retries: &mut Retries,
        error: Error,
        idempotency: Idempotency,
        attempt: impl Fn(Option<Access>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let renewed = AtomicBool::new(false);
        retries
            .again(error, idempotency, || self.attempt(&renewed, &attempt))
            .await
    }

    async fn attempt<T, F>(&self, renewed: &AtomicBool, attempt: &impl Fn(Option<Access>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let access = self.access().await?;
        let outcome = attempt(access.clone()).await;
        let (
            Err(Error {
                kind: Kind::Unauthenticated,
                ..
            }),
            Some(tokens),
            Some(access),
            false,
        ) = (&outcome, &self.tokens, &access, renewed.load(Ordering::Relaxed))
        else {
            return outcome;
        };
        renewed.store(true, Ordering::Relaxed);
        tokens.reject(&access.token);
        attempt(self.access().await?).await
    }

    /// A call without its token is not sent.
    async fn access(&self) -> Result<Option<Access>, Error> {
        let unsent = |error| Error {
            not_sent: true,
            ..error
        };
        match &self.tokens {
            Some(tokens) => Ok(Some(Access {
                token: tokens.access_token().await.map_err(unsent)?,
                quota_project: tokens.quota_project().map(str::to_owned),
            })),
            None => Ok(None),
        }
    }
}

/// Adds the token, when there is one, and the project that pays.
/// Source: cloud.google.com/docs/quotas/set-quota-project.
pub(crate) fn authorized(request: reqwest::RequestBuilder, access: Option<&Access>) -> reqwest::RequestBuilder {
    let Some(access) = access else {
        return request;
    };
    let request = request.bearer_auth(access.token.expose());
    match &access.quota_project {
        Some(project) => request.header("x-goog-user-project", project),
        None => request,
    }
}
