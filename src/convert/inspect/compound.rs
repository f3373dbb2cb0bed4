//! Compound files: the binary formats of Word, Excel and PowerPoint, and the wrapper of encrypted OOXML.

use std::io::{self, BufReader, Read};

use cfb::{CompoundFile, Stream};

use super::{Bounded, DocumentKind, Format, Subject, encryption, fill};
use crate::error::{Step, Stop};

type Compound = CompoundFile<BufReader<Bounded>>;

pub(super) fn inspect(subject: &Subject<'_>, file: Bounded) -> Step<DocumentKind> {
    let size = file.size;
    // Refuses tables that lead out of the file, as those of a file cut short do.
    let mut compound = Compound::open(BufReader::new(file)).map_err(|error| broken(subject, &error))?;
    let streams: Vec<String> = compound
        .read_root_storage()
        .filter(cfb::Entry::is_stream)
        .map(|entry| entry.name().to_owned())
        .collect();
    let storages: Vec<String> = compound
        .read_root_storage()
        .filter(cfb::Entry::is_storage)
        .map(|entry| entry.name().to_owned())
        .collect();
    let has = |name: &str| streams.iter().any(|stream| stream == name);

    let mut kind = if has("EncryptedPackage") {
        package(subject, &mut compound, has("EncryptionInfo"))
    } else if has("WordDocument") {
        word(subject, &mut compound)
    } else if has("Workbook") {
        excel(subject, &mut compound, "Workbook")
    } else if has("Book") {
        excel(subject, &mut compound, "Book")
    } else if has("PowerPoint Document") {
        power_point(subject, &mut compound, has("Current User"))
    } else if let Some(format) = other_program(subject, &streams, &storages) {
        Ok(DocumentKind::new(format))
    } else {
        Err(subject.unsupported("is a compound file, but no document of any kind that is read here"))
    }?;
    check_streams(subject, &mut compound, size)?;
    // Word's and Excel's projects.
    kind.remarks.macros = storages
        .iter()
        .any(|storage| matches!(storage.as_str(), "Macros" | "_VBA_PROJECT_CUR"));
    Ok(kind)
}

/// An encrypted Office Open XML package. What is in it only the name tells: it cannot be looked into, and LibreOffice is
/// told which filter to use before it has decrypted anything.
fn package(subject: &Subject<'_>, compound: &mut Compound, described: bool) -> Step<DocumentKind> {
    if !described {
        return Err(encryption::unsupported(
            subject,
            "rights management instead of a password",
        ));
    }
    encryption::office_open_xml(subject, open(subject, compound, "EncryptionInfo")?)?;
    // Some keep the old extension's name when they save anew.
    match Format::of_extension(&subject.extension()).and_then(Format::as_office_open_xml) {
        Some(format) => Ok(DocumentKind::new(format).encrypted()),
        None => Err(subject.unsupported(
            "is an encrypted Office Open XML document whose name does not tell of what kind: name it .docx, .xlsx, .pptx or as its program does",
        )),
    }
}

/// Other programs than Microsoft's three, by the stream or storage that only they write.
fn other_program(subject: &Subject<'_>, streams: &[String], storages: &[String]) -> Option<Format> {
    const STREAMS: [(&str, Format); 6] = [
        ("StarWriterDocument", Format::Sdw),
        ("StarCalcDocument", Format::Sdc),
        ("VisioDocument", Format::Vsd),
        ("MatOST", Format::Wps),
        ("MN0", Format::Wps),
        ("PerfectOffice_MAIN", Format::Wpd),
    ];
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    if has(storages, "Quill") && has(streams, "Contents") {
        return Some(Format::Pub);
    }
    // Drawings and presentations of StarOffice have the same streams.
    if has(streams, "StarDrawDocument3") || has(streams, "StarDrawDocument") {
        let presentation = subject.extension() == "sdd";
        return Some(if presentation { Format::Sdd } else { Format::Sda });
    }
    STREAMS
        .into_iter()
        .find(|(name, _)| has(streams, name))
        .map(|(_, format)| format)
}

fn broken(subject: &Subject<'_>, error: &io::Error) -> Stop {
    subject.broken(
        error,
        "is cut short or damaged: the tables of its compound file do not fit together",
    )
}

fn open(subject: &Subject<'_>, compound: &mut Compound, name: &str) -> Step<Stream<BufReader<Bounded>>> {
    compound.open_stream(name).map_err(|error| broken(subject, &error))
}

/// Reads every stream to its end: a chain of sectors may be broken without the tables showing it.
fn check_streams(subject: &Subject<'_>, compound: &mut Compound, size: u64) -> Step<()> {
    let paths: Vec<_> = compound
        .walk()
        .filter(cfb::Entry::is_stream)
        .map(|entry| entry.path().to_owned())
        .collect();
    let mut total = 0;
    for path in paths {
        let mut stream = compound.open_stream(&path).map_err(|error| broken(subject, &error))?;
        let length = stream.len();
        // Streams share no sectors, so together they are no longer than the file.
        total += length;
        if total > size {
            return Err(subject.corrupt("is damaged: its streams claim more bytes than the file has"));
        }
        let read = io::copy(&mut stream, &mut io::sink()).map_err(|error| broken(subject, &error))?;
        if read != length {
            return Err(subject.corrupt("is cut short: one of its streams ends too early"));
        }
    }
    Ok(())
}

