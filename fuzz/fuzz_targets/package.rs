//! The zip gate, behind the checksums that stop a fuzzer that flips bits: the input is a description of a package, which
//! is written here with its checksums right and its headers as the description bends them.
//!
//! First byte: the object's name. Second byte: what is bent in the directory. Then entries: the name (a number of
//! [`PARTS`], or 255 and a length and its bytes), what is bent in it, two bytes of length, the content.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek as _, Write as _};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use libfuzzer_sys::fuzz_target;
use platen::convert::inspect::{InspectLimits, inspect};
use platen::error::{FailureCode, Stop};

const NAMES: [&str; 12] = [
    "a.docx", "a.odt", "a", "a.xlsx", "a.pptx", "a.docm", "a.ods", "a.odp", "a.key", "a.pages", "a.vsdx", "a.doc",
];
const PARTS: [&str; 16] = [
    "[Content_Types].xml",
    "_rels/.rels",
    "word/document.xml",
    "xl/workbook.xml",
    "ppt/presentation.xml",
    "mimetype",
    "META-INF/manifest.xml",
    "content.xml",
    "word/media/image1.svg",
    "Index/Document.iwa",
    "index.xml",
    "WORD/DOCUMENT.XML",
    "../../escape.xml",
    "/word/document.xml",
    "word/vbaProject.bin",
    "visio/document.xml",
];
/// Small, so that a limit is reached by an input that a fuzzer can make.
const LIMITS: InspectLimits = InspectLimits {
    entries: 16,
    inflated_size: 256 << 10,
    ratio: 200,
    nesting: 16,
};

// What is bent in an entry.
const DEFLATED: u8 = 1;
const SIZE_LIES: u8 = 2;
const CHECKSUM_LIES: u8 = 4;
const ENCRYPTED: u8 = 8;
const OTHER_LOCAL_NAME: u8 = 16;
const OTHER_METHOD: u8 = 32;
const REPEATED: u8 = 64;
const CUT: u8 = 128;
// What is bent in the directory.
const COUNT_LIES: u8 = 1;
const JUNK_BEFORE: u8 = 2;
const JUNK_AFTER: u8 = 4;
const OFFSET_LIES: u8 = 8;

struct Entry<'a> {
    name: &'a [u8],
    bent: u8,
    content: Vec<u8>,
}

thread_local! {
    static FILE: RefCell<tempfile::NamedTempFile> =
        RefCell::new(tempfile::NamedTempFile::new_in("/dev/shm").expect("a file in memory"));
}

fuzz_target!(|data: &[u8]| {
    let &[name, bent, ref rest @ ..] = data else { return };
    let name = NAMES[usize::from(name) % NAMES.len()];
    let entries = entries(rest);
    let package = package(&entries, bent);
    let verdict = FILE.with_borrow_mut(|file| {
        let handle: &mut File = file.as_file_mut();
        handle.rewind().expect("rewinds");
        handle.set_len(0).expect("empties");
        handle.write_all(&package).expect("writes");
        let verdict = inspect(file.path(), name, &LIMITS);
        let again = inspect(file.path(), name, &LIMITS);
        assert_eq!(
            format!("{verdict:?}"),
            format!("{again:?}"),
            "it depends on more than the file"
        );
        verdict
    });
    let inflated: usize = entries.iter().map(|entry| entry.content.len()).sum();
    match verdict {
        Ok(kind) => {
            assert!(!kind.import_filter.is_empty());
            assert!(entries.len() as u64 <= LIMITS.entries, "{} entries", entries.len());
            assert!(inflated as u64 <= LIMITS.inflated_size, "{inflated} bytes inflated");
            let lie = SIZE_LIES | CHECKSUM_LIES | ENCRYPTED | OTHER_LOCAL_NAME | OTHER_METHOD | CUT;
            assert!(entries.iter().all(|entry| entry.bent & lie == 0), "a lie is taken");
            assert_eq!(bent & (JUNK_BEFORE | COUNT_LIES | OFFSET_LIES), 0, "another reader reads it otherwise");
        }
        Err(Stop::Failed(failure)) => {
            assert!(failure.message.contains(name));
            if failure.code == FailureCode::DocumentTooComplex {
                let measured = failure.detail["measured"].as_u64().expect("what was measured");
                assert!(
                    measured > failure.detail["value"].as_u64().expect("the limit"),
                    "{failure}"
                );
            }
        }
        // The file can be read: a refusal would blame this machine for what is in it.
        Err(other) => panic!("{other:?}"),
    }
});

fn entries(mut rest: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    while let &[part, ref after @ ..] = rest {
        let (name, after): (&[u8], &[u8]) = match (part, after) {
            (255, &[length, ref after @ ..]) => after.split_at(after.len().min(length.into())),
            _ => (PARTS[usize::from(part) % PARTS.len()].as_bytes(), after),
        };
        let &[bent, low, high, ref after @ ..] = after else {
            break;
        };
        let (content, after) = after.split_at(after.len().min(u16::from_le_bytes([low, high]).into()));
        let times = if bent & REPEATED == 0 { 1 } else { 64 };
        let content = content.repeat(times);
        entries.push(Entry { name, bent, content });
        rest = after;
    }
    entries
}

fn package(entries: &[Entry<'_>], bent: u8) -> Vec<u8> {
    let mut file = Vec::new();
    if bent & JUNK_BEFORE != 0 {
        file.extend(b"PK\x03\x04");
    }
    let mut directory = Vec::new();
    for entry in entries {
        let mut checksum = Crc::new();
        checksum.update(&entry.content);
        let mut packed = entry.content.clone();
        if entry.bent & DEFLATED != 0 {
            let mut deflate = DeflateEncoder::new(Vec::new(), Compression::fast());
            deflate.write_all(&entry.content).expect("writes to memory");
            packed = deflate.finish().expect("writes to memory");
        }
        if entry.bent & CUT != 0 {
            packed.pop();
        }
        let bend = |flag| u32::from(entry.bent & flag != 0);
        let method = if entry.bent & OTHER_METHOD != 0 {
            12
        } else {
            8 * u16::from(entry.bent & DEFLATED != 0)
        };
        let mut common = Vec::new();
        common.extend(20_u16.to_le_bytes());
        common.extend(u16::from(entry.bent & ENCRYPTED != 0).to_le_bytes());
        common.extend(method.to_le_bytes());
        common.extend([0; 4]);
        common.extend((checksum.sum() ^ bend(CHECKSUM_LIES)).to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend((entry.content.len() as u32).wrapping_add(bend(SIZE_LIES)).to_le_bytes());
        common.extend((entry.name.len() as u16).to_le_bytes());
        common.extend(0_u16.to_le_bytes());

        let offset = file.len() as u32 + u32::from(bent & OFFSET_LIES != 0);
        directory.extend(b"PK\x01\x02");
        directory.extend(20_u16.to_le_bytes());
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(entry.name);

        file.extend(b"PK\x03\x04");
        file.extend(&common);
        let mut local = entry.name.to_vec();
        if let Some(first) = local.first_mut() {
            *first ^= u8::from(entry.bent & OTHER_LOCAL_NAME != 0);
        }
        file.extend(local);
        file.extend(packed);
    }
    let count = (entries.len() as u16).wrapping_sub(u16::from(bent & COUNT_LIES != 0));
    let start = file.len() as u32;
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend(0_u16.to_le_bytes());
    if bent & JUNK_AFTER != 0 {
        file.extend(b"after");
    }
    file
}
