//! What is changed in a loaded document before it is written, and images of its pages: each read back from an output.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{World, pdf_pages, pdf_text, run};
use crate::options::{documents, post};

/// The outputs of one job, in the order of what was asked for.
struct Made {
    directory: tempfile::TempDir,
    count: usize,
}

impl Made {
    fn path(&self, index: usize) -> PathBuf {
        assert!(index < self.count);
        self.directory.path().join(index.to_string())
    }

    fn bytes(&self, index: usize) -> Vec<u8> {
        std::fs::read(self.path(index)).unwrap()
    }

    /// Width and height of every page in points, whole.
    fn sizes(&self, index: usize) -> Vec<(i32, i32)> {
        let info = run(Command::new("pdfinfo").args(["-l", "99"]).arg(self.path(index)));
        let sizes = info
            .lines()
            .filter_map(|line| line.strip_prefix("Page ")?.split_once(" size: "));
        let number = |text: &str| text.trim().parse::<f64>().unwrap().round() as i32;
        let size = |text: &str| {
            let (width, rest) = text.split_once(" x ").unwrap();
            (number(width), number(rest.split_once(" pts").unwrap().0))
        };
        sizes.map(|(_, size_text)| size(size_text)).collect()
    }

    fn text(&self, index: usize) -> String {
        pdf_text(&self.path(index))
    }

    fn info(&self, index: usize, field: &str) -> Option<String> {
        let info = run(Command::new("pdfinfo").arg(self.path(index)));
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.map(|text| text.trim().to_owned())
    }

    /// Every pixel of every page.
    fn pixels(&self, index: usize) -> Vec<u8> {
        let prefix = self.directory.path().join(format!("page-{index}"));
        run(Command::new("pdftoppm")
            .args(["-r", "50", "-png"])
            .arg(self.path(index))
            .arg(&prefix));
        let mut pages: Vec<PathBuf> = std::fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().starts_with(&*prefix.to_string_lossy()))
            .collect();
        pages.sort();
        assert!(!pages.is_empty());
        pages.iter().flat_map(|page| std::fs::read(page).unwrap()).collect()
    }
}

/// Makes outputs of one load, each a format and its options.
async fn make(world: &World, object: &str, document: &[u8], asked: &[(&str, Value)]) -> Made {
    world.upload(object, document.to_vec()).await;
    let outputs: Vec<Value> = asked
        .iter()
        .enumerate()
        .map(|(index, (format, options))| {
            json!({"format": format, "name": format!("{object}/{index}"), "options": options})
        })
        .collect();
    let result = post(world, object, outputs.into()).await;
    assert_eq!(result["status"], "succeeded", "{result}");
    let made = Made {
        directory: tempfile::tempdir().unwrap(),
        count: asked.len(),
    };
    for (index, output) in result["outputs"].as_array().unwrap().iter().enumerate() {
        let answer = world.download(output["signedUrl"].as_str().unwrap()).await;
        std::fs::write(made.path(index), answer.bytes().await.unwrap()).unwrap();
    }
    made
}

/// What a job is refused with, which must be an invalid option.
async fn refused(world: &World, object: &str, format: &str, options: &Value) -> String {
    let result = post(world, object, json!([{"format": format, "options": options}])).await;
    assert_eq!(result["error"]["code"], "option.invalid", "{options}: {result}");
    result["error"]["message"].as_str().unwrap().to_owned()
}

const A4: (i32, i32) = (595, 842);

