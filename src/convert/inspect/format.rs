//! The formats that are taken, and what LibreOffice 25.2 calls them (`share/registry/*.xcd`).

/// The formats, each with its extensions (the usual one first) and its import filter.
macro_rules! formats {
    ($($name:ident: [$extension:literal $(, $other:literal)*], $filter:literal;)*) => {
        /// A document format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is named after its usual file extension, or after its program")]
        pub enum Format {
            $($name,)*
        }

        impl Format {
            /// All of them. Where two have an extension in common, the first is the one that it promises.
            const ALL: &[Self] = &[$(Self::$name,)*];

            fn extensions(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &[$extension $(, $other)*],)*
                }
            }

            /// The usual extension, without its dot.
            pub fn extension(self) -> &'static str {
                match self {
                    $(Self::$name => $extension,)*
                }
            }

            /// The import filter that stock LibreOffice picks for this format. Variants that share a format (strict
            /// OOXML, Word 95) name their own.
            pub(super) fn filter(self) -> &'static str {
                match self {
                    $(Self::$name => $filter,)*
                }
            }
        }
    };
}

formats! {
    Docx: ["docx"], "MS Word 2007 XML";
    Docm: ["docm"], "MS Word 2007 XML VBA";
    Dotx: ["dotx", "dotm"], "MS Word 2007 XML Template";
    Xlsx: ["xlsx"], "Calc MS Excel 2007 XML";
    Xlsm: ["xlsm"], "Calc MS Excel 2007 VBA XML";
    Xltx: ["xltx", "xltm"], "Calc MS Excel 2007 XML Template";
    Xlsb: ["xlsb"], "Calc MS Excel 2007 Binary";
    Pptx: ["pptx"], "Impress MS PowerPoint 2007 XML";
    Pptm: ["pptm"], "Impress MS PowerPoint 2007 XML VBA";
    Ppsx: ["ppsx", "ppsm"], "Impress MS PowerPoint 2007 XML AutoPlay";
    Potx: ["potx", "potm"], "Impress MS PowerPoint 2007 XML Template";
    Vsdx: ["vsdx", "vsdm", "vstx"], "Visio Document";

    Odt: ["odt"], "writer8";
    Ott: ["ott"], "writer8_template";
    Odm: ["odm"], "writerglobal8";
    Otm: ["otm"], "writerglobal8_template";
    Oth: ["oth"], "writerweb8_writer_template";
    Ods: ["ods"], "calc8";
    Ots: ["ots"], "calc8_template";
    Odp: ["odp"], "impress8";
    Otp: ["otp"], "impress8_template";
    Odg: ["odg"], "draw8";
    Otg: ["otg"], "draw8_template";
    Odf: ["odf"], "math8";
    Fodt: ["fodt"], "OpenDocument Text Flat XML";
    Fods: ["fods"], "OpenDocument Spreadsheet Flat XML";
    // The second is a slip in Gotenberg's list that somebody may by now rely on.
    Fodp: ["fodp", "fopd"], "OpenDocument Presentation Flat XML";
    Fodg: ["fodg"], "OpenDocument Drawing Flat XML";

    Sxw: ["sxw"], "StarOffice XML (Writer)";
    Stw: ["stw"], "writer_StarOffice_XML_Writer_Template";
    Sxg: ["sxg"], "writer_globaldocument_StarOffice_XML_Writer_GlobalDocument";
    Sxc: ["sxc"], "StarOffice XML (Calc)";
    Stc: ["stc"], "calc_StarOffice_XML_Calc_Template";
    Sxi: ["sxi"], "StarOffice XML (Impress)";
    Sxd: ["sxd"], "StarOffice XML (Draw)";
    Sxm: ["sxm"], "StarOffice XML (Math)";
    Sdw: ["sdw", "vor"], "StarOffice_Writer";
    Sdc: ["sdc"], "StarOffice_Spreadsheet";
    Sdd: ["sdd"], "StarOffice_Presentation";
    Sda: ["sda"], "StarOffice_Drawing";

    Doc: ["doc"], "MS Word 97";
    Dot: ["dot"], "MS Word 97 Vorlage";
    Xls: ["xls", "xlw"], "MS Excel 97";
    // Excel 2 to 4, before compound files.
    Biff: ["xls", "xlw"], "MS Excel 4.0";
    Xlt: ["xlt"], "MS Excel 97 Vorlage/Template";
    Ppt: ["ppt"], "MS PowerPoint 97";
    Pps: ["pps"], "MS PowerPoint 97 AutoPlay";
    Pot: ["pot"], "MS PowerPoint 97 Vorlage";
    Pub: ["pub"], "Publisher Document";
    Vsd: ["vsd"], "Visio Document";
    Wps: ["wps"], "MS_Works";
    Wks: ["wks"], "MS_Works_Calc";
    WordXml: ["xml"], "MS Word 2003 XML";
    ExcelXml: ["xml"], "MS Excel 2003 XML Orcus";
    Vdx: ["vdx"], "Visio Document";

    Wk1: ["wk1", "wk3", "wk4", "123"], "WPS_Lotus_Calc";
    Lwp: ["lwp"], "LotusWordPro";
    Wb2: ["wb2", "wb1", "wq1", "wq2"], "WPS_QPro_Calc";
    Wpd: ["wpd"], "WordPerfect";
    Wpg: ["wpg"], "WordPerfect Graphics";
    Cdr: ["cdr"], "Corel Draw Document";
    Cmx: ["cmx"], "Corel Presentation Exchange";
    Key: ["key"], "Apple Keynote";
    Numbers: ["numbers"], "Apple Numbers";
    Pages: ["pages"], "Apple Pages";
    Hwp: ["hwp"], "writer_MIZI_Hwp_97";
    Psw: ["psw"], "PocketWord File";
    Pdb: ["pdb"], "PalmDoc";
    Plucker: ["pdb"], "Plucker eBook";
    T602: ["602"], "T602Document";
    Dbf: ["dbf"], "dBase";
    Dif: ["dif"], "DIF";
    Slk: ["slk", "sylk"], "SYLK";
    Abw: ["abw"], "AbiWord";
    Zabw: ["zabw"], "AbiWord";
    Fb2: ["fb2"], "FictionBook 2";
    DocBook: ["xml"], "DocBook File";
    Uos: ["uos", "uof"], "UOF spreadsheet";
    Uop: ["uop"], "UOF presentation";
    Mml: ["mml"], "MathML XML (Math)";

    Png: ["png", "apng"], "PNG - Portable Network Graphic";
    Jpg: ["jpg", "jpeg", "jpe", "jif", "jfif"], "JPG - JPEG";
    Gif: ["gif"], "GIF - Graphics Interchange";
    Bmp: ["bmp"], "BMP - MS Windows";
    Tif: ["tif", "tiff"], "TIF - Tag Image File";
    Webp: ["webp"], "WEBP - WebP";
    Svg: ["svg"], "SVG - Scalable Vector Graphics Draw";
    Svgz: ["svgz"], "SVG - Scalable Vector Graphics Draw";
    Emf: ["emf"], "EMF - MS Windows Metafile";
    Emz: ["emz"], "EMZ - Compressed MS Windows Metafile";
    Wmf: ["wmf"], "WMF - MS Windows Metafile";
    Wmz: ["wmz"], "WMZ - Compressed MS Windows Metafile";
    Svm: ["svm"], "SVM - StarView Metafile";
    Pct: ["pct", "pict"], "PCT - Mac Pict";
    Dxf: ["dxf"], "DXF - AutoCAD Interchange";
    Psd: ["psd"], "PSD - Adobe Photoshop";
    Pcx: ["pcx"], "PCX - Zsoft Paintbrush";
    Pcd: ["pcd"], "draw_PCD_Photo_CD_Base";
    Tga: ["tga"], "TGA - Truevision TARGA";
    Ras: ["ras"], "RAS - Sun Rasterfile";
    Pbm: ["pbm"], "PBM - Portable Bitmap";
    Pgm: ["pgm"], "PGM - Portable Graymap";
    Ppm: ["ppm"], "PPM - Portable Pixelmap";
    Xbm: ["xbm"], "XBM - X-Consortium";
    Xpm: ["xpm"], "XPM";

    Rtf: ["rtf"], "Rich Text Format";
    Html: ["html", "htm", "xhtml"], "HTML";
    // BibTeX and LaTeX are printed as they are written.
    Txt: ["txt", "text", "bib", "ltx"], "Text";
    Csv: ["csv", "tsv", "tab"], "Text - txt - csv (StarCalc)";
}

