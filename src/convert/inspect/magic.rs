//! Formats that are told by the bytes they begin with: pictures, and documents of programs that are gone.
//!
//! LibreOffice's own recognition of these is in `vcl/source/filter/graphicfilter2.cxx` and in the libraries that read
//! them (libwpd, libwps, libcdr...). Where a few bytes would not do, the name has to agree.

use super::Format;

/// What the beginning of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Magic {
    /// Nothing else begins like this: content beats the name.
    Certain(Format),
    /// Few bytes, which other files may have: the name must promise it.
    Likely(Format),
    /// gzip data: what is in it decides.
    Gzip,
    /// WordPerfect's prefix with its encryption key set.
    Encrypted,
    /// Known, and known not to be a document that is taken.
    Refused(&'static str),
}

const CERTAIN: [(&[u8], Format); 24] = [
    (b"\x89PNG\r\n\x1a\n", Format::Png),
    (b"\xff\xd8\xff", Format::Jpg),
    (b"GIF87a", Format::Gif),
    (b"GIF89a", Format::Gif),
    (b"II*\0", Format::Tif),
    (b"MM\0*", Format::Tif),
    (b"\xd7\xcd\xc6\x9a\0\0", Format::Wmf),
    (b"\x01\0\x09\0\0\x03", Format::Wmf),
    (b"VCLMTF", Format::Svm),
    (b"8BPS\0\x01", Format::Psd),
    (b"\x59\xa6\x6a\x95", Format::Ras),
    (b"WordPro", Format::Lwp),
    (b"HWP Document File V", Format::Hwp),
    (br"{\pwi", Format::Psw),
    // The beginning of a sheet of Lotus 1-2-3 (releases 1A to 97), of Quattro Pro and of Works ([libwps]).
    (b"\0\0\x02\0\x04\x04", Format::Wk1),
    (b"\0\0\x02\0\x06\x04", Format::Wk1),
    (b"\0\0\x1a\0\0\x10", Format::Wk1),
    (b"\0\0\x1a\0\x02\x10", Format::Wk1),
    (b"\0\0\x1a\0\x03\x10", Format::Wk1),
    (b"\0\0\x02\0\x20\x51", Format::Wb2),
    (b"\0\0\x02\0\x21\x51", Format::Wb2),
    (b"\0\0\x02\0\x01\x10", Format::Wb2),
    (b"\0\0\x02\0\x02\x10", Format::Wb2),
    (b"\xff\0\x02\0\x04\x04", Format::Wks),
];

const REFUSED: [(&[u8], &str); 8] = [
    (b"%PDF-", "a PDF already"),
    (b"%!PS", "PostScript, which is a program"),
    (b"\xc5\xd0\xd3\xc6", "PostScript, which is a program"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
];

impl Magic {
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        if let Some((_, format)) = CERTAIN.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Some(Self::Certain(*format));
        }
        if let Some((_, what)) = REFUSED.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Some(Self::Refused(what));
        }
        let at = |from: usize, wanted: &[u8]| head.get(from..).is_some_and(|rest| rest.starts_with(wanted));
        if head.starts_with(b"\x1f\x8b\x08") {
            return Some(Self::Gzip);
        }
        if head.starts_with(b"RIFF") {
            return match head.get(8..11)? {
                b"WEB" if at(11, b"P") => Some(Self::Certain(Format::Webp)),
                b"CDR" => Some(Self::Certain(Format::Cdr)),
                b"CMX" => Some(Self::Certain(Format::Cmx)),
                _ => None,
            };
        }
        if head.starts_with(b"\x01\0\0\0") && at(40, b" EMF") {
            return Some(Self::Certain(Format::Emf));
        }
        if let (b"\xffWPC", Some(&[_, file_type])) = (head.get(..4)?, head.get(8..10)) {
            // Bytes 12 and 13: the key of an encrypted file (WordPerfect File Format SDK, "prefix").
            return match (file_type, head.get(12..14)?) {
                (_, key) if key != [0, 0] => Some(Self::Encrypted),
                (0x0a, _) => Some(Self::Certain(Format::Wpd)),
                (0x16, _) => Some(Self::Certain(Format::Wpg)),
                _ => None,
            };
        }
        if let Some(kind) = head.get(60..68) {
            match kind {
                b"TEXtREAd" => return Some(Self::Certain(Format::Pdb)),
                b"DataPlkr" => return Some(Self::Certain(Format::Plucker)),
                _ => {}
            }
        }
        if at(2048, b"PCD_") {
            return Some(Self::Certain(Format::Pcd));
        }
        // QuickDraw after its 512 empty bytes: the size, the frame, and the version's operation.
        if at(522, b"\x11\x01") || at(522, b"\0\x11\x02\xff") {
            return Some(Self::Likely(Format::Pct));
        }
        likely(head).map(Self::Likely)
    }
}

