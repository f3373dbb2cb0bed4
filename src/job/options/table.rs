//! Every option there is: its name, its shape with the range and the default, and what it needs or excludes.
//!
//! Names, meanings and ranges are those of Gotenberg's LibreOffice route. A default is what stock LibreOffice does when
//! it is asked for nothing, because an option that is not named changes nothing: six of them
//! (`exportFormFields`, `skipEmptyPages`, `exportLinksRelativeFsys`, `reduceImageResolution`, `initialView`, `updateIndexes`)
//! are different in Gotenberg, which always passes a value of its own.
//!
//! One of Gotenberg's values is not here because LibreOffice 25.2 does not do it: what it writes for PDF/A-4 lacks the
//! `pdfaid:rev` that the standard demands and has a `pdfaid:conformance` that it forbids (ISO 19005-4 6.7.3).
//! Sources: gotenberg.dev/docs/convert-with-libreoffice/convert-to-pdf; LibreOffice's
//! officecfg/registry/schema/org/openoffice/Office/Common.xcs, group Filter/PDF/Export.

use super::super::Format;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Switch {
        /// Without the option.
        default: bool,
    },
    /// A whole number of a range.
    Number {
        /// Without the option.
        default: i32,
        /// The least.
        least: i32,
        /// The most.
        most: i32,
    },
    /// One of a few numbers.
    Choice {
        /// Without the option.
        default: i32,
        /// All of them.
        allowed: &'static [i32],
    },
    /// One of a few words; without the option none.
    Word {
        /// All of them.
        allowed: &'static [&'static str],
    },
    /// A line of text.
    Text {
        /// Without the option.
        default: &'static str,
        /// The most it may take, in bytes.
        longest: usize,
    },
    /// Pages such as `1-3,5,8-`; without the option all.
    Pages,
    /// A paper by its name or its sides; without the option the document's own.
    Paper,
    /// How sheets are scaled down: see [`super::values::FIT`]; without the option as the document says.
    Fit,
    /// One character between values; without the option what is found, or a comma.
    Separator,
    /// Document properties; without the option the document's own.
    Metadata,
}

/// One option.
#[derive(Debug)]
pub(super) struct Definition {
    /// As jobs write it.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) shape: Shape,
    /// The formats that it is for.
    pub(super) formats: &'static [Format],
}

