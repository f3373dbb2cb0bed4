//! `docs/failures.md`: every code is there, its command provokes it on `platen local`, and the result, the log, the
//! metric and the page agree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use platen::error::FailureCode;
use serde_json::Value;

use super::{Block, blocks, path, read, root};
use crate::harness::{PATIENCE, client, until};
use crate::local_command::collect;

const PAGE: &str = "docs/failures.md";

/// A row of the page's table.
struct Row {
    is_last_word: bool,
    detail: BTreeSet<String>,
    severity: String,
}

fn rows() -> BTreeMap<String, Row> {
    let words = |cell: &str| {
        cell.split_whitespace()
            .map(|word| word.trim_matches('`').to_owned())
            .collect()
    };
    let mut rows = BTreeMap::new();
    for line in read(PAGE).lines().filter(|line| line.starts_with("| [`")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [code, last, detail, severity] = cells[..] else {
            panic!("not four cells: {line}")
        };
        let code = code.split('`').nth(1).unwrap().to_owned();
        assert!(["yes", "no"].contains(&last), "{line}");
        let row = Row {
            is_last_word: last == "yes",
            detail: words(detail),
            severity: severity.trim_matches('`').to_owned(),
        };
        assert!(rows.insert(code, row).is_none(), "twice: {line}");
    }
    rows
}

fn codes() -> BTreeSet<String> {
    FailureCode::ALL
        .iter()
        .map(|(code, _)| code.as_str().to_owned())
        .collect()
}

/// Each code's blocks: what provokes it, and what mends the world after it.
fn sections() -> BTreeMap<String, Vec<Block>> {
    let mut sections = BTreeMap::<String, Vec<Block>>::new();
    for block in blocks(PAGE) {
        if let Some(code) = block.heading.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
            sections.entry(code.to_owned()).or_default().push(block);
        }
    }
    sections
}

#[test]
fn every_code_of_the_source_is_on_the_page_and_no_other() {
    let page = read(PAGE);
    let headings: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
        .map(str::to_owned)
        .collect();
    assert_eq!(headings, codes(), "headings");
    assert_eq!(
        rows().into_keys().collect::<BTreeSet<_>>(),
        codes(),
        "rows of the table"
    );
    assert_eq!(sections().into_keys().collect::<BTreeSet<_>>(), codes(), "commands");
    for (code, row) in rows() {
        assert_eq!(
            row.is_last_word,
            code != FailureCode::AttemptsExhausted.as_str(),
            "{code}"
        );
    }
    for part in page.split("\n## `").skip(1) {
        let code = part.split('`').next().unwrap();
        let section = part.split("\n## ").next().unwrap();
        assert!(section.contains("**Do**: "), "{code} does not say what to do");
    }
    // The README has them all as well.
    let readme = read("README.md");
    for code in codes() {
        assert!(readme.contains(&format!("`{code}`")), "README.md does not have {code}");
    }
}

/// `platen local`, and what a person has in the second terminal.
struct Local {
    child: Child,
    page: String,
    metrics: String,
    log: Arc<Mutex<String>>,
    environment: Vec<(String, String)>,
    preparation: String,
    http: reqwest::Client,
    _temporary: tempfile::TempDir,
}

