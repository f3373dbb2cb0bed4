//! The one line of a delivery that was acknowledged: how it ended, and what each phase took. Refused ones have theirs
//! where the refusal is answered (`serve`), with the same fields.

use tracing::Level;

use super::Outcome;
use crate::deliver::{Report, ResultMessage, Status, Timings};
use crate::error::Refusal;
use crate::metrics;
use crate::trace::{self, Line, Phase};

/// Notes what is known by now, for whatever is logged from here on.
pub(super) fn note(report: &Report) {
    trace::note(|about| {
        about.job_id = report.job_id().map(str::to_owned);
        about.source = report.source_name();
        about.message_id = report.message_id().map(str::to_owned);
        about.attempt = Some(report.attempt());
        about.input_bytes = size(report.source_size());
        about.queued_ms = report
            .queued()
            .map(|queued| u64::try_from(queued.as_millis()).unwrap_or(u64::MAX));
    });
}

/// The phases of a run that another delivery began, and whose lines therefore do not have them.
pub(super) fn note_shared(timings: Timings) {
    let took = |milliseconds: u64| (milliseconds > 0).then_some(Phase::Took(milliseconds));
    trace::note(|about| {
        about.fetch = about.fetch.or(took(timings.fetch_ms));
        about.convert = about.convert.or(took(timings.convert_ms));
        about.store = about.store.or(took(timings.store_ms));
    });
}

/// Writes and counts it.
pub(super) fn write(outcome: &Outcome, report: &Report, status: u16) {
    match outcome {
        Outcome::Published(result) => published(result, report, status),
        Outcome::Ignored(reason) => {
            metrics::ignored(reason.label());
            let line = Line {
                reason: Some(reason.label()),
                ..acknowledged(report, "ignored", 204)
            };
            line.write(Level::INFO, format_args!("ignored: {}", reason.as_str()));
        }
    }
}

fn published(result: &ResultMessage, report: &Report, status: u16) {
    let code = result.error.as_ref().map(|error| error.code);
    metrics::job(result.status.as_str(), code);
    if let Some(queued) = report.queued() {
        metrics::phase("queued", queued);
    }
    metrics::phase("total", report.elapsed());
    let line = Line {
        job_id: result.job_id.clone(),
        code,
        message_id: result.message_id.clone(),
        attempt: Some(result.attempt),
        outputs: Some(result.outputs.len()),
        pages: pages(result),
        input_bytes: size(result.source.as_ref().and_then(|source| source.size.as_deref())),
        output_bytes: Some(
            result
                .outputs
                .iter()
                .filter_map(|output| size(Some(&output.size)))
                .sum(),
        ),
        ..acknowledged(report, result.status.as_str(), status)
    };
    match (result.status, &result.error) {
        (Status::Failed, Some(error)) => line.write(Level::WARN, format_args!("the job failed: {}", error.message)),
        (Status::Superseded, _) => line.write(Level::INFO, format_args!("superseded")),
        _ => line.write(Level::INFO, format_args!("job done")),
    }
}

fn acknowledged(report: &Report, status: &'static str, http_status: u16) -> Line {
    Line {
        source: report.source_name(),
        message_id: report.message_id().map(str::to_owned),
        attempt: Some(report.attempt()),
        total: Some(report.elapsed()),
        http_status: Some(http_status),
        ..Line::of_current(status)
    }
}

/// The line of a last delivery that is refused without being final, and whose caller is not there for the answer that
/// would have had it.
pub(super) fn nobody_waits(refusal: &Refusal, member: &str) {
    let level = if refusal.remedy.is_some() {
        Level::ERROR
    } else {
        Level::WARN
    };
    Line::of_current("refused").write(
        level,
        format_args!("refused after its caller had hung up: {}", refusal.explained(member)),
    );
}

fn pages(result: &ResultMessage) -> Option<u32> {
    let pages = result.outputs.iter().filter_map(|output| output.pages);
    pages.reduce(u32::saturating_add)
}

fn size(decimal: Option<&str>) -> Option<u64> {
    decimal?.parse().ok()
}
