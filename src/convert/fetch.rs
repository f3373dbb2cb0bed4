//! Fetches exactly one generation of the source into a job's directory, by streaming.

use std::io;
use std::path::PathBuf;

use tokio::io::AsyncWriteExt;

use crate::accept::Ignored;
use crate::config::Limits;
use crate::engine::JobDirectory;
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::google::{self, Kind, storage::Storage};
use crate::job::Source;

/// The source as Cloud Storage has it.
#[derive(Debug, Clone)]
pub struct SourceObject {
    /// The source, its generation settled.
    pub source: Source,
    /// The generation that is read.
    pub generation: i64,
    /// Bytes.
    pub size: u64,
    /// What its uploader says it is.
    pub content_type: Option<String>,
    /// `gzip` when it is stored compressed.
    pub content_encoding: Option<String>,
}

/// What a look at the source says.
#[derive(Debug)]
pub enum Look {
    /// It can be read.
    There(SourceObject),
    /// It is not for us.
    Ignore(Ignored),
}

/// Asks for the source's metadata: its generation, size and whose it is.
///
/// # Errors
/// `source.not_found`, `source.empty`, `source.too_large`; superseded when the generation that was named is gone.
pub async fn look(storage: &Storage, source: &Source, limits: &Limits) -> Step<Look> {
    let object = match storage.metadata(&source.bucket, &source.name, source.generation).await {
        Ok(object) => object,
        Err(error) if error.kind == Kind::NotFound && source.generation.is_some() => {
            return Err(Stop::Superseded(format!(
                "{} is gone: the object was replaced or deleted after the event.",
                source.display()
            )));
        }
        Err(error) if error.kind == Kind::NotFound => {
            return Err(Failure::new(
                FailureCode::SourceNotFound,
                format!("There is no object {}.", source.display()),
            )
            .with("bucket", source.bucket.as_str())
            .with("name", source.name.as_str())
            .into());
        }
        Err(error) => {
            return Err(Refusal::unavailable(
                &error,
                "roles/storage.objectViewer on the input bucket for the worker's account",
            )
            .into());
        }
    };
    if object.metadata.contains_key(crate::accept::JOB_METADATA) {
        return Ok(Look::Ignore(Ignored::OwnOutput));
    }
    let source = Source {
        generation: Some(object.generation),
        ..source.clone()
    };
    if object.size == 0 {
        return Err(Failure::new(FailureCode::SourceEmpty, format!("{} has no bytes.", source.display())).into());
    }
    if object.size > limits.input_size {
        return Err(too_large(&source, object.size, limits.input_size).into());
    }
    Ok(Look::There(SourceObject {
        generation: object.generation,
        size: object.size,
        content_type: object.content_type,
        content_encoding: object.content_encoding,
        source,
    }))
}

/// A fetched document: a file, alone in its job's directory.
#[derive(Debug)]
pub struct Document {
    /// The directory, removed when this is dropped.
    pub directory: JobDirectory,
    /// The file's name in it.
    pub file_name: String,
}

impl Document {
    /// A document to be written into this directory, under a name that says nothing yet.
    pub fn new(directory: JobDirectory) -> Self {
        Self {
            directory,
            file_name: "source".to_owned(),
        }
    }

    /// Gives the file another name.
    pub(super) async fn rename(&mut self, file_name: String) -> Result<(), Refusal> {
        tokio::fs::rename(self.path(), self.directory.path().join(&file_name))
            .await
            .map_err(|error| disk(&error))?;
        self.file_name = file_name;
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.file_name)
    }
}

/// Downloads the object. Its checksum is compared by the storage client.
///
/// # Errors
/// Superseded when the generation has gone since the look; refused when Cloud Storage or the disk cannot do it now.
pub async fn fetch(
    storage: &Storage,
    object: &SourceObject,
    directory: JobDirectory,
    limits: &Limits,
) -> Step<Document> {
    let document = Document::new(directory);
    let failed = |error: google::Error| match error.kind {
        Kind::NotFound => Stop::Superseded(format!(
            "{} is gone: the object was replaced or deleted while it was being read.",
            object.source.display()
        )),
        _ => Refusal::unavailable(
            &error,
            "roles/storage.objectViewer on the input bucket for the worker's account",
        )
        .into(),
    };
    let mut download = storage
        .download(&object.source.bucket, &object.source.name, object.generation)
        .await
        .map_err(failed)?;
    let mut file = tokio::fs::File::create_new(document.path())
        .await
        .map_err(|error| disk(&error))?;
    let mut received = 0;
    while let Some(chunk) = download.chunk().await.map_err(failed)? {
        received += chunk.len() as u64;
        if received > limits.input_size {
            return Err(too_large(&object.source, received, limits.input_size).into());
        }
        file.write_all(&chunk).await.map_err(|error| disk(&error))?;
    }
    file.flush().await.map_err(|error| disk(&error))?;
    drop(file);
    if object.content_encoding.as_deref() == Some("gzip") {
        return decompress(document, object, limits).await;
    }
    Ok(document)
}

/// Objects that were uploaded with `Content-Encoding: gzip` are stored compressed; what they are is inside.
async fn decompress(document: Document, object: &SourceObject, limits: &Limits) -> Step<Document> {
    let (limit, source) = (limits.input_size, object.source.clone());
    let path = document.path();
    tokio::task::spawn_blocking(move || {
        let compressed = path.with_extension("compressed");
        std::fs::rename(&path, &compressed).map_err(|error| disk(&error))?;
        let input = std::fs::File::open(&compressed).map_err(|error| disk(&error))?;
        let output = std::fs::File::create_new(&path).map_err(|error| disk(&error))?;
        let decoder = flate2::read::MultiGzDecoder::new(io::BufReader::new(input));
        let mut bounded = io::Read::take(decoder, limit + 1);
        let mut writer = io::BufWriter::new(output);
        let written = io::copy(&mut bounded, &mut writer).and_then(|written| {
            io::Write::flush(&mut writer)?;
            Ok(written)
        });
        std::fs::remove_file(&compressed).map_err(|error| disk(&error))?;
        match written {
            Ok(written) if written > limit => Err(too_large(&source, written, limit).into()),
            Ok(0) => Err(Failure::new(
                FailureCode::SourceEmpty,
                format!("{} has no bytes inside its gzip encoding.", source.display()),
            )
            .into()),
            Ok(_) => Ok(document),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(disk(&error).into()),
            Err(_) => Err(Failure::new(
                FailureCode::DocumentCorrupt,
                format!(
                    "{} says it is stored with gzip and cannot be decompressed.",
                    source.display()
                ),
            )
            .into()),
        }
    })
    .await
    .map_err(|error| Refusal::new(RefusalKind::Bug, format!("decompressing a document panicked: {error}")))?
}

fn too_large(source: &Source, size: u64, limit: u64) -> Failure {
    Failure::new(
        FailureCode::SourceTooLarge,
        format!(
            "{} has {size} bytes or more: MAX_INPUT_SIZE allows {limit}.",
            source.display()
        ),
    )
    .with("size", size.to_string())
    .with("limit", limit.to_string())
}

fn disk(error: &io::Error) -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        format!("the job's directory cannot be written: {error}; give the worker more temporary space (TMPDIR)"),
    )
}
