//! Whether an output that is no PDF is what it should be, from its first bytes to its last: a child's word is not enough.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Instant;

use super::format::{Check, Format};
use super::pdf::{self, PdfError};

/// Parts of a package that are looked at; a document of many pictures has some thousands.
const MOST_PARTS: usize = 50_000;
/// The most of a small part (bytes) that is read to be compared.
const SMALL: u64 = 1 << 20;

type Result<T> = std::result::Result<T, PdfError>;

/// Checks the file at `path`, and is done at `deadline`.
///
/// # Errors
/// It is missing, cut short, or of another format.
pub(super) fn check(format: Format, path: &Path, deadline: Instant) -> Result<()> {
    let mut file = pdf::open(path)?;
    let size = file.metadata()?.len();
    match *format.check() {
        Check::Pdf => Err(PdfError::Malformed("a PDF has a check of its own")),
        Check::Marks(head, tail) => marks(&mut file, size, head, tail),
        Check::OpenDocument(media_type) => package(file, "mimetype", deadline, |part| part == media_type.as_bytes()),
        Check::OpenXml(content_type) => package(file, "[Content_Types].xml", deadline, |part| {
            let quoted = format!("\"{content_type}\"");
            part.windows(quoted.len()).any(|window| window == quoted.as_bytes())
        }),
        Check::Compound(stream) => compound(file, stream, deadline),
        Check::Riff(form) => {
            let head = bytes::<12>(&mut file, 0)?;
            let length = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            whole(head.starts_with(b"RIFF") && head.ends_with(form) && length + 8 == size)
        }
        Check::Bitmap => bitmap(&bytes::<34>(&mut file, 0)?, size),
        Check::Tiff => tiff(&mut file, size),
        Check::EnhancedMetafile => {
            let head = bytes::<52>(&mut file, 0)?;
            let length = u64::from(u32::from_le_bytes([head[48], head[49], head[50], head[51]]));
            whole(head.starts_with(&[1, 0, 0, 0]) && &head[40..44] == b" EMF" && length == size)
        }
        Check::Database => {
            let [kind, _, _, _, r0, r1, r2, r3, h0, h1, l0, l1] = bytes::<12>(&mut file, 0)?;
            let (header, length) = (u16::from_le_bytes([h0, h1]), u16::from_le_bytes([l0, l1]));
            let records = u64::from(u32::from_le_bytes([r0, r1, r2, r3]));
            let wanted = u64::from(header) + records * u64::from(length);
            // A byte that ends the file may follow.
            whole(kind & 7 == 3 && (size == wanted || size == wanted + 1))
        }
    }
}

fn whole(yes: bool) -> Result<()> {
    if yes {
        Ok(())
    } else {
        Err(PdfError::Malformed("its length or its beginning is not its format's"))
    }
}

fn bytes<const COUNT: usize>(file: &mut File, from: u64) -> Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    file.seek(SeekFrom::Start(from))?;
    match file.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(PdfError::Malformed("it is cut short")),
        read => Ok(read.map(|()| bytes)?),
    }
}

/// How a file begins, without regard to case, and ends, but for white space.
fn marks(file: &mut File, size: u64, head: &[u8], tail: &[u8]) -> Result<()> {
    let mut first = Vec::new();
    file.take(head.len() as u64).read_to_end(&mut first)?;
    if !first.eq_ignore_ascii_case(head) {
        return Err(PdfError::Malformed("it does not begin as its format does"));
    }
    // Line ends, and the NUL that ends rich text, may follow the end.
    let room = tail.len() as u64 + 4;
    file.seek(SeekFrom::Start(size.saturating_sub(room)))?;
    let mut last = Vec::new();
    file.take(room).read_to_end(&mut last)?;
    let trimmed = last.trim_ascii_end();
    let trimmed = trimmed.strip_suffix(b"\0").unwrap_or(trimmed);
    if !trimmed.ends_with(tail) && !last.ends_with(tail) {
        return Err(PdfError::Malformed("it does not end as its format does"));
    }
    Ok(())
}

