//! The engine through its own interface: a real zygote, real LibreOffice, real documents.

use std::path::{Path, PathBuf};
use std::time::Duration;

use platen::engine::{
    Conversion, Converted, Engine, Export, Footprint, Format, Import, JobDirectory, Limits, Password, Settings, Value,
    Verdict,
};
use platen::sandbox::Mode;
use tempfile::TempDir;

/// Room enough for every document that is not made to break a limit.
pub(crate) const LIMITS: Limits = Limits {
    wall: Duration::from_secs(120),
    processor: Duration::from_secs(120),
    memory: 1 << 30,
    output_size: 500 << 20,
    pages: 5000,
    threads: Limits::MOST_THREADS,
};

/// An engine and the directory that it works in.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) work: TempDir,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let work = tempfile::tempdir().unwrap();
        let engine = Engine::start(settings(work.path())).await.expect("the engine starts");
        Self { engine, work }
    }

    /// Converts a document of this name and content, after `change` had a look at what is asked.
    pub(crate) async fn convert_bytes(
        &self,
        name: &str,
        content: &[u8],
        change: impl FnOnce(&mut Conversion<'_>),
    ) -> Result<(JobDirectory, Converted), Verdict> {
        let directory = self.engine.job_directory().unwrap();
        std::fs::write(directory.path().join(name), content).unwrap();
        let mut conversion = conversion(&directory, name);
        change(&mut conversion);
        let converted = self.engine.convert(conversion).await?;
        Ok((directory, converted))
    }
}

impl Bench {
    /// The job directories that are still there.
    pub(crate) fn job_directories(&self) -> Vec<String> {
        job_directories(self.work.path())
    }
}

/// The job directories of every process that works in `work`.
pub(crate) fn job_directories(work: &Path) -> Vec<String> {
    let names = |directory: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    };
    let jobs = names(work).into_iter().flat_map(|process| names(&process));
    jobs.map(|path| path.display().to_string())
        .filter(|path| path.contains("/job-"))
        .collect()
}

pub(crate) fn settings(work: &Path) -> Settings {
    Settings {
        program: "/usr/lib/libreoffice/program".into(),
        locale: "C.UTF-8".to_owned(),
        work_directory: work.to_owned(),
        sandbox: Mode::Required,
        fonts: None,
        executable: Some(env!("CARGO_BIN_EXE_platen").into()),
    }
}

/// To a PDF, with room enough.
pub(crate) fn conversion<'a>(directory: &'a JobDirectory, document: &str) -> Conversion<'a> {
    Conversion {
        directory,
        document: document.to_owned(),
        import: import_of(Path::new(document)),
        password: None,
        exports: vec![pdf()],
        limits: LIMITS,
        deadline: None,
    }
}

