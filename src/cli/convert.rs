//! `platen convert`: the engine and its sandbox alone, files side by side.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Failure;
use super::output::{Paths, place, say};
use crate::config::{EngineConfig, Environment, Limits, StorageConfig};
use crate::convert::{Wanted, Warning, convert_file};
use crate::deliver::milliseconds;
use crate::engine::Engine;
use crate::error::Stop;
use crate::job::{Format, Options};
use crate::serve::StartError;
use crate::telemetry::{self, LogFormat};

/// Convert files with the engine and its sandbox alone, without any cloud.
///
/// Example: platen convert a.docx b.xlsx c.pptx --out pdfs
/// Example: platen convert a.docx --option pdfa=PDF/A-2b --option nativePageRanges=1-3
/// Example: platen convert a.pptx --to png --option page=2 --option width=800
///
/// A file that fails does not stop the others. Limits, SANDBOX, FONTS and DOCUMENT_LOCALE come from the environment, as
/// for 'platen serve'; a flag beats its variable. Exit code 0 when every file succeeded, 1 when some failed.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Documents to convert.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What to make of each file; png and jpg are of its first page, or of the option 'page'.
    #[arg(long, value_name = "FORMAT", default_value = "pdf", value_parser = Format::ALL.map(Format::as_str))]
    to: String,
    /// How to make it: an option of the README's table, its value literal for a text, else as JSON. Again for more.
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Where outputs go, as DIR/{stem}.{ext}; made if it is not there. Files there are replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Conversions at once [default: CONVERT_CONCURRENCY, else the number of CPUs].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    jobs: Option<u16>,
    /// Wall time of one conversion, such as 30s [default: CONVERT_TIMEOUT, else 120s].
    #[arg(long, value_name = "DUR", value_parser = crate::units::duration)]
    timeout: Option<Duration>,
    /// Print one line of JSON a file as it ends.
    #[arg(long)]
    json: bool,
}

/// How one file ended.
struct Ended {
    file: PathBuf,
    result: Result<Made, (String, String)>,
    convert_ms: Option<u64>,
    total_ms: u64,
}

struct Made {
    output: PathBuf,
    pages: Option<u32>,
    warnings: Vec<Warning>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = EngineConfig::load(&Environment)?;
    let format = Format::parse(&arguments.to).map_err(|failure| Failure::Usage(Some(failure.message)))?;
    let options = Options::parse_arguments(format, &arguments.options)
        .map_err(|failure| Failure::Usage(Some(failure.message)))?;
    let wanted = Wanted { format, options };
    if let Some(jobs) = arguments.jobs {
        config.concurrency = usize::from(jobs);
    }
    config.concurrency = config.concurrency.min(arguments.files.len());
    if let Some(timeout) = arguments.timeout {
        config.limits.time = timeout;
    }
    telemetry::start_quiet(LogFormat::load(&Environment)?, &Environment);
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::Work(Some(format!("{} cannot be made: {error}", arguments.out.display()))))?;
    let failed = super::runtime()?.block_on(convert_all(arguments, &config, &wanted))?;
    if failed == 0 { Ok(()) } else { Err(Failure::Work(None)) }
}

