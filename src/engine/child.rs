//! One conversion, in a process of its own that never returns: it prepares itself, locks itself in, loads, stores,
//! reports, and ends without running one of LibreOffice's destructors.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::conversion::{Export, Image, Setup};
use super::finding::{self, Finding};
use super::format::{Check, Kind};
use super::look::{self, FontsInUse};
use super::office::{self, Complaint, Document, Office, Value};
use super::protocol::{CONFINED_LINE, Job, NotConfined, Preparation, Report};
use super::setup::{self, Failed};
use super::{export, glyphs, image, page_layout, pdf};
use crate::sandbox::Jail;

/// `com.sun.star.document.MacroExecMode.NEVER_EXECUTE`.
const NEVER_EXECUTE: i16 = 0;
/// `com.sun.star.document.UpdateDocMode.NO_UPDATE`.
const NO_UPDATE: i16 = 0;

/// The import filter of web pages, and the one that reads the same files as texts.
const WEB_PAGE: &str = "HTML";
const WEB_PAGE_AS_TEXT: &str = "HTML (StarWriter)";

/// Converts and reports on `report`. `temporary_folders` are the names of the folders that the zygote has in its own
/// temporary folder: LibreOffice goes on using them.
pub(super) fn convert(office: &Office, job: &Job, jail: Jail, temporary_folders: &[String], report: &OwnedFd) {
    let said = match prepare(job, jail, temporary_folders) {
        // Nothing of the document without the line: what follows would count as said before.
        Ok(()) if say(report, CONFINED_LINE).is_err() => return,
        Ok(()) => return load_and_store(office, job, report),
        Err(not_confined) => serde_json::to_vec(&not_confined),
    };
    if let Ok(line) = said {
        // A parent that does not read is gone, and so will we be.
        drop(say(report, &line));
    }
}

/// The job's directory, under a name that is every job's: LibreOffice writes where a document is into what it makes of
/// it (relative links, fields with the path), and neither the worker's own directories nor a name that changes from run
/// to run belong there.
const DIRECTORY: &str = "/proc/self/cwd";

fn in_directory(file: &str) -> PathBuf {
    Path::new(DIRECTORY).join(file)
}

/// The copy of the descriptor is made each time: the jail closes all but the one that it was told of.
fn say(report: &OwnedFd, line: &[u8]) -> std::io::Result<()> {
    fs::File::from(report.try_clone()?).write_all(line)
}

/// Everything before the document is opened. The parent has renewed the wake counter, which the jail keeps.
fn prepare(job: &Job, jail: Jail, temporary_folders: &[String]) -> Result<(), NotConfined> {
    let failed = |step| {
        move |error: std::io::Error| NotConfined {
            step,
            errno: error.raw_os_error().unwrap_or(0),
        }
    };
    let directory = failed(Preparation::JobDirectory);
    std::env::set_current_dir(&job.directory).map_err(directory)?;
    jail.enter()
        .map_err(|error| failed(Preparation::Jail(error.step))(error.source))?;
    // As the user that the child has become, so that the folders are its own.
    fs::create_dir("tmp").map_err(directory)?;
    for name in temporary_folders {
        fs::create_dir(Path::new("tmp").join(name)).map_err(directory)?;
    }
    Ok(())
}

/// Every output, or the first reason why there is not one. Outputs with the same setup share a load; others get a load
/// of their own, so that what is changed for one is never seen in another.
///
/// Says how it went as soon as that is known, and then what is to be known about the document: should a look at it end
/// this process, the outputs are there all the same.
fn load_and_store(office: &Office, job: &Job, to: &OwnedFd) {
    let tell = |line: serde_json::Result<Vec<u8>>| {
        if let Ok(mut line) = line {
            line.push(b'\n');
            // A parent that does not read is gone, and so will we be.
            drop(say(to, &line));
        }
    };
    let mut setups: Vec<&Setup> = Vec::new();
    for export in &job.exports {
        if !setups.contains(&&export.setup) {
            setups.push(&export.setup);
        }
    }
    let mut loads = Loads {
        office,
        job,
        open: None,
    };
    let fonts = FontsInUse::follow(office);
    match setups.into_iter().try_for_each(|setup| loads.make(setup)) {
        Ok(()) => {
            tell(serde_json::to_vec(&Report::Done));
            let mut findings: Vec<Finding> = loads.open.as_ref().map(look::look).unwrap_or_default();
            findings.extend(fonts.substituted());
            findings.extend(without_glyph(job));
            tell(serde_json::to_vec(&finding::bounded(findings)));
        }
        Err(report) => tell(serde_json::to_vec(&report)),
    }
    // The last document is left open: the process ends without running LibreOffice's destructors.
    std::mem::forget(loads.open);
}

