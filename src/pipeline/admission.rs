//! Whether a job may begin now: decided at once, in one place, and never waited for.
//!
//! A job begins when there is a slot, and room for the most it could take: of memory, of the disk, and of memory for its
//! files where the disk is memory. What it could take is what [`crate::engine`] ends it at, so what is admitted fits. A job
//! keeps all of it until its directory is gone, and with that its last process: a child that was killed has its memory until
//! then. With nothing under way one job is always admitted, fit or not: else it never would be.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;

use super::budget::Budget;
use super::machine;
use super::run::Key;
use crate::config::{EngineConfig, Limits};
use crate::convert::SourceObject;
use crate::engine::{self, Engine, Footprint};
use crate::error::{Refusal, RefusalKind};
use crate::metrics;

/// The longest that a refused caller is asked to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The longest that a job's end waits for its place to be free again.
const LONGEST_RETURN: Duration = Duration::from_secs(1);

/// Decides. Clones decide together.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    budget: Budget,
    taken: Mutex<Taken>,
    given_back: Notify,
}

/// What the jobs that are under way may take.
#[derive(Debug, Default)]
struct Taken {
    next: u64,
    jobs: BTreeMap<u64, Place>,
    /// The places of jobs that are being looked at.
    entered: HashMap<Key, Weak<Admitted>>,
    /// How long a job has been under way of late.
    usual: Option<Duration>,
}

#[derive(Debug)]
struct Place {
    began: Instant,
    disk: u64,
    /// Its files are known, and are being made.
    has_begun: bool,
}

/// A place for a job. Dropping it gives back what the job could have taken.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    number: u64,
    key: Option<Key>,
}

impl Admission {
    /// Measures the machine and the engine, which is warm and has no job yet, and says what fits. Blocks for a moment.
    ///
    /// # Errors
    /// The machine does not say what it has: no /proc, no directory under `TMPDIR`.
    pub fn measure(config: &EngineConfig, engine: &Engine, on_cloud_run: bool) -> io::Result<Self> {
        let budget = Budget::measure(config, &engine.footprint()?, on_cloud_run)?;
        budget.say();
        metrics::slots(budget.slots);
        Ok(Self::of(budget))
    }

    /// The warning that a worker of this configuration would begin with on this machine, where it would; `engine` is what
    /// its engine is taken to take. Blocks for a moment.
    ///
    /// # Errors
    /// As [`Self::measure`].
    pub fn foreseen(config: &EngineConfig, engine: &Footprint, on_cloud_run: bool) -> io::Result<Option<String>> {
        Ok(Budget::measure(config, engine, on_cloud_run)?.too_small())
    }

    fn of(budget: Budget) -> Self {
        Self(Arc::new(Shared {
            budget,
            taken: Mutex::default(),
            given_back: Notify::new(),
        }))
    }

    /// Admits a job whose files may take so many bytes.
    ///
    /// # Errors
    /// [`RefusalKind::Busy`], with what is taken and when to come again.
    pub fn admit(&self, disk: u64) -> Result<Admitted, Refusal> {
        self.0.add(&mut self.0.taken(), disk, None, true)
    }

    /// Takes a place for a job of which nothing is known yet but what it is: enough for the smallest. All deliveries of one
    /// job that come before it has begun have one place together.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub(super) fn enter(&self, key: Key) -> Result<Arc<Admitted>, Refusal> {
        let mut taken = self.0.taken();
        if let Some(admitted) = taken.entered.get(&key).and_then(Weak::upgrade) {
            return Ok(admitted);
        }
        let least = self.0.budget.least_disk;
        let admitted = Arc::new(self.0.add(&mut taken, least, Some(key.clone()), false)?);
        taken.entered.insert(key, Arc::downgrade(&admitted));
        Ok(admitted)
    }

    /// Admits a job now that it is known what its files may take: in the place that it has, or in one of its own.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub(super) fn begin(&self, entered: Option<Arc<Admitted>>, disk: u64) -> Result<Arc<Admitted>, Refusal> {
        let mut taken = self.0.taken();
        let begun = self.0.begin(&mut taken, entered.as_ref(), disk);
        // In this order: to give back a place takes the lock.
        drop(taken);
        drop(entered);
        begun
    }
}

