//! Conditions that are headers, bodies that are compressed on their way, and batches. `a` is `hello!`, of the generation SECOND.

use std::io::Write;

use super::side::{Side, ask, get, post};
use super::uploads::{REFUSED, UPLOAD};

const A: &str = "/storage/v1/b/BUCKET/o/a";

pub(super) async fn all(side: &mut Side) {
    etags(side).await;
    of_the_xml_api(side).await;
    compressed(side).await;
    batch(side).await;
}

async fn etags(side: &mut Side) {
    let found = side.ask("a resource and its etag", get(A), &[("status", "200")]).await;
    side.name("ETAG", found.look("/etag"));
    let unchanged = [("status", "304"), ("body", "nothing")];
    for (call, path) in [("a resource", A.to_owned()), ("bytes", format!("{A}?alt=media"))] {
        let with = |name: &'static str, value: &str| get(&path).header(name, value);
        side.ask(
            &format!("{call}, If-Match of it"),
            with("if-match", "{ETAG}"),
            &[("status", "200")],
        )
        .await;
        side.ask(
            &format!("{call}, If-Match of another"),
            with("if-match", "other"),
            REFUSED,
        )
        .await;
        side.ask(
            &format!("{call}, If-None-Match of it"),
            with("if-none-match", "{ETAG}"),
            &unchanged,
        )
        .await;
        let other = with("if-none-match", "other");
        side.ask(
            &format!("{call}, If-None-Match of another"),
            other,
            &[("status", "200")],
        )
        .await;
    }
}

async fn of_the_xml_api(side: &mut Side) {
    let etag = "\"5a8dd3ad0756a93ded72b823b19dd877\"";
    let read = |name: &'static str, value: &str| get("/BUCKET/a").header(name, value);
    side.ask("XML: get, If-Match of another", read("if-match", "\"other\""), REFUSED)
        .await;
    let unchanged = [("status", "304"), ("body", "nothing")];
    side.ask("XML: get, If-None-Match of it", read("if-none-match", etag), &unchanged)
        .await;
    let late = "Thu, 01 Jan 2099 00:00:00 GMT";
    side.ask(
        "XML: get, If-Modified-Since later",
        read("if-modified-since", late),
        &unchanged,
    )
    .await;
    let early = "Thu, 01 Jan 1998 00:00:00 GMT";
    side.ask(
        "XML: get, If-Unmodified-Since earlier",
        read("if-unmodified-since", early),
        REFUSED,
    )
    .await;
    let wanted = [
        ("status", "200"),
        ("xml Key", "l/1"),
        ("xml CommonPrefixes", "<Prefix>l/d/</Prefix>"),
        ("xml IsTruncated", "false"),
    ];
    side.ask("XML: list", get("/BUCKET?prefix=l/&delimiter=/"), &wanted)
        .await;
    let wanted = [
        ("status", "200"),
        ("xml IsTruncated", "true"),
        ("xml NextMarker", "l/1"),
    ];
    side.ask("XML: list, a page", get("/BUCKET?prefix=l/&max-keys=1"), &wanted)
        .await;
}

async fn compressed(side: &mut Side) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"hello").unwrap();
    let upload = post(&format!("{UPLOAD}=media&name=in-flight"))
        .header("content-type", "text/plain")
        .header("content-encoding", "gzip")
        .body(gzip.finish().unwrap());
    let wanted = [("status", "200"), ("/size", "5"), ("/contentEncoding", "absent")];
    side.ask("upload compressed in flight", upload, &wanted).await;
}

async fn batch(side: &mut Side) {
    let call = |line: &str| {
        format!("--b\r\nContent-Type: application/http\r\nContent-ID: <1>\r\n\r\n{line} HTTP/1.1\r\n\r\n\r\n")
    };
    let batch = |calls: String| {
        ask("POST", "/batch/storage/v1")
            .header("content-type", "multipart/mixed; boundary=b")
            .body(calls + "--b--")
    };
    let wanted = [
        ("status", "200"),
        ("body", "present"),
        ("header content-type", "present"),
    ];
    let calls = call(&format!("GET {A}")) + &call("DELETE /storage/v1/b/BUCKET/o/none");
    let answer = side.ask("a batch", batch(calls), &wanted).await;
    // Boundaries are another one each time.
    let body = answer.look("body");
    if answer.look("status") == "200" {
        let lines = body.lines().filter(|line| line.starts_with("HTTP/1.1 ")).count();
        side.note("a batch", "calls answered", "2", &lines.to_string());
    }
    let many = call(&format!("GET {A}")).repeat(101);
    side.ask("a batch of 101", batch(many), &[("status", "400")]).await;
}
