//! Publishing: each subscription's copy, in one change.

use std::sync::{Arc, atomic::Ordering};

use chrono::{DateTime, Utc};

use super::{
    super::{
        Refusal, World,
        data::{Held, Kept, Loose, NotKept, commit},
        server::lock,
    },
    Draft, PUBLISHED, Pubsub,
    model::{Message, check_drafts},
    queue::Queue,
};

/// Google's ids are numbers of 14 to 17 digits; nobody may read more into them but who asks this cloud what came first.
const FIRST_ID: u64 = 10_000_000_000_000_000;

/// Which of all messages of a local cloud a message id is, counted from 1 in the order they were published; none for
/// what is no id of one.
pub fn number_of(message_id: &str) -> Option<u64> {
    message_id.parse::<u64>().ok()?.checked_sub(FIRST_ID)?.checked_add(1)
}

impl Pubsub {
    /// Gives every subscription of the topic its copy; the message ids, which an emulator does not say in time.
    pub(in super::super) fn publish(
        &self,
        world: &World,
        topic: &str,
        drafts: Vec<Draft>,
    ) -> Result<Vec<String>, Refusal> {
        if let Some(emulator) = &self.emulator {
            return emulator.publish(topic, &drafts).map(|()| Vec::new());
        }
        check_drafts(&drafts)?;
        if !self.has_topic(topic) {
            return Err(Refusal::no_resource(topic));
        }
        let drafts = drafts.into_iter().map(|draft| (topic.to_owned(), draft)).collect();
        Ok(self.distribute(world, drafts, None)?)
    }

    /// Publishes what a subscription has given up; whether the topic is there. It may be larger than what a client may publish:
    /// where it came from was added.
    pub(super) fn forward(&self, world: &World, topic: &str, draft: Draft) -> Result<bool, NotKept> {
        if !self.has_topic(topic) {
            return Ok(false);
        }
        self.distribute(world, vec![(topic.to_owned(), draft)], None)?;
        Ok(true)
    }

    /// Publishes what other changes of the cloud are announced by, together with them. A topic that was deleted since loses its
    /// messages, as Google's does.
    pub(in super::super) fn announce(
        &self,
        world: &World,
        mut messages: Vec<(String, Draft)>,
        along: &mut dyn Held,
    ) -> Result<(), NotKept> {
        messages.retain(|(topic, draft)| self.has_topic(topic) && check_drafts(std::slice::from_ref(draft)).is_ok());
        if let Some(emulator) = &self.emulator {
            commit(&mut [along])?;
            for (topic, draft) in messages {
                // Only what is too large is refused, and that is not here any more.
                let _nothing = emulator.publish(&topic, &[draft]);
            }
            return Ok(());
        }
        if messages.is_empty() {
            return commit(&mut [along]);
        }
        self.distribute(world, messages, Some(along)).map(drop)
    }

    /// Puts messages into all queues that they belong in, all of them or none; the message ids.
    fn distribute(
        &self,
        world: &World,
        drafts: Vec<(String, Draft)>,
        along: Option<&mut dyn Held>,
    ) -> Result<Vec<String>, NotKept> {
        let subscriptions = lock(&self.subscriptions);
        let published = world.clock.now();
        let messages: Vec<(String, Arc<Message>)> = drafts
            .into_iter()
            .map(|(topic, draft)| {
                let id = (FIRST_ID + self.published.fetch_add(1, Ordering::SeqCst)).to_string();
                (topic, Arc::new(Message { id, published, draft }))
            })
            .collect();
        let of_snapshots = self.snapshots.takers(published);
        let (mut takers, mut touched) = (Vec::new(), Vec::new());
        for subscription in subscriptions.values() {
            let (topic, retain, since) = {
                let settings = subscription.settings.look();
                if settings.detached {
                    continue;
                }
                let since = published - settings.retention();
                (settings.topic.clone(), settings.retain_acked_messages, since)
            };
            let filter = subscription.filter.as_ref();
            let wanted = |message: &Message| filter.is_none_or(|filter| filter.matches(&message.draft.attributes));
            let share = Share {
                messages: of_topic(&messages, &topic, wanted),
                retain,
                since: Some(since),
            };
            if !share.messages.is_empty() {
                takers.push((&subscription.queue, share));
                touched.push(subscription);
            }
        }
        for (topic, queue) in &of_snapshots {
            let share = Share {
                messages: of_topic(&messages, topic, |_| true),
                retain: false,
                since: None,
            };
            if !share.messages.is_empty() {
                takers.push((queue.as_ref(), share));
            }
        }
        let mut count = match &self.journal {
            Some(journal) => Loose::put(Some(journal), PUBLISHED, &self.published()),
            None => Loose::default(),
        };
        let queues: Vec<&Kept<Queue>> = takers.iter().map(|(queue, _)| *queue).collect();
        let add = |index: usize, queue: &mut Queue| {
            let (_, share) = &takers[index];
            // Nobody else may ever look into a subscription that is not pulled.
            if let Some(since) = share.since {
                queue.forget_published_until(since);
            }
            for message in &share.messages {
                queue.add(Arc::clone(message), share.retain);
            }
        };
        match along {
            Some(along) => Kept::change_all(&queues, &mut [along, &mut count], add)?,
            None => Kept::change_all(&queues, &mut [&mut count], add)?,
        }
        for subscription in touched {
            subscription.touch();
        }
        Ok(messages.iter().map(|(_, message)| message.id.clone()).collect())
    }
}

/// What one queue gets.
struct Share<'a> {
    messages: Vec<&'a Arc<Message>>,
    /// Whether what counts as acknowledged at once is kept for a seek.
    retain: bool,
    /// What was published until then is too old.
    since: Option<DateTime<Utc>>,
}

fn of_topic<'a>(
    messages: &'a [(String, Arc<Message>)],
    topic: &str,
    wanted: impl Fn(&Message) -> bool,
) -> Vec<&'a Arc<Message>> {
    let of_topic = messages.iter().filter(|(other, _)| other == topic);
    of_topic
        .map(|(_, message)| message)
        .filter(|message| wanted(message))
        .collect()
}
