//! From how a child ended to what it means. Exit codes and reports are hints; the outputs decide.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::complete;
use super::conversion::{Conversion, Converted, Exceeded, Export, Limit, Limits, Output, Verdict};
use super::directory::Owned;
use super::finding::Finding;
use super::format::Format;
use super::pdf::{self, Finish, PdfError};
use super::protocol::{Ending, Report, Usage};

/// With less than this left, an output that was not written may have had no room: LibreOffice removes what it has written
/// before it fails, so the disk is not full any more.
const LEAST_ROOM: u64 = 64 << 20;
/// Bytes that are written to find out whether the disk takes any.
const TRIAL: usize = 64 << 10;

/// What one attempt gave.
pub(super) enum Attempt {
    /// It is decided.
    Decided(Result<Converted, Verdict>),
    /// The child died, or made something that is no output: another process may do better.
    Crashed { signal: Option<i32> },
}

/// What a conversion must leave in its directory.
#[derive(Clone)]
pub(super) struct Expected {
    /// Kept as long as this is looked at.
    directory: Arc<Owned>,
    document: String,
    exports: Vec<Export>,
    limits: Limits,
    password_given: bool,
}

impl Expected {
    pub(super) fn of(conversion: &Conversion<'_>) -> Self {
        Self {
            directory: conversion.directory.hold(),
            document: conversion.document.clone(),
            exports: conversion.exports.clone(),
            limits: conversion.limits,
            password_given: conversion.password.is_some(),
        }
    }

    /// Leaves nothing but the document in the directory, readable by the child and writable by nobody.
    pub(super) fn prepare(self) -> io::Result<()> {
        self.directory.keep_only(&self.document)?;
        fs::set_permissions(
            self.directory.path().join(&self.document),
            Permissions::from_mode(0o444),
        )
    }

    /// Decides, and is done with the outputs at `deadline`. Reads them, so it blocks.
    pub(super) fn decide(self, ending: Ending, usage: Usage, deadline: Instant) -> Attempt {
        let not_stored = matches!(
            ending,
            Ending::Reported {
                report: Report::NotStored { .. },
                ..
            }
        );
        let attempt = self.judge(ending, usage, deadline);
        // A full disk makes LibreOffice fail in every way there is, and leave things out of what it writes.
        let may_be_the_disk = matches!(
            attempt,
            Attempt::Crashed { .. } | Attempt::Decided(Ok(_) | Err(Verdict::Corrupt))
        );
        match self.room() {
            Err(why) if may_be_the_disk => Attempt::Decided(Err(Verdict::EngineUnavailable(why))),
            Ok(room) if may_be_the_disk && not_stored && room < LEAST_ROOM.min(self.limits.output_size) => {
                Attempt::Decided(Err(Verdict::EngineUnavailable(format!(
                    "an output was not written, and the disk of TMPDIR has {room} bytes left: make it larger"
                ))))
            }
            _ => attempt,
        }
    }

    /// How many bytes the file system of the job directories has left for anybody.
    ///
    /// # Errors
    /// A sentence: it has none.
    fn room(&self) -> Result<u64, String> {
        let directory = self.directory.path();
        // Beside the job directory: that is the child's own, and not everybody may write there.
        let parent = directory.parent().unwrap_or(directory);
        let full = |what: &str| format!("the disk of TMPDIR has no {what} left: make it larger or empty it");
        // Not every file system counts, so it is also tried.
        let tried = tempfile::tempfile_in(parent).and_then(|mut file| file.write_all(&[1; TRIAL]));
        if let Err(error) = tried
            && matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
        {
            return Err(full("room"));
        }
        let Ok(counted) = nix::sys::statvfs::statvfs(parent) else {
            return Ok(u64::MAX);
        };
        if counted.files() > 0 && counted.files_available() == 0 {
            return Err(full("inodes"));
        }
        if counted.blocks() == 0 {
            return Ok(u64::MAX);
        }
        // What root may use beyond that is of no use to a child.
        match counted.blocks_available().saturating_mul(counted.fragment_size()) {
            room if room < TRIAL as u64 => Err(full("room")),
            room => Ok(room),
        }
    }

    fn judge(&self, ending: Ending, usage: Usage, deadline: Instant) -> Attempt {
        let limits = self.limits;
        let unavailable = |why: String| Attempt::Decided(Err(Verdict::EngineUnavailable(why)));
        match ending {
            Ending::TimedOut => too_complex(Limit::Time, milliseconds(limits.wall), usage.wall_ms),
            Ending::OverLimit(exceeded) => Attempt::Decided(Err(Verdict::TooComplex(exceeded))),
            Ending::Signalled {
                signal: libc::SIGXCPU, ..
            } => too_complex(Limit::ProcessorTime, milliseconds(limits.processor), usage.cpu_ms),
            Ending::Signalled {
                signal: libc::SIGXFSZ, ..
            } => {
                // The kernel says so when a file is as long as one may be; it may have been one without a name.
                too_complex(Limit::OutputSize, limits.output_size, limits.output_size)
            }
            // Also when an output was written: LibreOffice leaves out a picture that it has no memory for.
            Ending::Signalled {
                memory_exhausted: true, ..
            }
            | Ending::Exited {
                memory_exhausted: true, ..
            }
            | Ending::Reported {
                memory_exhausted: true, ..
            } => too_complex(Limit::Memory, limits.memory, usage.own_memory),
            Ending::Signalled { signal, .. } => Attempt::Crashed { signal: Some(signal) },
            Ending::Exited { .. } => Attempt::Crashed { signal: None },
            Ending::Cancelled => unavailable("the conversion was cancelled".to_owned()),
            Ending::NotStarted(sentence) => unavailable(sentence),
            Ending::Reported { report, findings, .. } => self.reported(&report, findings, usage, deadline),
        }
    }

