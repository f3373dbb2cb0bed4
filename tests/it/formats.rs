//! Every format that is read, through `platen convert`: what the page shows is what the document says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{fixture, pdf_pages, pdf_text};

/// Converts all in one go; each must succeed.
fn convert(files: &[impl AsRef<Path>], out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .arg("convert")
        .args(files.iter().map(AsRef::as_ref))
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn old_and_rare_formats_come_out_with_their_text() {
    const SHEET: &str = "Platen 42.5";
    let documents = [
        ("old.sxw", "Written for Platen"),
        ("old.stw", "Written for Platen"),
        ("old.sxg", "Written for Platen"),
        ("old.sxc", "Platen 42"),
        ("old.stc", "Platen 42"),
        ("old.sxi", "Written for Platen"),
        ("old.sxd", "Written for Platen"),
        ("master.odm", "Written as a master"),
        ("master.otm", "Written as a master"),
        ("master.oth", "Written as a master"),
        ("memo.602", "Written for Platen"),
        ("memo.abw", "Written for Platen"),
        ("memo.zabw", "Written for Platen"),
        ("memo.pdb", "Written for Platen"),
        ("book.fb2", "Written for Platen"),
        ("talk.uop", "Written for Platen"),
        ("note.docbook.xml", "Reading room"),
        ("note.word-2003.xml", "Reading room"),
        ("budget.excel-2003.xml", "Month Income Costs"),
        ("budget.uos", "Month Income Costs"),
        ("budget.dif", "Month Income Costs"),
        ("budget.slk", "Month Income Costs"),
        ("budget.xlsm", "Month Income Costs"),
        ("stock.wk1", SHEET),
        ("stock.dbf", SHEET),
        ("stock4.xls", SHEET),
        ("plan.vdx", "Platen"),
        ("formula.mml", "c2"),
        ("formula.odf", "formula"),
        ("invoice.docm", "Invoice 2026-0117"),
        ("deck.pptm", "From shelf to screen"),
        ("drawing.otg", "Scanner"),
        ("drawing.svg", "Scanner"),
        ("drawing.svgz", "Scanner"),
        ("drawing.emf", "Scanner"),
        ("drawing.emz", "Scanner"),
        ("drawing.wmf", "Scanner"),
        ("drawing.wmz", "Scanner"),
        ("drawing.svm", "Scanner"),
    ];
    let sources = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let files = documents.map(|(name, _)| {
        let (_, extension) = name.rsplit_once('.').unwrap();
        let copy = sources.path().join(format!("{}.{extension}", name.replace('.', "-")));
        fs::copy(fixture("documents/plain").join(name), &copy).unwrap();
        copy
    });
    convert(&files, out.path());
    for (name, wanted) in documents {
        let pdf = out.path().join(name.replace('.', "-")).with_extension("pdf");
        let text = pdf_text(&pdf).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(wanted), "{name}: {text}");
    }
}

#[test]
fn pictures_come_out_as_one_page_with_the_picture_on_it() {
    const EXTENSIONS: [&str; 18] = [
        "png", "jpg", "gif", "bmp", "tif", "webp", "pbm", "pgm", "ppm", "xbm", "xpm", "ras", "pcx", "tga", "psd",
        "pct", "dxf", "svm",
    ];
    let sources = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let files = EXTENSIONS.map(|extension| {
        let stem = if matches!(extension, "webp" | "svm") {
            "drawing"
        } else {
            "emblem"
        };
        let copy = sources.path().join(format!("{extension}.{extension}"));
        fs::copy(fixture("documents/plain").join(format!("{stem}.{extension}")), &copy).unwrap();
        copy
    });
    convert(&files, out.path());
    for extension in EXTENSIONS {
        let pdf = out.path().join(format!("{extension}.pdf"));
        assert_eq!(pdf_pages(&pdf), 1, "{extension}");
        assert!(has_ink(&pdf), "{extension}: the page is empty");
    }
}

/// Whether anything is drawn on the first page.
fn has_ink(pdf: &Path) -> bool {
    let output = Command::new("pdftoppm")
        .args(["-r", "30", "-gray", "-singlefile"])
        .arg(pdf)
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout.iter().skip(32).any(|&gray| gray < 200)
}

#[test]
fn values_are_split_whatever_separates_them_in_whatever_character_set() {
    let utf_16 = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(order)
            .collect()
    };
    let tables: [(&str, Vec<u8>); 11] = [
        ("comma.csv", "Vare,Pris\nRød grød,\"1,5\"\n".into()),
        ("semicolon.csv", "Vare;Pris\nRød grød;1,5\n".into()),
        ("semicolon-first-a-number.csv", "Rød grød;1,5\nVare;Pris\n".into()),
        ("tab.csv", "Vare\tPris\nRød grød\t1,5\n".into()),
        ("tab-named.tsv", "Vare\tPris\nRød grød\t1,5\n".into()),
        ("pipe.csv", "Vare|Pris\r\nRød grød|1,5\r\n".into()),
        ("said.csv", "sep=|\nVare|Pris\nRød grød|1,5\n".into()),
        ("marked-utf-8.csv", "\u{feff}Vare;Pris\nRød grød;1,5\n".into()),
        ("windows-1252.csv", b"Vare;Pris\nR\xf8d gr\xf8d;1,5\n".to_vec()),
        ("utf-16.csv", utf_16("Vare;Pris\nRød grød;1,5\n", u16::to_le_bytes)),
        (
            "utf-16-big-endian.csv",
            utf_16("Vare;Pris\nRød grød;1,5\n", u16::to_be_bytes),
        ),
    ];
    let sources = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let files: Vec<_> = tables
        .iter()
        .map(|(name, bytes)| {
            let file = sources.path().join(name);
            fs::write(&file, bytes).unwrap();
            file
        })
        .collect();
    convert(&files, out.path());
    for (name, _) in tables {
        let pdf = out.path().join(name).with_extension("pdf");
        let text = pdf_text(&pdf);
        assert!(text.contains("Rød grød"), "{name}: {text}");
        for separator in [';', '|', '='] {
            assert!(!text.contains(separator), "{name}: {text}");
        }
        // What is in one column begins at one place, whatever stands before it.
        let columns = [["Vare", "Rød"], ["Pris", "1,5"]].map(|words| words.map(|word| left_of(&pdf, word)));
        for [one, other] in columns {
            assert!((one - other).abs() < 0.5, "{name}: {columns:?} {text}");
        }
    }
}

/// Where a word begins, in points from the left.
fn left_of(pdf: &Path, word: &str) -> f64 {
    let output = Command::new("pdftotext")
        .arg("-bbox")
        .arg(pdf)
        .arg("-")
        .output()
        .unwrap();
    let boxes = String::from_utf8(output.stdout).unwrap();
    let line = boxes
        .lines()
        .find(|line| line.contains(&format!(">{word}<")))
        .unwrap_or_else(|| panic!("{}: no word {word}", pdf.display()));
    let (_, rest) = line.split_once("xMin=\"").unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}
