//! What Google documents of Cloud Storage, asked of the local cloud and of Google's own testbench: the same requests, looked at in the
//! same places. docs/storage-differences.md lists where either answers otherwise; what it lists is what is found here, no more and no
//! less.

mod changes;
mod headers;
mod reads;
mod side;
mod uploads;
mod xml;

use std::collections::BTreeSet;

use serde_json::json;

use self::side::{Difference, Side, post};
use crate::harness::{USER, cloud};
use crate::testbench::Testbench;

const AS_GOOGLE: &str = "as Google";

/// All of it, in an order in which each finds what it needs.
async fn all(side: &mut Side) {
    let bucket = json!({"name": "BUCKET"});
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#bucket"),
        ("/name", "BUCKET"),
        ("/metageneration", "1"),
        ("/storageClass", "STANDARD"),
        ("/location", "US"),
        ("/locationType", "multi-region"),
    ];
    side.ask(
        "create a bucket",
        post("/storage/v1/b?project=p").json(&bucket),
        &wanted,
    )
    .await;
    uploads::all(side).await;
    reads::all(side).await;
    headers::all(side).await;
    xml::all(side).await;
    changes::all(side).await;
}

struct Row {
    cells: Vec<String>,
}

/// The rows of the table in the documentation.
fn table() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/storage-differences.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    rows.map(|line| Row { cells: cells(line) }).collect()
}

/// The differences that the table lists of one of both, by its column.
fn documented(column: usize) -> BTreeSet<Difference> {
    let listed = table().into_iter().filter(|row| row.cells[column] != AS_GOOGLE);
    listed
        .map(|row| Difference {
            call: row.cells[0].clone(),
            what: row.cells[1].clone(),
            google: row.cells[2].clone(),
            got: row.cells[column].clone(),
        })
        .collect()
}

fn compare(side: &Side, column: usize) {
    let found: BTreeSet<Difference> = side.differences.iter().cloned().collect();
    let documented = documented(column);
    let shown = |rows: Vec<&Difference>| -> String {
        let rows = rows.iter().map(|row| {
            let Difference {
                call,
                what,
                google,
                got,
            } = row;
            format!("| {call} | `{what}` | `{google}` | {got} |\n")
        });
        rows.collect()
    };
    let missing = shown(found.difference(&documented).collect());
    let stale = shown(documented.difference(&found).collect());
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/storage-differences.md, column {column}\nnot listed:\n{missing}\nlisted and not so:\n{stale}"
    );
    println!(
        "{} places looked at, {} as documented and {} otherwise, all of them listed",
        side.looked_at,
        side.looked_at - found.len(),
        found.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_cloud_answers_as_documented() {
    let cloud = cloud().await;
    let mut side = Side::new(&cloud.urls().storage, &cloud.access_token(USER));
    all(&mut side).await;
    compare(&side, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_testbench_differs_where_it_is_listed() {
    let Some(testbench) = tokio::task::spawn_blocking(Testbench::start).await.unwrap() else {
        return;
    };
    let mut side = Side::new(&testbench.url, "any");
    all(&mut side).await;
    compare(&side, 4);
    tokio::task::spawn_blocking(move || drop(testbench)).await.unwrap();
}

#[test]
fn every_difference_says_who_is_right_by_which_document() {
    let documents = [
        "https://cloud.google.com/storage/docs/",
        "https://docs.cloud.google.com/storage/docs/",
    ];
    for row in table() {
        let [call, what, google, local, testbench, document] = &row.cells[..] else {
            panic!("{:?}", row.cells);
        };
        assert!(
            local == AS_GOOGLE || testbench == AS_GOOGLE || local != google,
            "{call}: {what}"
        );
        assert!(
            documents.iter().any(|start| document.contains(start)),
            "{call}: {document}"
        );
    }
}
