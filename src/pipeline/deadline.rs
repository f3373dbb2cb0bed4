//! By when a delivery must be through, and what it therefore does not begin.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::engine;
use crate::google::retry::{Budget, PER_DELIVERY};

// What the start has checked must be what the engine takes.
const _: () = assert!(engine::CHECK_GRACE.as_nanos() <= config::CHECK_TIME.as_nanos());

/// The times of one delivery, all before Pub/Sub takes it for lost and sends it again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// By when the outputs must be there: a delivery that is not so far is answered 503.
    pub(super) work: Instant,
    /// By when the result must be out.
    pub(super) answer: Instant,
    /// By when a run that this delivery started ends, whoever waits for it.
    pub(super) run: Instant,
}

impl Deadline {
    /// Of a delivery that arrived at this moment.
    pub(super) fn of(arrived: std::time::Instant, ack_deadline: Duration) -> Self {
        let arrived = Instant::from_std(arrived);
        let reserve = config::reserve(ack_deadline);
        Self {
            work: arrived + (ack_deadline - reserve),
            // What the answer itself takes on its way.
            answer: arrived + (ack_deadline - reserve / 8),
            run: Instant::now() + ack_deadline,
        }
    }

    /// What the delivery may spend on retries: what all may, or less when less time is left.
    pub(super) fn budget(&self) -> Budget {
        Budget::new(PER_DELIVERY.min(self.work.saturating_duration_since(Instant::now())))
    }

    /// Whether a conversion that may take this long, begun now, ends in time.
    pub(super) fn has_room_for(&self, conversion: Duration) -> bool {
        Instant::now() + conversion + engine::CHECK_GRACE <= self.work
    }
}
