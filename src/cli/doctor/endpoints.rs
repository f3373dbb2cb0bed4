//! What else the worker calls: the result topic, and the keys of push tokens.

use super::patient::{Patient, Reach, shell};
use super::report::{Grant, Line, State};
use crate::google::Kind;
use crate::google::keys::{KeyError, KeySet};

/// Whether results can be published, without publishing one.
pub(super) async fn publish(patient: &Patient) -> Line {
    let (reach, topic) = (&patient.reach, &patient.topic);
    let what = format!("publish to {topic} (asked, not done: subscribers would get it)");
    let inspector = reach.inspector();
    let grant = publish_grant(topic, &reach.member);
    match reach.within(topic, inspector.may_publish(topic)).await {
        Ok(true) => Line::good(what),
        Ok(false) => Line::missing(
            what,
            "the topic does not let the worker, or there is no such topic",
            &grant,
        ),
        // Google's emulator has no policies.
        Err(error) if reach.cloud.endpoints.pubsub_is_emulator && error.kind != Kind::Unavailable => {
            match reach.within(topic, inspector.topic(topic)).await {
                Ok(()) => Line::new(State::Good, what, "an emulator without policies; the topic is there"),
                Err(error) => Line::failed(what, &error, &grant),
            }
        }
        Err(error) => Line::failed(what, &error, &grant),
    }
}

fn publish_grant(topic: &str, member: &str) -> Grant {
    let role = "roles/pubsub.publisher";
    let member = shell(member);
    let command = match topic.split('/').collect::<Vec<_>>()[..] {
        [_, project, _, name] => {
            format!(
                "gcloud pubsub topics add-iam-policy-binding {name} --project={project} --member={member} --role={role}"
            )
        }
        _ => format!("gcloud pubsub topics add-iam-policy-binding {topic} --member={member} --role={role}"),
    };
    Grant {
        permission: "pubsub.topics.publish",
        role,
        command,
    }
}

/// Whether the keys of push tokens can be had.
pub(super) async fn keys(reach: &Reach) -> Line {
    let url = &reach.cloud.endpoints.jwks;
    let what = format!("fetch the keys of push tokens from {url}");
    let keys = KeySet::new(reach.http.clone(), url.clone());
    // Nobody's key: whoever knows that has the set.
    let known = async {
        match keys.key("platen-doctor").await {
            Ok(_) | Err(KeyError::Unknown) => Ok(()),
            Err(KeyError::Unavailable(error)) => Err(error),
        }
    };
    match reach.within(url, known).await {
        Ok(()) => Line::good(what),
        Err(error) => Line::new(State::Wrong, what, error.to_string()),
    }
}