/// What must hold between two options when the first has a value of its own.
#[derive(Debug)]
pub(super) struct Rule {
    /// The option that is named.
    pub(super) option: &'static str,
    /// The option that it depends on.
    pub(super) other: &'static str,
    /// What that must be.
    pub(super) must: Must,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Must {
    /// This value.
    Be(Literal),
    /// Not this value.
    NotBe(Literal),
    /// Named, with any value but its default.
    BeSet,
    /// Not named, or its default.
    BeUnset,
}

/// A value as this table writes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Literal {
    Switch(bool),
    Number(i32),
    Word(&'static str),
}

const PDF: &[Format] = &[Format::Pdf];
const IMAGES: &[Format] = &[Format::Png, Format::Jpg];
/// What has pages.
const PAGED: &[Format] = &[Format::Pdf, Format::Png, Format::Jpg];
const ALL: &[Format] = &Format::ALL;

const fn switch(name: &'static str, default: bool) -> Definition {
    pdf(name, Shape::Switch { default })
}

const fn number(name: &'static str, default: i32, least: i32, most: i32) -> Definition {
    pdf(name, Shape::Number { default, least, most })
}

const fn choice(name: &'static str, default: i32, allowed: &'static [i32]) -> Definition {
    pdf(name, Shape::Choice { default, allowed })
}

const fn text(name: &'static str, default: &'static str, longest: usize) -> Definition {
    pdf(name, Shape::Text { default, longest })
}

const fn pdf(name: &'static str, shape: Shape) -> Definition {
    Definition {
        name,
        shape,
        formats: PDF,
    }
}

/// All options, in the order of Gotenberg's documentation.
pub(super) static DEFINITIONS: &[Definition] = &[
    pdf("nativePageRanges", Shape::Pages),
    switch("singlePageSheets", false),
    switch("skipEmptyPages", true),
    switch("exportHiddenSlides", false),
    switch("exportFormFields", false),
    switch("allowDuplicateFieldNames", false),
    switch("exportBookmarks", true),
    switch("exportBookmarksToPdfDestination", false),
    switch("exportPlaceholders", false),
    switch("exportNotes", false),
    switch("exportNotesPages", false),
    switch("exportOnlyNotesPages", false),
    switch("exportNotesInMargin", false),
    switch("convertOooTargetToPdfTarget", false),
    switch("exportLinksRelativeFsys", true),
    switch("addOriginalDocumentAsStream", false),
    choice("initialView", 1, &[0, 1, 2]),
    number("initialPage", 1, 1, 1_000_000),
    choice("magnification", 0, &[0, 1, 2, 3, 4]),
    number("zoom", 100, 1, 6400),
    choice("pageLayout", 0, &[0, 1, 2, 3]),
    switch("firstPageOnLeft", false),
    switch("resizeWindowToInitialPage", false),
    switch("centerWindow", false),
    switch("openInFullScreenMode", false),
    switch("displayPDFDocumentTitle", true),
    switch("hideViewerMenubar", false),
    switch("hideViewerToolbar", false),
    switch("hideViewerWindowControls", false),
    switch("useTransitionEffects", true),
    choice("openBookmarkLevels", -1, &[-1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    switch("losslessImageCompression", false),
    number("quality", 90, 1, 100),
    switch("reduceImageResolution", true),
    choice("maxImageResolution", 300, &[75, 150, 300, 600, 1200]),
    text("nativeWatermarkText", "", 200),
    number("nativeWatermarkColor", 8_388_223, 0, 0xff_ffff),
    number("nativeWatermarkFontHeight", 0, 0, 1000),
    number("nativeWatermarkRotateAngle", 0, -3600, 3600),
    text("nativeWatermarkFontName", "Helvetica", 100),
    text("nativeTiledWatermarkText", "", 200),
    pdf(
        "pdfa",
        Shape::Word {
            allowed: &["PDF/A-1b", "PDF/A-2b", "PDF/A-3b"],
        },
    ),
    switch("pdfua", false),
    // Of the loaded document: its pages, its indexes, its properties.
    of(PAGED, "landscape", Shape::Switch { default: false }),
    of(PAGED, "paperSize", Shape::Paper),
    of(PAGED, "fitToPage", Shape::Fit),
    of(PAGED, "updateIndexes", Shape::Switch { default: false }),
    of(PDF, "metadata", Shape::Metadata),
    // Of images.
    of(
        IMAGES,
        "page",
        Shape::Number {
            default: 1,
            least: 1,
            most: 32_767,
        },
    ),
    of(IMAGES, "width", image_number(16, 16_384)),
    of(IMAGES, "dpi", image_number(10, 1200)),
    // Of separated values: the output's where it is one, else the document's.
    of(ALL, "separator", Shape::Separator),
    of(
        ALL,
        "charset",
        Shape::Word {
            allowed: super::values::CHARSETS,
        },
    ),
];

const fn of(formats: &'static [Format], name: &'static str, shape: Shape) -> Definition {
    Definition { name, shape, formats }
}

/// Without the option LibreOffice's own choice, which is none of these numbers.
const fn image_number(least: i32, most: i32) -> Shape {
    Shape::Number {
        default: 0,
        least,
        most,
    }
}

const fn rule(option: &'static str, other: &'static str, must: Must) -> Rule {
    Rule { option, other, must }
}

/// What LibreOffice would ignore in silence, and what the format forbids.
pub(super) static RULES: &[Rule] = &[
    rule(
        "allowDuplicateFieldNames",
        "exportFormFields",
        Must::Be(Literal::Switch(true)),
    ),
    rule(
        "exportOnlyNotesPages",
        "exportNotesPages",
        Must::Be(Literal::Switch(true)),
    ),
    rule("zoom", "magnification", Must::Be(Literal::Number(4))),
    rule("firstPageOnLeft", "pageLayout", Must::Be(Literal::Number(3))),
    rule("openBookmarkLevels", "exportBookmarks", Must::Be(Literal::Switch(true))),
    rule("quality", "losslessImageCompression", Must::Be(Literal::Switch(false))),
    rule(
        "maxImageResolution",
        "reduceImageResolution",
        Must::Be(Literal::Switch(true)),
    ),
    rule("nativeWatermarkColor", "nativeWatermarkText", Must::BeSet),
    rule("nativeWatermarkFontHeight", "nativeWatermarkText", Must::BeSet),
    rule("nativeWatermarkRotateAngle", "nativeWatermarkText", Must::BeSet),
    rule("nativeWatermarkFontName", "nativeWatermarkText", Must::BeSet),
    rule("nativeTiledWatermarkText", "nativeWatermarkText", Must::BeUnset),
    rule("singlePageSheets", "nativePageRanges", Must::BeUnset),
    // Each sheet on a page of its own size, or on one of the document's.
    rule("singlePageSheets", "fitToPage", Must::BeUnset),
    rule("singlePageSheets", "paperSize", Must::BeUnset),
    rule("singlePageSheets", "landscape", Must::BeUnset),
    rule("width", "dpi", Must::BeUnset),
    // Of these only PDF/A-3 allows any file inside (ISO 19005-1 6.1.11, -2 6.8).
    rule(
        "addOriginalDocumentAsStream",
        "pdfa",
        Must::NotBe(Literal::Word("PDF/A-1b")),
    ),
    rule(
        "addOriginalDocumentAsStream",
        "pdfa",
        Must::NotBe(Literal::Word("PDF/A-2b")),
    ),
];
