//! Warnings: what a person should know about an output. Documents are made here, each with one thing to warn of, and made
//! into other formats by stock LibreOffice.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fonts;
use crate::harness::{INPUT, World, fixture, job, pdf_text};

const FLAT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"
 xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" xmlns:xlink="http://www.w3.org/1999/xlink"
 xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0" xmlns:math="http://www.w3.org/1998/Math/MathML"
 xmlns:of="urn:oasis:names:tc:opendocument:xmlns:of:1.2" office:version="1.3"
 office:mimetype="application/vnd.oasis.opendocument."#;

/// A flat document: the end of its media type, what stands before its body, and its body.
fn flat(kind: &str, before: &str, body: &str) -> String {
    format!("{FLAT}{kind}\">{before}<office:body>{body}</office:body></office:document>")
}

fn text(body: &str) -> String {
    flat("text", "", &format!("<office:text>{body}</office:text>"))
}

const PLAIN_TEXT: &str = "<text:p>plain text</text:p>";
const CURRENT_DATE: &str = "<text:p>today <text:date text:date-value=\"2020-01-01\">x</text:date></text:p>";
const FIXED_DATE: &str =
    "<text:p>then <text:date text:date-value=\"2020-01-01\" text:fixed=\"true\">1.1.2020</text:date></text:p>";
const TRACKED: &str = "<text:tracked-changes><text:changed-region text:id=\"c1\"><text:insertion><office:change-info>\
    <dc:creator>A</dc:creator><dc:date>2020-01-01T00:00:00</dc:date></office:change-info></text:insertion>\
    </text:changed-region></text:tracked-changes><text:p>text <text:change-start text:change-id=\"c1\"/>inserted\
    <text:change-end text:change-id=\"c1\"/></text:p>";

fn sheets(hidden: bool, formula: &str) -> String {
    let style = if hidden { "H" } else { "S" };
    flat(
        "spreadsheet",
        "<office:automatic-styles><style:style style:name=\"S\" style:family=\"table\"/><style:style style:name=\"H\" \
         style:family=\"table\"><style:table-properties table:display=\"false\"/></style:style></office:automatic-styles>",
        &format!(
            "<office:spreadsheet><table:table table:name=\"One\" table:style-name=\"S\"><table:table-row>\
             <table:table-cell table:formula=\"of:={formula}\" office:value-type=\"float\" office:value=\"1\"/>\
             <table:table-cell office:value-type=\"string\"><text:p>=TODAY( is text</text:p></table:table-cell>\
             </table:table-row></table:table><table:table table:name=\"Two\" table:style-name=\"{style}\">\
             <table:table-row><table:table-cell office:value-type=\"string\"><text:p>second</text:p></table:table-cell>\
             </table:table-row></table:table></office:spreadsheet>"
        ),
    )
}

fn slides(hidden: bool, date: bool) -> String {
    let visibility = if hidden { "hidden" } else { "visible" };
    flat(
        "presentation",
        &format!(
            "<office:automatic-styles><style:style style:name=\"V\" style:family=\"drawing-page\">\
             <style:drawing-page-properties presentation:display-date-time=\"{date}\"/></style:style>\
             <style:style style:name=\"H\" style:family=\"drawing-page\"><style:drawing-page-properties \
             presentation:visibility=\"{visibility}\"/></style:style>\
             <style:page-layout style:name=\"L\"><style:page-layout-properties fo:page-width=\"28cm\" \
             fo:page-height=\"21cm\"/></style:page-layout></office:automatic-styles><office:master-styles>\
             <style:master-page style:name=\"M\" style:page-layout-name=\"L\"/></office:master-styles>"
        ),
        "<office:presentation><presentation:date-time-decl presentation:name=\"d\" \
         presentation:source=\"current-date\"/><draw:page draw:name=\"a\" draw:style-name=\"V\" \
         draw:master-page-name=\"M\" presentation:use-date-time-name=\"d\"/><draw:page draw:name=\"b\" \
         draw:style-name=\"H\" draw:master-page-name=\"M\"/></office:presentation>",
    )
}

