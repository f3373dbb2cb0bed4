//! Two columns of pages with the first one on the left, which LibreOffice 25.2 takes as an option and does not write.
//!
//! Its PDFs have one plain catalog, just before the table of cross-references. A name in there is exchanged for the other
//! one, a byte shorter and followed by a space: no offset moves (ISO 32000-1, 7.7.2, table 28).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The property of the export filter that asks for it.
pub(super) const PROPERTY: &str = "FirstPageOnLeft";

const RIGHT: &[u8] = b"/PageLayout/TwoColumnRight";
const LEFT: &[u8] = b"/PageLayout/TwoColumnLeft ";

/// How far before the cross-references the catalog may begin. It refers to all else, so it is short.
const REACH: u64 = 256 << 10;
/// The end of a PDF that says where the cross-references are.
const TRAILER: u64 = 1024;

/// Puts the first page of a PDF that LibreOffice has just written on the left.
///
/// # Errors
/// The file cannot be read or written, or is not as LibreOffice writes it.
pub(super) fn first_page_on_left(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let unexpected = || io::Error::new(io::ErrorKind::InvalidData, "the PDF has no catalog of two columns");
    let trailer = read(&file, size.saturating_sub(TRAILER), size)?;
    let at = last(&trailer, b"startxref").ok_or_else(unexpected)?;
    let table = std::str::from_utf8(&trailer[at..])
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .filter(|table| *table < size)
        .ok_or_else(unexpected)?;
    let from = table.saturating_sub(REACH);
    let before = read(&file, from, table)?;
    let catalog = last(&before, b"/Type/Catalog").ok_or_else(unexpected)?;
    let found = last(&before[catalog..], RIGHT).ok_or_else(unexpected)?;
    file.write_all_at(LEFT, from + (catalog + found) as u64)
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

fn last(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).rposition(|window| window == part)
}
