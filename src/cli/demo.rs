//! `platen demo`: the main job once, on this machine.
//!
//! What runs here is what runs in production: the worker is this binary's own `serve` in a process of its own, told by
//! its environment where Google is. Only the Google on the other side is small.

mod timeline;
mod transfer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Failure;
use super::output::{Paths, note, plain, say};
use super::world::{self, Style, World};
use crate::config::EngineConfig;
use timeline::Timeline;

/// Do the main job once on this machine: a small Google Cloud, the worker, and each FILE through both.
///
/// Example: platen demo fixtures/documents/plain/invoice.docx --out out
///
/// Starts a small Google Cloud on loopback and the worker, uploads each FILE, waits for its result message, and
/// downloads each PDF through its signed URL. Result messages go to stdout, one a line, progress to stderr. Limits,
/// SANDBOX, FONTS and DOCUMENT_LOCALE come from the environment, as for 'platen serve'; RUST_LOG=info shows the worker's
/// log.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Documents to convert.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where PDFs go, as DIR/{stem}.pdf; made if it is not there. Files there are replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

/// The worker's log is for when something is wrong, and so is its end.
const STYLE: Style = Style {
    log: "warn",
    revive: false,
};

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = world::configuration()?;
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::Work(Some(format!("{} cannot be made: {error}", arguments.out.display()))))?;
    super::runtime()?.block_on(async {
        let mut interrupted = pin!(super::interrupted()?);
        let stopped = || work("stopped before every file had its result".to_owned());
        let world = tokio::select! {
            world = World::start(STYLE, None, None) => world.map_err(work)?,
            () = &mut interrupted => return Err(stopped()),
        };
        let (result, at_once) = tokio::select! {
            result = all(&world, arguments, &config) => (result, false),
            () = &mut interrupted => (Err(stopped()), true),
        };
        let hurry = async {
            if !at_once {
                interrupted.await;
            }
        };
        world.worker.end(hurry).await;
        result
    })
}

/// One file on its way.
struct Waiting {
    file: PathBuf,
    output: PathBuf,
    uploaded: Instant,
}

async fn all(world: &World, arguments: &Arguments, config: &EngineConfig) -> Result<(), Failure> {
    let results = world.watch(world::RESULTS).map_err(work)?;
    let mut paths = Paths::new(&arguments.out);
    let mut names = Names::default();
    let mut waiting = HashMap::new();
    let mut failed = 0;
    let mut timeline = Timeline::default();
    for file in &arguments.files {
        let (name, output) = (names.next(file), paths.next(file, "pdf"));
        match transfer::upload(world, file, &name).await {
            Ok(generation) => {
                note(&plain(&format!(
                    "uploaded   {} as gs://{}/{name}#{generation}",
                    file.display(),
                    world::INPUT_BUCKET
                )));
                waiting.insert(
                    (name, generation),
                    Waiting {
                        file: file.clone(),
                        output,
                        uploaded: Instant::now(),
                    },
                );
            }
            Err(message) => {
                failed += 1;
                note(&plain(&format!("platen: {message}")));
            }
        }
    }
    // Twice the limit and a minute: a conversion whose engine died is tried once more.
    let patience = config.limits.time * 2 + Duration::from_secs(60);
    while !waiting.is_empty() {
        for result in transfer::results(world, &results, patience).await.map_err(work)? {
            let Some(file) = key(&result).and_then(|key| waiting.remove(&key)) else {
                continue;
            };
            say(&result.to_string());
            timeline.add(&file.file, file.uploaded, &result["timings"]);
            match finish(world, &result, &file).await {
                Ok(()) => {}
                Err(message) => {
                    failed += 1;
                    note(&plain(&format!("platen: {message}")));
                }
            }
        }
    }
    timeline.print();
    note("page       platen local keeps all of this running, with a web page to drop documents on");
    if failed == 0 { Ok(()) } else { Err(Failure::Work(None)) }
}

/// Downloads what a result links to, or says why there is nothing.
async fn finish(world: &World, result: &Value, file: &Waiting) -> Result<(), String> {
    if result["status"] != "succeeded" {
        let (code, message) = (&result["error"]["code"], &result["error"]["message"]);
        return Err(format!(
            "{}: {}: {}",
            file.file.display(),
            code.as_str().or(result["status"].as_str()).unwrap_or("no status"),
            message.as_str().unwrap_or("no output was made"),
        ));
    }
    let output = &result["outputs"][0];
    let url = output["signedUrl"].as_str().ok_or("the result has no signed URL")?;
    let size = transfer::download(world, url, &file.output).await?;
    if output["size"].as_str() != Some(size.to_string().as_str()) {
        return Err(format!(
            "{}: {size} bytes came through the signed URL, the result says {}",
            file.output.display(),
            output["size"]
        ));
    }
    note(&plain(&format!(
        "downloaded {} (pages: {}, {size} bytes) through its signed URL, {} ms after the worker took the job",
        file.output.display(),
        output["pages"],
        result["timings"]["totalMs"],
    )));
    Ok(())
}

fn key(result: &Value) -> Option<(String, String)> {
    let source = &result["source"];
    Some((
        source["name"].as_str()?.to_owned(),
        source["generation"].as_str()?.to_owned(),
    ))
}

fn work(message: String) -> Failure {
    Failure::Work(Some(message))
}

/// Object names: the files' own, in a folder where two files would make one output.
#[derive(Default)]
struct Names(HashMap<PathBuf, u32>);

impl Names {
    fn next(&mut self, file: &Path) -> String {
        let name = file.file_name().unwrap_or(file.as_os_str());
        let count = self
            .0
            .entry(PathBuf::from(Path::new(name).file_stem().unwrap_or(name)))
            .or_insert(0);
        *count += 1;
        let name = name.to_string_lossy();
        if *count == 1 {
            name.into_owned()
        } else {
            format!("{count}/{name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_stem_become_objects_of_their_own() {
        let mut names = Names::default();
        assert_eq!(names.next(Path::new("a/q3.docx")), "q3.docx");
        assert_eq!(names.next(Path::new("b/q3.xlsx")), "2/q3.xlsx");
        assert_eq!(names.next(Path::new("b/q3.docx")), "3/q3.docx");
    }
}
