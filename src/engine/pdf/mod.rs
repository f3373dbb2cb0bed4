//! Reads how many pages a PDF has, from a file that a compromised process may have written.
//!
//! Memory and time are bounded whatever the file says: no table of its objects is built, and nothing larger than
//! [`LARGEST_OBJECT`] is read at once. It follows ISO 32000-2, 7.5: the end of the file names the cross-reference
//! section, that names the catalog, that names the page tree's root, that has the `/Count`.
//! (The crate `lopdf` reads a file whole into memory and brings a hundred packages.)

mod characters;
mod finish;
mod lexer;
mod predictor;
mod protect;
mod tokens;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use flate2::read::ZlibDecoder;
use lexer::Lexer;
use predictor::Unpredicted;

pub(super) use characters::characters;
pub use finish::Finish;
pub(super) use finish::finish;
pub use protect::{Changes, Permissions, Printing, Protection};

/// The most that is read of one object: a catalog or a page tree's root is a few hundred bytes.
const LARGEST_OBJECT: u64 = 1 << 20;
/// Sections that one look-up goes through: LibreOffice writes one, every tool that appends adds one.
const MOST_SECTIONS: usize = 64;
/// Bytes that may be read and inflated in all: so many, and so many times the file's size, at most.
const WORK: (u64, u64, u64) = (32 << 20, 2, 256 << 20);
/// What one read costs beside its bytes.
const READ_COST: u64 = 1024;
/// Where `startxref` and `%%EOF` are, with white space after them.
const TAIL: u64 = 2048;

/// Why a file is no PDF that can be handed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PdfError {
    /// It cannot be read, or is no regular file.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not what a PDF must be; where it is not.
    #[error("is not whole: {0}")]
    Malformed(&'static str),
    /// It could not be checked in the time there was.
    #[error("takes too long to check")]
    TooLong,
}

type Result<T> = std::result::Result<T, PdfError>;

/// Opens a file that a child wrote: never through a link, never anything but a regular file that exists once.
///
/// # Errors
/// It is not there, or something else.
pub(super) fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(PdfError::Malformed("it is not one regular file"));
    }
    Ok(file)
}

/// How many pages the file at `path` has, at least one.
///
/// # Errors
/// It is missing, cut short, or no PDF; or it is not done at `deadline`.
pub(super) fn pages(path: &Path, deadline: Instant) -> Result<u64> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    let mut head = [0; 5];
    let read = file.read_at(&mut head, 0)?;
    if &head[..read] != b"%PDF-" {
        return Err(PdfError::Malformed("it does not start with %PDF-"));
    }
    let tail = read_some(&file, size.saturating_sub(TAIL), TAIL)?;
    let trimmed = tail.trim_ascii_end();
    if !trimmed.ends_with(b"%%EOF") {
        return Err(PdfError::Malformed("it does not end with %%EOF"));
    }
    let start = find_last(trimmed, b"startxref").ok_or(PdfError::Malformed("it names no cross-reference section"))?;
    let start = Lexer::new(&trimmed[start + b"startxref".len()..]).number()?;

    let document = Document {
        file: &file,
        size,
        work: Work::of(size, deadline),
    };
    let root = document.root(start)?;
    let catalog = document.object(start, root, 0)?;
    let tree = Lexer::new(&catalog).entry(b"Pages")?.reference()?;
    let tree = document.object(start, tree, 0)?;
    match Lexer::new(&tree).entry(b"Count")?.number()? {
        0 => Err(PdfError::Malformed("it has no page")),
        pages => Ok(pages),
    }
}

/// A file and where things are in it.
struct Document<'a> {
    file: &'a File,
    size: u64,
    work: Work,
}

/// What may still be done for one file: it may say that a byte of it is a gigabyte, or lead in circles.
struct Work {
    left: Cell<u64>,
    deadline: Instant,
}

impl Work {
    fn of(size: u64, deadline: Instant) -> Self {
        let (least, times, most) = WORK;
        Self {
            left: Cell::new(size.saturating_mul(times).saturating_add(least).min(most)),
            deadline,
        }
    }

