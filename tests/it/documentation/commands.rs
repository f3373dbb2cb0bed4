//! Every shell block of README.md, docs/ and deploy/gke/README.md: bash runs it with programs that only write down how they were called, and
//! each call is then judged by who knows it. What needs nothing but this machine is run for real.
//!
//! | what is called | who judges |
//! |---|---|
//! | `platen` | its own parser, in full: flags, values, what excludes what |
//! | `platen convert`, where nothing else is in the block | run for real, on documents of those names |
//! | `gcloud` | gcloud's own parser, where gcloud is installed |
//! | a script of `deploy/` | it is there; `deploy/setup.sh` is run for real, with `--dry-run` and the block's variables; what the others do is tested beside them (`tests/it/deploy`, `tests/it/monitoring.rs`) |
//! | `kubectl` | it names the namespace that the manifests make |
//! | `make` | make, without doing it |
//! | `docker` | it builds or runs, and the Dockerfile has the build arguments |
//! | `soffice` | it converts; `tests/it/stock.rs` does so for real |
//! | `curl` | it has a URL; those of docs/local.md are run on `platen local` |
//! | a program of [`HARMLESS`] | nobody |
//! | anything else | bash: there is no such program, and the test fails |
//!
//! docs/failures.md is not here: every block of it runs for real, in [`super::failures`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{Block, all_blocks, path, root};
use crate::harness::{fixture, run, walk};

/// Programs that a block may use for real: they look and print.
const HARMLESS: [&str; 8] = ["awk", "cat", "date", "env", "grep", "paste", "sed", "sleep"];
/// Programs that are only written down.
const WRITTEN_DOWN: [&str; 8] = ["curl", "docker", "gcloud", "kubectl", "make", "platen", "rm", "soffice"];
/// What stands for a reader's own, and one of it.
const PLACEHOLDERS: [(&str, &str); 7] = [
    ("PROJECT", "my-project"),
    ("LOCATION", "europe-west1"),
    ("BUCKET", "my-bucket"),
    ("GENERATION", "1736358966947877"),
    ("SUBSCRIPTION", "my-subscription"),
    ("WORKER", "platen@my-project.iam.gserviceaccount.com"),
    ("EMAIL", "ann@example.com"),
];
/// Between two calls, and between the words of one.
const END: char = '\u{1}';

/// A place in which blocks run.
struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let programs = stage.directory.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        for name in WRITTEN_DOWN {
            // What a block takes from a command's answer is never empty.
            stage.program(&programs.join(name), name, "echo ANSWER=answer");
        }
        for name in HARMLESS {
            let real = run(Command::new("sh").args(["-c", &format!("command -v {name}")]));
            std::os::unix::fs::symlink(real.trim(), programs.join(name)).unwrap();
        }
        let mut scripts = Vec::new();
        walk(&root().join("deploy"), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "sh") {
                scripts.push(path.to_owned());
            }
        });
        for script in scripts {
            let name = script.strip_prefix(root()).unwrap();
            let copy = stage.directory.path().join(name);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            let really = if name == Path::new("deploy/setup.sh") {
                let path = std::env::var("PATH").unwrap();
                format!("PATH='{path}' exec '{}' \"$@\" --dry-run", script.display())
            } else {
                String::new()
            };
            let executable = std::fs::metadata(&script).unwrap().permissions().mode() & 0o111 != 0;
            if executable {
                stage.program(&copy, &name.display().to_string(), &really);
            }
        }
        std::fs::write(stage.directory.path().join("cloudbuild.yaml"), "").unwrap();
        stage
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("calls")
    }

    fn program(&self, path: &Path, name: &str, then: &str) {
        let log = self.log();
        let text = format!(
            "#!/bin/bash\nprintf '%s\\0' '{name}' \"$@\" '{END}' >> '{}'\n{then}\n",
            log.display()
        );
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The calls of a block, each with the program in front.
    fn calls(&self, block: &Block) -> Result<Vec<Vec<String>>, String> {
        let _none_yet = std::fs::remove_file(self.log());
        let text = block
            .text
            .replace("/dev/shm", &self.directory.path().display().to_string());
        let output = Command::new("/bin/bash")
            .args(["-euc", &format!("{text}\nwait")])
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", self.directory.path().join("bin"))
            // Variables that the text around a block has set.
            .envs([("PAGE", "http://127.0.0.1:8090"), ("WORKER", "http://127.0.0.1:8080")])
            .envs([("PUBSUB_EMULATOR_HOST", "127.0.0.1:8085"), ("TOKEN", "ya29.token")])
            .output()
            .unwrap();
        said(&output)?;
        let calls = std::fs::read_to_string(self.log()).unwrap_or_default();
        let words: Vec<&str> = calls.split('\0').filter(|word| !word.is_empty()).collect();
        let mut calls = vec![Vec::new()];
        for word in words {
            if word.starts_with(END) {
                calls.push(Vec::new());
            } else if let Some(call) = calls.last_mut() {
                call.push(filled_in(word));
            }
        }
        calls.retain(|call| !call.is_empty());
        Ok(calls)
    }
}

