//! Shared runs: of all deliveries that want the same work at once, the first starts it, and all wait for its end.
//!
//! A run is a task of its own. A delivery that is given up, because its caller has hung up or its deadline has come,
//! ends nothing: the redelivery finds the run under way, or finds what it made. Nothing is kept of a run that has
//! ended: what it did is in Cloud Storage, and that is the only memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::trace;

/// The runs that are under way, by what they are for.
pub(super) struct Flights<K, T: Clone> {
    inner: Arc<Inner<K, T>>,
}

struct Inner<K, T: Clone> {
    state: Mutex<State<K, T>>,
    /// How many there are, to wait for the last one's end.
    count: watch::Sender<usize>,
}

struct State<K, T: Clone> {
    runs: HashMap<K, Run<T>>,
    closed: bool,
}

struct Run<T: Clone> {
    answer: Shared<BoxFuture<'static, Result<T, Lost>>>,
    task: AbortHandle,
}

/// Why a run has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// It panicked; the panic's own line says where.
    Panicked,
    /// The worker is ending, and the run was ended with it or not begun any more.
    Ended,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        let state = State {
            runs: HashMap::new(),
            closed: false,
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                count: watch::Sender::new(0),
            }),
        }
    }

    /// Waits for the run of this key: the one that is under way, or the one that `start` makes. It goes on when nobody
    /// waits for it any more.
    ///
    /// # Errors
    /// [`Lost`]: there will be no answer.
    pub(super) async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Result<T, Lost>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let answer = {
            let mut state = self.inner.state();
            if state.closed {
                return Err(Lost::Ended);
            }
            let count = state.runs.len() + 1;
            match state.runs.entry(key.clone()) {
                Entry::Occupied(run) => {
                    tracing::debug!(jobId = %run.key(), "waits for the run that is under way");
                    // And what it holds, before the wait.
                    drop(start);
                    run.get().answer.clone()
                }
                Entry::Vacant(place) => {
                    self.inner.count.send_replace(count);
                    let listed = Listed {
                        inner: self.inner.clone(),
                        key,
                    };
                    let run = start();
                    // Whatever its end is, first the run lets go of all that it holds, then it is off the list.
                    let task = tokio::spawn(trace::carried(async move {
                        let _listed = listed;
                        run.await
                    }));
                    let abort = task.abort_handle();
                    let answer = task.map(|ended| {
                        ended.map_err(|error| if error.is_panic() { Lost::Panicked } else { Lost::Ended })
                    });
                    let answer = answer.boxed().shared();
                    place.insert(Run {
                        answer: answer.clone(),
                        task: abort,
                    });
                    answer
                }
            }
        };
        answer.await
    }

    /// Whether a run of this key is under way.
    pub(super) fn is_under_way(&self, key: &K) -> bool {
        self.inner.state().runs.contains_key(key)
    }

    /// Ends every run, begins none any more, and returns when the last one has let go of all that it held.
    pub(super) async fn end(&self) {
        {
            let mut state = self.inner.state();
            state.closed = true;
            for run in state.runs.values() {
                run.task.abort();
            }
        }
        // The sender is ours, so it cannot be gone.
        drop(self.inner.count.subscribe().wait_for(|count| *count == 0).await);
    }
}

impl<K, T: Clone> Inner<K, T> {
    /// What it protects is whole even after a panic: every change of it is one step.
    fn state(&self) -> MutexGuard<'_, State<K, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's place on the list. Dropped with the run's task: at its end, at a panic, and when it is ended.
struct Listed<K: Eq + Hash, T: Clone> {
    inner: Arc<Inner<K, T>>,
    key: K,
}

impl<K: Eq + Hash, T: Clone> Drop for Listed<K, T> {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.runs.remove(&self.key);
        self.inner.count.send_replace(state.runs.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// Counts how often it is begun and how often it comes to its end.
    #[derive(Clone, Default)]
    struct Work {
        begun: Arc<AtomicU32>,
        ended: Arc<AtomicU32>,
    }

    impl Work {
        fn run(&self, seconds: u64) -> impl Future<Output = u32> + Send + 'static {
            let work = self.clone();
            async move {
                let number = work.begun.fetch_add(1, Ordering::Relaxed) + 1;
                sleep(Duration::from_secs(seconds)).await;
                work.ended.fetch_add(1, Ordering::Relaxed);
                number
            }
        }

        fn counts(&self) -> (u32, u32) {
            (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
        }
    }

    fn listed(flights: &Flights<&'static str, u32>) -> usize {
        flights.inner.state().runs.len()
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_want_the_same_share_one_run_and_the_next_one_has_its_own() {
        let (flights, work) = (Flights::new(), Work::default());
        let copies = (0..20).map(|_| flights.join("a", || work.run(1)));
        let other = flights.join("b", || work.run(1));
        let (answers, other) = tokio::join!(futures_util::future::join_all(copies), other);
        assert_eq!(answers, [Ok(1); 20]);
        assert_eq!(other, Ok(2));
        assert_eq!(listed(&flights), 0);
        assert_eq!(flights.join("a", || work.run(1)).await, Ok(3), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_goes_on_without_those_who_waited() {
        let (flights, work) = (Flights::new(), Work::default());
        let leader = flights.join("a", || work.run(10));
        assert!(timeout(Duration::from_secs(1), leader).await.is_err());
        assert_eq!(work.counts(), (1, 0));
        assert_eq!(flights.join("a", || work.run(10)).await, Ok(1), "a second run");
        let nobody = flights.join("b", || work.run(10));
        assert!(timeout(Duration::from_secs(1), nobody).await.is_err());
        sleep(Duration::from_secs(20)).await;
        assert_eq!(work.counts(), (2, 2));
        assert_eq!(listed(&flights), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_everybodys_answer_and_leaves_no_entry() {
        let flights = Flights::<_, u32>::new();
        let panicking = || async {
            sleep(Duration::from_secs(1)).await;
            panic!("as the test wants it")
        };
        let (first, second) = tokio::join!(flights.join("a", panicking), flights.join("a", panicking));
        assert_eq!((first, second), (Err(Lost::Panicked), Err(Lost::Panicked)));
        assert_eq!(listed(&flights), 0);
        assert_eq!(flights.join("a", || async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_ends_every_run_first_and_begins_none() {
        struct Held(Arc<AtomicU32>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (flights, work) = (Flights::new(), Work::default());
        let dropped = Arc::new(AtomicU32::new(0));
        let held = Held(dropped.clone());
        let waiting = flights.join("a", || {
            let run = work.run(3600);
            async move {
                let _held = held;
                run.await
            }
        });
        let ending = async {
            sleep(Duration::from_secs(1)).await;
            timeout(Duration::from_secs(60), flights.end()).await.unwrap();
            assert_eq!(dropped.load(Ordering::Relaxed), 1, "it still holds something");
        };
        let (answer, ()) = tokio::join!(waiting, ending);
        assert_eq!(answer, Err(Lost::Ended));
        assert_eq!(flights.join("a", || work.run(1)).await, Err(Lost::Ended));
        assert_eq!(work.counts(), (1, 0));
    }
}