/// The most that a job's files may take: the document, which is there twice for a moment when it was stored with gzip, and
/// what follows from it and the outputs.
pub(super) fn most_on_disk(source: &SourceObject, outputs: usize, limits: &Limits) -> u64 {
    let document = if source.content_encoding.as_deref() == Some("gzip") {
        source.size.saturating_add(limits.input_size)
    } else {
        source.size
    };
    engine::most_on_disk(document, outputs, limits.output_size)
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(
        self: &Arc<Self>,
        taken: &mut Taken,
        disk: u64,
        key: Option<Key>,
        has_begun: bool,
    ) -> Result<Admitted, Refusal> {
        self.check(taken, None, disk)?;
        let number = taken.next;
        taken.next += 1;
        let place = Place {
            began: Instant::now(),
            disk,
            has_begun,
        };
        taken.jobs.insert(number, place);
        metrics::slots_used(taken.jobs.len());
        Ok(Admitted {
            shared: self.clone(),
            number,
            key,
        })
    }

    fn begin(
        self: &Arc<Self>,
        taken: &mut Taken,
        entered: Option<&Arc<Admitted>>,
        disk: u64,
    ) -> Result<Arc<Admitted>, Refusal> {
        if let Some(admitted) = entered
            && let Some(has_begun) = taken.jobs.get(&admitted.number).map(|job| job.has_begun)
            // Whoever has begun there has ended where nobody else holds it; new holders come by this lock alone.
            && (!has_begun || Arc::strong_count(admitted) == 1)
        {
            self.check(taken, Some(admitted.number), disk)?;
            if let Some(job) = taken.jobs.get_mut(&admitted.number) {
                job.disk = disk;
                if std::mem::replace(&mut job.has_begun, true) {
                    job.began = Instant::now();
                }
            }
            return Ok(admitted.clone());
        }
        // Another run has begun in that place: of two deliveries that name no generation, each found its own.
        self.add(taken, disk, None, true).map(Arc::new)
    }

    /// Whether there is room for a job beside all others than itself.
    fn check(&self, taken: &Taken, itself: Option<u64>, disk: u64) -> Result<(), Refusal> {
        let others = taken.jobs.iter().filter(|(number, _)| Some(**number) != itself);
        let others: Vec<u64> = others.map(|(_, job)| job.disk).collect();
        if others.is_empty() {
            return Ok(());
        }
        let busy = |reason, message: &str| {
            metrics::busy(reason);
            Err(Refusal {
                retry_after: taken.wait(Instant::now()),
                ..Refusal::new(RefusalKind::Busy, message)
            })
        };
        let budget = &self.budget;
        if others.len() >= budget.slots {
            return busy("slots", "every conversion slot is taken");
        }
        let all = others.into_iter().chain([disk]);
        let memory = all
            .clone()
            .map(|disk| budget.memory_of(disk))
            .fold(0, u64::saturating_add);
        if memory > budget.memory {
            return busy("memory", "what is under way may take all the memory there is for jobs");
        }
        // What they have written already is counted twice: to leave it out, each directory would have to be measured.
        match machine::room(&budget.directory) {
            Ok(Some(room)) if all.fold(0, u64::saturating_add) > room => {
                busy("disk", "what is under way may take all the disk there is for jobs")
            }
            Ok(_) => Ok(()),
            // A job will find out, and be refused with the reason.
            Err(error) => {
                tracing::warn!(%error, "cannot tell what is left of the disk of TMPDIR");
                Ok(())
            }
        }
    }
}

impl Taken {
    /// In how long the oldest job should have ended, by how long jobs took of late.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let oldest = self.jobs.values().map(|job| job.began).min()?;
        let left = self.usual?.saturating_sub(now.saturating_duration_since(oldest));
        // Whole seconds are what can be said. One that takes longer than usual ends any moment, or late.
        Some(Duration::from_secs(left.as_secs() + 1).min(LONGEST_WAIT))
    }

    /// Remembers how long a job took: a quarter counts, so that one long job is not the rule.
    fn ended(&mut self, took: Duration) {
        self.usual = Some(self.usual.map_or(took, |usual| (usual * 3 + took) / 4));
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        if let Some(job) = taken.jobs.remove(&self.number)
            && job.has_begun
        {
            taken.ended(job.began.elapsed());
        }
        metrics::slots_used(taken.jobs.len());
        // Unless others have entered meanwhile.
        if let Some(key) = &self.key
            && taken.entered.get(key).is_some_and(|place| place.strong_count() == 0)
        {
            taken.entered.remove(key);
        }
        drop(taken);
        self.shared.given_back.notify_waiters();
    }
}

impl Admitted {
    /// To learn when the place is free again.
    pub(super) fn given_back(&self) -> GivenBack {
        GivenBack {
            shared: self.shared.clone(),
            number: self.number,
        }
    }
}

/// The end of a place, of which this holds nothing.
#[derive(Debug)]
pub(super) struct GivenBack {
    shared: Arc<Shared>,
    number: u64,
}

