//! The time as the local cloud sees it: the machine's, plus a shift that a test can set.
//!
//! Generations, token life times, signatures and expiries all read this clock. Waiting (ack deadlines, back-off) does
//! not: shifting the clock never makes a timer fire.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

/// A clock that tests can move. Clones share the shift.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    shift_microseconds: Arc<AtomicI64>,
}

impl Clock {
    /// The time now, shifted.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::microseconds(self.shift_microseconds.load(Ordering::Relaxed))
    }

    /// Moves the clock: forwards with a positive delta, backwards with a negative one.
    pub fn advance(&self, delta: TimeDelta) {
        let microseconds = delta.num_microseconds().unwrap_or(0);
        self.shift_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Makes `time` the time now. The clock goes on from there.
    pub fn set(&self, time: DateTime<Utc>) {
        let shift = (time - Utc::now()).num_microseconds().unwrap_or(0);
        self.shift_microseconds.store(shift, Ordering::Relaxed);
    }
}
