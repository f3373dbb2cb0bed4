//! The characters that a PDF of LibreOffice's draws, as its fonts tell them.
//!
//! Each font that LibreOffice embeds says which characters its glyphs stand for (`/ToUnicode`, ISO 32000-2, 9.10.3). That is
//! every character that has a glyph of its own, and of those that share one, like the empty box, the first of each font. The
//! texts of the pages are not read: that would cost a page's time for each page.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use flate2::read::ZlibDecoder;
use memchr::memmem;

use super::finish::Table;
use super::lexer::Lexer;
use super::{PdfError, Result, open, read_some};

const TO_UNICODE: &[u8] = b"/ToUnicode ";
/// What is read of the file at once, and the most of ` 12345678 0 R` that may stand behind its end.
const CHUNK: usize = 32 << 10;
const OVERLAP: usize = 32;
/// Maps that are read: a font of a document has one for each 255 characters.
const MOST_MAPS: usize = 1000;
/// The most that is read of one, in bytes, as it is in the file and inflated: 255 characters take some eight thousand. Little
/// memory is touched on purpose: in a child each page of it is a fault.
const LARGEST_PACKED: u64 = 8 << 10;
const LARGEST_MAP: u64 = 64 << 10;

/// The characters that the fonts of the PDF at `path` stand for.
///
/// # Errors
/// It is not as LibreOffice writes it, or this is not done at `deadline`.
pub(in crate::engine) fn characters(path: &Path, deadline: Instant) -> Result<BTreeSet<char>> {
    let mut characters = BTreeSet::new();
    let maps = maps(path, deadline)?;
    if maps.is_empty() {
        return Ok(characters);
    }
    let table = Table::read(path, deadline)?;
    let file = open(path)?;
    for number in maps {
        let bytes = read_some(&file, table.offset(number)?, LARGEST_PACKED)?;
        let mut lexer = Lexer::new(&bytes);
        if lexer.number()? != number {
            return Err(PdfError::Malformed("an object is not the one that its table names"));
        }
        lexer.number()?;
        lexer.word(b"obj")?;
        let dictionary = Lexer::new(lexer.rest());
        let mut data = dictionary;
        data.stream_data()?;
        let filter = dictionary.entry(b"Filter").map(|mut filter| filter.name());
        let mut map = Vec::new();
        match filter {
            Ok(Some(b"FlateDecode")) => ZlibDecoder::new(data.rest()).take(LARGEST_MAP).read_to_end(&mut map)?,
            Ok(_) => return Err(PdfError::Malformed("a font's characters are compressed in another way")),
            Err(_) => data.rest().take(LARGEST_MAP).read_to_end(&mut map)?,
        };
        read_map(&map, &mut characters);
        if Instant::now() >= deadline {
            return Err(PdfError::TooLong);
        }
    }
    Ok(characters)
}

/// The numbers of the objects that say which characters glyphs stand for. Found by looking through the file: LibreOffice
/// writes the dictionaries of fonts in the clear, and a walk through pages and their resources would read more of it.
fn maps(path: &Path, deadline: Instant) -> Result<BTreeSet<u64>> {
    let mut file = open(path)?;
    let finder = memmem::Finder::new(TO_UNICODE);
    let (mut maps, mut bytes) = (BTreeSet::new(), Vec::new());
    loop {
        let before = bytes.len();
        (&mut file).take(CHUNK as u64).read_to_end(&mut bytes)?;
        let at_end = bytes.len() == before;
        // What begins too near to the end is found when there is more of it.
        let sure = if at_end {
            bytes.len()
        } else {
            bytes.len().saturating_sub(OVERLAP)
        };
        for at in finder.find_iter(&bytes).filter(|at| *at < sure) {
            // The same letters may stand in a picture.
            if let Ok(number) = Lexer::new(&bytes[at + TO_UNICODE.len()..]).reference() {
                maps.insert(number);
            }
            if maps.len() >= MOST_MAPS {
                return Ok(maps);
            }
        }
        if at_end {
            return Ok(maps);
        }
        if Instant::now() >= deadline {
            return Err(PdfError::TooLong);
        }
        bytes.drain(..sure);
    }
}

