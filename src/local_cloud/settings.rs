//! What a caller of the local cloud says, and where it then finds the peers.

use std::time::Duration;

use chrono::TimeDelta;

use super::clock::Clock;

/// How the local cloud is set up. The defaults are a project that works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project's id.
    pub project: String,
    /// The project's number.
    pub project_number: u64,
    /// Whom the metadata server speaks for.
    pub worker_service_account: String,
    /// Whose ID token a push carries.
    pub push_service_account: String,
    /// What the metadata server says the universe is.
    pub universe_domain: String,
    /// Who signs URLs; the worker may call `signBlob` as it, and as itself.
    pub signer_service_account: String,
    /// The time, for a test to shift.
    pub clock: Clock,
    /// Refuse API calls without a valid access token.
    pub demand_credentials: bool,
    /// How long access tokens live.
    pub access_token_lifetime: TimeDelta,
    /// `max-age` of the OIDC key set.
    pub key_set_max_age: Duration,
    /// `Age` of the OIDC key set.
    pub key_set_age: Duration,
    /// How long one second of Pub/Sub takes: ack deadlines, retry policies and push back-off are multiples of it.
    /// Tests make it short.
    pub pubsub_second: Duration,
    /// The most pushes outstanding for one subscription.
    pub push_window: usize,
    /// `HOST:PORT` of Google's own Pub/Sub emulator, which then keeps topics and subscriptions. It must reach this machine's
    /// loopback for its pushes.
    pub pubsub_emulator: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            project: "local-project".to_owned(),
            project_number: 123_456_789_012,
            worker_service_account: "worker@local-project.iam.gserviceaccount.com".to_owned(),
            push_service_account: "push@local-project.iam.gserviceaccount.com".to_owned(),
            signer_service_account: "signer@local-project.iam.gserviceaccount.com".to_owned(),
            universe_domain: "googleapis.com".to_owned(),
            clock: Clock::default(),
            demand_credentials: true,
            access_token_lifetime: TimeDelta::seconds(3599),
            key_set_max_age: Duration::from_secs(21_600),
            key_set_age: Duration::from_secs(12),
            pubsub_second: Duration::from_secs(1),
            push_window: 3000,
            pubsub_emulator: None,
        }
    }
}

/// Base URLs, `http://127.0.0.1:PORT` without a slash at the end; `jwks` is the whole address of the key set.
#[derive(Clone, Debug)]
pub struct Urls {
    /// Cloud Storage: JSON API and signed URLs.
    pub storage: String,
    /// Pub/Sub.
    pub pubsub: String,
    /// The metadata server; `GCE_METADATA_HOST` is this without `http://`.
    pub metadata: String,
    /// IAM Credentials; the OAuth token endpoint is `/token` there.
    pub iam: String,
    /// The Security Token Service.
    pub sts: String,
    /// The OIDC key set.
    pub jwks: String,
    /// Cloud KMS.
    pub kms: String,
    /// What stands before a private Cloud Run service: see [`LocalCloud::open_front_door`].
    pub front_door: String,
}

/// A push subscription to make; see [`LocalCloud::create_subscription`].
#[derive(Clone, Debug, Default)]
pub struct Subscription<'a> {
    /// The subscription's id, without its project.
    pub name: &'a str,
    /// The topic's id, without its project.
    pub topic: &'a str,
    /// Where to push; pulled when absent.
    pub push_endpoint: Option<&'a str>,
    /// `aud` of the push token; the endpoint when absent.
    pub audience: Option<&'a str>,
    /// Whose token a push carries; none when absent.
    pub service_account: Option<&'a str>,
    /// 10 to 600 s, 10 when absent.
    pub ack_deadline_seconds: Option<u32>,
    /// Least and most seconds between deliveries of one message; at once when absent.
    pub retry_seconds: Option<(u32, u32)>,
    /// The id of the dead-letter topic and the deliveries (5 to 100) after which it gets the message.
    pub dead_letter: Option<(&'a str, u32)>,
    /// Push the message's data alone; true writes its metadata to headers.
    pub unwrapped: Option<bool>,
    /// One message of an ordering key at a time.
    pub ordered: bool,
    /// Gone with the process, also where a directory keeps the others.
    pub temporary: bool,
}
