//! An output's options in the words of LibreOffice's PDF export filter.
//!
//! LibreOffice ignores a property of an unknown name or of the wrong type in silence: `tests/it/options.rs` reads every
//! one of them back from a PDF. Source: `pdfexport.cxx` of LibreOffice 25.2, `PDFExport::Export`.

use std::borrow::Cow;

use super::finish::is_ours;
use crate::engine::Value;
use crate::job::{OptionValue, Options};

/// Options whose property has another name than theirs with a capital first letter.
const PROPERTIES: &[(&str, &str)] = &[
    ("nativePageRanges", "PageRange"),
    ("skipEmptyPages", "IsSkipEmptyPages"),
    ("exportBookmarksToPdfDestination", "ExportBookmarksToPDFDestination"),
    ("convertOooTargetToPdfTarget", "ConvertOOoTargetToPDFTarget"),
    ("addOriginalDocumentAsStream", "IsAddStream"),
    ("losslessImageCompression", "UseLosslessCompression"),
    ("nativeWatermarkText", "Watermark"),
    ("nativeWatermarkColor", "WatermarkColor"),
    ("nativeWatermarkFontHeight", "WatermarkFontHeight"),
    ("nativeWatermarkRotateAngle", "WatermarkRotateAngle"),
    ("nativeWatermarkFontName", "WatermarkFontName"),
    ("nativeTiledWatermarkText", "TiledWatermark"),
    ("pdfa", "SelectPdfVersion"),
    ("pdfua", "PDFUACompliance"),
];

/// The default of `nativeWatermarkColor`, a light green.
const WATERMARK_COLOUR: i32 = 0x7f_ff7f;

/// The properties for the options that are asked for; none for none, which is not the same as passing defaults.
pub(super) fn filter_data(options: &Options) -> Vec<(Cow<'static, str>, Value)> {
    let asked = |name: &str| options.iter().any(|(option, _)| option == name);
    // LibreOffice's own default is another green.
    let colour = (asked("nativeWatermarkText") && !asked("nativeWatermarkColor"))
        .then_some((Cow::Borrowed("WatermarkColor"), Value::Number(WATERMARK_COLOUR)));
    options
        .iter()
        .filter(|(name, _)| !is_ours(name))
        .map(|(name, value)| (property(name), typed(name, value)))
        .chain(colour)
        .collect()
}

fn property(option: &str) -> Cow<'static, str> {
    if let Some((_, property)) = PROPERTIES.iter().find(|(name, _)| *name == option) {
        return Cow::Borrowed(property);
    }
    let mut letters = option.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    Cow::Owned(first.into_iter().chain(letters).collect())
}

fn typed(option: &str, value: &OptionValue) -> Value {
    match value {
        OptionValue::Switch(value) => Value::Boolean(*value),
        OptionValue::Number(value) => Value::Number(*value),
        OptionValue::Text(text) if option == "pdfa" => Value::Number(pdf_version(text)),
        OptionValue::Text(text) => Value::Text(text.clone()),
        // Never LibreOffice's: what protects a PDF is done afterwards.
        OptionValue::Secret(_) => Value::Boolean(false),
    }
}

/// `SelectPdfVersion`, where 0 is LibreOffice's usual version.
fn pdf_version(pdfa: &str) -> i32 {
    match pdfa {
        "PDF/A-1b" => 1,
        "PDF/A-2b" => 2,
        "PDF/A-3b" => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Format;

    fn of(json: &str) -> Vec<(Cow<'static, str>, Value)> {
        let given = serde_json::from_str(json).unwrap();
        filter_data(&Options::parse(Format::Pdf, &given).unwrap())
    }

    #[test]
    fn properties_are_typed_and_only_those_asked_for() {
        assert_eq!(of("{}"), []);
        assert_eq!(of(r#"{"reproducible": true}"#), []);
        assert_eq!(
            of(r#"{"pdfa": "PDF/A-3b"}"#),
            [("SelectPdfVersion".into(), Value::Number(3))]
        );
        assert_eq!(
            of(r#"{"hideViewerMenubar": true, "nativePageRanges": "2-", "pageLayout": 1}"#),
            [
                ("HideViewerMenubar".into(), Value::Boolean(true)),
                ("PageRange".into(), Value::Text("2-".to_owned())),
                ("PageLayout".into(), Value::Number(1)),
            ]
        );
    }
}
