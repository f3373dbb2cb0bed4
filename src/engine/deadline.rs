//! What is begun when somebody waits for a conversion until a certain moment only.

use std::time::Duration;

use tokio::time::Instant;

use super::conversion::Verdict;

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
}
