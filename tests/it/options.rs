//! Every option, read back from the PDF that a job with it makes. One document is loaded once for all its outputs.

pub(crate) mod documents;

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{INPUT, World, job, pdf_pages, pdf_text, run};

/// The outputs of one job, downloaded through their links.
struct Outputs(tempfile::TempDir);

/// One of them.
struct Pdf(PathBuf);

impl Outputs {
    fn pdf(&self, name: &str) -> Pdf {
        Pdf(self.0.path().join(name))
    }
}

impl Pdf {
    /// The values of all its objects; a stream's is its dictionary.
    fn objects(&self) -> Vec<Value> {
        let text = run(Command::new("qpdf").arg("--json=2").arg(&self.0));
        let json: Value = serde_json::from_str(&text).unwrap();
        let objects = json["qpdf"][1].as_object().unwrap();
        objects
            .values()
            .map(|object| object.get("value").unwrap_or(&object["stream"]["dict"]).clone())
            .collect()
    }

    fn catalog(&self) -> Value {
        let mut objects = self.objects().into_iter();
        objects.find(|object| object["/Type"] == "/Catalog").unwrap()
    }

    /// How many objects have this value under this key.
    fn count(&self, key: &str, value: &str) -> usize {
        self.objects().iter().filter(|object| object[key] == value).count()
    }

    /// The values under a key, wherever it stands, sorted.
    fn all(&self, key: &str) -> Vec<Value> {
        let mut found: Vec<Value> = self
            .objects()
            .iter()
            .filter_map(|object| object.get(key).cloned())
            .collect();
        found.sort_by_key(ToString::to_string);
        found
    }

    /// Width and encoding of its only image.
    fn image(&self) -> (u32, String) {
        let list = run(Command::new("pdfimages").arg("-list").arg(&self.0));
        let images: Vec<&str> = list.lines().skip(2).collect();
        assert_eq!(images.len(), 1, "{list}");
        let columns: Vec<&str> = images[0].split_whitespace().collect();
        (columns[3].parse().unwrap(), columns[8].to_owned())
    }

    /// Uncompressed, without what differs from one run to the next.
    fn plain_text(&self) -> String {
        let qdf = self.0.with_extension("qdf");
        run(Command::new("qpdf")
            .args(["--qdf", "--object-streams=disable", "--static-id"])
            .arg(&self.0)
            .arg(&qdf));
        let bytes = std::fs::read(qdf).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let changing = ["/CreationDate", "/DocChecksum", "Date>", "  /ID"];
        let lines = text
            .lines()
            .filter(|line| !changing.iter().any(|part| line.contains(part)));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.0).unwrap().len()
    }

    fn text(&self) -> String {
        pdf_text(&self.0)
    }

    fn pages(&self) -> u32 {
        pdf_pages(&self.0)
    }

    fn info(&self) -> String {
        run(Command::new("pdfinfo").arg(&self.0))
    }

    fn attachments(&self) -> String {
        run(Command::new("pdfdetach").arg("-list").arg(&self.0))
    }
}

/// Posts a job and gives its result.
pub(crate) async fn post(world: &World, object: &str, outputs: Value) -> Value {
    let source = format!("gs://{INPUT}/{object}");
    let answer = world.post(&job(&json!({"source": source, "outputs": outputs}))).await;
    assert_eq!(answer.status(), 204);
    world.result().await.data
}

