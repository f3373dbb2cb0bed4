//! One signature for one output: signing through signBlob is quota, and a redelivery storm asks for the same link again
//! and again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::sign::{SignError, SignedUrl};
use crate::google::flight::Flight;

/// How many links are remembered: a thousand of them take about 2 MB.
const CAPACITY: usize = 1024;
/// A link is handed out again while this part of its lifetime is left, so that who asks for an hour gets at least
/// three quarters of one. `expiresAt` says to the second how much it is.
const LEFT: (i32, i32) = (3, 4);

/// All that a link depends on, beside the time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LinkKey {
    pub(super) bucket: String,
    pub(super) name: String,
    /// Generation, type and disposition, as they are signed.
    pub(super) query: Vec<(String, String)>,
    pub(super) ttl: Duration,
}

/// The cache.
#[derive(Default)]
pub(super) struct LinkCache(Mutex<HashMap<LinkKey, Slot>>);

struct Slot {
    reusable_until: DateTime<Utc>,
    link: Arc<Link>,
}

/// A link, or the place where whoever came first is signing it.
struct Link {
    signed: OnceLock<SignedUrl>,
    flight: Flight<Result<SignedUrl, SignError>>,
}

impl LinkCache {
    /// The link that is there, or the one that `sign` makes: of all who ask at once, one signs, and all have its outcome,
    /// good or bad. A bad one is not kept.
    pub(super) async fn get<F: Future<Output = Result<SignedUrl, SignError>>>(
        &self,
        key: LinkKey,
        now: DateTime<Utc>,
        sign: impl FnOnce() -> F,
    ) -> Result<SignedUrl, SignError> {
        let link = self.slot(key, now);
        if let Some(signed) = link.signed.get() {
            return Ok(signed.clone());
        }
        link.flight
            .run(async {
                match link.signed.get() {
                    Some(signed) => Ok(signed.clone()),
                    None => sign().await.map(|signed| link.signed.get_or_init(|| signed).clone()),
                }
            })
            .await
    }

    fn slot(&self, key: LinkKey, now: DateTime<Utc>) -> Arc<Link> {
        let mut slots = self.locked();
        if let Some(slot) = slots.get(&key).filter(|slot| now < slot.reusable_until) {
            return Arc::clone(&slot.link);
        }
        if slots.len() >= CAPACITY {
            slots.retain(|_, slot| now < slot.reusable_until);
        }
        if slots.len() >= CAPACITY {
            let first = slots.iter().min_by_key(|(_, slot)| slot.reusable_until);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                slots.remove(&first);
            }
        }
        let ttl = TimeDelta::from_std(key.ttl).unwrap_or_default();
        let slot = Slot {
            reusable_until: now + ttl * (LEFT.1 - LEFT.0) / LEFT.1,
            link: Arc::new(Link {
                signed: OnceLock::new(),
                flight: Flight::new(),
            }),
        };
        let link = Arc::clone(&slot.link);
        slots.insert(key, slot);
        link
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<LinkKey, Slot>> {
        // Nothing that holds the lock panics half-way: the map is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many links, and not a word of one: they are bearer secrets.
impl fmt::Debug for LinkCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} links", self.locked().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::google::secret::Secret;

    fn key(name: &str) -> LinkKey {
        LinkKey {
            bucket: "out".to_owned(),
            name: name.to_owned(),
            query: vec![("generation".to_owned(), "1".to_owned())],
            ttl: Duration::from_secs(3600),
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_303_686 + seconds, 0).unwrap()
    }

    async fn ask(cache: &LinkCache, key: LinkKey, seconds: i64, signed: &AtomicUsize) -> SignedUrl {
        let sign = async || {
            signed.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(SignedUrl {
                url: Secret::new("https://example"),
                expires_at: at(seconds + 3600),
            })
        };
        cache.get(key, at(seconds), sign).await.unwrap()
    }

    #[tokio::test]
    async fn a_link_is_reused_while_three_quarters_of_it_are_left() {
        let (cache, signed) = (LinkCache::default(), AtomicUsize::new(0));
        for (seconds, signatures) in [(0, 1), (1, 1), (899, 1), (900, 2), (1000, 2), (5000, 3)] {
            let link = ask(&cache, key("a"), seconds, &signed).await;
            assert_eq!(signed.load(Ordering::Relaxed), signatures, "{seconds}");
            assert!(link.expires_at >= at(seconds) + TimeDelta::seconds(2700));
        }
        ask(&cache, key("b"), 5000, &signed).await;
        let mut other = key("a");
        other.query[0].1 = "2".to_owned();
        ask(&cache, other, 5000, &signed).await;
        let mut other = key("a");
        other.ttl = Duration::from_secs(60);
        ask(&cache, other, 5000, &signed).await;
        assert_eq!(
            signed.load(Ordering::Relaxed),
            6,
            "another output, generation or lifetime is another link"
        );
    }

    #[tokio::test]
    async fn all_who_ask_at_once_get_one_signature_and_a_failure_is_not_kept() {
        let (cache, signed) = (LinkCache::default(), AtomicUsize::new(0));
        let failed = cache
            .get(key("a"), at(0), async || Err(SignError::Refused("no".to_owned())))
            .await;
        assert!(failed.is_err());
        let all = (0..50).map(|_| ask(&cache, key("a"), 0, &signed));
        futures_util::future::join_all(all).await;
        assert_eq!(signed.load(Ordering::Relaxed), 1);

        let asked = AtomicUsize::new(0);
        let refuse = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(SignError::Refused("no".to_owned()))
        };
        let all = (0..50).map(|_| cache.get(key("b"), at(0), refuse));
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_err));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "in an outage one asks for all");
    }

    #[tokio::test]
    async fn the_cache_is_bounded_and_forgets_the_oldest() {
        let (cache, signed) = (LinkCache::default(), AtomicUsize::new(0));
        for number in 0..2000 {
            ask(&cache, key(&number.to_string()), number / 10, &signed).await;
        }
        assert_eq!(cache.locked().len(), CAPACITY);
        ask(&cache, key("1999"), 199, &signed).await;
        assert_eq!(signed.load(Ordering::Relaxed), 2000);
        ask(&cache, key("0"), 199, &signed).await;
        assert_eq!(signed.load(Ordering::Relaxed), 2001);
    }
}