impl GivenBack {
    /// Returns when the place is free again; or after a while, because what holds it may be a process that does not end, or
    /// another delivery of the job that still looks at its source. Whoever hears that a job has ended may then send the
    /// next one and finds the place free: it would be refused for nothing, and Pub/Sub slows down a subscription that is
    /// refused.
    pub(super) async fn free(self) {
        let wait = async {
            loop {
                let mut notified = pin!(self.shared.given_back.notified());
                // What comes between the look and the wait is not missed.
                notified.as_mut().enable();
                if !self.shared.taken().jobs.contains_key(&self.number) {
                    return;
                }
                notified.await;
            }
        };
        let _held_by_what_does_not_end = timeout(LONGEST_RETURN, wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Job, NameTemplate, Source};

    fn budget() -> Budget {
        Budget {
            slots: 3,
            memory: 1000,
            held: 0,
            job_memory: 300,
            directory: "/proc".into(),
            files_are_memory: false,
            disk: None,
            least_disk: 10,
        }
    }

    fn source(generation: i64) -> Source {
        Source {
            bucket: "in".into(),
            name: "a".into(),
            generation: Some(generation),
        }
    }

    fn key(generation: i64) -> Key {
        let job = Job::of_event(source(generation), &NameTemplate::default());
        Key::of(&job, generation)
    }

    fn why<T: std::fmt::Debug>(refused: Result<T, Refusal>) -> String {
        let refusal = refused.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Busy);
        refusal.message
    }

    #[test]
    fn there_are_as_many_jobs_as_slots_and_a_slot_comes_back() {
        let admission = Admission::of(Budget {
            memory: 10_000,
            ..budget()
        });
        let mut jobs: Vec<_> = (0..3).map(|_| admission.admit(u64::MAX / 8).unwrap()).collect();
        assert!(why(admission.clone().admit(1)).contains("slot"));
        assert!(admission.enter(key(7)).is_err());
        jobs.pop();
        assert!(admission.enter(key(7)).is_ok());
        admission.admit(1).unwrap();
    }

    #[test]
    fn memory_is_for_so_many_worst_cases() {
        let admission = Admission::of(Budget {
            memory: 899,
            ..budget()
        });
        let _jobs = [admission.admit(1).unwrap(), admission.admit(1).unwrap()];
        assert!(why(admission.admit(1)).contains("memory"));
        assert!(admission.enter(key(7)).is_err());
    }

    #[test]
    fn files_that_are_memory_count_as_it() {
        let admission = Admission::of(Budget {
            files_are_memory: true,
            ..budget()
        });
        let large = admission.admit(300).unwrap();
        assert!(why(admission.admit(101)).contains("memory"));
        assert!(admission.enter(key(7)).is_ok(), "a smaller one has room");
        let small = admission.admit(100).unwrap();
        drop(large);
        admission.admit(300).unwrap();
        drop(small);
    }

    #[test]
    fn the_disk_has_room_for_the_worst_cases_together() {
        let directory = std::env::temp_dir();
        let room = machine::room(&directory).unwrap().unwrap();
        let admission = Admission::of(Budget { directory, ..budget() });
        let _first = admission.admit(room / 3 * 2).unwrap();
        assert!(why(admission.admit(room / 3 * 2)).contains("disk"));
        let _small = admission.admit(1).unwrap();
    }

    #[test]
    fn alone_a_job_is_always_admitted() {
        let admission = Admission::of(Budget {
            memory: 1,
            directory: std::env::temp_dir(),
            ..budget()
        });
        let alone = admission.admit(u64::MAX).unwrap();
        assert!(admission.admit(1).is_err());
        drop(alone);
        admission.admit(u64::MAX).unwrap();
    }

    #[test]
    fn deliveries_of_one_job_enter_one_place_and_one_run_begins_in_it() {
        let admission = Admission::of(Budget { slots: 2, ..budget() });
        let places: Vec<_> = (0..20).map(|_| admission.enter(key(1)).unwrap()).collect();
        let other = admission.enter(key(2)).unwrap();
        assert!(why(admission.enter(key(3))).contains("slot"));
        let run = admission.begin(Some(places[0].clone()), 1).unwrap();
        assert!(
            why(admission.begin(Some(places[1].clone()), 1)).contains("slot"),
            "two runs began in one place"
        );
        drop(places);
        assert!(admission.enter(key(3)).is_err(), "the run still has the place");
        drop(run);
        let third = admission.enter(key(3)).unwrap();
        drop((other, third));
        let taken = admission.0.taken();
        assert!(taken.jobs.is_empty() && taken.entered.is_empty(), "{taken:?}");
    }

    #[test]
    fn a_job_begins_only_if_what_is_known_now_fits_too() {
        let admission = Admission::of(Budget {
            files_are_memory: true,
            ..budget()
        });
        let (first, second) = (admission.enter(key(1)).unwrap(), admission.enter(key(2)).unwrap());
        let first = admission.begin(Some(first), 300).unwrap();
        assert!(why(admission.begin(Some(second.clone()), 101)).contains("memory"));
        let second = admission.begin(Some(second), 100).unwrap();
        drop(first);
        drop(second);
        // One that has entered nowhere is admitted like any other.
        let _third = admission.begin(None, 600).unwrap();
        assert!(admission.begin(None, 300).is_err());
    }

