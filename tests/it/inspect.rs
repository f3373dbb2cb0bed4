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

/// `code` of the failure, or the kind. What opens with a password is a failure, as it is for a job without one.
fn verdict(path: &Path, name: &str, limits: &InspectLimits) -> Result<DocumentKind, &'static str> {
    match inspect(path, name, limits) {
        Ok(kind) if kind.encrypted => Err("document.encrypted"),
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
        ("password.ppt", "source.unsupported"),
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
fn values_are_split_by_the_separator_and_read_in_the_character_set_that_they_have() {
    let options = |bytes: &[u8], name: &str| bytes_verdict(bytes, name).unwrap().import_options().unwrap();
    let utf_16 = |text: &str| {
        "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(u16::to_be_bytes)
            .collect::<Vec<_>>()
    };
    assert_eq!(options("Ø,1\n".as_bytes(), "a.csv"), "44,34,76,1,,0,false,true");
    assert_eq!(options("\u{feff}Ø;1\n".as_bytes(), "a.csv"), "59,34,76,1,,0,false,true");
    assert_eq!(options("Ø\t1\n".as_bytes(), "a.tsv"), "9,34,76,1,,0,false,true");
    assert_eq!(options(b"one column", "a.tsv"), "9,34,76,1,,0,false,true");
    assert_eq!(options(b"a\tb\n", "a.csv"), "9,34,76,1,,0,false,true");
    assert_eq!(options(b"a|b\n", "a.csv"), "124,34,76,1,,0,false,true");
    assert_eq!(options(b"caf\xe9,1\n", "a.CSV"), "44,34,1,1,,0,false,true");
    assert_eq!(options(b"caf\xe9;1,5\n", "a.csv"), "59,34,1,1,,0,false,true");
    assert_eq!(options(b"\xff\xfea\0,\x001\0", "a.csv"), "44,34,65535,1,,0,false,true");
    assert_eq!(options(&utf_16("Ø;1\r\n"), "a.csv"), "59,34,65535,1,,0,false,true");
    // A character set is that of the whole file, far beyond what the separator is chosen by.
    let mut late = b"a;b\n".repeat(100_000);
    late.push(0xe9);
    assert_eq!(options(&late, "a.csv"), "59,34,1,1,,0,false,true");
}

/// The extensions of Gotenberg's LibreOffice route.
const GOTENBERG: &str = "123 602 abw bib bmp cdr cgm cmx csv cwk dbf dif doc docm docx dot dotm dotx dxf emf eps epub \
    fodg fodp fods fodt fopd gif htm html hwp jpeg jpg key ltx lwp mcw met mml mw numbers odd odg odm odp ods odt otg \
    oth otp ots ott pages pbm pcd pct pcx pdb pdf pgm png pot potm potx ppm pps ppsm ppsx ppt pptm pptx psd psw pub pwp \
    pxl ras rtf sda sdc sdd sdp sdw sgl slk smf stc std sti stw svg svm swf sxc sxd sxg sxi sxm sxw tga tif tiff txt \
    uof uop uos uot vdx vor vsd vsdm vsdx wb2 wk1 wks wmf wpd wpg wps xbm xhtml xls xlsb xlsm xlsx xlt xltm xltx xlw \
    xml xpm zabw";

#[test]
fn what_is_read_by_default_is_gotenbergs_list_but_for_what_is_named_here() {
    let left_out: Vec<&str> = GOTENBERG
        .split_whitespace()
        .filter(|extension| !is_readable_extension(extension))
        .collect();
    // LibreOffice 25.2 has no filter for most; docs/documents.md says why not the others.
    assert_eq!(
        left_out.join(" "),
        "cgm cwk eps epub mcw met mw odd pdf pwp pxl sdp sgl smf std sti swf uot"
    );
    for extension in ["", "zip", "DOCX", "md", "exe", "mp4"] {
        assert!(!is_readable_extension(extension), "{extension}");
    }
}

/// Html, XML and text can pull in what they name: under the name of a binary format they are an attempt, not a slip.
#[test]
fn what_has_reach_is_not_believed_under_another_formats_name() {
    for (file, name) in [
        ("drawing.svg", "drawing.docx"),
        ("drawing.svg", "drawing.png"),
        ("drawing.svgz", "drawing.emz"),
        ("memo.zabw", "memo.odt"),
        ("note.word-2003.xml", "note.xls"),
        ("budget.excel-2003.xml", "budget.doc"),
        ("budget.uos", "budget.ods"),
        ("plan.vdx", "plan.vsd"),
        ("formula.mml", "formula.odf"),
        ("budget.slk", "budget.xls"),
        ("budget.dif", "budget.wk1"),
        ("page.html", "page.slk"),
        ("page.html", "page.svg"),
        ("readme.txt", "readme.dif"),
        ("readme.txt", "readme.xbm"),
        ("readme.txt", "readme.dbf"),
        ("emblem.xpm", "emblem.png"),
    ] {
        let kind = verdict(&fixture("plain").join(file), name, &InspectLimits::default());
        assert_eq!(kind, Err("source.unsupported"), "{file} as {name}");
    }
}

#[test]
fn what_has_no_reach_is_taken_for_what_it_is() {
    for (file, name, format) in [
        ("emblem.png", "emblem.jpg", Format::Png),
        ("emblem.jpg", "emblem", Format::Jpg),
        ("emblem.tif", "emblem.tiff", Format::Tif),
        ("drawing.emz", "drawing.emf", Format::Emz),
        ("old.sxw", "old.doc", Format::Sxw),
        ("master.odm", "master.odt", Format::Odm),
        ("stock.wk1", "stock.xls", Format::Wk1),
        ("stock4.xls", "stock.xlw", Format::Biff),
        ("letter.doc", "letter.wps", Format::Doc),
        ("ledger.xls", "ledger.xlw", Format::Xls),
        // XML that Office itself wrote under these names.
        ("note.word-2003.xml", "note.doc", Format::WordXml),
        ("budget.excel-2003.xml", "budget.xls", Format::ExcelXml),
        ("budget.uos", "budget.uof", Format::Uos),
        ("formula.mml", "formula.xml", Format::Mml),
        ("emblem.xbm", "emblem.txt", Format::Txt),
    ] {
        let kind = verdict(&fixture("plain").join(file), name, &InspectLimits::default());
        assert_eq!(kind.map(|kind| kind.format), Ok(format), "{file} as {name}");
    }
}

#[test]
fn formats_without_a_sample_are_told_by_what_only_they_begin_with() {
    let at = |offset: usize, magic: &[u8]| [vec![0; offset], magic.to_vec(), vec![0; 64]].concat();
    for (bytes, name, verdict) in [
        (at(0, b"RIFF\x40\0\0\0CDR8vrsn"), "a.cdr", Ok(Format::Cdr)),
        (at(0, b"RIFF\x40\0\0\0CMX1"), "a.cmx", Ok(Format::Cmx)),
        (at(0, b"RIFF\x40\0\0\0WAVE"), "a.cdr", Err("source.unsupported")),
        (at(0, b"\xffWPC\x10\0\0\0\x01\x0a"), "a.wpd", Ok(Format::Wpd)),
        (at(0, b"\xffWPC\x10\0\0\0\x01\x16"), "a.wpg", Ok(Format::Wpg)),
        (
            at(0, b"\xffWPC\x10\0\0\0\x01\x0a\0\0\x09\x01"),
            "a.wpd",
            Err("source.unsupported"),
        ),
        (at(0, b"WordPro\0"), "a.lwp", Ok(Format::Lwp)),
        (at(0, b"HWP Document File V3.00"), "a.hwp", Ok(Format::Hwp)),
        (at(0, b"{\\pwi\x15"), "a.psw", Ok(Format::Psw)),
        (at(0, b"\0\0\x1a\0\0\x10\x04\0"), "a.123", Ok(Format::Wk1)),
        (at(0, b"\0\0\x02\0\x02\x10"), "a.wb2", Ok(Format::Wb2)),
        (at(0, b"\xff\0\x02\0\x04\x04"), "a.wks", Ok(Format::Wks)),
        (at(60, b"DataPlkr"), "a.pdb", Ok(Format::Plucker)),
        (at(2048, b"PCD_IPI"), "a.pcd", Ok(Format::Pcd)),
        (at(0, b"%!PS-Adobe-3.0 EPSF-3.0"), "a.eps", Err("source.unsupported")),
        (at(0, b"%PDF-1.7"), "a.pdf", Err("source.unsupported")),
    ] {
        assert_eq!(format_of(&bytes, name), verdict, "{name}");
    }
}

#[test]
fn compressed_pictures_are_counted_while_they_inflate_and_read_to_their_end() {
    let whole = fs::read(fixture("plain/drawing.svgz")).unwrap();
    assert_eq!(format_of(&whole, "a.svgz"), Ok(Format::Svgz));
    assert_eq!(format_of(&whole[..whole.len() - 9], "a.svgz"), Err("document.corrupt"));
    let tight = InspectLimits {
        inflated_size: 10_000,
        ..InspectLimits::default()
    };
    assert_eq!(
        verdict(&fixture("plain/drawing.svgz"), "a.svgz", &tight),
        Err("document.too_complex")
    );
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

/// Each limit of a package provoked by a document: its name, what is allowed, and what was measured.
#[test]
fn a_limit_is_named_with_what_was_measured() {
    let default = InspectLimits::default();
    let detail = |name: &str, limits: InspectLimits| match inspect(&fixture(name), name, &limits) {
        Err(Stop::Failed(failure)) => {
            let fact = |key: &str| failure.detail[key].clone();
            let number = |key: &str| fact(key).as_u64().unwrap();
            (
                fact("limit").as_str().unwrap().to_owned(),
                number("value"),
                number("measured"),
            )
        }
        other => panic!("{name}: {other:?}"),
    };
    let tight = InspectLimits { entries: 3, ..default };
    let (limit, value, measured) = detail("plain/contract.docx", tight);
    assert_eq!((limit.as_str(), value), ("entries", 3));
    assert!(measured > 3, "{measured}");

    // Inflates to far more than it takes, whatever its headers say: stopped at the first block over the limit.
    let (limit, value, measured) = detail("hostile/zip-bomb.docx", default);
    assert_eq!((limit.as_str(), value), ("ratio", default.ratio));
    assert!(measured > value && measured < 2 * value + 1000, "{measured}");
    let tight = InspectLimits {
        inflated_size: 100_000,
        ..default
    };
    let (limit, value, measured) = detail("hostile/zip-bomb.docx", tight);
    assert_eq!((limit.as_str(), value), ("inflatedSize", 100_000));
    assert!(
        (100_001..200_000).contains(&measured),
        "{measured}: it went on inflating"
    );

    for (name, tight) in [
        ("hostile/nested-tables.docx", default),
        ("hostile/nested-groups.rtf", default),
        ("plain/invoice.fodt", InspectLimits { nesting: 2, ..default }),
    ] {
        let nesting = u64::try_from(tight.nesting).unwrap();
        assert_eq!(
            detail(name, tight),
            ("nesting".to_owned(), nesting, nesting + 1),
            "{name}"
        );
    }
}

#[test]
fn a_file_that_this_machine_cannot_read_is_not_the_documents_fault() {
    let gone = inspect(Path::new("/nonexistent/document"), "a.docx", &InspectLimits::default());
    assert!(matches!(gone, Err(Stop::Refused(_))), "{gone:?}");
}
