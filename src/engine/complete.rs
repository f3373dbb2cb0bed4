//! Whether an output that is no PDF is what it should be, from its first bytes to its last: a child's word is not enough.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::export::Format;
use super::pdf::{self, PdfError};

/// How a file of each format begins and ends.
/// Sources: PNG (ISO/IEC 15948, 5.2 and 11.2.5), JPEG (ISO/IEC 10918-1, B.1.1.3); text as LibreOffice writes it: with
/// the mark of UTF-8 first, and HTML with a document type and an end.
fn marks(format: Format) -> Option<(&'static [u8], &'static [u8])> {
    match format {
        Format::Pdf => None,
        Format::Png => Some((b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82")),
        Format::Jpg => Some((b"\xff\xd8\xff", b"\xff\xd9")),
        Format::Txt => Some((b"\xef\xbb\xbf", b"")),
        Format::Html => Some((b"<!DOCTYPE html", b"</html>")),
    }
}

/// Checks the file at `path`.
///
/// # Errors
/// It is missing, cut short, or of another format.
pub(super) fn check(format: Format, path: &Path) -> Result<(), PdfError> {
    let (head, tail) = marks(format).ok_or(PdfError::Malformed("a PDF has a check of its own"))?;
    let mut file = pdf::open(path)?;
    let size = file.metadata()?.len();
    let mut first = Vec::new();
    (&mut file).take(head.len() as u64).read_to_end(&mut first)?;
    if !first.eq_ignore_ascii_case(head) {
        return Err(PdfError::Malformed("it does not begin as its format does"));
    }
    // One line feed may follow the end.
    let room = tail.len() as u64 + 2;
    file.seek(SeekFrom::Start(size.saturating_sub(room)))?;
    let mut last = Vec::new();
    file.take(room).read_to_end(&mut last)?;
    if !last.trim_ascii_end().ends_with(tail) && !last.ends_with(tail) {
        return Err(PdfError::Malformed("it does not end as its format does"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_or_of_another_format_is_no_output() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output");
        let formats = [Format::Png, Format::Jpg, Format::Txt, Format::Html];
        for format in formats {
            let (head, tail) = marks(format).unwrap();
            let whole = [head, b" between ", tail].concat();
            std::fs::write(&path, &whole).unwrap();
            for other in formats {
                assert_eq!(check(other, &path).is_ok(), other == format, "{format:?} as {other:?}");
            }
            if !tail.is_empty() {
                std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
                assert!(check(format, &path).is_err(), "{format:?} cut short");
            }
            std::fs::write(&path, b"").unwrap();
            assert!(check(format, &path).is_err(), "{format:?} empty");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(check(Format::Txt, &path), Err(PdfError::Io(_))));
    }
}