    /// To give back a place takes the lock under which it is refused, so that a run which holds its place alone, as all do
    /// that nobody shares, would wait for itself, and everybody for it.
    #[test]
    fn whoever_is_refused_gives_back_a_place_that_nobody_else_holds() {
        let admission = Admission::of(Budget {
            slots: 2,
            files_are_memory: true,
            ..budget()
        });
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let first = admission.begin(Some(admission.enter(key(1)).unwrap()), 300).unwrap();
            let refused = admission.begin(Some(admission.enter(key(2)).unwrap()), 101);
            assert!(why(refused).contains("memory"));
            assert_eq!(admission.0.taken().jobs.len(), 1, "the refused one still has its place");
            // Two found generations of their own; the first has ended when the second begins.
            let shared = [admission.enter(key(3)).unwrap(), admission.enter(key(3)).unwrap()];
            let [one, two] = shared.map(|place| admission.begin(Some(place), 100));
            assert!(why(two).contains("slot"), "two runs began in one place");
            let late = admission.enter(key(3)).unwrap();
            drop(one);
            let late = admission.begin(Some(late), 100).unwrap();
            drop((first, late));
            assert!(admission.0.taken().jobs.is_empty());
            done.send(()).unwrap();
        });
        ended
            .recv_timeout(Duration::from_secs(60))
            .expect("it failed, or waits for itself");
    }

    #[test]
    fn what_a_panic_drops_comes_back() {
        let admission = Admission::of(Budget { slots: 1, ..budget() });
        let of_it = admission.clone();
        let panicked = std::thread::spawn(move || {
            let _job = of_it.admit(1).unwrap();
            let _held = of_it.0.taken.lock();
            // As a bug would, with the lock held.
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.join().is_err());
        admission.admit(1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_jobs_end_waits_for_its_place_and_not_for_ever() {
        let admission = Admission::of(Budget { slots: 1, ..budget() });
        let free = |admitted: &Admitted| tokio::spawn(admitted.given_back().free());
        let now = tokio::time::Instant::now;
        let (job, began) = (admission.admit(1).unwrap(), now());
        let waiting = free(&job);
        tokio::time::sleep(LONGEST_RETURN / 2).await;
        assert!(!waiting.is_finished(), "the place is not free");
        drop(job);
        waiting.await.unwrap();
        assert_eq!(now() - began, LONGEST_RETURN / 2, "it was free");

        let job = admission.admit(1).unwrap();
        let given_back = job.given_back();
        drop(job);
        let (other, began) = (admission.admit(1).unwrap(), now());
        given_back.free().await;
        assert_eq!(now(), began, "another has the place now");
        free(&other).await.unwrap();
        assert_eq!(now() - began, LONGEST_RETURN);
        drop(other);
    }

    #[test]
    fn the_wait_is_what_the_oldest_job_should_still_take() {
        let mut taken = Taken::default();
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let began = |ago| Place {
            began: now.checked_sub(seconds(ago)).unwrap(),
            disk: 0,
            has_begun: true,
        };
        taken.jobs.insert(0, began(4));
        taken.jobs.insert(1, began(2));
        assert_eq!(taken.wait(now), None, "nothing has ended yet");
        taken.ended(seconds(10));
        assert_eq!(taken.wait(now), Some(seconds(7)));
        taken.ended(seconds(2));
        assert_eq!(taken.usual, Some(seconds(8)));
        assert_eq!(taken.wait(now), Some(seconds(5)));
        taken.jobs.insert(2, began(100));
        assert_eq!(taken.wait(now), Some(seconds(1)), "any moment");
        taken.ended(seconds(10_000));
        taken.jobs.remove(&2);
        assert_eq!(taken.wait(now), Some(LONGEST_WAIT));
    }

    #[test]
    fn a_gzip_document_is_there_twice() {
        let limits = Limits {
            input_size: 1000,
            output_size: 100,
            pages: 1,
            time: Duration::from_secs(1),
            memory: 1,
        };
        let mut source = SourceObject {
            source: source(1),
            generation: 1,
            is_named: true,
            size: 40,
            crc32c: None,
            content_type: None,
            content_encoding: None,
        };
        assert_eq!(most_on_disk(&source, 2, &limits), engine::most_on_disk(40, 2, 100));
        source.content_encoding = Some("gzip".into());
        assert_eq!(most_on_disk(&source, 2, &limits), engine::most_on_disk(1040, 2, 100));
    }
}
