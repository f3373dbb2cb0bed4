//! Fetches exactly one generation of the source into a job's directory, by streaming.

use std::io;
use std::path::PathBuf;

use tokio::io::AsyncWriteExt;

use super::exceeded::source_too_large;
use crate::accept::Ignored;
use crate::config::Limits;
use crate::engine::JobDirectory;
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::failpoint::failpoint;
use crate::google::grant::Grant;
use crate::google::{self, Kind, storage::Storage};
use crate::job::Source;

/// The source as Cloud Storage has it.
#[derive(Debug, Clone)]
pub struct SourceObject {
    /// The source, its generation settled.
    pub source: Source,
    /// The generation that is read.
    pub generation: i64,
    /// Whether the job names it; else it is the newest that was there.
    pub is_named: bool,
    /// Bytes.
    pub size: u64,
    /// CRC32C of the stored bytes, where Cloud Storage has one.
    pub crc32c: Option<u32>,
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
/// `source.not_found`; superseded when the generation that was named is gone.
pub async fn look(storage: &Storage, source: &Source) -> Step<Look> {
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
            return Err(Refusal::unavailable(&error, Grant::read_documents(&source.bucket)).into());
        }
    };
    if object.metadata.contains_key(crate::accept::JOB_METADATA) {
        return Ok(Look::Ignore(Ignored::OwnOutput));
    }
    let is_named = source.generation.is_some();
    let source = Source {
        generation: Some(object.generation),
        ..source.clone()
    };
    Ok(Look::There(SourceObject {
        generation: object.generation,
        is_named,
        size: object.size,
        crc32c: object.crc32c,
        content_type: object.content_type,
        content_encoding: object.content_encoding,
        source,
    }))
}

impl SourceObject {
    /// Whether the object's size is one that is converted.
    ///
    /// # Errors
    /// `source.empty` and `source.too_large`.
    pub fn check_size(&self, limits: &Limits) -> Result<(), Failure> {
        match self.size {
            0 => Err(Failure::new(
                FailureCode::SourceEmpty,
                format!("{} has no bytes.", self.source.display()),
            )),
            size if size > limits.input_size => Err(too_large(&self.source, size, limits.input_size)),
            _ => Ok(()),
        }
    }
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
/// Superseded when the generation that the job names has gone since the look. Refused when one has gone that it does not name,
/// because the next look finds what is there then, and when Cloud Storage or the disk cannot do it now.
pub async fn fetch(
    storage: &Storage,
    object: &SourceObject,
    directory: JobDirectory,
    limits: &Limits,
) -> Step<Document> {
    let document = Document::new(directory);
    let failed = |error: google::Error| {
        match error.kind {
        Kind::NotFound if object.is_named => Stop::Superseded(format!(
            "{} is gone: the object was replaced or deleted while it was being read.",
            object.source.display()
        )),
        Kind::NotFound => Refusal::new(
            RefusalKind::Unavailable,
            format!(
                "{} is gone: the object was replaced or deleted while it was being read. The job names no generation: the next \
                 delivery takes what is there then",
                object.source.display()
            ),
        )
        .into(),
        _ => Refusal::unavailable(&error, Grant::read_documents(&object.source.bucket)).into(),
    }
    };
    let mut download = storage
        .download(&object.source.bucket, &object.source.name, object.generation)
        .await
        .map_err(failed)?;
    let mut file = tokio::fs::File::create_new(document.path())
        .await
        .map_err(|error| disk(&error))?;
    let (mut received, mut checksum) = (0, 0);
    while let Some(chunk) = download.chunk().await.map_err(failed)? {
        received += chunk.len() as u64;
        if received > limits.input_size {
            return Err(too_large(&object.source, received, limits.input_size).into());
        }
        checksum = crc32c::crc32c_append(checksum, &chunk);
        file.write_all(&chunk).await.map_err(|error| disk(&error))?;
        failpoint!("fetch.middle");
    }
    // The client has compared what the download itself promised; this is what the look promised, which also holds for
    // a storage that sends no checksum with its downloads.
    if object.crc32c.is_some_and(|expected| expected != checksum) || received != object.size {
        let message = format!(
            "{} arrived with other bytes than Cloud Storage holds",
            object.source.display()
        );
        return Err(Refusal::new(RefusalKind::Unavailable, message).into());
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
            Err(error) if !is_of_the_decoder(&error) => Err(disk(&error).into()),
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

/// What is wrong with the compressed bytes, as against the disk they come from or go to.
fn is_of_the_decoder(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn too_large(source: &Source, size: u64, limit: u64) -> Failure {
    source_too_large(&source.display(), size, limit)
}

fn disk(error: &io::Error) -> Refusal {
    Refusal::new(
        RefusalKind::Unavailable,
        format!("the job's directory cannot be written: {error}; give the worker more temporary space (TMPDIR)"),
    )
}
