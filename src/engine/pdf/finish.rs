//! Writes a PDF of LibreOffice's anew: protected with passwords, or without anything that differs from run to run.
//!
//! It runs in the worker, not in the child that had the document open: so no document ever shares a process with the
//! passwords that are to protect it, and a child that fails or lies cannot pass off an unprotected file. What LibreOffice
//! writes is simple (one cross-reference table, no object streams), and nothing else is taken: every object is where the
//! table says, the table names no other, and nothing stands between them. All else is copied: streams as bytes, other
//! objects token by token. Memory is bounded: eight bytes for each object, and one object at a time without its stream.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};

use super::protect::{Cipher, Protection, hex};
use super::tokens::{Object, Token, Tokens, digits};
use super::{PdfError, Result, TAIL, find_last, open, read_some};

/// Objects of one file (ISO 32000-1, annex C).
const MOST_OBJECTS: u64 = 8_388_607;
/// The longest description of the document (XMP) that is looked through for its date, in bytes.
const LONGEST_METADATA: u64 = 1 << 20;
/// The date of a reproducible PDF whose document has none.
const NO_DATE: &[u8] = b"(D:19700101000000Z)";

/// What is done to a PDF after LibreOffice has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// It opens with a password, or with restrictions.
    Protected(Protection),
    /// The same document gives the same bytes: its dates are the document's own, its identifier is a hash.
    Reproducible,
}

/// Writes the PDF at `path` anew, under the same name.
///
/// # Errors
/// It is not one of LibreOffice's, it is not done at `deadline`, or the new one cannot be written.
pub(in crate::engine) fn finish(path: &Path, finish: &Finish, deadline: Instant) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let to = tempfile::NamedTempFile::new_in(directory)?;
    rewrite(path, to.reopen()?, finish, deadline).map_err(|error| match error {
        PdfError::Io(error) if error.kind() == io::ErrorKind::TimedOut => PdfError::TooLong,
        error => error,
    })?;
    to.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn rewrite(path: &Path, to: File, finish: &Finish, deadline: Instant) -> Result<()> {
    let cipher = match finish {
        Finish::Protected(protection) => Some(Cipher::new(protection)?),
        Finish::Reproducible => None,
    };
    let table = Table::read(path, deadline)?;
    let mut writer = Writer {
        offsets: vec![0; table.offsets.len()],
        to: BufWriter::with_capacity(256 << 10, to),
        at: 0,
        hash: cipher.is_none().then(|| Context::new(&SHA256)),
        date: None,
    };
    let mut tokens = Tokens::new(open(path)?, 0, deadline)?;
    writer.header(path)?;
    let mut written = 0;
    loop {
        tokens.skip_space()?;
        let at = tokens.at;
        if at == table.at {
            break;
        }
        let number = tokens.number()?;
        if tokens.number()? != 0 || table.offset(number)? != at {
            return Err(PdfError::Malformed("an object is not the one that its table names"));
        }
        tokens.word(b"obj")?;
        writer.object(&mut tokens, &table, number, cipher.as_ref())?;
        written += 1;
    }
    if written != table.offsets.iter().filter(|offset| **offset != 0).count() {
        return Err(PdfError::Malformed("its table names objects that are not in it"));
    }
    writer.end(&table, cipher.as_ref())
}

/// The one cross-reference table, and what the trailer after it says.
pub(super) struct Table {
    /// Where it begins.
    at: u64,
    /// By object number; 0 for none.
    offsets: Vec<u64>,
    root: u64,
    information: Option<u64>,
    /// The rest of the trailer that is kept.
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    path: std::path::PathBuf,
    deadline: Instant,
}

