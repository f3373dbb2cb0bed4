//! Google's storage testbench (github.com/googleapis/storage-testbench), which its own client libraries are tested against: the one
//! at STORAGE_TESTBENCH_URL, or one that is installed once into a directory of the build and started for a test.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::harness::signal;

/// Where pip gets it from, unless STORAGE_TESTBENCH says another place: the release that the differences in
/// docs/storage-differences.md are of.
const SOURCE: &str = "git+https://github.com/googleapis/storage-testbench@v0.63.0";

pub(crate) struct Testbench {
    /// Without a slash at its end.
    pub(crate) url: String,
    child: Option<Child>,
}

impl Testbench {
    /// None, said aloud, where there is none. Blocks.
    pub(crate) fn start() -> Option<Self> {
        if let Ok(url) = std::env::var("STORAGE_TESTBENCH_URL") {
            let url = url.trim_end_matches('/').to_owned();
            return Some(Self { url, child: None });
        }
        static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
        let Some(python) = PYTHON.get_or_init(install) else {
            println!(
                "skipped: Google's storage testbench cannot be installed here (python3, its venv module, {SOURCE}); \
                 STORAGE_TESTBENCH_URL says where one runs, STORAGE_TESTBENCH what pip shall install"
            );
            return None;
        };
        let mut child = Command::new(python)
            .args([
                "-m",
                "gunicorn",
                "--bind",
                "127.0.0.1:0",
                "--threads",
                "8",
                "testbench:run()",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = log.by_ref().map(Result::unwrap);
        let url = said
            .filter_map(|line| Some(line.split_once("Listening at: ")?.1.split(' ').next()?.to_owned()))
            .next()
            .expect("the testbench says where it listens");
        // It goes on writing, and must not wait for a reader.
        std::thread::spawn(move || log.for_each(drop));
        Some(Self {
            url,
            child: Some(child),
        })
    }
}

impl Drop for Testbench {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Its workers end with it, which they would not with SIGKILL.
            signal(child.id(), nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

fn install() -> Option<PathBuf> {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("storage-testbench");
    let python = place.join("bin/python");
    let works = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if works(Command::new(&python).args(["-c", "import testbench"])) {
        return Some(python);
    }
    let source = std::env::var("STORAGE_TESTBENCH").unwrap_or_else(|_| SOURCE.to_owned());
    let installed = works(Command::new("python3").args(["-m", "venv"]).arg(&place))
        && works(Command::new(&python).args(["-m", "pip", "install", "--quiet", &source]));
    installed.then_some(python)
}
