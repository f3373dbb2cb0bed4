//! From how a child ended to what it means. Exit codes and reports are hints; the outputs decide.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::complete;
use super::conversion::{Conversion, Converted, Limit, Limits, Output, Verdict};
use super::directory::Owned;
use super::export::Format;
use super::pdf::{self, PdfError};
use super::protocol::{Ending, Report, Usage};

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
    files: Vec<(String, Format)>,
    limits: Limits,
    password_given: bool,
}

impl Expected {
    pub(super) fn of(conversion: &Conversion<'_>) -> Self {
        Self {
            directory: conversion.directory.hold(),
            document: conversion.document.clone(),
            files: conversion
                .exports
                .iter()
                .map(|export| (export.file.clone(), export.format))
                .collect(),
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

    /// Decides. Reads the outputs, so it blocks.
    pub(super) fn decide(self, ending: Ending, usage: Usage) -> Attempt {
        let limits = self.limits;
        let too_complex = |limit| Attempt::Decided(Err(Verdict::TooComplex(limit)));
        let unavailable = |why: String| Attempt::Decided(Err(Verdict::EngineUnavailable(why)));
        match ending {
            Ending::TimedOut => too_complex(Limit::Time(limits.wall)),
            Ending::Signalled {
                signal: libc::SIGXCPU, ..
            } => too_complex(Limit::Time(limits.wall)),
            Ending::Signalled {
                signal: libc::SIGXFSZ, ..
            } => too_complex(Limit::OutputSize(limits.output_size)),
            Ending::Signalled {
                memory_exhausted: true, ..
            }
            | Ending::Exited {
                memory_exhausted: true, ..
            }
            | Ending::Reported(
                Report::NotLoaded {
                    memory_exhausted: true, ..
                }
                | Report::NotStored {
                    memory_exhausted: true, ..
                },
            ) => too_complex(Limit::Memory(limits.memory)),
            Ending::Signalled { signal, .. } => Attempt::Crashed { signal: Some(signal) },
            Ending::Exited { .. } => Attempt::Crashed { signal: None },
            Ending::Cancelled => unavailable("the conversion was cancelled".to_owned()),
            Ending::NotStarted(sentence) | Ending::Reported(Report::NotConfined(sentence)) => unavailable(sentence),
            Ending::Reported(Report::NotLoaded {
                password_wanted: true, ..
            }) => Attempt::Decided(Err(if self.password_given {
                Verdict::WrongPassword
            } else {
                Verdict::Encrypted
            })),
            Ending::Reported(Report::NotLoaded { .. }) => Attempt::Decided(Err(Verdict::Corrupt)),
            Ending::Reported(Report::NoExportFilter) => Attempt::Decided(Err(Verdict::Unsupported)),
            Ending::Reported(Report::FormatNotOfKind) => Attempt::Decided(Err(Verdict::FormatNotOfKind)),
            Ending::Reported(Report::NoSuchPages) => Attempt::Decided(Err(Verdict::NoSuchPages)),
            Ending::Reported(Report::NotStored { .. }) if self.is_at_limit() => {
                too_complex(Limit::OutputSize(limits.output_size))
            }
            Ending::Reported(Report::NotStored { error_code, .. }) => {
                tracing::warn!(
                    error_code = format!("{error_code:#x}"),
                    "LibreOffice could not write an output"
                );
                Attempt::Crashed { signal: None }
            }
            Ending::Reported(Report::Done) => self.check(usage),
        }
    }

    /// Whether a file is as long as one may be. LibreOffice's error codes do not tell a full disk from a file over its
    /// limit, but a write is cut at the limit.
    fn is_at_limit(&self) -> bool {
        let full = |directory: &Path| {
            fs::read_dir(directory).is_ok_and(|mut entries| {
                entries.any(|entry| {
                    entry
                        .and_then(|entry| fs::symlink_metadata(entry.path()))
                        .is_ok_and(|file| file.is_file() && file.len() >= self.limits.output_size)
                })
            })
        };
        let directory = self.directory.path();
        full(directory) || full(&directory.join("tmp"))
    }

    /// Reads every output.
    fn check(&self, usage: Usage) -> Attempt {
        let limits = self.limits;
        let mut outputs = Vec::with_capacity(self.files.len());
        for (file, format) in &self.files {
            let path = self.directory.path().join(file);
            let checked = pdf::open(&path).and_then(|file| Ok((file.metadata()?.len(), pages(*format, &path)?)));
            let (size, pages) = match checked {
                Ok(checked) => checked,
                Err(error) => {
                    tracing::warn!(%error, "LibreOffice reported an output that is none");
                    return match error {
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
                return Attempt::Decided(Err(Verdict::TooComplex(Limit::OutputSize(limits.output_size))));
            }
            if let Some(found) = pages.filter(|pages| *pages > limits.pages) {
                let limit = Limit::Pages {
                    found,
                    limit: limits.pages,
                };
                return Attempt::Decided(Err(Verdict::TooComplex(limit)));
            }
            outputs.push(Output { path, size, pages });
        }
        Attempt::Decided(Ok(Converted { outputs, usage }))
    }
}

/// Checks that an output is of its format to its end, and counts its pages where the format has them.
fn pages(format: Format, path: &Path) -> Result<Option<u64>, PdfError> {
    match format {
        Format::Pdf => pdf::pages(path).map(Some),
        Format::Png | Format::Jpg | Format::Txt | Format::Html => complete::check(format, path).map(|()| None),
    }
}

/// Whether an error is this machine's, not the file's: no descriptors, no memory, a disk that fails.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO | libc::EACCES)
    )
}
