//! How long one document takes: in the warm engine with its full sandbox, and in a cold `soffice` under the same
//! configuration layer and locale (which makes it three times faster than as installed).
//!
//! `cargo bench --bench engine -- FILE.docx` prints the medians of both, measured alternately in one run, and their ratio.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark that cannot measure says so by failing"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use platen::engine::{Conversion, Engine, Export, Format, Import, Limits, Settings, Usage};

const ROUNDS: usize = 15;
/// Conversions in the engine for each one of soffice.
const WARM_A_ROUND: usize = 4;

#[tokio::main]
async fn main() {
    // Cargo adds `--bench`.
    let document = std::env::args_os().skip(1).find(|argument| argument != "--bench");
    let document = PathBuf::from(document.expect("name a docx: cargo bench --bench engine -- FILE.docx"));
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
    std::fs::write(work.path().join("platen.xcu"), include_str!("../src/engine/platen.xcu")).unwrap();

    let (mut warm, mut child, mut processor, mut cold) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..WARM_A_ROUND {
            let (took, usage) = in_the_engine(&engine, &document).await;
            warm.push(took);
            child.push(Duration::from_millis(usage.wall_ms));
            processor.push(Duration::from_millis(usage.cpu_ms));
        }
        cold.push(in_soffice(work.path(), &document));
    }
    let (warm, cold) = (median(warm), median(cold));
    println!(
        "engine, full sandbox     {:7.1} ms (median of {})",
        milliseconds(warm),
        ROUNDS * WARM_A_ROUND
    );
    println!("  from fork to reaped    {:7.1} ms", milliseconds(median(child)));
    println!("  processor time         {:7.1} ms", milliseconds(median(processor)));
    println!(
        "soffice, made settings   {:7.1} ms (median of {ROUNDS})",
        milliseconds(cold)
    );
    println!(
        "ratio                    {:7.1}",
        cold.as_secs_f64() / warm.as_secs_f64()
    );
    engine.stop().await;
}

/// From the job's directory to its checked output and back to nothing.
async fn in_the_engine(engine: &Engine, document: &Path) -> (Duration, Usage) {
    let began = Instant::now();
    let directory = engine.job_directory().unwrap();
    std::fs::copy(document, directory.path().join("document.docx")).unwrap();
    let conversion = Conversion {
        directory: &directory,
        document: "document.docx".to_owned(),
        import: Import {
            filter: "MS Word 2007 XML".into(),
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
    };
    let converted = engine.convert(conversion).await.expect("the document converts");
    drop(directory);
    (began.elapsed(), converted.usage)
}

fn in_soffice(home: &Path, document: &Path) -> Duration {
    let began = Instant::now();
    let status = Command::new("soffice")
        .args(["--headless", "--convert-to", "pdf", "--outdir"])
        .args([home, document])
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
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("soffice is installed (deploy/packages.sh engine)");
    assert!(status.success(), "soffice ends with {status}");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
