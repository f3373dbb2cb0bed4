//! `Content-Disposition` for a name that somebody else chose (RFC 6266, RFC 8187).

use crate::google::encode;
use crate::job::Disposition;

/// Longer names are cut: file systems take 255 bytes, and the encoded form is three to five times as long in a URL.
const LONGEST: usize = 200;

/// The header's value: the last part of `name` as an ASCII file name, and as `filename*` when that is not all of it.
/// What could end the header, or make a name look like another one (controls, direction marks), is left out.
pub fn content_disposition(disposition: Disposition, name: &str) -> String {
    let name = cut(&clean(name));
    let kind = disposition.as_str();
    if matches!(name.as_str(), "" | "." | "..") {
        return kind.to_owned();
    }
    let ascii: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if ascii == name {
        return format!("{kind}; filename=\"{ascii}\"");
    }
    format!(
        "{kind}; filename=\"{ascii}\"; filename*=UTF-8''{}",
        encode::component(&name)
    )
}

/// Printable ASCII, without what quotes, escapes, or is decoded by some browsers.
fn is_plain(c: char) -> bool {
    (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%')
}

fn clean(name: &str) -> String {
    let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let kept: String = last
        .chars()
        .filter(|c| !is_hidden(*c))
        .map(|c| if c == '\\' { '_' } else { c })
        .collect();
    kept.trim().to_owned()
}

/// Controls, line and paragraph separators, direction marks, zero-width characters.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// At most [`LONGEST`] bytes, whole characters, with the extension.
fn cut(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let extension = name
        .rfind('.')
        .map(|at| &name[at..])
        .filter(|extension| extension.len() <= 16)
        .unwrap_or_default();
    let mut end = LONGEST - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(name: &str) -> String {
        content_disposition(Disposition::Attachment, name)
    }

    #[test]
    fn plain_names_need_one_form_only() {
        assert_eq!(
            attachment("reports/2026/q3 final.pdf"),
            r#"attachment; filename="q3 final.pdf""#
        );
        assert_eq!(
            content_disposition(Disposition::Inline, "a.pdf"),
            r#"inline; filename="a.pdf""#
        );
    }

    #[test]
    fn other_names_have_a_fallback_and_the_whole_name() {
        assert_eq!(
            attachment("Übersicht €.pdf"),
            "attachment; filename=\"_bersicht _.pdf\"; filename*=UTF-8''%C3%9Cbersicht%20%E2%82%AC.pdf"
        );
        assert_eq!(
            attachment("100%41\".pdf"),
            "attachment; filename=\"100_41_.pdf\"; filename*=UTF-8''100%2541%22.pdf"
        );
    }

    #[test]
    fn a_name_cannot_end_the_header_or_turn_its_extension_around() {
        assert_eq!(
            attachment("a\r\nSet-Cookie: x=1.pdf"),
            r#"attachment; filename="aSet-Cookie: x=1.pdf""#
        );
        assert_eq!(
            attachment("invoice\u{202e}fdp.exe"),
            r#"attachment; filename="invoicefdp.exe""#
        );
        assert_eq!(attachment("a\u{85}\u{7f}\0b"), r#"attachment; filename="ab""#);
        assert!(attachment(r"..\..\evil.pdf").starts_with(r#"attachment; filename=".._.._evil.pdf""#));
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        for name in ["", "/", ".", "..", "a/..", "\u{200b}", " "] {
            assert_eq!(attachment(name), "attachment", "{name:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_keeps_its_extension() {
        let value = attachment(&format!("{}.pdf", "ü".repeat(510)));
        let encoded = value.split("UTF-8''").nth(1).unwrap();
        assert!(encoded.ends_with("%C3%BC.pdf"), "{encoded}");
        assert_eq!(encoded.matches("%C3%BC").count(), 98);
    }
}
