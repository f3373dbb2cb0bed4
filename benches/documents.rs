//! What a document takes: processor time and memory by kind, the figures of docs/operations.md. `make sizing`.
//!
//! Every readable file of `fixtures/documents/plain`, and of `../shared/documents/plain` where that is there, or the files
//! and directories that are named, goes through inspection and the engine with its full sandbox, one after the other, to a
//! PDF. What is printed is what the kernel says of the child that converted (wait4(2)) and what the watch saw of its own
//! memory; time on the clock is as long as this machine, with whatever else it does, took for it.
//!
//! `PLATEN_BENCH_ROUNDS` says how often each is converted (5); a document's figures are the medians of its rounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a benchmark that cannot measure says so by failing"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use platen::convert::inspect::{InspectLimits, inspect};
use platen::engine::{self, Conversion, Engine, Export, Format, Import, Limits, Settings};

/// The defaults of the worker.
const LIMITS: Limits = Limits {
    wall: Duration::from_secs(120),
    processor: Duration::from_secs(240),
    memory: 1 << 30,
    output_size: 500 << 20,
    pages: 5000,
    threads: Limits::MOST_THREADS,
};

/// What one conversion took, or what all rounds of a document took in the middle.
#[derive(Clone, Copy, Default)]
struct Took {
    /// Seconds of the child's processor time.
    processor: f64,
    /// Seconds on the clock, from the job's directory to the checked output.
    wall: f64,
    /// MiB of the child's own memory, at most.
    own: f64,
    /// MiB that were resident in the child at most, with all that it shares.
    peak: f64,
    pages: f64,
}

#[tokio::main]
async fn main() {
    if !Path::new("/usr/lib/libreoffice/program").is_dir() {
        println!("skipped: LibreOffice is not installed");
        return;
    }
    let rounds: usize = std::env::var("PLATEN_BENCH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let files = files();
    let work = tempfile::tempdir().unwrap();
    let engine = Engine::start(Settings {
        program: "/usr/lib/libreoffice/program".into(),
        locale: "C.UTF-8".to_owned(),
        work_directory: work.path().join("engine"),
        sandbox: platen::sandbox::Mode::Required,
        fonts: None,
        executable: Some(env!("CARGO_BIN_EXE_platen").into()),
    })
    .await
    .expect("the engine starts");

    let (mut kinds, mut all): (BTreeMap<&str, Vec<Took>>, Vec<Took>) = Default::default();
    let mut left_out = Vec::new();
    for file in &files {
        let mut took = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            match convert(&engine, file).await {
                Ok(round) => took.push(round),
                Err(why) => {
                    left_out.push(format!("{}: {why}", file.display()));
                    break;
                }
            }
        }
        if took.len() < rounds {
            continue;
        }
        let middle = Took {
            processor: at(&took, 0.5, |took| took.processor),
            wall: at(&took, 0.5, |took| took.wall),
            own: at(&took, 0.5, |took| took.own),
            peak: at(&took, 0.5, |took| took.peak),
            pages: at(&took, 0.5, |took| took.pages),
        };
        kinds.entry(kind(file)).or_default().push(middle);
        all.push(middle);
    }
    engine.stop().await;

    println!(
        "{} documents, {rounds} conversions of each, one at a time; the medians of each document's rounds",
        all.len()
    );
    println!(
        "| kind | documents | pages, most | processor s: half of them, 95 %, most | clock s: half, 95 % | own MiB: half, 95 %, most | resident MiB, most |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (kind, took) in &kinds {
        line(kind, took);
    }
    line("all", &all);
    let mean = all.iter().map(|took| took.processor).sum::<f64>() / all.len().max(1) as f64;
    println!("processor seconds a document, mean of all: {mean:.3}");
    for file in left_out {
        println!("left out: {file}");
    }
}

fn line(kind: &str, took: &[Took]) {
    let [processor, wall, own] = [
        |took: &Took| took.processor,
        |took: &Took| took.wall,
        |took: &Took| took.own,
    ];
    println!(
        "| {kind} | {} | {:.0} | {:.3}, {:.2}, {:.2} | {:.3}, {:.2} | {:.0}, {:.0}, {:.0} | {:.0} |",
        took.len(),
        at(took, 1.0, |took| took.pages),
        at(took, 0.5, processor),
        at(took, 0.95, processor),
        at(took, 1.0, processor),
        at(took, 0.5, wall),
        at(took, 0.95, wall),
        at(took, 0.5, own),
        at(took, 0.95, own),
        at(took, 1.0, own),
        at(took, 1.0, |took| took.peak),
    );
}

/// The value that this share of them does not exceed.
fn at(took: &[Took], share: f64, of: impl Fn(&Took) -> f64) -> f64 {
    let mut values: Vec<f64> = took.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let index = (values.len() as f64 * share).ceil() as usize;
    values.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

async fn convert(engine: &Engine, file: &Path) -> Result<Took, String> {
    let began = Instant::now();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let kind = inspect(file, &name, &InspectLimits::default()).map_err(|stop| format!("{stop:?}"))?;
    if kind.encrypted {
        return Err("it has a password".to_owned());
    }
    let directory = engine.job_directory().unwrap();
    let document = engine::sanitised_file_name(&name, kind.extension);
    std::fs::copy(file, directory.path().join(&document)).unwrap();
    let conversion = Conversion {
        directory: &directory,
        document,
        import: Import {
            filter: kind.import_filter.into(),
            options: kind.import_options().map(Into::into),
        },
        password: None,
        exports: vec![Export::plain("out.pdf".to_owned(), Format::PDF)],
        limits: LIMITS,
        deadline: None,
    };
    let converted = engine
        .convert(conversion)
        .await
        .map_err(|verdict| verdict.to_string())?;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Took {
        processor: converted.usage.cpu_ms as f64 / 1000.0,
        wall: began.elapsed().as_secs_f64(),
        own: mebibytes(converted.usage.own_memory),
        peak: mebibytes(converted.usage.peak_memory),
        pages: converted.outputs[0].pages.unwrap_or(0) as f64,
    })
}

/// What a reader of the table calls it.
fn kind(file: &Path) -> &'static str {
    match file
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
    {
        "docx" | "docm" | "dotx" | "dotm" => "docx",
        "xlsx" | "xlsm" | "xltx" | "xlsb" | "xltm" => "xlsx, xlsb",
        "pptx" | "pptm" | "potx" | "ppsx" | "potm" => "pptx",
        "doc" | "dot" | "rtf" | "wps" | "wpd" => "doc, rtf",
        "xls" | "xlt" | "csv" | "tsv" | "dif" | "slk" => "xls, csv",
        "ppt" | "pot" | "pps" => "ppt",
        "odt" | "ott" | "fodt" | "sxw" => "odt",
        "ods" | "ots" | "fods" | "sxc" => "ods",
        "odp" | "otp" | "fodp" | "sxi" | "odg" | "otg" | "fodg" | "sxd" => "odp, odg",
        "html" | "htm" | "xhtml" | "txt" => "html, txt",
        _ => "pictures and others",
    }
}

fn files() -> Vec<PathBuf> {
    // Cargo adds `--bench`.
    let mut named: Vec<PathBuf> = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .map(PathBuf::from)
        .collect();
    if named.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        named.push(root.join("fixtures/documents/plain"));
        let shared = std::env::var_os("PLATEN_SHARED").map_or(root.join("../shared"), PathBuf::from);
        if shared.is_dir() {
            named.push(shared.join("documents/plain"));
        }
    }
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(path);
        }
    }
    files.retain(|file| file.is_file());
    files.sort();
    files
}
