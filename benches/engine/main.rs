//! How long documents take: in the engine with its full sandbox, beside three others measured in turn with it in one run.
//!
//! ```text
//! floor      LibreOffice's load and store alone, in one warm process without fork or jail, same allocator and settings
//! engine     from the job's directory to its checked output, full sandbox
//! unoserver  3.x from PyPI, warm, with a client that is kept; same settings (skipped aloud where it is not installed)
//! soffice    a cold process for each document, same settings, which makes it three times faster than as installed
//! ```
//!
//! `make bench`, or `cargo bench --features floor --bench engine -- [FILE...]`. `PLATEN_BENCH_PYTHON` names a Python that
//! has unoserver and LibreOffice's `uno`; `PLATEN_BENCH_ROUNDS` changes how often everything is measured (15).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark that cannot measure says so by failing"
)]

mod others;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use others::Unoserver;
use platen::engine::{Conversion, Engine, Export, Floor, Format, Import, Limits, Settings};

/// Conversions in the engine and in the floor for each one of unoserver and of soffice.
const WARM_A_ROUND: usize = 3;
/// Documents of the batch, and how many of them at once.
const BATCH: (usize, usize) = (120, 2);
/// How often start to first PDF is measured.
const STARTS: usize = 3;

/// The documents, when none are named: the figures of the README.
const DOCUMENTS: [&str; 4] = ["invoice.docx", "budget.xlsx", "handbook.docx", "deck.pptx"];

/// One document, and what was measured.
struct Subject {
    path: PathBuf,
    filter: &'static str,
    floor: Vec<Duration>,
    engine: Vec<Duration>,
    /// Processor time: of the floor, and of the engine's child.
    floor_processor: Vec<Duration>,
    child_processor: Vec<Duration>,
    unoserver: Vec<Duration>,
    soffice: Vec<Duration>,
}

impl Subject {
    fn new(path: &Path) -> Self {
        let filter = match path.extension().and_then(|extension| extension.to_str()) {
            Some("docx") => "MS Word 2007 XML",
            Some("xlsx") => "Calc MS Excel 2007 XML",
            Some("pptx") => "Impress MS PowerPoint 2007 XML",
            Some("odt") => "writer8",
            _ => panic!("{}: docx, xlsx, pptx and odt are measured", path.display()),
        };
        let path = path.canonicalize().unwrap();
        let none = Vec::new;
        Self {
            path,
            filter,
            floor: none(),
            engine: none(),
            floor_processor: none(),
            child_processor: none(),
            unoserver: none(),
            soffice: none(),
        }
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }
}

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let named: Vec<PathBuf> = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .map(PathBuf::from)
        .collect();
    let mut subjects: Vec<Subject> = if named.is_empty() {
        let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/documents/plain");
        DOCUMENTS.iter().map(|name| Subject::new(&plain.join(name))).collect()
    } else {
        named.iter().map(|path| Subject::new(path)).collect()
    };
    let rounds = std::env::var("PLATEN_BENCH_ROUNDS").map_or(15, |rounds| rounds.parse().unwrap());
    let work = tempfile::tempdir().unwrap();
    std::fs::write(
        work.path().join("platen.xcu"),
        include_str!("../../src/engine/platen.xcu"),
    )
    .unwrap();

    let first = subjects[0].path.clone();
    let mut starts = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let began = Instant::now();
        let engine = start(work.path()).await;
        starts.0.push(began.elapsed());
        in_the_engine(&engine, &first, subjects[0].filter).await;
        starts.1.push(began.elapsed());
        engine.stop().await;
        let began = Instant::now();
        if let Some(mut unoserver) = Unoserver::start(work.path()) {
            unoserver.convert(&first);
            starts.2.push(began.elapsed());
        }
    }
    let engine = start(work.path()).await;
    let floor = Floor::start(&settings(work.path())).await.expect("the floor starts");
    let mut unoserver = Unoserver::start(work.path());

    for round in 0..=rounds {
        for subject in &mut subjects {
            for _ in 0..WARM_A_ROUND {
                let took = floor.convert(subject.path.clone(), subject.filter).await;
                let took = took.expect("the floor converts");
                subject.floor.push(took.wall);
                subject.floor_processor.push(took.processor);
                let (took, processor) = in_the_engine(&engine, &subject.path, subject.filter).await;
                subject.engine.push(took);
                subject.child_processor.push(processor);
            }
            if let Some(unoserver) = &mut unoserver {
                subject.unoserver.push(unoserver.convert(&subject.path));
            }
            subject.soffice.push(others::soffice(work.path(), &subject.path));
            if round == 0 {
                // The first time of a document is not anybody's usual one.
                for times in [
                    &mut subject.floor,
                    &mut subject.engine,
                    &mut subject.floor_processor,
                    &mut subject.child_processor,
                    &mut subject.unoserver,
                    &mut subject.soffice,
                ] {
                    times.clear();
                }
            }
        }
    }

    println!(
        "\nmedians of {rounds} rounds, ms; in brackets the processor's: of load and store, and of the engine's whole child"
    );
    println!(
        "{:<16}{:>15}{:>15}{:>11}{:>9}   engine / floor, unoserver, soffice",
        "", "floor", "engine", "unoserver", "soffice"
    );
    for subject in &subjects {
        let [floor, engine, unoserver, soffice, floor_processor, child_processor] = [
            &subject.floor,
            &subject.engine,
            &subject.unoserver,
            &subject.soffice,
            &subject.floor_processor,
            &subject.child_processor,
        ]
        .map(|times| median(times));
        println!(
            "{:<16}{:>15}{:>15}{:>11}{:>9}   {} ({}), {}, {}",
            subject.name(),
            format!("{} ({})", ms(floor), ms(floor_processor)),
            format!("{} ({})", ms(engine), ms(child_processor)),
            ms(unoserver),
            ms(soffice),
            ratio(engine, floor),
            ratio(child_processor, floor_processor),
            ratio(engine, unoserver),
            ratio(engine, soffice),
        );
    }

    let mut batches = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        batches.0.push(batch(&engine, &subjects).await);
        if let Some(unoserver) = &mut unoserver {
            let began = Instant::now();
            let documents = BATCH.0 / 2;
            for subject in subjects.iter().cycle().take(documents) {
                unoserver.convert(&subject.path);
            }
            batches.1.push(began.elapsed() / u32::try_from(documents).unwrap());
        }
    }
    let [ours, theirs] = [&batches.0, &batches.1].map(|times| median(times));
    let rate = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1}", 1.0 / time.as_secs_f64()));
    println!(
        "\ndocuments a second, all of these in turn: engine, {} at a time, {}; unoserver {}; {} times as many",
        BATCH.1,
        rate(ours),
        rate(theirs),
        ratio(theirs, ours)
    );
    let [ready, engine_first, unoserver_first] = [&starts.0, &starts.1, &starts.2].map(|times| median(times));
    println!(
        "start to ready: engine {} ms; to the first PDF: engine {} ms, unoserver {} ms",
        ms(ready),
        ms(engine_first),
        ms(unoserver_first)
    );
    engine.stop().await;
}

