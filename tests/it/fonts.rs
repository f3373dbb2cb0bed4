//! `FONTS`: a document in a font that only that place has comes out in it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::harness::{INPUT, World, fixture, job, run};

/// A text in "Platen Test", which `fixtures/fonts` has and no system.
pub(crate) const DOCUMENT: &str = r#"<?xml version="1.0"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"
 office:version="1.3" office:mimetype="application/vnd.oasis.opendocument.text">
 <office:font-face-decls><style:font-face style:name="Platen Test" svg:font-family="'Platen Test'"/></office:font-face-decls>
 <office:automatic-styles><style:style style:name="P" style:family="paragraph">
  <style:text-properties style:font-name="Platen Test"/></style:style></office:automatic-styles>
 <office:body><office:text><text:p text:style-name="P">Boxes of our own</text:p></office:text></office:body>
</office:document>"#;

/// The names of a PDF's fonts, without the tag of a subset.
pub(crate) fn fonts_of(pdf: &Path) -> Vec<String> {
    run(Command::new("pdffonts").arg(pdf))
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.split_once('+').map_or(name, |(_, name)| name).to_owned())
        .collect()
}

fn convert(directory: &Path, fonts: &Path) -> Output {
    std::fs::write(directory.join("boxes.fodt"), DOCUMENT).unwrap();
    Command::new(env!("CARGO_BIN_EXE_platen"))
        .arg("convert")
        .arg(directory.join("boxes.fodt"))
        .arg("--out")
        .arg(directory)
        .env("FONTS", fonts)
        .env("TMPDIR", directory)
        .output()
        .unwrap()
}

#[test]
fn a_font_of_a_directory_is_used() {
    let directory = tempfile::tempdir().unwrap();
    // In a folder below, through a link, readable by its owner alone: the child of a conversion has another user.
    let folder = directory.path().join("fonts/brand");
    std::fs::create_dir_all(&folder).unwrap();
    let font = directory.path().join("elsewhere");
    std::fs::copy(fixture("fonts/platen-test.ttf"), &font).unwrap();
    std::fs::set_permissions(&font, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&font, folder.join("boxes.TTF")).unwrap();
    std::fs::write(folder.join("OFL.txt"), "no font").unwrap();

    let output = convert(directory.path(), &directory.path().join("fonts"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fonts_of(&directory.path().join("boxes.pdf")), ["PlatenTest"]);
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("platen-"))
        .collect();
    assert_eq!(left, [""; 0], "left behind");
}

#[test]
fn what_is_no_place_with_fonts_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |fonts: &Path| {
        let output = convert(directory.path(), fonts);
        assert_eq!(output.status.code(), Some(64));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let nowhere = refused(&directory.path().join("nowhere"));
    assert!(nowhere.contains("FONTS") && nowhere.contains("nowhere"), "{nowhere}");
    let none = refused(&fixture("events"));
    assert!(none.contains("has no font (ttf, otf, ttc, otc)"), "{none}");
    let folder = directory.path().join("wrong");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("page.ttf"), "<html>not found</html>").unwrap();
    let wrong = refused(&folder);
    assert!(wrong.contains("page.ttf is no font"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_font_of_a_bucket_is_used() {
    let font = std::fs::read(fixture("fonts/platen-test.ttf")).unwrap();
    // More than one page of a list comes before it; another prefix has what is no font.
    let names: Vec<String> = (0..105).map(|number| format!("fonts/{number:03}.txt")).collect();
    let mut objects: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"text"[..])).collect();
    objects.push(("fonts/zz/Brand One.ttf", &font));
    objects.push(("fontsmith/none.ttf", b"no font"));
    let fonts = format!("gs://{INPUT}/fonts/");
    let mut world = World::with_objects(&objects, &[("FONTS", &fonts)]).await;
    world.worker.ready().await;
    world.upload("boxes.fodt", DOCUMENT.into()).await;
    let answer = world
        .post(&job(&json!({"source": format!("gs://{INPUT}/boxes.fodt")})))
        .await;
    assert_eq!(answer.status(), 204);
    let output = world.result().await.data["outputs"][0].clone();
    let link = output["signedUrl"].as_str().unwrap();
    let pdf = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(pdf.path(), world.download(link).await.bytes().await.unwrap()).unwrap();
    assert_eq!(fonts_of(pdf.path()), ["PlatenTest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_fonts_does_not_start() {
    let mut world = World::with_objects(&[("fonts/a.txt", b"text")], &[("FONTS", "gs://input/fonts/")]).await;
    assert_eq!(world.worker.exit().await, Some(64));
    let log = world.worker.log();
    assert!(log.contains("gs://input/fonts/ has no font"), "{log}");
    let mut world = World::with_objects(&[], &[("FONTS", "gs://no-such-bucket/fonts/")]).await;
    assert_eq!(world.worker.exit().await, Some(1));
    let log = world.worker.log();
    assert!(
        log.contains("FONTS cannot be fetched") && log.contains("gs://no-such-bucket"),
        "{log}"
    );
}