impl Local {
    async fn start() -> Self {
        let setup: Vec<Block> = blocks(PAGE)
            .into_iter()
            .filter(|block| block.heading == "To try them")
            .collect();
        let [start, preparation, look] = &setup[..] else {
            panic!("{PAGE} has other blocks before its codes")
        };
        assert!(look.text.contains("$PAGE/api/jobs") && look.text.contains("$METRICS"));
        let temporary = tempfile::tempdir().unwrap();
        // The page's own port may be taken here.
        let command = start.text.replace("--port 8090", "--port 0");
        assert_ne!(command, start.text);
        let mut child = Command::new("bash")
            .args(["-c", &format!("exec env {}", command.trim())])
            .env_clear()
            .env("PATH", path())
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), &log);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        collect(stdout, &Arc::default());
        let urls: Value =
            serde_json::from_str(&first).unwrap_or_else(|error| panic!("{error}: {first}\n{}", log.lock().unwrap()));
        let page = urls["page"].as_str().unwrap().to_owned();
        let http = client();
        let state: Value = http
            .get(format!("{page}/api/state"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let environment = state["environment"].as_object().unwrap().iter();
        Self {
            child,
            log,
            environment: environment
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect(),
            preparation: preparation.text.replace("http://127.0.0.1:8090", &page),
            page,
            metrics: state["worker"]["metrics"].as_str().unwrap().to_owned(),
            http,
            _temporary: temporary,
        }
    }

    /// Runs a block of the page as a person who has done what is above it.
    async fn run(&self, block: &Block) {
        let mut command = tokio::process::Command::new("bash");
        command
            .args([
                "-euo",
                "pipefail",
                "-c",
                &format!("{}\n{}", self.preparation, block.text),
            ])
            .current_dir(root())
            .env_clear()
            .env("PATH", path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{} does not end\n{}", block.place(), self.log()));
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}: {}\n{}\n{}",
            block.place(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Lines of the worker with this code. The last one may still be on its way.
    fn lines(&self, code: &str) -> Vec<Value> {
        self.log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["logging.googleapis.com/labels"]["code"] == code)
            .collect()
    }

    /// Failed jobs that the worker has counted, by code.
    async fn counted(&self) -> BTreeMap<String, u64> {
        let text = self.http.get(&self.metrics).send().await.unwrap().text().await.unwrap();
        text.lines()
            .filter_map(|line| {
                let (code, count) = line
                    .strip_prefix("platen_jobs_total{status=\"failed\",code=\"")?
                    .split_once("\"} ")?;
                Some((code.to_owned(), count.parse().unwrap()))
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    async fn jobs(&self) -> Vec<Value> {
        let request = self.http.get(format!("{}/api/jobs", self.page));
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The result messages that failed with this code.
    async fn results(&self, code: &str) -> Vec<Value> {
        let results = self.jobs().await.into_iter().map(|mut job| job["result"].take());
        results.filter(|result| result["error"]["code"] == code).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_code_is_provoked_by_its_command_and_the_log_and_the_metric_say_the_same() {
    let (rows, mut local) = (rows(), Local::start().await);
    let mut provoked = BTreeSet::new();
    for (code, blocks) in sections() {
        assert!(
            local.results(&code).await.is_empty(),
            "{code} came of another's command"
        );
        let (provoke, mend) = blocks.split_first().unwrap();
        local.run(provoke).await;
        let started = std::time::Instant::now();
        let result = loop {
            if let Some(result) = local.results(&code).await.pop() {
                break result;
            }
            assert!(started.elapsed() < PATIENCE, "no {code}\n{}", local.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        let row = &rows[&code];
        assert_eq!(result["status"], "failed", "{result}");
        assert!(!result["error"]["message"].as_str().unwrap().is_empty(), "{result}");
        let detail: BTreeSet<String> = result["error"]["detail"].as_object().unwrap().keys().cloned().collect();
        assert!(
            detail.is_subset(&row.detail),
            "{code}: {:?} on the page: {result}",
            row.detail
        );
        assert_eq!(detail.is_empty(), row.detail.is_empty(), "{code}: {result}");

        let line = until(&format!("{code} is in the log"), || local.lines(&code).pop()).await;
        assert_eq!(local.lines(&code).len(), 1, "{code} has one line: {}", local.log());
        assert_eq!(line["severity"], row.severity, "{line}");
        let labels = &line["logging.googleapis.com/labels"];
        assert_eq!(labels["jobId"], result["jobId"], "{line}");
        // What it was asked for is known unless it could not be read.
        assert_eq!(
            labels["source"].is_string(),
            result["source"]["name"].is_string(),
            "{line}"
        );
        // A change of variables replaces the worker, and its counts with it: of what came since, there is this one.
        assert_eq!(
            local.counted().await.get(&code),
            Some(&1),
            "{code}: {:?}",
            local.counted().await
        );
        for block in mend {
            local.run(block).await;
        }
        provoked.insert(code);
    }
    assert_eq!(provoked, codes());
    // The dead letter that was published again came to its own end, which took the place of `attempts.exhausted`.
    let exhausted = local.results("attempts.exhausted").await.pop().unwrap();
    let jobs = local.jobs().await;
    let redriven = |result: &Value| result["jobId"] == exhausted["jobId"] && result["status"] == "succeeded";
    assert!(jobs.iter().any(|job| redriven(&job["result"])), "{jobs:?}");
    // The commands that docs/local.md shows are for the same second terminal.
    let pages = blocks("docs/local.md").into_iter();
    let shown: Vec<Block> = pages.filter(|block| block.text.starts_with("curl ")).collect();
    assert!(!shown.is_empty());
    for mut block in shown {
        // An answer that is a refusal is a failure.
        block.text = block.text.replace("curl ", "curl -sSf ");
        local.run(&block).await;
    }
    assert!(local.child.try_wait().unwrap().is_none(), "{}", local.log());
}
