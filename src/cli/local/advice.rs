//! What to do about each failure code: the words of `docs/failures.md`, which has them for everybody else.

use std::collections::BTreeMap;

use serde::Serialize;

const FAILURES: &str = include_str!("../../../docs/failures.md");
/// What stands before what is to be done.
const DO: &str = "**Do**:";

/// What a section of the page says, as plain text.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Advice {
    meaning: String,
    what_to_do: String,
}

/// Every code's.
pub(super) fn all() -> BTreeMap<&'static str, Advice> {
    FAILURES.split("\n## `").skip(1).filter_map(section).collect()
}

fn section(text: &'static str) -> Option<(&'static str, Advice)> {
    let (code, rest) = text.split_once("`\n\n")?;
    let paragraph = rest.split("\n\n").find(|paragraph| paragraph.contains(DO))?;
    let (meaning, what_to_do) = paragraph.split_once(DO)?;
    let advice = Advice {
        meaning: plain(meaning),
        what_to_do: plain(what_to_do),
    };
    Some((code, advice))
}

/// Markdown without its marks: one line, links by their text, code without its ticks.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        let Some((name, after)) = link.split_once("](") else {
            text.push('[');
            rest = link;
            continue;
        };
        text.push_str(name);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace(['`', '*'], "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureCode;

    #[test]
    fn every_code_has_its_advice() {
        let all = all();
        for (code, _) in FailureCode::ALL {
            let advice = all.get(code.as_str()).unwrap_or_else(|| panic!("{}", code.as_str()));
            for text in [&advice.meaning, &advice.what_to_do] {
                assert!(
                    text.len() > 20 && text.ends_with(['.', ')']),
                    "{}: {text}",
                    code.as_str()
                );
                assert!(!text.contains(['`', '*', '[', '\n']), "{}: {text}", code.as_str());
            }
        }
        assert_eq!(all.len(), FailureCode::ALL.len());
    }

    #[test]
    fn marks_are_left_out() {
        assert_eq!(
            plain("Use `a` or\n**b**: [all of\nthem](x.md#y), [1] too."),
            "Use a or b: all of them, [1] too."
        );
    }
}
