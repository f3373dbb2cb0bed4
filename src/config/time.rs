//! How the ack deadline is divided: what of it is for a conversion, and what for all the rest of a delivery.

use std::time::Duration;

use super::Reader;

/// What looking at the outputs of a conversion may take after its limit.
pub const CHECK_TIME: Duration = Duration::from_secs(2);

/// What is kept of the ack deadline for signing, publishing and answering: a delivery whose outputs are not there by
/// then is refused. Of a short deadline, an eighth.
pub fn reserve(ack_deadline: Duration) -> Duration {
    Duration::from_secs(15).min(ack_deadline / 8)
}

/// What looking, fetching, a fresh engine after a crash, and storing may take beside the conversion itself. Their
/// retries end after 20 s. Of a short deadline, an eighth.
fn transfers(ack_deadline: Duration) -> Duration {
    Duration::from_secs(28).min(ack_deadline / 8)
}

/// The longest conversion that a delivery has room for. All outputs of a job, all passwords that are tried, and the second
/// attempt after a crash have one `CONVERT_TIMEOUT` together, so the worst case of a job is exactly that.
fn longest_conversion(ack_deadline: Duration) -> Duration {
    ack_deadline - reserve(ack_deadline) - transfers(ack_deadline) - CHECK_TIME
}

/// A conversion is not begun when it could end after the deadline, so one that never fits would never be begun.
pub(super) fn check(reader: &mut Reader<'_>, conversion: Duration, ack_deadline: Duration) {
    let longest = longest_conversion(ack_deadline);
    if conversion > longest {
        reader.problem(
            "CONVERT_TIMEOUT",
            format!(
                "does not fit in ACK_DEADLINE: of {}s, {}s are for fetching, storing, signing and publishing, and a conversion that could end later is not begun; set it to {}s at most, or raise the subscription's deadline (600s at most) and ACK_DEADLINE with it",
                ack_deadline.as_secs_f32(),
                (ack_deadline - longest).as_secs_f32(),
                longest.as_secs_f32(),
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deadline_that_pubsub_takes_has_room_for_each_part() {
        for seconds in [10, 11, 60, 170, 599, 600] {
            let ack_deadline = Duration::from_secs(seconds);
            let longest = longest_conversion(ack_deadline);
            assert!(longest >= ack_deadline / 2, "{seconds}: {longest:?}");
            assert!(reserve(ack_deadline) >= Duration::from_secs(1), "{seconds}");
        }
        assert_eq!(longest_conversion(Duration::from_secs(600)), Duration::from_secs(555));
        assert_eq!(longest_conversion(Duration::from_secs(10)), Duration::from_millis(5500));
    }
}
