//! Documents that reach for the network and for local files, through the real engine in its real jail.
//!
//! Each is first given to stock LibreOffice, which takes the bait: that shows that the document is live, and that the
//! listener would have noticed. The addresses in the fixtures are replaced by this test's own.

use std::io::{Cursor, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{fixture, pdf_text};

/// What the fixtures were made with.
const BAIT: &str = "127.0.0.1:49151";
const LOCAL_FILE: &str = "file:///etc/passwd";

/// Counts whoever connects.
struct Canary {
    address: String,
    visitors: Arc<AtomicUsize>,
}

impl Canary {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let visitors = Arc::new(AtomicUsize::new(0));
        let count = visitors.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                // An answer ends LibreOffice's wait; what it says does not matter.
                let _gone = stream.and_then(|mut stream| {
                    stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                });
            }
        });
        Self { address, visitors }
    }

    fn visitors(&self) -> usize {
        self.visitors.load(Ordering::SeqCst)
    }
}

/// The fixture with the bait replaced, in flat files and inside packages alike.
fn baited(name: &str, directory: &Path, replace: &[(&str, &str)]) -> PathBuf {
    let bytes = std::fs::read(fixture("documents/hostile").join(name)).unwrap();
    let swap = |text: &[u8]| match std::str::from_utf8(text) {
        Ok(text) => replace
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
            .into_bytes(),
        Err(_) => text.to_vec(),
    };
    let path = directory.join(name);
    if !bytes.starts_with(b"PK") {
        std::fs::write(&path, swap(&bytes)).unwrap();
        return path;
    }
    let mut package = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut writer = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for index in 0..package.len() {
        let mut entry = package.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        writer
            .start_file(entry.name().unwrap(), zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(&swap(&content)).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// Stock LibreOffice, as it is installed, with its links on.
fn stock(document: &Path, out: &Path) {
    let status = Command::new("soffice")
        .arg(format!(
            "-env:UserInstallation=file://{}",
            out.join("profile").display()
        ))
        .args(["--headless", "--convert-to", "pdf", "--outdir"])
        .arg(out)
        .arg(document)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

fn ours(document: &Path, out: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_platen"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .arg("convert")
        .arg(document);
    command
        .args(["--json", "--timeout", "60s", "--out"])
        .arg(out)
        .output()
        .unwrap()
}

#[test]
fn no_request_leaves_for_what_a_document_links_to() {
    for name in [
        "linked-image-fetches-url.fodt",
        "linked-image-fetches-url.docx",
        "linked-style-sheet.html",
    ] {
        let (directory, canary) = (tempfile::tempdir().unwrap(), Canary::start());
        let document = baited(name, directory.path(), &[(BAIT, &canary.address)]);
        stock(&document, &directory.path().join("stock"));
        let control = canary.visitors();
        assert!(control > 0, "{name} is not live: stock LibreOffice asked for nothing");
        let output = ours(&document, &directory.path().join("ours"));
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert_eq!(canary.visitors(), control, "{name}: a request left the jail");
    }
}

#[test]
fn no_local_file_reaches_an_output() {
    const CANARY: &str = "canary-4711-of-a-local-file";
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret.txt");
    std::fs::write(&secret, CANARY).unwrap();
    // Whoever may read it: what keeps it from the child is the jail, not the file's mode.
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let link = format!("file://{}", secret.display());
    let document = baited("linked-local-file.fodt", directory.path(), &[(LOCAL_FILE, &link)]);
    assert!(
        std::fs::read_to_string(&document).unwrap().contains(&link),
        "the fixture holds no bait"
    );
    let out = directory.path().join("ours");
    let output = ours(&document, &out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = pdf_text(&out.join("linked-local-file.pdf"));
    assert!(!text.contains("canary"), "{text}");
}
