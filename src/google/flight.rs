//! Single flight: of all who want the same thing at once, one asks and all get its answer, good or bad.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The turn to ask, and the outcome of the last one who did.
pub(crate) struct Flight<T> {
    turn: tokio::sync::Mutex<()>,
    last: Mutex<(u64, Option<T>)>,
}

impl<T: Clone> Flight<T> {
    pub(crate) fn new() -> Self {
        Self {
            turn: tokio::sync::Mutex::new(()),
            last: Mutex::new((0, None)),
        }
    }

    /// Runs `work`, or waits for whoever already runs it and takes that outcome. When the one that runs is cancelled,
    /// the next in line runs.
    pub(crate) async fn run(&self, work: impl Future<Output = T>) -> T {
        let seen = locked(&self.last).0;
        let _turn = self.turn.lock().await;
        {
            let last = locked(&self.last);
            if let (true, Some(outcome)) = (last.0 != seen, &last.1) {
                return outcome.clone();
            }
        }
        let outcome = work.await;
        let mut last = locked(&self.last);
        *last = (last.0.wrapping_add(1), Some(outcome.clone()));
        outcome
    }

    /// Waits for whoever runs now, if anybody does.
    pub(crate) async fn join(&self) {
        drop(self.turn.lock().await);
    }
}

/// The guard of a lock whose holders never panic half-way: what it protects is whole even after a panic.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