fn settings(work: &Path) -> Settings {
    Settings {
        program: "/usr/lib/libreoffice/program".into(),
        locale: "C.UTF-8".to_owned(),
        work_directory: work.join("engine"),
        sandbox: platen::sandbox::Mode::Required,
        fonts: None,
        executable: Some(env!("CARGO_BIN_EXE_platen").into()),
    }
}

async fn start(work: &Path) -> Engine {
    Engine::start(settings(work)).await.expect("the engine starts")
}

/// From the job's directory to its checked output and back to nothing; and the processor time of the job's child.
async fn in_the_engine(engine: &Engine, document: &Path, filter: &'static str) -> (Duration, Duration) {
    let began = Instant::now();
    let directory = engine.job_directory().unwrap();
    let name = document.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::copy(document, directory.path().join(&name)).unwrap();
    let conversion = Conversion {
        directory: &directory,
        document: name,
        import: Import {
            filter: filter.into(),
            options: None,
        },
        password: None,
        exports: vec![Export::plain("out.pdf".to_owned(), Format::PDF)],
        limits: Limits {
            wall: Duration::from_secs(60),
            processor: Duration::from_secs(60),
            memory: 1 << 30,
            output_size: 500 << 20,
            pages: 5000,
            threads: Limits::MOST_THREADS,
        },
        deadline: None,
    };
    let converted = engine.convert(conversion).await.expect("the document converts");
    drop(directory);
    (began.elapsed(), Duration::from_millis(converted.usage.cpu_ms))
}

/// The time of one document in a batch, several at a time.
async fn batch(engine: &Engine, subjects: &[Subject]) -> Duration {
    let began = Instant::now();
    let jobs = subjects
        .iter()
        .cycle()
        .take(BATCH.0)
        .map(|subject| in_the_engine(engine, &subject.path, subject.filter));
    futures_util::stream::iter(jobs)
        .buffer_unordered(BATCH.1)
        .collect::<Vec<_>>()
        .await;
    began.elapsed() / u32::try_from(BATCH.0).unwrap()
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn ms(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1000.0))
}

fn ratio(time: Option<Duration>, of: Option<Duration>) -> String {
    match (time, of) {
        (Some(time), Some(of)) => format!("{:.2}", time.as_secs_f64() / of.as_secs_f64()),
        _ => "-".to_owned(),
    }
}