/// The file information block ([MS-DOC] 2.5.2): what version, whether encrypted or obfuscated.
fn word(subject: &Subject<'_>, compound: &mut Compound) -> Step<DocumentKind> {
    const FIRST_OF_WORD_97: u16 = 0x00c1;
    const ENCRYPTED: u16 = 0x0100;
    const OBFUSCATED: u16 = 0x8000;
    const SECOND_TABLE: u16 = 0x0200;
    let mut block = [0; 12];
    let mut stream = open(subject, compound, "WordDocument")?;
    if fill(&mut stream, &mut block).map_err(|error| broken(subject, &error))? < block.len() {
        return Err(subject.corrupt("is cut short: its Word document has no header"));
    }
    let word = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let (identifier, version, flags) = (word(0), word(2), word(10));
    if !matches!(identifier, 0xa5ec | 0xa5dc | 0xa697..=0xa699) {
        return Err(subject.corrupt("is damaged: its Word document has no valid header"));
    }
    let encrypted = flags & ENCRYPTED != 0;
    // Word 6 and 95 know XOR alone, and so does a document that says it is only obfuscated.
    if encrypted && flags & OBFUSCATED == 0 && version >= FIRST_OF_WORD_97 {
        let table = if flags & SECOND_TABLE == 0 { "0Table" } else { "1Table" };
        encryption::binary(subject, open(subject, compound, table)?)?;
    }
    let template = subject.extension() == "dot";
    let mut kind = DocumentKind::new(if template { Format::Dot } else { Format::Doc });
    if version < FIRST_OF_WORD_97 {
        // Word 6 and 95 differ in nothing that their filters treat differently.
        kind.import_filter = if template { "MS Word 95 Vorlage" } else { "MS Word 95" };
    }
    kind.encrypted = encrypted;
    Ok(kind)
}

/// The first records of the workbook ([MS-XLS] 2.4.21, 2.4.117): its version, and FILEPASS when it is encrypted.
fn excel(subject: &Subject<'_>, compound: &mut Compound, name: &str) -> Step<DocumentKind> {
    const BEGIN: u16 = 0x0809;
    const END: u16 = 0x000a;
    const FILE_PASS: u16 = 0x002f;
    const BIFF_8: u16 = 0x0600;
    let mut stream = BufReader::new(open(subject, compound, name)?);
    let (mut version, mut encrypted) = (None, false);
    loop {
        let mut header = [0; 4];
        if fill(&mut stream, &mut header).map_err(|error| broken(subject, &error))? < header.len() {
            return Err(subject.corrupt("is cut short: its workbook has no end"));
        }
        let (record, length) = (
            u16::from_le_bytes([header[0], header[1]]),
            u16::from_le_bytes([header[2], header[3]]),
        );
        let mut data = Vec::new();
        (&mut stream)
            .take(length.into())
            .read_to_end(&mut data)
            .map_err(|error| broken(subject, &error))?;
        if data.len() < usize::from(length) {
            return Err(subject.corrupt("is cut short: its workbook ends inside a record"));
        }
        match (record, version) {
            (BEGIN, None) => version = data.first_chunk::<2>().map(|version| u16::from_le_bytes(*version)),
            (_, None) => return Err(subject.corrupt("is damaged: its workbook does not begin as one")),
            (FILE_PASS, _) => {
                // Before Excel 97 there is XOR alone, and no field that says so.
                if version == Some(BIFF_8) && data.first_chunk::<2>() != Some(&[0, 0]) {
                    encryption::binary(subject, data.get(2..).unwrap_or_default())?;
                }
                encrypted = true;
            }
            (END, _) => break,
            _ => {}
        }
    }
    let template = subject.extension() == "xlt";
    let mut kind = DocumentKind::new(if template { Format::Xlt } else { Format::Xls });
    if version != Some(BIFF_8) {
        kind.import_filter = if template {
            "MS Excel 95 Vorlage/Template"
        } else {
            "MS Excel 95"
        };
    }
    kind.encrypted = encrypted;
    Ok(kind)
}

/// The current user's atom ([MS-PPT] 2.3.2) says whether the document stream is encrypted.
fn power_point(subject: &Subject<'_>, compound: &mut Compound, user: bool) -> Step<DocumentKind> {
    const ENCRYPTED: [u8; 4] = 0xf3d1_c4df_u32.to_le_bytes();
    if !user {
        return Err(subject.corrupt("is damaged: it lacks the stream 'Current User'"));
    }
    let mut atom = [0; 16];
    let mut stream = open(subject, compound, "Current User")?;
    if fill(&mut stream, &mut atom).map_err(|error| broken(subject, &error))? < atom.len() {
        return Err(subject.corrupt("is cut short: its stream 'Current User' is not whole"));
    }
    if atom[12..] == ENCRYPTED {
        return Err(encryption::unsupported(subject, "PowerPoint 97's algorithm"));
    }
    Ok(DocumentKind::new(match subject.extension().as_str() {
        "pps" => Format::Pps,
        "pot" => Format::Pot,
        _ => Format::Ppt,
    }))
}
