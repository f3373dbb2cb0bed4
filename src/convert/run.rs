//! Inspects a document, has the engine convert it, and turns the engine's verdict into the contract's codes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::exceeded::{source_too_large, too_complex};
use super::fetch::Document;
use super::finish::OutputPasswords;
use super::inspect::{self, DocumentKind, InspectLimits};
use super::settings;
use super::warning::{Warning, warnings};
use crate::config::Limits;
use crate::engine::{self, Conversion, Engine, Exceeded, Export, Import, Limit, Password, Verdict};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::failpoint::failpoint;
use crate::google::secret::Secret;
use crate::job::{Format, Options};

/// One output to make.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is.
    pub format: Format,
    /// How it is made.
    pub options: Options,
    /// What the names of passwords among the options stand for.
    pub passwords: OutputPasswords,
}

/// What became of a local file. The outputs live as long as this does.
#[derive(Debug)]
pub struct Converted {
    /// One file per output, in the order they were asked for.
    pub files: Vec<ConvertedFile>,
    /// Holds the directory they are in.
    pub document: Document,
    /// From the inspection to the last output's check.
    pub took: Duration,
}

/// One output file.
#[derive(Debug, Clone)]
pub struct ConvertedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// CRC32C of the bytes, as they were read back.
    pub crc32c: u32,
    /// Pages, where the format has them.
    pub pages: Option<u32>,
    /// What a person should know about it.
    pub warnings: Vec<Warning>,
}

/// Converts a fetched document. `name` is the object's, for sentences and for telling formats apart by extension.
/// `passwords` are tried in this order on a document that is encrypted; on any other they are not used. What could end after
/// `deadline` is not begun.
///
/// # Errors
/// The failures of inspection and of the engine; refused when the engine is not available now, or the time too short.
pub async fn run(
    engine: &Engine,
    limits: &Limits,
    name: &str,
    document: &mut Document,
    passwords: &[Secret],
    outputs: &[Wanted],
    deadline: Option<Instant>,
) -> Step<Vec<ConvertedFile>> {
    let (path, object) = (document.path(), name.to_owned());
    let kind = blocking(move || inspect::inspect(&path, &object, &InspectLimits::default())).await??;
    if kind.encrypted && passwords.is_empty() {
        return Err(stop(&Verdict::Encrypted, name));
    }
    // LibreOffice sees the document under its own name, which headers and footers print, and under the extension of
    // what it really is.
    document
        .rename(engine::sanitised_file_name(name, kind.extension))
        .await?;
    let exports = outputs
        .iter()
        .enumerate()
        .map(|(index, wanted)| settings::export(index, wanted, &kind, name))
        .collect::<Step<Vec<_>>>()?;
    failpoint!("convert.inspected");
    let converted = open_and_convert(engine, limits, document, &kind, passwords, &exports, deadline)
        .await
        .map_err(|verdict| stop(&verdict, name))?;
    let mut files = Vec::with_capacity(converted.outputs.len());
    for (output, wanted) in converted.outputs.into_iter().zip(outputs) {
        initial_page_is_there(wanted, output.pages, name)?;
        let path = output.path.clone();
        let crc32c = blocking(move || checksum(&path)).await?.map_err(|error| {
            Refusal::new(
                RefusalKind::Unavailable,
                format!("an output in the job's directory cannot be read: {error}"),
            )
        })?;
        files.push(ConvertedFile {
            path: output.path,
            size: output.size,
            crc32c,
            pages: output.pages.and_then(|pages| u32::try_from(pages).ok()),
            warnings: warnings(&kind.remarks, &converted.findings, wanted.format, &wanted.options),
        });
    }
    Ok(files)
}

/// LibreOffice leaves out, without a word, a page to begin with that its PDF does not have.
fn initial_page_is_there(wanted: &Wanted, pages: Option<u64>, name: &str) -> Result<(), Failure> {
    let (Some(page), Some(pages)) = (wanted.options.number("initialPage"), pages) else {
        return Ok(());
    };
    if i64::from(page) <= i64::try_from(pages).unwrap_or(i64::MAX) {
        return Ok(());
    }
    Err(option_invalid(
        "initialPage",
        format!("The PDF of the document {name:?} has no page {page} to begin with: its last one is {pages}."),
    ))
}

/// Has the engine convert the document, once for each password until one opens it. A wrong one costs a load, so all of
/// them together have the time of one conversion.
async fn open_and_convert(
    engine: &Engine,
    limits: &Limits,
    document: &Document,
    kind: &DocumentKind,
    passwords: &[Secret],
    exports: &[Export],
    deadline: Option<Instant>,
) -> Result<engine::Converted, Verdict> {
    let started = Instant::now();
    let mut passwords = passwords.iter().map(|password| Password::new(password.expose()));
    let mut password = passwords.next().filter(|_| kind.encrypted);
    loop {
        let conversion = Conversion {
            directory: &document.directory,
            document: document.file_name.clone(),
            import: Import {
                filter: kind.import_filter.into(),
                options: kind.import_options().map(Into::into),
            },
            password,
            exports: exports.to_vec(),
            limits: engine::Limits {
                wall: limits.time.saturating_sub(started.elapsed()),
                // What two processors give in that time: a document that keeps more of them busy ends earlier.
                processor: limits.time.saturating_mul(2),
                memory: limits.memory,
                output_size: limits.output_size,
                pages: limits.pages.into(),
                threads: engine::Limits::MOST_THREADS,
            },
            deadline,
        };
        let wrong = |verdict: &Verdict| match verdict {
            Verdict::WrongPassword => true,
            Verdict::Corrupt => kind.encrypted && !kind.format.tells_wrong_passwords(),
            _ => false,
        };
        match engine.convert(conversion).await {
            Err(verdict) if wrong(&verdict) => match passwords.next() {
                Some(next) if started.elapsed() < limits.time => password = Some(next),
                Some(_) => return Err(out_of_time(limits.time, started.elapsed())),
                None => return Err(Verdict::WrongPassword),
            },
            // What was left of the time is not what the configuration allows.
            Err(Verdict::TooComplex(Exceeded { limit: Limit::Time, .. })) => {
                return Err(out_of_time(limits.time, started.elapsed()));
            }
            decided => return decided,
        }
    }
}

