//! Our output beside stock LibreOffice's: pages, text, and pixels at 50 dots an inch.
//!
//! Stock is a cold `soffice --convert-to pdf` under the same configuration layer and locale; it chooses its import filter
//! itself. Ours is `platen convert`: inspection, sandbox and all. A difference without a reason in [`EXPLAINED`] fails.
//!
//! Own fixtures and a sample of the shared documents are compared always; `PLATEN_FULL=1` takes all of both (minutes),
//! and `PLATEN_SEED` chooses another sample. `cargo test --test it stock:: -- --nocapture` shows the table.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::engine::shared_documents;
use crate::harness::{PATIENCE, fixture, pdf_pages, run};

/// Documents whose output may differ from stock's, and why: nothing else may.
const EXPLAINED: &[(&str, &str)] = &[(
    "visits.tsv",
    "stock takes a tab-separated file for one column; ours looks for the separator",
)];

/// How many of the shared documents are compared when not all are.
const SAMPLE: usize = 10;

/// What a PDF shows.
#[derive(PartialEq, Eq)]
struct Shown {
    pages: u32,
    text: String,
    /// Of each page's pixels.
    pixels: Vec<[u8; 32]>,
}

impl Shown {
    fn of(pdf: &Path) -> Self {
        let pictures = tempfile::tempdir().unwrap();
        run(Command::new("pdftoppm")
            .args(["-r", "50"])
            .arg(pdf)
            .arg(pictures.path().join("page")));
        let mut pages: Vec<PathBuf> = std::fs::read_dir(pictures.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        pages.sort();
        Self {
            pages: pdf_pages(pdf),
            text: run(Command::new("pdftotext").arg("-layout").arg(pdf).arg("-")),
            pixels: pages
                .iter()
                .map(|page| Sha256::digest(std::fs::read(page).unwrap()).into())
                .collect(),
        }
    }
}

/// A cold `soffice`, with a profile of its own.
pub(crate) struct Stock {
    home: TempDir,
}

impl Stock {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(
            home.path().join("platen.xcu"),
            include_str!("../../src/engine/platen.xcu"),
        )
        .unwrap();
        Self { home }
    }

    /// The PDF, if stock makes one before it is given up.
    pub(crate) fn convert(&self, document: &Path) -> Option<PathBuf> {
        let home = self.home.path();
        let output = home.join(document.with_extension("pdf").file_name().unwrap());
        drop(std::fs::remove_file(&output));
        let mut soffice = Command::new("/usr/lib/libreoffice/program/soffice.bin")
            .args(["--headless", "--norestore", "--convert-to", "pdf", "--outdir"])
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
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("LibreOffice is installed (deploy/packages.sh engine)");
        let began = Instant::now();
        while soffice.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                soffice.kill().unwrap();
                soffice.wait().unwrap();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        output.exists().then_some(output)
    }
}

/// What both made of one document.
struct Row {
    name: String,
    stock: Option<Shown>,
    ours: Result<Shown, String>,
    milliseconds: (u128, u64),
}

impl Row {
    /// In what they differ.
    fn difference(&self) -> Option<String> {
        match (&self.stock, &self.ours) {
            (Some(stock), Ok(ours)) if stock.pages != ours.pages => Some("pages".to_owned()),
            (Some(stock), Ok(ours)) if stock.text != ours.text => Some("text".to_owned()),
            (Some(stock), Ok(ours)) if stock != ours => Some("pixels".to_owned()),
            (Some(_), Err(code)) => Some(format!("stock converts it, ours: {code}")),
            // What stock does not convert may be refused, or may come out.
            _ => None,
        }
    }
}

