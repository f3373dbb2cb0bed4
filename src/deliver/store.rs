//! Writes outputs, each under a precondition, and reads from what is already there how far an earlier delivery came.
//!
//! The state of a job is in Cloud Storage alone. An output's metadata says which job made it and from which generation
//! of which source, and what bytes it wrote; that, and nothing else, decides between "done", "replace", "superseded" and
//! "conflict".
//!
//! LibreOffice never writes the same bytes twice, so an output of this very job is done whatever its bytes are, if they
//! are those that its writer sent: each write notes its checksum in the metadata, and Cloud Storage's own, of what is
//! there now, must be the same. Other bytes under our metadata are somebody's work (a stamp, a page more), or damaged: both
//! are not Platen's, and neither signed nor replaced.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::accept::JOB_METADATA;
use crate::convert::{ConvertedFile, SourceObject, Warning};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::failpoint::failpoint;
use crate::google::Kind;
use crate::google::grant::Grant;
use crate::google::storage::{Object, Storage, Upload};
use crate::job::{Disposition, Format, JobId, Source};

const SOURCE_METADATA: &str = "platen-source";
const VERSION_METADATA: &str = "platen-version";
/// Beyond the contract's three keys: the CRC32C of what was sent, written as Cloud Storage writes its own.
const CRC32C_METADATA: &str = "platen-crc32c";
/// Likewise beyond them: what a redelivery would otherwise have to convert again to know.
const PAGES_METADATA: &str = "platen-pages";
/// Likewise.
const WARNINGS_METADATA: &str = "platen-warnings";
/// Bytes of the warnings there: all metadata of an object may have 8 KiB, and the source's name takes up to 1.
const WARNINGS_SIZE: usize = 5 << 10;

/// How often a write that meets somebody else's write looks again before it leaves the rest to a redelivery.
const ROUNDS: u32 = 3;

/// Where one output goes and what it is.
#[derive(Debug, Clone)]
pub struct Target {
    /// The output bucket.
    pub bucket: String,
    /// The output's name.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// What browsers do with it.
    pub disposition: Disposition,
    /// The job it belongs to.
    pub job_id: JobId,
}

impl Target {
    /// The last part of the name: what a browser saves it as.
    pub fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

/// An output that is in its bucket.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What it was to be.
    pub target: Target,
    /// Its generation.
    pub generation: i64,
    /// Bytes.
    pub size: u64,
    /// CRC32C of the bytes.
    pub crc32c: Option<u32>,
    /// Pages, where the format has them.
    pub pages: Option<u32>,
    /// What a person should know about it.
    pub warnings: Vec<Warning>,
}

/// What is under an output's name now.
#[derive(Debug)]
pub enum Found {
    /// This very job's output.
    Done(Stored),
    /// Nothing, or an older output of ours that may be replaced.
    Room(Place),
}

/// The precondition to write under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Only if nothing is there.
    Absent,
    /// Only if this generation is still there.
    Instead(i64),
}

impl Place {
    fn if_generation_match(self) -> i64 {
        match self {
            Self::Absent => 0,
            Self::Instead(generation) => generation,
        }
    }
}

/// Looks at what is under the output's name.
///
/// # Errors
/// Superseded when an output of a newer generation is there, `output.conflict` when somebody else's object is.
pub async fn find(storage: &Storage, target: &Target, source: &Source, generation: i64) -> Step<Found> {
    match storage.metadata(&target.bucket, &target.name, None).await {
        Ok(object) => judge(&object, target, source, generation),
        // The bucket's absence is a 404 as well, and nothing should be converted for it.
        Err(error) if error.kind == Kind::NotFound && !error.message.contains("bucket does not exist") => {
            Ok(Found::Room(Place::Absent))
        }
        Err(error) => {
            Err(Refusal::unavailable(&error, Grant::write_outputs(&target.bucket, "storage.objects.get")).into())
        }
    }
}

