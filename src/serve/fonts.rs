//! Brings the fonts of `FONTS` to where the engine reads them, before it starts.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::StartError;
use crate::config::{self, Access, EngineConfig, Fonts};
use crate::engine::{FontDirectory, FontError};
use crate::google::grant::Grant;
use crate::google::http::Http;
use crate::google::storage::{self, Storage};
use crate::google::token::{self, Tokens};
use crate::google::{Error, Kind};

/// Objects that are looked at, and entries of directories.
pub const MOST_LISTED: usize = 10_000;
/// Directories inside each other: a link may lead back.
const DEEPEST: usize = 16;

/// The Cloud Storage that `FONTS` is fetched from by a command that has no other use for it; none is needed for a
/// directory.
///
/// # Errors
/// The credentials cannot be used.
pub async fn storage_for_fonts(
    config: &EngineConfig,
    access: impl FnOnce() -> Result<Access, config::Problems>,
) -> Result<Option<Storage>, StartError> {
    let Some(Fonts::Bucket { .. }) = config.fonts else {
        return Ok(None);
    };
    let access = access().map_err(|problems| StartError::Configuration(problems.to_string()))?;
    let http = Http::new().map_err(|error| StartError::unavailable("no HTTP client can be made", error))?;
    let tokens = Tokens::discover(http.clone(), &access.credentials)
        .await
        .map_err(|error| StartError::unavailable("the credentials cannot be used", error))?;
    if tokens.is_none() && !access.storage_is_emulator {
        return Err(StartError::Configuration(
            "FONTS is in a bucket and there are no credentials: set GOOGLE_APPLICATION_CREDENTIALS, or run 'gcloud auth application-default login'".to_owned(),
        ));
    }
    let mut domain = token::UNIVERSE_DOMAIN.to_owned();
    if let Some(tokens) = &tokens {
        domain = tokens
            .universe_domain()
            .await
            .map_err(|error| StartError::unavailable("the universe of the credentials cannot be found", error))?;
    }
    let base_url = config::in_universe(&access.storage, storage::BASE_URL, &domain);
    Ok(Some(Storage::new(http, &base_url, tokens)))
}

/// The fonts of `FONTS`, in a directory under `parent`.
///
/// # Errors
/// One sentence that says what is wrong with them, or with where they are.
pub(super) async fn provide(
    fonts: &Fonts,
    parent: &Path,
    storage: Option<&Storage>,
) -> Result<FontDirectory, StartError> {
    let mut directory = FontDirectory::create(parent).map_err(|error| refused(&error))?;
    let place = match fonts {
        Fonts::Directory(path) => {
            let mut listed = 0;
            copy(path, 0, &mut listed, &mut directory)?;
            path.display().to_string()
        }
        Fonts::Bucket { bucket, prefix } => {
            let storage = storage.ok_or_else(|| {
                StartError::Configuration("FONTS is in a bucket, and this command has no Cloud Storage".to_owned())
            })?;
            fetch(storage, bucket, prefix, &mut directory).await?;
            format!("gs://{bucket}/{prefix}")
        }
    };
    if directory.is_empty() {
        return Err(StartError::Configuration(format!(
            "FONTS: {place} has no font (ttf, otf, ttc, otc)"
        )));
    }
    tracing::info!(
        fonts = directory.len(),
        bytes = directory.bytes(),
        "more fonts from {place}"
    );
    Ok(directory)
}

fn refused(error: &FontError) -> StartError {
    match error {
        FontError::Disk(_) => StartError::Unavailable(format!("FONTS: {error}")),
        _ => StartError::Configuration(format!("FONTS: {error}")),
    }
}

/// Copies the fonts of a directory and of those in it.
fn copy(from: &Path, depth: usize, listed: &mut usize, into: &mut FontDirectory) -> Result<(), StartError> {
    let unreadable = |path: &Path, error: &std::io::Error| {
        StartError::Configuration(format!("FONTS: {} cannot be read: {error}", path.display()))
    };
    let entries = fs::read_dir(from).map_err(|error| unreadable(from, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| unreadable(from, &error))?.path());
        *listed += 1;
        if *listed > MOST_LISTED {
            return Err(StartError::Configuration(format!(
                "FONTS: {} has more than {MOST_LISTED} entries: name a narrower directory",
                from.display()
            )));
        }
    }
    // Of two fonts of one name fontconfig takes the first that it meets: the same ones every time.
    paths.sort();
    for path in paths {
        let name = path.to_string_lossy().into_owned();
        // Links are followed: what they lead to is the operator's choice.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() && depth < DEEPEST {
            copy(&path, depth + 1, listed, into)?;
        } else if metadata.is_file() && FontDirectory::is_font_name(&name) {
            let mut file = fs::File::open(&path).map_err(|error| unreadable(&path, &error))?;
            let mut font = into.add(&name).map_err(|error| refused(&error))?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                match file.read(&mut buffer).map_err(|error| unreadable(&path, &error))? {
                    0 => break,
                    read => font.write(&buffer[..read]).map_err(|error| refused(&error))?,
                }
            }
            font.finish().map_err(|error| refused(&error))?;
        }
    }
    Ok(())
}

/// Fetches the fonts of a bucket.
async fn fetch(storage: &Storage, bucket: &str, prefix: &str, into: &mut FontDirectory) -> Result<(), StartError> {
    let failed = async |error: Error, permission: &'static str| {
        let grant = Grant::read_fonts(bucket, permission);
        if grant.is_about(&error) {
            let (said, remedy) = (error.to_string(), grant.remedy(&storage.member().await));
            let said = said.trim_end_matches('.');
            return StartError::Unavailable(format!("FONTS cannot be fetched: {said}. {remedy}"));
        }
        match error.kind {
            Kind::TooLarge => StartError::Configuration(format!("FONTS: {error}: name a narrower prefix")),
            _ => StartError::Unavailable(format!("FONTS cannot be fetched: {error}")),
        }
    };
    let objects = match storage.list(bucket, prefix, MOST_LISTED).await {
        Ok(objects) => objects,
        Err(error) => return Err(failed(error, "storage.objects.list").await),
    };
    for object in objects
        .iter()
        .filter(|object| FontDirectory::is_font_name(&object.name))
    {
        let name = format!("gs://{bucket}/{}", object.name);
        let mut font = into.add(&name).map_err(|error| refused(&error))?;
        let downloading = async {
            let mut download = storage.download(bucket, &object.name, object.generation).await?;
            while let Some(chunk) = download.chunk().await? {
                if let Err(error) = font.write(&chunk) {
                    return Ok(Err(error));
                }
            }
            Ok(font.finish())
        };
        match downloading.await {
            Ok(written) => written.map_err(|error| refused(&error))?,
            Err(error) => return Err(failed(error, "storage.objects.get").await),
        }
    }
    Ok(())
}
