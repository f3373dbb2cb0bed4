//! The time of one phase of a job: measured however it ends, also by being given up.

use std::time::{Duration, Instant};

use crate::metrics;
use crate::trace::{self, About, Phase};

/// A phase that is under way. It ends with this, and is counted then.
pub(super) struct Timed {
    name: &'static str,
    began: Instant,
    took: Option<Duration>,
    place: fn(&mut About) -> &mut Option<Phase>,
}

impl Timed {
    pub(super) fn fetch() -> Self {
        Self::begin("fetch", |about| &mut about.fetch)
    }

    pub(super) fn convert() -> Self {
        Self::begin("convert", |about| &mut about.convert)
    }

    pub(super) fn store() -> Self {
        Self::begin("store", |about| &mut about.store)
    }

    pub(super) fn sign() -> Self {
        Self::begin("sign", |about| &mut about.sign)
    }

    pub(super) fn publish() -> Self {
        Self::begin("publish", |about| &mut about.publish)
    }

    fn begin(name: &'static str, place: fn(&mut About) -> &mut Option<Phase>) -> Self {
        let began = Instant::now();
        trace::note(|about| *place(about) = Some(Phase::Since(began)));
        Self {
            name,
            began,
            took: None,
            place,
        }
    }

    /// Ends it, and gives the milliseconds that it took.
    pub(super) fn end(mut self) -> u64 {
        let took = self.began.elapsed();
        self.took = Some(took);
        milliseconds(took)
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let took = self.took.unwrap_or_else(|| self.began.elapsed());
        metrics::phase(self.name, took);
        trace::note(|about| *(self.place)(about) = Some(Phase::Took(milliseconds(took))));
    }
}

fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> String {
        let text = metrics::exposition(metrics::Form::OpenMetrics);
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with("platen_job_phase_duration_seconds_count{phase=\"store\"}"));
        line.unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_phase_that_is_given_up_has_its_time_and_is_counted() {
        trace::within(Instant::now(), None, async {
            let store = || trace::current().unwrap().about().store;
            let before = stored();
            assert_eq!(store(), None);
            let storing = Timed::store();
            assert!(matches!(store(), Some(Phase::Since(_))));
            drop(storing);
            assert!(matches!(store(), Some(Phase::Took(_))));
            assert_ne!(stored(), before);
        })
        .await;
    }
}
