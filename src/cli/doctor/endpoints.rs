//! What else the worker calls: the result topic, and the keys of push tokens.

use std::time::Duration;

use super::patient::{Patient, Reach};
use super::report::{Line, State};
use crate::google::Kind;
use crate::google::grant::Grant;
use crate::google::keys::{KeyError, KeySet};

/// The pause before the keys are asked for again; sooner the key set does not ask.
const AGAIN: Duration = Duration::from_millis(1100);

/// Whether results can be published, without publishing one.
pub(super) async fn publish(patient: &Patient) -> Line {
    let (reach, topic) = (&patient.reach, &patient.topic);
    let what = format!("publish to {topic} (asked, not done: subscribers would get it)");
    let inspector = reach.inspector();
    let grant = Grant::publish(topic);
    match reach.within(topic, inspector.may_publish(topic)).await {
        Ok(true) => Line::good(what),
        Ok(false) => Line::missing(
            what,
            "the topic does not let the worker, or there is no such topic",
            &grant,
            &reach.member,
        ),
        // Google's emulator has no policies.
        Err(error) if reach.cloud.endpoints.pubsub_is_emulator && error.kind != Kind::Unavailable => {
            match reach.within(topic, inspector.topic(topic)).await {
                Ok(()) => Line::new(State::Good, what, "an emulator without policies; the topic is there"),
                Err(error) => Line::failed(what, &error, grant, &reach.member),
            }
        }
        Err(error) => Line::failed(what, &error, grant, &reach.member),
    }
}

/// Whether the keys of push tokens can be had.
pub(super) async fn keys(reach: &Reach) -> Line {
    let url = &reach.cloud.endpoints.jwks;
    let what = format!("fetch the keys of push tokens from {url}");
    let keys = KeySet::new(reach.http.clone(), url.clone());
    let mut last = None;
    // Nobody's key: whoever knows that has the set.
    let known = async {
        loop {
            match keys.key("platen-doctor").await {
                Ok(_) | Err(KeyError::Unknown) => return Ok(()),
                // One fetch has less time than a check.
                Err(KeyError::Unavailable(error)) if error.is_transient() => last = Some(error),
                Err(KeyError::Unavailable(error)) => {
                    last = None;
                    return Err(error);
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let known = reach.within(url, known).await;
    match known {
        Ok(()) => Line::good(what),
        Err(error) => Line::new(State::Wrong, what, last.unwrap_or(error).to_string()),
    }
}
