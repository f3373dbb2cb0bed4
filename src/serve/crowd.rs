//! How many connections there may be, and which one goes when there are more.
//!
//! Callers with connection pools keep connections open between requests, so these are not closed for resting; but
//! whoever opens thousands and asks nothing must not keep others out. The one that has rested longest makes room: that it
//! never sent a head, sends one byte by byte, or does not read its answer, it rests.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Notify;

/// Connections at once. Cloud Run gives an instance 1,000 requests at most; each connection takes up to 64 KiB for a head.
const MOST: usize = 1024;
/// Descriptors that are not for connections from callers: calls to Google, jobs' files, the engine, logs.
const OTHERS: u64 = 512;

/// All connections.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: usize,
    /// Those that rest, the one that has done so longest first.
    resting: BTreeMap<u64, Arc<Notify>>,
}

/// A connection's place. It begins at rest.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    /// Told once when it must go.
    sent_away: Arc<Notify>,
    /// Its number among those that rest; none while it works.
    rests: Mutex<Option<u64>>,
}

/// Held while a connection has a request under way.
#[derive(Debug)]
pub(super) struct Working(Arc<Place>);

impl Crowd {
    /// As many as there are descriptors for.
    pub(super) fn new() -> Self {
        Self::of(most(raise_descriptors()))
    }

    fn of(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
        }
    }

    /// A place for a new connection, or none when every other one works.
    pub(super) fn open(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut state = self.state();
        if state.open >= self.most {
            let (_, longest) = state.resting.pop_first()?;
            longest.notify_one();
            state.open -= 1;
        }
        state.open += 1;
        let sent_away = Arc::new(Notify::new());
        let number = state.rest(sent_away.clone());
        Some(Arc::new(Place {
            crowd: self.clone(),
            sent_away,
            rests: Mutex::new(Some(number)),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn rest(&mut self, sent_away: Arc<Notify>) -> u64 {
        self.next += 1;
        self.resting.insert(self.next, sent_away);
        self.next
    }
}

impl Place {
    /// Returns when the connection must make room.
    pub(super) async fn sent_away(&self) {
        self.sent_away.notified().await;
    }

    /// A request has come; none when the place has just been given away.
    pub(super) fn work(self: &Arc<Self>) -> Option<Working> {
        let mut rests = self.rests();
        let number = (*rests)?;
        self.crowd.state().resting.remove(&number)?;
        *rests = None;
        Some(Working(self.clone()))
    }

    fn rests(&self) -> MutexGuard<'_, Option<u64>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut rests = self.0.rests();
        *rests = Some(self.0.crowd.state().rest(self.0.sent_away.clone()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = *self.rests();
        let mut state = self.crowd.state();
        // One that was sent away is not counted any more.
        if number.is_none_or(|number| state.resting.remove(&number).is_some()) {
            state.open -= 1;
        }
    }
}

/// Asks for as many descriptors as are wanted here, and says how many there are.
fn raise_descriptors() -> u64 {
    let wanted = 2 * MOST as u64 + OTHERS;
    let raised = || -> io::Result<u64> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let raised = soft.max(wanted.min(hard));
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
        Ok(raised)
    };
    raised().unwrap_or_else(|error| {
        tracing::warn!("the limit on open files cannot be raised: {error}");
        1024
    })
}

fn most(descriptors: u64) -> usize {
    // Each has a second one, for the answer to a head that never ends.
    let affordable = descriptors.saturating_sub(OTHERS) / 2;
    let most = usize::try_from(affordable).unwrap_or(MOST).clamp(16, MOST);
    if most < MOST {
        tracing::warn!("{descriptors} open files are enough for {most} connections: raise the limit (ulimit -n)");
    }
    most
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_sent_away(place: &Place) -> bool {
        place.sent_away().now_or_never().is_some()
    }

    fn counts(crowd: &Crowd) -> (usize, usize) {
        let state = crowd.state();
        (state.open, state.resting.len())
    }

    #[test]
    fn who_has_rested_longest_makes_room() {
        let crowd = Arc::new(Crowd::of(3));
        let places: Vec<_> = (0..3).map(|_| crowd.open().unwrap()).collect();
        // The first has asked something since.
        drop(places[0].work().unwrap());
        let _new = crowd.open().unwrap();
        assert!(!is_sent_away(&places[0]) && is_sent_away(&places[1]) && !is_sent_away(&places[2]));
        assert!(places[1].work().is_none(), "its place is another's");
        drop(places);
        assert_eq!(counts(&crowd), (1, 1));
    }

    #[test]
    fn who_works_stays() {
        let crowd = Arc::new(Crowd::of(2));
        let places: Vec<_> = (0..2).map(|_| crowd.open().unwrap()).collect();
        let mut working: Vec<_> = places.iter().map(|place| place.work().unwrap()).collect();
        assert!(crowd.open().is_none());
        working.pop();
        let new = crowd.open().unwrap();
        assert!(is_sent_away(&places[1]) && !is_sent_away(&places[0]));
        drop((working, places, new));
        assert_eq!(counts(&crowd), (0, 0));
    }

    #[test]
    fn there_are_as_many_as_descriptors_allow() {
        assert_eq!(most(1 << 20), MOST);
        assert_eq!(most(1024), 256);
        assert_eq!(most(10), 16);
        assert!(raise_descriptors() >= 1024);
    }
}