    /// What a report means. The outputs tell whether it is true.
    fn reported(&self, report: &Report, findings: Vec<Finding>, usage: Usage, deadline: Instant) -> Attempt {
        let verdict = match report {
            Report::Done => return self.check(findings, usage, deadline),
            Report::NotLoaded { password_wanted: true } if self.password_given => Verdict::WrongPassword,
            Report::NotLoaded { password_wanted: true } => Verdict::Encrypted,
            Report::NotLoaded { .. } => Verdict::Corrupt,
            Report::NoExportFilter => Verdict::Unsupported,
            // What names an export or an option that there is not comes from a child that is not itself any more.
            Report::FormatNotOfKind { export, kind } => match self.exports.get(*export) {
                Some(export) => Verdict::FormatNotOfKind {
                    format: export.format,
                    kind: *kind,
                },
                None => return Attempt::Crashed { signal: None },
            },
            Report::OptionNotOfKind { export, option, kind } => {
                let export = self.exports.get(*export);
                match export.and_then(|export| export.limited.get(*option)) {
                    Some(limited) => Verdict::OptionNotOfKind {
                        option: limited.option.clone().into_owned(),
                        kind: *kind,
                        kinds: limited.kinds.clone(),
                    },
                    None => return Attempt::Crashed { signal: None },
                }
            }
            Report::NoSuchPages => Verdict::NoSuchPages,
            Report::NoSuchPage { export } => match self.exports.get(*export).and_then(|export| export.image.page) {
                Some(page) => Verdict::NoSuchPage { page },
                None => return Attempt::Crashed { signal: None },
            },
            Report::PaperTooSmall => Verdict::PaperTooSmall,
            Report::ImageTooLarge => Verdict::ImageTooLarge,
            Report::NotStored { .. } if self.longest_file() >= self.limits.output_size => {
                return too_complex(Limit::OutputSize, self.limits.output_size, self.longest_file());
            }
            Report::NotStored { error_code } => {
                tracing::warn!(
                    error_code = format!("{error_code:#x}"),
                    "LibreOffice could not write an output"
                );
                return Attempt::Crashed { signal: None };
            }
        };
        Attempt::Decided(Err(verdict))
    }

    /// The longest file that the child has left. LibreOffice's error codes do not tell a full disk from a file over its
    /// limit, but a write is cut at the limit.
    fn longest_file(&self) -> u64 {
        let longest = |directory: &Path| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let files = entries.filter_map(|entry| fs::symlink_metadata(entry.path()).ok());
            let lengths = files.filter(fs::Metadata::is_file).map(|file| file.len());
            lengths.max().unwrap_or(0)
        };
        let directory = self.directory.path();
        longest(directory).max(longest(&directory.join("tmp")))
    }

    /// Reads every output.
    fn check(&self, findings: Vec<Finding>, usage: Usage, deadline: Instant) -> Attempt {
        let limits = self.limits;
        let mut outputs = Vec::with_capacity(self.exports.len());
        for export in &self.exports {
            let path = self.directory.path().join(&export.file);
            let checked = finished(export.format, &path, export.finish.as_ref(), deadline);
            let (size, pages) = match checked {
                Ok(checked) => checked,
                Err(error) => {
                    tracing::warn!(%error, "LibreOffice reported an output that is none");
                    return match error {
                        PdfError::TooLong => {
                            // What is left of the wall limit went into looking at the output.
                            let allowed = milliseconds(limits.wall);
                            too_complex(Limit::Time, allowed, allowed.max(usage.wall_ms))
                        }
                        PdfError::Io(error) if error.kind() != io::ErrorKind::NotFound && is_ours(&error) => {
                            Attempt::Decided(Err(Verdict::EngineUnavailable(format!(
                                "the output cannot be read: {error}"
                            ))))
                        }
                        _ => Attempt::Crashed { signal: None },
                    };
                }
            };
            if size > limits.output_size {
                return too_complex(Limit::OutputSize, limits.output_size, size);
            }
            if let Some(found) = pages.filter(|pages| *pages > limits.pages) {
                return too_complex(Limit::Pages, limits.pages, found);
            }
            outputs.push(Output { path, size, pages });
        }
        Attempt::Decided(Ok(Converted {
            outputs,
            findings,
            usage,
        }))
    }
}

/// Checks an output, finishes it, and gives its size and pages. What is finished is checked again: it is what counts.
fn finished(
    format: Format,
    path: &Path,
    finish: Option<&Finish>,
    deadline: Instant,
) -> Result<(u64, Option<u64>), PdfError> {
    let mut pages = pages_of(format, path, deadline)?;
    if let Some(finish) = finish {
        pdf::finish(path, finish, deadline)?;
        pages = pages_of(format, path, deadline)?;
    }
    Ok((pdf::open(path)?.metadata()?.len(), pages))
}

fn too_complex(limit: Limit, allowed: u64, measured: u64) -> Attempt {
    Attempt::Decided(Err(Verdict::TooComplex(Exceeded {
        limit,
        allowed,
        measured,
    })))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Checks that an output is of its format to its end, and counts its pages where the format has them.
fn pages_of(format: Format, path: &Path, deadline: Instant) -> Result<Option<u64>, PdfError> {
    if format == Format::PDF {
        pdf::pages(path, deadline).map(Some)
    } else {
        complete::check(format, path, deadline).map(|()| None)
    }
}

/// Whether an error is this machine's, not the file's: no descriptors, no memory, a disk that fails.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO | libc::EACCES | libc::ENOSPC | libc::EDQUOT)
    )
}