/// The second of each pair in `<01> <0048>` between `beginbfchar` and `endbfchar`: UTF-16 of one glyph.
fn read_map(map: &[u8], characters: &mut BTreeSet<char>) {
    let mut words = map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    while words.by_ref().any(|word| word == b"beginbfchar") {
        while let (Some(code), Some(text)) = (words.next(), words.next()) {
            if code == b"endbfchar" {
                break;
            }
            let digits = text.strip_prefix(b"<").and_then(|text| text.strip_suffix(b">"));
            let units = digits.unwrap_or_default().chunks_exact(4).map_while(unit);
            characters.extend(char::decode_utf16(units).filter_map(std::result::Result::ok));
        }
    }
}

/// Four hexadecimal digits.
fn unit(digits: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    u16::from_str_radix(text?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    const MAP: &str = "begincmap 1 begincodespacerange <00> <FF> endcodespacerange\n3 beginbfchar\n<01> <0048>\n<02> <00660069>\n\
        <03> <D83DDE00>\nendbfchar\n2 beginbfchar\n<04> <6F22>\n<05> <D83D>\nendbfchar\nendcmap";

    /// A PDF with a picture and, behind it, a font whose characters are these; compressed as LibreOffice does it.
    fn made(picture: usize, map: &str) -> Vec<u8> {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(map.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        let mut pdf = b"%PDF-1.7\n".to_vec();
        let mut table = String::from("xref\n0 6\n0000000000 65535 f \n");
        let objects: [(String, &[u8]); 5] = [
            ("<</Type/Catalog>>".to_owned(), b""),
            (format!("<</Length {picture}>>"), &vec![b'x'; picture]),
            ("<</Type/Font\n/ToUnicode 4 0 R>>".to_owned(), b""),
            ("<</Length 5 0 R/Filter/FlateDecode>>".to_owned(), &packed),
            (packed.len().to_string(), b""),
        ];
        for (number, (object, stream)) in objects.iter().enumerate() {
            table.push_str(&format!("{:010} 00000 n \n", pdf.len()));
            pdf.extend(format!("{} 0 obj\n{object}\n", number + 1).bytes());
            if !stream.is_empty() {
                pdf.extend([b"stream\n", *stream, b"\nendstream\n"].concat());
            }
            pdf.extend(b"endobj\n");
        }
        let start = pdf.len();
        pdf.extend(format!("{table}trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n").bytes());
        pdf
    }

    fn characters_of(content: &[u8]) -> std::result::Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let deadline = Instant::now() + Duration::from_secs(600);
        let found = characters(file.path(), deadline).map_err(|error| error.to_string())?;
        Ok(found.into_iter().collect())
    }

    #[test]
    fn all_characters_of_all_parts_of_a_map_are_read() {
        assert_eq!(characters_of(&made(1, MAP)), Ok("Hfi\u{6f22}\u{1f600}".to_owned()));
        let mut without = made(1, MAP);
        let at = memmem::find(&without, TO_UNICODE).unwrap();
        without[at..at + 4].copy_from_slice(b"/At/");
        assert_eq!(characters_of(&without), Ok(String::new()));
    }

    /// Wherever the reference stands in what is read at once.
    #[test]
    fn a_reference_across_two_reads_is_found_once() {
        let before = memmem::find(&made(1, MAP), TO_UNICODE).unwrap();
        for at in [
            CHUNK - OVERLAP - 1,
            CHUNK - OVERLAP,
            CHUNK - 12,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
        ] {
            // The length of the picture is written as well: one digit before, five here.
            let pdf = made(at - before - 4 + 1, MAP);
            assert_eq!(memmem::find(&pdf, TO_UNICODE), Some(at));
            assert_eq!(characters_of(&pdf), Ok("Hfi\u{6f22}\u{1f600}".to_owned()), "{at}");
        }
    }

    #[test]
    fn what_inflates_without_end_is_cut() {
        let bomb = format!("1 beginbfchar <01> <0041> {}<02> <0042> endbfchar", " ".repeat(8 << 20));
        assert_eq!(characters_of(&made(1, &bomb)), Ok("A".to_owned()));
    }

    /// The file is the child's own, but its document may have written it.
    #[test]
    fn no_damage_panics() {
        let good = made(1, MAP);
        for at in 0..good.len() {
            for byte in [0, b'9', b'<', b'/', 0xff] {
                let mut damaged = good.clone();
                damaged[at] = byte;
                let _ = characters_of(&damaged);
            }
            let _ = characters_of(&good[..at]);
        }
    }
}
