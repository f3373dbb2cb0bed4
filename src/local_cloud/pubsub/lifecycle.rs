//! Topics and subscriptions are made, redirected and deleted.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{
        Refusal, World,
        bindings::Policy,
        data::{Held, Kept, Loose, NotKept, Single, Table},
        server::lock,
    },
    Pubsub, SUBSCRIPTIONS, access, manage,
    model::{self, Settings, check_name},
    place_of_queue, push,
    queue::Queue,
    subscription::Subscription,
};

/// What a subscription's `topic` says after that was deleted.
const DELETED_TOPIC: &str = "_deleted-topic_";

impl Pubsub {
    pub(in super::super) fn create_topic(&self, name: &str, body: Value) -> Result<Value, Refusal> {
        check_name(name, "topics")?;
        let _alone = lock(&self.configuring);
        let topic = manage::topic(name, body)?;
        if let Some(emulator) = &self.emulator {
            emulator.create_topic(name);
            return Ok(topic);
        }
        self.topics.change(|topics| {
            if topics.contains_key(name) {
                return Err(Refusal::resource_exists(name));
            }
            topics.insert(name.to_owned(), topic.clone());
            Ok(topic)
        })
    }

    pub(super) fn delete_topic(&self, world: &World, name: &str) -> Result<(), Refusal> {
        let _alone = lock(&self.configuring);
        let subscriptions = lock(&self.subscriptions);
        let of_topic: Vec<_> = subscriptions
            .values()
            .map(|subscription| &subscription.settings)
            .collect();
        if !self.has(name) {
            return Err(Refusal::no_resource(name));
        }
        self.forget_policy(world, name, |policy| {
            self.snapshots.about.change_with(
                |snapshots| {
                    snapshots.leave_topic(name, DELETED_TOPIC);
                    Ok(())
                },
                |snapshots, ()| {
                    self.topics.change_with(
                        |topics| {
                            topics.remove(name);
                            Ok(())
                        },
                        |held, ()| {
                            Kept::change_all(&of_topic, &mut [held, policy, snapshots], |_, settings| {
                                if settings.topic == name {
                                    DELETED_TOPIC.clone_into(&mut settings.topic);
                                }
                            })
                        },
                    )
                },
            )
        })?;
        Ok(())
    }

    /// Deletes something together with its policy; `with` must commit what it is handed.
    fn forget_policy(
        &self,
        world: &World,
        name: &str,
        with: impl FnOnce(&mut dyn Held) -> Result<(), NotKept>,
    ) -> Result<(), NotKept> {
        let forget = |access: &mut Table<Policy>| {
            if access.contains_key(name) {
                access.remove(name);
            }
            Ok(())
        };
        self.access.change_with(forget, |held, ()| with(held))?;
        let project = &world.settings.project;
        world.policies.bind(project, &access::resource(name), Vec::new());
        Ok(())
    }

    /// Makes a subscription, which ends with the process unless it `outlives` that.
    pub(in super::super) fn create_subscription(
        &self,
        world: &Arc<World>,
        settings: Value,
        outlives: bool,
    ) -> Result<Value, Refusal> {
        let _alone = lock(&self.configuring);
        let settings = Settings {
            detached: false,
            ..model::subscription(settings)?
        };
        let settings = self.checked(world, settings)?;
        check_name(&settings.name, "subscriptions")?;
        check_name(&settings.topic, "topics")?;
        if !self.has_topic(&settings.topic) {
            return Err(Refusal::no_resource(&settings.topic));
        }
        if let Some(emulator) = &self.emulator {
            emulator.create_subscription(&settings.name, json!(settings))?;
            return Ok(settings.json());
        }
        let filter = settings.parsed_filter()?;
        let answer = settings.json();
        let name = settings.name.clone();
        let ordered = settings.enable_message_ordering;
        let journal = self.journal.as_ref().filter(|_| outlives);
        let settings = Kept::new(journal, format!("{SUBSCRIPTIONS}{name}"), Single::new(settings));
        let subscription = {
            let mut subscriptions = lock(&self.subscriptions);
            if subscriptions.contains_key(&name) {
                return Err(Refusal::resource_exists(&name));
            }
            settings.change(|_| Ok::<_, NotKept>(()))?;
            let queue = Kept::new(journal, place_of_queue(&name), Queue::after(self.published(), ordered));
            let subscription = Arc::new(Subscription::new(settings, filter, queue));
            subscriptions.insert(name, Arc::clone(&subscription));
            subscription
        };
        tokio::spawn(push::run(Arc::clone(world), subscription));
        Ok(answer)
    }

    /// Sets a subscription's push endpoint and its dead-letter policy.
    pub(in super::super) fn redirect(&self, world: &World, name: &str, wanted: Value) -> Result<(), Refusal> {
        let _alone = lock(&self.configuring);
        let subscription = self.subscription(name)?;
        let wanted = model::subscription(wanted)?;
        let changed = Settings {
            push_config: wanted.push_config,
            dead_letter_policy: wanted.dead_letter_policy,
            ..subscription.settings()
        };
        subscription.set(self.checked(world, changed)?)?;
        subscription.touch();
        Ok(())
    }

    /// Settings as Google takes them: in bounds, and with nothing that is not there.
    pub(super) fn checked(&self, world: &World, settings: Settings) -> Result<Settings, Refusal> {
        let settings = settings.checked()?;
        if let Some(policy) = &settings.dead_letter_policy
            && !self.has_topic(&policy.dead_letter_topic)
        {
            return Err(Refusal::no_resource(&policy.dead_letter_topic));
        }
        push::check(world, &settings.push_config)?;
        Ok(settings)
    }

    pub(super) fn delete_subscription(&self, world: &World, name: &str) -> Result<(), Refusal> {
        let _alone = lock(&self.configuring);
        let mut subscriptions = lock(&self.subscriptions);
        let subscription = subscriptions.get(name).ok_or_else(|| Refusal::no_resource(name))?;
        let mut settings = Loose::remove(self.journal.as_ref(), &format!("{SUBSCRIPTIONS}{name}"));
        self.forget_policy(world, name, |policy| {
            let queues = [&subscription.queue];
            Kept::change_all(&queues, &mut [&mut settings, policy], |_, queue| queue.clear())
        })?;
        *lock(&subscription.deleted) = true;
        subscription.touch();
        subscriptions.remove(name);
        Ok(())
    }
}