impl Format {
    /// The format that a file's extension (lower case, without its dot) promises.
    pub(super) fn of_extension(extension: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.has_extension(extension))
    }

    /// Whether files of this format have this extension (lower case, without its dot).
    pub(super) fn has_extension(self, extension: &str) -> bool {
        self.extensions().contains(&extension)
    }

    /// The same document as an Office Open XML package, for formats of Microsoft's three programs.
    pub(super) fn as_office_open_xml(self) -> Option<Self> {
        match self {
            Self::Docx
            | Self::Docm
            | Self::Dotx
            | Self::Xlsx
            | Self::Xlsm
            | Self::Xltx
            | Self::Xlsb
            | Self::Pptx
            | Self::Pptm
            | Self::Ppsx
            | Self::Potx => Some(self),
            Self::Doc => Some(Self::Docx),
            Self::Dot => Some(Self::Dotx),
            Self::Xls => Some(Self::Xlsx),
            Self::Xlt => Some(Self::Xltx),
            Self::Ppt => Some(Self::Pptx),
            Self::Pps => Some(Self::Ppsx),
            Self::Pot => Some(Self::Potx),
            _ => None,
        }
    }

    /// Whether LibreOffice tells a wrong password from a damaged document: of packages of OpenDocument, and of its
    /// predecessor, it says neither.
    pub(in crate::convert) fn tells_wrong_passwords(self) -> bool {
        self.as_office_open_xml().is_some()
    }

    /// Whether files of this format are text that is known by its name alone, or hardly by more.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Txt | Self::Csv | Self::Html) || self.is_flat()
    }

    /// Whether files of this format are one XML document of OpenDocument.
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
            "application/vnd.ms-visio.drawing.main+xml"
            | "application/vnd.ms-visio.drawing.macroEnabled.main+xml"
            | "application/vnd.ms-visio.template.main+xml"
            | "application/vnd.ms-visio.template.macroEnabled.main+xml" => Self::Vsdx,
            _ => return None,
        })
    }

    /// The format of an OpenDocument package by its media type (ODF 1.3 part 2, section 3.3), or of its forerunner.
    pub(super) fn of_media_type(media_type: &str) -> Option<Self> {
        if let Some(old) = media_type.strip_prefix("application/vnd.sun.xml.") {
            return Some(match old {
                "writer" => Self::Sxw,
                "writer.template" => Self::Stw,
                "writer.global" => Self::Sxg,
                "calc" => Self::Sxc,
                "calc.template" => Self::Stc,
                "impress" => Self::Sxi,
                "draw" => Self::Sxd,
                "math" => Self::Sxm,
                _ => return None,
            });
        }
        Some(match media_type.strip_prefix("application/vnd.oasis.opendocument.")? {
            "text" => Self::Odt,
            "text-template" => Self::Ott,
            "text-master" => Self::Odm,
            "text-master-template" => Self::Otm,
            "text-web" => Self::Oth,
            "spreadsheet" => Self::Ods,
            "spreadsheet-template" => Self::Ots,
            "presentation" => Self::Odp,
            "presentation-template" => Self::Otp,
            "graphics" => Self::Odg,
            "graphics-template" => Self::Otg,
            "formula" => Self::Odf,
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