    fn spend(&self, bytes: u64) -> Result<()> {
        if Instant::now() >= self.deadline {
            return Err(PdfError::TooLong);
        }
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.map(drop)
            .ok_or(PdfError::Malformed("it takes more work than a file of its size should"))
    }
}

/// Where an object is.
enum Place {
    /// At an offset of the file.
    Offset(u64),
    /// In an object stream.
    Stream { number: u64 },
}

/// A cross-reference section's dictionary, and what kind of section it is.
struct Section {
    /// From the `<<` on.
    dictionary: Vec<u8>,
    /// Where a stream's bytes begin; `None` for a table.
    data: Option<u64>,
}

impl Document<'_> {
    /// The catalog's object number: the newest section that has a `/Root` tells.
    fn root(&self, start: u64) -> Result<u64> {
        let section = self.section(start)?;
        Lexer::new(&section.dictionary).entry(b"Root")?.reference()
    }

    /// The bytes of an object from its value on, no more than [`LARGEST_OBJECT`].
    fn object(&self, start: u64, number: u64, depth: usize) -> Result<Vec<u8>> {
        if depth > 1 {
            return Err(PdfError::Malformed("its object streams are nested"));
        }
        let mut at = Some(start);
        let mut seen = Vec::new();
        while let Some(offset) = at {
            if seen.len() == MOST_SECTIONS || seen.contains(&offset) {
                return Err(PdfError::Malformed("its cross-reference sections do not end"));
            }
            seen.push(offset);
            let section = self.section(offset)?;
            let place = match section.data {
                None => self.in_table(offset, number)?,
                Some(data) => self.in_stream(&section.dictionary, data, number)?,
            };
            match place {
                Some(Place::Offset(offset)) => return self.object_at(offset, number),
                Some(Place::Stream { number: stream }) => return self.object_in(start, stream, number, depth),
                None => {}
            }
            // A hybrid file's table hides further objects in a stream; then comes the section before.
            let dictionary = Lexer::new(&section.dictionary);
            if let Ok(mut entry) = Lexer::new(&section.dictionary).entry(b"XRefStm") {
                let stream = self.section(entry.number()?)?;
                if let Some(data) = stream.data
                    && let Some(Place::Stream { number: stream }) = self.in_stream(&stream.dictionary, data, number)?
                {
                    return self.object_in(start, stream, number, depth);
                }
            }
            at = dictionary.entry(b"Prev").and_then(|mut entry| entry.number()).ok();
        }
        Err(PdfError::Malformed("an object that it needs is not in it"))
    }

    /// Reads the section at an offset.
    fn section(&self, offset: u64) -> Result<Section> {
        let head = self.read(offset, 4)?;
        if head == b"xref" {
            let trailer = self.subsections(offset, |_, _, _| None::<()>)?.1;
            return Ok(Section {
                dictionary: self.read(trailer, LARGEST_OBJECT)?,
                data: None,
            });
        }
        let bytes = self.read(offset, LARGEST_OBJECT)?;
        let mut lexer = Lexer::new(&bytes);
        lexer.number()?;
        lexer.number()?;
        lexer.word(b"obj")?;
        let begin = lexer.at;
        let data = lexer.stream_data()?;
        Ok(Section {
            dictionary: bytes[begin..].to_vec(),
            data: offset.checked_add(data),
        })
    }

    /// Goes through a table's subsections. `visit` gets the first object number, the count, and the offset of the first
    /// of its 20-byte entries; what it finds first ends the walk. Also answers where the trailer's dictionary begins,
    /// when the walk came so far.
    fn subsections<T>(&self, table: u64, visit: impl Fn(u64, u64, u64) -> Option<T>) -> Result<(Option<T>, u64)> {
        const FAR: PdfError = PdfError::Malformed("its cross-reference table is longer than the file");
        let mut at = table.checked_add(4).ok_or(FAR)?;
        loop {
            let bytes = self.read(at, 64)?;
            let mut lexer = Lexer::new(&bytes);
            if lexer.word(b"trailer").is_ok() {
                return Ok((None, at.checked_add(lexer.at as u64).ok_or(FAR)?));
            }
            let (first, count) = (lexer.number()?, lexer.number()?);
            lexer.skip_space();
            let entries = at.checked_add(lexer.at as u64).ok_or(FAR)?;
            if let Some(found) = visit(first, count, entries) {
                return Ok((Some(found), 0));
            }
            at = count
                .checked_mul(20)
                .and_then(|length| entries.checked_add(length))
                .filter(|&next| next > at && next < self.size)
                .ok_or(FAR)?;
        }
    }

    fn in_table(&self, table: u64, number: u64) -> Result<Option<Place>> {
        let (found, _) = self.subsections(table, |first, count, entries| {
            (first..first.saturating_add(count)).contains(&number).then(|| {
                (number - first)
                    .checked_mul(20)
                    .and_then(|before| entries.checked_add(before))
            })
        })?;
        let Some(entry) = found else { return Ok(None) };
        let entry = entry.ok_or(PdfError::Malformed("its cross-reference table is longer than the file"))?;
        let entry = self.read(entry, 20)?;
        let mut lexer = Lexer::new(&entry);
        let (offset, _) = (lexer.number()?, lexer.number()?);
        Ok(lexer.word(b"n").is_ok().then_some(Place::Offset(offset)))
    }

    fn in_stream(&self, dictionary: &[u8], data: u64, number: u64) -> Result<Option<Place>> {
        let widths = Lexer::new(dictionary).entry(b"W")?.numbers()?;
        let &[kind, second, third] = widths.as_slice() else {
            return Err(PdfError::Malformed("its cross-reference stream has no three widths"));
        };
        if [kind, second, third].iter().any(|&width| width > 8) {
            return Err(PdfError::Malformed("its cross-reference stream has a width over 8"));
        }
        let index = match Lexer::new(dictionary).entry(b"Index") {
            Ok(mut entry) => entry.numbers()?,
            Err(_) => vec![0, Lexer::new(dictionary).entry(b"Size")?.number()?],
        };
        let mut before = 0_u64;
        for pair in index.chunks_exact(2) {
            if (pair[0]..pair[0].saturating_add(pair[1])).contains(&number) {
                let width = kind + second + third;
                let mut rows = self.decoded(dictionary, data)?;
                let skip = before
                    .checked_add(number - pair[0])
                    .and_then(|rows| rows.checked_mul(width));
                let skip = skip.ok_or(PdfError::Malformed("its cross-reference stream is too long"))?;
                self.skip(&mut rows, skip)?;
                let mut field = |width: u64| -> Result<u64> {
                    let mut value = 0;
                    for _ in 0..width {
                        let mut byte = [0];
                        rows.read_exact(&mut byte)?;
                        value = value << 8 | u64::from(byte[0]);
                    }
                    Ok(value)
                };
                let entry_kind = if kind == 0 { 1 } else { field(kind)? };
                let value = field(second)?;
                return Ok(match entry_kind {
                    1 => Some(Place::Offset(value)),
                    2 => Some(Place::Stream { number: value }),
                    _ => None,
                });
            }
            before = before.saturating_add(pair[1]);
        }
        Ok(None)
    }

    /// Inflates, and pays for, what comes before something.
    fn skip(&self, rows: &mut dyn Read, mut count: u64) -> Result<()> {
        let mut chunk = [0; 8192];
        while count > 0 {
            let wanted = usize::try_from(count).unwrap_or(chunk.len()).min(chunk.len());
            self.work.spend(wanted as u64)?;
            rows.read_exact(&mut chunk[..wanted])?;
            count -= wanted as u64;
        }
        Ok(())
    }

    fn object_at(&self, offset: u64, number: u64) -> Result<Vec<u8>> {
        let bytes = self.read(offset, LARGEST_OBJECT)?;
        let mut lexer = Lexer::new(&bytes);
        if lexer.number()? != number {
            return Err(PdfError::Malformed("an object is not where it should be"));
        }
        lexer.number()?;
        lexer.word(b"obj")?;
        Ok(bytes[lexer.at..].to_vec())
    }

    fn object_in(&self, start: u64, stream: u64, number: u64, depth: usize) -> Result<Vec<u8>> {
        // The stream itself is never inside another.
        let dictionary = self.object(start, stream, depth + 1)?;
        let mut lexer = Lexer::new(&dictionary);
        let inside = lexer.stream_data()?;
        let (first, count) = (
            Lexer::new(&dictionary).entry(b"First")?.number()?,
            Lexer::new(&dictionary).entry(b"N")?.number()?,
        );
        let mut bytes = Vec::new();
        self.work.spend(LARGEST_OBJECT)?;
        let compressed =
            io::Cursor::new(&dictionary[usize::try_from(inside).unwrap_or(usize::MAX).min(dictionary.len())..]);
        ZlibDecoder::new(compressed)
            .take(LARGEST_OBJECT)
            .read_to_end(&mut bytes)?;
        let mut lexer = Lexer::new(&bytes);
        for _ in 0..count {
            let (found, offset) = (lexer.number()?, lexer.number()?);
            if found == number {
                let at = first.checked_add(offset).and_then(|at| usize::try_from(at).ok());
                return at
                    .and_then(|at| bytes.get(at..))
                    .map(<[u8]>::to_vec)
                    .ok_or(PdfError::Malformed("an object stream is too short"));
            }
        }
        Err(PdfError::Malformed(
            "an object is not in the stream that should hold it",
        ))
    }

    /// A cross-reference stream's rows, decompressed as they are read.
    fn decoded(&self, dictionary: &[u8], data: u64) -> Result<Box<dyn Read>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(data))?;
        let raw = BufReader::new(file);
        let Ok(mut filter) = Lexer::new(dictionary).entry(b"Filter") else {
            return Ok(Box::new(raw));
        };
        if filter.name().is_none_or(|name| name != b"FlateDecode") {
            return Err(PdfError::Malformed("its cross-reference stream is not FlateDecode"));
        }
        let rows = BufReader::new(ZlibDecoder::new(raw));
        let Ok(parameters) = Lexer::new(dictionary).entry(b"DecodeParms") else {
            return Ok(Box::new(rows));
        };
        let parameters = parameters.rest();
        let predictor = Lexer::new(parameters)
            .entry(b"Predictor")
            .and_then(|mut entry| entry.number())
            .unwrap_or(1);
        let columns = Lexer::new(parameters)
            .entry(b"Columns")
            .and_then(|mut entry| entry.number())
            .unwrap_or(1);
        match predictor {
            1 => Ok(Box::new(rows)),
            10..=15 if (1..=64).contains(&columns) => Ok(Box::new(Unpredicted::new(rows, columns))),
            _ => Err(PdfError::Malformed(
                "its cross-reference stream has a predictor that none writes",
            )),
        }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        if offset >= self.size {
            return Err(PdfError::Malformed("it points behind its own end"));
        }
        self.work
            .spend(length.min(self.size - offset).saturating_add(READ_COST))?;
        read_some(self.file, offset, length)
    }
}

