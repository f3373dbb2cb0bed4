//! What a file is found to be, on real files: ours, and the shared ones where they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use platen::convert::inspect::{DocumentKind, Format, InspectLimits, inspect, is_readable_extension};
use platen::error::Stop;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/documents")
        .join(path)
}

/// `code` of the failure, or the kind.
fn verdict(path: &Path, name: &str, limits: &InspectLimits) -> Result<DocumentKind, &'static str> {
    match inspect(path, name, limits) {
        Ok(kind) => Ok(kind),
        Err(Stop::Failed(failure)) => {
            assert!(
                failure.message.contains(name),
                "the message names the object: {}",
                failure.message
            );
            Err(failure.code.as_str())
        }
        Err(other) => panic!("{name}: {other:?}"),
    }
}

fn verdict_of(path: &Path) -> Result<DocumentKind, &'static str> {
    let name = format!("in/{}", path.file_name().unwrap().to_str().unwrap());
    verdict(path, &name, &InspectLimits::default())
}

fn bytes_verdict(bytes: &[u8], name: &str) -> Result<DocumentKind, &'static str> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    verdict(file.path(), name, &InspectLimits::default())
}

fn format_of(bytes: &[u8], name: &str) -> Result<Format, &'static str> {
    bytes_verdict(bytes, name).map(|kind| kind.format)
}

/// The filters that stock LibreOffice 25.2.3 picks, asked through its type detection (fixtures/README.md).
fn stock_filters() -> BTreeMap<String, String> {
    fs::read_to_string(fixture("../stock-filters.tsv"))
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('\t').unwrap())
        .map(|(file, filter)| (file.to_owned(), filter.to_owned()))
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn our_plain_documents_get_the_filter_that_stock_picks() {
    let stock = stock_filters();
    for path in files(&fixture("plain")) {
        let kind = verdict_of(&path).unwrap_or_else(|code| panic!("{}: {code}", path.display()));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(Some(kind.import_filter), stock.get(name).map(String::as_str), "{name}");
        assert!(is_readable_extension(name.rsplit('.').next().unwrap()), "{name}");
        assert_eq!(
            Some(kind.extension),
            name.rsplit('.').next().map(|e| if e == "tsv" { "csv" } else { e }),
            "{name}"
        );
    }
}

#[test]
fn the_shared_plain_documents_get_the_filter_that_stock_picks() {
    let shared = std::env::var("PLATEN_SHARED").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let directory = shared.join("documents/plain");
    if !directory.is_dir() {
        println!("skipped: no shared documents at {}", directory.display());
        return;
    }
    let stock = stock_filters();
    for path in files(&directory) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "unoserver__simple.encrypted.odt" {
            assert_eq!(verdict_of(&path), Err("document.encrypted"));
            continue;
        }
        let kind = verdict_of(&path).unwrap_or_else(|code| panic!("{name}: {code}"));
        if let Some(filter) = stock.get(name) {
            assert_eq!(kind.import_filter, filter, "{name}");
        }
    }
}

