//! What a person should know about an output: contract section 4.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_script::{Script, UnicodeScript};

use super::inspect::Remarks;
use crate::engine::Finding;
use crate::job::{Format, OptionValue, Options};

/// How many warnings one output has, the one that counts the rest among them.
const MOST: usize = 50;
/// Bytes of one message.
const LONGEST: usize = 200;

/// What a warning is about. The set is closed: a consumer may switch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum WarningCode {
    /// Text is set in another font than the document asks for.
    #[serde(rename = "font.substituted")]
    FontSubstituted,
    /// No font has some characters, and empty boxes are drawn for them.
    #[serde(rename = "glyph.missing")]
    GlyphMissing,
    /// Something that the document links to is not in the output.
    #[serde(rename = "link.not_followed")]
    LinkNotFollowed,
    /// The document has macros, which never run.
    #[serde(rename = "macro.not_run")]
    MacroNotRun,
    /// Hidden sheets are left out.
    #[serde(rename = "sheet.hidden")]
    SheetHidden,
    /// Hidden slides are left out.
    #[serde(rename = "slide.hidden")]
    SlideHidden,
    /// The date or the time of the conversion is printed.
    #[serde(rename = "date.current")]
    DateCurrent,
    /// Tracked changes are marked in the text.
    #[serde(rename = "change.shown")]
    ChangeShown,
    /// There are more warnings than a result holds.
    #[serde(rename = "warning.omitted")]
    WarningOmitted,
}

impl WarningCode {
    /// The code as the result message has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FontSubstituted => "font.substituted",
            Self::GlyphMissing => "glyph.missing",
            Self::LinkNotFollowed => "link.not_followed",
            Self::MacroNotRun => "macro.not_run",
            Self::SheetHidden => "sheet.hidden",
            Self::SlideHidden => "slide.hidden",
            Self::DateCurrent => "date.current",
            Self::ChangeShown => "change.shown",
            Self::WarningOmitted => "warning.omitted",
        }
    }
}

impl fmt::Display for WarningCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One warning.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// What it is about.
    pub code: WarningCode,
    /// A few words for a person. May hold the names of fonts and hosts, which are the document's: never for a log.
    pub message: String,
}

