//! The buckets of the worker, tried for real: documents by one that is not there, outputs by a probe.

use std::collections::BTreeMap;
use std::io::Write as _;

use chrono::Utc;

use super::links::link;
use super::patient::{Patient, Reach};
use super::report::{Line, State};
use crate::engine::FontDirectory;
use crate::google::grant::{Grant, shell};
use crate::google::storage::{Object, Upload};
use crate::google::{Error, Kind};
use crate::serve::MOST_FONTS_LISTED;

/// What the probe is first, and what replaces it.
const FIRST: &[u8] = b"written by platen doctor\n";
const SECOND: &[u8] = b"replaced by platen doctor\n";
/// A generation that no object has: what may be done to it is refused because it is not there, and nothing else
/// happens.
const NO_GENERATION: i64 = 1;

/// Whether documents can be read, by asking for one that is not there.
pub(super) async fn input(reach: &Reach, bucket: &str) -> Line {
    let what = format!("read documents of gs://{bucket}");
    readable(reach, bucket, &probe_name(), what, Grant::read_documents(bucket)).await
}

/// Whether the objects of a bucket can be read. `name` is not there.
async fn readable(reach: &Reach, bucket: &str, name: &str, what: String, grant: Grant) -> Line {
    let resource = format!("gs://{bucket}");
    let storage = reach.storage();
    let Err(error) = reach.within(&resource, storage.metadata(bucket, name, None)).await else {
        return Line::good(what);
    };
    match error.kind {
        Kind::NotFound if !is_about_the_bucket(&error) => Line::good(what),
        Kind::Forbidden if hides_what_is_missing(&error) => Line::good(what),
        _ => Line::failed(what, &error, grant, &reach.member),
    }
}

/// A 404 says of which of the two it is in words alone.
fn is_about_the_bucket(error: &Error) -> bool {
    error.message.contains("bucket does not exist")
}

/// To an account that may not list, Cloud Storage may not tell that an object is not there.
pub(super) fn hides_what_is_missing(error: &Error) -> bool {
    error.message.contains("storage.objects.list")
}

/// Fonts of a bucket are listed, and then fetched.
pub(super) async fn fonts(reach: &Reach, bucket: &str, prefix: &str) -> Vec<Line> {
    let (list, read) = (
        format!("list fonts of gs://{bucket}/{prefix}"),
        format!("read fonts of gs://{bucket}/{prefix}"),
    );
    let failed = |what, error: &Error, permission| {
        Line::failed(what, error, Grant::read_fonts(bucket, permission), &reach.member)
    };
    let storage = reach.storage();
    let resource = format!("gs://{bucket}");
    let listed = reach
        .within(&resource, storage.list(bucket, prefix, MOST_FONTS_LISTED))
        .await;
    let objects = match listed {
        Ok(objects) => objects,
        Err(error) => {
            // Whoever may not list may read all the same, and both are needed.
            let reading = readable(
                reach,
                bucket,
                &format!("{prefix}{}", probe_name()),
                read,
                Grant::read_fonts(bucket, "storage.objects.get"),
            )
            .await;
            return vec![failed(list, &error, "storage.objects.list"), reading];
        }
    };
    let Some(font) = objects.iter().find(|object| FontDirectory::is_font_name(&object.name)) else {
        return vec![Line::new(State::Wrong, list, "there is none (ttf, otf, ttc, otc)")];
    };
    let resource = format!("gs://{bucket}/{}", font.name);
    let reading = async {
        let mut download = storage.download(bucket, &font.name, font.generation).await?;
        // The first bytes show that it can be had.
        download.chunk().await
    };
    let reading = match reach.within(&resource, reading).await {
        Ok(_) => Line::good(read),
        Err(error) => failed(read, &error, "storage.objects.get"),
    };
    vec![Line::good(list), reading]
}

/// What the lines of the output bucket say they tried.
struct Tried {
    create: String,
    read: String,
    replace: String,
    link: String,
}

