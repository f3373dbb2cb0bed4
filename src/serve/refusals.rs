//! The log of refusals: a line each while they are few, and their number where they are many.
//!
//! Who has no token at all can be refused as fast as the network carries requests. A line each would cost more than all
//! the rest of a refusal, be paid for by the byte where logs are kept, and hide every other line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::error::{PANICKED, Refusal, RefusalKind};
use crate::trace::{self, Phase};

/// Lines of one status within one [`PERIOD`]. Retries of real callers stay far below.
const MOST: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

static NOT_AN_EVENT: Lines = Lines::new();
static UNAUTHENTICATED: Lines = Lines::new();
static WRONG_CALLER: Lines = Lines::new();
static BUSY: Lines = Lines::new();
static UNAVAILABLE: Lines = Lines::new();
static UNREADABLE: Lines = Lines::new();
static CONNECTIONS: Lines = Lines::new();

/// Says why a request is refused, unless too many have just been. A bug is always said.
pub(super) fn log(refusal: &Refusal) {
    let (status, lines) = match refusal.kind {
        RefusalKind::NotAnEvent => (400, &NOT_AN_EVENT),
        RefusalKind::Unauthenticated => (401, &UNAUTHENTICATED),
        RefusalKind::WrongCaller => (403, &WRONG_CALLER),
        RefusalKind::Busy => (429, &BUSY),
        RefusalKind::Unavailable => (503, &UNAVAILABLE),
        RefusalKind::Bug => return line(500, refusal),
    };
    if has_line(lines, &status.to_string()) {
        line(status, refusal);
    }
}

/// Says that a request was not taken for what HTTP alone shows of it: its size, or that it did not come to its end.
pub(super) fn unreadable(status: StatusCode, message: &str) {
    let status = status.as_u16();
    if has_line(&UNREADABLE, "400, 408, 413, 431") {
        let refusal = Refusal::new(RefusalKind::NotAnEvent, message);
        line(status, &refusal);
    }
}

/// Says that a connection was not taken.
pub(super) fn too_many_connections() {
    if has_line(&CONNECTIONS, "503") {
        tracing::warn!("503: every connection that there may be has a request under way");
    }
}

/// Says that nobody waits for the answer any more, and how far it had come by then.
pub(super) fn hung_up() {
    let about = trace::current().map(|current| current.about()).unwrap_or_default();
    let elapsed = trace::current().map(|current| current.elapsed());
    tracing::warn!(
        jobId = about.job_id,
        source = about.source,
        messageId = about.message_id,
        attempt = about.attempt,
        status = "hung up",
        inputBytes = about.input_bytes,
        queuedMs = about.queued_ms,
        fetchMs = about.fetch.map(Phase::milliseconds),
        convertMs = about.convert.map(Phase::milliseconds),
        storeMs = about.store.map(Phase::milliseconds),
        signMs = about.sign.map(Phase::milliseconds),
        publishMs = about.publish.map(Phase::milliseconds),
        totalMs = elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
        "the caller hung up before its answer; a run that is under way goes on, and the next delivery finds what it made"
    );
}

/// Whether there is a line left, having said how many had none before.
fn has_line(lines: &Lines, which: &str) -> bool {
    let Some(left_out) = lines.take(Instant::now()) else {
        return false;
    };
    if left_out > 0 {
        tracing::warn!("{which}: {left_out} more requests were refused than there are lines for them");
    }
    true
}

/// The delivery's one line, with the fields that `pipeline::summary` writes, as far as it came.
fn line(status: u16, refusal: &Refusal) {
    let about = trace::current().map(|current| current.about()).unwrap_or_default();
    let elapsed = trace::current().map(|current| current.elapsed());
    macro_rules! line {
        ($level:ident $(, $field:ident)?) => {
            tracing::$level!(
                jobId = about.job_id,
                source = about.source,
                messageId = about.message_id,
                attempt = about.attempt,
                status = "refused",
                inputBytes = about.input_bytes,
                queuedMs = about.queued_ms,
                fetchMs = about.fetch.map(Phase::milliseconds),
                convertMs = about.convert.map(Phase::milliseconds),
                storeMs = about.store.map(Phase::milliseconds),
                signMs = about.sign.map(Phase::milliseconds),
                publishMs = about.publish.map(Phase::milliseconds),
                totalMs = elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
                httpStatus = status,
                $($field = true,)?
                "{status}: {}",
                refusal.message
            )
        };
    }
    match refusal.kind {
        RefusalKind::Busy => line!(info),
        // A panic has its own line, which says where.
        RefusalKind::Bug if refusal.message != PANICKED => line!(error, bug),
        RefusalKind::Bug => line!(error),
        _ => line!(warn),
    }
}

/// The lines of one status.
struct Lines(Mutex<Period>);

struct Period {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Lines {
    const fn new() -> Self {
        Self(Mutex::new(Period {
            began: None,
            written: 0,
            left_out: 0,
        }))
    }

    /// A line, if there is one to be had now, with how many were left out before it and not yet counted.
    fn take(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |began: Instant| now.saturating_duration_since(began) >= PERIOD;
        if period.began.is_none_or(is_over) {
            period.began = Some(now);
            period.written = 0;
        }
        if period.written == MOST {
            period.left_out += 1;
            return None;
        }
        period.written += 1;
        Some(std::mem::take(&mut period.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_its_number() {
        let (lines, now) = (Lines::new(), Instant::now());
        let taken: Vec<_> = (0..10_000).filter_map(|_| lines.take(now)).collect();
        assert_eq!(taken, [0; MOST as usize]);
        let later = now + PERIOD;
        assert_eq!(lines.take(later), Some(10_000 - u64::from(MOST)), "counted once");
        assert_eq!(lines.take(later), Some(0));
    }

    #[test]
    fn what_comes_now_and_then_has_a_line_each() {
        let (lines, mut now) = (Lines::new(), Instant::now());
        for _ in 0..100 {
            assert_eq!(lines.take(now), Some(0));
            now += PERIOD / MOST;
        }
    }
}
