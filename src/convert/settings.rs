//! An output's options in the engine's words: what the export filter is given, and what is changed in the document.
//!
//! LibreOffice ignores a property of an unknown name or of the wrong type in silence: `tests/it/options.rs` reads every
//! one of them back from an output. Source: `pdfexport.cxx` of LibreOffice 25.2, `PDFExport::Export`.

use std::borrow::Cow;

use super::finish::{finish, is_ours};
use super::inspect::DocumentKind;
use super::run::Wanted;
use crate::engine::{self, Export, Fit, Image, ImageSize, Kind, Limited, Pages, Paper, Setup, Value};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step};
use crate::job::{Format, Metadata, OptionValue, Options, PaperSize};

/// Options that are no property of an export filter.
const OTHERS: [&str; 10] = [
    "landscape",
    "paperSize",
    "fitToPage",
    "updateIndexes",
    "metadata",
    "page",
    "width",
    "dpi",
    "separator",
    "charset",
];

/// Options that have an effect on documents of some kinds alone.
const LIMITED: &[(&str, &[Kind])] = &[
    ("landscape", &[Kind::Text, Kind::Spreadsheet]),
    ("paperSize", &[Kind::Text, Kind::Spreadsheet]),
    ("fitToPage", &[Kind::Spreadsheet]),
    ("updateIndexes", &[Kind::Text]),
    ("page", &[Kind::Text, Kind::Presentation, Kind::Drawing]),
    ("singlePageSheets", &[Kind::Spreadsheet]),
    ("exportPlaceholders", &[Kind::Text]),
    ("skipEmptyPages", &[Kind::Text]),
    ("exportNotesInMargin", &[Kind::Text]),
    ("exportHiddenSlides", &[Kind::Presentation]),
    ("exportNotesPages", &[Kind::Presentation]),
    ("exportOnlyNotesPages", &[Kind::Presentation]),
    ("useTransitionEffects", &[Kind::Presentation]),
];

/// One output as the engine makes it, of a document that has been inspected.
///
/// # Errors
/// `option.invalid` for options about separated values where there are none.
pub(super) fn export(index: usize, wanted: &Wanted, kind: &DocumentKind, name: &str) -> Step<Export> {
    let options = &wanted.options;
    let extension = wanted.format.as_str();
    let format = engine::Format::of(extension).ok_or_else(|| {
        Refusal::new(
            RefusalKind::Bug,
            format!("the engine does not know the format {extension:?}"),
        )
    })?;
    let separators = Separators::of(options);
    let (mut import_options, mut filter_options) = (None, None);
    if separators != Separators::default() {
        if matches!(wanted.format, Format::Csv | Format::Tsv) {
            filter_options = Some(separators.of_output(wanted.format));
        } else if let Some(values) = kind.separated_values {
            import_options = Some(values.filter_options_with(separators.separator, separators.charset));
        } else {
            let option = if separators.separator.is_some() {
                "separator"
            } else {
                "charset"
            };
            return Err(Failure::new(
                FailureCode::OptionInvalid,
                format!("The document {name:?} is no separated values: the option {option:?} has no effect on it."),
            )
            .with("option", option)
            .into());
        }
    }
    Ok(Export {
        file: format!("output-{index}.{extension}"),
        format,
        options: filter_data(options),
        filter_options,
        finish: finish(wanted)?,
        setup: Setup {
            import_options,
            pages: pages(options),
            update_indexes: options.get("updateIndexes") == Some(&OptionValue::Switch(true)),
            properties: properties(options),
        },
        image: image(options),
        limited: LIMITED
            .iter()
            .filter(|(option, _)| options.get(option).is_some())
            .map(|(option, kinds)| Limited {
                option: Cow::Borrowed(option),
                kinds: kinds.to_vec(),
            })
            .collect(),
    })
}

/// What the options say about separated values.
#[derive(Default, PartialEq)]
struct Separators {
    separator: Option<u8>,
    charset: Option<u16>,
}

impl Separators {
    fn of(options: &Options) -> Self {
        Self {
            separator: options.text("separator").and_then(|text| text.bytes().next()),
            charset: options
                .text("charset")
                .and_then(|name| CHARSETS.iter().find(|(known, _)| *known == name))
                .map(|(_, number)| *number),
        }
    }

    /// `FilterOptions` of LibreOffice's text export: separator and quote as character codes, character set, then: all cells
    /// as they are shown, none quoted that need not be, the first sheet.
    fn of_output(&self, format: Format) -> String {
        let separator = self
            .separator
            .unwrap_or(if format == Format::Tsv { b'\t' } else { b',' });
        let charset = self.charset.unwrap_or(UTF_8);
        format!("{separator},34,{charset},1,,0,false,true,false,false,false,0")
    }
}