/// Made into other formats by stock LibreOffice; the flat file itself is among them.
fn in_formats(directory: &Path, name: &str, content: &str, flat: &str, formats: &[&str]) -> Vec<PathBuf> {
    let source = directory.join(format!("{name}.{flat}"));
    std::fs::write(&source, content).unwrap();
    let mut files = vec![source.clone()];
    for format in formats {
        let status = Command::new("soffice")
            .arg(format!(
                "-env:UserInstallation=file://{}",
                directory.join("profile").display()
            ))
            .args(["--headless", "--convert-to", format, "--outdir"])
            .arg(directory)
            .arg(&source)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        files.push(source.with_extension(format.split(':').next().unwrap()));
    }
    files
}

/// Converts files and gives their lines of `--json`, in the order of the files.
fn convert(directory: &Path, files: &[PathBuf], arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .arg("convert")
        .args(files)
        .args(["--json", "--jobs", "2", "--out"])
        .arg(directory.join("out"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line_of = |file: &PathBuf| {
        lines
            .iter()
            .find(|line| line["file"] == file.to_string_lossy().as_ref())
    };
    files
        .iter()
        .map(|file| {
            line_of(file)
                .unwrap_or_else(|| panic!("{}: {said}", file.display()))
                .clone()
        })
        .collect()
}

/// The warnings of a line but those about fonts, which depend on the machine's, as `code: message`.
fn warnings(line: &Value) -> Vec<String> {
    assert_eq!(line["status"], "succeeded", "{line}");
    let warnings = line["warnings"].as_array().unwrap();
    warnings
        .iter()
        .map(|warning| {
            format!(
                "{}: {}",
                warning["code"].as_str().unwrap(),
                warning["message"].as_str().unwrap()
            )
        })
        .filter(|warning| !warning.starts_with("font."))
        .collect()
}

/// Every kind of document with a thing to warn of, in the formats that can hold it, and without it: no warning.
fn check(content: &str, without: &str, flat: &str, formats: &[&str], expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut files = in_formats(directory.path(), "with", content, flat, formats);
    let count = files.len();
    files.extend(in_formats(directory.path(), "without", without, flat, formats));
    for (index, line) in convert(directory.path(), &files, &[]).iter().enumerate() {
        let expected = if index < count { vec![expected] } else { vec![] };
        assert_eq!(warnings(line), expected, "{}", line["file"]);
    }
}

const DATE: &str = "date.current: the date or time of the conversion is printed";

#[test]
fn dates_of_the_conversion_in_texts() {
    let formats = ["odt", "docx", "doc:MS Word 97", "rtf"];
    check(&text(CURRENT_DATE), &text(FIXED_DATE), "fodt", &formats, DATE);
}

#[test]
fn dates_of_the_conversion_in_sheets() {
    let formats = ["ods", "xlsx", "xls:MS Excel 97"];
    check(
        &sheets(false, "1+TODAY()"),
        &sheets(false, "1+2"),
        "fods",
        &formats,
        DATE,
    );
}

#[test]
fn dates_of_the_conversion_on_slides() {
    check(&slides(false, true), &slides(false, false), "fodp", &["odp"], DATE);
}

#[test]
fn tracked_changes() {
    let formats = ["odt", "docx", "doc:MS Word 97", "rtf"];
    let expected = "change.shown: tracked changes are marked in the text";
    check(&text(TRACKED), &text(PLAIN_TEXT), "fodt", &formats, expected);
}

#[test]
fn hidden_sheets() {
    let formats = ["ods", "xlsx", "xls:MS Excel 97"];
    let expected = "sheet.hidden: 1 hidden sheet is left out";
    check(&sheets(true, "1+2"), &sheets(false, "1+2"), "fods", &formats, expected);
}

#[test]
fn hidden_slides_unless_they_are_asked_for() {
    let formats = ["odp", "pptx", "ppt"];
    let expected = "slide.hidden: 1 hidden slide is left out";
    check(&slides(true, false), &slides(false, false), "fodp", &formats, expected);
    let directory = tempfile::tempdir().unwrap();
    let files = in_formats(directory.path(), "with", &slides(true, false), "fodp", &[]);
    let shown = convert(directory.path(), &files, &["--option", "exportHiddenSlides=true"]);
    assert_eq!((warnings(&shown[0]), &shown[0]["pages"]), (vec![], &json!(2)));
}

#[test]
fn a_font_that_is_missing_is_named_with_the_one_that_stands_in() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = in_formats(
        directory.path(),
        "boxes",
        fonts::DOCUMENT,
        "fodt",
        &["odt", "docx", "doc:MS Word 97", "rtf"],
    );
    files.push(fixture("documents/plain/invoice.fodt"));
    let lines = convert(directory.path(), &files, &[]);
    let (installed, missing) = lines.split_last().unwrap();
    for line in missing {
        let warnings = line["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{line}");
        assert_eq!(warnings[0]["code"], "font.substituted");
        let message = warnings[0]["message"].as_str().unwrap();
        let used = message
            .strip_prefix("Platen Test -> ")
            .unwrap_or_else(|| panic!("{line}"));
        let embedded = fonts::fonts_of(Path::new(line["output"].as_str().unwrap()));
        assert!(
            embedded.iter().all(|name| name.starts_with(&used.replace(' ', ""))),
            "{embedded:?} {used}"
        );
    }
    assert_eq!(installed["warnings"], json!([]), "its fonts are installed");
    // Text is in no font.
    let text = convert(directory.path(), &files[..1], &["--to", "txt"]);
    assert_eq!(text[0]["warnings"], json!([]));
}

#[test]
fn with_the_font_there_is_no_warning() {
    let directory = tempfile::tempdir().unwrap();
    let document = directory.path().join("boxes.fodt");
    std::fs::write(&document, fonts::DOCUMENT).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(["convert", "--json", "--out"])
        .args([directory.path(), &document])
        .env("FONTS", fixture("fonts"))
        .output()
        .unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["warnings"], json!([]));
}

