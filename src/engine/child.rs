//! One conversion, in a process of its own that never returns: it prepares itself, locks itself in, loads, stores,
//! reports, and ends without running one of LibreOffice's destructors.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::export;
use super::office::{self, Complaint, Office, Value};
use super::protocol::{CONFINED_LINE, Job, NotConfined, Preparation, Report};
use crate::sandbox::Jail;

/// `com.sun.star.document.MacroExecMode.NEVER_EXECUTE`.
const NEVER_EXECUTE: i16 = 0;
/// `com.sun.star.document.UpdateDocMode.NO_UPDATE`.
const NO_UPDATE: i16 = 0;

/// Converts and reports on `report`. `temporary_folders` are the names of the folders that the zygote has in its own
/// temporary folder: LibreOffice goes on using them.
pub(super) fn convert(office: &Office, job: &Job, jail: Jail, temporary_folders: &[String], report: &OwnedFd) {
    let said = match prepare(job, jail, temporary_folders) {
        // Nothing of the document without the line: what follows would count as said before.
        Ok(()) if say(report, CONFINED_LINE).is_err() => return,
        Ok(()) => serde_json::to_vec(&load_and_store(office, job)),
        Err(not_confined) => serde_json::to_vec(&not_confined),
    };
    if let Ok(line) = said {
        // A parent that does not read is gone, and so will we be.
        drop(say(report, &line));
    }
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

fn load_and_store(office: &Office, job: &Job) -> Report {
    let mut properties = vec![
        ("Hidden", Value::Boolean(true)),
        ("ReadOnly", Value::Boolean(true)),
        ("MacroExecutionMode", Value::Short(NEVER_EXECUTE)),
        ("UpdateDocMode", Value::Short(NO_UPDATE)),
        ("FilterName", Value::Text(job.import.filter.to_string())),
    ];
    if let Some(options) = &job.import.options {
        properties.push(("FilterOptions", Value::Text(options.to_string())));
    }
    if let Some(password) = &job.password {
        properties.push(("Password", Value::Text(password.clone())));
    }
    let document = match office.load(&job.directory.join(&job.document), &properties) {
        Ok(document) => document,
        Err(complaint) => {
            note_exhausted_memory(&complaint);
            return Report::NotLoaded {
                password_wanted: password_wanted(&complaint),
            };
        }
    };
    let Some(kind) = export::kind_of(&document) else {
        return Report::NoExportFilter;
    };
    for wanted in &job.exports {
        let Some(filter) = wanted.format.filter(kind) else {
            return Report::FormatNotOfKind;
        };
        let mut properties = vec![
            ("FilterName", Value::Text(filter.to_owned())),
            ("Overwrite", Value::Boolean(true)),
        ];
        if let Some(options) = wanted.format.filter_options() {
            properties.push(("FilterOptions", Value::Text(options.to_owned())));
        }
        let options = export::filter_data(&wanted.options);
        if let Err(complaint) = document.store(&job.directory.join(&wanted.file), &properties, &options) {
            note_exhausted_memory(&complaint);
            // LibreOffice has one code for everything that it cannot write. What it writes without a range of pages, it
            // could not write for the range.
            if let Some(all_pages) = export::without_page_range(&options)
                && document
                    .store(&job.directory.join("tmp/all-pages"), &properties, &all_pages)
                    .is_ok()
            {
                return Report::NoSuchPages;
            }
            return Report::NotStored {
                error_code: complaint.error_code,
            };
        }
    }
    Report::Done
}

fn password_wanted(complaint: &Complaint) -> bool {
    complaint.asked.iter().any(|question| {
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
