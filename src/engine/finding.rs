//! What a conversion noticed about its document that a reader of the output should know.
//!
//! Said by a child that may be compromised: a closed set of things, and of a document's text nothing but the names of
//! fonts, which are bounded and cleaned once more when they arrive, and single characters, which go no further than the engine's
//! caller.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many findings one conversion has, the one that counts the rest among them.
pub(super) const MOST: usize = 100;
/// Characters of a font's name: Windows takes 31, fonts in use have up to 50.
const LONGEST_NAME: usize = 64;

/// Something that the output does not show as its reader might expect.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// Text is set in another font than the document asks for.
    FontSubstituted {
        /// The family that the document names.
        asked: String,
        /// The family that was used.
        used: String,
    },
    /// So many sheets are hidden.
    HiddenSheets(u32),
    /// So many slides are hidden.
    HiddenSlides(u32),
    /// Fields or formulas print the date or the time of the conversion.
    CurrentDate,
    /// Tracked changes are marked in the text.
    ChangesShown,
    /// No font has this character, so that an empty box is drawn for it.
    GlyphMissing(char),
    /// So many findings more.
    More(u32),
}

impl fmt::Debug for Finding {
    /// Without a document's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FontSubstituted { .. } => "FontSubstituted",
            Self::HiddenSheets(_) => "HiddenSheets",
            Self::HiddenSlides(_) => "HiddenSlides",
            Self::CurrentDate => "CurrentDate",
            Self::ChangesShown => "ChangesShown",
            Self::GlyphMissing(_) => "GlyphMissing",
            Self::More(_) => "More",
        })
    }
}

/// At most [`MOST`] of them, each of a bounded length and without control characters. What is bounded stays as it is.
pub(super) fn bounded(findings: Vec<Finding>) -> Vec<Finding> {
    let kept = if findings.len() > MOST { MOST - 1 } else { MOST };
    let more = findings.len().saturating_sub(kept);
    let mut bounded: Vec<Finding> = findings
        .into_iter()
        .take(kept)
        .map(|finding| match finding {
            Finding::FontSubstituted { asked, used } => Finding::FontSubstituted {
                asked: clean(&asked),
                used: clean(&used),
            },
            other => other,
        })
        .collect();
    if more > 0 {
        bounded.push(Finding::More(u32::try_from(more).unwrap_or(u32::MAX)));
    }
    bounded
}

/// A name as it may be shown: without what moves a terminal's cursor or turns the direction of text.
fn clean(name: &str) -> String {
    let shown = |character: &char| {
        !character.is_control()
            && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    name.chars().filter(shown).take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_says_is_bounded_and_clean() {
        let font = |asked: String| Finding::FontSubstituted {
            asked,
            used: "Carlito".to_owned(),
        };
        let mut said = vec![
            font("\u{1b}[31mCali\u{202e}bri\r\n".to_owned()),
            font("x".repeat(1 << 20)),
        ];
        said.extend((0..200).map(Finding::HiddenSheets));
        // Twice, because the child's own are bounded once more.
        let kept = bounded(bounded(said));
        assert_eq!(kept[0], font("[31mCalibri".to_owned()));
        assert_eq!(kept[1], font("x".repeat(LONGEST_NAME)));
        assert_eq!(kept.len(), MOST);
        assert_eq!(kept[MOST - 1], Finding::More(103));
        assert!(!format!("{kept:?}").contains("Calibri"));
    }
}
