//! A private Cloud Run service, called with an ID token. Two answer there: Google's front end, which checks the token
//! and speaks HTML, and the service behind it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::Error;
use super::http::{self, Http};
use super::secret::Secret;
use super::token::Tokens;

const OPERATION: &str = "call the service";
/// The most that an answer may have.
const LIMIT: usize = 16 * 1024 * 1024;
/// A token with less than this left is replaced before it is used.
const LEAST: Duration = Duration::from_secs(60);

/// The service, and who calls it for which audience.
#[derive(Debug)]
pub struct Service {
    http: Http,
    url: String,
    tokens: Tokens,
    audience: String,
    /// Good for an hour at most, and for all calls until then.
    token: Mutex<Option<Secret>>,
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Refused {
    /// The status.
    pub status: u16,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
    /// The service's own code and sentence; none when Google's front end answered in its place.
    pub service: Option<(String, String)>,
    /// Whose token was refused.
    pub caller: Caller,
}

/// What an ID token says of itself.
#[derive(Debug, Default, Deserialize)]
pub struct Caller {
    /// The account's address.
    #[serde(default)]
    pub email: String,
    /// Whom the token is for.
    #[serde(default)]
    pub aud: String,
    /// Until when it is good, in seconds since 1970.
    #[serde(default)]
    exp: i64,
}

impl Caller {
    fn is_good_for(&self, time: Duration) -> bool {
        chrono::DateTime::from_timestamp(self.exp, 0).is_some_and(|end| chrono::Utc::now() + time < end)
    }
}

/// Why a call brought nothing.
#[derive(Debug)]
pub enum CallError {
    /// No token, or no answer.
    Google(Error),
    /// An answer, but no success.
    Refused(Box<Refused>),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Google(error)
    }
}

impl Service {
    /// The service at `url`. Give it a client that is patient: the answer comes when the work is done.
    pub fn new(http: Http, url: &str, tokens: Tokens, audience: &str) -> Self {
        Self {
            http,
            url: url.to_owned(),
            tokens,
            audience: audience.to_owned(),
            token: Mutex::new(None),
        }
    }

    /// Gets the token now, so that a caller who can have none hears it once, before any work.
    ///
    /// # Errors
    /// As [`Tokens::id_token`].
    pub async fn authenticate(&self) -> Result<(), Error> {
        self.token().await.map(drop)
    }

    /// Posts JSON, asking for the result in the answer (RFC 7240); none where the service has none to give (204).
    ///
    /// # Errors
    /// No ID token, no answer, or one that is no success.
    pub async fn call(&self, body: &Value) -> Result<Option<Value>, CallError> {
        let token = self.token().await?;
        self.send(&token, body).await
    }

    async fn token(&self) -> Result<Secret, Error> {
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| claims(token).is_good_for(LEAST)) {
            return Ok(token.clone());
        }
        // With the address: the service knows its callers by it.
        let token = self.tokens.id_token(&self.audience, true).await?;
        *kept = Some(token.clone());
        Ok(token)
    }

    async fn send(&self, token: &Secret, body: &Value) -> Result<Option<Value>, CallError> {
        let request = self
            .http
            .request(Method::POST, &self.url)
            .bearer_auth(token.expose())
            .header("prefer", "return=representation")
            .json(body);
        let response = request
            .send()
            .await
            .map_err(|error| http::transport(OPERATION, &self.url, error))?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => {
                let body = http::body(OPERATION, &self.url, response, LIMIT).await?;
                Ok(Some(http::parse(OPERATION, &self.url, &body)?))
            }
            _ => Err(CallError::Refused(Box::new(refused(token, response).await))),
        }
    }
}

async fn refused(token: &Secret, response: Response) -> Refused {
    #[derive(Deserialize)]
    struct Body {
        error: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        code: String,
        message: String,
    }
    let status = response.status().as_u16();
    let retry_after = http::retry_after(response.headers());
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/json"));
    let text = http::beginning(response).await;
    let said = serde_json::from_slice::<Body>(&text).ok().filter(|_| is_json);
    Refused {
        status,
        retry_after,
        service: said.map(|body| (http::clean(&body.error.code), http::clean(&body.error.message))),
        caller: claims(token),
    }
}

/// What our own token says, for the sentence that explains the refusal: nothing is proved by it.
fn claims(token: &Secret) -> Caller {
    let claims = token.expose().split('.').nth(1);
    claims
        .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .unwrap_or_default()
}
