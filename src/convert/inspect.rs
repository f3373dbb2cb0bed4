//! What a file really is, before LibreOffice sees it.
//!
//! Content decides, the name only chooses among what the content allows. The answer names the import filter, which is
//! then forced at load: LibreOffice's own detection turns random bytes into pages and follows html in a `.docx`. The
//! filters are those that stock LibreOffice 25.2 picks for the same file (asked through its `TypeDetection` service),
//! so that the output is the same.
//!
//! Memory stays bounded: files are streamed, every entry of a package is inflated once, counted and checked.

mod compound;
mod encryption;
mod format;
mod gzip;
mod magic;
mod package;
mod remarks;
mod rich_text;
mod separated;
mod text;
mod xml;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

pub use format::Format;
use magic::Magic;
pub use remarks::{Link, Remarks};
pub use separated::{CharacterSet, SeparatedValues};

use super::exceeded::over;
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};

/// Enough of a file's beginning to tell its container, its magic (Photo CD has it at 2,048) and, for text, its kind.
const HEAD: u64 = 4096;

/// Where inspection stops believing that a file is a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectLimits {
    /// Entries of a package.
    pub entries: u64,
    /// Bytes of all entries of a package together, inflated.
    pub inflated_size: u64,
    /// Inflated size of a package as a multiple of its file's, looked at from [`InspectLimits::RATIO_FLOOR`] on.
    pub ratio: u64,
    /// XML elements, or groups of rich text, inside each other.
    pub nesting: usize,
}

impl InspectLimits {
    /// Below this inflated size (bytes) no ratio is too high: a few pages of spaces compress well, too.
    pub const RATIO_FLOOR: u64 = 32 << 20;
}

impl Default for InspectLimits {
    /// Room for the largest documents that fit in the default memory of a conversion, which holds several times the
    /// inflated size. 256 levels are what libxml2 takes by default as well; of 75 real documents the deepest has 14, and
    /// the one that inflates most grows by 15.
    fn default() -> Self {
        Self {
            entries: 20_000,
            inflated_size: 512 << 20,
            ratio: 200,
            nesting: 256,
        }
    }
}

/// What a document is and how LibreOffice is told to load it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentKind {
    /// The format of the content, whatever the name says.
    pub format: Format,
    /// LibreOffice's name of the import filter.
    pub import_filter: &'static str,
    /// How values are told apart, for text that becomes a sheet.
    pub separated_values: Option<SeparatedValues>,
    /// The extension under which LibreOffice expects this content, without its dot.
    pub extension: &'static str,
    /// Whether it opens only with a password, in a way that LibreOffice knows.
    pub encrypted: bool,
    /// What its reader should know.
    pub remarks: Remarks,
}

impl DocumentKind {
    fn new(format: Format) -> Self {
        Self {
            format,
            import_filter: format.filter(),
            separated_values: None,
            extension: format.extension(),
            encrypted: false,
            remarks: Remarks::default(),
        }
    }

    /// The same, opened only with a password.
    fn encrypted(self) -> Self {
        Self {
            encrypted: true,
            ..self
        }
    }

    /// The filter's options (`FilterOptions`), for those that do not load without.
    pub fn import_options(&self) -> Option<String> {
        match (self.separated_values, self.format) {
            (Some(values), _) => Some(values.filter_options()),
            // The character sets that LibreOffice takes where nobody can be asked: IBM 850 and Windows-1252.
            (None, Format::Dbf) => Some("4".to_owned()),
            (None, Format::Dif) => Some("1".to_owned()),
            _ => None,
        }
    }
}

/// Decides what the file at `path` is. `object_name` is the name that its owner gave it.
///
/// # Errors
/// `source.empty`, `source.unsupported` (also for encryption that no password opens here), `document.corrupt` or
/// `document.too_complex` when the document is to blame; a refusal (503) when this machine could not read its own copy.
pub fn inspect(path: &Path, object_name: &str, limits: &InspectLimits) -> Step<DocumentKind> {
    let subject = Subject {
        name: object_name,
        limits,
    };
    let mut file = File::open(path).map_err(|error| subject.unreadable(&error))?;
    let size = file.metadata().map_err(|error| subject.unreadable(&error))?.len();
    if size == 0 {
        return Err(subject.fail(FailureCode::SourceEmpty, "has no bytes: upload it again"));
    }
    let mut head = Vec::new();
    (&mut file)
        .take(HEAD)
        .read_to_end(&mut head)
        .map_err(|error| subject.unreadable(&error))?;
    file.seek(SeekFrom::Start(0))
        .map_err(|error| subject.unreadable(&error))?;

    if subject.named_text() {
        return text::inspect(&subject, file, &head);
    }
    match container(&head) {
        Container::Zip => package::inspect(&subject, Bounded { file, size }),
        Container::Compound => compound::inspect(&subject, Bounded { file, size }),
        Container::RichText => rich_text::inspect(&subject, file),
        Container::None => match Magic::of(&head) {
            Some(Magic::Certain(format)) => Ok(DocumentKind::new(format)),
            Some(Magic::Likely(format)) if format.has_extension(&subject.extension()) => Ok(DocumentKind::new(format)),
            Some(Magic::Gzip) => gzip::inspect(&subject, file, size),
            Some(Magic::Encrypted) => Err(encryption::unsupported(&subject, "WordPerfect's own algorithm")),
            Some(Magic::Refused(what)) => {
                Err(subject.unsupported(&format!("is {what}, which no import filter reads here")))
            }
            Some(Magic::Likely(_)) | None => text::inspect(&subject, file, &head),
        },
    }
}

