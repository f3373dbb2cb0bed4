//! A stand-in for `gcloud`: it knows the commands that the scripts use with every flag that they give, keeps what was
//! made as data, and answers as Google does where something is missing, is there already, or may not be seen.
//!
//! On the scripts' PATH is a `gcloud` of a few lines that hands its arguments to this process and waits for the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::libc;

use super::commands::{self, Words};
use crate::harness;

pub(super) const PROJECT: &str = "my-project";
pub(super) const NUMBER: &str = "123456789012";

const STAND_IN: &str = "#!/bin/sh
case \"$*\" in *-from-file=-*) cat ;; *) : ;; esac >DIRECTORY/input
printf '%s\\0' \"$@\" >DIRECTORY/request
read -r code <DIRECTORY/answer
if [ -s DIRECTORY/out ]; then cat DIRECTORY/out; fi
if [ -s DIRECTORY/err ]; then cat DIRECTORY/err >&2; fi
exit \"$code\"
";

/// Keeps what it is asked to apply.
const KUBECTL: &str = "#!/bin/sh
[ \"$1 $2\" = 'apply --filename' ] || { echo \"kubectl: $*\" >&2; exit 1; }
cat \"$3\" >>DIRECTORY/manifests
printf -- '---\\n' >>DIRECTORY/manifests
";

/// A right: resource, role, member.
pub(super) type Binding = (String, String, String);

/// The project and what is in it.
#[derive(Default)]
pub(super) struct Cloud {
    /// By kind and name (`topic/platen-events`), with what was said of it.
    pub(super) resources: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) bindings: BTreeSet<Binding>,
    pub(super) apis: BTreeSet<String>,
    /// Google's own accounts that have been asked for.
    pub(super) agents: BTreeSet<String>,
    /// Messages of a subscription that nobody has acknowledged: the id, and the line that a pull prints.
    pub(super) messages: Vec<(String, String)>,
    /// Every command, and those among them that changed something.
    pub(super) commands: Vec<Vec<String>>,
    pub(super) changes: Vec<String>,
    /// What to refuse, once each.
    pub(super) failure: Failure,
    pub(super) failed: BTreeSet<String>,
    pub(super) signed_url: String,
    /// So many tries to use a new metric are too early.
    pub(super) metrics_are_known_after: u32,
    pub(super) ids: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Failure {
    #[default]
    None,
    /// Each change is refused the first time that it is tried.
    EachChangeOnce,
    /// Each change is made the first time, and its answer lost.
    EachAnswerOnce,
    /// Each look says once that its API is not known to be on yet.
    ApisAreSlow,
    /// Each grant says once that its account is not known yet.
    AccountsAreSlow,
}

/// An answer: exit code, stdout, stderr.
pub(super) type Answer = Result<String, String>;

pub(super) struct Gcloud {
    pub(super) cloud: Arc<Mutex<Cloud>>,
    directory: tempfile::TempDir,
    server: Option<std::thread::JoinHandle<()>>,
}

impl Gcloud {
    pub(super) fn start() -> Self {
        let cloud = Arc::new(Mutex::new(Cloud::default()));
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_owned();
        harness::run(
            Command::new("mkfifo")
                .arg(place.join("request"))
                .arg(place.join("answer")),
        );
        std::fs::write(place.join("signed.pdf"), "%PDF-1.7 the first").unwrap();
        cloud.lock().unwrap().signed_url = format!("file://{}", place.join("signed.pdf").display());
        for (name, text) in [("gcloud", STAND_IN), ("kubectl", KUBECTL)] {
            let script = place.join(name);
            std::fs::write(&script, text.replace("DIRECTORY", &place.display().to_string())).unwrap();
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let shared = Arc::clone(&cloud);
        let server = std::thread::spawn(move || serve(&shared, &place));
        Self {
            cloud,
            directory,
            server: Some(server),
        }
    }

    /// Runs one of the scripts, from another directory than the project's, with these settings.
    pub(super) fn script(&self, script: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("deploy").join(script));
        command.args(arguments);
        self.finish(command, settings)
    }

    /// Runs the text of a dry run.
    pub(super) fn text(&self, text: &str, settings: &[(&str, &str)]) -> Ended {
        let file = self.directory.path().join("text.sh");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("sh");
        command.arg("-eu").arg(&file);
        self.finish(command, settings)
    }

    fn finish(&self, mut command: Command, settings: &[(&str, &str)]) -> Ended {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.directory.path().display());
        let output = command
            .env_clear()
            .env("PATH", path)
            .env("TMPDIR", self.directory.path())
            .env("PROJECT_ID", PROJECT)
            .env("RETRY_SECONDS", "0")
            .env("RETRY_TIMES", "3")
            // What a script writes lands here: the project's own root is left alone.
            .env("FIRST_PDF", self.directory.path().join("first.pdf"))
            .envs(settings.iter().copied())
            .current_dir(root)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(super) fn first_pdf(&self) -> Option<String> {
        std::fs::read_to_string(self.directory.path().join("first.pdf")).ok()
    }

    /// What kubectl was given since the last time this was asked.
    pub(super) fn manifests(&self) -> String {
        let file = self.directory.path().join("manifests");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _was_there = std::fs::remove_file(file);
        text
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Cloud) -> T) -> T {
        look(&mut self.cloud.lock().unwrap())
    }

    /// The changes since the last time this was asked.
    pub(super) fn changes(&self) -> Vec<String> {
        self.with(|cloud| std::mem::take(&mut cloud.changes))
    }
}

