//! The least that a conversion can take: LibreOffice's load and store in one warm process, again and again, under the
//! engine's own configuration and allocator. For the benchmark alone (feature `floor`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::format::{Format, Kind};
use super::office::{Office, Value};
use super::process::Launched;
use super::protocol::{Event, Request};
use super::supervisor::Settings;

/// What is measured once.
#[derive(Serialize, Deserialize)]
pub(super) struct Measure {
    document: PathBuf,
    filter: String,
    output: PathBuf,
}

/// What one conversion took, load and store alone.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Measured {
    /// Of the clock.
    pub wall: Duration,
    /// Of the processor, user and system: what a busy machine does not change.
    pub processor: Duration,
}

/// Measures one conversion, in the zygote.
pub(super) fn measure(office: &Office, measure: &Measure) -> Result<Measured, String> {
    let (began, used) = (Instant::now(), processor_time());
    // What a child reads with.
    let reading = [
        ("Hidden", Value::Boolean(true)),
        ("ReadOnly", Value::Boolean(true)),
        ("MacroExecutionMode", Value::Short(0)),
        ("UpdateDocMode", Value::Short(0)),
        ("FilterName", Value::Text(measure.filter.clone())),
    ];
    let loaded = office
        .load(&measure.document, &reading)
        .map_err(|complaint| format!("{} does not load: {complaint:?}", measure.document.display()))?;
    let filter = Kind::of(&loaded)
        .and_then(|kind| Format::PDF.filter(kind))
        .ok_or("it is of no known kind")?;
    let writing = [
        ("FilterName", Value::Text(filter.to_owned())),
        ("Overwrite", Value::Boolean(true)),
    ];
    loaded
        .store(&measure.output, &writing, &[])
        .map_err(|complaint| format!("it is not stored: {complaint:?}"))?;
    // A child never closes its document, so that does not count.
    let measured = Measured {
        wall: began.elapsed(),
        processor: processor_time().saturating_sub(used),
    };
    loaded
        .close()
        .map_err(|complaint| format!("it does not close: {complaint:?}"))?;
    Ok(measured)
}

/// What this process has used.
fn processor_time() -> Duration {
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        micros(usage.user_time()) + micros(usage.system_time())
    })
}

/// A zygote that converts by itself.
pub struct Floor {
    process: Launched,
    output: PathBuf,
}

impl Floor {
    /// Starts it and waits until it is warm.
    ///
    /// # Errors
    /// A sentence.
    pub async fn start(settings: &Settings) -> Result<Self, String> {
        let home = settings.work_directory.join("floor");
        std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let output = home.join("floor.pdf");
        let process = Launched::start(settings, &home).await?;
        Ok(Self { process, output })
    }

    /// Loads a document and stores it as PDF.
    ///
    /// # Errors
    /// A sentence.
    pub async fn convert(&self, document: PathBuf, filter: &str) -> Result<Measured, String> {
        let measure = Measure {
            document,
            filter: filter.to_owned(),
            output: self.output.clone(),
        };
        match self.process.ask(&Request::Measure(measure)).await {
            Ok(Some(Event::Measured(Ok(measured)))) => Ok(measured),
            Ok(Some(Event::Measured(Err(sentence)))) => Err(sentence),
            Ok(_) => Err("the zygote is gone".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
