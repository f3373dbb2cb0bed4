//! What the PDF export filter is given.

use std::borrow::Cow;

use super::office::Value;

/// What stock LibreOffice's PDF export passes to itself when it is given no options: its configuration. With any option
/// it passes nothing but that, and its code has other defaults than its configuration: comments would appear, tags go.
/// Source: officecfg's Common.xcs, group Filter/PDF/Export, as far as `pdffilter.cxx` reads it.
const STOCK: [(&str, Value); 28] = [
    ("UseLosslessCompression", Value::Boolean(false)),
    ("Quality", Value::Number(90)),
    ("ReduceImageResolution", Value::Boolean(true)),
    ("MaxImageResolution", Value::Number(300)),
    ("UseTaggedPDF", Value::Boolean(true)),
    ("ExportNotes", Value::Boolean(false)),
    ("ExportNotesInMargin", Value::Boolean(false)),
    ("ExportNotesPages", Value::Boolean(false)),
    ("ExportOnlyNotesPages", Value::Boolean(false)),
    ("UseTransitionEffects", Value::Boolean(true)),
    ("IsSkipEmptyPages", Value::Boolean(true)),
    ("ExportFormFields", Value::Boolean(false)),
    ("HideViewerToolbar", Value::Boolean(false)),
    ("HideViewerMenubar", Value::Boolean(false)),
    ("HideViewerWindowControls", Value::Boolean(false)),
    ("ResizeWindowToInitialPage", Value::Boolean(false)),
    ("CenterWindow", Value::Boolean(false)),
    ("OpenInFullScreenMode", Value::Boolean(false)),
    ("DisplayPDFDocumentTitle", Value::Boolean(true)),
    ("InitialView", Value::Number(1)),
    ("Magnification", Value::Number(0)),
    ("PageLayout", Value::Number(0)),
    ("FirstPageOnLeft", Value::Boolean(false)),
    ("ExportLinksRelativeFsys", Value::Boolean(true)),
    ("ConvertOOoTargetToPDFTarget", Value::Boolean(false)),
    ("ExportBookmarksToPDFDestination", Value::Boolean(false)),
    ("ExportBookmarks", Value::Boolean(true)),
    ("OpenBookmarkLevels", Value::Number(-1)),
];

/// The `FilterData` for some options: none for none, else all that stock LibreOffice passes, with these in it.
pub(super) fn filter_data<'a>(options: &'a [(Cow<'static, str>, Value)]) -> Vec<(&'a str, Value)> {
    if options.is_empty() {
        return Vec::new();
    }
    let asked = |name: &str| options.iter().any(|(asked, _)| asked == name);
    STOCK
        .into_iter()
        .filter(|(name, _)| !asked(name))
        .chain(options.iter().map(|(name, value)| (name.as_ref(), value.clone())))
        .collect()
}

/// The same without its range of pages, if it has one.
pub(super) fn without_page_range<'a>(filter_data: &[(&'a str, Value)]) -> Option<Vec<(&'a str, Value)>> {
    let is_range = |(name, _): &(&str, Value)| *name == "PageRange";
    filter_data
        .iter()
        .any(is_range)
        .then(|| filter_data.iter().filter(|item| !is_range(item)).cloned().collect())
}
