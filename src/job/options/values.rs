//! Values of options that have a grammar of their own.

use serde_json::{Map, Value};

/// The most bytes that all properties of a document may take together.
const LONGEST_METADATA: usize = 500;

/// Ways to scale sheets down: to one page, or to one page's width.
pub(super) const FIT: [&str; 2] = ["page", "width"];

/// Character sets, by their names at IANA.
pub(super) const CHARSETS: &[&str] = &[
    "UTF-8",
    "UTF-16",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "windows-1257",
    "windows-1258",
    "windows-874",
    "ISO-8859-1",
    "ISO-8859-2",
    "ISO-8859-3",
    "ISO-8859-4",
    "ISO-8859-5",
    "ISO-8859-6",
    "ISO-8859-7",
    "ISO-8859-8",
    "ISO-8859-9",
    "ISO-8859-15",
    "IBM437",
    "IBM850",
    "KOI8-R",
    "KOI8-U",
    "Shift_JIS",
    "EUC-JP",
    "EUC-KR",
    "Big5",
    "GBK",
    "GB18030",
];

/// Papers by name, portrait, in hundredths of a millimetre (ISO 216, ANSI Y14.1).
const PAPERS: [(&str, i32, i32); 9] = [
    ("A2", 42_000, 59_400),
    ("A3", 29_700, 42_000),
    ("A4", 21_000, 29_700),
    ("A5", 14_800, 21_000),
    ("A6", 10_500, 14_800),
    ("Letter", 21_590, 27_940),
    ("Legal", 21_590, 35_560),
    ("Tabloid", 27_940, 43_180),
    ("Executive", 18_415, 26_670),
];

/// The least and the most of a side, in hundredths of a millimetre: two inches, and 200, beyond which PDF has no pages
/// (ISO 32000-1, annex C.2).
const LEAST_SIDE: f64 = 5_080.0;
const MOST_SIDE: f64 = 508_000.0;

/// The size of a paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaperSize {
    /// In hundredths of a millimetre.
    pub width: i32,
    /// In hundredths of a millimetre.
    pub height: i32,
    /// A paper of this name, which pages can lie across; else exactly these sides.
    pub is_named: bool,
}

impl PaperSize {
    /// Reads `A4`, or `210mmx297mm`, `21x29.7cm`, `8.5inx11in`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((_, width, height)) = PAPERS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text)) {
            return Some(Self {
                width: *width,
                height: *height,
                is_named: true,
            });
        }
        let (width, height) = text.split_once('x')?;
        let (height, unit) = number_and_unit(height)?;
        let unit = unit?;
        let (width, other) = number_and_unit(width)?;
        Some(Self {
            width: side(width, other.unwrap_or(unit))?,
            height: side(height, unit)?,
            is_named: false,
        })
    }

    /// In one spelling, whatever the units were.
    pub(super) fn spelled(text: &str) -> Option<String> {
        let size = Self::parse(text)?;
        let name = PAPERS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text));
        let millimetres = |length: i32| format!("{}", f64::from(length) / 100.0);
        Some(match name {
            Some((name, ..)) => (*name).to_owned(),
            None => format!("{}x{}mm", millimetres(size.width), millimetres(size.height)),
        })
    }

    /// What [`PaperSize::parse`] takes, as a regular expression that every dialect reads (JSON Schema has no flags).
    pub(super) fn pattern() -> String {
        let any_case = |name: &str| -> String {
            name.chars()
                .map(|letter| match letter {
                    letter if letter.is_ascii_alphabetic() => {
                        format!("[{}{}]", letter.to_ascii_uppercase(), letter.to_ascii_lowercase())
                    }
                    other => other.to_string(),
                })
                .collect()
        };
        let names: Vec<String> = PAPERS.iter().map(|(name, ..)| any_case(name)).collect();
        let side = r"[0-9][0-9.]*";
        format!("^$|^({})$|^{side}(mm|cm|in)?x{side}(mm|cm|in)$", names.join("|"))
    }

    pub(super) fn allowed() -> String {
        let names: Vec<&str> = PAPERS.iter().map(|(name, ..)| *name).collect();
        format!(
            "one of {}, or WIDTHxHEIGHT in mm, cm or in, such as \"210x297mm\", each side from 2in (50.8mm) to 200in (5080mm)",
            names.join(", ")
        )
    }
}

/// Hundredths of a millimetre in each unit.
fn number_and_unit(text: &str) -> Option<(&str, Option<f64>)> {
    let units = [("mm", 100.0), ("cm", 1000.0), ("in", 2540.0)];
    let found = units
        .into_iter()
        .find_map(|(unit, length)| Some((text.strip_suffix(unit)?, Some(length))));
    Some(found.unwrap_or((text, None)))
}

fn side(number: &str, unit: f64) -> Option<i32> {
    let plain = |c: char| c.is_ascii_digit() || c == '.';
    if number.len() > 12 || !number.chars().all(plain) || !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let length = (number.parse::<f64>().ok()? * unit).round();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, and within a range that an i32 holds"
    )]
    (LEAST_SIDE..=MOST_SIDE).contains(&length).then_some(length as i32)
}

