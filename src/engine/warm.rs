//! Warms LibreOffice with small documents of our own, and tests it by them: every fork inherits what they made it load.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::format::{Format, Kind};
use super::look::{self, FontsInUse};
use super::office::{Complaint, Object, Office, Value};
use super::pdf;

/// How often a document is converted. Three rounds instead of one make a conversion 7 ms faster.
const ROUNDS: usize = 3;

/// The filters of each sample that most documents come by, today's Office and OpenDocument: only they are converted in
/// every round.
const USUAL: std::ops::RangeInclusive<usize> = 1..=2;

/// How many lessons there are.
pub(super) const LESSONS: usize = SAMPLES.len() * 2;

/// How long the check of an output may take: milliseconds are normal.
const CHECK_LIMIT: Duration = Duration::from_secs(10);

/// A document, and how many pages it must become.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) content: &'static [u8],
    pub(super) pages: u64,
    /// The filters to read it with: first the one of `content`; the others are formats that people send, made of it.
    pub(super) filters: &'static [&'static str],
}

/// One of each application whose documents are many; they use the metric-compatible fonts, a table, a list, a shape and
/// a formula, so that all of that is loaded, too. No image: loading one starts a timer thread that never ends.
pub(super) const SAMPLES: [Sample; 3] = [
    Sample {
        name: "writer",
        content: include_bytes!("warm/writer.fodt"),
        pages: 2,
        filters: &[
            "OpenDocument Text Flat XML",
            "MS Word 2007 XML",
            "writer8",
            "MS Word 97",
        ],
    },
    Sample {
        name: "calc",
        content: include_bytes!("warm/calc.fods"),
        pages: 2,
        filters: &[
            "OpenDocument Spreadsheet Flat XML",
            "Calc MS Excel 2007 XML",
            "calc8",
            "MS Excel 97",
        ],
    },
    Sample {
        name: "impress",
        content: include_bytes!("warm/impress.fodp"),
        pages: 2,
        filters: &[
            "OpenDocument Presentation Flat XML",
            "Impress MS PowerPoint 2007 XML",
            "impress8",
            "MS PowerPoint 97",
        ],
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
            let own = directory.join(sample.name);
            if round == 0 {
                fs::write(&own, sample.content)
                    .map_err(|error| format!("the engine cannot write {}: {error}", own.display()))?;
            }
            let filters = sample.filters.iter().enumerate();
            for (number, filter) in filters.filter(|(number, _)| round == 0 || USUAL.contains(number)) {
                let wrong = |what: String| {
                    format!(
                        "the engine's self-test failed: {} by way of {filter} {what}",
                        sample.name
                    )
                };
                let complained =
                    |complaint: Complaint| wrong(format!("({} {:#x})", complaint.exception, complaint.error_code));
                let document = directory.join(format!("{}-{number}", sample.name));
                if round == 0 {
                    let loaded = office.load(&own, &reading(sample.filters[0])).map_err(complained)?;
                    loaded.store(&document, &writing(filter), &[]).map_err(complained)?;
                    loaded.close().map_err(complained)?;
                }
                let output = directory.join("warm.pdf");
                let fonts = FontsInUse::follow(office);
                let loaded = office.load(&document, &reading(filter)).map_err(complained)?;
                if number == 0 {
                    warm_objects(loaded.object())
                        .map_err(complained)?
                        .map_err(|what| wrong(what.to_owned()))?;
                }
                let kind = Kind::of(&loaded).ok_or_else(|| wrong("loads as no known kind".to_owned()))?;
                let pdf = Format::PDF
                    .filter(kind)
                    .ok_or_else(|| wrong("is of a kind without a PDF".to_owned()))?;
                loaded.store(&output, &writing(pdf), &[]).map_err(complained)?;
                // Every child looks, and its first look would cost as much as a small document's store. What is found in
                // a sample is nobody's business.
                drop((look::look(&loaded), fonts.substituted()));
                loaded.close().map_err(complained)?;
                let pages = pdf::pages(&output, Instant::now() + CHECK_LIMIT)
                    .map_err(|error| wrong(format!("becomes no good PDF: {error}")))?;
                if pages != sample.pages {
                    return Err(wrong(format!("becomes {pages} pages instead of {}", sample.pages)));
                }
            }
        }
    }
    office.forget_authors().map_err(|complaint| {
        format!(
            "the engine cannot forget its samples' authors ({})",
            complaint.exception
        )
    })
}

/// Makes LibreOffice look up what its objects are made of, which takes 20 ms the first time, and tests that what is set
/// is read back. The inner error is the end of a sentence.
fn warm_objects(document: &Object<'_>) -> Result<Result<(), &'static str>, Complaint> {
    let properties = document.get(c"DocumentProperties")?.into_object()?;
    properties.set("Title", Value::Text("Trial".to_owned()))?;
    if properties.get(c"Title")?.into_text()? != "Trial" {
        return Ok(Err("forgets its title"));
    }
    if document.supports(c"com.sun.star.text.TextDocument") {
        let text = document.get(c"Text")?.into_object()?;
        if text.elements()?.next().transpose()?.is_none() {
            return Ok(Err("has no paragraph"));
        }
    }
    let families = document.get(c"StyleFamilies")?.into_object()?;
    let Some(name) = families.names()?.into_iter().find(|name| name == "PageStyles") else {
        // Slides have no page styles.
        return Ok(Ok(()));
    };
    let style = families.by_name(&name)?.by_index(0)?;
    let width = style.get(c"Width")?.into_number()?;
    let half = i32::try_from(width / 2).map_err(|_| Complaint::default())?;
    style.set("Width", Value::Number(half))?;
    if style.get(c"Width")?.into_number()? != i64::from(half) {
        return Ok(Err("forgets its pages' width"));
    }
    style.set("Width", Value::Number(half * 2))?;
    Ok(Ok(()))
}

/// Converts one of the samples that [`warm`] has left in `directory`, so that it can be seen what that takes: for every
/// number from 0 up to [`LESSONS`].
pub(super) fn lesson(office: &Office, directory: &Path, number: usize) {
    let sample = &SAMPLES[number % SAMPLES.len()];
    let filter = USUAL.start() + number / SAMPLES.len() % USUAL.clone().count();
    let document = directory.join(format!("{}-{filter}", sample.name));
    let fonts = FontsInUse::follow(office);
    let Ok(loaded) = office.load(&document, &reading(sample.filters[filter])) else {
        return;
    };
    if let Some(pdf) = Kind::of(&loaded).and_then(|kind| Format::PDF.filter(kind)) {
        // What was seen is worth something also when this fails.
        drop(loaded.store(&directory.join("lesson.pdf"), &writing(pdf), &[]));
        drop((look::look(&loaded), fonts.substituted()));
    }
}

fn reading(filter: &str) -> [(&'static str, Value); 3] {
    [
        ("Hidden", Value::Boolean(true)),
        ("ReadOnly", Value::Boolean(true)),
        ("FilterName", Value::Text(filter.to_owned())),
    ]
}

fn writing(filter: &str) -> [(&'static str, Value); 2] {
    [
        ("FilterName", Value::Text(filter.to_owned())),
        ("Overwrite", Value::Boolean(true)),
    ]
}