impl Table {
    pub(super) fn read(path: &Path, deadline: Instant) -> Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        let tail = read_some(&file, size.saturating_sub(TAIL), TAIL)?;
        let start = find_last(&tail, b"startxref").ok_or(PdfError::Malformed("it names no cross-reference section"))?;
        let at = super::Lexer::new(&tail[start + b"startxref".len()..]).number()?;
        let mut tokens = Tokens::new(file, at, deadline)?;
        tokens.word(b"xref")?;
        let mut offsets = Vec::new();
        loop {
            let first = match tokens.next()? {
                Token::Word(word) if word == b"trailer" => break,
                Token::Word(word) => digits(&word)?,
                _ => return Err(PdfError::Malformed("its cross-reference table has no trailer")),
            };
            let count = tokens.number()?;
            if first != offsets.len() as u64 || count > MOST_OBJECTS - first {
                return Err(PdfError::Malformed(
                    "its cross-reference table has gaps, or too many objects",
                ));
            }
            for _ in 0..count {
                let (offset, generation) = (tokens.number()?, tokens.number()?);
                offsets.push(match tokens.next()? {
                    Token::Word(word) if word == b"n" && generation == 0 && offset > 0 => offset,
                    Token::Word(word) if word == b"f" => 0,
                    _ => return Err(PdfError::Malformed("its cross-reference table has an entry of no kind")),
                });
            }
        }
        let (Object::Dictionary(trailer), _) = tokens.object(None)? else {
            return Err(PdfError::Malformed("its trailer is no dictionary"));
        };
        let mut table = Self {
            at,
            offsets,
            root: 0,
            information: None,
            kept: Vec::new(),
            path: path.to_owned(),
            deadline,
        };
        for (key, value) in trailer {
            match key.as_slice() {
                b"Root" => table.root = reference(&value)?,
                b"Info" => table.information = Some(reference(&value)?),
                // A checksum over the whole file, for documents that are inside it.
                b"Size" | b"DocChecksum" => {}
                b"ID" => table.kept.push((key, value)),
                _ => return Err(PdfError::Malformed("its trailer says more than LibreOffice's do")),
            }
        }
        Ok(table)
    }

    pub(super) fn offset(&self, number: u64) -> Result<u64> {
        let offset = usize::try_from(number).ok().and_then(|number| self.offsets.get(number));
        offset
            .copied()
            .filter(|offset| *offset != 0)
            .ok_or(PdfError::Malformed("an object that it needs is not in it"))
    }

    /// How long a stream is: a number, or the number of an object that is one.
    fn length(&self, value: &[u8]) -> Result<u64> {
        if let Ok(length) = digits(value) {
            return Ok(length);
        }
        let number = reference(value)?;
        let mut tokens = Tokens::new(open(&self.path)?, self.offset(number)?, self.deadline)?;
        if tokens.number()? != number || tokens.number()? != 0 {
            return Err(PdfError::Malformed("an object is not the one that its table names"));
        }
        tokens.word(b"obj")?;
        tokens.number()
    }
}

