//! The commands as a person meets them: what they print, where, and with which exit code.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{fixture, pdf_pages, pdf_text};

fn platen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_platen"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("ended by a signal: {}", text(&output.stderr)))
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once_with_64() {
    let output = platen()
        .arg("serve")
        .envs([
            ("PORT", "no"),
            ("PUSH_AUTH", "maybe"),
            ("LOG_FORMAT", "xml"),
            ("MAX_PAGES", "0"),
            ("INPUT_BUCKETS", ""),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 64);
    let message = text(&output.stderr);
    for name in [
        "PORT",
        "PUSH_AUTH",
        "LOG_FORMAT",
        "MAX_PAGES",
        "INPUT_BUCKETS",
        "OUTPUT_BUCKET",
        "RESULT_TOPIC",
        "PUSH_AUDIENCE",
        "PUSH_SERVICE_ACCOUNT",
    ] {
        assert_eq!(message.matches(&format!("\n  {name} ")).count(), 1, "{name}: {message}");
    }
}

#[test]
fn metrics_have_a_port_of_their_own() {
    for (metrics_port, problem) in [
        ("8080", "METRICS_PORT is PORT too"),
        ("0", "METRICS_PORT is"),
        ("http", "METRICS_PORT is"),
    ] {
        let output = platen()
            .arg("serve")
            .env("METRICS_PORT", metrics_port)
            .output()
            .unwrap();
        assert_eq!(code(&output), 64);
        let message = text(&output.stderr);
        assert!(message.contains(problem), "{metrics_port}: {message}");
    }
}

#[test]
fn in_json_logs_the_sentence_that_ends_the_worker_is_an_object_too() {
    let output = platen().arg("serve").env("LOG_FORMAT", "json").output().unwrap();
    assert_eq!(code(&output), 64);
    let lines = text(&output.stderr);
    let line: Value = serde_json::from_str(lines.trim()).unwrap_or_else(|_| panic!("{lines}"));
    assert_eq!(line["severity"], "ERROR");
    assert!(line["message"].as_str().unwrap().contains("OUTPUT_BUCKET"));
}

#[test]
fn nobody_has_to_read_what_convert_prints() {
    let out = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = platen()
        .arg("convert")
        .arg(fixture("documents/plain/invoice.docx"))
        .arg("--out")
        .arg(out.path())
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
}

#[test]
fn nobody_has_to_read_what_convert_says_about_failures() {
    let out = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = platen()
        .args(["convert", "nowhere.docx", "--jobs", "1"])
        .arg(fixture("documents/plain/invoice.docx"))
        .arg("--out")
        .arg(out.path())
        .stderr(writer)
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert_eq!(pdf_pages(&out.path().join("invoice.pdf")), 1, "the other file is made");
}

#[test]
fn what_a_full_disk_does_not_take_is_no_success() {
    let out = tempfile::tempdir().unwrap();
    let output = platen()
        .args(["convert", "--json", "--out"])
        .arg(out.path())
        .arg(fixture("documents/plain/invoice.docx"))
        .stdout(std::fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("stdout could not be written"));
}

#[test]
fn an_output_is_as_private_as_the_umask_says_and_no_name_moves_the_cursor() {
    use std::os::unix::fs::PermissionsExt as _;
    let out = tempfile::tempdir().unwrap();
    let document = out.path().join("in\u{1b}[2Jvoice.docx");
    std::fs::copy(fixture("documents/plain/invoice.docx"), &document).unwrap();
    for (umask, mode) in [("077", 0o600), ("022", 0o644), ("002", 0o664)] {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "umask {umask}; exec \"$0\" convert \"$1\" \"$1.docx\" --out \"$2\""
            ))
            .arg(env!("CARGO_BIN_EXE_platen"))
            .arg(&document)
            .arg(out.path())
            .output()
            .unwrap();
        assert_eq!(code(&output), 1, "one is not there: {}", text(&output.stderr));
        let made = document.with_extension("pdf").metadata().unwrap();
        assert_eq!(made.permissions().mode() & 0o777, mode, "umask {umask}");
        for said in [text(&output.stdout), text(&output.stderr)] {
            assert!(
                said.contains("in\\u{1b}[2Jvoice") && !said.contains('\u{1b}'),
                "{said:?}"
            );
        }
    }
}

