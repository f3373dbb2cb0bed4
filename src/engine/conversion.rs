//! What a conversion is asked and what it answers.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Finding, Finish, Format, JobDirectory, Kind, Password, Usage, Value};

/// One document to convert.
pub struct Conversion<'a> {
    /// The job's own directory, from [`super::Engine::job_directory`].
    pub directory: &'a JobDirectory,
    /// The document's file name in it; [`super::sanitised_file_name`] makes one.
    pub document: String,
    /// How to read it.
    pub import: Import,
    /// What opens it, for an encrypted document.
    pub password: Option<Password>,
    /// What to make of it, at least one.
    pub exports: Vec<Export>,
    /// What it may use up.
    pub limits: Limits,
    /// When nobody waits for it any more: what could end later is not begun, or ended in time.
    pub deadline: Option<Instant>,
}

impl Export {
    /// An output as stock LibreOffice makes it.
    pub fn plain(file: String, format: Format) -> Self {
        Self {
            file,
            format,
            options: Vec::new(),
            filter_options: None,
            finish: None,
            setup: Setup::default(),
            image: Image::default(),
            limited: Vec::new(),
        }
    }
}

/// How a document is read. LibreOffice's own detection of types never runs: it is an attack surface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// The import filter's internal name: `MS Word 2007 XML`.
    pub filter: Cow<'static, str>,
    /// The filter's `FilterOptions`; a csv needs them.
    pub options: Option<Cow<'static, str>>,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Its file name in the job directory.
    pub file: String,
    /// Its format.
    pub format: Format,
    /// The export filter's options (`FilterData`), such as `PageRange`; what is not named stays as it is without any.
    pub options: Vec<(Cow<'static, str>, Value)>,
    /// The export filter's `FilterOptions`, instead of the format's own.
    pub filter_options: Option<String>,
    /// What is changed in the document before.
    pub setup: Setup,
    /// Which page of it an image is, and how large.
    pub image: Image,
    /// What the worker does to the PDF afterwards; never said to the child.
    #[serde(skip)]
    pub finish: Option<Finish>,
    /// Options that are for documents of some kinds alone: asked of another kind, nothing is made.
    pub limited: Vec<Limited>,
}

/// What is changed in a loaded document before it is written. Outputs of different setups never see each other's: each
/// setup has a load of its own.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Instead of the import's own `FilterOptions`.
    pub import_options: Option<String>,
    /// The pages of texts and sheets.
    pub pages: Pages,
    /// Brings tables of contents and other indexes of a text up to date.
    pub update_indexes: bool,
    /// Document properties, by LibreOffice's names: `Title`, `Author`, `Subject`, and `Keywords`, which are several texts.
    pub properties: Vec<(Cow<'static, str>, Value)>,
}

/// What pages are like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Their paper.
    pub paper: Option<Paper>,
    /// The longer side across.
    pub landscape: bool,
    /// Sheets are scaled down to one page.
    pub fit: Option<Fit>,
}

/// A paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paper {
    /// In hundredths of a millimetre.
    pub width: i32,
    /// In hundredths of a millimetre.
    pub height: i32,
    /// Pages that are wider than they are high get it turned.
    pub turns: bool,
}

/// How a sheet is scaled down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// To one page.
    Page,
    /// To pages as wide as it, as many as it takes.
    Width,
}

/// Which page an image is of, and how large it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// From 1; without it the first.
    pub page: Option<u32>,
    /// Its size; without one LibreOffice's 96 dots an inch.
    pub size: Option<ImageSize>,
}

/// How large an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageSize {
    /// Pixels across.
    Width(u32),
    /// Dots an inch.
    Dpi(u32),
}

/// An option that is for documents of some kinds alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limited {
    /// As whoever asked calls it.
    pub option: Cow<'static, str>,
    /// The kinds.
    pub kinds: Vec<Kind>,
}

/// What one conversion may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall time.
    pub wall: Duration,
    /// Processor time of all threads together.
    pub processor: Duration,
    /// Bytes of memory beyond what it shares with the warm engine.
    pub memory: u64,
    /// Bytes of each output, and of each temporary file. All files of a job together may take the document, twice this
    /// for each output, and 256 MiB.
    pub output_size: u64,
    /// Pages of an output.
    pub pages: u64,
    /// Threads at once, at most [`Limits::MOST_THREADS`].
    pub threads: u64,
}

impl Limits {
    /// More threads than LibreOffice starts: it makes four pools of threads at most, each of as many as there are
    /// processors.
    pub const MOST_THREADS: u64 = 192;
}

/// A conversion that succeeded: every output is there and was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// In the order of the exports.
    pub outputs: Vec<Output>,
    /// What the reader of an output should know.
    pub findings: Vec<Finding>,
    /// What the child used.
    pub usage: Usage,
}