/// A word with its placeholders replaced.
fn filled_in(word: &str) -> String {
    let is_outside =
        |part: &str, at: Option<char>| part.is_empty() || at.is_none_or(|at| !at.is_alphanumeric() && at != '_');
    PLACEHOLDERS.iter().fold(word.to_owned(), |word, (placeholder, value)| {
        let mut filled = String::new();
        let mut rest = word.as_str();
        while let Some(at) = rest.find(placeholder) {
            let (before, after) = (&rest[..at], &rest[at + placeholder.len()..]);
            let alone = is_outside(before, before.chars().next_back()) && is_outside(after, after.chars().next());
            filled.push_str(before);
            filled.push_str(if alone { value } else { placeholder });
            rest = after;
        }
        filled + rest
    })
}

fn said(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Who knows a call says whether it is one.
fn judge(call: &[String], gclouds: &mut Vec<Vec<String>>) -> Result<(), String> {
    let (program, words) = call.split_first().unwrap();
    match program.as_str() {
        // Three dots stand for more of the same.
        "platen" => platen::cli::check(words.iter().filter(|word| *word != "...").cloned()),
        "gcloud" => {
            gclouds.push(words.to_vec());
            Ok(())
        }
        "make" => {
            let output = Command::new("make").arg("-n").args(words).current_dir(root()).output();
            said(&output.unwrap())
        }
        "curl" => {
            let is_url = |word: &String| word.starts_with("http") || word == "...";
            words.iter().any(is_url).then_some(()).ok_or("no URL".to_owned())
        }
        "docker" => docker(words),
        "kubectl" => words
            .iter()
            .any(|word| word == "platen")
            .then_some(())
            .ok_or("in which namespace?".to_owned()),
        "soffice" => words
            .iter()
            .any(|word| word == "--convert-to")
            .then_some(())
            .ok_or("what does it convert to?".to_owned()),
        "rm" => Ok(()),
        script if script.starts_with("deploy/") => Ok(()),
        other => Err(format!("nobody judges {other}")),
    }
}

/// Where there is no docker to ask.
fn docker(words: &[String]) -> Result<(), String> {
    let file = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    if !["build", "run"].contains(&words.first().map_or("", String::as_str)) {
        return Err("it neither builds nor runs".to_owned());
    }
    for pair in words.windows(2).filter(|pair| pair[0] == "--build-arg") {
        let name = pair[1].split('=').next().unwrap_or_default();
        if !file.lines().any(|line| line.starts_with(&format!("ARG {name}"))) {
            return Err(format!("the Dockerfile has no ARG {name}"));
        }
    }
    Ok(())
}

#[test]
fn every_command_is_one() {
    let stage = Stage::new();
    let (mut problems, mut gclouds, mut commands, mut converted) = (Vec::new(), Vec::new(), 0, 0);
    for block in all_blocks() {
        if block.language != "sh" || block.page == "docs/failures.md" {
            continue;
        }
        let calls = stage.calls(&block).unwrap_or_else(|problem| {
            problems.push(format!("{}: {problem}", block.place()));
            Vec::new()
        });
        for call in &calls {
            commands += 1;
            if let Err(problem) = judge(call, &mut gclouds) {
                problems.push(format!("{}: {}: {problem}", block.place(), call.join(" ")));
            }
        }
        let is_local = |call: &Vec<String>| call.starts_with(&["platen".to_owned(), "convert".to_owned()]);
        if !calls.is_empty() && calls.iter().all(is_local) {
            converted += 1;
            if let Err(problem) = convert(&block) {
                problems.push(format!("{}: {problem}", block.place()));
            }
        }
    }
    problems.extend(lint(&gclouds));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(commands > 40, "{commands} commands are not all");
    assert!(converted > 0, "no block was run");
}

/// Runs a block for real among documents of the names that the pages use.
fn convert(block: &Block) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    for (name, document) in [
        ("a.docx", "documents/plain/invoice.docx"),
        ("b.xlsx", "documents/plain/budget.xlsx"),
        ("c.pptx", "documents/plain/deck.pptx"),
        ("locked.docx", "documents/encrypted/agile.docx"),
        ("report.docx", "documents/plain/invoice.docx"),
        ("fixtures/documents/plain/invoice.docx", "documents/plain/invoice.docx"),
    ] {
        let copy = directory.path().join(name);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(fixture(document), copy).unwrap();
    }
    std::fs::write(directory.path().join("password.txt"), "correct horse\n").unwrap();
    std::fs::write(directory.path().join("new-password.txt"), "battery staple\n").unwrap();
    let output = Command::new("bash")
        .args([
            "-euc",
            &block
                .text
                .replace("/tmp", &directory.path().join("out").display().to_string()),
        ])
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", path())
        .output()
        .unwrap();
    said(&output)?;
    let mut made = Vec::new();
    walk(directory.path(), &mut |path| {
        made.extend(
            path.extension()
                .map(|extension| extension.to_string_lossy().into_owned()),
        );
    });
    if made.iter().any(|extension| extension == "pdf") {
        Ok(())
    } else {
        Err(format!("no PDF was made, only {made:?}"))
    }
}

