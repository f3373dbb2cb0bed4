//! What has no magic number: plain text, separated values, html and flat OpenDocument.
//!
//! Text is believed under a name that can hold text, never under that of a binary format: a `.docx` that is html would
//! be loaded with html's reach, and one that is text was damaged on its way.

use std::fs::File;
use std::io::{BufReader, Seek as _};

use super::separated::{self, CharacterSet, SeparatedValues};
use super::xml::{Scanner, Tag};
use super::{DocumentKind, Format, Remarks, Subject, fill, magic};
use crate::error::{FailureCode, Step};

pub(super) fn inspect(subject: &Subject<'_>, file: File, head: &[u8]) -> Step<DocumentKind> {
    let extension = subject.extension();
    match extension.as_str() {
        "csv" => return read(subject, file).map(|text| values(b',', &text)),
        "tsv" | "tab" => return read(subject, file).map(|text| values(b'\t', &text)),
        _ if subject.named_text() => return read(subject, file).map(|_| DocumentKind::new(Format::Txt)),
        _ => {}
    }
    let markup = Markup::of(head);
    match markup {
        Some(Markup::FlatOpenDocument) if flat_name(&extension) => return flat(subject, file),
        Some(Markup::Html) if !binary_name(&extension) => {
            return html(subject, file);
        }
        Some(Markup::Document(format)) if markup_name(format, &extension) => return document(subject, file, format),
        None => match magic::of_text(head) {
            Some(format) if format.has_extension(&extension) => {
                return read(subject, file).map(|_| DocumentKind::new(format));
            }
            _ if !binary_name(&extension) && !xml_name(&extension) => {
                return read(subject, file).map(|_| DocumentKind::new(Format::Txt));
            }
            _ => {}
        },
        _ => {}
    }
    let what = match markup {
        Some(Markup::FlatOpenDocument) => "flat OpenDocument XML",
        Some(Markup::Html) => "html",
        Some(Markup::Document(_)) => "an XML document",
        None => {
            return Err(
                subject.unsupported("is text under the name of another format: name it .txt to have it as it is")
            );
        }
    };
    Err(subject.unsupported(&format!(
        "is {what} under the name of another format: name it for what it is"
    )))
}

/// Names of formats that are never text of any kind: those that are read here, and common others.
fn binary_name(extension: &str) -> bool {
    Format::of_extension(extension).map_or_else(
        || {
            matches!(
                extension,
                "odb" | "odc" | "pdf" | "eps" | "ps" | "epub" | "zip" | "gz" | "7z" | "rar" | "tar" | "exe"
            )
        },
        |format| !format.is_text() && extension != "xml",
    )
}

/// Names under which one of the formats that are XML is believed: its own, and those that promise nothing.
fn markup_name(format: Format, extension: &str) -> bool {
    match format {
        // LibreOffice registers the extensions of the binary forms for these, too, as Office did when it wrote them.
        Format::WordXml if extension == "doc" => true,
        Format::ExcelXml if extension == "xls" => true,
        Format::Uos | Format::Uop if extension == "uof" => true,
        _ => extension == "xml" || format.has_extension(extension) || Format::of_extension(extension).is_none(),
    }
}

/// Names that promise flat OpenDocument.
fn xml_name(extension: &str) -> bool {
    extension == "xml" || Format::of_extension(extension).is_some_and(Format::is_flat)
}

/// LibreOffice registers OpenDocument's own extensions for the flat form, too.
fn flat_name(extension: &str) -> bool {
    !binary_name(extension) || matches!(extension, "odt" | "ods" | "odp" | "odg")
}

/// What the beginning of a text says about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Markup {
    FlatOpenDocument,
    Html,
    /// One of the formats that are XML, by its root element.
    Document(Format),
}

impl Markup {
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let mut scanner = Scanner::new(usize::MAX);
        let mut root = None;
        // The depth is unlimited and the head short: this cannot fail.
        let _ = scanner.feed(head, &mut |tag| {
            if root.is_none() {
                root = Some((tag.name().to_vec(), tag.attribute("mimetype")));
            }
        });
        let start = ascii_start(head);
        if !start.starts_with(b"<") {
            return None;
        }
        let (root, media_type) = root.unwrap_or_default();
        let speaks = |namespace: &[u8]| contains(head, namespace);
        let document = match root.as_slice() {
            b"document" if speaks(b"urn:oasis:names:tc:opendocument") => return Some(Self::FlatOpenDocument),
            b"svg" => Some(Format::Svg),
            b"abiword" | b"awml" => Some(Format::Abw),
            b"FictionBook" => Some(Format::Fb2),
            b"math" => Some(Format::Mml),
            b"VisioDocument" => Some(Format::Vdx),
            b"wordDocument" if speaks(b"http://schemas.microsoft.com/office/word/2003/wordml") => Some(Format::WordXml),
            b"Workbook" if speaks(b"urn:schemas-microsoft-com:office:spreadsheet") => Some(Format::ExcelXml),
            b"article" | b"book" if speaks(b"-//OASIS//DTD DocBook XML V4") => Some(Format::DocBook),
            b"UOF" => match media_type.as_deref() {
                Some("vnd.uof.spreadsheet") => Some(Format::Uos),
                Some("vnd.uof.presentation") => Some(Format::Uop),
                _ => None,
            },
            _ => None,
        };
        if let Some(format) = document {
            return Some(Self::Document(format));
        }
        // As LibreOffice: html begins with a tag of html, whatever the file is called.
        let html_root = HTML.contains(&root.to_ascii_lowercase().as_slice());
        let doctype = start
            .get(..14)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"<!doctype html"));
        (html_root || doctype).then_some(Self::Html)
    }
}

