//! What all APIs share: base URL, access token, retries.

use std::sync::atomic::{AtomicBool, Ordering};

use super::http::Http;
use super::retry::{self, Budget};
use super::secret::Secret;
use super::token::Tokens;
use super::{Error, Kind};

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

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// A budget for work that goes beyond one call: a download with its resumptions.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone().unwrap_or_default()
    }

    /// Runs `attempt` with an access token under the retry policy. A 401 gets a fresh token once: it says that nothing
    /// was done, so this holds for every call.
    pub(crate) async fn call<T, F>(&self, attempt: impl Fn(Option<Secret>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (renewed, attempt) = (&AtomicBool::new(false), &attempt);
        retry::run(&self.budget(), || async move {
            let token = self.token().await?;
            let outcome = attempt(token.clone()).await;
            let (
                Err(Error {
                    kind: Kind::Unauthenticated,
                    ..
                }),
                Some(tokens),
                Some(token),
                false,
            ) = (&outcome, &self.tokens, &token, renewed.load(Ordering::Relaxed))
            else {
                return outcome;
            };
            renewed.store(true, Ordering::Relaxed);
            tokens.reject(token);
            attempt(self.token().await?).await
        })
        .await
    }

    async fn token(&self) -> Result<Option<Secret>, Error> {
        match &self.tokens {
            Some(tokens) => tokens.access_token().await.map(Some),
            None => Ok(None),
        }
    }
}

/// Adds the token, when there is one.
pub(crate) fn authorized(request: reqwest::RequestBuilder, token: Option<&Secret>) -> reqwest::RequestBuilder {
    match token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    }
}
