//! Type sniffing and the zip gate: whatever the bytes are, and whatever they are called, inspection gives a verdict.
//!
//! The first byte of an input chooses the name, the rest is the file.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek as _, Write as _};

use libfuzzer_sys::fuzz_target;
use platen::convert::inspect::{InspectLimits, inspect};
use platen::error::Stop;

/// Each leads through another door.
const NAMES: [&str; 16] = [
    "a", "a.docx", "a.odt", "a.doc", "a.xls", "a.csv", "a.tsv", "a.txt", "a.xml", "a.html", "a.svg", "a.slk", "a.dbf",
    "a.svgz", "a.key", "a.tga",
];

/// Small, so that a limit is reached by an input that a fuzzer can make.
const LIMITS: InspectLimits = InspectLimits {
    entries: 64,
    inflated_size: 1 << 20,
    ratio: 200,
    nesting: 32,
};

thread_local! {
    static FILE: RefCell<tempfile::NamedTempFile> =
        RefCell::new(tempfile::NamedTempFile::new_in("/dev/shm").expect("a file in memory"));
}

fuzz_target!(|data: &[u8]| {
    let Some((&name, content)) = data.split_first() else {
        return;
    };
    let name = NAMES[usize::from(name) % NAMES.len()];
    FILE.with_borrow_mut(|file| {
        let handle: &mut File = file.as_file_mut();
        handle.rewind().expect("rewinds");
        handle.set_len(0).expect("empties");
        handle.write_all(content).expect("writes");
        match inspect(file.path(), name, &LIMITS) {
            Ok(kind) => {
                assert!(!content.is_empty(), "nothing is a document");
                assert!(!kind.import_filter.is_empty());
                assert_eq!(kind.separated_values.is_some(), kind.extension == "csv");
            }
            Err(Stop::Failed(failure)) => assert!(failure.message.contains(name)),
            // The file can be read: a refusal would blame this machine for what is in it.
            Err(other) => panic!("{other:?}"),
        }
    });
});
