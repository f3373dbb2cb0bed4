//! `platen convert`: the engine and its sandbox alone, files side by side.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::output::{Paths, note, place, plain, say};
use super::{Failure, password};
use crate::config::{Access, EngineConfig, Environment, Limits};
use crate::convert::{OutputPasswords, Wanted, Warning, convert_file};
use crate::deliver::milliseconds;
use crate::engine::{Engine, most_on_disk};
use crate::error::{FailureCode, Stop};
use crate::google::secret::Secret;
use crate::job::{Format, Options};
use crate::serve::StartError;

/// Convert files with the engine and its sandbox alone, without any cloud.
///
/// Example: platen convert a.docx b.xlsx c.pptx --out pdfs
/// Example: platen convert a.docx --option pdfa=PDF/A-2b --option nativePageRanges=1-3
/// Example: platen convert locked.docx --password-file password.txt --user-password-file new-password.txt
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
    /// How to make it: an option of docs/documents.md, its value literal for a text, else as JSON. Again for more.
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Where outputs go, as DIR/{stem}.{ext}; made if it is not there. Files there are replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The password of the files that are encrypted: the one line of FILE, or of stdin for -.
    #[arg(long, value_name = "FILE|-")]
    password_file: Option<PathBuf>,
    /// Protect the PDFs: they open with the password in FILE.
    #[arg(long, value_name = "FILE|-")]
    user_password_file: Option<PathBuf>,
    /// Restrict the PDFs (permitPrinting, permitChanges, permitCopying): the password in FILE lifts it.
    #[arg(long, value_name = "FILE|-")]
    owner_password_file: Option<PathBuf>,
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
    let mut config = super::configured(EngineConfig::load(&Environment))?;
    let format = Format::parse(&arguments.to).map_err(|failure| Failure::Usage(Some(failure.message)))?;
    let (user, owner) = (&arguments.user_password_file, &arguments.owner_password_file);
    let protecting = [("userPassword", user), ("ownerPassword", owner)];
    let protecting: Vec<&str> = protecting
        .iter()
        .filter_map(|(name, file)| file.as_ref().map(|_| *name))
        .collect();
    let options = Options::parse_arguments(format, &arguments.options, &protecting)
        .map_err(|failure| Failure::Usage(Some(failure.message)))?;
    let from_stdin = [&arguments.password_file, user, owner].map(|file| file.as_deref() == Some(Path::new("-")));
    if from_stdin.iter().filter(|stdin| **stdin).count() > 1 {
        return Err(Failure::Usage(Some(
            "stdin holds one password: name a file for the others".to_owned(),
        )));
    }
    let read = |file: &Option<PathBuf>| file.as_deref().map(password::read).transpose();
    let passwords: Vec<Secret> = read(&arguments.password_file)?.into_iter().collect();
    let wanted = Wanted {
        format,
        options,
        passwords: OutputPasswords {
            user: read(user)?,
            owner: read(owner)?,
        },
    };
    if let Some(jobs) = arguments.jobs {
        config.concurrency = usize::from(jobs);
    }
    config.concurrency = config.concurrency.min(arguments.files.len());
    if let Some(timeout) = arguments.timeout {
        config.limits.time = timeout;
    }
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::Work(Some(format!("{} cannot be made: {error}", arguments.out.display()))))?;
    let failed = super::runtime()?.block_on(convert_all(arguments, &config, &passwords, &wanted))?;
    match (failed, arguments.files.len()) {
        (0, _) => Ok(()),
        // It has been said why.
        (_, 1) => Err(Failure::Work(None)),
        (failed, all) => Err(Failure::Work(Some(format!("{failed} of {all} files failed")))),
    }
}

