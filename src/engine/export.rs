//! Which of LibreOffice's export filters makes a format of a loaded document.

use std::ffi::CStr;

use serde::{Deserialize, Serialize};

use super::office::Document;

/// A format that documents are converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Format {
    /// PDF, of every kind of document.
    Pdf,
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

/// What kind a loaded document is, or `None` for one that no export filter knows (a database, a macro library).
pub(super) fn kind_of(document: &Document<'_>) -> Option<Kind> {
    SERVICES
        .into_iter()
        .find(|(service, _)| document.supports(service))
        .map(|(_, kind)| kind)
}

impl Format {
    /// The export filter's internal name.
    pub(super) fn filter(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Pdf, Kind::Spreadsheet) => "calc_pdf_Export",
            (Self::Pdf, Kind::Presentation) => "impress_pdf_Export",
            (Self::Pdf, Kind::Drawing) => "draw_pdf_Export",
            (Self::Pdf, Kind::WebPage) => "writer_web_pdf_Export",
            (Self::Pdf, Kind::Formula) => "math_pdf_Export",
            (Self::Pdf, Kind::Text) => "writer_pdf_Export",
        }
    }
}
