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

/// Every plain document that stock LibreOffice converts must come out the same: pages and text. Stock runs under the
/// same configuration layer and locale, and chooses its import filter itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_come_out_as_stock_libreoffice_makes_them() {
    let Some(documents) = shared_documents() else {
        println!("skipped: no shared documents; set PLATEN_SHARED");
        return;
    };
    let bench = Bench::start().await;
    let stock = Stock::new();
    let (mut same, mut refused) = (0, 0);
    let mut different = Vec::new();
    let mut names: Vec<PathBuf> = std::fs::read_dir(documents).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for document in names {
        let expected = stock.convert(&document);
        let converted = bench.convert(&document).await;
        let name = document.file_name().unwrap().to_string_lossy();
        match (expected, converted) {
            (Some(expected), Ok((_kept, converted))) => {
                let output = &converted.outputs[0];
                if expected == (PagesAndText { pages: output.pages, text: text_of(&output.path) }) {
                    same += 1;
                } else {
                    different.push(format!("{name}: stock {} pages, here {}", expected.pages, output.pages));
                }
            }
            (Some(_), Err(verdict)) => different.push(format!("{name}: stock converts it, here: {verdict}")),
            (None, Ok(_)) => different.push(format!("{name}: stock does not convert it")),
            (None, Err(_)) => refused += 1,
        }
    }
    println!("{same} the same as stock, {refused} that neither converts");
    assert_eq!(different, Vec::<String>::new());
    assert!(same > 50, "only {same} documents were compared");
}

/// `soffice --convert-to pdf`, with a made profile layer.
struct Stock {
    directory: TempDir,
}

#[derive(PartialEq)]
struct PagesAndText {
    pages: u64,
    text: String,
}

impl Stock {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("platen.xcu"), include_str!("../../src/engine/platen.xcu")).unwrap();
        Self { directory }
    }

    fn convert(&self, document: &Path) -> Option<PagesAndText> {
        let home = self.directory.path();
        let status = std::process::Command::new("soffice")
            .arg("--headless")
            .arg("--convert-to")
            .arg("pdf")
            .arg("--outdir")
            .arg(home)
            .arg(document)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home)
            .env("LC_ALL", "C.UTF-8")
            .env("SAL_USE_VCLPLUGIN", "svp")
            .env(
                "CONFIGURATION_LAYERS",
                format!(
                    "xcsxcu:${{BRAND_BASE_DIR}}/share/registry res:${{BRAND_BASE_DIR}}/share/registry user:*file://{}",
                    home.join("platen.xcu").display()
                ),
            )
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .expect("soffice is installed (deploy/packages.sh engine)");
        assert!(status.success(), "soffice ends with {status}");
        let output = home.join(document.with_extension("pdf").file_name().unwrap());
        let made = output.exists().then(|| PagesAndText { pages: pages_of(&output), text: text_of(&output) });
        drop(std::fs::remove_file(&output));
        made
    }
}

fn pages_of(pdf: &Path) -> u64 {
    let information = run("pdfinfo", &[], pdf);
    let pages = information.lines().find_map(|line| line.strip_prefix("Pages:")).expect("pdfinfo names the pages");
    pages.trim().parse().unwrap()
}

fn text_of(pdf: &Path) -> String {
    run("pdftotext", &["-"], pdf)
}

fn run(program: &str, after: &[&str], file: &Path) -> String {
    let output = std::process::Command::new(program).arg(file).args(after).output().expect("poppler-utils are installed");
    assert!(output.status.success(), "{program} {} ends with {}", file.display(), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