/// Converts all files side by side and says how many failed.
async fn convert_all(
    arguments: &Arguments,
    config: &EngineConfig,
    passwords: &[Secret],
    wanted: &Wanted,
) -> Result<usize, Failure> {
    let mut interrupted = pin!(super::interrupted()?);
    let progress = progress(arguments.files.len());
    let engine = tokio::select! {
        engine = start_engine(config) => engine.map_err(|error| match error {
            StartError::Configuration(message) => Failure::Usage(Some(message)),
            StartError::Unavailable(message) => Failure::Work(Some(message)),
        })?,
        () = &mut interrupted => return Err(stopped()),
    };
    progress.set_message("");
    let admission = crate::serve::admission(config, &engine).map_err(|error| Failure::Work(Some(error.to_string())))?;
    let mut paths = Paths::new(&arguments.out);
    let mut waiting = arguments
        .files
        .iter()
        .map(|file| (file.clone(), paths.next(file, wanted.format.as_str())))
        .peekable();
    let inputs: HashSet<PathBuf> = arguments
        .files
        .iter()
        .filter_map(|file| file.canonicalize().ok())
        .collect();
    let mut running = JoinSet::new();
    let mut failed = 0;
    let result = loop {
        // As in the worker: what does not fit beside what runs waits until some of that has ended.
        while let Some((file, output)) = waiting.peek() {
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            let Ok(admitted) = admission.admit(most_on_disk(size, 1, config.limits.output_size)) else {
                break;
            };
            let (file, output) = (file.clone(), output.clone());
            waiting.next();
            let (engine, limits) = (engine.clone(), config.limits);
            let (wanted, passwords) = (wanted.clone(), passwords.to_vec());
            // However it is written; what is not there yet is none.
            let is_input = output.canonicalize().is_ok_and(|output| inputs.contains(&output));
            running.spawn(async move {
                let _admitted = admitted;
                if is_input {
                    return Ended::not_begun(file, &output);
                }
                convert_one(&engine, &limits, file, output, &passwords, wanted).await
            });
        }
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
    let storage = crate::serve::storage_for_fonts(config, || Access::load(&Environment)).await?;
    crate::serve::start_engine(config, storage.as_ref()).await
}

fn stopped() -> Failure {
    Failure::Work(Some("stopped before every file was converted".to_owned()))
}

async fn convert_one(
    engine: &Engine,
    limits: &Limits,
    file: PathBuf,
    output: PathBuf,
    passwords: &[Secret],
    wanted: Wanted,
) -> Ended {
    let started = Instant::now();
    let converted = convert_file(engine, limits, &file, passwords, &[wanted]).await;
    let total_ms = milliseconds(started);
    let convert_ms = match &converted {
        Ok(converted) => Some(u64::try_from(converted.took.as_millis()).unwrap_or(u64::MAX)),
        Err(_) => None,
    };
    let result = match converted {
        Ok(converted) => match converted.files.first() {
            Some(made) => put(&made.path, &output).map(|()| Made {
                output,
                pages: made.pages,
                warnings: made.warnings.clone(),
            }),
            None => Err(("worker.bug".to_owned(), "The engine made no file.".to_owned())),
        },
        Err(Stop::Failed(failure)) if failure.code == FailureCode::DocumentEncrypted => Err((
            failure.code.to_string(),
            "It is protected with a password: give that with --password-file FILE.".to_owned(),
        )),
        Err(Stop::Failed(failure)) => Err((failure.code.to_string(), failure.message)),
        Err(Stop::Superseded(reason)) => Err(("superseded".to_owned(), reason)),
        Err(Stop::Refused(refusal)) => Err(("engine.unavailable".to_owned(), refusal.message)),
    };
    Ended {
        file,
        result,
        convert_ms,
        total_ms,
    }
}

impl Ended {
    /// For an output that would take the place of a document that is given.
    fn not_begun(file: PathBuf, output: &Path) -> Self {
        let message = format!(
            "{} is one of the documents: name another directory with --out.",
            output.display()
        );
        Self {
            file,
            result: Err((FailureCode::OutputConflict.to_string(), message)),
            convert_ms: None,
            total_ms: 0,
        }
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
            let output = made.output.display();
            say(&plain(&format!("{file} -> {output} ({pages}{} ms)", ended.total_ms)));
            for warning in &made.warnings {
                note(&plain(&format!("{file}: {}: {}", warning.code, warning.message)));
            }
        }
        Err((code, message)) => note(&plain(&format!("{file}: {code}: {message}"))),
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

/// A bar where somebody watches, else nothing. Until the engine is warm it says so.
fn progress(files: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(files as u64).with_message("starting LibreOffice");
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {msg}") {
        bar.set_style(style);
    }
    // Time goes on while a document takes its own.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