/// A checked output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it is, in the job directory.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Its pages, where the format has them.
    pub pages: Option<u64>,
}

/// Why there is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// The document needs a password and none was given.
    #[error("the document is encrypted and no password was given")]
    Encrypted,
    /// The given password does not open it.
    #[error("the password does not open the document")]
    WrongPassword,
    /// LibreOffice cannot read it.
    #[error("LibreOffice cannot read the document: it is damaged")]
    Corrupt,
    /// LibreOffice reads it as something that has no pages: a database, a library of macros.
    #[error("the document is of a kind that has no pages")]
    Unsupported,
    /// LibreOffice does not make one of the formats of a document of this kind: text of a presentation.
    #[error("LibreOffice makes no {} of {}", format.extension(), kind.name())]
    FormatNotOfKind {
        /// The first such format.
        format: Format,
        /// What the document is.
        kind: Kind,
    },
    /// An option is not for documents of this kind.
    #[error("{option} is not for {}", kind.name())]
    OptionNotOfKind {
        /// As [`Limited::option`] has it.
        option: String,
        /// What the document is.
        kind: Kind,
        /// For which it is.
        kinds: Vec<Kind>,
    },
    /// The document has none of the pages that an export's `PageRange` names.
    #[error("the document has none of the pages that were asked for")]
    NoSuchPages,
    /// The document has no such page to make an image of.
    #[error("the document has no page {page}")]
    NoSuchPage {
        /// The page.
        page: u32,
    },
    /// The paper has no room between the margins of a page.
    #[error("the paper is smaller than the margins of the document's pages")]
    PaperTooSmall,
    /// The image would have more pixels than [`super::MOST_PIXELS`].
    #[error("the image would have too many pixels")]
    ImageTooLarge,
    /// It needs more than its limits allow.
    #[error("the document is too complex: {0}")]
    TooComplex(Exceeded),
    /// The engine died of it, twice, in fresh processes; the last signal, where it was one.
    #[error("LibreOffice crashed on the document, twice{}", signal.map_or(String::new(), |signal| format!(" (signal {signal})")))]
    Crashed {
        /// The signal that ended the second process.
        signal: Option<i32>,
    },
    /// Nothing is wrong with the document: try again later. The sentence says why, for the log.
    #[error("the conversion engine is not available: {0}")]
    EngineUnavailable(String),
}

/// What a document ran into: which limit, how much it allows, and how much was measured when the job was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exceeded {
    /// Which one.
    pub limit: Limit,
    /// How much was allowed, in the limit's unit.
    pub allowed: u64,
    /// How much there was, in the same unit. What is stopped on its way is not measured to its end.
    pub measured: u64,
}

/// The limits of a conversion, with their units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Wall time, in milliseconds.
    Time,
    /// Processor time of all threads, in milliseconds.
    ProcessorTime,
    /// Memory beyond what is shared with the warm engine, in bytes.
    Memory,
    /// One output or temporary file, in bytes.
    OutputSize,
    /// All files of the job together, in bytes.
    DiskSize,
    /// Files and directories of the job: more than are looked at.
    DiskEntries,
    /// Directories of the job inside each other: more than are looked at, or one that is closed to its owner.
    DiskLevels,
    /// Pages of an output.
    Pages,
    /// Threads at once; a child can start no process.
    Threads,
}

impl Limit {
    /// Its name, as metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::ProcessorTime => "processor_time",
            Self::Memory => "memory",
            Self::OutputSize => "output_size",
            Self::DiskSize => "disk_size",
            Self::DiskEntries => "disk_entries",
            Self::DiskLevels => "disk_levels",
            Self::Pages => "pages",
            Self::Threads => "threads",
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            Limit::Time => "milliseconds",
            Limit::ProcessorTime => "milliseconds of processor time",
            Limit::Memory => "bytes of memory",
            Limit::OutputSize => "bytes of output",
            Limit::DiskSize => "bytes on the disk",
            Limit::DiskEntries => "files on the disk",
            Limit::DiskLevels => "directories inside each other",
            Limit::Pages => "pages",
            Limit::Threads => "threads",
        };
        write!(
            f,
            "{} {what} are allowed, and there were {}",
            self.allowed, self.measured
        )
    }
}

impl fmt::Debug for Setup {
    /// Without the properties, which are what somebody has written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("import_options", &self.import_options)
            .field("pages", &self.pages)
            .field("update_indexes", &self.update_indexes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Conversion<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversion")
            .field("directory", &self.directory.path())
            .field("document", &self.document)
            .field("import", &self.import)
            .field("exports", &self.exports)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
