//! How things are set up: a bucket, its notifications, topics and subscriptions. Nothing here changes anything.
//!
//! A worker does not need these rights; `platen doctor` looks with them where it has them.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::secret::Secret;
use super::token::Tokens;
use super::{Error, Kind, encode};

/// A signed URL's operation, in errors.
const FETCH: &str = "GET of a signed URL";
/// The most that is taken of what a signed URL gives.
const FETCHED: usize = 64 * 1024;

/// Both APIs, with credentials.
#[derive(Debug, Clone)]
pub struct Inspector {
    storage: Api,
    pubsub: Api,
}

/// A bucket's settings, as far as they are looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bucket {
    /// Who may see what, apart from policies.
    pub iam_configuration: IamConfiguration,
}

/// How a bucket's policies work.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IamConfiguration {
    /// Whether single objects have no lists of their own.
    pub uniform_bucket_level_access: Switch,
    /// `enforced`, or `inherited` from the organisation.
    pub public_access_prevention: String,
}

/// On or off.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Switch {
    /// On.
    pub enabled: bool,
}

/// One notification configuration of a bucket.
#[derive(Debug, Clone, Deserialize)]
pub struct Notification {
    /// `//pubsub.googleapis.com/projects/P/topics/T`.
    topic: String,
    /// What is announced; empty: everything.
    #[serde(default)]
    pub event_types: Vec<String>,
}

impl Notification {
    /// `projects/P/topics/T`.
    pub fn topic(&self) -> &str {
        match self.topic.find("projects/") {
            Some(at) => &self.topic[at..],
            None => &self.topic,
        }
    }
}

/// A subscription's settings, as far as they are looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscription {
    /// `projects/P/topics/T`, or `_deleted-topic_`.
    pub topic: String,
    /// Where it pushes to.
    pub push_config: PushConfig,
    /// For how long a delivery is waited for.
    pub ack_deadline_seconds: u64,
    /// Where messages go that were delivered too often.
    pub dead_letter_policy: Option<DeadLetterPolicy>,
    /// How long to wait between two deliveries; none: not at all.
    pub retry_policy: Option<serde::de::IgnoredAny>,
}

/// Where a subscription pushes to, and as whom.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PushConfig {
    /// The URL; empty for a subscription that is pulled.
    pub push_endpoint: String,
    /// The token that a push carries.
    pub oidc_token: Option<OidcToken>,
}

/// The token of a push.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OidcToken {
    /// Whose it is.
    pub service_account_email: String,
    /// Whom it is for; empty: the endpoint.
    pub audience: String,
}

/// Where messages go that were delivered too often.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetterPolicy {
    /// `projects/P/topics/T`.
    pub dead_letter_topic: String,
    /// How often; 0 is Google's default.
    pub max_delivery_attempts: u32,
}

impl Inspector {
    /// The APIs at their base URLs, with few retries: who asks is a person that waits.
    pub fn new(http: &Http, storage: &str, pubsub: &str, tokens: Option<&Tokens>, budget: &Budget) -> Self {
        let api = |base_url| Api::new(http.clone(), base_url, tokens.cloned()).within(budget);
        Self {
            storage: api(storage),
            pubsub: api(pubsub),
        }
    }

    /// A bucket's settings.
    ///
    /// # Errors
    /// `Forbidden` without storage.buckets.get.
    pub async fn bucket(&self, bucket: &str) -> Result<Bucket, Error> {
        let url = format!("/storage/v1/b/{}", encode::component(bucket));
        get(&self.storage, "storage.buckets.get", &format!("gs://{bucket}"), &url).await
    }

