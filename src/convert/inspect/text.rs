//! What has no magic number: plain text, separated values, html and flat OpenDocument.
//!
//! Text is believed under a name that can hold text, never under that of a binary format: a `.docx` that is html would
//! be loaded with html's reach, and one that is text was damaged on its way.

use std::fs::File;
use std::io::{BufReader, Read};

use super::xml::{Scanner, Tag};
use super::{DocumentKind, Format, Subject, fill};
use crate::error::{FailureCode, Step};

/// `FilterOptions` of separated values: separator and quote as character codes, LibreOffice's number of the character
/// set, from line 1, no column formats, the process's locale, quoted cells stay as they are, numbers and dates detected.
fn separated_values(separator: u8, character_set: u32) -> String {
    format!("{separator},34,{character_set},1,,0,false,true")
}

pub(super) fn inspect(subject: &Subject<'_>, file: File, head: &[u8]) -> Step<DocumentKind> {
    let extension = subject.extension();
    let markup = Markup::of(head);
    match extension.as_str() {
        "csv" => return read(subject, file).map(|text| values(b',', &text)),
        "tsv" | "tab" => return read(subject, file).map(|text| values(b'\t', &text)),
        "txt" => return read(subject, file).map(|_| DocumentKind::new(Format::Txt)),
        _ => {}
    }
    match markup {
        Some(Markup::FlatOpenDocument) if flat_name(&extension) => flat(subject, file),
        Some(Markup::Html) if !binary_name(&extension) => read(subject, file).map(|_| DocumentKind::new(Format::Html)),
        None if !binary_name(&extension) && !xml_name(&extension) => {
            read(subject, file).map(|_| DocumentKind::new(Format::Txt))
        }
        _ => {
            let what = match markup {
                Some(Markup::FlatOpenDocument) => "flat OpenDocument XML",
                Some(Markup::Html) => "html",
                None => "no document of any kind that is read here",
            };
            Err(subject.unsupported(&format!(
                "is {what} under the name of another format: name it for what it is"
            )))
        }
    }
}

/// Names of formats that are never text: those that are read here, and common others.
fn binary_name(extension: &str) -> bool {
    Format::of_extension(extension).map_or_else(
        || {
            matches!(
                extension,
                "odm"
                    | "odf"
                    | "odb"
                    | "pdf"
                    | "png"
                    | "jpg"
                    | "jpeg"
                    | "gif"
                    | "bmp"
                    | "tif"
                    | "tiff"
                    | "webp"
                    | "svg"
                    | "zip"
                    | "gz"
                    | "7z"
                    | "rar"
                    | "tar"
                    | "exe"
                    | "vsd"
                    | "vsdx"
                    | "pub"
                    | "epub"
                    | "pages"
                    | "numbers"
                    | "key"
            )
        },
        |format| !format.is_text(),
    )
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
#[derive(Debug, PartialEq, Eq)]
enum Markup {
    FlatOpenDocument,
    Html,
}

impl Markup {
    fn of(head: &[u8]) -> Option<Self> {
        let mut scanner = Scanner::new(usize::MAX);
        let mut root = None;
        // The depth is unlimited and the head short: this cannot fail.
        let _ = scanner.feed(head, &mut |tag| {
            if root.is_none() {
                root = Some(tag.name().to_ascii_lowercase());
            }
        });
        let start = ascii_start(head);
        if root.as_deref() == Some(b"document")
            && start.starts_with(b"<")
            && contains(head, b"urn:oasis:names:tc:opendocument")
        {
            return Some(Self::FlatOpenDocument);
        }
        // As LibreOffice: html begins with a tag of html, whatever the file is called.
        let html_root = root.as_deref().is_some_and(|root| HTML.contains(&root));
        let doctype = start
            .get(..14)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"<!doctype html"));
        (start.starts_with(b"<") && (html_root || doctype)).then_some(Self::Html)
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
        [0xff, 0xfe, rest @ ..] | [0xfe, 0xff, rest @ ..] => rest.iter().copied().filter(|&byte| byte != 0).collect(),
        _ => head.to_vec(),
    };
    narrow.trim_ascii_start().to_vec()
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// Flat OpenDocument: the root element's media type says which.
fn flat(subject: &Subject<'_>, file: File) -> Step<DocumentKind> {
    let mut reader = BufReader::new(file);
    let mut scanner = Scanner::new(subject.limits.nesting);
    let mut media_type = None;
    let mut root = true;
    let mut visit = |tag: &Tag<'_>| {
        if std::mem::take(&mut root) {
            media_type = tag.attribute("mimetype");
        }
    };
    let mut buffer = [0; 32 << 10];
    loop {
        let count = fill(&mut reader, &mut buffer).map_err(|error| subject.unreadable(&error))?;
        if count == 0 {
            break;
        }
        scanner.feed(&buffer[..count], &mut visit).map_err(|_| {
            subject.too_complex("nests its elements too deep", "nesting", subject.limits.nesting as u64)
        })?;
        if scanner.declares_entities() {
            return Err(subject.corrupt("declares XML entities, which office documents never do"));
        }
    }
    if !scanner.complete() {
        return Err(subject.corrupt("is cut short: not all of its elements are closed"));
    }
    media_type
        .and_then(|media_type| Format::of_media_type(&media_type)?.flat())
        .map(DocumentKind::new)
        .ok_or_else(|| subject.unsupported("is flat OpenDocument XML of a kind that no import filter reads here"))
}

/// What a whole text turned out to be.
struct Text {
    character_set: u32,
}

fn values(separator: u8, text: &Text) -> DocumentKind {
    let mut kind = DocumentKind::new(Format::Csv);
    kind.import_options = Some(separated_values(separator, text.character_set));
    kind
}

/// Reads all of it and makes sure that it is text: UTF-8, UTF-16 with its mark, or a plausible eight-bit set.
fn read(subject: &Subject<'_>, file: File) -> Step<Text> {
    // LibreOffice's numbers of character sets (rtl/textenc.h).
    const WINDOWS_1252: u32 = 1;
    const UTF_8: u32 = 76;
    const UCS_2: u32 = 65_535;
    let mut reader = BufReader::new(file);
    let mut mark = [0; 2];
    let mut count = fill(&mut reader, &mut mark).map_err(|error| subject.unreadable(&error))?;
    if matches!(mark, [0xff, 0xfe] | [0xfe, 0xff]) && count == 2 {
        return Ok(Text { character_set: UCS_2 });
    }
    let mut check = Check::default();
    let mut buffer = [0; 32 << 10];
    buffer[..2].copy_from_slice(&mark);
    loop {
        for &byte in &buffer[..count] {
            check.take(byte);
        }
        count = reader.read(&mut buffer).map_err(|error| subject.unreadable(&error))?;
        if count == 0 {
            break;
        }
    }
    if !check.is_text() {
        return Err(subject.fail(
            FailureCode::SourceUnsupported,
            "is no text, and no document of any kind that is read here",
        ));
    }
    Ok(Text {
        character_set: if check.is_utf_8() { UTF_8 } else { WINDOWS_1252 },
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