#[test]
fn an_option_without_effect_on_this_document_is_refused() {
    let out = tempfile::tempdir().unwrap();
    for (document, option, sentence) in [
        ("deck.fodp", "skipEmptyPages=false", "is for a text"),
        ("budget.fods", "skipEmptyPages=false", "is for a text"),
        ("deck.fodp", "exportNotesInMargin=true", "is for a text"),
        ("budget.fods", "exportNotesInMargin=true", "is for a text"),
        ("deck.fodp", "initialPage=4", "has no page 4"),
    ] {
        let output = platen()
            .arg("convert")
            .arg(fixture("documents/plain").join(document))
            .args(["--option", option, "--out"])
            .arg(out.path())
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(code(&output), 1, "{document} {option}: {said}");
        assert!(said.contains("option.invalid") && said.contains(sentence), "{said}");
    }
}

#[test]
fn wrong_usage_is_64_and_help_is_0_with_an_example() {
    for arguments in [
        &["convert"][..],
        &["convert", "a.docx", "--to", "docm"],
        &["fly"],
        &[],
        &["demo", "--speed"],
    ] {
        assert_eq!(code(&platen().args(arguments).output().unwrap()), 64, "{arguments:?}");
    }
    for command in [
        "",
        "serve",
        "demo",
        "convert",
        "backfill",
        "redrive",
        "sign",
        "submit",
        "token",
        "secrets",
        "secrets seal",
        "secrets open",
        "doctor",
        "local",
    ] {
        let output = platen()
            .args(command.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        assert_eq!(code(&output), 0);
        assert!(text(&output.stdout).contains("Example: "), "{command} has no example");
    }
}

#[test]
fn all_mistakes_of_a_command_line_are_told_at_once() {
    for (arguments, expected) in [
        (
            "sign gs://B/o --ttl 1y --header foo --bogus yy --at=xx --query %zz --hostname a/b",
            &["\"B\"", "'1y'", "'foo'", "'--bogus'", "'xx'", "'%zz'", "'a/b'"][..],
        ),
        // The host that is wrong is not missing, too.
        (
            "sign gs://b --style bucket-bound --hostname a/b --ttl 0s",
            &["'a/b'", "'0s'"],
        ),
        (
            "sign gs://b --ttl=1y --ttl 5z --bogus=2",
            &["'1y'", "'5z'", "'--bogus'"],
        ),
        ("sign a b c", &["'a'", "'b'", "'c'"]),
        ("sign gs://b --ttl", &["'--ttl <DUR>'"]),
        ("submit --timeout 8", &["'8'", "--service"]),
        (
            "submit gs://a/b --topic t --service http://x --timeout 8",
            &["'8'", "'--topic <TOPIC>' cannot be used"],
        ),
        ("convert --to nix --jobs 0", &["'nix'", "'0'", "<FILE>"]),
        (
            "secrets seal --key bad --object nope --generation=-5 f",
            &["'bad'", "'nope'", "'-5'"],
        ),
        ("fly", &["'fly'"]),
        ("--fly", &["'--fly'"]),
    ] {
        let output = platen().args(arguments.split_whitespace()).output().unwrap();
        assert_eq!(code(&output), 64, "{arguments}");
        let message = text(&output.stderr);
        for part in expected {
            assert!(message.contains(part), "{arguments}: {part}: {message}");
        }
        assert_eq!(
            message.matches("\n  ").count(),
            if expected.len() == 1 { 0 } else { expected.len() },
            "{message}"
        );
        assert!(
            message.starts_with("platen: ") && message.contains("--help"),
            "{message}"
        );
    }
}

#[test]
fn no_credentials_are_wrong_configuration_for_every_command() {
    let key = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
    for arguments in [
        &["secrets", "open", "--key", key, "gs://b/o"][..],
        &["secrets", "seal", "--key", key, "--object", "gs://b/o", "/dev/stdin"],
        &["token", "--audience", "https://a.example"],
        &["submit", "gs://b/o", "--topic", "projects/p/topics/t"],
        &["sign", "gs://b/o"],
    ] {
        let mut command = platen();
        let (reader, writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut &writer, b"{}").unwrap();
        drop(writer);
        let file = "/nonexistent/credentials.json";
        let without = command.args(arguments).stdin(reader);
        // An emulator's host keeps them from looking for a metadata server.
        let output = without
            .env("STORAGE_EMULATOR_HOST", "127.0.0.1:1")
            .env("PUBSUB_EMULATOR_HOST", "127.0.0.1:1");
        let output = output.env("GOOGLE_APPLICATION_CREDENTIALS", file).output().unwrap();
        let message = text(&output.stderr);
        assert!(message.contains(file), "{arguments:?}: {message}");
        assert_eq!(code(&output), 64, "{arguments:?}: {message}");
    }
}

#[test]
fn a_commands_variables_are_wrong_all_at_once() {
    let wrong = [
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "[["),
        ("KMS_ENDPOINT", "kms"),
        ("STORAGE_EMULATOR_HOST", "a b"),
    ];
    let key = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
    for arguments in [
        &["secrets", "open", "--key", key, "gs://b/o"][..],
        &["token", "--audience", "https://a.example"],
        &["submit", "gs://b/o", "--topic", "t"],
    ] {
        let output = platen().args(arguments).envs(wrong).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(code(&output), 64, "{message}");
        for (name, _) in wrong {
            assert_eq!(message.matches(&format!("\n  {name} ")).count(), 1, "{name}: {message}");
        }
    }
}