/// Converts all files side by side and says how many failed.
async fn convert_all(arguments: &Arguments, config: &EngineConfig, wanted: &Wanted) -> Result<usize, Failure> {
    let mut interrupted = pin!(super::interrupted()?);
    let engine = tokio::select! {
        engine = start_engine(config) => engine.map_err(|error| match error {
            StartError::Configuration(message) => Failure::Usage(Some(message)),
            StartError::Unavailable(message) => Failure::Work(Some(message)),
        })?,
        () = &mut interrupted => return Err(stopped()),
    };
    let progress = progress(arguments.files.len());
    let slots = Arc::new(Semaphore::new(config.concurrency));
    let mut paths = Paths::new(&arguments.out);
    let mut running = JoinSet::new();
    for file in &arguments.files {
        let (engine, slots, limits) = (engine.clone(), slots.clone(), config.limits);
        let (file, output) = (file.clone(), paths.next(file, wanted.format.as_str()));
        let wanted = wanted.clone();
        running.spawn(async move {
            let _slot = slots.acquire_owned().await;
            convert_one(&engine, &limits, file, output, wanted).await
        });
    }
    let mut failed = 0;
    let result = loop {
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = &mut interrupted => break Err(stopped()),
        };
        match ended {
            None => break Ok(failed),
            Some(Err(error)) => break Err(Failure::Bug(format!("a conversion panicked: {error}"))),
            Some(Ok(ended)) => {
                failed += usize::from(ended.result.is_err());
                progress.suspend(|| print(&ended, arguments.json));
                progress.inc(1);
            }
        }
    };
    progress.finish_and_clear();
    // Whatever way it ended, nothing of a document stays behind.
    running.shutdown().await;
    engine.stop().await;
    result
}

async fn start_engine(config: &EngineConfig) -> Result<Engine, StartError> {
    let storage = crate::serve::storage_for_fonts(config, || StorageConfig::load(&Environment)).await?;
    crate::serve::start_engine(config, storage.as_ref()).await
}

fn stopped() -> Failure {
    Failure::Work(Some("stopped before every file was converted".to_owned()))
}

async fn convert_one(engine: &Engine, limits: &Limits, file: PathBuf, output: PathBuf, wanted: Wanted) -> Ended {
    let started = Instant::now();
    let converted = convert_file(engine, limits, &file, &[wanted]).await;
    let convert_ms = converted.is_ok().then(|| milliseconds(started));
    let result = match converted {
        Ok(converted) => match converted.files.first() {
            Some(made) => put(&made.path, &output).map(|()| Made {
                output,
                pages: made.pages,
                warnings: made.warnings.clone(),
            }),
            None => Err(("worker.bug".to_owned(), "The engine made no file.".to_owned())),
        },
        Err(Stop::Failed(failure)) => Err((failure.code.to_string(), failure.message)),
        Err(Stop::Superseded(reason)) => Err(("superseded".to_owned(), reason)),
        Err(Stop::Refused(refusal)) => Err(("engine.unavailable".to_owned(), refusal.message)),
    };
    Ended {
        file,
        result,
        convert_ms,
        total_ms: milliseconds(started),
    }
}

fn put(from: &Path, to: &Path) -> Result<(), (String, String)> {
    place(from, to).map_err(|error| {
        let message = format!("{} cannot be written: {}.", to.display(), error.kind());
        ("output.unwritable".to_owned(), message)
    })
}

fn print(ended: &Ended, as_json: bool) {
    if as_json {
        say(&line(ended).to_string());
        return;
    }
    let file = ended.file.display();
    match &ended.result {
        Ok(made) => {
            let pages = made.pages.map_or_else(String::new, |pages| {
                format!("{pages} page{}, ", if pages == 1 { "" } else { "s" })
            });
            say(&format!(
                "{file} -> {} ({pages}{} ms)",
                made.output.display(),
                ended.total_ms
            ));
            for warning in &made.warnings {
                eprintln!("{file}: {}: {}", warning.code, warning.message);
            }
        }
        Err((code, message)) => eprintln!("{file}: {code}: {message}"),
    }
}

fn line(ended: &Ended) -> Value {
    let made = ended.result.as_ref().ok();
    json!({
        "file": ended.file.to_string_lossy(),
        "status": if made.is_some() { "succeeded" } else { "failed" },
        "output": made.map(|made| made.output.to_string_lossy()),
        "pages": made.and_then(|made| made.pages),
        "warnings": made.map_or(&[][..], |made| &made.warnings),
        "error": ended.result.as_ref().err().map(|(code, message)| json!({"code": code, "message": message})),
        "timings": {"convertMs": ended.convert_ms, "totalMs": ended.total_ms},
    })
}

/// A bar where somebody watches, else nothing.
fn progress(files: usize) -> ProgressBar {
    if files < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(files as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} left {eta}") {
        bar.set_style(style);
    }
    bar
}