struct Writer {
    /// Where each object begins in the new file.
    offsets: Vec<u64>,
    to: BufWriter<File>,
    at: u64,
    /// Of all that was written, for a file that is named by its content.
    hash: Option<Context>,
    /// The document's own date, once it is known.
    date: Option<Vec<u8>>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&bytes[..written]);
        }
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Writer {
    /// The version of the file, and four bytes that say that it is not text (ISO 32000-2, 7.5.2).
    fn header(&mut self, path: &Path) -> Result<()> {
        let head = read_some(&open(path)?, 0, 8)?;
        match head.as_slice() {
            [b'%', b'P', b'D', b'F', b'-', b'1', b'.', minor @ b'4'..=b'7'] => {
                Ok(self.write_all(&[b"%PDF-1.", &[*minor][..], b"\n%\xc3\xa4\xc3\xbc\n"].concat())?)
            }
            _ => Err(PdfError::Malformed(
                "it is of a version that LibreOffice does not write",
            )),
        }
    }

    fn object(&mut self, tokens: &mut Tokens, table: &Table, number: u64, cipher: Option<&Cipher>) -> Result<()> {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        *self
            .offsets
            .get_mut(index)
            .ok_or(PdfError::Malformed("an object has no number"))? = self.at;
        let (object, keyword) = tokens.object(cipher)?;
        writeln!(self, "{number} 0 obj")?;
        match (object, keyword.as_slice()) {
            (Object::Other(value), b"endobj") => self.write_all(&value)?,
            (Object::Dictionary(mut entries), b"endobj") => {
                if cipher.is_some() && number == table.root {
                    // AES-256 with this hash came with Adobe's extensions of PDF 1.7, and is in PDF 2.0.
                    entries.push((
                        b"Extensions".to_vec(),
                        b"<</ADBE<</BaseVersion/1.7/ExtensionLevel 8>>>>".to_vec(),
                    ));
                }
                if cipher.is_none() && Some(number) == table.information {
                    let date = self.date.clone().unwrap_or_else(|| NO_DATE.to_vec());
                    let is_date = |key: &[u8]| matches!(key, b"CreationDate" | b"ModDate");
                    for (_, value) in entries.iter_mut().filter(|(key, _)| is_date(key)) {
                        value.clone_from(&date);
                    }
                }
                self.dictionary(&entries)?;
            }
            (Object::Dictionary(entries), b"stream") => self.stream(tokens, table, entries, cipher)?,
            _ => return Err(PdfError::Malformed("an object does not end")),
        }
        Ok(self.write_all(b"\nendobj\n")?)
    }

    fn stream(
        &mut self,
        tokens: &mut Tokens,
        table: &Table,
        mut entries: Vec<(Vec<u8>, Vec<u8>)>,
        cipher: Option<&Cipher>,
    ) -> Result<()> {
        let value = |name: &[u8]| {
            entries
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_slice())
        };
        if matches!(value(b"Type"), Some(b"/ObjStm" | b"/XRef")) || value(b"F").is_some() {
            return Err(PdfError::Malformed(
                "a stream is of a kind that LibreOffice does not write",
            ));
        }
        if value(b"Filter").is_some_and(|filter| find_last(filter, b"/Crypt").is_some()) {
            return Err(PdfError::Malformed("a stream says itself how it is encrypted"));
        }
        let is_metadata = value(b"Type") == Some(b"/Metadata") && value(b"Filter").is_none();
        let length = table.length(value(b"Length").ok_or(PdfError::Malformed("a stream has no length"))?)?;
        let written = if cipher.is_some() {
            Cipher::length(length)
        } else {
            length
        };
        for (_, value) in entries.iter_mut().filter(|(key, _)| key == b"Length") {
            *value = written.to_string().into_bytes();
        }
        self.dictionary(&entries)?;
        self.write_all(b"\nstream\n")?;
        let before = self.at;
        {
            let mut from = tokens.stream(length)?;
            match cipher {
                Some(cipher) => cipher.stream(from, self)?,
                None if is_metadata && length <= LONGEST_METADATA => {
                    let mut metadata = Vec::new();
                    from.read_to_end(&mut metadata)?;
                    self.date = date_of(&metadata);
                    self.write_all(&metadata)?;
                }
                None => {
                    io::copy(&mut from, self)?;
                }
            }
        }
        if self.at - before != written {
            return Err(PdfError::Malformed("a stream has not the length that it states"));
        }
        self.write_all(b"\nendstream")?;
        tokens.word(b"endstream")?;
        tokens.word(b"endobj")
    }

    fn dictionary(&mut self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut bytes = b"<<".to_vec();
        for (key, value) in entries {
            bytes.push(b'/');
            bytes.extend(key);
            // Before a number or a keyword; before all else it does no harm.
            bytes.push(b' ');
            bytes.extend(value);
        }
        bytes.extend(b">>");
        Ok(self.write_all(&bytes)?)
    }

    fn end(mut self, table: &Table, cipher: Option<&Cipher>) -> Result<()> {
        let mut trailer = vec![(b"Root".to_vec(), format!("{} 0 R", table.root).into_bytes())];
        trailer.extend(
            table
                .information
                .map(|number| (b"Info".to_vec(), format!("{number} 0 R").into_bytes())),
        );
        match cipher {
            Some(cipher) => {
                trailer.push((b"Encrypt".to_vec(), format!("{} 0 R", self.offsets.len()).into_bytes()));
                trailer.extend(table.kept.iter().cloned());
                self.offsets.push(self.at);
                let number = self.offsets.len() - 1;
                writeln!(self, "{number} 0 obj")?;
                self.write_all(&cipher.dictionary)?;
                self.write_all(b"\nendobj\n")?;
            }
            None => {
                // What names the file names its content: both halves, as in a file that was not changed since.
                let hash = self.hash.take().map(Context::finish);
                let half = hash.map(|hash| hex(&hash.as_ref()[..16])).unwrap_or_default();
                trailer.push((b"ID".to_vec(), format!("[<{half}><{half}>]").into_bytes()));
            }
        }
        let size = self.offsets.len();
        trailer.insert(0, (b"Size".to_vec(), size.to_string().into_bytes()));
        let start = self.at;
        writeln!(self, "xref\n0 {size}")?;
        for offset in std::mem::take(&mut self.offsets) {
            match offset {
                0 => self.write_all(b"0000000000 65535 f \n")?,
                offset => writeln!(self, "{offset:010} 00000 n ")?,
            }
        }
        self.write_all(b"trailer\n")?;
        self.dictionary(&trailer)?;
        writeln!(self, "\nstartxref\n{start}\n%%EOF")?;
        Ok(self.flush()?)
    }
}