#[test]
fn convert_takes_many_files_and_one_bad_one_does_not_stop_the_others() {
    let out = tempfile::tempdir().unwrap();
    let plain = |name: &str| fixture("documents/plain").join(name);
    let output = platen()
        .arg("convert")
        .args([plain("invoice.docx"), plain("budget.xlsx"), plain("deck.pptx")])
        .args([
            plain("invoice.fodt"),
            fixture("documents/hostile/random-bytes.docx"),
            "nowhere.docx".into(),
        ])
        .args(["--json", "--out"])
        .arg(out.path().join("made/for/us"))
        .output()
        .unwrap();
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 6);
    let line = |end: &str| {
        lines
            .iter()
            .find(|line| line["file"].as_str().unwrap().ends_with(end))
            .unwrap()
    };
    for (file, made, pages) in [
        ("invoice.docx", "invoice.pdf", 1),
        ("budget.xlsx", "budget.pdf", 2),
        ("deck.pptx", "deck.pdf", 3),
        ("invoice.fodt", "invoice-2.pdf", 1),
    ] {
        let line = line(file);
        assert_eq!(line["status"], "succeeded", "{line}");
        assert_eq!((&line["pages"], &line["error"]), (&Value::from(pages), &Value::Null));
        let pdf = Path::new(line["output"].as_str().unwrap());
        assert_eq!(pdf.file_name().unwrap(), made);
        assert_eq!(pdf_pages(pdf), pages);
        assert!(line["timings"]["convertMs"].is_u64() && line["timings"]["totalMs"].is_u64());
    }
    assert!(pdf_text(&out.path().join("made/for/us/invoice.pdf")).contains("Invoice"));
    for (file, code) in [
        ("random-bytes.docx", "source.unsupported"),
        ("nowhere.docx", "source.not_found"),
    ] {
        let line = line(file);
        assert_eq!(
            (&line["status"], &line["error"]["code"]),
            (&Value::from("failed"), &Value::from(code)),
            "{line}"
        );
        assert_eq!((&line["output"], &line["pages"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn an_option_is_given_as_text_or_json_and_a_wrong_one_is_wrong_usage() {
    let out = tempfile::tempdir().unwrap();
    let convert = |options: &[&str]| {
        let mut command = platen();
        command.arg("convert").arg(fixture("documents/plain/contract.docx"));
        command.args(options.iter().flat_map(|option| ["--option", option]));
        command.arg("--out").arg(out.path()).output().unwrap()
    };
    let output = convert(&["nativePageRanges=2", "nativeTiledWatermarkText=7", "pdfua=true"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let pdf = out.path().join("contract.pdf");
    assert_eq!(pdf_pages(&pdf), 1);
    assert!(pdf_text(&pdf).matches('7').count() > 10, "{}", pdf_text(&pdf));
    let output = convert(&["quality=best"]);
    assert_eq!(code(&output), 64);
    assert!(
        text(&output.stderr).contains("from 1 to 100"),
        "{}",
        text(&output.stderr)
    );
    // Only the document can tell that it has no such page.
    let output = convert(&["nativePageRanges=9"]);
    assert_eq!(code(&output), 1);
    assert!(
        text(&output.stderr).contains("option.invalid"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn convert_makes_other_formats_too() {
    let out = tempfile::tempdir().unwrap();
    let mut command = platen();
    command.arg("convert").arg(fixture("documents/plain/deck.pptx"));
    let output = command
        .args(["--to", "png", "--json", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let line: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    assert_eq!(line["pages"], Value::Null);
    assert_eq!(line["output"], out.path().join("deck.png").to_str().unwrap());
    let png = std::fs::read(out.path().join("deck.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
}

#[test]
fn a_flag_beats_its_variable() {
    let out = tempfile::tempdir().unwrap();
    let mut command = platen();
    command
        .arg("convert")
        .arg(fixture("documents/hostile/never-ends.ods"))
        .args(["--timeout", "1s", "--json", "--out"]);
    let output = command.arg(out.path()).env("CONVERT_TIMEOUT", "100s").output().unwrap();
    assert_eq!(code(&output), 1);
    let line: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    assert_eq!(line["error"]["code"], "document.too_complex");
    assert!(line["error"]["message"].as_str().unwrap().contains("1s"), "{line}");
}

#[test]
fn demo_prints_one_result_a_line_and_fails_when_a_file_does() {
    let out = tempfile::tempdir().unwrap();
    let files = [
        fixture("documents/plain/invoice.docx"),
        fixture("documents/plain/invoice.fodt"),
    ];
    let output = platen()
        .arg("demo")
        .args(&files)
        .arg("--out")
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let results: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), 2);
    for result in &results {
        assert_eq!(result["status"], "succeeded");
    }
    for name in ["invoice.pdf", "invoice-2.pdf"] {
        assert_eq!(pdf_pages(&out.path().join(name)), 1);
    }

    let bad = fixture("documents/hostile/zip-cut-short.docx");
    let output = platen()
        .arg("demo")
        .arg(&bad)
        .arg(&files[0])
        .arg("--out")
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert_eq!(text(&output.stdout).lines().count(), 2, "a result for every file");
    assert!(
        text(&output.stderr).contains("document.corrupt"),
        "{}",
        text(&output.stderr)
    );
}

/// Starts a command in a directory for temporary files of its own, and ends it when a conversion has begun.
fn ended_in_the_middle(
    arguments: &[&str],
    signal: nix::sys::signal::Signal,
) -> (std::process::ExitStatus, Vec<std::path::PathBuf>) {
    use crate::harness::{children, until_blocking};
    let temporary = tempfile::tempdir().unwrap();
    let mut child = platen()
        .args(arguments)
        .arg(fixture("documents/hostile/never-ends.ods"))
        .arg("--out")
        .arg(temporary.path().join("out"))
        .env("TMPDIR", temporary.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The engine has the document, under its own name, in a job's directory.
    until_blocking("a conversion has begun", || {
        let mut begun = None;
        crate::harness::walk(temporary.path(), &mut |path| {
            if path.ends_with("never-ends.ods") {
                begun = Some(());
            }
        });
        begun
    });
    let family: Vec<u32> = {
        let mut all = vec![child.id()];
        let mut at = 0;
        while at < all.len() {
            all.extend(children(all[at]));
            at += 1;
        }
        all.split_off(1)
    };
    assert!(crate::harness::signal(child.id(), signal));
    let status = child.wait().unwrap();
    until_blocking("nothing of it runs any more", || {
        family
            .iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            .then_some(())
    });
    let mut left = Vec::new();
    crate::harness::walk(temporary.path(), &mut |path| {
        if path.file_name().is_none_or(|name| name != "out") {
            left.push(path.to_owned());
        }
    });
    (status, left)
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    use nix::sys::signal::Signal;
    for command in ["convert", "demo"] {
        let (status, left) = ended_in_the_middle(&[command], Signal::SIGINT);
        assert_eq!((status.code(), left), (Some(1), Vec::new()), "{command}");
    }
}

#[test]
fn a_killed_demo_takes_its_worker_along() {
    let (status, _) = ended_in_the_middle(&["demo"], nix::sys::signal::Signal::SIGKILL);
    assert_eq!(status.code(), None);
}
