//! Documents made on the fly: small, of several formats, each with a marker that no other generation has.

use std::io::{Cursor, Write as _};

use zip::write::{SimpleFileOptions, ZipWriter};

use crate::harness::fixture;

/// What is wrong with a document, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Good,
    Empty,
    CutShort,
    Encrypted,
    Noise,
}

impl Nature {
    /// The code that a worker reports it with.
    pub(super) fn code(self) -> Option<&'static str> {
        match self {
            Self::Good => None,
            Self::Empty => Some("source.empty"),
            Self::CutShort => Some("document.corrupt"),
            Self::Encrypted => Some("document.encrypted"),
            Self::Noise => Some("source.unsupported"),
        }
    }
}

/// The extensions of good documents.
pub(super) const FORMATS: [&str; 6] = ["txt", "csv", "docx", "docx", "odt", "fodt"];

/// A document with the marker in its text.
pub(super) fn document(format: &str, nature: Nature, marker: &str) -> Vec<u8> {
    match nature {
        Nature::Good => good(format, marker),
        Nature::Empty => Vec::new(),
        Nature::CutShort => {
            let whole = good(format, marker);
            whole[..whole.len() * 2 / 3].to_vec()
        }
        Nature::Encrypted => std::fs::read(fixture("documents/encrypted/agile.docx")).unwrap(),
        Nature::Noise => std::fs::read(fixture("documents/hostile/random-bytes.docx")).unwrap(),
    }
}

fn good(format: &str, marker: &str) -> Vec<u8> {
    match format {
        "txt" => format!("A short letter.\n\n{marker}\n\nYours\n").into_bytes(),
        "csv" => format!("item,price\n{marker},12\nrest,7\n").into_bytes(),
        "docx" => package(&[
            (
                "[Content_Types].xml",
                r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#,
            ),
            (
                "_rels/.rels",
                r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#,
            ),
            (
                "word/document.xml",
                &format!(
                    r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>{marker}</w:t></w:r></w:p></w:body></w:document>"#
                ),
            ),
        ]),
        "odt" => package(&[
            ("mimetype", "application/vnd.oasis.opendocument.text"),
            (
                "META-INF/manifest.xml",
                r#"<?xml version="1.0" encoding="UTF-8"?><manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0" manifest:version="1.3"><manifest:file-entry manifest:full-path="/" manifest:media-type="application/vnd.oasis.opendocument.text"/><manifest:file-entry manifest:full-path="content.xml" manifest:media-type="text/xml"/></manifest:manifest>"#,
            ),
            ("content.xml", &open_document("office:document-content", "", marker)),
        ]),
        _ => open_document(
            "office:document",
            r#" office:mimetype="application/vnd.oasis.opendocument.text""#,
            marker,
        )
        .into_bytes(),
    }
}

fn open_document(root: &str, attributes: &str, marker: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><{root} xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" office:version="1.3"{attributes}><office:body><office:text><text:p>{marker}</text:p></office:text></office:body></{root}>"#
    )
}

fn package(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in parts {
        writer.start_file(*name, stored).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
