//! The engine through its own interface: a real zygote, real LibreOffice, real documents.

use std::path::{Path, PathBuf};
use std::time::Duration;

use platen::engine::{Conversion, Converted, Engine, Export, Format, Import, JobDirectory, Limits, Settings, Verdict};
use platen::sandbox::Mode;
use tempfile::TempDir;

/// Room enough for every document that is not made to break a limit.
const LIMITS: Limits = Limits {
    wall: Duration::from_secs(120),
    memory: 1 << 30,
    output_size: 500 << 20,
    pages: 5000,
};

/// An engine and the directory that it works in.
struct Bench {
    engine: Engine,
    work: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let work = tempfile::tempdir().unwrap();
        let engine = Engine::start(settings(work.path())).await.expect("the engine starts");
        Self { engine, work }
    }

    async fn convert(&self, document: &Path) -> Result<(JobDirectory, Converted), Verdict> {
        self.convert_within(document, LIMITS).await
    }

    async fn convert_within(&self, document: &Path, limits: Limits) -> Result<(JobDirectory, Converted), Verdict> {
        let directory = self.engine.job_directory().unwrap();
        let name = document.file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::copy(document, directory.path().join(&name)).unwrap();
        let conversion = Conversion {
            directory: &directory,
            document: name,
            import: import_of(document),
            password: None,
            exports: vec![pdf()],
            limits,
        };
        let converted = self.engine.convert(conversion).await?;
        Ok((directory, converted))
    }
}

fn settings(work: &Path) -> Settings {
    Settings {
        program: "/usr/lib/libreoffice/program".into(),
        locale: "C.UTF-8".to_owned(),
        work_directory: work.to_owned(),
        sandbox: Mode::Required,
        fonts: None,
        executable: Some(env!("CARGO_BIN_EXE_platen").into()),
    }
}

fn pdf() -> Export {
    Export {
        file: "out.pdf".to_owned(),
        format: Format::Pdf,
        options: Vec::new(),
    }
}

/// The import filters of the documents used here; the worker chooses them by content.
fn import_of(document: &Path) -> Import {
    let (filter, options) = match document.extension().and_then(|extension| extension.to_str()).unwrap() {
        "docx" => ("MS Word 2007 XML", None),
        "xlsx" => ("Calc MS Excel 2007 XML", None),
        "pptx" => ("Impress MS PowerPoint 2007 XML", None),
        "doc" => ("MS Word 97", None),
        "xls" => ("MS Excel 97", None),
        "ppt" => ("MS PowerPoint 97", None),
        "odt" => ("writer8", None),
        "ods" => ("calc8", None),
        "odp" => ("impress8", None),
        "odg" => ("draw8", None),
        "fodt" => ("OpenDocument Text Flat XML", None),
        "fods" => ("OpenDocument Spreadsheet Flat XML", None),
        "fodp" => ("OpenDocument Presentation Flat XML", None),
        "rtf" => ("Rich Text Format", None),
        "html" => ("HTML", None),
        "txt" => ("Text", None),
        "csv" => ("Text - txt - csv (StarCalc)", Some("44,34,76,1,,0,false,true".into())),
        other => panic!("no import filter for .{other}"),
    };
    Import {
        filter: filter.into(),
        options,
    }
}

fn shared_documents() -> Option<PathBuf> {
    let shared = std::env::var_os("PLATEN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let plain = shared.join("documents/plain");
    plain.is_dir().then_some(plain)
}

#[tokio::test]
async fn a_document_becomes_a_pdf() {
    let bench = Bench::start().await;
    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("Überblick 2026.fodt");
    std::fs::write(&document, include_bytes!("../../src/engine/warm/writer.fodt")).unwrap();
    let (_kept, converted) = bench.convert(&document).await.unwrap();
    assert_eq!(converted.outputs.len(), 1);
    assert_eq!(converted.outputs[0].pages, 2);
    assert_eq!(bench.engine.version().split(' ').next(), Some("LibreOffice"));
}
