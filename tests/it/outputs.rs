//! Formats other than PDF, as jobs ask for them: several outputs of one load.

use serde_json::{Value, json};

use crate::harness::World;
use crate::options::{documents, post};

/// Asks for formats of a document and gives the outputs' entries with their bytes.
async fn convert(world: &World, object: &str, document: Vec<u8>, formats: &[&str]) -> Vec<(Value, Vec<u8>)> {
    world.upload(object, document).await;
    let asked: Vec<Value> = formats.iter().map(|format| json!({"format": format})).collect();
    let result = post(world, object, asked.into()).await;
    assert_eq!(result["status"], "succeeded", "{result}");
    let mut outputs = Vec::new();
    for output in result["outputs"].as_array().unwrap() {
        let answer = world.download(output["signedUrl"].as_str().unwrap()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.headers()["content-type"],
            output["contentType"].as_str().unwrap()
        );
        outputs.push((output.clone(), answer.bytes().await.unwrap().to_vec()));
    }
    assert_eq!(outputs.len(), formats.len());
    outputs
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_load_makes_every_format_of_a_text() {
    let world = World::start().await;
    let formats = ["pdf", "png", "jpg", "txt", "html"];
    let outputs = convert(&world, "a/report.fodt", documents::report(), &formats).await;
    for ((output, _), (format, content_type)) in outputs.iter().zip(formats.iter().zip([
        "application/pdf",
        "image/png",
        "image/jpeg",
        "text/plain; charset=utf-8",
        "text/html; charset=utf-8",
    ])) {
        assert_eq!(output["format"], *format);
        assert_eq!(output["contentType"], content_type);
        assert_eq!(output["name"], format!("a/report.{format}"));
        assert_eq!(output["pages"], if *format == "pdf" { json!(5) } else { Value::Null });
    }
    let [_, png, jpg, txt, html] = outputs.try_into().unwrap();
    // Width and height of an A4 page at 96 dots an inch, where a PNG has them.
    assert_eq!(&png.1[16..24], [0, 0, 3, 27, 0, 0, 4, 100]);
    assert!(jpg.1.starts_with(b"\xff\xd8\xff") && jpg.1.ends_with(b"\xff\xd9"));
    let txt = text(&txt.1);
    assert!(
        txt.starts_with("\u{feff}Alpha heading") && txt.contains("Very last page"),
        "{txt}"
    );
    let html = text(&html.1);
    assert!(html.contains("<title>The title of it</title>") && html.contains("Very last page"));
    assert_eq!(html.matches("<img ").count(), html.matches("src=\"data:image/").count());
    assert!(html.contains("<img "), "the photograph is in it");
    assert!(
        html.contains("\"../other/minutes.odt\"") && !html.contains("platen"),
        "no path of the worker is in it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_of_the_first_page() {
    let world = World::start().await;
    let image = async |object: &str, from: &str, to: &str| {
        let document = text(&documents::report()).replace(from, to).into_bytes();
        convert(&world, object, document, &["png"]).await.remove(0).1
    };
    let original = image("original.fodt", "", "").await;
    assert!(image("second.fodt", "Second page", "Another page").await == original);
    assert!(image("first.fodt", "First page", "Another page").await != original);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_have_the_formats_that_libreoffice_makes_of_them() {
    let world = World::start().await;
    let outputs = convert(&world, "sheets.fods", documents::sheets(), &["png", "html", "pdf"]).await;
    assert!(outputs[0].1.starts_with(b"\x89PNG"));
    assert!(text(&outputs[1].1).contains("<table") && text(&outputs[1].1).contains("short"));
    assert_eq!(outputs[2].0["pages"], 4);
    let outputs = convert(&world, "deck.fodp", documents::deck(), &["jpg", "png"]).await;
    assert!(outputs[0].1.starts_with(b"\xff\xd8\xff"));
    let drawing = std::fs::read(crate::harness::fixture("documents/plain/drawing.odg")).unwrap();
    convert(&world, "drawing.odg", drawing, &["png", "jpg"]).await;
    let page = std::fs::read(crate::harness::fixture("documents/plain/page.html")).unwrap();
    let outputs = convert(&world, "page.html", page, &["txt", "html"]).await;
    assert!(text(&outputs[0].1).contains("Reading room"));
    assert!(text(&outputs[1].1).contains("Reading room"));

    for (object, format) in [
        ("deck.fodp", "txt"),
        ("deck.fodp", "html"),
        ("sheets.fods", "txt"),
        ("drawing.odg", "html"),
        ("deck.fodp", "docx"),
    ] {
        let result = post(&world, object, json!([{"format": "pdf"}, {"format": format}])).await;
        assert_eq!(result["error"]["code"], "option.invalid", "{object} {format}: {result}");
        assert!(
            result["error"]["message"].as_str().unwrap().contains(format),
            "{result}"
        );
    }
    for options in [json!({"quality": 50}), json!({"page": 0}), json!({"width": 15})] {
        let result = post(&world, "deck.fodp", json!([{"format": "png", "options": options}])).await;
        assert_eq!(result["error"]["code"], "option.invalid", "{options}: {result}");
    }
}

/// Makes formats of one load and reads each back by converting it to PDF.
async fn round_trips(world: &World, object: &str, document: Vec<u8>, formats: &[&str], text: &str) {
    let outputs = convert(world, object, document, formats).await;
    let directory = tempfile::tempdir().unwrap();
    for ((_, bytes), format) in outputs.into_iter().zip(formats) {
        let again = format!("again-{format}/{object}.{format}");
        let pdf = directory.path().join(format);
        let bytes = convert(world, &again, bytes, &["pdf"]).await.remove(0).1;
        std::fs::write(&pdf, bytes).unwrap();
        let read = crate::harness::pdf_text(&pdf);
        assert!(read.contains(text), "{format} of {object} says: {read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_of_texts_and_web_pages_is_what_it_says() {
    let world = World::start().await;
    let texts = [
        "docx", "dotx", "doc", "dot", "rtf", "odt", "ott", "fodt", "xhtml", "html", "txt",
    ];
    round_trips(&world, "report", documents::report(), &texts, "Very last page").await;
    let page = std::fs::read(crate::harness::fixture("documents/plain/page.html")).unwrap();
    // What LibreOffice makes of no web page is made of it as a text, beside what it makes of one.
    round_trips(
        &world,
        "page.html",
        page.clone(),
        &["odt", "docx", "html", "rtf"],
        "Reading room",
    )
    .await;
    let made = convert(&world, "page.html", page, &["pdf", "epub", "png", "webp"]).await;
    assert!(
        made[1].1[..80]
            .windows(20)
            .any(|window| window == b"application/epub+zip")
    );
    assert!(made[2].1.starts_with(b"\x89PNG") && made[3].1[8..].starts_with(b"WEBP"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_of_sheets_is_what_it_says() {
    let world = World::start().await;
    let all_sheets = ["xlsx", "xltx", "xls", "xlt", "ods", "ots", "fods"];
    round_trips(&world, "sheets", documents::sheets(), &all_sheets, "short").await;
    let one_sheet = ["csv", "tsv", "dif", "slk", "dbf"];
    round_trips(&world, "sheets", documents::sheets(), &one_sheet, "149").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_of_slides_drawings_and_formulas_is_what_it_says() {
    let world = World::start().await;
    let slides = ["pptx", "potx", "ppt", "pps", "pot", "odp", "otp", "fodp"];
    round_trips(&world, "deck", documents::deck(), &slides, "Slide number 3").await;
    let drawing = std::fs::read(crate::harness::fixture("documents/plain/drawing.odg")).unwrap();
    let pictures = ["svg", "gif", "bmp", "tif", "emf", "wmf", "webp", "eps"];
    let outputs = convert(&world, "drawing", drawing.clone(), &pictures).await;
    let marks: [&[u8]; 8] = [
        b"<?xml",
        b"GIF8",
        b"BM",
        b"MM\0*",
        b"\x01\0\0\0",
        b"\xd7\xcd\xc6\x9a",
        b"RIFF",
        b"%!PS",
    ];
    for ((_, bytes), mark) in outputs.iter().zip(marks) {
        assert!(bytes.starts_with(mark), "{:?}", &bytes[..8]);
    }
    round_trips(&world, "drawing", drawing, &["odg", "otg", "fodg"], "").await;
    let formula = std::fs::read(crate::harness::fixture("documents/plain/formula.odf")).unwrap();
    round_trips(&world, "formula", formula, &["odf", "mml"], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_there_is_not_is_told_those_that_there_are() {
    let world = World::start().await;
    world.upload("deck.fodp", documents::deck()).await;
    for (format, parts) in [("gifv", ["pptx", "epub"]), ("docx", ["pptx", "a presentation"])] {
        let result = post(&world, "deck.fodp", json!([{"format": format}])).await;
        assert_eq!(result["error"]["code"], "option.invalid", "{result}");
        let message = result["error"]["message"].as_str().unwrap();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(result["error"]["detail"]["allowed"].as_array().unwrap().len() > 10);
    }
}
