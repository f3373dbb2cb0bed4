//! Inspects a document, has the engine convert it, and turns the engine's verdict into the contract's codes.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::exceeded::{source_too_large, too_complex};
use super::fetch::Document;
use super::filter_data::filter_data;
use super::inspect::{self, InspectLimits};
use crate::config::Limits;
use crate::engine::{self, Conversion, Engine, Export, Import, Verdict};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::job::{Format, Options};

/// One output to make.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is.
    pub format: Format,
    /// How it is made.
    pub options: Options,
}

/// What a conversion made. The files live as long as this does.
#[derive(Debug)]
pub struct Converted {
    /// One file per output, in the order they were asked for.
    pub files: Vec<ConvertedFile>,
    /// Holds the directory they are in.
    pub document: Document,
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
}

/// Converts a fetched document. `name` is the object's, for sentences and for telling formats apart by extension.
///
/// # Errors
/// The failures of inspection and of the engine; refused when the engine is not available now.
pub async fn run(
    engine: &Engine,
    limits: &Limits,
    name: &str,
    mut document: Document,
    outputs: &[Wanted],
) -> Step<Converted> {
    let (path, object) = (document.path(), name.to_owned());
    let kind = blocking(move || inspect::inspect(&path, &object, &InspectLimits::default())).await??;
    // LibreOffice sees the document under its own name, which headers and footers print, and under the extension of
    // what it really is.
    document
        .rename(engine::sanitised_file_name(name, kind.extension))
        .await?;
    let exports = outputs
        .iter()
        .enumerate()
        .map(|(index, wanted)| Export {
            file: format!("output-{index}.{}", wanted.format.as_str()),
            format: match wanted.format {
                Format::Pdf => engine::Format::Pdf,
                Format::Png => engine::Format::Png,
                Format::Jpg => engine::Format::Jpg,
                Format::Txt => engine::Format::Txt,
                Format::Html => engine::Format::Html,
            },
            options: filter_data(&wanted.options),
        })
        .collect();
    let conversion = Conversion {
        directory: &document.directory,
        document: document.file_name.clone(),
        import: Import {
            filter: kind.import_filter.into(),
            options: kind.import_options().map(Into::into),
        },
        password: None,
        exports,
        limits: engine::Limits {
            wall: limits.time,
            // What two processors give in that time: a document that keeps more of them busy ends earlier.
            processor: limits.time.saturating_mul(2),
            memory: limits.memory,
            output_size: limits.output_size,
            pages: limits.pages.into(),
            threads: engine::Limits::MOST_THREADS,
        },
    };
    let outputs = engine
        .convert(conversion)
        .await
        .map_err(|verdict| stop(&verdict, name))?
        .outputs;
    let mut files = Vec::with_capacity(outputs.len());
    for output in outputs {
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
        });
    }
    Ok(Converted { files, document })
}

/// Converts a local file: what `platen convert` does with each of its arguments.
///
/// # Errors
/// As [`run`]; `source.not_found` for a file that cannot be read.
pub async fn convert_file(engine: &Engine, limits: &Limits, file: &Path, outputs: &[Wanted]) -> Step<Converted> {
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
    let metadata = tokio::fs::metadata(file).await.map_err(|error| unreadable(&error))?;
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
    let document = Document::new(directory);
    tokio::fs::copy(file, document.path())
        .await
        .map_err(|error| unreadable(&error))?;
    run(engine, limits, &name, document, outputs).await
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
        Verdict::Encrypted => (FailureCode::DocumentEncrypted, "needs a password, and the job has none"),
        Verdict::WrongPassword => (
            FailureCode::DocumentWrongPassword,
            "is not opened by the job's password",
        ),
        Verdict::Corrupt => (FailureCode::DocumentCorrupt, "is damaged: LibreOffice cannot read it"),
        Verdict::Unsupported => (FailureCode::SourceUnsupported, "is of a kind that has no pages"),
        Verdict::Crashed { .. } => (
            FailureCode::DocumentEngineCrashed,
            "made LibreOffice crash, twice, in fresh processes",
        ),
        Verdict::FormatNotOfKind => {
            return Failure::new(
                FailureCode::OptionInvalid,
                format!(
                    "The document {name:?} is of a kind that not every format asked for can be made of: txt is made of \
                     texts and web pages, html of these and spreadsheets, png and jpg of all but web pages, pdf of all."
                ),
            )
            .with("option", "format")
            .into();
        }
        Verdict::NoSuchPages => {
            return Failure::new(
                FailureCode::OptionInvalid,
                format!("The document {name:?} has none of the pages that the option \"nativePageRanges\" names."),
            )
            .with("option", "nativePageRanges")
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
