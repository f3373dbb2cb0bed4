//! How the worker ends: who asked for it, how far it has come, and what must be waited for.
//!
//! Cloud Run sends SIGTERM and kills 10 s later. What is under way may go on for 8 s of these; then everything that is
//! left is refused, so that Pub/Sub delivers it to another instance at once and not after its deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How long work that was under way may go on after the first signal.
pub(super) const DRAIN: Duration = Duration::from_secs(8);
/// After [`DRAIN`]: how long refusals and answers may take to be written, and the engine to end.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the last steps of a delivery may take that has no time left, each of them.
pub(super) const PARTING: Duration = Duration::from_millis(300);
/// When the process ends by force, whatever may still hang: counted from the first signal.
const GRACE: Duration = Duration::from_millis(9300);
/// The same, counted from a second signal.
const GRACE_WHEN_INSISTED: Duration = Duration::from_millis(1300);

/// SIGTERM and SIGINT, heard from the moment this is made, and the end by force when the worker does not come to one.
///
/// A thread of their own listens: the worker has two runtimes one after the other, and a signal between the two must not
/// be lost; and what hangs (a name that nobody resolves, a file system that does not answer) hangs elsewhere. Without a
/// listener the first process of a container would not end at all: the kernel keeps such signals from it.
#[derive(Debug, Clone)]
pub struct Signals(watch::Receiver<u32>);

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptor for it.
    pub fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _context = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let listen = async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                sender.send_modify(|count| *count += 1);
            };
            next().await;
            let by_force = Instant::now() + GRACE;
            if timeout_at(by_force, next()).await.is_ok() {
                sleep_until(by_force.min(Instant::now() + GRACE_WHEN_INSISTED)).await;
            }
            tracing::error!("something hangs: the worker ends all the same");
            std::process::exit(0);
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(listen))?;
        Ok(Self(receiver))
    }

    /// Returns once the worker has been asked to end.
    pub async fn asked(&self) {
        self.count(1).await;
    }

    /// Returns once it has been asked a second time.
    pub(super) async fn insisted(&self) {
        self.count(2).await;
    }

    /// Whether the worker has been asked to end.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() > 0
    }

    async fn count(&self, least: u32) {
        // The thread that sends ends with the process alone.
        drop(self.0.clone().wait_for(|count| *count >= least).await);
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Serving,
    /// No new work; what is under way goes on.
    Draining,
    /// What is under way is given up.
    Ending,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    under_way: usize,
}

/// How far the worker's end has come. Both halves of the state change under one lock: a delivery that does not see the
/// drain is counted before it begins, and waited for.
#[derive(Debug, Default)]
pub struct Shutdown(Arc<watch::Sender<State>>);

impl Shutdown {
    /// Counts a delivery for as long as the guard is there.
    pub(super) fn enter(&self) -> UnderWay {
        self.0.send_if_modified(|state| {
            state.under_way += 1;
            // Nobody waits for it to rise.
            false
        });
        UnderWay(self.0.clone())
    }

    /// Whether there is no new work any more.
    pub(super) fn is_draining(&self) -> bool {
        self.0.borrow().stage > Stage::Serving
    }

    pub(super) fn drain(&self) {
        self.reach(Stage::Draining);
    }

    pub(super) fn end(&self) {
        self.reach(Stage::Ending);
    }

    /// Returns when nothing can be begun any more: [`PARTING`] after the drain's beginning, because what is all there by
    /// then is at least looked at.
    pub(super) async fn draining(&self) {
        self.comes(|state| state.stage >= Stage::Draining).await;
        sleep(PARTING).await;
    }

    /// Returns once what is under way is given up.
    pub(super) async fn ending(&self) {
        self.comes(|state| state.stage >= Stage::Ending).await;
    }

    /// Returns when nothing can be reported any more: [`PARTING`] after that.
    pub(super) async fn ended(&self) {
        self.ending().await;
        sleep(PARTING).await;
    }

    /// Returns once nothing is under way.
    pub(super) async fn idle(&self) {
        self.comes(|state| state.under_way == 0).await;
    }

    /// How many deliveries are under way.
    pub(super) fn under_way(&self) -> usize {
        self.0.borrow().under_way
    }

    fn reach(&self, stage: Stage) {
        self.0.send_modify(|state| state.stage = state.stage.max(stage));
    }

    async fn comes(&self, what: impl Fn(&State) -> bool) {
        // The sender is part of `self`, so it cannot be gone.
        drop(self.0.subscribe().wait_for(|state| what(state)).await);
    }
}

/// A delivery that is waited for. Some go on when their connection is gone, and take it along.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<watch::Sender<State>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_if_modified(|state| {
            state.under_way -= 1;
            // While work goes on nobody waits for its end: no refusal wakes every delivery.
            state.stage > Stage::Serving
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_entered_is_waited_for() {
        let shutdown = Shutdown::default();
        let (first, second) = (shutdown.enter(), shutdown.enter());
        drop(second);
        assert!(!shutdown.is_draining());
        shutdown.drain();
        assert!(shutdown.is_draining());
        let waiting = timeout(Duration::from_secs(1), shutdown.idle());
        assert!(waiting.await.is_err(), "one is still under way");
        assert_eq!(shutdown.under_way(), 1);
        let (waited, ()) = tokio::join!(timeout(Duration::from_secs(1), shutdown.idle()), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert!(waited.is_ok(), "nobody said that the last one has ended");
        // It never goes back.
        shutdown.end();
        shutdown.drain();
        shutdown.ended().await;
    }
}