/// Creates, reads, replaces and removes a probe, and fetches it through its own link. Without the right to remove it,
/// none is made: the same rights are then told by what is refused because nothing is there.
pub(super) async fn output(patient: &Patient) -> Vec<Line> {
    let bucket = &patient.config.output_bucket;
    let tried = Tried {
        create: format!("create objects in gs://{bucket}"),
        read: format!("read objects of gs://{bucket}"),
        replace: format!("replace and remove objects in gs://{bucket}"),
        link: match &patient.signer {
            Ok(signer) => format!("fetch through a URL signed by {}", signer.email()),
            Err(_) => "fetch through a signed URL".to_owned(),
        },
    };
    let reach = &patient.reach;
    let name = probe_name();
    let removed = reach
        .within(
            &format!("gs://{bucket}"),
            reach.storage().delete(bucket, &name, NO_GENERATION),
        )
        .await;
    match removed {
        Err(error) if error.kind == Kind::NotFound && !is_about_the_bucket(&error) => {
            with_probe(patient, &name, tried).await
        }
        Err(error) if error.kind == Kind::Forbidden => {
            if hides_what_is_missing(&error) {
                with_probe(patient, &name, tried).await
            } else {
                without_probe(patient, &name, tried, &error).await
            }
        }
        Err(error) => {
            let grant = Grant::write_outputs(bucket, "storage.objects.delete");
            let untried = |what| Line::new(State::Unseen, what, "not tried after that");
            vec![
                Line::failed(tried.replace, &error, grant, &reach.member),
                untried(tried.create),
                untried(tried.read),
                untried(tried.link),
            ]
        }
        Ok(()) => vec![Line::new(
            State::Wrong,
            tried.replace,
            "Cloud Storage says that it has removed an object that was never there",
        )],
    }
}

async fn with_probe(patient: &Patient, name: &str, tried: Tried) -> Vec<Line> {
    let (reach, bucket) = (&patient.reach, &patient.config.output_bucket);
    let resource = format!("gs://{bucket}/{name}");
    let grant = |permission| Grant::write_outputs(bucket, permission);
    let create = grant("storage.objects.create");
    patient.note_probe(Some(name));
    let object = match reach.within(&resource, write(reach, bucket, name, FIRST, 0)).await {
        Ok(object) => object,
        Err(error) => {
            if error.kind == Kind::Forbidden {
                patient.note_probe(None);
            }
            let first = Line::failed(tried.create, &error, create, &reach.member);
            let read = readable(
                reach,
                bucket,
                name,
                tried.read,
                Grant::write_outputs(bucket, "storage.objects.get"),
            )
            .await;
            let untried = |what| Line::new(State::Unseen, what, "there is no object to try it on");
            return vec![
                first,
                read,
                untried(tried.replace),
                link(patient, name, tried.link, None).await,
            ];
        }
    };
    let mut lines = vec![Line::good(tried.create)];
    let read = reach
        .within(&resource, read(reach, bucket, name, object.generation))
        .await;
    lines.push(match read {
        Ok(bytes) if bytes == FIRST => Line::good(tried.read),
        Ok(_) => Line::new(State::Wrong, tried.read, "other bytes came back than were written"),
        Err(error) => Line::failed(tried.read, &error, grant("storage.objects.get"), &reach.member),
    });
    let delete = grant("storage.objects.delete");
    let replaced = reach
        .within(&resource, write(reach, bucket, name, SECOND, object.generation))
        .await;
    let (there, generation) = match &replaced {
        Ok(object) => (SECOND, object.generation),
        Err(_) => (FIRST, object.generation),
    };
    let linked = link(patient, name, tried.link, Some(there)).await;
    let removed = reach
        .within(&resource, reach.storage().delete(bucket, name, generation))
        .await;
    if removed.is_ok() {
        patient.note_probe(None);
    }
    lines.push(match replaced.map(drop).and(removed) {
        Ok(()) => Line::good(tried.replace),
        Err(error) => Line::failed(tried.replace, &error, delete, &reach.member),
    });
    lines.push(linked);
    lines
}