/// A word in the script of which the test font has a character, and no font of a system; behind it what needs no font.
const BOXED: &str = "<text:p>Vai \u{a500}\u{a501}, and a\u{ad}b\u{200b}c\u{a0}d\u{fe0f}</text:p>";
const EMPTY_BOXES: &str = "no font here has some of its characters, and empty boxes are drawn";

#[test]
fn characters_that_no_font_has_are_told_by_their_script() {
    let without = "<text:p>caf\u{e9} cafe\u{301} g\u{301} \u{2610} a\u{ad}b\u{200b}c\u{a0}d \u{f0b7}</text:p>";
    let expected = format!("glyph.missing: Vai: {EMPTY_BOXES}");
    check(&text(BOXED), &text(without), "fodt", &["odt", "docx"], &expected);
    // A symbol belongs to no script.
    let directory = tempfile::tempdir().unwrap();
    let symbol = text("<text:p>one \u{1fa89} two</text:p>");
    let files = in_formats(directory.path(), "symbol", &symbol, "fodt", &[]);
    let line = &convert(directory.path(), &files, &[])[0];
    assert_eq!(warnings(line), [format!("glyph.missing: U+1FA89: {EMPTY_BOXES}")]);
    // The pages of a picture and a text have no fonts of their own to read.
    for format in ["png", "txt"] {
        let line = &convert(directory.path(), &files, &["--to", format])[0];
        assert_eq!(line["warnings"], json!([]), "{format}");
    }
    // PDF/A has objects of its own, and its fonts are the same.
    let archival = convert(directory.path(), &files, &["--option", "pdfa=PDF/A-2b"]);
    assert_eq!(
        warnings(&archival[0]),
        [format!("glyph.missing: U+1FA89: {EMPTY_BOXES}")]
    );
}