/// Whether files with this extension (lower case, without its dot) may hold what is read here: the objects that are
/// converted when `INPUT_INCLUDE` does not say which.
pub fn is_readable_extension(extension: &str) -> bool {
    Format::of_extension(extension).is_some()
}

enum Container {
    Zip,
    Compound,
    RichText,
    None,
}

fn container(head: &[u8]) -> Container {
    match head {
        // A zip whose first entry was cut off has no other magic; an empty one starts with its end record.
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] => Container::Zip,
        [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => Container::Compound,
        _ if head.starts_with(br"{\rtf") => Container::RichText,
        _ => Container::None,
    }
}

/// The file under inspection: its name, for messages and for the choices that are the name's, and the limits.
struct Subject<'a> {
    name: &'a str,
    limits: &'a InspectLimits,
}

impl Subject<'_> {
    /// The name's extension in lower case, empty when there is none.
    fn extension(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or_default();
        last.rsplit_once('.')
            .map(|(_, extension)| extension.to_ascii_lowercase())
            .unwrap_or_default()
    }

    /// Names whose content LibreOffice takes as text, whatever it looks like.
    fn named_text(&self) -> bool {
        matches!(self.extension().as_str(), "txt" | "csv" | "tsv" | "tab" | "bib" | "ltx")
    }

    fn fail(&self, code: FailureCode, what: &str) -> Stop {
        Failure::new(code, format!("'{}' {what}.", self.name)).into()
    }

    fn corrupt(&self, what: &str) -> Stop {
        self.fail(
            FailureCode::DocumentCorrupt,
            &format!("{what}: upload it again from a good copy"),
        )
    }

    fn unsupported(&self, what: &str) -> Stop {
        self.fail(FailureCode::SourceUnsupported, what)
    }

    fn too_complex(&self, what: &str, limit: &str, allowed: u64, measured: u64) -> Stop {
        over(
            FailureCode::DocumentTooComplex,
            format!(
                "'{}' {what}: the limit is {allowed}, and it has {measured} or more.",
                self.name
            ),
            limit,
            allowed,
            measured,
        )
        .into()
    }

    /// Elements or groups inside each other: whoever looks stops at the first one too many.
    fn too_deep(&self, what: &str) -> Stop {
        let allowed = self.limits.nesting as u64;
        self.too_complex(what, "nesting", allowed, allowed.saturating_add(1))
    }

    /// The operating system could not read the local copy: not the document's fault.
    fn unreadable(&self, error: &io::Error) -> Stop {
        let message = format!("could not read the local copy of '{}': {error}", self.name);
        Refusal::new(RefusalKind::Unavailable, message).into()
    }

    /// Sorts an error of a reader that both reads the file and understands it. What the kernel says of a wrong offset
    /// is the document's fault, too: no document may make the worker ask for it again for ever.
    fn broken(&self, error: &io::Error, what: &str) -> Stop {
        match error.raw_os_error() {
            None | Some(libc::EINVAL | libc::EOVERFLOW | libc::EFBIG | libc::ENXIO) => self.corrupt(what),
            Some(_) => self.unreadable(error),
        }
    }
}

/// A file whose readers believe its content: they seek where that says, and it may say anything. An offset behind the
/// end is refused here; the kernel would take it, or call it an error of its own.
struct Bounded {
    file: File,
    size: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.file.stream_position()?.checked_add_signed(by),
        };
        match at.filter(|&at| at <= self.size) {
            Some(at) => self.file.seek(SeekFrom::Start(at)),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "an offset leads out of the file",
            )),
        }
    }
}

/// Reads until `buffer` is full or the end is reached, so that chunks do not depend on the reader's mood.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What may still be inflated.
struct Budget<'a> {
    limits: &'a InspectLimits,
    file: u64,
    inflated: u64,
}

impl<'a> Budget<'a> {
    fn new(limits: &'a InspectLimits, file: u64) -> Self {
        Self {
            limits,
            file,
            inflated: 0,
        }
    }

    fn take(&mut self, subject: &Subject<'_>, count: u64) -> Step<()> {
        self.inflated += count;
        if self.inflated > self.limits.inflated_size {
            let (limit, allowed) = ("inflatedSize", self.limits.inflated_size);
            return Err(subject.too_complex("inflates to too many bytes", limit, allowed, self.inflated));
        }
        let ratio = self.inflated / self.file.max(1);
        if self.inflated > InspectLimits::RATIO_FLOOR && ratio > self.limits.ratio {
            return Err(subject.too_complex("inflates to too many times its size", "ratio", self.limits.ratio, ratio));
        }
        Ok(())
    }
}
