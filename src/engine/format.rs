//! The formats that LibreOffice makes of documents: which export filter makes each of which kind, and how its files are
//! told to be whole.

mod table;

use std::ffi::CStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::office::Document;
use table::{FILTERS, FORMATS};

/// A format that documents are converted to, told by its file extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format(&'static Row);

/// What a loaded document is. LibreOffice has one export filter a kind and format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A text, or a master document.
    Text,
    /// HTML.
    WebPage,
    /// Sheets.
    Spreadsheet,
    /// Slides.
    Presentation,
    /// A drawing, or a picture.
    Drawing,
    /// A formula.
    Formula,
}

/// How a file is told to be whole; see `complete.rs`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It has pages, and every object of it is there.
    Pdf,
    /// It begins with the one and ends with the other.
    Marks(&'static [u8], &'static [u8]),
    /// A zip package with this media type in its first entry.
    OpenDocument(&'static str),
    /// A zip package with this content type among its parts.
    OpenXml(&'static str),
    /// A compound file with this stream.
    Compound(&'static str),
    /// A RIFF file of this form.
    Riff(&'static [u8; 4]),
    /// A Windows bitmap, which says how long it is.
    Bitmap,
    /// TIFF, which says where its directory is.
    Tiff,
    /// An enhanced metafile, which says how long it is.
    EnhancedMetafile,
    /// dBASE, which says how many records it has.
    Database,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    extension: &'static str,
    check: Check,
    filter_options: Option<&'static str>,
}

/// The service that tells each kind, in the order to ask: a presentation is a drawing, and a web page a text, too.
const SERVICES: [(&CStr, Kind); 6] = [
    (c"com.sun.star.sheet.SpreadsheetDocument", Kind::Spreadsheet),
    (c"com.sun.star.presentation.PresentationDocument", Kind::Presentation),
    (c"com.sun.star.drawing.DrawingDocument", Kind::Drawing),
    (c"com.sun.star.text.WebDocument", Kind::WebPage),
    (c"com.sun.star.formula.FormulaProperties", Kind::Formula),
    (c"com.sun.star.text.GenericTextDocument", Kind::Text),
];

impl Kind {
    /// What kind a loaded document is, or `None` for one that no export filter knows (a database, a macro library).
    pub(super) fn of(document: &Document<'_>) -> Option<Self> {
        SERVICES
            .into_iter()
            .find(|(service, _)| document.object().supports(service))
            .map(|(_, kind)| kind)
    }

    /// As a person calls it, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::WebPage => "a web page",
            Self::Spreadsheet => "a spreadsheet",
            Self::Presentation => "a presentation",
            Self::Drawing => "a drawing or a picture",
            Self::Formula => "a formula",
        }
    }
}

impl Format {
    /// PDF, which every kind can become.
    pub const PDF: Self = Self(&FORMATS[0]);

    /// The format of this extension.
    pub fn of(extension: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.extension == extension).map(Self)
    }

    /// Its file extension.
    pub fn extension(self) -> &'static str {
        self.0.extension
    }

    /// The extensions of all formats that a document of this kind can become.
    pub fn of_kind(kind: Kind) -> Vec<&'static str> {
        let makes = |row: &&'static Row| Self(row).filter(kind).is_some();
        FORMATS.iter().filter(makes).map(|row| row.extension).collect()
    }

    /// The export filter's internal name, if LibreOffice has one for this format of this kind.
    pub(super) fn filter(self, kind: Kind) -> Option<&'static str> {
        FILTERS
            .iter()
            .find(|(extension, of, _)| *extension == self.0.extension && *of == kind)
            .map(|(_, _, filter)| *filter)
    }

    /// The export filter's `FilterOptions`, which are older than `FilterData` and one string.
    pub(super) fn filter_options(self) -> Option<&'static str> {
        self.0.filter_options
    }

    /// How its files are told to be whole.
    pub(super) fn check(self) -> &'static Check {
        &self.0.check
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.extension())
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let extension = String::deserialize(deserializer)?;
        Self::of(&extension).ok_or_else(|| serde::de::Error::custom("no format has this extension"))
    }
}
