//! Pub/Sub: publishing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::token::Tokens;
use super::{Error, Kind, encode};

/// Google's own base URL.
pub const BASE_URL: &str = "https://pubsub.googleapis.com";

const PUBLISH: &str = "pubsub.topics.publish";

/// The most messages that one request may hold.
/// Source: cloud.google.com/pubsub/quotas#resource_limits.
const MOST_MESSAGES: usize = 1000;
/// The most bytes that one request is given: Google takes 10 MB, the topic's name and what stands around it included.
const MOST_BYTES: usize = 9_000_000;
/// What stands around the fields of one message.
const FRAME: usize = 64;

/// A message to publish. Its data may be anybody's, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Message {
    /// What it says.
    pub data: Vec<u8>,
    /// What subscriptions filter on. A message without data has at least one.
    pub attributes: BTreeMap<String, String>,
    /// Messages of one key are delivered in their order, where the subscription asks for it; empty for none.
    pub ordering_key: String,
}

impl Message {
    /// Bytes in a request, at most: its data as base64, its texts as JSON, where a control character takes six.
    fn size(&self) -> usize {
        let text = |text: &str| {
            text.chars()
                .map(|c| if c.is_control() { 6 } else { 2 * c.len_utf8() })
                .sum::<usize>()
        };
        let attributes = self.attributes.iter().map(|(name, value)| text(name) + text(value) + 6);
        FRAME + self.data.len().div_ceil(3) * 4 + attributes.sum::<usize>() + text(&self.ordering_key)
    }

    fn json(&self) -> Value {
        let mut message = json!({"data": STANDARD.encode(&self.data), "attributes": self.attributes});
        if !self.ordering_key.is_empty() {
            message["orderingKey"] = json!(self.ordering_key);
        }
        message
    }
}

/// Cuts messages into requests that Pub/Sub takes: 1,000 messages, 10 MB. A message that is too large by itself is a
/// request of its own, which Pub/Sub refuses.
pub fn batches(mut messages: &[Message]) -> impl Iterator<Item = &[Message]> {
    std::iter::from_fn(move || {
        let mut size = 0;
        let fitting = messages
            .iter()
            .take(MOST_MESSAGES)
            .take_while(|message| {
                size += message.size();
                size <= MOST_BYTES
            })
            .count();
        let (batch, rest) = messages.split_at_checked(fitting.max(1))?;
        messages = rest;
        Some(batch)
    })
}

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
        let message = json!({"data": STANDARD.encode(data), "attributes": attributes});
        let ids = self.send(topic, &json!({"messages": [message]}), 1).await?;
        ids.into_iter()
            .next()
            .ok_or_else(|| Error::new(Kind::Invalid, PUBLISH, topic, "the answer holds no message id"))
    }

    /// Publishes messages that fit in one request (see [`batches`]), all or none, and returns their ids in their order.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; `Invalid` too for what Pub/Sub does not take.
    pub async fn publish_batch(&self, topic: &str, batch: &[Message]) -> Result<Vec<String>, Error> {
        let messages: Vec<Value> = batch.iter().map(Message::json).collect();
        self.send(topic, &json!({"messages": messages}), batch.len()).await
    }

    async fn send(&self, topic: &str, body: &Value, messages: usize) -> Result<Vec<String>, Error> {
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
        let url = url.as_str();
        let published: Published = self
            .0
            .call(Idempotency::DuplicatesAllowed, |token| async move {
                let request = authorized(self.0.http.request(Method::POST, url), token.as_ref()).json(body);
                http::json(PUBLISH, topic, http::send(PUBLISH, topic, request).await?).await
            })
            .await?;
        if published.message_ids.len() == messages {
            return Ok(published.message_ids);
        }
        let said = format!(
            "{messages} messages were sent, the answer has {} ids",
            published.message_ids.len()
        );
        Err(Error::new(Kind::Invalid, PUBLISH, topic, said))
    }
}

/// No dots-only segment, which URL parsers resolve away even when it is percent-encoded.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        Message {
            data: vec![b'x'; bytes],
            ..Message::default()
        }
    }

    fn sizes(messages: &[Message]) -> Vec<usize> {
        batches(messages).map(<[Message]>::len).collect()
    }

    #[test]
    fn requests_stay_below_both_limits_and_lose_nothing() {
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![message(10); 2500]), [1000, 1000, 500]);
        assert_eq!(sizes(&vec![message(3_000_000); 5]), [2, 2, 1]);
        assert_eq!(sizes(&[message(20_000_000), message(1)]), [1, 1]);
    }

    #[test]
    fn no_message_is_larger_than_it_is_taken_for() {
        let attributes = [("na\u{1}me", "\"quoted\" \n é"), ("b", "")].map(|(name, value)| (name.into(), value.into()));
        let message = Message {
            data: b"12345".to_vec(),
            attributes: attributes.into(),
            ordering_key: "\\key".into(),
        };
        assert!(message.json().to_string().len() < message.size());
    }
}