impl Drop for Gcloud {
    fn drop(&mut self) {
        // Opened by the server already, or it may wait for an answer's reader that somebody has killed: then it is left.
        let request = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.directory.path().join("request"));
        if let (Ok(request), Some(server)) = (request, self.server.take()) {
            drop(request);
            let _panicked = server.join();
        }
    }
}

/// How a script ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ended {
    pub(super) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self
    }
}

/// Answers one command after the other, until an empty request.
fn serve(cloud: &Mutex<Cloud>, place: &Path) {
    loop {
        let request = std::fs::read_to_string(place.join("request")).unwrap();
        let mut words: Vec<String> = request.split('\0').map(str::to_owned).collect();
        words.pop();
        if words.is_empty() {
            return;
        }
        let mut cloud = cloud.lock().unwrap();
        cloud.commands.push(words.clone());
        let input = std::fs::read_to_string(place.join("input")).unwrap();
        let (code, out, err) = match answer(&mut cloud, &words, &input) {
            Ok(out) => (0, out, String::new()),
            Err(err) => (1, String::new(), err),
        };
        drop(cloud);
        for (name, text) in [("out", out), ("err", err)] {
            let end = if text.is_empty() || text.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            std::fs::write(place.join(name), text + end).unwrap();
        }
        std::fs::write(place.join("answer"), format!("{code}\n")).unwrap();
    }
}

fn answer(cloud: &mut Cloud, words: &[String], input: &str) -> Answer {
    let words = Words::parse(words, input)?;
    if !words.changes() {
        if cloud.failure == Failure::ApisAreSlow
            && words.command.ends_with("describe")
            && words.command != "projects describe"
            && cloud.failed.insert(words.text())
        {
            return Err(
                "ERROR: (gcloud) PERMISSION_DENIED: X API has not been used in project before or it is disabled."
                    .to_owned(),
            );
        }
        return commands::look(cloud, &words);
    }
    let command = words.text();
    let first = cloud.failed.insert(words.kind_of_change());
    let fails = match cloud.failure {
        Failure::None | Failure::ApisAreSlow => false,
        Failure::EachChangeOnce | Failure::EachAnswerOnce => first,
        Failure::AccountsAreSlow => first && command.contains("add-iam-policy-binding"),
    };
    match cloud.failure {
        Failure::AccountsAreSlow if fails => {
            return Err("ERROR: (gcloud) INVALID_ARGUMENT: Service account of that name does not exist.".to_owned());
        }
        Failure::EachChangeOnce if fails => {
            return Err("ERROR: (gcloud) INTERNAL: Internal error encountered.".to_owned());
        }
        _ => {}
    }
    let answer = commands::change(cloud, &words)?;
    cloud.changes.push(command);
    if fails {
        return Err("ERROR: (gcloud) UNAVAILABLE: The connection was closed.".to_owned());
    }
    Ok(answer)
}
