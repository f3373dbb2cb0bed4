//! The formats that jobs may ask for, each named by its file extension.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::error::{Failure, FailureCode};

macro_rules! formats {
    ($($(#[$what:meta])* $name:ident $extension:literal $content_type:literal,)*) => {
        /// What a job makes of a document. Not every kind of document can become every format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Format {
            $($(#[$what])* $name,)*
        }

        impl Format {
            /// All of them.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// As messages write it; also the file extension.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $extension,)*
                }
            }

            /// The media type of the output.
            pub fn content_type(self) -> &'static str {
                match self {
                    $(Self::$name => $content_type,)*
                }
            }
        }
    };
}

// Left out of what LibreOffice lists as exports: what it writes only together with other files, xml (four formats have
// that extension), and those of macros (docm, xlsm, pptm: no macro is ever loaded, so none could be written), of master
// documents, of animations, compressed twins of formats that are here (svgz, emz, wmz), and Uniform Office Format.
formats! {
    /// A PDF.
    Pdf "pdf" "application/pdf",
    /// An image of one page.
    Png "png" "image/png",
    /// The same, compressed with losses.
    Jpg "jpg" "image/jpeg",
    /// Plain text in UTF-8.
    Txt "txt" "text/plain; charset=utf-8",
    /// One web page, with its images inside.
    Html "html" "text/html; charset=utf-8",
    /// Word, since 2007.
    Docx "docx" "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    /// A template of Word's.
    Dotx "dotx" "application/vnd.openxmlformats-officedocument.wordprocessingml.template",
    /// Word, until 2003.
    Doc "doc" "application/msword",
    /// A template of Word's, until 2003.
    Dot "dot" "application/msword",
    /// Rich Text Format.
    Rtf "rtf" "application/rtf",
    /// OpenDocument text.
    Odt "odt" "application/vnd.oasis.opendocument.text",
    /// OpenDocument text, a template.
    Ott "ott" "application/vnd.oasis.opendocument.text-template",
    /// OpenDocument text, as one XML file.
    Fodt "fodt" "application/vnd.oasis.opendocument.text-flat-xml",
    /// An electronic book.
    Epub "epub" "application/epub+zip",
    /// Excel, since 2007.
    Xlsx "xlsx" "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    /// A template of Excel's.
    Xltx "xltx" "application/vnd.openxmlformats-officedocument.spreadsheetml.template",
    /// Excel, until 2003.
    Xls "xls" "application/vnd.ms-excel",
    /// A template of Excel's, until 2003.
    Xlt "xlt" "application/vnd.ms-excel",
    /// OpenDocument spreadsheet.
    Ods "ods" "application/vnd.oasis.opendocument.spreadsheet",
    /// OpenDocument spreadsheet, a template.
    Ots "ots" "application/vnd.oasis.opendocument.spreadsheet-template",
    /// OpenDocument spreadsheet, as one XML file.
    Fods "fods" "application/vnd.oasis.opendocument.spreadsheet-flat-xml",
    /// The first sheet's values, separated by commas if the job does not say otherwise.
    Csv "csv" "text/csv",
    /// The first sheet's values, separated by tabs.
    Tsv "tsv" "text/tab-separated-values",
    /// dBASE.
    Dbf "dbf" "application/vnd.dbf",
    /// Data Interchange Format.
    Dif "dif" "text/plain",
    /// Symbolic Link, an interchange format of spreadsheets.
    Slk "slk" "text/plain",
    /// PowerPoint, since 2007.
    Pptx "pptx" "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    /// A template of PowerPoint's.
    Potx "potx" "application/vnd.openxmlformats-officedocument.presentationml.template",
    /// PowerPoint, until 2003.
    Ppt "ppt" "application/vnd.ms-powerpoint",
    /// PowerPoint, until 2003, opens as a show.
    Pps "pps" "application/vnd.ms-powerpoint",
    /// A template of PowerPoint's, until 2003.
    Pot "pot" "application/vnd.ms-powerpoint",
    /// OpenDocument presentation.
    Odp "odp" "application/vnd.oasis.opendocument.presentation",
    /// OpenDocument presentation, a template.
    Otp "otp" "application/vnd.oasis.opendocument.presentation-template",
    /// OpenDocument presentation, as one XML file.
    Fodp "fodp" "application/vnd.oasis.opendocument.presentation-flat-xml",
    /// OpenDocument drawing.
    Odg "odg" "application/vnd.oasis.opendocument.graphics",
    /// OpenDocument drawing, a template.
    Otg "otg" "application/vnd.oasis.opendocument.graphics-template",
    /// OpenDocument drawing, as one XML file.
    Fodg "fodg" "application/vnd.oasis.opendocument.graphics-flat-xml",
    /// OpenDocument formula.
    Odf "odf" "application/vnd.oasis.opendocument.formula",
    /// MathML.
    Mml "mml" "application/mathml+xml",
    /// XHTML, with its images inside.
    Xhtml "xhtml" "application/xhtml+xml",
    /// WebP.
    Webp "webp" "image/webp",
    /// Scalable Vector Graphics.
    Svg "svg" "image/svg+xml",
    /// GIF.
    Gif "gif" "image/gif",
    /// Windows bitmap.
    Bmp "bmp" "image/bmp",
    /// TIFF.
    Tif "tif" "image/tiff",
    /// Enhanced metafile.
    Emf "emf" "image/emf",
    /// Windows metafile.
    Wmf "wmf" "image/wmf",
    /// Encapsulated PostScript.
    Eps "eps" "application/postscript",
}

impl Format {
    /// The format of this name.
    ///
    /// # Errors
    /// `option.invalid`, with the formats there are.
    pub fn parse(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::as_str);
                Failure::new(
                    FailureCode::OptionInvalid,
                    format!(
                        "The output format {name:?} is not one this version makes: use one of {}.",
                        names.join(", ")
                    ),
                )
                .with("format", name)
                .with("allowed", names.to_vec())
            })
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for Format {
    fn schema_name() -> Cow<'static, str> {
        "Format".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"description": "A format, by its file extension.", "enum": Self::ALL.map(Self::as_str).as_slice()})
    }
}