#[test]
fn a_character_that_any_font_lends_is_not_missing() {
    let directory = tempfile::tempdir().unwrap();
    let lent = text("<text:p>\u{a500}</text:p>");
    let files = in_formats(directory.path(), "lent", &lent, "fodt", &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(["convert", "--json", "--out"])
        .args([directory.path(), &files[0]])
        .env("FONTS", fixture("fonts"))
        .output()
        .unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["warnings"], json!([]));
    let embedded = fonts::fonts_of(Path::new(line["output"].as_str().unwrap()));
    assert_eq!(embedded, ["PlatenTest"]);
}

#[test]
fn links_are_named_by_scheme_and_host_alone() {
    let directory = tempfile::tempdir().unwrap();
    let image = "<text:p><draw:frame svg:width=\"2cm\" svg:height=\"2cm\" text:anchor-type=\"as-char\"><draw:image \
        xlink:href=\"https://user:pass@cdn.example.com:1/secret.png?token=secret\"/></draw:frame></text:p>";
    let section = "<text:section text:name=\"s\"><text:section-source xlink:href=\"../chapters/secret.odt\"/>\
        <text:p>cached</text:p></text:section>";
    let mut files = Vec::new();
    let mut add = |name: &str, content: &str| {
        files.push(directory.path().join(name));
        std::fs::write(files.last().unwrap(), content).unwrap();
    };
    add("image.fodt", &text(&image.repeat(3)));
    add("section.fodt", &text(section));
    add(
        "page.html",
        "<html><head><link rel=\"stylesheet\" href=\"https://css.example.com/secret.css\"></head>\
         <body><p>text<br><img src=\"img/secret.png\"><a href=\"https://example.com/\">a link to follow by hand</a>",
    );
    files.push(fixture("documents/hostile/linked-image-fetches-url.docx"));
    let expected = [
        vec!["link.not_followed: image at https://cdn.example.com:1 (3 times)"],
        vec!["link.not_followed: section in a file"],
        vec![
            "link.not_followed: image in a file",
            "link.not_followed: style sheet at https://css.example.com",
        ],
        vec!["link.not_followed: image at http://127.0.0.1:49151"],
    ];
    for (line, expected) in convert(directory.path(), &files, &[]).iter().zip(expected) {
        assert_eq!(warnings(line), expected, "{}", line["file"]);
        assert!(!line["warnings"].to_string().contains("secret"), "{line}");
    }
}

#[test]
fn macros_are_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let script = "<office:scripts><office:script script:language=\"ooo:Basic\" \
        xmlns:script=\"urn:oasis:names:tc:opendocument:xmlns:script:1.0\" xmlns:ooo=\"http://openoffice.org/2004/office\">\
        <ooo:libraries><ooo:library-embedded ooo:name=\"Standard\">MODULE</ooo:library-embedded></ooo:libraries>\
        </office:script></office:scripts>";
    let module = "<ooo:module ooo:name=\"M\"><ooo:source-code>Sub Main\nEnd Sub</ooo:source-code></ooo:module>";
    let body = format!("<office:text>{PLAIN_TEXT}</office:text>");
    let with = flat("text", &script.replace("MODULE", module), &body);
    let without = flat("text", &script.replace("MODULE", ""), &body);
    let mut files = in_formats(directory.path(), "with", &with, "fodt", &["odt"]);
    let count = files.len();
    files.extend(in_formats(directory.path(), "without", &without, "fodt", &["odt"]));
    for (index, line) in convert(directory.path(), &files, &[]).iter().enumerate() {
        let expected = if index < count {
            vec!["macro.not_run: the document's macros were not run"]
        } else {
            vec![]
        };
        assert_eq!(warnings(line), expected, "{}", line["file"]);
    }
}

