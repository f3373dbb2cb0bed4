//! The log of refusals: a line each while they are few, and their number where they are many.
//!
//! Who has no token at all can be refused as fast as the network carries requests. A line each would cost more than all
//! the rest of a refusal, be paid for by the byte where logs are kept, and hide every other line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tracing::Level;

use crate::error::{PANICKED, Refusal, RefusalKind};
use crate::google::grant;
use crate::trace::Line;

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
///
/// `member` is who the worker is, for what it says of a right that is missing.
pub(super) fn log(refusal: &Refusal, member: &str) {
    let (status, lines) = match refusal.kind {
        RefusalKind::NotAnEvent => (400, &NOT_AN_EVENT),
        RefusalKind::Unauthenticated => (401, &UNAUTHENTICATED),
        RefusalKind::WrongCaller => (403, &WRONG_CALLER),
        RefusalKind::Busy => (429, &BUSY),
        RefusalKind::Unavailable => (503, &UNAVAILABLE),
        RefusalKind::Bug => return line(500, refusal, member),
    };
    if has_line(lines, &status.to_string()) {
        line(status, refusal, member);
    }
}

/// Says that a request was not taken for what HTTP alone shows of it: its size, or that it did not come to its end.
pub(super) fn unreadable(status: StatusCode, message: &str) {
    let status = status.as_u16();
    if has_line(&UNREADABLE, "400, 408, 413, 431") {
        let refusal = Refusal::new(RefusalKind::NotAnEvent, message);
        line(status, &refusal, grant::UNKNOWN);
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
    Line::of_current("hung up").write(
        Level::WARN,
        format_args!(
            "the caller hung up before its answer; a run that is under way goes on, and the next delivery finds what it made"
        ),
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

/// The delivery's one line, as far as it came.
fn line(status: u16, refusal: &Refusal, member: &str) {
    let level = match refusal.kind {
        _ if refusal.remedy.is_some() => Level::ERROR,
        RefusalKind::Bug => Level::ERROR,
        RefusalKind::Busy => Level::INFO,
        _ => Level::WARN,
    };
    let line = Line {
        http_status: Some(status),
        // A panic has its own line, which says where.
        bug: refusal.kind == RefusalKind::Bug && refusal.message != PANICKED,
        ..Line::of_current("refused")
    };
    line.write(level, format_args!("{status}: {}", refusal.explained(member)));
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