fn out_of_time(allowed: Duration, measured: Duration) -> Verdict {
    Verdict::TooComplex(Exceeded {
        limit: Limit::Time,
        allowed: milliseconds(allowed),
        measured: milliseconds(measured),
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Converts a local file: what `platen convert` does with each of its arguments.
///
/// # Errors
/// As [`run`]; `source.not_found` for a file that cannot be read.
pub async fn convert_file(
    engine: &Engine,
    limits: &Limits,
    file: &Path,
    passwords: &[Secret],
    outputs: &[Wanted],
) -> Step<Converted> {
    let name = file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let unreadable = |error: &dyn std::fmt::Display| {
        Stop::from(Failure::new(
            FailureCode::SourceNotFound,
            format!("{} cannot be read: {error}.", file.display()),
        ))
    };
    // Without the number of the error, which tells a person nothing.
    let failed = |error: std::io::Error| unreadable(&error.kind());
    let metadata = tokio::fs::metadata(file).await.map_err(failed)?;
    if !metadata.is_file() {
        return Err(unreadable(&"it is not a file"));
    }
    if metadata.len() > limits.input_size {
        return Err(source_too_large(&file.display().to_string(), metadata.len(), limits.input_size).into());
    }
    let directory = engine.job_directory().map_err(|error| {
        Refusal::new(
            RefusalKind::Unavailable,
            format!("no job directory can be made: {error}; see TMPDIR"),
        )
    })?;
    let mut document = Document::new(directory);
    tokio::fs::copy(file, document.path()).await.map_err(failed)?;
    let started = Instant::now();
    let files = run(engine, limits, &name, &mut document, passwords, outputs, None).await?;
    let took = started.elapsed();
    Ok(Converted { files, document, took })
}

/// What a verdict means for the job.
fn stop(verdict: &Verdict, name: &str) -> Stop {
    let (code, sentence) = match verdict {
        Verdict::EngineUnavailable(reason) => {
            return Refusal::new(
                RefusalKind::Unavailable,
                format!("the engine is not available: {reason}"),
            )
            .into();
        }
        Verdict::Encrypted => (
            FailureCode::DocumentEncrypted,
            "is protected with a password, and none was given: name the one that opens it, or upload the document without",
        ),
        Verdict::WrongPassword => (
            FailureCode::DocumentWrongPassword,
            "is not opened by the password that was given",
        ),
        Verdict::Corrupt => (FailureCode::DocumentCorrupt, "is damaged: LibreOffice cannot read it"),
        Verdict::Unsupported => (FailureCode::SourceUnsupported, "is of a kind that has no pages"),
        Verdict::Crashed { .. } => (
            FailureCode::DocumentEngineCrashed,
            "made LibreOffice crash, twice, in fresh processes",
        ),
        Verdict::FormatNotOfKind { format, kind } => {
            let formats = engine::Format::of_kind(*kind);
            return option_invalid(
                "format",
                format!(
                    "The document {name:?} is {}, and LibreOffice makes no {:?} of these, or only as many files: use one of {}.",
                    kind.name(),
                    format.extension(),
                    formats.join(", ")
                ),
            )
            .with("allowed", formats)
            .into();
        }
        Verdict::OptionNotOfKind { option, kind, kinds } => {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            return option_invalid(
                option,
                format!(
                    "The document {name:?} is {}, and the option {option:?} has no effect there: it is for {}.",
                    kind.name(),
                    kinds.join(", ")
                ),
            )
            .into();
        }
        Verdict::NoSuchPage { page } => {
            return option_invalid("page", format!("The document {name:?} has no page {page}.")).into();
        }
        Verdict::PaperTooSmall => {
            return option_invalid(
                "paperSize",
                format!(
                    "The paper has no room between the margins of the pages of the document {name:?}: use a larger one."
                ),
            )
            .into();
        }
        Verdict::ImageTooLarge => {
            return option_invalid(
                "dpi",
                format!(
                    "The image of the document {name:?} would have more than {} pixels: use less \"width\" or \"dpi\".",
                    engine::MOST_PIXELS
                ),
            )
            .into();
        }
        Verdict::NoSuchPages => {
            return option_invalid(
                "nativePageRanges",
                format!("The document {name:?} has none of the pages that the option \"nativePageRanges\" names."),
            )
            .into();
        }
        Verdict::TooComplex(exceeded) => return too_complex(*exceeded, name).into(),
    };
    let mut failure = Failure::new(code, format!("The document {name:?} {sentence}."));
    if let Verdict::Crashed { signal: Some(signal) } = verdict {
        failure = failure.with("signal", *signal);
    }
    failure.into()
}

fn option_invalid(option: &str, message: String) -> Failure {
    Failure::new(FailureCode::OptionInvalid, message).with("option", option)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::new(RefusalKind::Bug, format!("work on a document panicked: {error}")))
}

fn checksum(path: &Path) -> std::io::Result<u32> {
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut checksum = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(checksum),
            read => checksum = crc32c::crc32c_append(checksum, &buffer[..read]),
        }
    }
}
