//! Messages that were delivered too often: whether they may be given up, and where they go.

use super::{
    super::{World, data::NotKept},
    model::Settings,
    queue::Delivery,
    subscription::Subscription,
};

/// A subscription's settings as they work: where Pub/Sub's agent may not forward dead letters, nothing is given up, and what
/// fails is delivered for ever.
pub(super) fn working(world: &World, mut settings: Settings) -> Settings {
    if let Some(policy) = &settings.dead_letter_policy {
        let may = |permission, resource: &str| world.policies.agent_may("pubsub-agent", permission, resource);
        let publish = may("pubsub.topics.publish", &format!("topic/{}", policy.dead_letter_topic));
        let acknowledge = may(
            "pubsub.subscriptions.consume",
            &format!("subscription/{}", settings.name),
        );
        if !publish || !acknowledge {
            settings.dead_letter_policy = None;
        }
    }
    settings
}

/// Publishes on the dead-letter topic what a subscription gave up, and forgets it then: it is in one of the two at any time.
pub(super) fn forward_dead(world: &World, subscription: &Subscription, settings: &Settings, dead: Vec<Delivery>) {
    let Some(policy) = &settings.dead_letter_policy else {
        return;
    };
    let ["projects", project, "subscriptions", id] = settings.name.split('/').collect::<Vec<_>>()[..] else {
        return;
    };
    for Delivery {
        ack_id,
        message,
        attempt,
    } in dead
    {
        let mut draft = message.draft.clone();
        let mut set = |key: &str, value: String| {
            draft
                .attributes
                .insert(format!("CloudPubSubDeadLetterSource{key}"), value)
        };
        set("Subscription", id.to_owned());
        set("SubscriptionProject", project.to_owned());
        set("DeliveryCount", attempt.to_string());
        set("TopicPublishTime", message.publish_time());
        // A dead-letter topic that was deleted since loses the message: Google's documentation warns of it.
        match world.pubsub.forward(world, &policy.dead_letter_topic, draft) {
            Ok(true) => {}
            Ok(false) => {
                let (topic, subscription) = (&policy.dead_letter_topic, &settings.name);
                tracing::warn!(subscription, topic, "a dead letter was lost: its topic is not there");
            }
            // It stays, and is tried again when the lease that it is held under ends.
            Err(error) => {
                tracing::warn!(%error, subscription = settings.name, "a dead letter waits");
                continue;
            }
        }
        let forgotten = subscription.queue.change(|queue| {
            queue.forget_dead(&ack_id);
            Ok::<_, NotKept>(())
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, subscription = settings.name, "a dead letter is forwarded again");
        }
        // What waits behind it in its order may go now.
        subscription.touch();
    }
}
