//! The formats that are taken, and what LibreOffice 25.2 calls them (`share/registry/*.xcd`).

/// A document format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after its file extension")]
pub enum Format {
    Docx,
    Docm,
    Dotx,
    Xlsx,
    Xlsm,
    Xltx,
    Xlsb,
    Pptx,
    Pptm,
    Ppsx,
    Potx,
    Odt,
    Ott,
    Ods,
    Ots,
    Odp,
    Otp,
    Odg,
    Otg,
    Fodt,
    Fods,
    Fodp,
    Fodg,
    Doc,
    Dot,
    Xls,
    Xlt,
    Ppt,
    Pps,
    Pot,
    Rtf,
    Html,
    Txt,
    Csv,
}

impl Format {
    const ALL: [Self; 34] = [
        Self::Docx,
        Self::Docm,
        Self::Dotx,
        Self::Xlsx,
        Self::Xlsm,
        Self::Xltx,
        Self::Xlsb,
        Self::Pptx,
        Self::Pptm,
        Self::Ppsx,
        Self::Potx,
        Self::Odt,
        Self::Ott,
        Self::Ods,
        Self::Ots,
        Self::Odp,
        Self::Otp,
        Self::Odg,
        Self::Otg,
        Self::Fodt,
        Self::Fods,
        Self::Fodp,
        Self::Fodg,
        Self::Doc,
        Self::Dot,
        Self::Xls,
        Self::Xlt,
        Self::Ppt,
        Self::Pps,
        Self::Pot,
        Self::Rtf,
        Self::Html,
        Self::Txt,
        Self::Csv,
    ];

    /// The usual extension, without its dot.
    pub fn extension(self) -> &'static str {
        self.row().0
    }

    /// The import filter that stock LibreOffice picks for this format. Variants that share a format (strict OOXML,
    /// Word 95) name their own.
    pub(super) fn filter(self) -> &'static str {
        self.row().1
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Docx => ("docx", "MS Word 2007 XML"),
            Self::Docm => ("docm", "MS Word 2007 XML VBA"),
            Self::Dotx => ("dotx", "MS Word 2007 XML Template"),
            Self::Xlsx => ("xlsx", "Calc MS Excel 2007 XML"),
            Self::Xlsm => ("xlsm", "Calc MS Excel 2007 VBA XML"),
            Self::Xltx => ("xltx", "Calc MS Excel 2007 XML Template"),
            Self::Xlsb => ("xlsb", "Calc MS Excel 2007 Binary"),
            Self::Pptx => ("pptx", "Impress MS PowerPoint 2007 XML"),
            Self::Pptm => ("pptm", "Impress MS PowerPoint 2007 XML VBA"),
            Self::Ppsx => ("ppsx", "Impress MS PowerPoint 2007 XML AutoPlay"),
            Self::Potx => ("potx", "Impress MS PowerPoint 2007 XML Template"),
            Self::Odt => ("odt", "writer8"),
            Self::Ott => ("ott", "writer8_template"),
            Self::Ods => ("ods", "calc8"),
            Self::Ots => ("ots", "calc8_template"),
            Self::Odp => ("odp", "impress8"),
            Self::Otp => ("otp", "impress8_template"),
            Self::Odg => ("odg", "draw8"),
            Self::Otg => ("otg", "draw8_template"),
            Self::Fodt => ("fodt", "OpenDocument Text Flat XML"),
            Self::Fods => ("fods", "OpenDocument Spreadsheet Flat XML"),
            Self::Fodp => ("fodp", "OpenDocument Presentation Flat XML"),
            Self::Fodg => ("fodg", "OpenDocument Drawing Flat XML"),
            Self::Doc => ("doc", "MS Word 97"),
            Self::Dot => ("dot", "MS Word 97 Vorlage"),
            Self::Xls => ("xls", "MS Excel 97"),
            Self::Xlt => ("xlt", "MS Excel 97 Vorlage/Template"),
            Self::Ppt => ("ppt", "MS PowerPoint 97"),
            Self::Pps => ("pps", "MS PowerPoint 97 AutoPlay"),
            Self::Pot => ("pot", "MS PowerPoint 97 Vorlage"),
            Self::Rtf => ("rtf", "Rich Text Format"),
            Self::Html => ("html", "HTML"),
            Self::Txt => ("txt", "Text"),
            Self::Csv => ("csv", "Text - txt - csv (StarCalc)"),
        }
    }

    /// The format that a file's extension (lower case, without its dot) promises.
    pub(super) fn of_extension(extension: &str) -> Option<Self> {
        Some(match extension {
            "dotm" => Self::Dotx,
            "xltm" => Self::Xltx,
            "ppsm" => Self::Ppsx,
            "potm" => Self::Potx,
            "htm" | "xhtml" => Self::Html,
            "text" => Self::Txt,
            "tsv" | "tab" => Self::Csv,
            _ => return Self::ALL.into_iter().find(|format| format.extension() == extension),
        })
    }

    /// Whether files of this format are text that is known by its name alone, or hardly by more.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Txt | Self::Csv | Self::Html) || self.is_flat()
    }

    /// Whether files of this format are one XML document.
    pub(super) fn is_flat(self) -> bool {
        matches!(self, Self::Fodt | Self::Fods | Self::Fodp | Self::Fodg)
    }

    /// The format of an OOXML package by its main part's content type (ECMA-376; the macro types are Microsoft's).
    /// LibreOffice loads a template with macros through the filter of one without.
    pub(super) fn of_content_type(content_type: &str) -> Option<Self> {
        Some(match content_type {
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml" => Self::Docx,
            "application/vnd.ms-word.document.macroEnabled.main+xml" => Self::Docm,
            "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml"
            | "application/vnd.ms-word.template.macroEnabledTemplate.main+xml" => Self::Dotx,
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml" => Self::Xlsx,
            "application/vnd.ms-excel.sheet.macroEnabled.main+xml" => Self::Xlsm,
            "application/vnd.openxmlformats-officedocument.spreadsheetml.template.main+xml"
            | "application/vnd.ms-excel.template.macroEnabled.main+xml" => Self::Xltx,
            "application/vnd.ms-excel.sheet.binary.macroEnabled.main" => Self::Xlsb,
            "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml" => Self::Pptx,
            "application/vnd.ms-powerpoint.presentation.macroEnabled.main+xml" => Self::Pptm,
            "application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml"
            | "application/vnd.ms-powerpoint.slideshow.macroEnabled.main+xml" => Self::Ppsx,
            "application/vnd.openxmlformats-officedocument.presentationml.template.main+xml"
            | "application/vnd.ms-powerpoint.template.macroEnabled.main+xml" => Self::Potx,
            _ => return None,
        })
    }

    /// The format of an OpenDocument package by its media type (ODF 1.3 part 2, section 3.3).
    pub(super) fn of_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type.strip_prefix("application/vnd.oasis.opendocument.")? {
            "text" => Self::Odt,
            "text-template" => Self::Ott,
            "spreadsheet" => Self::Ods,
            "spreadsheet-template" => Self::Ots,
            "presentation" => Self::Odp,
            "presentation-template" => Self::Otp,
            "graphics" => Self::Odg,
            "graphics-template" => Self::Otg,
            _ => return None,
        })
    }

    /// The same as one flat XML file; templates have the filter of documents.
    pub(super) fn flat(self) -> Option<Self> {
        Some(match self {
            Self::Odt | Self::Ott => Self::Fodt,
            Self::Ods | Self::Ots => Self::Fods,
            Self::Odp | Self::Otp => Self::Fodp,
            Self::Odg | Self::Otg => Self::Fodg,
            _ => return None,
        })
    }
}
