//! Inspects a document, has the engine convert it, and turns the engine's verdict into the contract's codes.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::fetch::Document;
use super::inspect::{self, InspectLimits};
use crate::config::Limits;
use crate::engine::{self, Conversion, Engine, Export, Import, Verdict};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::job::Format;

/// What a conversion made. The files live as long as this does.
#[derive(Debug)]
pub struct Converted {
    /// One file per format, in the order they were asked for.
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
pub async fn run(engine: &Engine, limits: &Limits, name: &str, document: Document, formats: &[Format]) -> Step<Converted> {
    let (path, object) = (document.path(), name.to_owned());
    let kind = blocking(move || inspect::inspect(&path, &object, &InspectLimits::default())).await??;
    let exports: Vec<Export> = formats
        .iter()
        .enumerate()
        .map(|(index, format)| match format {
            Format::Pdf => Export::pdf(format!("output-{index}.pdf")),
        })
        .collect();
    let conversion = Conversion {
        directory: &document.directory,
        document: document.file_name.clone(),
        import: Import { filter: kind.filter, options: kind.options },
        exports,
        limits: engine::Limits {
            wall: limits.time,
            memory: limits.memory,
            output_size: limits.output_size,
            pages: limits.pages,
        },
    };
    let outputs = engine.convert(conversion).await.map_err(|verdict| stop(verdict, name, limits))?.outputs;
    let mut files = Vec::with_capacity(outputs.len());
    for output in outputs {
        let path = output.path.clone();
        let crc32c = blocking(move || checksum(&path)).await?.map_err(|error| {
            Refusal::new(RefusalKind::Unavailable, format!("an output in the job's directory cannot be read: {error}"))
        })?;
        files.push(ConvertedFile { path: output.path, size: output.size, crc32c, pages: Some(output.pages) });
    }
    Ok(Converted { files, document })
}

/// Converts a local file: what `platen convert` does with each of its arguments.
///
/// # Errors
/// As [`run`]; `source.not_found` for a file that cannot be read.
pub async fn convert_file(engine: &Engine, limits: &Limits, file: &Path, formats: &[Format]) -> Step<Converted> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
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
        return Err(Failure::new(
            FailureCode::SourceTooLarge,
            format!("{} has {} bytes: MAX_INPUT_SIZE allows {}.", file.display(), metadata.len(), limits.input_size),
        )
        .into());
    }
    let directory = engine.job_directory().map_err(|error| {
        Refusal::new(RefusalKind::Unavailable, format!("no job directory can be made: {error}; see TMPDIR"))
    })?;
    let document = Document { directory, file_name: engine::sanitised_file_name(&name) };
    tokio::fs::copy(file, document.path()).await.map_err(|error| unreadable(&error))?;
    run(engine, limits, &name, document, formats).await
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