/// A separator in one spelling: the character itself.
pub(super) fn separator(text: &str) -> Option<String> {
    let character = match text {
        "tab" => '\t',
        _ => {
            let mut characters = text.chars();
            let only = characters.next()?;
            if characters.next().is_some() {
                return None;
            }
            only
        }
    };
    let is_separator = character == '\t' || character == ' ' || (character.is_ascii_punctuation() && character != '"');
    is_separator.then(|| character.to_string())
}

/// Document properties under Gotenberg's names. What is not named stays the document's own; an empty one is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `Title`.
    pub title: Option<String>,
    /// `Author`.
    pub author: Option<String>,
    /// `Subject`.
    pub subject: Option<String>,
    /// `Keywords`.
    pub keywords: Option<Vec<String>>,
}

impl Metadata {
    pub(super) fn parse(object: &Map<String, Value>) -> Option<Self> {
        let mut metadata = Self::default();
        for (name, value) in object {
            match name.as_str() {
                "Title" => metadata.title = Some(property(value)?),
                "Author" => metadata.author = Some(property(value)?),
                "Subject" => metadata.subject = Some(property(value)?),
                "Keywords" => metadata.keywords = Some(keywords(value)?),
                _ => return None,
            }
        }
        (metadata.length() <= LONGEST_METADATA).then_some(metadata)
    }

    fn length(&self) -> usize {
        let texts = [&self.title, &self.author, &self.subject].into_iter().flatten();
        let keywords = self.keywords.iter().flatten();
        texts.chain(keywords).map(String::len).sum()
    }

    pub(super) fn to_json(&self) -> Value {
        let texts = [
            ("Title", &self.title),
            ("Author", &self.author),
            ("Subject", &self.subject),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::from(text.as_deref()?))));
        let keywords = self.keywords.as_ref();
        let keywords = keywords.map(|keywords| ("Keywords".to_owned(), Value::from(keywords.as_slice())));
        texts.chain(keywords).collect::<Map<_, _>>().into()
    }

    pub(super) fn allowed() -> String {
        format!(
            "an object of \"Title\", \"Author\", \"Subject\" (lines of text) and \"Keywords\" (a list of such, or one line with commas), \
             at most {LONGEST_METADATA} bytes together"
        )
    }
}

fn property(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (!text.contains(char::is_control)).then(|| text.to_owned())
}

/// LibreOffice keeps keywords as one text with commas.
fn keywords(value: &Value) -> Option<Vec<String>> {
    let keywords: Vec<String> = match value {
        Value::String(text) => text.split(',').map(|keyword| keyword.trim().to_owned()).collect(),
        Value::Array(list) => list.iter().map(property).collect::<Option<_>>()?,
        _ => return None,
    };
    let keywords: Vec<String> = keywords.into_iter().filter(|keyword| !keyword.is_empty()).collect();
    let all_plain = keywords
        .iter()
        .all(|keyword| property(&Value::from(keyword.as_str())).is_some() && !keyword.contains(','));
    all_plain.then_some(keywords)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paper_is_a_name_or_two_sides() {
        let size = |text| PaperSize::parse(text).map(|size| (size.width, size.height, size.is_named));
        assert_eq!(size("A4"), Some((21_000, 29_700, true)));
        assert_eq!(size("letter"), Some((21_590, 27_940, true)));
        assert_eq!(size("210x297mm"), Some((21_000, 29_700, false)));
        assert_eq!(size("8.5inx11in"), size("8.5x11in"));
        assert_eq!(size("8.5x11in"), Some((21_590, 27_940, false)));
        assert_eq!(size("10cmx200mm"), Some((10_000, 20_000, false)));
        assert_eq!(PaperSize::spelled("21x29.7cm"), PaperSize::spelled("210.00x297mm"));
        for wrong in [
            "",
            "A9",
            "210x297",
            "x297mm",
            "210x",
            "210mm",
            "-210x297mm",
            "1x1mm",
            "201x201in",
            "1e9x300mm",
            "nanxnanmm",
            "210X297mm",
            "210 x 297mm",
            "1.2.3x300mm",
        ] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_separator_is_one_character_that_separates() {
        assert_eq!(separator("tab").as_deref(), Some("\t"));
        assert_eq!(separator("\t").as_deref(), Some("\t"));
        assert_eq!(separator(";").as_deref(), Some(";"));
        for wrong in ["", "a", "1", "\"", "\n", ";;", "é"] {
            assert_eq!(separator(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn metadata_is_of_four_names() {
        let read = |json: &str| Metadata::parse(serde_json::from_str::<Value>(json).unwrap().as_object().unwrap());
        assert_eq!(
            read(r#"{"Keywords": "a, b,"}"#).unwrap(),
            read(r#"{"Keywords": ["a", "b"]}"#).unwrap()
        );
        for wrong in [
            r#"{"title": "x"}"#,
            r#"{"Title": 1}"#,
            r#"{"Title": "a\nb"}"#,
            r#"{"Keywords": ["a,b"]}"#,
            r#"{"Producer": "x"}"#,
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
