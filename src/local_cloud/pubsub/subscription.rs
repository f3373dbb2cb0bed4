//! One subscription: its settings, its messages and who waits for them.

use std::sync::Mutex;

use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        World,
        data::{Kept, NotKept, Single},
        server::lock,
    },
    dead_letters::{forward_dead, working},
    filter::Filter,
    model::Settings,
    push::Pace,
    queue::{Look, Queue, Taken},
};

/// One subscription and its messages.
pub(in super::super) struct Subscription {
    pub(super) settings: Kept<Single<Settings>>,
    /// Which messages it gets; it never changes.
    pub(super) filter: Option<Filter>,
    pub(super) queue: Kept<Queue>,
    pub(super) pace: Mutex<Pace>,
    pub(super) deleted: Mutex<bool>,
    /// Counts what happened, so that pushers and pullers look again.
    pub(super) changed: watch::Sender<u64>,
}

impl Subscription {
    pub(super) fn new(settings: Kept<Single<Settings>>, filter: Option<Filter>, queue: Kept<Queue>) -> Self {
        Self {
            settings,
            filter,
            queue,
            pace: Mutex::default(),
            deleted: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings::clone(&self.settings.look())
    }

    pub(super) fn set(&self, settings: Settings) -> Result<(), NotKept> {
        self.settings.change(|value| {
            **value = settings;
            Ok(())
        })
    }

    pub(super) fn is_deleted(&self) -> bool {
        *lock(&self.deleted)
    }

    pub(super) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Leases up to `most` messages, and sends off those that are given up.
    pub(super) fn take(
        &self,
        world: &World,
        settings: &Settings,
        most: usize,
        one_of_a_key: bool,
    ) -> Result<Taken, NotKept> {
        let given_up_by = working(world, settings.clone());
        loop {
            let look = Look {
                settings: &given_up_by,
                most,
                one_of_a_key,
                second: world.settings.pubsub_second,
                now: world.clock.now(),
            };
            let mut taken = self.queue.change(|queue| Ok::<_, NotKept>(queue.take(&look)))?;
            let dead = std::mem::take(&mut taken.dead);
            if dead.is_empty() {
                return Ok(taken);
            }
            forward_dead(world, self, settings, dead);
            // What waited behind them in its order may go now.
            if !taken.deliveries.is_empty() {
                return Ok(taken);
            }
        }
    }

    /// Sends off what is given up of a subscription that is pulled, where nobody may ever look again; when to do that next.
    pub(super) fn give_up(&self, world: &World, settings: &Settings) -> Result<Option<Instant>, NotKept> {
        let given_up_by = working(world, settings.clone());
        let look = Look {
            settings: &given_up_by,
            most: 0,
            one_of_a_key: false,
            second: world.settings.pubsub_second,
            now: world.clock.now(),
        };
        let taken = self.queue.change(|queue| Ok::<_, NotKept>(queue.give_up(&look)))?;
        forward_dead(world, self, settings, taken.dead);
        Ok(taken.again_at)
    }

    pub(super) fn acknowledge(&self, world: &World, ack_ids: &[impl AsRef<str>]) -> Result<(), NotKept> {
        let retain = self.settings.look().retain_acked_messages;
        let kept = self.queue.change(|queue| {
            for id in ack_ids {
                queue.acknowledge(id.as_ref(), retain, world.pubsub.published());
            }
            Ok::<_, NotKept>(())
        });
        // Also where it could not be kept: the pusher has room again.
        self.touch();
        kept
    }
}
