//! Pub/Sub: reading a subscription's messages, and how it is set up.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::token::Tokens;
use super::{Error, Kind, encode};

const CONSUME: &str = "pubsub.subscriptions.consume";
const GET: &str = "pubsub.subscriptions.get";
/// What a dead-letter policy has that does not say.
/// Source: DeadLetterPolicy in google/pubsub/v1/pubsub.proto.
const DEFAULT_ATTEMPTS: u32 = 5;
/// The most that one answer may have: a message has up to 10 MB, a third more as base64.
const LIMIT: usize = 64 * 1024 * 1024;

/// A subscription, with credentials.
#[derive(Debug, Clone)]
pub struct Subscription {
    api: Api,
    name: String,
    url: String,
}

/// A message that is leased to us. Its data may be anybody's, so it has no `Debug`.
pub struct Received {
    /// What acknowledges it.
    pub ack_id: String,
    /// Its id.
    pub id: String,
    /// When it was published, by Pub/Sub's clock; none where that is not said.
    pub published: Option<DateTime<Utc>>,
    /// Its data.
    pub data: Vec<u8>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its ordering key; empty for none.
    pub ordering_key: String,
}

impl Subscription {
    /// `name` is `projects/P/subscriptions/S`. Give it a client that is patient: a pull waits for a message.
    ///
    /// # Errors
    /// `Invalid` for a name of another form.
    pub fn new(http: Http, base_url: &str, tokens: Option<Tokens>, name: &str) -> Result<Self, Error> {
        let plain = |part: &&str| !part.is_empty() && **part != *"." && **part != *"..";
        let api = Api::new(http, base_url, tokens);
        let url = match name.split('/').collect::<Vec<_>>()[..] {
            ["projects", project, "subscriptions", id] if [project, id].iter().all(plain) => api.url(&format!(
                "/v1/projects/{}/subscriptions/{}",
                encode::component(project),
                encode::component(id)
            )),
            _ => {
                let message = "a subscription is projects/PROJECT/subscriptions/NAME";
                return Err(Error::new(Kind::Invalid, CONSUME, name, message));
            }
        };
        let name = name.to_owned();
        Ok(Self { api, name, url })
    }

    /// The messages that are there, at most this many, after waiting for some; maybe none.
    ///
    /// # Errors
    /// `TooLarge` when so many do not fit in an answer that we read, `NotFound` without that subscription, `Forbidden` without roles/pubsub.subscriber on it.
    pub async fn pull(&self, most: usize) -> Result<Vec<Received>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Pulled {
            #[serde(default)]
            received_messages: Vec<Item>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Item {
            ack_id: String,
            message: Message,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Message {
            #[serde(default)]
            message_id: String,
            publish_time: Option<DateTime<Utc>>,
            #[serde(default)]
            data: String,
            #[serde(default)]
            attributes: BTreeMap<String, String>,
            #[serde(default)]
            ordering_key: String,
        }
        let pulled: Pulled = self.call("pull", &json!({"maxMessages": most})).await?;
        let received = pulled.received_messages.into_iter().map(|item| {
            let data = STANDARD.decode(item.message.data).map_err(|_| {
                let what = format!("the data of message {} is not base64", item.message.message_id);
                Error::new(Kind::Invalid, CONSUME, &self.name, what)
            })?;
            Ok(Received {
                ack_id: item.ack_id,
                id: item.message.message_id,
                published: item.message.publish_time,
                data,
                attributes: item.message.attributes,
                ordering_key: item.message.ordering_key,
            })
        });
        received.collect()
    }

    /// Says that messages have been dealt with.
    ///
    /// # Errors
    /// As [`Subscription::pull`].
    pub async fn acknowledge(&self, ack_ids: &[String]) -> Result<(), Error> {
        self.call::<Value>("acknowledge", &json!({"ackIds": ack_ids}))
            .await
            .map(drop)
    }

    /// Gives leases back: whoever else reads the subscription gets the messages at once.
    ///
    /// # Errors
    /// As [`Subscription::pull`].
    pub async fn release(&self, ack_ids: &[String]) -> Result<(), Error> {
        // An ack id has some 200 bytes, and a request may have 512 KiB.
        for ack_ids in ack_ids.chunks(1000) {
            let body = json!({"ackIds": ack_ids, "ackDeadlineSeconds": 0});
            self.call::<Value>("modifyAckDeadline", &body).await?;
        }
        Ok(())
    }

    /// How often a message is delivered before it goes to the dead-letter topic; none where there is no such topic.
    ///
    /// # Errors
    /// `NotFound` without that subscription, `Forbidden` without roles/pubsub.viewer on it.
    pub async fn max_delivery_attempts(&self, budget: &Budget) -> Result<Option<u32>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Settings {
            dead_letter_policy: Option<DeadLetterPolicy>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct DeadLetterPolicy {
            #[serde(default)]
            max_delivery_attempts: u32,
        }
        let settings: Settings = self
            .api
            .within(budget)
            .call(Idempotency::Always, |access| async move {
                let request = authorized(self.api.http.request(Method::GET, &self.url), access.as_ref());
                http::json(GET, &self.name, http::send(GET, &self.name, request).await?).await
            })
            .await?;
        Ok(settings
            .dead_letter_policy
            .map(|policy| match policy.max_delivery_attempts {
                0 => DEFAULT_ATTEMPTS,
                attempts => attempts,
            }))
    }

    async fn call<T: DeserializeOwned>(&self, verb: &str, body: &Value) -> Result<T, Error> {
        let url = &format!("{}:{verb}", self.url);
        self.api
            .within(&Budget::default())
            .call(Idempotency::Always, |access| async move {
                let request = authorized(self.api.http.request(Method::POST, url), access.as_ref()).json(body);
                let response = http::send(CONSUME, &self.name, request).await?;
                let body = http::body(CONSUME, &self.name, response, LIMIT).await?;
                http::parse(CONSUME, &self.name, &body)
            })
            .await
    }
}