async fn without_probe(patient: &Patient, name: &str, tried: Tried, refused: &Error) -> Vec<Line> {
    let (reach, bucket) = (&patient.reach, &patient.config.output_bucket);
    let resource = format!("gs://{bucket}/{name}");
    // Refused for its generation, which is not there, by whoever may write.
    let written = reach
        .within(&resource, write(reach, bucket, name, FIRST, NO_GENERATION))
        .await;
    let create = match written {
        Err(error) if error.kind == Kind::PreconditionFailed => Line::good(tried.create),
        Err(error) => {
            let grant = Grant::write_outputs(bucket, "storage.objects.create");
            Line::failed(tried.create, &error, grant, &reach.member)
        }
        Ok(_) => {
            patient.note_probe(Some(name));
            let why = "an object was written although its precondition did not hold";
            Line::new(State::Wrong, tried.create, why)
        }
    };
    let replace = if patient.config.output_name.as_str().contains("{generation}") {
        let why = "not allowed, and not needed: OUTPUT_NAME holds {generation}";
        Line::new(State::Good, tried.replace, why)
    } else {
        let grant = Grant::write_outputs(bucket, "storage.objects.delete");
        Line::failed(tried.replace, refused, grant, &reach.member)
    };
    vec![
        create,
        readable(
            reach,
            bucket,
            name,
            tried.read,
            Grant::write_outputs(bucket, "storage.objects.get"),
        )
        .await,
        replace,
        link(patient, name, tried.link, None).await,
    ]
}

/// Removes what may be left of a probe; a line when it is still there.
pub(super) async fn clean_up(patient: &Patient) -> Option<Line> {
    let name = patient.probe()?;
    let (reach, bucket) = (&patient.reach, &patient.config.output_bucket);
    let resource = format!("gs://{bucket}/{name}");
    let storage = reach.storage();
    let removing = async {
        let object = storage.metadata(bucket, &name, None).await?;
        storage.delete(bucket, &name, object.generation).await
    };
    match reach.within(&resource, removing).await {
        Ok(()) => None,
        Err(error) if error.kind == Kind::NotFound => None,
        Err(error) => Some(Line::new(
            State::Wrong,
            format!("clean up {resource}"),
            format!(
                "it may be left there: {error}. This removes it: gcloud storage rm {}",
                shell(&resource)
            ),
        )),
    }
}

async fn write(
    reach: &Reach,
    bucket: &str,
    name: &str,
    bytes: &[u8],
    if_generation_match: i64,
) -> Result<Object, Error> {
    let unwritable = |error: std::io::Error| {
        let message = format!("no temporary file can be written: {error}; see TMPDIR");
        Error::new(Kind::Invalid, "write a probe", name, message)
    };
    let mut file = tempfile::NamedTempFile::new().map_err(unwritable)?;
    file.write_all(bytes).map_err(unwritable)?;
    let upload = Upload {
        bucket,
        name,
        content_type: "text/plain",
        content_disposition: None,
        metadata: &BTreeMap::new(),
        file: file.path(),
        size: bytes.len() as u64,
        crc32c: crc32c::crc32c(bytes),
        if_generation_match,
    };
    reach.storage().upload(&upload).await
}

async fn read(reach: &Reach, bucket: &str, name: &str, generation: i64) -> Result<Vec<u8>, Error> {
    let mut download = reach.storage().download(bucket, name, generation).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A name that no object has. Without an extension, no worker that watches the bucket takes it for a document.
fn probe_name() -> String {
    let mut random = [0; 8];
    // Without random bytes the time has to do: it is a name, and no secret.
    let number = match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => u64::from_le_bytes(random),
        Err(_) => Utc::now().timestamp_micros().unsigned_abs(),
    };
    format!(".platen-doctor/{number:016x}")
}