/// Says what an object is that is under the output's name.
///
/// # Errors
/// As [`find`], without what only a look can meet.
pub fn judge(object: &Object, target: &Target, source: &Source, generation: i64) -> Step<Found> {
    // Ours is what says of which job and which source it is; half of that is somebody's copy.
    let there = object
        .metadata
        .get(JOB_METADATA)
        .and(object.metadata.get(SOURCE_METADATA))
        .and_then(|text| parse_source(text));
    let same_source = |bucket: &str, name: &str| bucket == source.bucket && name == source.name;
    if there.is_some() && !is_as_written(object) {
        let message = format!(
            "gs://{}/{} has other bytes than Platen wrote there, and is left as it is: delete it to have it made again, or give the job another output name.",
            target.bucket, target.name
        );
        return Err(conflict(target, message).into());
    }
    match there {
        Some((bucket, name, made_from)) if same_source(bucket, name) => {
            if object.metadata.get(JOB_METADATA).map(String::as_str) == Some(target.job_id.as_str()) {
                return Ok(Found::Done(Stored {
                    target: target.clone(),
                    generation: object.generation,
                    size: object.size,
                    crc32c: object.crc32c,
                    pages: object.metadata.get(PAGES_METADATA).and_then(|pages| pages.parse().ok()),
                    warnings: object
                        .metadata
                        .get(WARNINGS_METADATA)
                        .and_then(|warnings| serde_json::from_str(warnings).ok())
                        .unwrap_or_default(),
                }));
            }
            if made_from > generation {
                return Err(Stop::Superseded(format!(
                    "gs://{}/{} is already made from generation {made_from}, which is newer than {}.",
                    target.bucket,
                    target.name,
                    source.display()
                )));
            }
            Ok(Found::Room(Place::Instead(object.generation)))
        }
        other => {
            let owner = other.map(|(bucket, name, _)| format!("gs://{bucket}/{name}"));
            let message = format!(
                "gs://{}/{} belongs to {}: put {{name}} or {{generation}} in OUTPUT_NAME, so that two sources never make one name.",
                target.bucket,
                target.name,
                owner.as_deref().unwrap_or("something that Platen did not write"),
            );
            Err(conflict(target, message).into())
        }
    }
}

fn conflict(target: &Target, message: String) -> Failure {
    Failure::new(FailureCode::OutputConflict, message)
        .with("bucket", target.bucket.as_str())
        .with("name", target.name.as_str())
}

/// Whether the bytes that are there are those that the metadata were written with. What earlier versions wrote has no
/// note of them, and some emulators have no checksums: neither can be told, and both are taken for right.
fn is_as_written(object: &Object) -> bool {
    match (object.metadata.get(CRC32C_METADATA), object.crc32c) {
        (Some(sent), Some(there)) => *sent == as_text(there),
        _ => true,
    }
}

fn as_text(crc32c: u32) -> String {
    STANDARD.encode(crc32c.to_be_bytes())
}

/// `gs://bucket/name#generation`; the name may hold `#`, so the last one counts.
fn parse_source(text: &str) -> Option<(&str, &str, i64)> {
    let (object, generation) = text.strip_prefix("gs://")?.rsplit_once('#')?;
    let (bucket, name) = object.split_once('/')?;
    let generation = generation.parse().ok().filter(|generation| *generation > 0)?;
    Some((bucket, name, generation))
}