fn pdf() -> Export {
    Export::plain("out.pdf".to_owned(), Format::PDF)
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

pub(crate) fn shared_documents(kind: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("PLATEN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let documents = shared.join("documents").join(kind);
    documents.is_dir().then_some(documents)
}

/// Three pages, each with its own text.
pub(crate) const THREE_PAGES: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
  xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
  xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0"
  office:version="1.3" office:mimetype="application/vnd.oasis.opendocument.text">
<office:automatic-styles><style:style style:name="Break" style:family="paragraph">
<style:paragraph-properties fo:break-before="page"/></style:style></office:automatic-styles>
<office:body><office:text><text:p>first page</text:p><text:p text:style-name="Break">second page</text:p>
<text:p text:style-name="Break">third page <text:file-name text:display="name-and-extension">?</text:file-name></text:p>
</office:text></office:body></office:document>"#;

#[tokio::test]
async fn a_document_becomes_a_pdf() {
    let bench = Bench::start().await;
    let name = "\u{dc}berblick 2026.fodt";
    let (kept, converted) = bench.convert_bytes(name, THREE_PAGES, |_| {}).await.unwrap();
    assert_eq!(converted.outputs.len(), 1);
    let output = &converted.outputs[0];
    assert_eq!(
        (output.pages, output.size),
        (Some(3), std::fs::metadata(&output.path).unwrap().len())
    );
    let text = text_of(&output.path);
    assert!(text.contains("first page") && text.contains("third page"), "{text}");
    assert!(
        text.contains(name),
        "the field with the file's name prints its real name: {text}"
    );
    assert!(
        converted.usage.cpu_ms > 0 && converted.usage.peak_memory > 1 << 20,
        "{:?}",
        converted.usage
    );
    assert!(
        bench.engine.version().starts_with("LibreOffice 25.2."),
        "{}",
        bench.engine.version()
    );
    drop(kept);
    crate::engine_limits::nothing_left(&bench).await;
}

#[tokio::test]
async fn an_export_option_reaches_the_filter() {
    let bench = Bench::start().await;
    let (_kept, converted) = bench
        .convert_bytes("pages.fodt", THREE_PAGES, |conversion| {
            conversion.exports[0]
                .options
                .push(("PageRange".into(), Value::Text("2-3".to_owned())));
        })
        .await
        .unwrap();
    assert_eq!(converted.outputs[0].pages, Some(2));
    assert!(!text_of(&converted.outputs[0].path).contains("first page"));
}

#[tokio::test]
async fn one_document_becomes_several_outputs() {
    let bench = Bench::start().await;
    let (_kept, converted) = bench
        .convert_bytes("pages.fodt", THREE_PAGES, |conversion| {
            conversion.exports.push(Export {
                options: vec![("PageRange".into(), Value::Text("1".to_owned()))],
                ..Export::plain("first.pdf".to_owned(), Format::PDF)
            });
        })
        .await
        .unwrap();
    assert_eq!(
        converted.outputs.iter().map(|output| output.pages).collect::<Vec<_>>(),
        [Some(3), Some(1)]
    );
}

#[tokio::test]
async fn a_csv_is_split_at_its_commas() {
    let bench = Bench::start().await;
    let (_kept, converted) = bench
        .convert_bytes("table.csv", b"name,amount\n\"a, b\",1.5\n", |_| {})
        .await
        .unwrap();
    let text = text_of(&converted.outputs[0].path);
    assert!(text.contains("a, b") && !text.contains("name,amount"), "{text}");
}

#[tokio::test]
async fn what_does_not_load_is_corrupt() {
    let bench = Bench::start().await;
    let cut = bench
        .convert_bytes("cut.docx", b"PK\x03\x04 and then nothing", |_| {})
        .await;
    assert_eq!(cut.err(), Some(Verdict::Corrupt));
}

#[tokio::test]
async fn an_encrypted_document_wants_its_password() {
    let Some(documents) = shared_documents("hostile") else {
        println!("skipped: no shared documents; set PLATEN_SHARED");
        return;
    };
    let bench = Bench::start().await;
    let content = std::fs::read(documents.join("lok__password.docx")).unwrap();
    let with = async |password: Option<&str>| {
        let password = password.map(Password::new);
        let converted = bench
            .convert_bytes("locked.docx", &content, |conversion| conversion.password = password)
            .await;
        converted.map(|(_, converted)| converted.outputs.len())
    };
    assert_eq!(with(None).await, Err(Verdict::Encrypted));
    assert_eq!(with(Some("not this one")).await, Err(Verdict::WrongPassword));
}

#[tokio::test]
async fn an_engine_without_libreoffice_says_how_to_install_it() {
    let work = tempfile::tempdir().unwrap();
    let nowhere = Settings {
        program: work.path().join("no/program"),
        ..settings(work.path())
    };
    let Err(error) = Engine::start(nowhere).await else {
        panic!("an engine without LibreOffice starts")
    };
    assert!(
        error.to_string().contains("'deploy/packages.sh engine' installs it"),
        "{error}"
    );
}

/// `platen doctor` counts with what an engine typically takes. Too little, and it promises room that there is not; too
/// much, and it warns of deployments that are well.
#[tokio::test]
async fn the_typical_footprint_is_that_of_a_real_start() {
    let bench = Bench::start().await;
    let (real, typical) = (bench.engine.footprint().unwrap(), Footprint::TYPICAL);
    // This process is not the worker.
    let world = crate::harness::World::start().await;
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", world.worker.pid())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    for (what, real, typical) in [
        ("worker", pages * 4096, typical.worker),
        ("zygote", real.zygote, typical.zygote),
        ("zygote_own", real.zygote_own, typical.zygote_own),
        ("disk", real.disk, typical.disk),
    ] {
        let (real, typical) = (real >> 10, typical >> 10);
        assert!(real <= typical, "{what} takes {real} KiB, not {typical} KiB");
    }
    let sum = |footprint: &Footprint| footprint.zygote + footprint.zygote_own + footprint.disk;
    assert!(
        sum(&typical) < sum(&real) + (192 << 20),
        "{typical:?} is far over {real:?}"
    );
}

pub(crate) fn text_of(pdf: &Path) -> String {
    run("pdftotext", &["-"], pdf)
}

fn run(program: &str, after: &[&str], file: &Path) -> String {
    let output = std::process::Command::new(program)
        .arg(file)
        .args(after)
        .output()
        .expect("poppler-utils are installed");
    assert!(
        output.status.success(),
        "{program} {} ends with {}",
        file.display(),
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
