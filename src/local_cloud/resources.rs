//! Buckets, topics and subscriptions of a cloud, made and looked at by who runs it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    LocalCloud, Refusal,
    pubsub::{self, Acknowledgement},
    settings::Subscription,
};

impl LocalCloud {
    /// Makes a bucket; with `versioning` it keeps noncurrent generations.
    ///
    /// # Errors
    ///
    /// Google's, when the name is taken or illegal.
    pub fn create_bucket(&self, name: &str, versioning: bool) -> Result<(), Refusal> {
        self.world.storage.create_bucket(&self.world, name, versioning)
    }

    /// How many objects were written to a bucket without `ifGenerationMatch`: each could have replaced anything.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn unconditional_writes(&self, bucket: &str) -> Result<u64, Refusal> {
        self.world.storage.unconditional_writes(bucket)
    }

    /// Makes `host` (without a port) an address of `bucket` for signed URLs.
    pub fn bind_host(&self, host: &str, bucket: &str) {
        self.world.storage.bind_host(host, bucket);
    }

    /// Makes a topic; the id alone, without its project.
    ///
    /// # Errors
    ///
    /// Google's, when the name is taken or illegal.
    pub fn create_topic(&self, id: &str) -> Result<String, Refusal> {
        let name = self.topic_name(id);
        self.world.pubsub.create_topic(&name, json!({}))?;
        Ok(name)
    }

    pub(super) fn topic_name(&self, id: &str) -> String {
        format!("projects/{}/topics/{id}", self.world.settings.project)
    }

    /// Makes a subscription; its full name.
    ///
    /// # Errors
    ///
    /// Google's, when the topic is not there, or a setting is out of range.
    pub fn create_subscription(&self, wanted: &Subscription<'_>) -> Result<String, Refusal> {
        let body = self.subscription_body(wanted);
        let name = self.subscription_name(wanted.name);
        self.world
            .pubsub
            .create_subscription(&self.world, body, !wanted.temporary)?;
        Ok(name)
    }

    pub(super) fn subscription_name(&self, id: &str) -> String {
        format!("projects/{}/subscriptions/{id}", self.world.settings.project)
    }

    pub(super) fn subscription_body(&self, wanted: &Subscription<'_>) -> Value {
        let name = self.subscription_name(wanted.name);
        let mut body = json!({
            "name": name,
            "topic": self.topic_name(wanted.topic),
            "ackDeadlineSeconds": wanted.ack_deadline_seconds.unwrap_or(10),
            "enableMessageOrdering": wanted.ordered,
        });
        if let Some(endpoint) = wanted.push_endpoint {
            body["pushConfig"] = json!({"pushEndpoint": endpoint});
            if let Some(account) = wanted.service_account {
                let audience = wanted.audience.unwrap_or_default();
                body["pushConfig"]["oidcToken"] = json!({"serviceAccountEmail": account, "audience": audience});
            }
            if let Some(write_metadata) = wanted.unwrapped {
                body["pushConfig"]["noWrapper"] = json!({"writeMetadata": write_metadata});
            }
        }
        if let Some((least, most)) = wanted.retry_seconds {
            body["retryPolicy"] = json!({"minimumBackoff": format!("{least}s"), "maximumBackoff": format!("{most}s")});
        }
        if let Some((topic, attempts)) = wanted.dead_letter {
            body["deadLetterPolicy"] =
                json!({"deadLetterTopic": self.topic_name(topic), "maxDeliveryAttempts": attempts});
        }
        body
    }

    /// Publishes one message on a topic (its id); the message's id.
    ///
    /// # Errors
    ///
    /// Google's, when the topic is not there, or the message is over a limit.
    pub fn publish(&self, topic: &str, data: &[u8], attributes: &[(&str, &str)]) -> Result<String, Refusal> {
        let attributes: BTreeMap<String, String> = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let draft = pubsub::Draft::new(data.to_vec(), attributes);
        let ids = self
            .world
            .pubsub
            .publish(&self.world, &self.topic_name(topic), vec![draft])?;
        Ok(ids.into_iter().next().unwrap_or_default())
    }

    /// How many messages a subscription (its full name) still has to deliver or to see acknowledged.
    ///
    /// # Errors
    ///
    /// When there is no such subscription.
    pub fn backlog(&self, subscription: &str) -> Result<usize, Refusal> {
        self.world.pubsub.backlog(subscription)
    }

    /// What a subscription (its full name) has seen acknowledged, oldest first, and how much was published by then. The
    /// last 100,000 are kept.
    ///
    /// # Errors
    ///
    /// When there is no such subscription.
    pub fn acknowledgements(&self, subscription: &str) -> Result<Vec<Acknowledgement>, Refusal> {
        self.world.pubsub.acknowledgements(subscription)
    }

    /// Publishes what happens in a bucket on a topic (its id), payload included; the configuration's id.
    ///
    /// # Errors
    ///
    /// Google's, when one of the two is not there.
    pub fn create_notification(&self, bucket: &str, topic: &str) -> Result<String, Refusal> {
        let body = json!({
            "topic": format!("//pubsub.googleapis.com/{}", self.topic_name(topic)),
            "payload_format": "JSON_API_V1",
        });
        let resource = self.world.storage.create_notification(&self.world, bucket, &body)?;
        Ok(resource["id"].as_str().unwrap_or_default().to_owned())
    }
}