impl fmt::Debug for Warning {
    /// Without the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warning")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// The warnings of an output of this format and these options, from what was seen in the document before it was loaded
/// and after.
pub(super) fn warnings(remarks: &Remarks, findings: &[Finding], format: Format, options: &Options) -> Vec<Warning> {
    let drawn = matches!(format, Format::Pdf | Format::Png | Format::Jpg);
    let hidden_slides_shown = options
        .iter()
        .any(|option| option == ("exportHiddenSlides", &OptionValue::Switch(true)));
    let count = |count: u32, what: &str| match count {
        1 => format!("1 hidden {what} is left out"),
        count => format!("{count} hidden {what}s are left out"),
    };
    let mut all = BTreeSet::new();
    let mut add = |code, message: String| {
        all.insert(Warning {
            code,
            message: cut(message),
        });
    };
    for (link, times) in &remarks.links {
        let times = match times {
            1 => String::new(),
            times => format!(" ({times} times)"),
        };
        add(WarningCode::LinkNotFollowed, format!("{link}{times}"));
    }
    if remarks.macros {
        add(
            WarningCode::MacroNotRun,
            "the document's macros were not run".to_owned(),
        );
    }
    if remarks.current_date {
        add(WarningCode::DateCurrent, CURRENT_DATE.to_owned());
    }
    let mut omitted = 0;
    for finding in findings {
        match finding {
            Finding::FontSubstituted { asked, used } if drawn => {
                add(WarningCode::FontSubstituted, format!("{asked} -> {used}"));
            }
            Finding::GlyphMissing(character) if format == Format::Pdf => {
                add(WarningCode::GlyphMissing, boxes(*character));
            }
            Finding::HiddenSheets(sheets) if format == Format::Pdf => {
                add(WarningCode::SheetHidden, count(*sheets, "sheet"));
            }
            Finding::HiddenSlides(slides) if format == Format::Pdf && !hidden_slides_shown => {
                add(WarningCode::SlideHidden, count(*slides, "slide"));
            }
            Finding::CurrentDate => add(WarningCode::DateCurrent, CURRENT_DATE.to_owned()),
            Finding::ChangesShown if drawn => {
                add(
                    WarningCode::ChangeShown,
                    "tracked changes are marked in the text".to_owned(),
                );
            }
            Finding::More(more) => omitted += *more as usize,
            Finding::FontSubstituted { .. }
            | Finding::GlyphMissing(_)
            | Finding::HiddenSheets(_)
            | Finding::HiddenSlides(_)
            | Finding::ChangesShown => {}
        }
    }
    // The most frequent kind last: of a hundred fonts some may go, of the rest none.
    let mut all: Vec<Warning> = all.into_iter().collect();
    all.sort_by_key(|warning| warning.code == WarningCode::FontSubstituted);
    if all.len() + usize::from(omitted > 0) > MOST {
        omitted += all.len() - (MOST - 1);
        all.truncate(MOST - 1);
    }
    if omitted > 0 {
        all.push(Warning {
            code: WarningCode::WarningOmitted,
            message: format!("{omitted} more"),
        });
    }
    all
}

/// The writing that no font has, rather than the document's own text; a symbol by its number, which is all that there is.
fn boxes(character: char) -> String {
    let what = match character.script() {
        Script::Common | Script::Inherited | Script::Unknown => format!("U+{:04X}", u32::from(character)),
        script => script.full_name().replace('_', " "),
    };
    format!("{what}: no font here has some of its characters, and empty boxes are drawn")
}

const CURRENT_DATE: &str = "the date or time of the conversion is printed";

/// At most [`LONGEST`] bytes, at a character's end.
fn cut(mut message: String) -> String {
    const ELLIPSIS: &str = "...";
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST - ELLIPSIS.len()));
        message.push_str(ELLIPSIS);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn font(asked: &str) -> Finding {
        Finding::FontSubstituted {
            asked: asked.to_owned(),
            used: "Carlito".to_owned(),
        }
    }

    #[test]
    fn warnings_are_few_and_short() {
        let mut findings: Vec<Finding> = (0..99).map(|number| font(&format!("Font {number}"))).collect();
        findings.push(Finding::More(7));
        findings.push(Finding::HiddenSheets(1));
        let made = warnings(&Remarks::default(), &findings, Format::Pdf, &Options::default());
        assert_eq!(made.len(), MOST);
        assert_eq!(made[0].message, "1 hidden sheet is left out");
        assert_eq!(
            (made[49].code, made[49].message.as_str()),
            (WarningCode::WarningOmitted, "58 more")
        );
        let long = warnings(
            &Remarks::default(),
            &[font(&"é".repeat(300))],
            Format::Pdf,
            &Options::default(),
        );
        assert!(long[0].message.len() <= LONGEST && long[0].message.ends_with("é..."));
    }

    #[test]
    fn an_output_is_told_what_is_about_it() {
        let findings = [
            font("Calibri"),
            font("Calibri"),
            Finding::HiddenSlides(2),
            Finding::ChangesShown,
            Finding::CurrentDate,
        ];
        let codes = |format, options: &[(&str, serde_json::Value)]| {
            let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            let options = Options::parse(format, &options.collect()).unwrap();
            let made = warnings(&Remarks::default(), &findings, format, &options);
            made.iter().map(|warning| warning.code).collect::<Vec<_>>()
        };
        use WarningCode::{ChangeShown, DateCurrent, FontSubstituted, SlideHidden};
        assert_eq!(
            codes(Format::Pdf, &[]),
            [SlideHidden, DateCurrent, ChangeShown, FontSubstituted]
        );
        assert_eq!(
            codes(Format::Pdf, &[("exportHiddenSlides", true.into())]),
            [DateCurrent, ChangeShown, FontSubstituted]
        );
        assert_eq!(codes(Format::Png, &[]), [DateCurrent, ChangeShown, FontSubstituted]);
        assert_eq!(codes(Format::Txt, &[]), [DateCurrent]);
    }

    #[test]
    fn codes_are_the_contracts() {
        let warning = Warning {
            code: WarningCode::FontSubstituted,
            message: "Calibri -> Carlito".to_owned(),
        };
        assert_eq!(
            serde_json::to_value(&warning).unwrap(),
            serde_json::json!({"code": "font.substituted", "message": "Calibri -> Carlito"})
        );
        assert!(!format!("{warning:?}").contains("Calibri"));
    }
}