/// How long all PDFs of a job are looked through for characters.
const LOOKED_THROUGH: Duration = Duration::from_secs(2);

/// The characters of the job's PDFs that no font has. What cannot be read is left out, as in every look.
fn without_glyph(job: &Job) -> impl Iterator<Item = Finding> {
    let deadline = Instant::now() + LOOKED_THROUGH;
    let pdfs = job.exports.iter().filter(|export| *export.format.check() == Check::Pdf);
    let characters = pdfs.filter_map(|export| pdf::characters(&in_directory(&export.file), deadline).ok());
    glyphs::missing(&characters.flatten().collect())
        .into_iter()
        .map(Finding::GlyphMissing)
}

/// The loads of a job, one after the other.
struct Loads<'a> {
    office: &'a Office,
    job: &'a Job,
    open: Option<Document<'a>>,
}

impl<'a> Loads<'a> {
    /// Makes the outputs of one setup.
    fn make(&mut self, setup: &Setup) -> Result<(), Report> {
        let job = self.job;
        let exports = job.exports.iter().enumerate();
        let exports = exports.filter(|(_, export)| export.setup == *setup);
        let document = self.load(setup, &job.import.filter)?;
        let kind = Kind::of(document).ok_or(Report::NoExportFilter)?;
        // What LibreOffice makes of no web page it makes of a text, and it reads the same file as one, too.
        let (as_text, as_it_is): (Vec<_>, Vec<_>) = exports.partition(|(_, export)| {
            job.import.filter == WEB_PAGE && kind == Kind::WebPage && export.format.filter(kind).is_none()
        });
        for (number, export) in &as_it_is {
            check_kind(*number, export, kind)?;
        }
        for (number, export) in &as_text {
            check_kind(*number, export, Kind::Text)?;
        }
        if !as_it_is.is_empty() {
            store_all(document, kind, setup, &as_it_is)?;
        }
        if !as_text.is_empty() {
            let document = self.load(setup, WEB_PAGE_AS_TEXT)?;
            store_all(document, Kind::Text, setup, &as_text)?;
        }
        Ok(())
    }

    /// Loads the document, in the place of the one that is open.
    fn load(&mut self, setup: &Setup, filter: &str) -> Result<&Document<'a>, Report> {
        if let Some(before) = self.open.take() {
            let gone = before.close().and_then(|()| self.office.forget_authors());
            gone.map_err(|complaint| report_of(complaint.into()))?;
        }
        let document = load(self.office, self.job, setup, filter)?;
        Ok(self.open.insert(document))
    }
}

/// Nothing of a job is made unless all of it can be.
fn check_kind(number: usize, export: &Export, kind: Kind) -> Result<(), Report> {
    if export.format.filter(kind).is_none() {
        return Err(Report::FormatNotOfKind { export: number, kind });
    }
    match export.limited.iter().position(|limited| !limited.kinds.contains(&kind)) {
        None => Ok(()),
        Some(option) => Err(Report::OptionNotOfKind {
            export: number,
            option,
            kind,
        }),
    }
}

fn load<'a>(office: &'a Office, job: &Job, setup: &Setup, filter: &str) -> Result<Document<'a>, Report> {
    let mut properties = vec![
        ("Hidden", Value::Boolean(true)),
        ("ReadOnly", Value::Boolean(true)),
        ("MacroExecutionMode", Value::Short(NEVER_EXECUTE)),
        ("UpdateDocMode", Value::Short(NO_UPDATE)),
        ("FilterName", Value::Text(filter.to_owned())),
    ];
    let options = setup.import_options.as_deref().or(job.import.options.as_deref());
    if let Some(options) = options {
        properties.push(("FilterOptions", Value::Text(options.to_owned())));
    }
    if let Some(password) = &job.password {
        properties.push(("Password", Value::Text(password.expose().to_owned())));
    }
    office
        .load(&in_directory(&job.document), &properties)
        .map_err(|complaint| {
            note_exhausted_memory(&complaint);
            Report::NotLoaded {
                password_wanted: password_wanted(&complaint),
            }
        })
}

