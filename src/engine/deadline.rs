//! What is begun when somebody waits for a conversion until a certain moment only.

use std::time::Duration;

use tokio::time::Instant;

use super::conversion::{Exceeded, Limit, Verdict};

/// How much time a conversion that begins now has, when `check` of it is for looking at what it made; `None` when nobody
/// counts.
pub(super) fn room(deadline: Option<Instant>, check: Duration) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).saturating_sub(check))
}

/// The time that a try is given of what is left of its limit, if it is begun. The first is begun with all of it or not at
/// all: the next delivery of the job has a whole deadline. The second, after a crash, is begun with what there is: most
/// documents that crash twice do so after the same time, and one that is never tried twice would crash at every delivery.
pub(super) fn wall(room: Option<Duration>, left: Duration, is_first: bool) -> Option<Duration> {
    match room {
        None => Some(left),
        Some(room) if room >= left => Some(left),
        Some(room) if is_first || room.is_zero() => None,
        room => room,
    }
}

pub(super) fn too_late() -> Verdict {
    Verdict::EngineUnavailable("the conversion could end after the delivery's deadline".to_owned())
}

/// What a try came to that was given this much of the time that its document is allowed: what it was not given says nothing
/// about the document, and the next delivery has it.
pub(super) fn judged<T>(decided: Result<T, Verdict>, given: Duration, allowed: Duration) -> Result<T, Verdict> {
    match decided {
        Err(Verdict::TooComplex(Exceeded { limit: Limit::Time, .. })) if given < allowed => Err(too_late()),
        decided => decided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_room_ends_where_the_look_at_the_outputs_begins() {
        assert_eq!(room(None, seconds(2)), None);
        let deadline = Some(Instant::now() + seconds(10));
        assert_eq!(room(deadline, seconds(2)), Some(seconds(8)));
        tokio::time::sleep(seconds(7)).await;
        assert_eq!(room(deadline, seconds(2)), Some(seconds(1)));
        tokio::time::sleep(seconds(7)).await;
        assert_eq!(room(deadline, seconds(2)), Some(seconds(0)));
    }

    #[test]
    fn a_first_try_has_all_of_its_time_and_a_second_what_there_is() {
        for (room, first, second) in [
            (None, Some(5), Some(5)),
            (Some(6), Some(5), Some(5)),
            (Some(5), Some(5), Some(5)),
            (Some(4), None, Some(4)),
            (Some(0), None, None),
        ] {
            let room = room.map(seconds);
            assert_eq!(wall(room, seconds(5), true), first.map(seconds), "{room:?}");
            assert_eq!(wall(room, seconds(5), false), second.map(seconds), "{room:?}");
        }
    }

    #[test]
    fn a_try_that_was_cut_short_is_not_the_documents_fault() {
        let ended = |limit, given| {
            let exceeded = Exceeded {
                limit,
                allowed: 5000,
                measured: 5000,
            };
            let decided: Result<(), _> = Err(Verdict::TooComplex(exceeded));
            judged(decided, seconds(given), seconds(5)).unwrap_err()
        };
        assert!(matches!(ended(Limit::Time, 4), Verdict::EngineUnavailable(why) if why.contains("deadline")));
        // All of its time, and what has nothing to do with time.
        for (limit, given) in [(Limit::Time, 5), (Limit::Memory, 4), (Limit::ProcessorTime, 4)] {
            let verdict = ended(limit, given);
            assert!(
                matches!(&verdict, Verdict::TooComplex(exceeded) if exceeded.limit == limit),
                "{limit:?}, {given}: {verdict}"
            );
        }
        assert!(matches!(judged(Ok(7), seconds(4), seconds(5)), Ok(7)));
        let corrupt: Result<(), _> = judged(Err(Verdict::Corrupt), seconds(4), seconds(5));
        assert!(matches!(corrupt, Err(Verdict::Corrupt)));
    }
}