/// A zip package: every part inflates to its checksum, and one part says what it is.
fn package(file: File, name: &str, deadline: Instant, is_right: impl Fn(&[u8]) -> bool) -> Result<()> {
    let malformed = |_| PdfError::Malformed("it is no zip package");
    let unreadable = |_| PdfError::Malformed("a part of it cannot be read");
    let mut package = zip::ZipArchive::new(BufReader::new(file)).map_err(malformed)?;
    if package.len() > MOST_PARTS {
        return Err(PdfError::Malformed("it has too many parts"));
    }
    let mut found = false;
    for index in 0..package.len() {
        let mut part = package.by_index(index).map_err(malformed)?;
        if part.name().map_err(malformed)? == name {
            let mut content = Vec::new();
            (&mut part).take(SMALL).read_to_end(&mut content).map_err(unreadable)?;
            found = is_right(&content);
        }
        drain(&mut part, deadline)?;
    }
    if found {
        Ok(())
    } else {
        Err(PdfError::Malformed("it does not say that it is of its format"))
    }
}

/// A compound file: the stream that makes it what it is can be read to its end.
fn compound(file: File, stream: &str, deadline: Instant) -> Result<()> {
    let malformed = |_| PdfError::Malformed("it is no compound file");
    let mut compound = cfb::CompoundFile::open(BufReader::new(file)).map_err(malformed)?;
    let mut stream = compound.open_stream(stream).map_err(malformed)?;
    if stream.is_empty() {
        return Err(PdfError::Malformed("its main stream is empty"));
    }
    drain(&mut stream, deadline)
}

/// Reads to the end: a checksum that is wrong is an error there.
fn drain(from: &mut impl Read, deadline: Instant) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        if Instant::now() > deadline {
            return Err(PdfError::TooLong);
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) => return Err(PdfError::Malformed("a part of it does not inflate to its checksum")),
        }
    }
}

/// A Windows bitmap, whose own length LibreOffice writes as if every pixel had four bytes: its rows tell.
fn bitmap(head: &[u8; 34], size: u64) -> Result<()> {
    let number = |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let (width, height, bits) = (number(18), number(22), u64::from(head[28]));
    let row = (width * bits).div_ceil(32) * 4;
    let is_plain = number(30) == 0;
    whole(head.starts_with(b"BM") && (!is_plain || row.checked_mul(height) == size.checked_sub(number(10))))
}

/// TIFF: the header, and a first directory that lies in the file (TIFF 6.0, section 2).
fn tiff(file: &mut File, size: u64) -> Result<()> {
    let [a, b, c, d, offset @ ..] = bytes::<8>(file, 0)?;
    let little = match [a, b, c, d] {
        [b'I', b'I', 42, 0] => true,
        [b'M', b'M', 0, 42] => false,
        _ => return whole(false),
    };
    let at = u64::from(if little {
        u32::from_le_bytes(offset)
    } else {
        u32::from_be_bytes(offset)
    });
    let count = bytes::<2>(file, at)?;
    let entries = if little {
        u16::from_le_bytes(count)
    } else {
        u16::from_be_bytes(count)
    };
    whole(entries > 0 && at + 2 + u64::from(entries) * 12 + 4 <= size)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check_now(format: Format, path: &Path) -> Result<()> {
        check(format, path, Instant::now() + Duration::from_secs(10))
    }

    #[test]
    fn what_is_cut_short_or_of_another_format_is_no_output() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output");
        let formats = ["png", "jpg", "txt", "html", "rtf", "svg", "fodt"].map(|name| Format::of(name).unwrap());
        for format in formats {
            let Check::Marks(head, tail) = *format.check() else {
                panic!("{format:?} has no marks")
            };
            let whole = [head, b" between ", tail].concat();
            std::fs::write(&path, &whole).unwrap();
            assert!(check_now(format, &path).is_ok(), "{format:?}");
            for other in formats.into_iter().filter(|other| other.check() != format.check()) {
                assert!(check_now(other, &path).is_err(), "{format:?} as {other:?}");
            }
            if !tail.is_empty() {
                std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
                assert!(check_now(format, &path).is_err(), "{format:?} cut short");
            }
            std::fs::write(&path, b"").unwrap();
            assert!(check_now(format, &path).is_err(), "{format:?} empty");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(
            check_now(Format::of("txt").unwrap(), &path),
            Err(PdfError::Io(_))
        ));
    }
}