fn likely(head: &[u8]) -> Option<Format> {
    match head {
        // The size of the header that follows is one of a few.
        [b'B', b'M', ..] if matches!(head.get(14..18), Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])) => {
            Some(Format::Bmp)
        }
        [b'P', b'4', space, ..] if space.is_ascii_whitespace() => Some(Format::Pbm),
        [b'P', b'5', space, ..] if space.is_ascii_whitespace() => Some(Format::Pgm),
        [b'P', b'6', space, ..] if space.is_ascii_whitespace() => Some(Format::Ppm),
        [0x0a, 0 | 2..=5, 1, 1 | 2 | 4 | 8, ..] => Some(Format::Pcx),
        // Excel before compound files: the beginning of a sheet of BIFF 2, 3 and 4.
        [0x09, 0 | 2 | 4, 4 | 6, 0, _, _, 0x10 | 0x20 | 0x40, 0, ..] => Some(Format::Biff),
        _ if is_dbase(head) => Some(Format::Dbf),
        _ if is_targa(head) => Some(Format::Tga),
        _ => None,
    }
}

/// A dBase table: its version, the date of its last change, and a header that has room for whole fields.
fn is_dbase(head: &[u8]) -> bool {
    let &[version, _, month, day, _, _, _, _, low, high, ..] = head else {
        return false;
    };
    let header = u16::from_le_bytes([low, high]);
    matches!(version, 0x03 | 0x04 | 0x30 | 0x31 | 0x43 | 0x83 | 0x8b | 0xf5)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && header >= 65
}

/// A Targa picture has no mark at its beginning: every field of its header must make sense.
fn is_targa(head: &[u8]) -> bool {
    let &[_, palette, kind, _, _, _, _, _, _, _, _, _, w, w2, h, h2, depth, ..] = head else {
        return false;
    };
    palette <= 1
        && matches!(kind, 1..=3 | 9..=11)
        && (w, w2) != (0, 0)
        && (h, h2) != (0, 0)
        && matches!(depth, 8 | 15 | 16 | 24 | 32)
}

/// The formats that are text and begin with words of their own, which plain text may, too.
pub(super) fn of_text(head: &[u8]) -> Option<Format> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut next = || words.next().unwrap_or_default();
    match (next(), next()) {
        (b"P1", _) => Some(Format::Pbm),
        (b"P2", _) => Some(Format::Pgm),
        (b"P3", _) => Some(Format::Ppm),
        (b"0", b"SECTION") | (b"999", _) => Some(Format::Dxf),
        (b"TABLE", values) if values.starts_with(b"0,") => Some(Format::Dif),
        (b"#define", name) if name.ends_with(b"_width") => Some(Format::Xbm),
        (b"/*", b"XPM") => Some(Format::Xpm),
        (first, _) if first.starts_with(b"AutoCAD") => Some(Format::Dxf),
        (first, _) if first.starts_with(b"ID;") => Some(Format::Slk),
        (first, _) if first.starts_with(b"@CT") => Some(Format::T602),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_are_not_enough_without_the_name() {
        assert_eq!(Magic::of(b"\x89PNG\r\n\x1a\n"), Some(Magic::Certain(Format::Png)));
        assert_eq!(Magic::of(b"BMW is a car"), None);
        assert_eq!(Magic::of(b"P5\n1 1\n255\n\0"), Some(Magic::Likely(Format::Pgm)));
        assert_eq!(Magic::of(b"P51"), None);
        assert_eq!(Magic::of(b"RIFF\0\0\0\0WAVE"), None);
        assert_eq!(Magic::of(b"RIFF"), None);
        assert_eq!(
            Magic::of(b"\xffWPC\x10\0\0\0\x01\x0a\0\0\x12\x34"),
            Some(Magic::Encrypted)
        );
        assert_eq!(
            Magic::of(b"\xffWPC\x10\0\0\0\x01\x0a\0\0\0\0"),
            Some(Magic::Certain(Format::Wpd))
        );
    }

    #[test]
    fn words_that_text_formats_begin_with() {
        assert_eq!(of_text(b"ID;PWXL;N;E\r\n"), Some(Format::Slk));
        assert_eq!(of_text(b"TABLE\r\n0,1\r\n"), Some(Format::Dif));
        assert_eq!(of_text(b"TABLE of contents"), None);
        assert_eq!(of_text(b"  0\r\nSECTION\r\n"), Some(Format::Dxf));
        assert_eq!(of_text(b""), None);
    }
}