fn find_last(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).rposition(|window| window == wanted)
}

/// Reads up to `length` bytes, fewer only at the end of the file.
fn read_some(file: &File, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    while (bytes.len() as u64) < length {
        let wanted = usize::try_from(length - bytes.len() as u64)
            .unwrap_or(chunk.len())
            .min(chunk.len());
        match file.read_at(&mut chunk[..wanted], offset + bytes.len() as u64)? {
            0 => break,
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// A PDF of `pages` empty pages with a cross-reference table.
    fn made(pages: usize) -> String {
        let kids: String = (0..pages).map(|page| format!("{} 0 R ", page + 3)).collect();
        let mut objects = vec![
            "<</Type/Catalog/Lang(en\\) /Pages 9 0 R)/Names<</Pages 9 0 R>>/Pages 2 0 R>>".to_owned(),
            format!("<</Type/Pages/Kids[{kids}]/Count {pages}>>"),
        ];
        objects.extend((0..pages).map(|_| "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>".to_owned()));
        let mut pdf = String::from("%PDF-1.7\n");
        let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
        for (number, object) in objects.iter().enumerate() {
            writeln!(table, "{:010} 00000 n ", pdf.len()).unwrap();
            write!(pdf, "{} 0 obj\n{object}\nendobj\n", number + 1).unwrap();
        }
        let start = pdf.len();
        write!(
            pdf,
            "{table}trailer\n<</Size {}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n",
            objects.len() + 1
        )
        .unwrap();
        pdf
    }

    fn pages_of(content: &[u8]) -> std::result::Result<u64, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        pages(file.path(), far()).map_err(|error| error.to_string())
    }

    /// No deadline that a test meets.
    fn far() -> Instant {
        Instant::now() + std::time::Duration::from_secs(600)
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    /// A PDF with a catalog and a page tree in an object stream, and a cross-reference stream whose dictionary has
    /// these entries, and this content in place of its own.
    fn packed(entries: &str, content: Option<&[u8]>) -> Vec<u8> {
        let mut pdf = b"%PDF-1.7\n".to_vec();
        let objects = "1 0 2 33 <</Type/Catalog/Pages 2 0 R    >><</Type/Pages/Kids[]/Count 4>>";
        let objects = compressed(objects.replacen(" <<", "\n<<", 1).as_bytes());
        let stream = pdf.len();
        pdf.extend(
            format!(
                "3 0 obj\n<</Type/ObjStm/N 2/First 9/Filter/FlateDecode/Length {}>>stream\n",
                objects.len()
            )
            .bytes(),
        );
        pdf.extend(objects);
        pdf.extend(b"\nendstream endobj\n");
        let start = pdf.len();
        let mut rows = Vec::new();
        for (kind, place, index) in [(0, 0, 0), (2, 3, 0), (2, 3, 1), (1, stream, 0)] {
            rows.extend([
                kind,
                u8::try_from(place >> 8).unwrap(),
                u8::try_from(place & 255).unwrap(),
                index,
            ]);
        }
        let rows = compressed(content.unwrap_or(&rows));
        pdf.extend(
            format!(
                "4 0 obj\n<</Type/XRef/Root 1 0 R/W[1 2 1]/Filter/FlateDecode{entries}/Length {}>>stream\n",
                rows.len()
            )
            .bytes(),
        );
        pdf.extend(rows);
        pdf.extend(format!("\nendstream endobj\nstartxref\n{start}\n%%EOF").bytes());
        pdf
    }

    #[test]
    fn streams_are_read_without_a_tool() {
        assert_eq!(pages_of(&packed("/Size 4", None)), Ok(4));
    }

    #[test]
    fn numbers_near_the_largest_do_not_overflow() {
        for index in [
            "5 18446744073709551615 1 3",
            "18446744073709551615 18446744073709551615 1 3",
            "0 1 0 18446744073709551615",
        ] {
            let content = packed(&format!("/Index[{index}]/Size 4"), None);
            let _ = pages_of(&content);
        }
        let far = made(3).replace("xref\n0 6", "xref\n0 18446744073709551615");
        assert!(pages_of(far.as_bytes()).is_err());
    }

    /// A few kilobytes that inflate to gigabytes, looked through once for each of 64 sections, would hold a thread for
    /// minutes.
    #[test]
    fn work_is_bounded() {
        let bomb = packed("/Index[5 99999999 1 3]/Size 4", Some(&vec![0; 48 << 20]));
        let error = pages_of(&bomb).unwrap_err();
        assert!(error.contains("more work"), "{error}");
        let text = made(3);
        let start: usize = text
            .rsplit("startxref\n")
            .next()
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let circle = text
            .replace("0 6\n", "9 6\n")
            .replace("/Root 1 0 R", &format!("/Root 1 0 R/Prev {start}"));
        let error = pages_of(circle.as_bytes()).unwrap_err();
        assert!(error.contains("do not end"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made(3)).unwrap();
        assert!(matches!(pages(file.path(), Instant::now()), Err(PdfError::TooLong)));
    }

    #[test]
    fn pages_are_counted_from_a_table() {
        assert_eq!(pages_of(made(3).as_bytes()), Ok(3));
        assert_eq!(
            pages_of(format!("{}\r\n\n ", made(3)).as_bytes()),
            Ok(3),
            "white space may follow"
        );
    }

    /// qpdf writes the other forms: object streams, and cross-reference streams with PNG predictors.
    #[test]
    fn pages_are_counted_from_object_streams() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, packed) = (directory.path().join("plain.pdf"), directory.path().join("packed.pdf"));
        std::fs::write(&plain, made(40)).unwrap();
        for options in [
            &["--object-streams=generate"][..],
            &["--object-streams=generate", "--linearize"],
        ] {
            match std::process::Command::new("qpdf")
                .args(options)
                .arg(&plain)
                .arg(&packed)
                .status()
            {
                Err(_) => println!("skipped: qpdf is not installed"),
                Ok(status) => {
                    assert!(status.success());
                    assert!(
                        std::fs::read(&packed)
                            .unwrap()
                            .windows(6)
                            .any(|bytes| bytes == b"ObjStm")
                    );
                    assert_eq!(
                        pages(&packed, far()).map_err(|error| error.to_string()),
                        Ok(40),
                        "{options:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_appended_section_wins_and_the_one_before_still_serves() {
        let mut pdf = made(3);
        let before = pdf.rfind("startxref\n").unwrap() + "startxref\n".len();
        let before: usize = pdf[before..].lines().next().unwrap().parse().unwrap();
        let tree = pdf.len();
        pdf.push_str("2 0 obj\n<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>\nendobj\n");
        let start = pdf.len();
        write!(
            pdf,
            "xref\n2 1\n{tree:010} 00000 n \ntrailer\n<</Size 6/Root 1 0 R/Prev {before}>>\nstartxref\n{start}\n%%EOF"
        )
        .unwrap();
        assert_eq!(pages_of(pdf.as_bytes()), Ok(2));
    }

    #[test]
    fn what_is_no_whole_pdf_is_refused() {
        let good = made(3);
        let refused = [
            (String::new(), "start with %PDF-"),
            (good[1..].to_owned(), "start with %PDF-"),
            (good[..good.len() - 9].to_owned(), "end with %%EOF"),
            (made(0), "no page"),
            (
                good.replace("startxref", "startxxxx"),
                "names no cross-reference section",
            ),
            (good.replace("/Root 1", "/Root 77"), "not in it"),
            (
                good.replace("0 6\n0000000000", "0 99999999\n0000000000")
                    .replace("/Root 1", "/Root 0"),
                "longer than",
            ),
            (good.replace("/Count 3", "/Count -3"), "number"),
            (good.replace("/Count 3", "/Count 99999999999999999999999"), "number"),
        ];
        for (content, why) in refused {
            let error = pages_of(content.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error} instead of {why}");
        }
    }

    /// A compromised child may write anything: no byte of damage may end in a panic or a wait.
    #[test]
    fn no_damage_panics() {
        for good in [made(3).into_bytes(), packed("/Index[0 4]/Size 4", None)] {
            for at in 0..good.len() {
                for byte in [0, b'9', b'<', b'(', 0xff] {
                    let mut damaged = good.clone();
                    damaged[at] = byte;
                    let _ = pages_of(&damaged);
                }
            }
        }
    }

    #[test]
    fn links_and_pipes_are_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file.pdf"), directory.path().join("link.pdf"));
        std::fs::write(&file, made(1)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(pages(&link, far()).is_err(), "a symbolic link");
        std::fs::hard_link(&file, directory.path().join("second.pdf")).unwrap();
        assert!(pages(&file, far()).is_err(), "a second name");
        let pipe = directory.path().join("pipe.pdf");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(pages(&pipe, far()).is_err(), "a pipe");
    }
}
