//! Pub/Sub: publishing one message.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::token::Tokens;
use super::{Error, Kind, encode};

/// Google's own base URL.
pub const BASE_URL: &str = "https://pubsub.googleapis.com";

const PUBLISH: &str = "pubsub.topics.publish";

/// The API, with credentials.
#[derive(Debug, Clone)]
pub struct Publisher(Api);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    message_ids: Vec<String>,
}

impl Publisher {
    /// The API at `base_url`.
    pub fn new(http: Http, base_url: &str, tokens: Option<Tokens>) -> Self {
        Self(Api::new(http, base_url, tokens))
    }

    /// The same, drawing its retries from `budget`.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        Self(self.0.within(budget))
    }

    /// Publishes to `topic` (`projects/P/topics/T`) and returns the message's id.
    ///
    /// Repeated after a lost answer too, as Google's own clients do: the topic then holds the message twice, and
    /// consumers drop a repeated job id.
    ///
    /// # Errors
    /// `NotFound` without that topic, `Forbidden` without roles/pubsub.publisher on it, `Invalid` for a topic name of
    /// another form.
    pub async fn publish(
        &self,
        topic: &str,
        data: &[u8],
        attributes: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        let url = match topic.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "topics", name] if [project, name].iter().all(|part| is_plain(part)) => {
                self.0.url(&format!(
                    "/v1/projects/{}/topics/{}:publish",
                    encode::component(project),
                    encode::component(name)
                ))
            }
            _ => {
                return Err(Error::new(
                    Kind::Invalid,
                    PUBLISH,
                    topic,
                    "a topic is projects/PROJECT/topics/NAME",
                ));
            }
        };
        let (url, body) = (
            url.as_str(),
            &json!({"messages": [{"data": STANDARD.encode(data), "attributes": attributes}]}),
        );
        let published: Published = self
            .0
            .call(Idempotency::DuplicatesAllowed, |token| async move {
                let request = authorized(self.0.http.request(Method::POST, url), token.as_ref()).json(body);
                http::json(PUBLISH, topic, http::send(PUBLISH, topic, request).await?).await
            })
            .await?;
        published
            .message_ids
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::Invalid, PUBLISH, topic, "the answer holds no message id"))
    }
}

/// No dots-only segment, which URL parsers resolve away even when it is percent-encoded.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".."
}