/// `12 0 R`
fn reference(value: &[u8]) -> Result<u64> {
    let number = value.strip_suffix(b" 0 R");
    digits(number.ok_or(PdfError::Malformed("a reference is not where it should be"))?)
}

/// When the document was made, as its description (XMP) says: `2026-11-01T12:00:00Z` as PDF writes it.
fn date_of(metadata: &[u8]) -> Option<Vec<u8>> {
    const ELEMENT: &[u8] = b"<xmp:CreateDate>";
    let begin = find_last(metadata, ELEMENT)? + ELEMENT.len();
    let text = metadata.get(begin..begin + 20)?;
    let pattern = b"0000-00-00T00:00:00Z";
    let fits = |(byte, pattern): (&u8, &u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    if !text.iter().zip(pattern).all(fits) {
        return None;
    }
    // LibreOffice writes zeroes for a document that has no date.
    if text.starts_with(b"0000") {
        return None;
    }
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_digit).collect();
    Some([b"(D:", digits.as_slice(), b"Z)"].concat())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::Password;
    use super::super::{Changes, Permissions, Printing};
    use super::*;

    /// What LibreOffice writes, in small: a stream with its length in another object, a string of every form.
    fn made(streams: &str) -> Vec<u8> {
        let mut pdf = b"%PDF-1.7\n%\xc3\xa4\xc3\xbc\n".to_vec();
        let mut table = String::from("xref\n0 6\n0000000000 65535 f \n");
        for (number, object) in [
            "<</Type/Catalog/Pages 2 0 R/Odd[/ 7]/Note[(a\\(b\\051 (c) \\\r\nd)<4a4B5>]>>",
            "<</Type/Pages/Kids[]/Count 1>>",
            streams,
            "11",
            "<</Title<414243>/CreationDate(D:20261122170251Z')>>",
        ]
        .iter()
        .enumerate()
        {
            table.push_str(&format!("{:010} 00000 n \n", pdf.len()));
            pdf.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
        }
        let start = pdf.len();
        pdf.extend(table.bytes());
        pdf.extend(
            format!(
                "trailer\n<</Size 6/Root 1 0 R\n/Info 5 0 R\n/ID [ <AA>\n<AA> ]\n/DocChecksum /BB\n>>\nstartxref\n{start}\n%%EOF\n"
            )
            .bytes(),
        );
        pdf
    }

    const STREAM: &str = "<</Length 4 0 R/Filter/FlateDecode>>\nstream\nhello world\nendstream";

    fn finished(content: &[u8], finish: &Finish) -> std::result::Result<Vec<u8>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output.pdf");
        std::fs::write(&path, content).unwrap();
        let deadline = Instant::now() + Duration::from_secs(600);
        super::finish(&path, finish, deadline).map_err(|error| error.to_string())?;
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "a file is left"
        );
        Ok(std::fs::read(&path).unwrap())
    }

    fn protected() -> Finish {
        Finish::Protected(Protection {
            user: Some(Password::new("x")),
            owner: None,
            permissions: Permissions {
                printing: Printing::High,
                changes: Changes::All,
                copying: true,
            },
        })
    }

    fn has(bytes: &[u8], text: &str) -> bool {
        find_last(bytes, text.as_bytes()).is_some()
    }

    #[test]
    fn a_reproducible_file_keeps_all_but_dates_and_identifiers() {
        let made = finished(&made(STREAM), &Finish::Reproducible).unwrap();
        for kept in [
            "/Note [<61286229202863292064><4A4B50>]",
            "hello world",
            "/Odd [/ 7]",
            "/Title <414243>",
            "/Length 11",
        ] {
            assert!(has(&made, kept), "{kept}: {}", String::from_utf8_lossy(&made));
        }
        assert!(has(&made, "(D:19700101000000Z)") && !has(&made, "2026"));
        assert!(!has(&made, "DocChecksum") && !has(&made, "<AA>"));
    }

    #[test]
    fn a_protected_file_has_no_string_and_no_stream_in_the_clear() {
        let made = finished(&made(STREAM), &protected()).unwrap();
        for gone in ["hello world", "414243", "4A4B50", "2026"] {
            assert!(!has(&made, gone), "{gone}");
        }
        assert!(has(&made, "/Encrypt 6 0 R") && has(&made, "/Length 32"));
    }

    /// What could carry something past the encryption, or is not LibreOffice's.
    #[test]
    fn what_is_not_as_libreoffice_writes_it_is_refused() {
        let text = |old: &str, new: &str| {
            let good = made(STREAM);
            let at = find_last(&good, old.as_bytes()).unwrap();
            [&good[..at], new.as_bytes(), &good[at + old.len()..]].concat()
        };
        for (content, why) in [
            (text("endobj\n2 0", "endobj 7 2 0"), "not the one"),
            (text("\n2 0 obj", "\n9 0 obj"), "not"),
            (text("/Size 6", "/Prev 9"), "more than"),
            (text("/Size 6", "/Encrypt 5 0 R"), "more than"),
            (text("%PDF-1.7", "%PDF-2.0"), "version"),
            (
                made("<</Length 11/Filter/Crypt>>\nstream\nhello world\nendstream"),
                "encrypted",
            ),
            (
                made("<</Length 11/Type/ObjStm>>\nstream\nhello world\nendstream"),
                "kind",
            ),
            (
                made("<</Length 11/F(other.pdf)>>\nstream\nhello world\nendstream"),
                "kind",
            ),
            (made("<</Length 10>>\nstream\nhello world\nendstream"), "keyword"),
            (made("<</Length 99999>>\nstream\nhello world\nendstream"), "read"),
            (made("<</Length 11>>\nendobj stream"), "not the one"),
        ] {
            for finish in [Finish::Reproducible, protected()] {
                let error = finished(&content, &finish).unwrap_err();
                assert!(
                    error.contains(why) || error.contains("where it should be"),
                    "{error} instead of {why}"
                );
            }
        }
    }

    /// A compromised child may write anything: no byte of damage may end in a panic or a wait.
    #[test]
    fn no_damage_panics() {
        let good = made(STREAM);
        for at in 0..good.len() {
            for byte in [0, b'9', b'<', b'(', b')', 0xff] {
                let mut damaged = good.clone();
                damaged[at] = byte;
                let _ = finished(&damaged, &Finish::Reproducible);
            }
            let _ = finished(&good[..at], &Finish::Reproducible);
        }
    }
}