/// Writes one output under its precondition.
///
/// A failed precondition is looked into: it may be our own earlier success whose answer was lost.
///
/// # Errors
/// As [`find`]; refused when Cloud Storage cannot take it now.
pub async fn store(
    storage: &Storage,
    target: &Target,
    source: &SourceObject,
    file: &ConvertedFile,
    mut place: Place,
) -> Step<Stored> {
    let mut metadata = BTreeMap::from([
        (JOB_METADATA.to_owned(), target.job_id.as_str().to_owned()),
        (SOURCE_METADATA.to_owned(), source.source.display()),
        (VERSION_METADATA.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (CRC32C_METADATA.to_owned(), as_text(file.crc32c)),
    ]);
    if let Some(pages) = file.pages {
        metadata.insert(PAGES_METADATA.to_owned(), pages.to_string());
    }
    if let Some(warnings) = written(&file.warnings) {
        metadata.insert(WARNINGS_METADATA.to_owned(), warnings);
    }
    let disposition = super::disposition::content_disposition(target.disposition, target.file_name());
    for _ in 0..ROUNDS {
        let upload = Upload {
            bucket: &target.bucket,
            name: &target.name,
            content_type: target.format.content_type(),
            content_disposition: Some(&disposition),
            metadata: &metadata,
            file: &file.path,
            size: file.size,
            crc32c: file.crc32c,
            if_generation_match: place.if_generation_match(),
        };
        match storage.upload(&upload).await {
            Ok(object) => {
                return Ok(Stored {
                    target: target.clone(),
                    generation: object.generation,
                    size: object.size,
                    crc32c: object.crc32c,
                    pages: file.pages,
                    warnings: file.warnings.clone(),
                });
            }
            Err(error) if error.kind == Kind::PreconditionFailed => {
                failpoint!("store.precondition_failed");
                match find(storage, target, &source.source, source.generation).await? {
                    Found::Done(stored) => {
                        let sent = stored.size == file.size && stored.crc32c.is_none_or(|there| there == file.crc32c);
                        tracing::info!(
                            jobId = target.job_id.as_str(),
                            generation = stored.generation,
                            "gs://{}/{} is there already: {}",
                            target.bucket,
                            target.name,
                            if sent {
                                "these very bytes, so an answer was lost"
                            } else {
                                "as another instance made it"
                            }
                        );
                        return Ok(stored);
                    }
                    Found::Room(other) => place = other,
                }
            }
            Err(error) => {
                // Replacing an object takes the right to delete it; Google says which of the two is missing.
                let grant = Grant::write_outputs(&target.bucket, "storage.objects.create");
                return Err(Refusal::unavailable(&error, grant).into());
            }
        }
    }
    Err(Refusal::new(
        RefusalKind::Unavailable,
        format!(
            "gs://{}/{} changed {ROUNDS} times while it was being written",
            target.bucket, target.name
        ),
    )
    .into())
}

/// The warnings as metadata, the first ones if not all have room. In ASCII: metadata are served as headers.
fn written(warnings: &[Warning]) -> Option<String> {
    (1..=warnings.len()).rev().find_map(|count| {
        let json = serde_json::to_string(&warnings[..count]).ok()?;
        let mut ascii = String::with_capacity(json.len());
        for unit in json.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => ascii.push(char::from(byte)),
                _ => ascii.push_str(&format!("\\u{unit:04x}")),
            }
        }
        (ascii.len() <= WARNINGS_SIZE).then_some(ascii)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Job, NameTemplate};

    fn source(generation: i64) -> Source {
        Source {
            bucket: "in".to_owned(),
            name: "a#1.docx".to_owned(),
            generation: Some(generation),
        }
    }

    fn target(generation: i64) -> Target {
        let job = Job::of_event(source(generation), &NameTemplate::default());
        Target {
            bucket: "out".to_owned(),
            name: "a#1.pdf".to_owned(),
            format: Format::Pdf,
            disposition: Disposition::Attachment,
            job_id: job.id(None),
        }
    }

    fn judged(metadata: &[(&str, &str)]) -> Step<Found> {
        let object = Object {
            bucket: "out".to_owned(),
            name: "a#1.pdf".to_owned(),
            generation: 99,
            metadata: metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Object::default()
        };
        judge(&object, &target(5), &source(5), 5)
    }

    #[test]
    fn warnings_are_written_as_far_as_there_is_room_and_read_back() {
        let warning = |text: &str| Warning {
            code: crate::convert::WarningCode::FontSubstituted,
            message: text.to_owned(),
        };
        assert_eq!(written(&[]), None);
        let few = [warning("宋体 -> 🙂 \"x\"")];
        let metadata = written(&few).unwrap();
        assert!(metadata.is_ascii(), "{metadata}");
        let id = target(5).job_id;
        let found = judged(&[
            ("platen-job", id.as_str()),
            ("platen-source", "gs://in/a#1.docx#5"),
            ("platen-warnings", &metadata),
        ]);
        let Ok(Found::Done(stored)) = found else {
            panic!("not found");
        };
        assert_eq!(stored.warnings, few);
        let many: Vec<_> = (0..50).map(|_| warning(&"é".repeat(100))).collect();
        let metadata = written(&many).unwrap();
        assert!(metadata.len() <= WARNINGS_SIZE);
        assert!(serde_json::from_str::<Vec<Warning>>(&metadata).unwrap().len() > 4);
    }

    #[test]
    fn what_is_there_decides() {
        let id = target(5).job_id;
        assert!(matches!(
            judged(&[
                ("platen-job", id.as_str()),
                ("platen-source", "gs://in/a#1.docx#5"),
                ("platen-pages", "3")
            ]),
            Ok(Found::Done(Stored {
                pages: Some(3),
                generation: 99,
                ..
            }))
        ));
        for generation in ["4", "5"] {
            let other = format!("gs://in/a#1.docx#{generation}");
            assert!(matches!(
                judged(&[("platen-job", "other"), ("platen-source", &other)]),
                Ok(Found::Room(Place::Instead(99)))
            ));
        }
        assert!(matches!(
            judged(&[("platen-job", "other"), ("platen-source", "gs://in/a#1.docx#6")]),
            Err(Stop::Superseded(_))
        ));
        for metadata in [
            &[][..],
            &[("platen-source", "gs://in/a#1.docx#4")],
            &[("platen-job", "other"), ("platen-source", "gs://in/a#1.docx#-4")],
            &[("platen-job", "other"), ("platen-source", "gs://in/b.docx#5")],
            &[("platen-job", id.as_str())],
            &[("platen-job", id.as_str()), ("platen-source", "gs://other/a#1.docx#5")],
        ] {
            assert!(
                matches!(judged(metadata), Err(Stop::Failed(failure)) if failure.code == FailureCode::OutputConflict),
                "{metadata:?}"
            );
        }
    }
}