async fn convert(world: &World, object: &str, document: Vec<u8>, outputs: &[(&str, Value)]) -> Outputs {
    world.upload(object, document).await;
    let asked: Vec<Value> = outputs
        .iter()
        .map(|(name, options)| json!({"format": "pdf", "name": format!("{object}/{name}"), "options": options}))
        .collect();
    let result = post(world, object, asked.into()).await;
    assert_eq!(result["status"], "succeeded", "{result}");
    let directory = tempfile::tempdir().unwrap();
    let made = result["outputs"].as_array().unwrap();
    assert_eq!(made.len(), outputs.len());
    for ((name, _), output) in outputs.iter().zip(made) {
        assert_eq!(output["name"], format!("{object}/{name}"));
        let answer = world.download(output["signedUrl"].as_str().unwrap()).await;
        let pdf = directory.path().join(name);
        std::fs::write(&pdf, answer.bytes().await.unwrap()).unwrap();
        assert_eq!(output["pages"], pdf_pages(&pdf), "{name}");
    }
    Outputs(directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_texts_reach_the_pdf() {
    let world = World::start().await;
    let outputs = convert(
        &world,
        "report.fodt",
        documents::report(),
        &[
            ("plain", json!({})),
            ("as-deep-as-it-goes", json!({"openBookmarkLevels": 10})),
            ("pages", json!({"nativePageRanges": "1, 3-"})),
            ("all-pages", json!({"skipEmptyPages": false})),
            ("form", json!({"exportFormFields": true})),
            (
                "same-names",
                json!({"exportFormFields": true, "allowDuplicateFieldNames": true}),
            ),
            ("no-bookmarks", json!({"exportBookmarks": false})),
            ("destinations", json!({"exportBookmarksToPdfDestination": true})),
            ("placeholders", json!({"exportPlaceholders": true})),
            ("comments", json!({"exportNotes": true})),
            ("margin", json!({"exportNotesInMargin": true})),
            ("pdf-links", json!({"convertOooTargetToPdfTarget": true})),
            ("absolute-links", json!({"exportLinksRelativeFsys": false})),
            ("original", json!({"addOriginalDocumentAsStream": true})),
            ("levels", json!({"openBookmarkLevels": 1})),
        ],
    )
    .await;
    let plain = outputs.pdf("plain");
    assert!(plain.text().contains("Very last page"));

    // What stock LibreOffice does without any option is what it does for those that are not named.
    assert_eq!(outputs.pdf("as-deep-as-it-goes").plain_text(), plain.plain_text());

    assert_eq!(plain.pages(), 5);
    let some = outputs.pdf("pages");
    assert_eq!(some.pages(), 4);
    assert!(some.text().contains("Third page") && !some.text().contains("Second page"));
    assert_eq!(outputs.pdf("all-pages").pages(), 7);

    assert_eq!(plain.count("/FT", "/Tx"), 0);
    assert_eq!(plain.count("/Subtype", "/Widget"), 0);
    let names = |pdf: &str| {
        let mut names = outputs.pdf(pdf).all("/T");
        names.retain(|name| name.as_str().is_some_and(|name| name.contains("field")));
        names
    };
    assert_eq!(names("form"), [json!("u:field"), json!("u:field_2")]);
    assert_eq!(names("same-names"), [json!("u:field"), json!("u:field")]);

    assert!(plain.catalog().get("/Outlines").is_some());
    assert!(outputs.pdf("no-bookmarks").catalog().get("/Outlines").is_none());
    assert!(plain.catalog().get("/Dests").is_none());
    let destinations = outputs.pdf("destinations");
    assert!(destinations.catalog().get("/Dests").is_some());
    assert_eq!(destinations.all("/the5Ftarget").len(), 1);
    // A closed level has a negative count of what is below it.
    assert_eq!(plain.all("/Count"), outputs.pdf("as-deep-as-it-goes").all("/Count"));
    let negative = |pdf: &Pdf| {
        pdf.all("/Count")
            .iter()
            .filter(|count| count.as_i64() < Some(0))
            .count()
    };
    assert_eq!((negative(&plain), negative(&outputs.pdf("levels"))), (0, 2));

    let has = |pdf: &str, part: &str| outputs.pdf(pdf).text().to_lowercase().contains(part);
    assert!(has("placeholders", "fill me in") && !has("plain", "fill me in"));

    assert_eq!(
        (
            plain.count("/Subtype", "/Text"),
            outputs.pdf("comments").count("/Subtype", "/Text")
        ),
        (0, 1)
    );
    assert!(!has("comments", "a remark in the margin"), "it is a note, not text");
    assert!(has("margin", "a remark in the margin"));

    let links = |pdf: &Pdf| {
        let actions = pdf
            .objects()
            .into_iter()
            .filter_map(|object| Some(object["/A"]["/URI"].as_str()?.to_owned()));
        actions.collect::<Vec<_>>()
    };
    assert_eq!(links(&plain)[0], "u:../other/minutes.odt");
    assert_eq!(links(&outputs.pdf("pdf-links"))[0], "u:../other/minutes.pdf");
    assert!(links(&plain)[1].starts_with("u:../"), "{:?}", links(&plain));
    assert_eq!(
        links(&outputs.pdf("absolute-links"))[1],
        "u:file:///srv/archive/notes.txt"
    );

    assert!(plain.attachments().starts_with("0 embedded files"));
    assert!(outputs.pdf("original").attachments().contains("Original.odt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_viewers_images_and_standards_reach_the_pdf() {
    let world = World::start().await;
    let window = json!({
        "initialView": 0, "resizeWindowToInitialPage": true, "centerWindow": true, "openInFullScreenMode": true,
        "displayPDFDocumentTitle": false, "hideViewerMenubar": true, "hideViewerToolbar": true,
        "hideViewerWindowControls": true,
    });
    let mark = json!({
        "nativeWatermarkText": "X", "nativeWatermarkColor": 0x00ff_0000, "nativeWatermarkFontHeight": 30,
        "nativeWatermarkRotateAngle": 450, "nativeWatermarkFontName": "Liberation Mono",
    });
    let outputs = convert(
        &world,
        "report.fodt",
        documents::report(),
        &[
            ("plain", json!({})),
            ("window", window),
            (
                "thumbnails",
                json!({"initialView": 2, "initialPage": 2, "magnification": 4, "zoom": 75}),
            ),
            ("width", json!({"magnification": 2, "pageLayout": 3})),
            ("book", json!({"firstPageOnLeft": true, "pageLayout": 3})),
            ("lossless", json!({"losslessImageCompression": true})),
            ("quality", json!({"quality": 10})),
            ("full", json!({"reduceImageResolution": false})),
            ("75", json!({"maxImageResolution": 75})),
            ("default-mark", json!({"nativeWatermarkText": "X"})),
            ("mark", mark),
            ("tiled", json!({"nativeTiledWatermarkText": "DRAFT"})),
            ("a1", json!({"pdfa": "PDF/A-1b"})),
            ("a2", json!({"pdfa": "PDF/A-2b"})),
            ("a3", json!({"pdfa": "PDF/A-3b", "addOriginalDocumentAsStream": true})),
            ("ua", json!({"pdfua": true})),
        ],
    )
    .await;
    let plain = outputs.pdf("plain");
    let first_page = &plain.catalog()["/OpenAction"][0];

    assert_eq!(plain.catalog()["/PageMode"], "/UseOutlines");
    assert_eq!(plain.catalog()["/ViewerPreferences"], json!({"/DisplayDocTitle": true}));
    let window = outputs.pdf("window").catalog();
    assert_eq!(window["/PageMode"], "/FullScreen");
    assert_eq!(
        window["/ViewerPreferences"],
        json!({
            "/CenterWindow": true, "/FitWindow": true, "/HideMenubar": true, "/HideToolbar": true,
            "/HideWindowUI": true, "/NonFullScreenPageMode": "/UseNone",
        })
    );
    let thumbnails = outputs.pdf("thumbnails").catalog();
    assert_eq!(thumbnails["/PageMode"], "/UseThumbs");
    assert_eq!(thumbnails["/OpenAction"][4], 0.75);
    assert_ne!(&thumbnails["/OpenAction"][0], first_page);
    let width = outputs.pdf("width").catalog();
    assert_eq!(
        (&width["/OpenAction"][0], &width["/OpenAction"][1]),
        (first_page, &json!("/FitH"))
    );
    assert_eq!(width["/PageLayout"], "/TwoColumnRight");
    let book = outputs.pdf("book");
    assert_eq!(book.catalog()["/PageLayout"], "/TwoColumnLeft");
    run(Command::new("qpdf").arg("--check").arg(&book.0));

    assert_eq!(plain.image(), (472, "jpeg".to_owned()), "300 dots an inch");
    assert_eq!(outputs.pdf("lossless").image(), (472, "image".to_owned()));
    assert_eq!(outputs.pdf("full").image(), (documents::PICTURE, "jpeg".to_owned()));
    assert_eq!(outputs.pdf("75").image(), (118, "jpeg".to_owned()));
    assert_eq!(outputs.pdf("quality").image(), plain.image());
    assert!(outputs.pdf("quality").size() + 10_000 < plain.size());

    let is_light_green = |pdf: &str| outputs.pdf(pdf).plain_text().contains("q 0.49803");
    assert!(is_light_green("default-mark") && !is_light_green("plain"));
    let mark = outputs.pdf("mark");
    let drawn = mark.plain_text();
    assert!(
        drawn.contains("q 1 0 0 rg\nBT\n0.7071067811 0.7071067811 -0.7071067811 0.7071067811"),
        "colour, angle"
    );
    assert!(drawn.contains(" 30 Tf"), "height");
    let fonts = |pdf: &Pdf| run(Command::new("pdffonts").arg(&pdf.0));
    assert!(fonts(&mark).contains("LiberationMono") && !fonts(&plain).contains("LiberationMono"));
    let letters = |pdf: &Pdf| pdf.text().matches(['A', 'F', 'T']).count();
    assert!(letters(&outputs.pdf("tiled")) > letters(&plain) + 30);

    assert!(plain.info().contains("PDF version:     1.7"));
    assert!(outputs.pdf("a1").info().contains("PDF version:     1.4"));
    for (pdf, part) in [("a1", "1"), ("a2", "2"), ("a3", "3")] {
        let text = outputs.pdf(pdf).plain_text();
        assert!(text.contains(&format!("<pdfaid:part>{part}</pdfaid:part>")), "{pdf}");
        assert!(text.contains("<pdfaid:conformance>B</pdfaid:conformance>"), "{pdf}");
        assert_eq!(outputs.pdf(pdf).all("/OutputIntents").len(), 1, "{pdf}");
    }
    assert!(outputs.pdf("a3").attachments().contains("Original.odt"));
    assert!(
        outputs
            .pdf("ua")
            .plain_text()
            .contains("<pdfuaid:part>1</pdfuaid:part>")
    );
    assert!(!plain.plain_text().contains("pdfaid:part") && !plain.plain_text().contains("pdfuaid:part"));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_slides_and_sheets_reach_the_pdf() {
    let world = World::start().await;
    let slides = convert(
        &world,
        "deck.fodp",
        documents::deck(),
        &[
            ("plain", json!({})),
            ("hidden", json!({"exportHiddenSlides": true})),
            ("notes", json!({"exportNotesPages": true})),
            (
                "only-notes",
                json!({"exportNotesPages": true, "exportOnlyNotesPages": true}),
            ),
            ("still", json!({"useTransitionEffects": false})),
        ],
    )
    .await;
    let plain = slides.pdf("plain");
    assert_eq!((plain.pages(), slides.pdf("hidden").pages()), (2, 3));
    assert!(slides.pdf("hidden").text().contains("number 2") && !plain.text().contains("number 2"));
    assert_eq!((slides.pdf("notes").pages(), slides.pdf("only-notes").pages()), (4, 2));
    assert!(slides.pdf("only-notes").text().contains("Notes of 3") && !plain.text().contains("Notes of 3"));
    assert_eq!(
        (plain.all("/Trans").len(), slides.pdf("still").all("/Trans").len()),
        (2, 0)
    );

    let sheets = convert(
        &world,
        "sheets.fods",
        documents::sheets(),
        &[("plain", json!({})), ("single", json!({"singlePageSheets": true}))],
    )
    .await;
    assert_eq!((sheets.pdf("plain").pages(), sheets.pdf("single").pages()), (4, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_option_is_reported() {
    let world = World::start().await;
    let failed = async |options: Value| {
        let result = post(&world, "sheets.fods", json!([{"format": "pdf", "options": options}])).await;
        assert_eq!(result["status"], "failed", "{result}");
        assert_eq!(result["error"]["code"], "option.invalid", "{result}");
        result["error"].clone()
    };
    let error = failed(json!({"portrait": true})).await;
    assert_eq!(error["detail"]["option"], "portrait");
    // Every option that there is has its place in one of these files.
    let tests = [
        include_str!("options.rs"),
        include_str!("setup.rs"),
        include_str!("passwords.rs"),
    ]
    .concat();
    for option in error["detail"]["allowed"].as_array().unwrap() {
        // In a job, or on the command line.
        let argument = format!("{}=", option.to_string().trim_end_matches('"'));
        assert!(
            tests.contains(&format!("{option}: ")) || tests.contains(&argument),
            "{option} is not tested"
        );
    }
    let error = failed(json!({"quality": 0})).await;
    assert!(error["message"].as_str().unwrap().contains("from 1 to 100"), "{error}");

    // Whether a document has a page shows when it is laid out.
    world.upload("sheets.fods", documents::sheets()).await;
    let error = failed(json!({"nativePageRanges": "5-"})).await;
    assert!(
        error["message"].as_str().unwrap().contains("none of the pages"),
        "{error}"
    );
    assert_eq!(world.outputs().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_is_no_option_and_another_value_is_another_job() {
    let world = World::start().await;
    world.upload("sheets.fods", documents::sheets()).await;
    let outputs = |options: Value| json!([{"format": "pdf", "options": options}]);
    let plain = post(&world, "sheets.fods", outputs(json!({}))).await;
    let default = post(&world, "sheets.fods", outputs(json!({"quality": 90, "pdfua": false}))).await;
    assert_eq!(default["jobId"], plain["jobId"]);
    assert_eq!(
        default["outputs"][0]["generation"], plain["outputs"][0]["generation"],
        "found, not made again"
    );
    let other = post(&world, "sheets.fods", outputs(json!({"singlePageSheets": true}))).await;
    assert_ne!(other["jobId"], plain["jobId"]);
    assert_eq!(
        (&plain["outputs"][0]["pages"], &other["outputs"][0]["pages"]),
        (&json!(4), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_have_as_many_options_as_there_are() {
    let world = World::start().await;
    world.upload_fixture("documents/plain/readme.txt", "readme.txt").await;
    let mut options = json!({
        "nativePageRanges": format!("1{}", ",1".repeat(99)), "skipEmptyPages": false,
        "exportFormFields": true, "allowDuplicateFieldNames": true, "exportBookmarksToPdfDestination": true,
        "exportPlaceholders": true, "exportNotes": true,
        "exportNotesInMargin": true, "convertOooTargetToPdfTarget": true, "exportLinksRelativeFsys": false,
        "addOriginalDocumentAsStream": true, "initialView": 2, "initialPage": 100, "magnification": 4, "zoom": 6400,
        "pageLayout": 3, "resizeWindowToInitialPage": true, "centerWindow": true, "openInFullScreenMode": true,
        "displayPDFDocumentTitle": false, "hideViewerMenubar": true, "hideViewerToolbar": true,
        "hideViewerWindowControls": true, "openBookmarkLevels": 10, "quality": 50,
        "maxImageResolution": 1200, "nativeWatermarkText": "\"".repeat(200), "nativeWatermarkColor": 0,
        "nativeWatermarkFontHeight": 1000, "nativeWatermarkRotateAngle": -3600,
        "nativeWatermarkFontName": "\"".repeat(100), "pdfa": "PDF/A-3b", "pdfua": true,
    });
    let of_the_document = json!({
        "landscape": true, "paperSize": "10x12.25in", "updateIndexes": true,
        "metadata": {"Title": "\"".repeat(200), "Author": "\"".repeat(100), "Subject": "\"".repeat(100), "Keywords": "\",".repeat(100)},
    });
    let more = of_the_document.as_object().unwrap().clone();
    options.as_object_mut().unwrap().extend(more);
    let outputs: Vec<Value> = (0..32)
        .map(|number| json!({"format": "pdf", "name": format!("{number}.pdf"), "options": options}))
        .collect();
    let result = post(&world, "readme.txt", outputs.into()).await;
    assert_eq!(result["status"], "succeeded", "{}", result["error"]);
    assert_eq!(result["outputs"][31]["pages"], 100);
}
