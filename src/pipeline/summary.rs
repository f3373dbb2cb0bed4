//! The one line of a delivery that was acknowledged: how it ended, and what each phase took. Refused ones have theirs
//! where the refusal is answered (`serve`), with the same fields.

use super::Outcome;
use crate::deliver::{Report, ResultMessage, Status, Timings};
use crate::metrics;
use crate::trace::{self, Phase};

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
            tracing::info!(
                messageId = report.message_id(),
                source = report.source_name(),
                attempt = report.attempt(),
                status = "ignored",
                reason = reason.label(),
                queuedMs = trace::current().and_then(|current| current.about().queued_ms),
                totalMs = u64::try_from(report.elapsed().as_millis()).unwrap_or(u64::MAX),
                httpStatus = 204,
                "ignored: {}",
                reason.as_str()
            );
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
    let about = trace::current().map(|current| current.about()).unwrap_or_default();
    // One set of fields for all three: what reads them finds each under one name.
    macro_rules! line {
        ($level:ident, $($message:tt)+) => {
            tracing::$level!(
                jobId = result.job_id,
                source = report.source_name(),
                code,
                messageId = result.message_id,
                attempt = result.attempt,
                status = result.status.as_str(),
                outputs = result.outputs.len(),
                pages = pages(result),
                inputBytes = size(result.source.as_ref().and_then(|source| source.size.as_deref())),
                outputBytes = result.outputs.iter().filter_map(|output| size(Some(&output.size))).sum::<u64>(),
                queuedMs = about.queued_ms,
                fetchMs = about.fetch.map(Phase::milliseconds),
                convertMs = about.convert.map(Phase::milliseconds),
                storeMs = about.store.map(Phase::milliseconds),
                signMs = about.sign.map(Phase::milliseconds),
                publishMs = about.publish.map(Phase::milliseconds),
                totalMs = u64::try_from(report.elapsed().as_millis()).unwrap_or(u64::MAX),
                httpStatus = status,
                $($message)+
            )
        };
    }
    match (result.status, &result.error) {
        (Status::Failed, Some(error)) => line!(warn, "the job failed: {}", error.message),
        (Status::Superseded, _) => line!(info, "superseded"),
        _ => line!(info, "job done"),
    }
}

fn pages(result: &ResultMessage) -> Option<u32> {
    let pages = result.outputs.iter().filter_map(|output| output.pages);
    pages.reduce(u32::saturating_add)
}

fn size(decimal: Option<&str>) -> Option<u64> {
    decimal?.parse().ok()
}