#[test]
fn every_hostile_document_is_judged_by_what_it_is() {
    let expected: BTreeMap<&str, &str> = [
        ("html-named.docx", "source.unsupported"),
        ("flat-xml-named.docx", "source.unsupported"),
        ("text-named.docx", "source.unsupported"),
        ("pdf-named.docx", "source.unsupported"),
        ("random-bytes.docx", "source.unsupported"),
        ("random-bytes.txt", "source.unsupported"),
        ("zip-not-a-document.docx", "source.unsupported"),
        ("empty.docx", "source.empty"),
        ("zip-cut-short.docx", "document.corrupt"),
        ("zip-without-directory.docx", "document.corrupt"),
        ("zip-flipped-byte.docx", "document.corrupt"),
        ("zip-lying-size.docx", "document.corrupt"),
        ("zip-offset-past-the-end.docx", "document.corrupt"),
        ("zip-two-documents.docx", "document.corrupt"),
        // It does not begin as a zip, and stock LibreOffice does not open it either.
        ("zip-junk-before.docx", "source.unsupported"),
        ("part-cut-short.docx", "document.corrupt"),
        ("truncated.rtf", "document.corrupt"),
        ("truncated.xls", "document.corrupt"),
        ("truncated.doc", "document.corrupt"),
        ("truncated.fodt", "document.corrupt"),
        ("xxe.docx", "document.corrupt"),
        ("billion-laughs.docx", "document.corrupt"),
        ("zip-bomb.docx", "document.too_complex"),
        ("nested-tables.docx", "document.too_complex"),
        ("nested-groups.rtf", "document.too_complex"),
        ("password.docx", "document.encrypted"),
        ("password.xlsx", "document.encrypted"),
        ("password.pptx", "document.encrypted"),
        ("password.odt", "document.encrypted"),
        ("password.doc", "document.encrypted"),
        ("password.xls", "document.encrypted"),
        ("password.ppt", "document.encrypted"),
        // Whole documents: the sandbox and the clock are what holds these.
        ("linked-image-fetches-url.docx", "docx"),
        ("linked-image-fetches-url.fodt", "fodt"),
        ("linked-local-file.fodt", "fodt"),
        ("linked-style-sheet.html", "html"),
        ("never-ends.ods", "ods"),
    ]
    .into();
    let mut seen = BTreeMap::new();
    for path in files(&fixture("hostile")) {
        let verdict = verdict_of(&path).map_or_else(|code| code, |kind| kind.extension);
        seen.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), verdict);
    }
    let seen: BTreeMap<&str, &str> = seen.iter().map(|(name, verdict)| (name.as_str(), *verdict)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn content_beats_the_name_among_binary_formats() {
    for (file, name, format) in [
        ("contract.docx", "contract.odt", Format::Docx),
        ("contract.docx", "contract", Format::Docx),
        ("contract.docx", "contract.docm", Format::Docm),
        ("contract.docx", "contract.dotx", Format::Docx),
        ("report.odt", "report.docx", Format::Odt),
        ("note.rtf", "note.doc", Format::Rtf),
        ("letter.doc", "letter.dot", Format::Dot),
        ("letterhead.dot", "letterhead.doc", Format::Doc),
        ("ledger.xls", "ledger.XLT", Format::Xlt),
        ("talk.ppt", "talk.pps", Format::Pps),
        ("talk.ppt", "talk.pot", Format::Pot),
        ("invoice.fodt", "invoice.odt", Format::Fodt),
        ("invoice.fodt", "invoice.xml", Format::Fodt),
        ("budget.fods", "budget.fodt", Format::Fods),
        ("page.html", "page", Format::Html),
        ("page.html", "page.txt", Format::Txt),
        ("note.rtf", "note.txt", Format::Txt),
        ("page.html", "page.csv", Format::Csv),
    ] {
        let kind = verdict(&fixture("plain").join(file), name, &InspectLimits::default());
        assert_eq!(kind.map(|kind| kind.format), Ok(format), "{file} as {name}");
    }
    for (file, name) in [
        ("page.html", "page.doc"),
        ("page.html", "page.xls"),
        ("readme.txt", "readme.rtf"),
        ("invoice.fodt", "invoice.pptx"),
        ("readme.txt", "readme.fodt"),
    ] {
        let kind = verdict(&fixture("plain").join(file), name, &InspectLimits::default());
        assert_eq!(kind, Err("source.unsupported"), "{file} as {name}");
    }
}

#[test]
fn values_are_split_by_what_the_name_says_in_the_character_set_they_have() {
    let options = |bytes: &[u8], name: &str| bytes_verdict(bytes, name).unwrap().import_options.unwrap();
    assert_eq!(options("Ø,1\n".as_bytes(), "a.csv"), "44,34,76,1,,0,false,true");
    assert_eq!(options("Ø\t1\n".as_bytes(), "a.tsv"), "9,34,76,1,,0,false,true");
    assert_eq!(options(b"caf\xe9,1\n", "a.CSV"), "44,34,1,1,,0,false,true");
    assert_eq!(options(b"\xff\xfea\0,\x001\0", "a.csv"), "44,34,65535,1,,0,false,true");
}

#[test]
fn what_is_not_named_like_a_document_is_left_alone_by_default() {
    for extension in ["htm", "tsv", "dotm", "xlsb"] {
        assert!(is_readable_extension(extension), "{extension}");
    }
    for extension in ["", "pdf", "png", "zip", "DOCX", "md", "exe"] {
        assert!(!is_readable_extension(extension), "{extension}");
    }
}

#[test]
fn text_is_text_in_any_plausible_set_and_nothing_else() {
    assert_eq!(format_of(b"caf\xe9 au lait", "a.txt"), Ok(Format::Txt));
    assert_eq!(format_of(b"\xff\xfeh\0i\0", "a.txt"), Ok(Format::Txt));
    assert_eq!(format_of(b"notes <b>in text</b>", "a.html"), Ok(Format::Txt));
    assert_eq!(
        format_of(b"PK\x03\x04 is how a zip begins\0\0\0", "a.txt"),
        Err("source.unsupported")
    );
    assert_eq!(format_of(b"a\0b", "a.csv"), Err("source.unsupported"));
    assert_eq!(format_of(b"\x00\x01\x02", "blob"), Err("source.unsupported"));
}

/// A file cut anywhere is never taken for a shorter whole one.
#[test]
fn no_beginning_of_a_document_passes_for_a_document() {
    for name in [
        "contract.docx",
        "report.odt",
        "budget.xlsx",
        "deck.pptx",
        "letter.doc",
        "ledger.xls",
        "note.rtf",
        "budget.fods",
    ] {
        let whole = fs::read(fixture("plain").join(name)).unwrap();
        // LibreOffice ends its rich text with a newline or two that nobody needs.
        let end = whole.trim_ascii_end().len() - 1;
        for step in 0..48 {
            let cut = 8 + (end - 8) * step / 48;
            let verdict = format_of(&whole[..cut], name);
            assert!(
                matches!(verdict, Err("document.corrupt" | "source.unsupported")),
                "{name} cut at {cut}: {verdict:?}"
            );
        }
        // What a text under another name would be is not the question: a cut in the last byte counts, too.
        assert_eq!(format_of(&whole[..end], name), Err("document.corrupt"), "{name}");
    }
}

/// Every byte of a package is under a checksum or in a header that says the same twice.
#[test]
fn a_flipped_byte_in_a_package_never_changes_what_is_loaded() {
    let whole = fs::read(fixture("plain/contract.docx")).unwrap();
    let mut refused = 0;
    for at in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        match format_of(&damaged, "contract.docx") {
            Ok(format) => assert_eq!(format, Format::Docx, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    let tried = whole.len().div_ceil(61);
    assert!(refused * 10 > tried * 9, "only {refused} of {tried} flips were noticed");
}

#[test]
fn limits_are_the_callers() {
    let path = fixture("plain/contract.docx");
    let tight = |limits: InspectLimits| verdict(&path, "contract.docx", &limits);
    let default = InspectLimits::default();
    assert!(tight(default).is_ok());
    assert_eq!(
        tight(InspectLimits { entries: 3, ..default }),
        Err("document.too_complex")
    );
    assert_eq!(
        tight(InspectLimits {
            inflated_size: 10_000,
            ..default
        }),
        Err("document.too_complex")
    );
    assert_eq!(
        tight(InspectLimits { nesting: 4, ..default }),
        Err("document.too_complex")
    );
    // Not its ratio: it is small.
    assert!(tight(InspectLimits { ratio: 1, ..default }).is_ok());
}

#[test]
fn a_file_that_this_machine_cannot_read_is_not_the_documents_fault() {
    let gone = inspect(Path::new("/nonexistent/document"), "a.docx", &InspectLimits::default());
    assert!(matches!(gone, Err(Stop::Refused(_))), "{gone:?}");
}
