//! Zip packages: Office Open XML and OpenDocument.
//!
//! A package is taken only whole. LibreOffice would "repair" a broken one and print what is left of it.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use zip::read::ZipReadOptions;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::xml::{Scanner, Tag};
use super::{Bounded, Budget, DocumentKind, Format, InspectLimits, Remarks, Subject, encryption, fill};
use crate::error::{Step, Stop};

const CONTENT_TYPES: &str = "[content_types].xml";
const RELATIONSHIPS: &str = "_rels/.rels";
const MANIFEST: &str = "META-INF/manifest.xml";
/// The one entry of a package that is encrypted whole.
const ENCRYPTED_PACKAGE: &str = "encrypted-package";
/// What other parts are, by the roles that they have here.
const PART_RELATIONSHIPS: &str = "relationships of a part";
const ODF_CONTENT: &str = "content.xml";
const ODF_STYLES: &str = "styles.xml";
const SLIDE: &str = "slide";
/// The longest media type of OpenDocument has 62 bytes.
const MEDIA_TYPE: usize = 128;

pub(super) fn inspect(subject: &Subject<'_>, mut file: Bounded) -> Step<DocumentKind> {
    let size = file.size;
    let entries = declared_entries(&mut file, size).map_err(|error| subject.unreadable(&error))?;
    let Some(entries) = entries else {
        return Err(subject.corrupt("ends before its zip directory does"));
    };
    if entries > subject.limits.entries {
        return Err(subject.too_complex(
            &format!("has {entries} files inside"),
            "entries",
            subject.limits.entries,
            entries,
        ));
    }
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| zip_error(subject, error))?;
    // What one reader skips or takes twice another one loads: there must be one way to read it.
    archive
        .validate_header_consistency()
        .map_err(|error| zip_error(subject, error))?;
    let mut first = u64::MAX;
    for index in 0..archive.len() {
        let entry = archive
            .by_index_data(index)
            .map_err(|error| zip_error(subject, error))?;
        first = first.min(entry.header_start());
    }
    if archive.offset() != 0 || (first != 0 && !archive.is_empty()) {
        return Err(subject.corrupt("has something else before its zip package"));
    }

    let mut contents = Contents::default();
    let mut budget = Budget::new(subject.limits, size);
    // The manifest first: it says which parts are encrypted, and so not what their names promise.
    let manifest = archive.index_for_name(MANIFEST);
    for index in manifest
        .into_iter()
        .chain((0..archive.len()).filter(|index| Some(*index) != manifest))
    {
        read_entry(subject, &mut archive, index, &mut budget, &mut contents)?;
    }
    let mut kind = contents.kind(subject)?;
    kind.remarks = contents.remarks;
    Ok(kind)
}

/// The number of entries by the end record, read before anything is allocated for them; `None` without an end record.
fn declared_entries(file: &mut Bounded, size: u64) -> io::Result<Option<u64>> {
    const RECORD: usize = 22;
    const LONGEST_COMMENT: u64 = 65_535;
    const LOCATOR: usize = 20;
    let start = size.saturating_sub(LONGEST_COMMENT + (RECORD + LOCATOR) as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(size - start).read_to_end(&mut tail)?;
    let Some(at) = tail
        .windows(RECORD)
        .rposition(|window| window.starts_with(b"PK\x05\x06"))
    else {
        return Ok(None);
    };
    let short = u64::from(u16::from_le_bytes([tail[at + 10], tail[at + 11]]));
    if short < u64::from(u16::MAX) {
        return Ok(Some(short));
    }
    // Zip64: its record has the real number.
    let Some(locator) = at.checked_sub(LOCATOR).map(|from| &tail[from..at]) else {
        return Ok(Some(short));
    };
    let (Some(b"PK\x06\x07"), Some(position)) = (locator.first_chunk::<4>(), locator[8..].first_chunk::<8>()) else {
        return Ok(Some(short));
    };
    let mut record = [0; 40];
    file.seek(SeekFrom::Start(u64::from_le_bytes(*position).min(size)))?;
    if fill(file, &mut record)? < record.len() || !record.starts_with(b"PK\x06\x06") {
        return Ok(None);
    }
    Ok(record[32..].first_chunk::<8>().map(|count| u64::from_le_bytes(*count)))
}

fn zip_error(subject: &Subject<'_>, error: ZipError) -> Stop {
    match error {
        ZipError::Io(error) => subject.broken(&error, "is cut short: its zip package ends too early"),
        error => subject.corrupt(&format!("has a damaged zip directory ({error})")),
    }
}

fn read_entry(
    subject: &Subject<'_>,
    archive: &mut ZipArchive<BufReader<Bounded>>,
    index: usize,
    budget: &mut Budget<'_>,
    contents: &mut Contents,
) -> Step<()> {
    let entry = archive
        .by_index_data(index)
        .map_err(|error| zip_error(subject, error))?;
    if entry.encrypted() {
        return Err(encryption::unsupported(subject, "the password of a zip archive"));
    }
    if !matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        return Err(subject.corrupt("packs a part with a method that office documents do not use"));
    }
    let mut entry = archive
        .by_index_with_options(index, ZipReadOptions::new())
        .map_err(|error| zip_error(subject, error))?;
    let name = entry
        .name()
        .map_err(|error| zip_error(subject, error))?
        .trim_start_matches('/')
        .to_owned();
    let declared = entry.size();
    let mut part = if contents.encrypted.contains(&name) {
        Part::Opaque
    } else {
        Part::new(&name, subject.limits)
    };
    let mut buffer = [0; 32 << 10];
    let mut inflated: u64 = 0;
    loop {
        let count = fill(&mut entry, &mut buffer).map_err(|error| {
            subject.broken(
                &error,
                &format!(
                    "is damaged: its part '{}' does not unpack or fails its checksum",
                    shown(&name)
                ),
            )
        })?;
        if count == 0 {
            break;
        }
        inflated += count as u64;
        budget.take(subject, count as u64)?;
        if inflated > declared {
            break;
        }
        part.take(subject, &name, &buffer[..count], contents)?;
    }
    if inflated != declared {
        return Err(subject.corrupt(&format!(
            "is damaged: the size of its part '{}' is not the one it states",
            shown(&name)
        )));
    }
    part.end(&name, contents);
    Ok(())
}

