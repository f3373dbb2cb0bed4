//! Passwords that open documents, passwords that protect PDFs, and where neither must ever show.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{INPUT, PATIENCE, World, children, fixture, job, pdf_text, run, walk};

/// Of every document in `fixtures/documents/encrypted`.
const PASSWORD: &str = "correct horse";

fn platen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_platen"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

/// A directory for outputs, with files of passwords beside them.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with this content.
    fn file(&self, name: &str, content: &str) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// Converts files into a directory here; one line of JSON a file, by the file's name.
    fn convert(&self, out: &str, files: &[PathBuf], with: &[&dyn AsRef<std::ffi::OsStr>]) -> BTreeMap<String, Value> {
        let mut command = platen();
        command
            .arg("convert")
            .args(files)
            .arg("--json")
            .arg("--out")
            .arg(self.path(out));
        let output = command.args(with.iter().map(AsRef::as_ref)).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let ended: BTreeMap<String, Value> = lines
            .lines()
            .map(of)
            .map(|line| (name(Path::new(line["file"].as_str().unwrap())), line))
            .collect();
        assert_eq!(
            ended.len(),
            files.len(),
            "{lines}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ended
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn plain(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| fixture("documents/plain").join(name)).collect()
}

/// The documents that LibreOffice opens with a password, and those that it does not open at all.
fn encrypted() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let directory = std::fs::read_dir(fixture("documents/encrypted")).unwrap();
    let mut all: Vec<PathBuf> = directory.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.into_iter()
        .partition(|path| !name(path).starts_with("unsupported-"))
}

#[test]
fn missing_wrong_and_right_passwords_are_told_apart_in_every_way_of_encryption() {
    let desk = Desk::new();
    let (opens, _) = encrypted();
    assert_eq!(opens.len(), 17);
    let right = desk.file("right", &format!("{PASSWORD}\n"));
    let wrong = desk.file("wrong", "incorrect horse");
    for (file, line) in desk.convert("none", &opens, &[]) {
        assert_eq!(line["error"]["code"], "document.encrypted", "{file}: {line}");
    }
    for (file, line) in desk.convert("wrong-out", &opens, &[&"--password-file", &wrong]) {
        assert_eq!(line["error"]["code"], "document.wrong_password", "{file}: {line}");
    }
    for (file, line) in desk.convert("right-out", &opens, &[&"--password-file", &right]) {
        assert_eq!(line["status"], "succeeded", "{file}: {line}");
        let words = match file.rsplit_once('.').unwrap().1 {
            "docx" | "doc" => "Invoice",
            // Stock LibreOffice prints the document that gcm.ods was made from without its text.
            "ods" if file.starts_with("gcm") => "",
            "xlsx" | "xls" | "ods" => "Income",
            "odt" => "Agreement",
            _ => "shelf",
        };
        let text = pdf_text(Path::new(line["output"].as_str().unwrap()));
        assert!(text.to_lowercase().contains(&words.to_lowercase()), "{file}: {text}");
    }
}

#[test]
fn what_no_password_opens_is_not_asked_for_one() {
    let desk = Desk::new();
    let (_, mut unsupported) = encrypted();
    assert!(unsupported.len() >= 7);
    unsupported.push(fixture("documents/hostile/password.ppt"));
    let right = desk.file("right", PASSWORD);
    for with in [&[][..], &[&"--password-file" as &dyn AsRef<std::ffi::OsStr>, &right]] {
        for (file, line) in desk.convert("out", &unsupported, with) {
            assert_eq!(line["error"]["code"], "source.unsupported", "{file}: {line}");
            assert!(
                line["error"]["message"].as_str().unwrap().contains("encrypted"),
                "{line}"
            );
        }
    }
}

/// Without its password a document's damage cannot be seen, with it it is not mistaken for another password.
#[test]
fn a_damaged_document_with_its_right_password_is_corrupt() {
    let desk = Desk::new();
    let mut bytes = std::fs::read(fixture("documents/encrypted/agile.docx")).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 700] {
        *byte ^= 0x55;
    }
    std::fs::write(desk.path("damaged.docx"), bytes).unwrap();
    let right = desk.file("right", PASSWORD);
    let ended = desk.convert("out", &[desk.path("damaged.docx")], &[&"--password-file", &right]);
    assert_eq!(ended["damaged.docx"]["error"]["code"], "document.corrupt", "{ended:?}");
}