/// What gcloud's own parser has against these commands.
fn lint(commands: &[Vec<String>]) -> Vec<String> {
    if Command::new("gcloud").arg("--version").output().is_err() {
        println!(
            "skipped: no gcloud here to ask whether it has {} commands",
            commands.len()
        );
        return Vec::new();
    }
    let list: Vec<Value> = commands
        .iter()
        .map(|words| {
            // The linter knows a flag's value by the sign between them, and takes no quotes inside of words.
            let mut joined = Vec::<String>::new();
            for word in words.iter().map(|word| word.replace(['"', '\''], "")) {
                match joined.last_mut() {
                    Some(flag) if flag.starts_with("--") && !flag.contains('=') && !word.starts_with("--") => {
                        flag.push('=');
                        flag.push_str(&word);
                    }
                    _ => joined.push(word),
                }
            }
            let words: Vec<String> = joined.iter().map(|word| format!("'{word}'")).collect();
            json!({"command_string": format!("gcloud {}", words.join(" "))})
        })
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("commands.json");
    std::fs::write(&file, Value::from(list).to_string()).unwrap();
    let output = Command::new("gcloud")
        .args(["meta", "lint-gcloud-commands"])
        .arg(format!("--commands-file={}", file.display()))
        .env("CLOUDSDK_CONFIG", directory.path())
        .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
        .output()
        .unwrap();
    let verdicts: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert!(!verdicts.is_empty());
    verdicts
        .iter()
        .filter(|verdict| verdict["success"] != true)
        .map(|verdict| format!("{}: {}", verdict["command_string"], verdict["error_message"]))
        .collect()
}