fn store_all(document: &Document<'_>, kind: Kind, setup: &Setup, exports: &[(usize, &Export)]) -> Result<(), Report> {
    setup::apply(document, kind, setup).map_err(report_of)?;
    // Last those for which the view is moved: without a page of its own, an image is of the page that is in view.
    let (as_loaded, moved): (Vec<_>, Vec<_>) = exports.iter().partition(|(_, export)| export.image == Image::default());
    for (number, export) in as_loaded.into_iter().chain(moved) {
        store(document, kind, number, export)?;
    }
    Ok(())
}

fn store(document: &Document<'_>, kind: Kind, number: usize, export: &Export) -> Result<(), Report> {
    let filter = export.format.filter(kind);
    let filter = filter.ok_or(Report::FormatNotOfKind { export: number, kind })?;
    let mut properties = vec![
        ("FilterName", Value::Text(filter.to_owned())),
        ("Overwrite", Value::Boolean(true)),
    ];
    let filter_options = export.filter_options.as_deref().or(export.format.filter_options());
    if let Some(options) = filter_options {
        properties.push(("FilterOptions", Value::Text(options.to_owned())));
    }
    let mut options = export::filter_data(&export.options);
    options.extend(image::prepare(document, kind, export.image, number).map_err(report_of)?);
    let path = in_directory(&export.file);
    let Err(complaint) = document.store(&path, &properties, &options) else {
        let on_left = options.contains(&(page_layout::PROPERTY, Value::Boolean(true)));
        return if on_left && page_layout::first_page_on_left(&path).is_err() {
            Err(Report::NotStored { error_code: 0 })
        } else {
            Ok(())
        };
    };
    note_exhausted_memory(&complaint);
    // LibreOffice has one code for everything that it cannot write. What it writes without a range of pages, it could not
    // write for the range.
    if let Some(all_pages) = export::without_page_range(&options)
        && document
            .store(&in_directory("tmp/all-pages"), &properties, &all_pages)
            .is_ok()
    {
        return Err(Report::NoSuchPages);
    }
    Err(Report::NotStored {
        error_code: complaint.error_code,
    })
}

fn report_of(failed: Failed) -> Report {
    match failed {
        Failed::Asked(report) => report,
        Failed::Complaint(complaint) => {
            note_exhausted_memory(&complaint);
            Report::NotStored {
                error_code: complaint.error_code,
            }
        }
    }
}

/// Word's binary filter does not ask again, but says so.
fn password_wanted(complaint: &Complaint) -> bool {
    /// `ERRCODE_SVX_WRONGPASS`, as 25.2 numbers it.
    const WRONG_PASSWORD: u32 = 0x1000f;
    complaint.error_code == WRONG_PASSWORD
        || complaint.asked.iter().any(|question| {
            matches!(
                question.as_str(),
                "com.sun.star.task.DocumentPasswordRequest"
                    | "com.sun.star.task.DocumentPasswordRequest2"
                    | "com.sun.star.task.DocumentMSPasswordRequest"
                    | "com.sun.star.task.DocumentMSPasswordRequest2"
            )
        })
}

/// LibreOffice throws this for some allocations that the C++ library never hears of.
fn note_exhausted_memory(complaint: &Complaint) {
    if complaint.exception == "std.bad_alloc" {
        office::note_exhausted_memory();
    }
}

/// The descriptors a child keeps: where it reports, the wake counter, the lifeline by which the worker sees that the
/// last process of a zygote is gone, and LibreOffice's own files: one that is closed under it is a picture less.
pub(super) fn kept(report: &OwnedFd, lifeline: &OwnedFd, open_files: &[RawFd]) -> Vec<RawFd> {
    let mut kept = vec![report.as_raw_fd(), office::wake_descriptor(), lifeline.as_raw_fd()];
    kept.extend_from_slice(open_files);
    kept
}
