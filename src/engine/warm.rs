//! Warms LibreOffice with small documents of our own, and tests it by them: every fork inherits what they made it load.

use std::fs;
use std::path::Path;

use super::export::{self, Format};
use super::office::{Complaint, Office, Value};
use super::pdf;

/// How often every document is converted. Three rounds instead of one make a conversion 7 ms faster.
const ROUNDS: usize = 3;

/// A document, its import filter, and how many pages it must become.
struct Sample {
    name: &'static str,
    content: &'static [u8],
    filter: &'static str,
    pages: u64,
}

/// One of each application whose documents are many; they use the metric-compatible fonts, a table, a list, a shape and
/// a formula, so that all of that is loaded, too. No image: loading one starts a timer thread that never ends.
const SAMPLES: [Sample; 3] = [
    Sample {
        name: "writer.fodt",
        content: include_bytes!("warm/writer.fodt"),
        filter: "OpenDocument Text Flat XML",
        pages: 2,
    },
    Sample {
        name: "calc.fods",
        content: include_bytes!("warm/calc.fods"),
        filter: "OpenDocument Spreadsheet Flat XML",
        pages: 2,
    },
    Sample {
        name: "impress.fodp",
        content: include_bytes!("warm/impress.fodp"),
        filter: "OpenDocument Presentation Flat XML",
        pages: 2,
    },
];

/// Converts every sample in `directory` and checks what comes out, so that a LibreOffice that does not do what it
/// should is never forked.
///
/// # Errors
/// A sentence: which sample, and what is wrong with it.
pub(super) fn warm(office: &Office, directory: &Path) -> Result<(), String> {
    for round in 0..ROUNDS {
        for sample in &SAMPLES {
            let wrong = |what: String| format!("the engine's self-test failed: {} {what}", sample.name);
            let complained =
                |complaint: Complaint| wrong(format!("({} {:#x})", complaint.exception, complaint.error_code));
            let (document, output) = (directory.join(sample.name), directory.join("warm.pdf"));
            fs::write(&document, sample.content).map_err(|error| wrong(format!("cannot be written: {error}")))?;
            let properties = [
                ("Hidden", Value::Boolean(true)),
                ("ReadOnly", Value::Boolean(true)),
                ("FilterName", Value::Text(sample.filter.to_owned())),
            ];
            let loaded = office.load(&document, &properties).map_err(complained)?;
            let kind = export::kind_of(&loaded).ok_or_else(|| wrong("loads as no known kind".to_owned()))?;
            let properties = [
                ("FilterName", Value::Text(Format::Pdf.filter(kind).to_owned())),
                ("Overwrite", Value::Boolean(true)),
            ];
            loaded.store(&output, &properties, &[]).map_err(complained)?;
            loaded.close().map_err(complained)?;
            if round == 0 {
                let pages = pdf::pages(&output).map_err(|error| wrong(format!("becomes no good PDF: {error}")))?;
                if pages != sample.pages {
                    return Err(wrong(format!("becomes {pages} pages instead of {}", sample.pages)));
                }
            }
        }
    }
    office.forget_authors();
    Ok(())
}
