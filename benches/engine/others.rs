//! What the engine is compared with: a warm unoserver and a cold soffice, both under the engine's own settings.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A warm unoserver, with a client that is kept.
pub(crate) struct Unoserver {
    server: Child,
    client: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    output: String,
}

impl Unoserver {
    /// Starts both and waits for them; `None`, with a word about it, where they are not installed.
    pub(crate) fn start(home: &Path) -> Option<Self> {
        let python = std::env::var("PLATEN_BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has = Command::new(&python)
            .args(["-c", "import uno, unoserver.client"])
            .stderr(Stdio::null())
            .status();
        if !has.is_ok_and(|status| status.success()) {
            println!("skipped: unoserver: {python} has not both unoserver and uno ('make bench' says what is missing)");
            return None;
        }
        // Two ports that are free now.
        let ports: Vec<std::net::TcpListener> = (0..2)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let [rpc, uno] = [0, 1].map(|which| ports[which].local_addr().unwrap().port().to_string());
        drop(ports);
        let server = settings(Command::new(&python), home)
            .args([
                "-m",
                "unoserver.server",
                "--port",
                &rpc,
                "--uno-port",
                &uno,
                "--executable",
                "/usr/bin/soffice",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut client = Command::new(&python)
            .args(["-c", CLIENT, &rpc])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = client.stdin.take().unwrap();
        let mut from = BufReader::new(client.stdout.take().unwrap());
        let mut ready = String::new();
        from.read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "unoserver does not start");
        let output = home.join("unoserver.pdf").to_str().unwrap().to_owned();
        Some(Self {
            server,
            client,
            to,
            from,
            output,
        })
    }

    /// Converts one document and waits for its PDF.
    pub(crate) fn convert(&mut self, document: &Path) -> Duration {
        let began = Instant::now();
        writeln!(self.to, "{}\t{}", document.display(), self.output).unwrap();
        let mut done = String::new();
        self.from.read_line(&mut done).unwrap();
        assert_eq!(done, "done\n", "unoserver does not convert");
        began.elapsed()
    }
}

impl Drop for Unoserver {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
        // It ends its soffice when it is asked, not when it is killed.
        let pid = nix::unistd::Pid::from_raw(self.server.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.server.wait();
    }
}

/// One process and one connection for all documents.
const CLIENT: &str = r#"
import sys, time
from unoserver.client import UnoClient
client = UnoClient(server="127.0.0.1", port=sys.argv[1], host_location="local")
for attempt in range(600):
    try:
        from xmlrpc.client import ServerProxy
        ServerProxy("http://127.0.0.1:" + sys.argv[1], allow_none=True).info()
        break
    except Exception:
        time.sleep(0.05)
print("ready", flush=True)
for line in sys.stdin:
    source, target = line.rstrip("\n").split("\t")
    client.convert(inpath=source, outpath=target, convert_to="pdf")
    print("done", flush=True)
"#;

/// A process of its own for one document.
pub(crate) fn soffice(home: &Path, document: &Path) -> Duration {
    let began = Instant::now();
    let status = settings(Command::new("soffice"), home)
        .args(["--headless", "--convert-to", "pdf", "--outdir"])
        .args([home, document])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("soffice is installed (deploy/packages.sh engine)");
    assert!(status.success(), "soffice ends with {status}");
    began.elapsed()
}

/// The engine's own settings.
fn settings(mut command: Command, home: &Path) -> Command {
    command
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
        );
    command
}