/// Names of parts are the document's: they are shown short and without what a terminal or a log could stumble on.
fn shown(name: &str) -> String {
    name.chars()
        .filter(|character| !character.is_control())
        .take(80)
        .collect()
}

/// Whether a part, by its lower-case name, holds macros: Office's, or those of OpenDocument. LibreOffice writes lists of
/// libraries also where there is nothing in them.
fn is_macro(name: &str) -> bool {
    let list = ["/script-lb.xml", "/script-lc.xml", "/dialog-lb.xml", "/dialog-lc.xml"];
    name.ends_with("/vbaproject.bin")
        || name.starts_with("xl/macrosheets/")
        || name.starts_with("scripts/") && !name.ends_with('/')
        || name.starts_with("basic/") && name.ends_with(".xml") && !list.iter().any(|list| name.ends_with(list))
}

/// What was learned from the parts that say what a package is.
#[derive(Default)]
struct Contents {
    /// Names of all parts, lower case: OOXML's part names have no case (ECMA-376 part 2, 6.2.2).
    parts: HashSet<String>,
    /// XML parts that end inside an element, by lower-case name.
    incomplete: HashSet<String>,
    /// The main part, from the package's relationships.
    main: Option<String>,
    /// Written as ISO/IEC 29500 (by LibreOffice itself, or strict), which selects another name of Writer's filter.
    iso: bool,
    /// Part names and the document formats that the content types give them.
    overrides: Vec<(String, Format)>,
    /// File extensions and the document formats that the content types give them.
    defaults: Vec<(String, Format)>,
    /// The `mimetype` entry.
    media_type: Vec<u8>,
    /// The media type that the manifest gives the package.
    manifest_type: Option<String>,
    /// The part that the manifest is at.
    entry: String,
    /// The parts that the manifest calls encrypted.
    encrypted: HashSet<String>,
    /// Another way to encrypt than LibreOffice knows.
    unknown_encryption: bool,
    remarks: Remarks,
}