const UTF_8: u16 = 76;

/// LibreOffice's numbers of character sets (`rtl/textenc.h`), by their names at IANA.
const CHARSETS: &[(&str, u16)] = &[
    ("UTF-8", UTF_8),
    ("UTF-16", 65_535),
    ("windows-1250", 33),
    ("windows-1251", 34),
    ("windows-1252", 1),
    ("windows-1253", 35),
    ("windows-1254", 36),
    ("windows-1255", 37),
    ("windows-1256", 38),
    ("windows-1257", 39),
    ("windows-1258", 40),
    ("windows-874", 32),
    ("ISO-8859-1", 12),
    ("ISO-8859-2", 13),
    ("ISO-8859-3", 14),
    ("ISO-8859-4", 15),
    ("ISO-8859-5", 16),
    ("ISO-8859-6", 17),
    ("ISO-8859-7", 18),
    ("ISO-8859-8", 19),
    ("ISO-8859-9", 20),
    ("ISO-8859-15", 22),
    ("IBM437", 3),
    ("IBM850", 4),
    ("KOI8-R", 74),
    ("KOI8-U", 88),
    ("Shift_JIS", 64),
    ("EUC-JP", 69),
    ("EUC-KR", 79),
    ("Big5", 68),
    ("GBK", 67),
    ("GB18030", 85),
];

fn pages(options: &Options) -> Pages {
    let paper = options.text("paperSize").and_then(PaperSize::parse);
    Pages {
        paper: paper.map(|size| Paper {
            width: size.width,
            height: size.height,
            turns: size.is_named,
        }),
        landscape: options.get("landscape") == Some(&OptionValue::Switch(true)),
        fit: match options.text("fitToPage") {
            Some("page") => Some(Fit::Page),
            Some("width") => Some(Fit::Width),
            _ => None,
        },
    }
}

fn properties(options: &Options) -> Vec<(Cow<'static, str>, Value)> {
    let Some(OptionValue::Metadata(Metadata {
        title,
        author,
        subject,
        keywords,
    })) = options.get("metadata")
    else {
        return Vec::new();
    };
    let text = |name, text: &Option<String>| text.clone().map(|text| (Cow::Borrowed(name), Value::Text(text)));
    let keywords = keywords
        .clone()
        .map(|keywords| (Cow::Borrowed("Keywords"), Value::Texts(keywords)));
    [
        text("Title", title),
        text("Author", author),
        text("Subject", subject),
        keywords,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn image(options: &Options) -> Image {
    let number = |name| options.number(name).and_then(|number| u32::try_from(number).ok());
    Image {
        page: number("page"),
        size: number("width")
            .map(ImageSize::Width)
            .or(number("dpi").map(ImageSize::Dpi)),
    }
}

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
fn filter_data(options: &Options) -> Vec<(Cow<'static, str>, Value)> {
    let asked = |name: &str| options.iter().any(|(option, _)| option == name);
    // LibreOffice's own default is another green.
    let colour = (asked("nativeWatermarkText") && !asked("nativeWatermarkColor"))
        .then_some((Cow::Borrowed("WatermarkColor"), Value::Number(WATERMARK_COLOUR)));
    options
        .iter()
        .filter(|(name, _)| !OTHERS.contains(name) && !is_ours(name))
        .filter_map(|(name, value)| Some((property(name), typed(name, value)?)))
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

fn typed(option: &str, value: &OptionValue) -> Option<Value> {
    Some(match value {
        OptionValue::Switch(value) => Value::Boolean(*value),
        OptionValue::Number(value) => Value::Number(*value),
        OptionValue::Text(text) if option == "pdfa" => Value::Number(pdf_version(text)),
        OptionValue::Text(text) => Value::Text(text.clone()),
        // No property of an export filter.
        OptionValue::Metadata(_) | OptionValue::Secret(_) => return None,
    })
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

    #[test]
    fn the_engine_knows_every_format_that_jobs_have() {
        for format in Format::ALL {
            assert!(engine::Format::of(format.as_str()).is_some(), "{format:?}");
        }
    }

    #[test]
    fn libreoffice_knows_every_character_set_that_jobs_have() {
        assert!(
            Options::charsets().eq(CHARSETS.iter().map(|(name, _)| *name)),
            "the two tables differ"
        );
    }

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