    /// What a bucket announces, and where.
    ///
    /// # Errors
    /// `Forbidden` without storage.buckets.get.
    pub async fn notifications(&self, bucket: &str) -> Result<Vec<Notification>, Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<Notification>,
        }
        let url = format!("/storage/v1/b/{}/notificationConfigs", encode::component(bucket));
        let resource = format!("gs://{bucket}");
        let list: List = get(&self.storage, "storage.notifications.list", &resource, &url).await?;
        Ok(list.items)
    }

    /// The names of a topic's subscriptions, the first thousand.
    ///
    /// # Errors
    /// `Forbidden` without pubsub.topics.get, `NotFound` without that topic.
    /// Source: cloud.google.com/pubsub/docs/access-control, permissions by method.
    pub async fn subscriptions_of(&self, topic: &str) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            subscriptions: Vec<String>,
        }
        let url = format!("/v1/{}/subscriptions?pageSize=1000", path(topic));
        let list: List = get(&self.pubsub, "pubsub.topics.get", topic, &url).await?;
        Ok(list.subscriptions)
    }

    /// Whether a topic is there.
    ///
    /// # Errors
    /// `Forbidden` without pubsub.topics.get, `NotFound` without that topic.
    pub async fn topic(&self, topic: &str) -> Result<(), Error> {
        let url = format!("/v1/{}", path(topic));
        get::<serde::de::IgnoredAny>(&self.pubsub, "pubsub.topics.get", topic, &url)
            .await
            .map(drop)
    }

    /// A subscription's settings; `projects/P/subscriptions/S`.
    ///
    /// # Errors
    /// `Forbidden` without pubsub.subscriptions.get, `NotFound` without that subscription.
    pub async fn subscription(&self, name: &str) -> Result<Subscription, Error> {
        let url = format!("/v1/{}", path(name));
        get(&self.pubsub, "pubsub.subscriptions.get", name, &url).await
    }

    /// Whether the caller may publish to a topic, by asking the topic's policy: a message that only tries it would
    /// reach whoever reads results. Anybody may ask; of a topic that is not there, nobody may.
    /// Source: cloud.google.com/pubsub/docs/reference/rest/v1/projects.topics/testIamPermissions.
    ///
    /// # Errors
    /// When Pub/Sub does not answer.
    pub async fn may_publish(&self, topic: &str) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Held {
            #[serde(default)]
            permissions: Vec<String>,
        }
        const PUBLISH: &str = "pubsub.topics.publish";
        let operation = "pubsub.topics.testIamPermissions";
        let url = &self.pubsub.url(&format!("/v1/{}:testIamPermissions", path(topic)));
        let body = &json!({"permissions": [PUBLISH]});
        let held: Held = self
            .pubsub
            .call(Idempotency::Always, |access| async move {
                let request = authorized(self.pubsub.http.request(Method::POST, url), access.as_ref()).json(body);
                http::json(operation, topic, http::send(operation, topic, request).await?).await
            })
            .await?;
        Ok(held.permissions.iter().any(|permission| permission == PUBLISH))
    }
}

/// Fetches a signed URL as anybody could, without credentials. `resource` names the object in errors, which never
/// show the URL.
///
/// # Errors
/// `NotFound` when the URL is good and the object is not there; for any other refusal, `Forbidden` or `Invalid` with
/// the code and the details of Cloud Storage's answer.
pub async fn fetch_signed(http: &Http, url: &Secret, resource: &str) -> Result<Vec<u8>, Error> {
    let request = http.request(Method::GET, url.expose());
    let response = request
        .send()
        .await
        .map_err(|error| http::transport(FETCH, resource, error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(http::body(FETCH, resource, response, FETCHED).await?.to_vec());
    }
    let text = String::from_utf8_lossy(&http::beginning(response).await).into_owned();
    let (code, details) = (element(&text, "Code"), element(&text, "Details"));
    let kind = match (status, code) {
        (StatusCode::NOT_FOUND, Some("NoSuchKey")) => Kind::NotFound,
        (StatusCode::FORBIDDEN, Some("AccessDenied")) => Kind::Forbidden,
        (status, _) if status.is_server_error() => Kind::Unavailable,
        _ => Kind::Invalid,
    };
    let said = [code, details].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let message = match &*http::clean(&said) {
        "" => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        said => said.to_owned(),
    };
    Err(Error {
        status: Some(status.as_u16()),
        ..Error::new(kind, FETCH, resource, message)
    })
}

/// The text of an element without children.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(text, _)| text)
}

async fn get<T: DeserializeOwned>(api: &Api, operation: &'static str, resource: &str, path: &str) -> Result<T, Error> {
    let url = &api.url(path);
    api.call(Idempotency::Always, |access| async move {
        let request = authorized(api.http.request(Method::GET, url), access.as_ref());
        http::json(operation, resource, http::send(operation, resource, request).await?).await
    })
    .await
}

/// A resource's name as a path, each part encoded.
fn path(name: &str) -> String {
    name.split('/').map(encode::component).collect::<Vec<_>>().join("/")
}