#[test]
fn documents_come_out_as_stock_libreoffice_makes_them() {
    let full = std::env::var_os("PLATEN_FULL").is_some();
    let mut documents = files(&fixture("documents/plain"));
    let own = documents.len();
    match shared_documents("plain").map(|directory| files(&directory)) {
        Some(shared) if full => documents.extend(shared),
        Some(shared) => documents.extend(Random::seeded().sample(shared, SAMPLE)),
        None => println!("skipped: no shared documents; set PLATEN_SHARED"),
    }

    let out = tempfile::tempdir().unwrap();
    let ours = convert_all(&documents, out.path());
    let queue = Mutex::new(documents.iter());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let stock = Stock::new();
                loop {
                    let Some(document) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let line = &ours[document];
                    let began = Instant::now();
                    let made = stock.convert(document);
                    let took = began.elapsed().as_millis();
                    let row = Row {
                        name: document.file_name().unwrap().to_string_lossy().into_owned(),
                        stock: made.map(|pdf| Shown::of(&pdf)),
                        ours: match line["output"].as_str() {
                            Some(output) => Ok(Shown::of(Path::new(output))),
                            None => Err(line["error"]["code"].as_str().unwrap().to_owned()),
                        },
                        milliseconds: (took, line["timings"]["convertMs"].as_u64().unwrap_or(0)),
                    };
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let unexplained = print(&rows);
    assert_eq!(unexplained, Vec::<String>::new());
    let compared = rows.iter().filter(|row| row.stock.is_some()).count();
    assert!(
        compared * 10 > own * 9,
        "stock LibreOffice converts only {compared} documents"
    );
}

/// Prints the table and returns the differences that have no reason.
fn print(rows: &[Row]) -> Vec<String> {
    let mut unexplained = Vec::new();
    let mut same = 0;
    println!(
        "{:<60} {:>7} {:>7} {:>9} {:>8}  verdict",
        "document", "pages", "stock's", "stock ms", "ours ms"
    );
    for row in rows {
        let pages = |shown: Option<&Shown>| shown.map_or("-".to_owned(), |shown| shown.pages.to_string());
        let reason = EXPLAINED
            .iter()
            .find(|(name, _)| *name == row.name)
            .map(|(_, reason)| *reason);
        let verdict = match (row.difference(), &row.stock, &row.ours) {
            (Some(difference), ..) => match reason {
                Some(reason) => format!("{difference}: {reason}"),
                None => {
                    unexplained.push(format!("{}: {difference}", row.name));
                    format!("DIFFERENT: {difference}")
                }
            },
            (None, Some(_), _) => {
                same += 1;
                "same pages, text and pixels".to_owned()
            }
            (None, None, Ok(_)) => "stock does not convert it, and we do".to_owned(),
            (None, None, Err(code)) => format!("neither converts it: {code}"),
        };
        let (stock, ours) = row.milliseconds;
        println!(
            "{:<60} {:>7} {:>7} {stock:>9} {ours:>8}  {verdict}",
            row.name,
            pages(row.ours.as_ref().ok()),
            pages(row.stock.as_ref()),
        );
    }
    println!("{same} of {} the same", rows.len());
    unexplained
}

/// One `platen convert` of all documents: what it says of each.
pub(crate) fn convert_all(documents: &[PathBuf], out: &Path) -> HashMap<PathBuf, Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .arg("convert")
        .args(documents)
        .args(["--jobs", "2", "--json", "--out"])
        .arg(out)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let said: HashMap<PathBuf, Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| (PathBuf::from(line["file"].as_str().unwrap()), line))
        .collect();
    assert_eq!(
        said.len(),
        documents.len(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .collect();
    files.sort();
    files
}

/// Chosen by chance, the same for the same seed (xorshift64*, Vigna 2016).
pub(crate) struct Random(u64);

impl Random {
    /// From `PLATEN_SEED`, which is printed, or the same every time.
    pub(crate) fn seeded() -> Self {
        let seed = std::env::var("PLATEN_SEED")
            .ok()
            .map_or(20_260_101, |seed| seed.parse().unwrap());
        println!("PLATEN_SEED={seed} repeats this choice");
        Self(seed | 1)
    }

    /// From any number, however small: neighbours have nothing in common (the last steps of splitmix64, Vigna 2015).
    pub(crate) fn of(seed: u64) -> Self {
        let mixed = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn sample<T>(&mut self, mut from: Vec<T>, count: usize) -> Vec<T> {
        let mut chosen = Vec::new();
        while chosen.len() < count && !from.is_empty() {
            let at = self.below(from.len());
            chosen.push(from.swap_remove(at));
        }
        chosen
    }
}
