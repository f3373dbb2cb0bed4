//! Which of LibreOffice's export filters makes a format of a loaded document.

use std::borrow::Cow;
use std::ffi::CStr;

use serde::{Deserialize, Serialize};

use super::office::{Document, Value};

/// A format that documents are converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Format {
    /// PDF, of every kind of document.
    Pdf,
    /// The first page as an image, of every kind but web pages.
    Png,
    /// The same, compressed with losses.
    Jpg,
    /// Plain text in UTF-8, of texts.
    Txt,
    /// One HTML file with its images inside, of texts and spreadsheets.
    Html,
}

/// What a loaded document is. LibreOffice has one export filter a kind and format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Spreadsheet,
    Presentation,
    Drawing,
    WebPage,
    Formula,
    Text,
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

/// What stock LibreOffice's PDF export passes to itself when it is given no options: its configuration. With any option
/// it passes nothing but that, and its code has other defaults than its configuration: comments would appear, tags go.
/// Source: officecfg's Common.xcs, group Filter/PDF/Export, as far as `pdffilter.cxx` reads it.
const STOCK: [(&str, Value); 28] = [
    ("UseLosslessCompression", Value::Boolean(false)),
    ("Quality", Value::Number(90)),
    ("ReduceImageResolution", Value::Boolean(true)),
    ("MaxImageResolution", Value::Number(300)),
    ("UseTaggedPDF", Value::Boolean(true)),
    ("ExportNotes", Value::Boolean(false)),
    ("ExportNotesInMargin", Value::Boolean(false)),
    ("ExportNotesPages", Value::Boolean(false)),
    ("ExportOnlyNotesPages", Value::Boolean(false)),
    ("UseTransitionEffects", Value::Boolean(true)),
    ("IsSkipEmptyPages", Value::Boolean(true)),
    ("ExportFormFields", Value::Boolean(false)),
    ("HideViewerToolbar", Value::Boolean(false)),
    ("HideViewerMenubar", Value::Boolean(false)),
    ("HideViewerWindowControls", Value::Boolean(false)),
    ("ResizeWindowToInitialPage", Value::Boolean(false)),
    ("CenterWindow", Value::Boolean(false)),
    ("OpenInFullScreenMode", Value::Boolean(false)),
    ("DisplayPDFDocumentTitle", Value::Boolean(true)),
    ("InitialView", Value::Number(1)),
    ("Magnification", Value::Number(0)),
    ("PageLayout", Value::Number(0)),
    ("FirstPageOnLeft", Value::Boolean(false)),
    ("ExportLinksRelativeFsys", Value::Boolean(true)),
    ("ConvertOOoTargetToPDFTarget", Value::Boolean(false)),
    ("ExportBookmarksToPDFDestination", Value::Boolean(false)),
    ("ExportBookmarks", Value::Boolean(true)),
    ("OpenBookmarkLevels", Value::Number(-1)),
];

/// The `FilterData` for some options: none for none, else all that stock LibreOffice passes, with these in it.
pub(super) fn filter_data<'a>(options: &'a [(Cow<'static, str>, Value)]) -> Vec<(&'a str, Value)> {
    if options.is_empty() {
        return Vec::new();
    }
    let asked = |name: &str| options.iter().any(|(asked, _)| asked == name);
    STOCK
        .into_iter()
        .filter(|(name, _)| !asked(name))
        .chain(options.iter().map(|(name, value)| (name.as_ref(), value.clone())))
        .collect()
}

/// The same without its range of pages, if it has one.
pub(super) fn without_page_range<'a>(filter_data: &[(&'a str, Value)]) -> Option<Vec<(&'a str, Value)>> {
    let is_range = |(name, _): &(&str, Value)| *name == "PageRange";
    filter_data
        .iter()
        .any(is_range)
        .then(|| filter_data.iter().filter(|item| !is_range(item)).cloned().collect())
}

/// What kind a loaded document is, or `None` for one that no export filter knows (a database, a macro library).
pub(super) fn kind_of(document: &Document<'_>) -> Option<Kind> {
    SERVICES
        .into_iter()
        .find(|(service, _)| document.object().supports(service))
        .map(|(_, kind)| kind)
}

impl Format {
    /// The export filter's internal name, if LibreOffice has one for this format of this kind.
    pub(super) fn filter(self, kind: Kind) -> Option<&'static str> {
        Some(match (self, kind) {
            (Self::Pdf, Kind::Spreadsheet) => "calc_pdf_Export",
            (Self::Pdf, Kind::Presentation) => "impress_pdf_Export",
            (Self::Pdf, Kind::Drawing) => "draw_pdf_Export",
            (Self::Pdf, Kind::WebPage) => "writer_web_pdf_Export",
            (Self::Pdf, Kind::Formula) => "math_pdf_Export",
            (Self::Pdf, Kind::Text) => "writer_pdf_Export",
            (Self::Png, Kind::Spreadsheet) => "calc_png_Export",
            (Self::Png, Kind::Presentation) => "impress_png_Export",
            (Self::Png, Kind::Drawing) => "draw_png_Export",
            (Self::Png, Kind::Text) => "writer_png_Export",
            (Self::Jpg, Kind::Spreadsheet) => "calc_jpg_Export",
            (Self::Jpg, Kind::Presentation) => "impress_jpg_Export",
            (Self::Jpg, Kind::Drawing) => "draw_jpg_Export",
            (Self::Jpg, Kind::Text) => "writer_jpg_Export",
            (Self::Txt, Kind::WebPage) => "Text (encoded) (StarWriter/Web)",
            (Self::Txt, Kind::Text) => "Text (encoded)",
            (Self::Html, Kind::Spreadsheet) => "HTML (StarCalc)",
            (Self::Html, Kind::WebPage) => "HTML",
            (Self::Html, Kind::Text) => "HTML (StarWriter)",
            // The images of web pages are in LibreOffice's list, and its writing them fails; the HTML of presentations and
            // drawings is many files.
            (Self::Png | Self::Jpg, Kind::WebPage)
            | (Self::Txt, Kind::Spreadsheet | Kind::Presentation | Kind::Drawing)
            | (Self::Html, Kind::Presentation | Kind::Drawing)
            | (_, Kind::Formula) => return None,
        })
    }

    /// The export filter's `FilterOptions`, which are older than `FilterData` and one string.
    pub(super) fn filter_options(self) -> Option<&'static str> {
        match self {
            Self::Txt => Some("UTF8"),
            Self::Html => Some("EmbedImages"),
            Self::Pdf | Self::Png | Self::Jpg => None,
        }
    }
}