#[test]
fn many_warnings_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let styles: String = (0..90)
        .map(|number| {
            format!(
                "<style:style style:name=\"P{number}\" style:family=\"paragraph\"><style:text-properties \
                 fo:font-family=\"No Such Font {number} {}\"/></style:style>",
                "\u{202e}x".repeat(150)
            )
        })
        .collect();
    let paragraphs: String = (0..90)
        .map(|number| format!("<text:p text:style-name=\"P{number}\">text</text:p>"))
        .collect();
    let document = directory.path().join("fonts.fodt");
    let content = flat(
        "text",
        &format!("<office:automatic-styles>{styles}</office:automatic-styles>"),
        &format!("<office:text>{CURRENT_DATE}{paragraphs}</office:text>"),
    );
    std::fs::write(&document, content).unwrap();
    let line = convert(directory.path(), &[document], &[]).remove(0);
    let all = line["warnings"].as_array().unwrap();
    assert_eq!(all.len(), 50);
    assert_eq!(all[0]["code"], "date.current");
    assert_eq!(all[49]["code"], "warning.omitted");
    for warning in all {
        let message = warning["message"].as_str().unwrap();
        assert!(message.len() <= 200 && !message.contains('\u{202e}'), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_has_them_also_when_the_job_was_done_before() {
    let world = World::start().await;
    world.upload("boxes.fodt", fonts::DOCUMENT.into()).await;
    let request = job(&json!({"source": format!("gs://{INPUT}/boxes.fodt")}));
    let mut results = Vec::new();
    for _ in 0..2 {
        assert_eq!(world.post(&request).await.status(), 204);
        results.push(world.result().await.data["outputs"][0].clone());
    }
    assert_eq!(
        results[0]["generation"], results[1]["generation"],
        "it was converted again"
    );
    for result in results {
        let warning = &result["warnings"][0];
        assert_eq!(warning["code"], "font.substituted");
        assert!(
            warning["message"].as_str().unwrap().starts_with("Platen Test -> "),
            "{warning}"
        );
    }
    // What a document says is never in the log.
    assert!(!world.worker.log().contains("Platen Test"), "{}", world.worker.log());
}

/// Equations are objects of another program's to the formats that hold them.
#[test]
fn equations_are_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let object = "<draw:object><math:math><math:semantics><math:mfrac><math:mi>numerator</math:mi>\
        <math:mi>denominator</math:mi></math:mfrac></math:semantics></math:math></draw:object>";
    let frame = format!(
        "<draw:frame svg:x=\"1cm\" svg:y=\"1cm\" svg:width=\"4cm\" svg:height=\"2cm\" ANCHOR>{object}</draw:frame>"
    );
    let in_text = frame.replace("ANCHOR", "text:anchor-type=\"as-char\"");
    let content = text(&format!("<text:p>before {in_text} after</text:p>"));
    let mut files = in_formats(directory.path(), "text", &content, "fodt", &["odt", "docx"]);
    files.push(fixture("documents/plain/equation.docx"));
    let on_a_slide = flat(
        "presentation",
        "<office:automatic-styles><style:page-layout style:name=\"L\"><style:page-layout-properties \
         fo:page-width=\"28cm\" fo:page-height=\"21cm\"/></style:page-layout></office:automatic-styles>\
         <office:master-styles><style:master-page style:name=\"M\" style:page-layout-name=\"L\"/></office:master-styles>",
        &format!(
            "<office:presentation><draw:page draw:name=\"a\" draw:master-page-name=\"M\">{}</draw:page>\
             </office:presentation>",
            frame.replace("ANCHOR", "")
        ),
    );
    files.extend(in_formats(
        directory.path(),
        "slide",
        &on_a_slide,
        "fodp",
        &["odp", "pptx"],
    ));
    for line in convert(directory.path(), &files, &[]) {
        let text = pdf_text(Path::new(line["output"].as_str().unwrap_or_default()));
        for part in ["numerator", "denominator"] {
            assert!(text.contains(part), "{}: {text}", line["file"]);
        }
    }
}