/// Elements that html begins with in practice.
const HTML: [&[u8]; 36] = [
    b"html", b"head", b"body", b"title", b"meta", b"link", b"style", b"script", b"base", b"table", b"tr", b"td", b"p",
    b"div", b"span", b"h1", b"h2", b"h3", b"h4", b"h5", b"h6", b"a", b"b", b"i", b"u", b"br", b"hr", b"ul", b"ol",
    b"dl", b"li", b"pre", b"center", b"font", b"img", b"form",
];

/// The text from its first character that is neither a byte order mark nor space, narrowed if it is UTF-16.
fn ascii_start(head: &[u8]) -> Vec<u8> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let narrow: Vec<u8> = match head {
        [0xff, 0xfe, rest @ ..] | [0xfe, 0xff, rest @ ..] => narrow(rest, head[0] == 0xfe),
        _ => head.to_vec(),
    };
    narrow.trim_ascii_start().to_vec()
}

/// UTF-16 with every character that is not ASCII as one that is nothing.
fn narrow(text: &[u8], big_endian: bool) -> Vec<u8> {
    text.chunks_exact(2)
        .map(|pair| match (pair, big_endian) {
            ([byte, 0], false) | ([0, byte], true) if byte.is_ascii() => *byte,
            _ => b'_',
        })
        .collect()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// Flat OpenDocument: the root element's media type says which.
fn flat(subject: &Subject<'_>, file: File) -> Step<DocumentKind> {
    let mut media_type = None;
    let mut root = true;
    let mut remarks = Remarks::default();
    let mut visit = |tag: &Tag<'_>| {
        if std::mem::take(&mut root) {
            media_type = tag.attribute("mimetype");
        }
        remarks.open_document(tag, false);
        remarks.macros |= tag.name() == b"module";
    };
    scan(subject, file, MarkupScan::new(subject, Format::Fodt), &mut visit)?;
    media_type
        .and_then(|media_type| Format::of_media_type(&media_type)?.flat())
        .map(|format| DocumentKind {
            remarks,
            ..DocumentKind::new(format)
        })
        .ok_or_else(|| subject.unsupported("is flat OpenDocument XML of a kind that no import filter reads here"))
}

/// A web page, and what it would load.
fn html(subject: &Subject<'_>, file: File) -> Step<DocumentKind> {
    let again = file.try_clone().map_err(|error| subject.unreadable(&error))?;
    read(subject, file)?;
    let mut kind = DocumentKind::new(Format::Html);
    let mut reader = BufReader::new(again);
    reader.rewind().map_err(|error| subject.unreadable(&error))?;
    let mut buffer = vec![0; 32 << 10];
    // Of html not every element is closed, so none is too deep.
    let mut scanner = Scanner::new(usize::MAX);
    loop {
        let count = fill(&mut reader, &mut buffer).map_err(|error| subject.unreadable(&error))?;
        if count == 0
            || scanner
                .feed(&buffer[..count], &mut |tag| kind.remarks.html(tag))
                .is_err()
        {
            return Ok(kind);
        }
    }
}

fn document(subject: &Subject<'_>, file: File, format: Format) -> Step<DocumentKind> {
    scan(subject, file, MarkupScan::new(subject, format), &mut |_| {})?;
    Ok(DocumentKind::new(format))
}

fn scan(subject: &Subject<'_>, file: File, mut scan: MarkupScan, visit: &mut dyn FnMut(&Tag<'_>)) -> Step<()> {
    let mut reader = BufReader::new(file);
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = fill(&mut reader, &mut buffer).map_err(|error| subject.unreadable(&error))?;
        if count == 0 {
            return scan.end(subject);
        }
        scan.take(subject, &buffer[..count], visit)?;
    }
}

/// Reads one XML document to its end: whole, not too deep, and without entities of its own.
pub(super) struct MarkupScan {
    scanner: Scanner,
    /// Drawing programs declare entities for namespaces in the pictures that they export.
    drawing: bool,
}