/// Width and height of a PNG.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_texts_get_another_paper_and_only_in_the_output_that_asks() {
    let world = World::start().await;
    let plain = ("pdf", json!({}));
    let made = make(
        &world,
        "report.fodt",
        &documents::report(),
        &[
            ("pdf", json!({"landscape": true})),
            plain.clone(),
            ("pdf", json!({"paperSize": "A5"})),
            ("pdf", json!({"paperSize": "letter", "landscape": true})),
            ("pdf", json!({"paperSize": "12x10in"})),
            ("pdf", json!({"metadata": {"Title": "Another title", "Author": "Ann Author", "Subject": "On x", "Keywords": ["one", "two"]}})),
            plain,
        ],
    )
    .await;
    let all = |index: usize, size| made.sizes(index).iter().all(|page| *page == size);
    assert!(all(0, (842, 595)), "{:?}", made.sizes(0));
    assert!(all(2, (420, 595)), "{:?}", made.sizes(2));
    assert!(all(3, (792, 612)), "{:?}", made.sizes(3));
    assert!(all(4, (864, 720)), "{:?}", made.sizes(4));
    assert!(made.text(0).contains("Very last page"));

    assert_eq!(made.info(5, "Title").unwrap(), "Another title");
    assert_eq!(made.info(5, "Author").unwrap(), "Ann Author");
    assert_eq!(made.info(5, "Subject").unwrap(), "On x");
    assert_eq!(made.info(5, "Keywords").unwrap(), "one, two");
    // What was set for the others is in neither of the plain ones, the second output and the last.
    for index in [1, 6] {
        assert!(all(index, A4), "{:?}", made.sizes(index));
        assert_eq!(made.info(index, "Title").unwrap(), "The title of it");
        assert_eq!(made.info(index, "Author"), None);
    }
    let alone = make(&world, "report.fodt", &documents::report(), &[("pdf", json!({}))]).await;
    assert!(alone.pixels(0) == made.pixels(1) && alone.pixels(0) == made.pixels(6));

    let report = std::fs::read(crate::harness::fixture("documents/plain/report.odt")).unwrap();
    world.upload("margins.odt", report).await;
    let too_small = refused(&world, "margins.odt", "pdf", &json!({"paperSize": "52x60mm"})).await;
    assert!(too_small.contains("margins"), "{too_small}");
    let no_sheets = refused(&world, "report.fodt", "pdf", &json!({"fitToPage": true})).await;
    assert!(
        no_sheets.contains("a text") && no_sheets.contains("fitToPage"),
        "{no_sheets}"
    );
    world.upload("deck.fodp", documents::deck()).await;
    for options in [
        json!({"landscape": true}),
        json!({"paperSize": "A4"}),
        json!({"updateIndexes": true}),
    ] {
        let message = refused(&world, "deck.fodp", "pdf", &options).await;
        assert!(message.contains("a presentation"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sheets_are_scaled_down_to_a_page_or_its_width() {
    let world = World::start().await;
    let made = make(
        &world,
        "long.fods",
        &documents::sheets(),
        &[
            ("pdf", json!({})),
            ("pdf", json!({"fitToPage": true})),
            ("pdf", json!({"fitToPage": "width"})),
            ("pdf", json!({"landscape": true, "paperSize": "A3"})),
        ],
    )
    .await;
    // 150 rows on one sheet, and a second sheet.
    let pages = |index: usize| pdf_pages(&made.path(index));
    assert_eq!((pages(0), pages(1), pages(2)), (4, 2, 4));
    assert_eq!(made.sizes(3)[0], (1191, 842));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_as_stored_unless_it_is_to_be_updated() {
    let world = World::start().await;
    let made = make(
        &world,
        "index.fodt",
        &documents::stale_index(),
        &[("pdf", json!({"updateIndexes": true})), ("pdf", json!({}))],
    )
    .await;
    let (updated, stock) = (made.text(0), made.text(1));
    assert!(
        stock.contains("Stale entry") && stock.matches("Fresh heading").count() == 1,
        "{stock}"
    );
    assert!(
        !updated.contains("Stale entry") && updated.matches("Fresh heading").count() == 2,
        "{updated}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_of_the_page_and_of_the_size_that_was_asked_for() {
    let world = World::start().await;
    let second = ("png", json!({"page": 3, "dpi": 50}));
    let made = make(
        &world,
        "report.fodt",
        &documents::report(),
        &[
            second.clone(),
            ("png", json!({})),
            ("png", json!({"width": 300})),
            ("png", json!({"dpi": 150, "paperSize": "A5"})),
            ("jpg", json!({"page": 3, "width": 640})),
        ],
    )
    .await;
    assert_eq!(png_size(&made.bytes(0)), (413, 585));
    assert_eq!(png_size(&made.bytes(1)), (795, 1124));
    assert_eq!(png_size(&made.bytes(2)), (300, 424));
    assert_eq!(png_size(&made.bytes(3)), (874, 1240));
    assert_eq!(jpg_size(&made.bytes(4)), (640, 905));
    // In the other order, and of a document that differs on the page in question alone.
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(documents::report()).unwrap();
        assert!(text.contains(from));
        text.replace(from, to).into_bytes()
    };
    let orders = [("png", json!({})), second];
    let other = make(&world, "first.fodt", &changed("First page", "Another"), &orders).await;
    assert!(other.bytes(1) == made.bytes(0) && other.bytes(0) != made.bytes(1));
    let other = make(&world, "third.fodt", &changed("Third page", "Another"), &orders).await;
    assert!(other.bytes(1) != made.bytes(0) && other.bytes(0) == made.bytes(1));

    let deck = make(
        &world,
        "deck.fodp",
        &documents::deck(),
        &[
            ("png", json!({"page": 3, "width": 500})),
            ("png", json!({"width": 500})),
            ("jpg", json!({"page": 2, "width": 700})),
        ],
    )
    .await;
    assert_eq!(png_size(&deck.bytes(0)), (500, 281));
    assert!(deck.bytes(0) != deck.bytes(1));
    assert_eq!(jpg_size(&deck.bytes(2)), (700, 394));
    let page = std::fs::read(crate::harness::fixture("documents/plain/page.html")).unwrap();
    let web = make(
        &world,
        "page.html",
        &page,
        &[("pdf", json!({})), ("png", json!({"width": 500}))],
    )
    .await;
    assert_eq!(png_size(&web.bytes(1)), (500, 707));
    assert!(web.text(0).contains("Reading room"));

    for (object, options) in [("report.fodt", json!({"page": 6})), ("deck.fodp", json!({"page": 4}))] {
        let message = refused(&world, object, "png", &options).await;
        assert!(message.contains("no page"), "{message}");
    }
    let message = refused(&world, "report.fodt", "png", &json!({"dpi": 1200})).await;
    assert!(message.contains("pixels"), "{message}");
    let message = refused(&world, "report.fodt", "png", &json!({"dpi": 100, "width": 100})).await;
    assert!(message.contains("exclude"), "{message}");
    world.upload("sheets.fods", documents::sheets()).await;
    let message = refused(&world, "sheets.fods", "png", &json!({"page": 2})).await;
    assert!(message.contains("a spreadsheet"), "{message}");
}

/// Width and height of a JPEG: in its frame header (ISO/IEC 10918-1, B.2.2).
fn jpg_size(bytes: &[u8]) -> (u32, u32) {
    let mut at = 2;
    loop {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if matches!(bytes[at + 1], 0xc0..=0xc2) {
            let number = |at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            return (number(at + 7), number(at + 5));
        }
        at += 2 + length;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn separated_values_are_read_and_written_as_asked() {
    let world = World::start().await;
    // By content its separator is the semicolon; and 0xe9 is another letter in each character set.
    let values = b"a,x;b,\xe9\n1,y;2,z\n";
    let made = make(
        &world,
        "values.csv",
        values,
        &[
            ("html", json!({})),
            ("html", json!({"separator": ","})),
            ("html", json!({"charset": "windows-1251"})),
            ("csv", json!({"separator": "|", "charset": "UTF-16"})),
            ("tsv", json!({})),
        ],
    )
    .await;
    let html = |index: usize| String::from_utf8(made.bytes(index)).unwrap();
    let cells = |index: usize| html(index).matches("<td").count();
    assert_eq!((cells(0), cells(1), cells(2)), (4, 6, 4));
    assert!(html(0).contains('é') && html(1).contains("x;b") && html(2).contains('й'));
    let units: Vec<u16> = made
        .bytes(3)
        .chunks(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    assert_eq!(String::from_utf16(&units).unwrap(), "\u{feff}a,x|b,é\n1,y|2,z\n");
    assert_eq!(String::from_utf8(made.bytes(4)).unwrap(), "a,x\tb,é\n1,y\t2,z\n");

    world.upload("report.fodt", documents::report()).await;
    for options in [json!({"separator": ";"}), json!({"charset": "UTF-8"})] {
        let message = refused(&world, "report.fodt", "pdf", &options).await;
        assert!(message.contains("no separated values"), "{message}");
    }
    for options in [json!({"separator": "ab"}), json!({"charset": "utf-7"})] {
        refused(&world, "values.csv", "csv", &options).await;
    }
}
