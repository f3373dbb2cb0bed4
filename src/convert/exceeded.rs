//! What a document that is over a limit is told: a sentence with the variable to change, and as facts for a program
//! `limit`, `value` (what is allowed) and `measured`, in one unit.

use std::time::Duration;

use crate::engine::{Exceeded, Limit};
use crate::error::{Failure, FailureCode};

/// The failure of a document of this name that ran into a limit of the engine.
pub(super) fn too_complex(exceeded: Exceeded, name: &str) -> Failure {
    let Exceeded {
        limit,
        allowed,
        measured,
    } = exceeded;
    let bytes = |count: u64| format!("{count} bytes");
    let time = |count: u64| format!("{:?}", Duration::from_millis(count));
    let count = |count: u64| count.to_string();
    // The name for a program, the one for a person, the variable, and how its unit is written.
    let (fact, what, variable, written): (_, _, _, &dyn Fn(u64) -> String) = match limit {
        Limit::Time => ("time", "time", "CONVERT_TIMEOUT allows", &time),
        Limit::ProcessorTime => ("processorTime", "processor time", "twice CONVERT_TIMEOUT", &time),
        Limit::Memory => ("memory", "memory", "CONVERT_MEMORY allows", &bytes),
        Limit::OutputSize => ("outputSize", "output size", "MAX_OUTPUT_SIZE allows", &bytes),
        Limit::DiskSize => ("diskSize", "disk space", "follows from MAX_OUTPUT_SIZE", &bytes),
        Limit::DiskEntries => ("diskEntries", "temporary files", "a job may have", &count),
        Limit::DiskLevels => ("diskLevels", "directories inside each other", "a job may have", &count),
        Limit::Pages => ("pages", "pages", "MAX_PAGES allows", &count),
        Limit::Threads => ("threads", "threads", "a job may have", &count),
    };
    over(
        FailureCode::DocumentTooComplex,
        format!(
            "The document {name:?} takes more {what} than {variable} ({}): {} when it was stopped.",
            written(allowed),
            written(measured)
        ),
        fact,
        allowed,
        measured,
    )
}

/// The failure of a source that is too large to be fetched. `measured` bytes were stated or seen, and there may be more.
pub(super) fn source_too_large(source: &str, measured: u64, allowed: u64) -> Failure {
    over(
        FailureCode::SourceTooLarge,
        format!("{source} has {measured} bytes or more: MAX_INPUT_SIZE allows {allowed}."),
        "inputSize",
        allowed,
        measured,
    )
}

/// A failure with the facts of a limit.
pub(super) fn over(code: FailureCode, message: String, limit: &str, allowed: u64, measured: u64) -> Failure {
    Failure::new(code, message)
        .with("limit", limit)
        .with("value", allowed)
        .with("measured", measured)
}
