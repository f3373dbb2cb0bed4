//! Jobs published on the topic that pushes to the worker.

use std::collections::BTreeMap;

use super::super::Failure;
use super::super::cloud::{self, Cloud};
use super::results::Waiting;
use super::{Failed, Job};
use crate::google::http::Http;
use crate::google::pubsub::Publisher;

/// Publishes every job and notes under which id.
pub(super) async fn publish(
    cloud: &Cloud,
    topic: &str,
    jobs: &[Job],
    waiting: &mut Waiting,
    failed: &mut Failed,
) -> Result<(), Failure> {
    if !cloud.endpoints.pubsub_is_emulator {
        cloud.required()?;
    }
    let topic = cloud.resource("topics", topic).await?;
    let http = Http::new().map_err(cloud::work)?;
    let publisher = Publisher::new(http, &cloud.endpoints.pubsub, cloud.tokens.clone());
    for job in jobs {
        let data = job.body.to_string();
        match publisher.publish(&topic, data.as_bytes(), &BTreeMap::new()).await {
            Ok(id) => {
                eprintln!("published {} as message {id}", job.source);
                waiting.message(&id, &job.source);
            }
            Err(error) => failed.say(
                &job.source,
                &cloud.granting(error, "topics", "roles/pubsub.publisher").await,
            ),
        }
    }
    Ok(())
}