impl Contents {
    fn visit(&mut self, part: &str, tag: &Tag<'_>) {
        match (part, tag.name()) {
            (RELATIONSHIPS, b"Relationship") => {
                const OFFICE: &str = "http://schemas.openxmlformats.org/officedocument/2006/relationships/";
                const STRICT: &str = "http://purl.oclc.org/ooxml/officedocument/relationships/";
                const VISIO: &str = "http://schemas.microsoft.com/visio/2010/relationships/document";
                let kind = tag.attribute("Type").unwrap_or_default().to_ascii_lowercase();
                let (strict, kind) = match (kind.strip_prefix(OFFICE), kind.strip_prefix(STRICT)) {
                    (Some(kind), _) => (false, kind),
                    (_, Some(kind)) => (true, kind),
                    _ if kind == VISIO => (false, "officedocument"),
                    _ => return,
                };
                match kind {
                    "officedocument" => {
                        let target = tag.attribute("Target").unwrap_or_default();
                        self.main = Some(target.trim_start_matches("./").trim_start_matches('/').to_lowercase());
                        self.iso |= strict;
                    }
                    // Others keep their core properties under the package's own relationship type.
                    "metadata/core-properties" => self.iso = true,
                    _ => {}
                }
            }
            (CONTENT_TYPES, element @ (b"Override" | b"Default")) => {
                let Some(format) = tag
                    .attribute("ContentType")
                    .as_deref()
                    .and_then(Format::of_content_type)
                else {
                    return;
                };
                let (list, key) = if element == b"Override" {
                    (&mut self.overrides, "PartName")
                } else {
                    (&mut self.defaults, "Extension")
                };
                // A real package has one main part.
                if list.len() < 16 {
                    let value = tag.attribute(key).unwrap_or_default();
                    list.push((value.trim_start_matches('/').to_lowercase(), format));
                }
            }
            (MANIFEST, b"file-entry") => {
                self.entry = tag.attribute("full-path").unwrap_or_default();
                if self.entry == "/" {
                    self.manifest_type = tag.attribute("media-type");
                }
            }
            (MANIFEST, b"encryption-data") => {
                self.encrypted.insert(std::mem::take(&mut self.entry));
            }
            (MANIFEST, b"algorithm") => {
                let name = tag.attribute("algorithm-name").unwrap_or_default();
                self.unknown_encryption |= !encryption::is_known_algorithm(&name);
            }
            // Keys of persons (OpenPGP) instead of a password.
            (MANIFEST, b"encrypted-key") => self.unknown_encryption = true,
            (PART_RELATIONSHIPS, b"Relationship") => self.remarks.relationship(tag),
            (ODF_CONTENT, _) => self.remarks.open_document(tag, true),
            (ODF_STYLES, _) => self.remarks.linked_by_open_document(tag, true),
            (SLIDE, _) => self.remarks.slide(tag),
            _ => {}
        }
    }

    fn kind(&self, subject: &Subject<'_>) -> Step<DocumentKind> {
        if !self.encrypted.is_empty() && self.unknown_encryption {
            return Err(encryption::unsupported(
                subject,
                "a key or an algorithm that is not known",
            ));
        }
        if let Some(kind) = self.open_document(subject)? {
            return Ok(kind);
        }
        if let Some(kind) = self.other_program(subject) {
            return Ok(kind);
        }
        let office = self.parts.contains(CONTENT_TYPES) || self.parts.contains(RELATIONSHIPS);
        if !office {
            return Err(subject.unsupported("is a zip archive, but no office document"));
        }
        let Some(main) = &self.main else {
            return Err(subject.corrupt("does not say which of its parts is the document"));
        };
        if !self.parts.contains(main) {
            return Err(subject.corrupt("lacks the part that holds the document"));
        }
        let extension = main.rsplit_once('.').map(|(_, extension)| extension);
        let format = self
            .overrides
            .iter()
            .find(|(part, _)| part == main)
            .or_else(|| self.defaults.iter().find(|(of, _)| Some(of.as_str()) == extension));
        let Some(&(_, format)) = format else {
            return Err(if self.parts.contains(CONTENT_TYPES) {
                subject.unsupported("is an Open XML package of a kind that no import filter reads here")
            } else {
                subject.corrupt("lacks the list of its parts' types")
            });
        };
        for part in [main.as_str(), CONTENT_TYPES, RELATIONSHIPS] {
            self.check_complete(subject, part)?;
        }
        // LibreOffice takes any Word document named .docm as one with macros.
        let format = if format == Format::Docx && subject.extension() == "docm" {
            Format::Docm
        } else {
            format
        };
        let mut kind = DocumentKind::new(format);
        match (format, self.iso) {
            (Format::Docx, true) => kind.import_filter = "Office Open XML Text",
            (Format::Dotx, true) => kind.import_filter = "Office Open XML Text Template",
            _ => {}
        }
        Ok(kind)
    }

