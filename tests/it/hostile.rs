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
    baited_file(&fixture("documents/hostile").join(name), directory, replace)
}

fn baited_file(document: &Path, directory: &Path, replace: &[(&str, &str)]) -> PathBuf {
    let name = document.file_name().unwrap();
    let bytes = std::fs::read(document).unwrap();
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
    // A damaged package stays as it is.
    let whole = |mut package: zip::ZipArchive<_>| (0..package.len()).all(|index| readable(&mut package, index));
    if !zip::ZipArchive::new(Cursor::new(&bytes)).is_ok_and(whole) {
        std::fs::write(&path, bytes).unwrap();
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

/// Whether an entry unpacks, to something that a test may hold.
fn readable(package: &mut zip::ZipArchive<Cursor<&Vec<u8>>>, index: usize) -> bool {
    const LARGEST: u64 = 8 << 20;
    let Ok(entry) = package.by_index(index) else {
        return false;
    };
    let (declared, mut content) = (entry.size(), Vec::new());
    let read = entry.take(LARGEST).read_to_end(&mut content);
    read.is_ok_and(|read| read as u64 == declared)
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

/// How the shared attacks end. The others are this project's, and `inspect.rs` knows how they end.
const ENDS: &[(&str, &str)] = &[
    ("crafted__bomb_docx_billion_laughs.docx", "document.corrupt"),
    ("crafted__ssrf_html_as_docx.docx", "source.unsupported"),
    // Stock does not load it either.
    ("crafted__ssrf_svg_image.svg", "document.corrupt"),
    ("crafted__xxe_docx_document.docx", "document.corrupt"),
    ("jodconverter__test_password.odt", "document.encrypted"),
    ("lok__password.docx", "document.encrypted"),
];

/// The width and height of the picture that no output may hold: no other one has them.
const PICTURE: (u32, u32) = (37, 23);

/// Every attack there is, in one go: each ends, nothing is asked for, and neither text nor picture of a local file comes
/// into an output.
#[test]
fn every_attack_ends_and_brings_nothing_in() {
    const SECRET: &str = "canary-0815-of-a-local-file";
    let (directory, canary) = (tempfile::tempdir().unwrap(), Canary::start());
    let local = directory.path().join("local");
    std::fs::create_dir(&local).unwrap();
    std::fs::write(local.join("secret.txt"), SECRET).unwrap();
    std::fs::write(local.join("secret.csv"), format!("{SECRET},{SECRET}\n")).unwrap();
    std::fs::write(local.join("secret.png"), picture()).unwrap();
    // Whoever may read them: what keeps them from the child is the jail, not the files' modes.
    for path in [directory.path(), &local] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    let baits = directory.path().join("baits");
    std::fs::create_dir(&baits).unwrap();
    let (files, secret) = (
        format!("file://{}", local.display()),
        format!("file://{}/secret.txt", local.display()),
    );
    let replace = [
        (BAIT, canary.address.as_str()),
        ("127.0.0.1:18080", canary.address.as_str()),
        ("file:///var/tmp/canary", files.as_str()),
        (LOCAL_FILE, secret.as_str()),
    ];
    let mut attacks = crate::stock::files(&fixture("documents/hostile"));
    // It takes the whole of its limit, and reaches for nothing.
    attacks.retain(|path| !path.ends_with("never-ends.ods"));
    match crate::engine::shared_documents("hostile") {
        Some(shared) => attacks.extend(crate::stock::files(&shared)),
        None => println!("only this project's attacks: no shared documents; set PLATEN_SHARED"),
    }
    let mut documents: Vec<PathBuf> = attacks
        .iter()
        .map(|attack| baited_file(attack, &baits, &replace))
        .collect();
    // The control: a picture that is in the document is found in its output.
    let control = baits.join("control.html");
    let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, picture());
    std::fs::write(
        &control,
        format!("<html><body><img src='data:image/png;base64,{data}'></body></html>"),
    )
    .unwrap();
    documents.push(control.clone());

    let out = directory.path().join("out");
    let said = crate::stock::convert_all(&documents, &out);
    let mut converted = 0;
    for (document, line) in &said {
        let name = document.file_name().unwrap().to_str().unwrap();
        let code = line["error"]["code"].as_str();
        if let Some((_, wanted)) = ENDS.iter().find(|(attack, _)| *attack == name) {
            assert_eq!(code, Some(*wanted), "{name}");
        } else if name.starts_with("crafted__") || name.starts_with("linked-") || document == &control {
            assert_eq!(code, None, "{name}: {line}");
        }
        println!(
            "{name}: {}",
            code.unwrap_or("converted, with nothing of the machine in it")
        );
        let refused = |code: &str| code.starts_with("document.") || code.starts_with("source.");
        assert!(
            code.is_none_or(|code| refused(code) && code != "document.engine_crashed"),
            "{name}: {line}"
        );
        let Some(output) = line["output"].as_str() else {
            continue;
        };
        converted += 1;
        let (text, sizes) = (pdf_text(Path::new(output)), picture_sizes(Path::new(output)));
        assert!(!text.contains("canary") && !text.contains("root:x:0"), "{name}: {text}");
        assert_eq!(sizes.contains(&PICTURE), document == &control, "{name}: {sizes:?}");
    }
    println!("{} attacks, of which {} convert", attacks.len(), converted - 1);
    assert_eq!(canary.visitors(), 0, "a request left the jail");
}

/// A picture of that size, all of one colour.
fn picture() -> Vec<u8> {
    let mut rows = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..PICTURE.1 {
        rows.write_all(&[0]).unwrap();
        rows.write_all(&vec![0x5a; 3 * PICTURE.0 as usize]).unwrap();
    }
    let header = [
        &PICTURE.0.to_be_bytes()[..],
        &PICTURE.1.to_be_bytes()[..],
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [
        (b"IHDR", header),
        (b"IDAT", rows.finish().unwrap()),
        (b"IEND", Vec::new()),
    ] {
        let mut checksum = flate2::Crc::new();
        checksum.update(kind);
        checksum.update(&data);
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(kind);
        png.extend(data);
        png.extend(checksum.sum().to_be_bytes());
    }
    png
}

/// The sizes of the pictures in a PDF, by `pdfimages`.
fn picture_sizes(pdf: &Path) -> Vec<(u32, u32)> {
    let list = crate::harness::run(Command::new("pdfimages").arg("-list").arg(pdf));
    let size = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some((fields.get(3)?.parse().ok()?, fields.get(4)?.parse().ok()?))
    };
    list.lines().filter_map(size).collect()
}