impl MarkupScan {
    pub(super) fn new(subject: &Subject<'_>, format: Format) -> Self {
        Self {
            scanner: Scanner::new(subject.limits.nesting),
            drawing: matches!(format, Format::Svg | Format::Svgz),
        }
    }

    pub(super) fn take(&mut self, subject: &Subject<'_>, chunk: &[u8], visit: &mut dyn FnMut(&Tag<'_>)) -> Step<()> {
        self.scanner
            .feed(chunk, visit)
            .map_err(|_| subject.too_deep("nests its elements too deep"))?;
        if self.scanner.declares_entities() && !self.drawing {
            return Err(subject.corrupt("declares XML entities, which office documents never do"));
        }
        Ok(())
    }

    pub(super) fn end(&self, subject: &Subject<'_>) -> Step<()> {
        if !self.scanner.complete() {
            return Err(subject.corrupt("is cut short: not all of its elements are closed"));
        }
        Ok(())
    }
}

/// What a whole text turned out to be.
struct Text {
    character_set: CharacterSet,
    /// Its beginning, narrowed if it is UTF-16.
    sample: Vec<u8>,
    whole: bool,
}

fn values(promised: u8, text: &Text) -> DocumentKind {
    let mut kind = DocumentKind::new(Format::Csv);
    let (separator, first_line) = separated::separator(&text.sample, text.whole, promised);
    kind.separated_values = Some(SeparatedValues {
        separator,
        character_set: text.character_set,
        first_line,
    });
    kind
}

/// Reads all of it and makes sure that it is text: UTF-8, UTF-16 with its mark, or a plausible eight-bit set.
fn read(subject: &Subject<'_>, file: File) -> Step<Text> {
    let mut reader = BufReader::new(file);
    let mut buffer = vec![0; separated::SAMPLE];
    let mut count = fill(&mut reader, &mut buffer).map_err(|error| subject.unreadable(&error))?;
    let whole = count < buffer.len();
    let sample = ascii_start(&buffer[..count]);
    if matches!(buffer[..count], [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Ok(Text {
            character_set: CharacterSet::Utf16,
            sample,
            whole,
        });
    }
    let mut check = Check::default();
    while count > 0 {
        for &byte in &buffer[..count] {
            check.take(byte);
        }
        count = fill(&mut reader, &mut buffer).map_err(|error| subject.unreadable(&error))?;
    }
    if !check.is_text() {
        return Err(subject.fail(
            FailureCode::SourceUnsupported,
            "is no text, and no document of any kind that is read here",
        ));
    }
    Ok(Text {
        character_set: if check.is_utf_8() {
            CharacterSet::Utf8
        } else {
            CharacterSet::Windows1252
        },
        sample,
        whole,
    })
}

/// Follows a text byte by byte.
#[derive(Default)]
struct Check {
    bytes: u64,
    nuls: u64,
    controls: u64,
    /// Continuation bytes of UTF-8 that are due.
    due: u8,
    invalid: bool,
}

impl Check {
    fn take(&mut self, byte: u8) {
        self.bytes += 1;
        match byte {
            0 => self.nuls += 1,
            1..=8 | 14..=25 | 28..=31 | 127 => self.controls += 1,
            _ => {}
        }
        match (self.due, byte) {
            (0, 0..=0x7f) => {}
            (0, 0xc2..=0xdf) => self.due = 1,
            (0, 0xe0..=0xef) => self.due = 2,
            (0, 0xf0..=0xf4) => self.due = 3,
            (1.., 0x80..=0xbf) => self.due -= 1,
            _ => self.invalid = true,
        }
    }

    fn is_utf_8(&self) -> bool {
        !self.invalid && self.due == 0
    }

    /// Random bytes have one control character in ten; real text has next to none.
    fn is_text(&self) -> bool {
        self.nuls == 0 && self.controls * 200 <= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_by_its_beginning() {
        for html in [
            "<!DOCTYPE html>\n<html>",
            " \n<html>",
            "<!-- c --><body>",
            "<b>x</b>",
            "\u{feff}<p>",
            "<?xml version='1.0'?><html>",
        ] {
            assert_eq!(Markup::of(html.as_bytes()), Some(Markup::Html), "{html}");
        }
        for text in ["text <b>then</b>", "<foo>", "a < b", "", "{}"] {
            assert_eq!(Markup::of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn utf_8_and_not() {
        let of = |bytes: &[u8]| {
            let mut check = Check::default();
            bytes.iter().for_each(|&byte| check.take(byte));
            (check.is_text(), check.is_utf_8())
        };
        assert_eq!(of("Łódź 日本 🙂\r\n\t".as_bytes()), (true, true));
        assert_eq!(of(b"caf\xe9"), (true, false));
        assert_eq!(of(b"a\0b"), (false, true));
        assert_eq!(of(b"\x01\x02\x03abc"), (false, true));
    }
}