    fn open_document(&self, subject: &Subject<'_>) -> Step<Option<DocumentKind>> {
        let stated = std::str::from_utf8(&self.media_type).unwrap_or_default().trim();
        let stated = if stated.is_empty() {
            self.manifest_type.as_deref().unwrap_or_default()
        } else {
            stated
        };
        let Some(format) = Format::of_media_type(stated) else {
            return if stated.starts_with("application/vnd.oasis.opendocument.")
                || stated.starts_with("application/vnd.sun.xml.")
            {
                Err(subject.unsupported("is an OpenDocument file of a kind that no import filter reads here"))
            } else if stated == "application/epub+zip" {
                Err(subject.unsupported("is an EPUB book, which no import filter reads here"))
            } else {
                Ok(None)
            };
        };
        let manifest = MANIFEST.to_lowercase();
        let content = if self.encrypted.contains(ENCRYPTED_PACKAGE) {
            ENCRYPTED_PACKAGE
        } else {
            "content.xml"
        };
        for part in [manifest.as_str(), content] {
            if !self.parts.contains(part) {
                return Err(subject.corrupt(&format!("lacks its part '{part}'")));
            }
        }
        for part in [manifest.as_str(), "content.xml", "styles.xml"] {
            self.check_complete(subject, part)?;
        }
        let mut kind = DocumentKind::new(format);
        kind.encrypted = !self.encrypted.is_empty();
        Ok(Some(kind))
    }

    /// Packages of Corel and Apple. Apple's three programs use the same parts: the name tells them apart.
    fn other_program(&self, subject: &Subject<'_>) -> Option<DocumentKind> {
        const APPLE: [&str; 5] = [
            "index/document.iwa",
            "index.zip",
            "index.xml",
            "index.apxl",
            "index.apxl.gz",
        ];
        const COREL: [&[u8]; 2] = [
            b"application/x-vnd.corel.draw.document+zip",
            b"application/x-vnd.corel.zcf.draw.document+zip",
        ];
        if COREL.iter().any(|stated| self.media_type.starts_with(stated)) {
            return Some(DocumentKind::new(Format::Cdr));
        }
        if !APPLE.iter().any(|part| self.parts.contains(*part)) {
            return None;
        }
        let named = Format::of_extension(&subject.extension())?;
        matches!(named, Format::Key | Format::Numbers | Format::Pages).then(|| DocumentKind::new(named))
    }

    fn check_complete(&self, subject: &Subject<'_>, part: &str) -> Step<()> {
        if self.incomplete.contains(part) {
            return Err(subject.corrupt(&format!("is damaged: its part '{}' ends in the middle", shown(part))));
        }
        Ok(())
    }
}

/// One entry while it is read.
enum Part {
    Xml {
        scanner: Scanner,
        role: &'static str,
        drawing: bool,
    },
    MediaType,
    Opaque,
}

impl Part {
    fn new(name: &str, limits: &InspectLimits) -> Self {
        let lower = name.to_lowercase();
        let extension = lower.rsplit_once('.').map(|(_, extension)| extension);
        match extension {
            Some("xml" | "rels" | "vml" | "svg") => {
                let role = match lower.as_str() {
                    CONTENT_TYPES => CONTENT_TYPES,
                    RELATIONSHIPS => RELATIONSHIPS,
                    _ if name == MANIFEST => MANIFEST,
                    ODF_CONTENT => ODF_CONTENT,
                    ODF_STYLES => ODF_STYLES,
                    _ if extension == Some("rels") => PART_RELATIONSHIPS,
                    _ if lower.starts_with("ppt/slides/") => SLIDE,
                    _ => "",
                };
                Self::Xml {
                    scanner: Scanner::new(limits.nesting),
                    role,
                    drawing: extension == Some("svg"),
                }
            }
            _ if name == "mimetype" => Self::MediaType,
            _ => Self::Opaque,
        }
    }

    fn take(&mut self, subject: &Subject<'_>, name: &str, chunk: &[u8], contents: &mut Contents) -> Step<()> {
        match self {
            Self::Xml { scanner, role, drawing } => {
                scanner
                    .feed(chunk, &mut |tag| contents.visit(role, tag))
                    .map_err(|_| subject.too_deep(&format!("nests too deep in its part '{}'", shown(name))))?;
                // Drawing programs declare entities for namespaces in the pictures that they export.
                if scanner.declares_entities() && !*drawing {
                    return Err(subject.corrupt(&format!(
                        "declares XML entities in its part '{}', which office documents never do",
                        shown(name)
                    )));
                }
            }
            Self::MediaType => {
                let room = MEDIA_TYPE.saturating_sub(contents.media_type.len());
                contents.media_type.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Self::Opaque => {}
        }
        Ok(())
    }

    fn end(self, name: &str, contents: &mut Contents) {
        let name = name.to_lowercase();
        if let Self::Xml { scanner, .. } = &self
            && !scanner.complete()
        {
            contents.incomplete.insert(name.clone());
        }
        contents.remarks.macros |= is_macro(&name);
        contents.parts.insert(name);
    }
}