#[test]
fn a_password_comes_from_stdin_too_and_a_bad_file_is_wrong_usage() {
    let desk = Desk::new();
    let mut child = platen()
        .arg("convert")
        .arg(fixture("documents/encrypted/standard.docx"))
        .args(["--password-file", "-", "--out"])
        .arg(desk.path("out"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());

    let two = desk.file("two", "one line\nanother\n");
    for (file, what) in [
        (two, "more than one line"),
        (desk.file("empty", "\n"), "empty"),
        (desk.path("nowhere"), "nowhere"),
    ] {
        for flag in ["--password-file", "--user-password-file", "--owner-password-file"] {
            let mut command = platen();
            command
                .arg("convert")
                .args(plain(&["invoice.docx"]))
                .arg(flag)
                .arg(&file);
            let output = command.arg("--out").arg(desk.path("out")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(64), "{flag}: {said}");
            assert!(said.contains(what) && !said.contains("another"), "{said}");
        }
    }
}

/// Every command, not the worker alone: it waits for its password here.
#[test]
fn no_core_file_is_written_of_a_command_that_has_passwords() {
    let desk = Desk::new();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -c unlimited; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_platen"),
            "convert",
        ])
        .arg(fixture("documents/encrypted/standard.docx"))
        .args(["--password-file", "-", "--out"])
        .arg(desk.path("out"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    let limits = format!("/proc/{}/limits", child.id());
    loop {
        let limits = std::fs::read_to_string(&limits).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
        if core.unwrap().split_whitespace().take(2).eq(["0", "0"]) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{limits}");
        std::thread::yield_now();
    }
    child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

const OFFICES: [&str; 4] = ["invoice.docx", "budget.xlsx", "deck.pptx", "report.odt"];

/// Pages as pixels.
fn pixels(pdf: &Path, password: Option<&str>) -> Vec<u8> {
    let mut command = Command::new("pdftoppm");
    command.args(["-r", "50"]).args(password.map(|_| "-upw")).args(password);
    let output = command.arg(pdf).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn qpdf(pdf: &Path, arguments: &[&str]) -> String {
    run(Command::new("qpdf").args(arguments).arg(pdf))
}

#[test]
fn a_protected_pdf_opens_with_its_passwords_alone_and_is_the_same() {
    let desk = Desk::new();
    let (user, owner) = (desk.file("user", "Grüße 1"), desk.file("owner", "owner's own"));
    let open = desk.convert("open", &plain(&OFFICES), &[]);
    let protected = desk.convert(
        "protected",
        &plain(&OFFICES),
        &[&"--user-password-file", &user, &"--owner-password-file", &owner],
    );
    for file in OFFICES {
        let pdf = |ended: &BTreeMap<String, Value>| PathBuf::from(ended[file]["output"].as_str().unwrap());
        let (open, protected_pdf) = (pdf(&open), pdf(&protected));
        assert_eq!(protected[file]["status"], "succeeded", "{protected:?}");
        for (password, whose) in [("Grüße 1", "user"), ("owner's own", "owner")] {
            let password = format!("--password={password}");
            qpdf(&protected_pdf, &[&password, "--check"]);
            let said = qpdf(&protected_pdf, &[&password, "--show-encryption"]);
            assert!(said.contains("R = 6\n"), "{said}");
            assert!(
                said.contains(&format!("Supplied password is {whose} password")),
                "{said}"
            );
            assert_eq!(said.matches("encryption method: AESv3").count(), 3, "{said}");
        }
        for wrong in [&["--check"][..], &["--password=grüße 1", "--check"]] {
            let mut command = Command::new("qpdf");
            let refused = command.args(wrong).arg(&protected_pdf).output().unwrap();
            assert!(!refused.status.success(), "{file} opens with {wrong:?}");
        }
        assert_eq!(pixels(&open, None), pixels(&protected_pdf, Some("Grüße 1")), "{file}");
        assert_eq!(
            qpdf(&open, &["--json=2", "--json-key=pages"])
                .matches("\"object\"")
                .count(),
            qpdf(
                &protected_pdf,
                &["--password=owner's own", "--json=2", "--json-key=pages"]
            )
            .matches("\"object\"")
            .count()
        );
    }
}

/// What a file without protection shows to everybody must be gone: every string and every stream.
#[test]
fn nothing_of_the_document_is_left_in_the_clear() {
    let desk = Desk::new();
    let owner = desk.file("owner", "owner's own");
    let open = desk.convert("open", &plain(&["invoice.docx"]), &[]);
    let protected = desk.convert(
        "protected",
        &plain(&["invoice.docx"]),
        &[&"--owner-password-file", &owner],
    );
    let bytes =
        |ended: &BTreeMap<String, Value>| std::fs::read(ended["invoice.docx"]["output"].as_str().unwrap()).unwrap();
    let (open, protected) = (bytes(&open), bytes(&protected));
    let has = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    // The title in the description, and "LibreOffice" as the producer in UTF-16.
    for text in [&b"Invoice 2026"[..], b"004C0069006200720065004F00660066", b"x:xmpmeta"] {
        assert!(has(&open, text));
        assert!(!has(&protected, text), "{}", String::from_utf8_lossy(text));
    }
    let mut streams = 0;
    for (at, _) in open
        .windows(8)
        .enumerate()
        .filter(|(_, window)| *window == b"\nstream\n")
    {
        let content = &open[at + 8..at + 40];
        assert!(!has(&protected, content), "a stream is in the clear");
        streams += 1;
    }
    assert!(streams > 3, "{streams}");
}

#[test]
fn permissions_are_those_that_were_asked_for() {
    let desk = Desk::new();
    let owner = desk.file("owner", "owner's own");
    let rights = |options: &[&str]| {
        let options: Vec<&str> = options.iter().flat_map(|option| ["--option", *option]).collect();
        let mut with: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--owner-password-file", &owner];
        with.extend(options.iter().map(|option| option as &dyn AsRef<std::ffi::OsStr>));
        let ended = desk.convert("out", &plain(&["invoice.docx"]), &with);
        let pdf = PathBuf::from(ended["invoice.docx"]["output"].as_str().unwrap());
        // Without a user's password anybody opens it.
        let said = qpdf(&pdf, &["--show-encryption"]);
        let denied = said
            .lines()
            .filter_map(|line| line.strip_suffix(": not allowed").map(str::to_owned));
        denied.collect::<Vec<_>>()
    };
    assert_eq!(rights(&[]), [""; 0]);
    assert_eq!(rights(&["permitPrinting=low"]), ["print high resolution"]);
    assert_eq!(
        rights(&["permitPrinting=none", "permitCopying=false"]),
        [
            "extract for any purpose",
            "print low resolution",
            "print high resolution"
        ]
    );
    let assembly = "modify document assembly";
    let (forms, comments) = ("modify forms", "modify annotations");
    let (other, anything) = ("modify other", "modify anything");
    assert_eq!(
        rights(&["permitChanges=none"]),
        [assembly, forms, comments, other, anything]
    );
    assert_eq!(rights(&["permitChanges=pages"]), [forms, comments, other, anything]);
    assert_eq!(rights(&["permitChanges=forms"]), [assembly, comments, other, anything]);
    assert_eq!(rights(&["permitChanges=comments"]), [assembly, other, anything]);
}

#[test]
fn passwords_that_cannot_protect_are_refused() {
    let desk = Desk::new();
    let (same, long) = (desk.file("same", "the same"), desk.file("long", &"x".repeat(128)));
    for (user, owner) in [(&same, &same), (&long, &same)] {
        let with: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"--user-password-file", user, &"--owner-password-file", owner];
        let ended = desk.convert("out", &plain(&["invoice.docx"]), &with);
        assert_eq!(ended["invoice.docx"]["error"]["code"], "option.invalid", "{ended:?}");
    }
    assert!(!desk.path("out/invoice.pdf").exists());
}

/// Two runs are two zygotes. The seconds of their clocks differ: the first ends before the second begins.
#[test]
fn a_reproducible_pdf_has_the_same_bytes_and_the_same_pixels() {
    let desk = Desk::new();
    let with: [&dyn AsRef<std::ffi::OsStr>; 2] = [&"--option", &"reproducible=true"];
    let usual = desk.convert("usual", &plain(&OFFICES), &[]);
    let runs = ["first", "second"].map(|out| desk.convert(out, &plain(&OFFICES), &with));
    let mut identifiers = std::collections::HashSet::new();
    for file in OFFICES {
        let [first, second] = runs
            .each_ref()
            .map(|ended| PathBuf::from(ended[file]["output"].as_str().unwrap()));
        let bytes = std::fs::read(&first).unwrap();
        assert_eq!(bytes, std::fs::read(second).unwrap(), "{file}");
        qpdf(&first, &["--check"]);
        let usual = PathBuf::from(usual[file]["output"].as_str().unwrap());
        assert_ne!(bytes, std::fs::read(&usual).unwrap(), "{file}");
        assert_eq!(pixels(&usual, None), pixels(&first, None), "{file}");
        assert_eq!(pdf_text(&usual), pdf_text(&first), "{file}");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let identifier = text.rsplit_once("/ID [<").unwrap().1[..32].to_owned();
        assert!(identifiers.insert(identifier), "two documents have one identifier");
    }
}

/// Where the worker had the document for a while is nobody's business, and another place in every run.
#[test]
fn no_path_of_the_worker_is_in_an_output() {
    let desk = Desk::new();
    let document = desk.file(
        "paths.fodt",
        r#"<?xml version="1.0"?><office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:xlink="http://www.w3.org/1999/xlink" office:mimetype="application/vnd.oasis.opendocument.text" office:version="1.3"><office:body><office:text><text:p>In <text:file-name text:display="full">here</text:file-name>: <text:a xlink:type="simple" xlink:href="annex.pdf">annex</text:a></text:p></office:text></office:body></office:document>"#,
    );
    let temporary = tempfile::tempdir().unwrap();
    for (to, options) in [
        ("pdf", &["--option", "reproducible=true"][..]),
        ("html", &[]),
        ("txt", &[]),
    ] {
        let outputs = ["first", "second"].map(|out| {
            let mut command = platen();
            command.arg("convert").arg(&document).args(["--to", to]).args(options);
            run(command.arg("--out").arg(desk.path(out)).env("TMPDIR", temporary.path()));
            std::fs::read(desk.path(out).join(format!("paths.{to}"))).unwrap()
        });
        assert_eq!(outputs[0], outputs[1], "{to}");
        let text = match to {
            "pdf" => qpdf(&desk.path("first/paths.pdf"), &["--json"]) + &pdf_text(&desk.path("first/paths.pdf")),
            _ => String::from_utf8_lossy(&outputs[0]).into_owned(),
        };
        assert!(text.contains("paths.fodt"), "{to} prints the name: {text}");
        for told in ["platen-", &temporary.path().to_string_lossy()] {
            assert!(!text.contains(told), "{to} tells {told}");
        }
    }
}

#[test]
fn a_reproducible_pdf_has_the_dates_of_its_document() {
    let desk = Desk::new();
    let made = |meta: &str| {
        format!(
            r#"<?xml version="1.0"?><office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:meta="urn:oasis:names:tc:opendocument:xmlns:meta:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/" office:mimetype="application/vnd.oasis.opendocument.text" office:version="1.3"><office:meta>{meta}</office:meta><office:body><office:text><text:p>One line</text:p></office:text></office:body></office:document>"#
        )
    };
    let dated = desk.file(
        "dated.fodt",
        &made("<meta:creation-date>2011-02-03T04:05:06Z</meta:creation-date>"),
    );
    let undated = desk.file("undated.fodt", &made(""));
    for archive in [false, true] {
        let mut with: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--option", &"reproducible=true"];
        if archive {
            with.extend([&"--option" as &dyn AsRef<std::ffi::OsStr>, &"pdfa=PDF/A-2b"]);
        }
        let ended = desk.convert("out", &[dated.clone(), undated.clone()], &with);
        for (file, date) in [
            ("dated.fodt", "2011-02-03T04:05:06Z"),
            ("undated.fodt", "1970-01-01T00:00:00Z"),
        ] {
            let pdf = ended[file]["output"].as_str().unwrap();
            let info = run(Command::new("pdfinfo").arg("-isodates").arg(pdf));
            let found = info
                .lines()
                .find_map(|line| line.strip_prefix("CreationDate:"))
                .unwrap()
                .trim();
            assert_eq!(found.replace("+00", "Z").replace("+0000", "Z"), date, "{file}: {info}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_names_a_password_that_is_not_there_is_told_so() {
    let world = World::start().await;
    world
        .upload_fixture("documents/encrypted/standard.docx", "locked.docx")
        .await;
    let source = format!("gs://{INPUT}/locked.docx");
    for (message, option) in [
        (json!({"source": source, "password": {"secret": "nobody"}}), "password"),
        (
            json!({"source": source, "outputs": [{"format": "pdf", "options": {"userPassword": {"secret": "nobody"}}}]}),
            "userPassword",
        ),
        (
            json!({"source": source, "outputs": [{"format": "pdf", "options": {"ownerPassword": {"secret": "nobody"}}}]}),
            "ownerPassword",
        ),
    ] {
        assert_eq!(world.post(&job(&message)).await.status(), 204);
        let result = world.result().await.data;
        assert_eq!(result["error"]["code"], "option.invalid", "{result}");
        assert_eq!(result["error"]["detail"], json!({"option": option, "secret": "nobody"}));
    }
    assert_eq!(world.post(&job(&json!({"source": source}))).await.status(), 204);
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "document.encrypted", "{result}");
}

/// Every password here is a word that stands nowhere else, so that one occurrence is a leak.
#[test]
fn no_password_shows_in_a_process_a_file_or_what_is_printed() {
    const CANARIES: [&str; 3] = ["correct horse", "canary-of-the-user", "canary-of-the-owner"];
    let desk = Desk::new();
    let temporary = tempfile::tempdir().unwrap();
    // PBKDF2 keeps the first busy for a second, with the password in its child; the others fail in different ways.
    let files = ["cbc.odp", "gcm.odt", "unsupported-key.odt"].map(|name| fixture("documents/encrypted").join(name));
    let mut child = platen()
        .arg("convert")
        .args(&files)
        .arg(fixture("documents/hostile/zip-cut-short.docx"))
        .args(["--jobs", "1", "--password-file"])
        .arg(desk.file("password", CANARIES[0]))
        .arg("--user-password-file")
        .arg(desk.file("user", CANARIES[1]))
        .arg("--owner-password-file")
        .arg(desk.file("owner", CANARIES[2]))
        .arg("--out")
        .arg(temporary.path().join("out"))
        .env("TMPDIR", temporary.path())
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let has = |bytes: &[u8], what: &str| {
        for canary in CANARIES {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{canary:?} is in {what}");
        }
    };
    let (mut seen, mut deepest) = (0, 0);
    while child.try_wait().unwrap().is_none() {
        let mut family = vec![(child.id(), 0)];
        let mut at = 0;
        while at < family.len() {
            let (pid, depth) = family[at];
            family.extend(children(pid).into_iter().map(|child| (child, depth + 1)));
            for of in ["cmdline", "environ"] {
                // Nobody may read a child's: it is not dumpable.
                if let Ok(bytes) = std::fs::read(format!("/proc/{pid}/{of}")) {
                    has(&bytes, of);
                    seen += usize::from(!bytes.is_empty());
                }
            }
            deepest = deepest.max(depth);
            at += 1;
        }
        walk(temporary.path(), &mut |path| {
            if let Ok(bytes) = std::fs::read(path) {
                has(&bytes, &path.display().to_string());
            }
        });
    }
    assert!(
        // Deeper there are forks that try what the kernel has.
        seen > 2 && deepest >= 2,
        "neither zygote nor child was seen: {seen}, {deepest}"
    );
    let output = child.wait_with_output().unwrap();
    has(&output.stdout, "stdout");
    has(&output.stderr, "stderr");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().count(),
        2,
        "two succeed"
    );
    walk(temporary.path(), &mut |path| {
        if let Ok(bytes) = std::fs::read(path) {
            has(&bytes, &path.display().to_string());
        }
        let kept = path.extension().is_some_and(|extension| extension == "pdf") || path.ends_with("out");
        assert!(kept, "{} is left", path.display());
    });
}
