//! Separated values: which separator and which character set, by content.
//!
//! The one deliberate difference from stock LibreOffice, which takes every `.csv` for comma-separated values in its
//! own character set unless it is told otherwise: a file with semicolons would become one column.

/// How much of a file's beginning (bytes) the separator is chosen by.
pub(super) const SAMPLE: usize = 64 << 10;

/// A character set in which values may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CharacterSet {
    /// With or without a byte order mark.
    Utf8,
    /// With a byte order mark, in either order.
    Utf16,
    /// What is not UTF-8 and has no mark.
    Windows1252,
}

impl CharacterSet {
    /// LibreOffice's number of it (`rtl/textenc.h`).
    fn number(self) -> u16 {
        match self {
            Self::Windows1252 => 1,
            Self::Utf8 => 76,
            Self::Utf16 => 65_535,
        }
    }
}

/// How the values of a file are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeparatedValues {
    /// Between values; ASCII.
    pub separator: u8,
    /// Of the whole file.
    pub character_set: CharacterSet,
    /// The line that the values begin on, from 1: a line before them may say what separates them.
    pub first_line: u8,
}

impl SeparatedValues {
    /// `FilterOptions` of LibreOffice's text import: separator and quote as character codes, character set, first line,
    /// no column formats, the process's locale, quoted cells stay as they are, numbers and dates detected.
    pub fn filter_options(&self) -> String {
        self.filter_options_with(None, None)
    }

    /// The same with a separator, or a character set by LibreOffice's number, that somebody knows better.
    pub fn filter_options_with(&self, separator: Option<u8>, character_set: Option<u16>) -> String {
        let separator = separator.unwrap_or(self.separator);
        let character_set = character_set.unwrap_or(self.character_set.number());
        format!("{separator},34,{character_set},{},,0,false,true", self.first_line)
    }
}

/// Separators that are recognised. At equal evidence the first wins: commas are in prose and in decimal fractions, too.
const SEPARATORS: [u8; 4] = *b"\t;|,";

/// What separates the values of a text by its beginning, and the line that they begin on; `promised` when there is no
/// separator. `whole`: nothing comes after `sample`.
pub(super) fn separator(sample: &[u8], whole: bool, promised: u8) -> (u8, u8) {
    match sample {
        // Excel's own way to say it. LibreOffice would print the line.
        [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', said, b'\r' | b'\n', ..]
            if *said == b'\t' || (said.is_ascii_punctuation() && *said != b'"') =>
        {
            (*said, 2)
        }
        _ => (guess(sample, whole, promised), 1),
    }
}

fn guess(sample: &[u8], whole: bool, promised: u8) -> u8 {
    let mut best = (0, promised);
    for separator in SEPARATORS {
        let agreement = Agreement::of(sample, whole, separator).per_mille();
        if agreement > best.0 {
            best = (agreement, separator);
        }
    }
    if best.0 > 0 {
        return best.1;
    }
    // Records of all lengths: what there is most of.
    let count = |separator| Agreement::of(sample, true, separator).separators;
    let most = SEPARATORS
        .into_iter()
        .max_by_key(|&separator| (count(separator), separator == promised));
    most.filter(|&separator| count(separator) > 0).unwrap_or(promised)
}

/// How far the records of a text agree on their number of values, were it separated by one character.
#[derive(Default)]
struct Agreement {
    records: usize,
    separators: usize,
    /// How many records have how many separators. A table has few different ones; what has more is none.
    lengths: Vec<(usize, usize)>,
}

impl Agreement {
    const DIFFERENT_LENGTHS: usize = 64;

    fn of(sample: &[u8], whole: bool, separator: u8) -> Self {
        let mut agreement = Self::default();
        let (mut quoted, mut fresh, mut empty, mut separators) = (false, true, true, 0);
        for &byte in sample {
            match byte {
                // A quote inside a value is doubled, which closes and opens again.
                b'"' if quoted || fresh => {
                    quoted = !quoted;
                    (fresh, empty) = (!quoted, false);
                }
                _ if quoted => {}
                b'\n' | b'\r' => {
                    if !empty {
                        agreement.add(separators);
                    }
                    (fresh, empty, separators) = (true, true, 0);
                }
                _ => {
                    fresh = byte == separator;
                    empty = false;
                    separators += usize::from(fresh);
                }
            }
        }
        if !empty && (whole || agreement.records == 0) {
            agreement.add(separators);
        }
        agreement
    }

    fn add(&mut self, separators: usize) {
        self.records += 1;
        self.separators += separators;
        if let Some((_, count)) = self.lengths.iter_mut().find(|(length, _)| *length == separators) {
            *count += 1;
        } else if self.lengths.len() < Self::DIFFERENT_LENGTHS {
            self.lengths.push((separators, 1));
        }
    }

    /// The share of records that have the most common length, in thousandths; 0 when that is one value.
    fn per_mille(&self) -> usize {
        match self.lengths.iter().max_by_key(|(_, count)| *count) {
            Some(&(length, count)) if length > 0 => count * 1000 / self.records,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_what_the_records_agree_on() {
        for (text, expected) in [
            ("a,b,c\n1,2,3\n", b','),
            ("a;b\n1,5;2,5\n2,5;3,5\n", b';'),
            // No heading: commas agree as well as semicolons do.
            ("1,5;2,5\n3,5;4,5\n", b';'),
            ("name\tnote\nx\tone, two; three\n", b'\t'),
            ("a|b|c\n1|2|3", b'|'),
            ("\"a;b\",c\n\"d;e;f\",g\n", b','),
            ("\"say \"\"a;b\"\"\",c\n\"x\ny;z\",g\n", b','),
            ("\"a\nb;c\";\"d\"\n\"e\";\"f\"\n", b';'),
            ("sep=|\na,b|c\n", b'|'),
            ("report\n\n\n;;sum\na;b\n;\nx\ny\n", b';'),
            ("one\ntwo\nthree\n", b','),
            ("", b','),
        ] {
            assert_eq!(separator(text.as_bytes(), true, b',').0, expected, "{text:?}");
        }
        assert_eq!(separator(b"one\ntwo\n", true, b'\t'), (b'\t', 1));
        assert_eq!(separator(b"sep=;\r\na,b\n", true, b','), (b';', 2));
        assert_eq!(separator(b"sep=a\r\na,b\n", true, b','), (b',', 1));
    }

    #[test]
    fn a_record_that_the_sample_cuts_does_not_count() {
        assert_eq!(
            separator(b"a,b;c\nd;e,f\nx", false, b','),
            separator(b"a,b;c\nd;e,f\n", true, b',')
        );
    }
}
