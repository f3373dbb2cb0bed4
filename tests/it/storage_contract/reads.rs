//! Resources, bytes and lists. `a` is `hello!`, of the generation SECOND.

use super::side::{Side, get, patch, post};
use super::uploads::{REFUSED, UPLOAD};

const A: &str = "/storage/v1/b/BUCKET/o/a";

pub(super) async fn all(side: &mut Side) {
    resources(side).await;
    bytes(side).await;
    compressed(side).await;
    lists(side).await;
}

async fn resources(side: &mut Side) {
    let wanted = &[("status", "200"), ("/generation", "{SECOND}"), ("/size", "6")];
    side.ask("a resource", get(A), wanted).await;
    side.ask(
        "a resource of a generation",
        get(&format!("{A}?generation={{SECOND}}")),
        wanted,
    )
    .await;
    let matching = format!("{A}?ifGenerationMatch={{SECOND}}&ifMetagenerationMatch=1&ifGenerationNotMatch=7");
    side.ask("a resource, conditions that hold", get(&matching), wanted)
        .await;
    let wanted = [("status", "404"), ("/error/message", "No such object: BUCKET/none")];
    side.ask(
        "a resource that is not there",
        get("/storage/v1/b/BUCKET/o/none"),
        &wanted,
    )
    .await;
    for what in ["a resource", "bytes"] {
        let media = if what == "bytes" { "alt=media&" } else { "" };
        for condition in ["ifGenerationMatch=7", "ifMetagenerationMatch=7", "ifGenerationMatch=0"] {
            let call = format!("{what}, {condition}");
            side.ask(&call, get(&format!("{A}?{media}{condition}")), REFUSED).await;
        }
        for condition in ["ifGenerationNotMatch={SECOND}", "ifMetagenerationNotMatch=1"] {
            let call = format!("{what}, {condition}");
            let wanted = [("status", "304"), ("body", "nothing")];
            side.ask(&call, get(&format!("{A}?{media}{condition}")), &wanted).await;
        }
    }
    errors(side).await;
}

/// The words of errors, once of each kind.
async fn errors(side: &mut Side) {
    let no_name = post(&format!("{UPLOAD}=media")).header("content-type", "text/plain");
    let no_number = get(&format!("{A}?generation=x"));
    let again = serde_json::json!({"name": "BUCKET"});
    for (call, ask, code, reason) in [
        (
            "the error of a condition",
            get(&format!("{A}?ifGenerationMatch=7")),
            "412",
            "conditionNotMet",
        ),
        (
            "the error of what is not there",
            get("/storage/v1/b/BUCKET/o/none"),
            "404",
            "notFound",
        ),
        ("the error of a parameter that is missing", no_name, "400", "required"),
        ("the error of a parameter that is wrong", no_number, "400", "invalid"),
        (
            "the error of a bucket's name that is taken",
            post("/storage/v1/b?project=p").json(&again),
            "409",
            "conflict",
        ),
    ] {
        let wanted = [
            ("status", code),
            ("/error/code", code),
            ("/error/message", "present"),
            ("/error/errors/0/reason", reason),
            ("/error/errors/0/domain", "global"),
        ];
        side.ask(call, ask, &wanted).await;
    }
}

async fn bytes(side: &mut Side) {
    let media = format!("{A}?alt=media");
    let wanted = [
        ("status", "200"),
        ("body", "hello!"),
        ("header content-type", "text/plain"),
        ("header x-goog-generation", "{SECOND}"),
        ("header x-goog-metageneration", "1"),
        ("header x-goog-storage-class", "STANDARD"),
        ("header x-goog-stored-content-length", "6"),
        ("header x-goog-stored-content-encoding", "identity"),
        ("header x-goog-hash", "crc32c=jAn9Ww==,md5=Wo3TrQdWqT3tcrgjsZ3Ydw=="),
        ("header etag", "present"),
        ("header last-modified", "present"),
    ];
    side.ask("bytes", get(&media), &wanted).await;
    let other = get("/download/storage/v1/b/BUCKET/o/a?alt=media&generation={SECOND}");
    side.ask("bytes by mediaLink's address", other, &wanted[..4]).await;
    for (range, body, shown) in [
        ("bytes=0-3", "hell", "bytes 0-3/6"),
        ("bytes=2-", "llo!", "bytes 2-5/6"),
        ("bytes=4-100", "o!", "bytes 4-5/6"),
        ("bytes=-2", "o!", "bytes 4-5/6"),
        ("bytes=-100", "hello!", "bytes 0-5/6"),
    ] {
        let wanted = [
            ("status", "206"),
            ("body", body),
            ("header content-range", shown),
            ("header content-length", &body.len().to_string()),
            ("header x-goog-stored-content-length", "6"),
        ];
        side.ask(
            &format!("bytes, range {range}"),
            get(&media).header("range", range),
            &wanted,
        )
        .await;
    }
    let wanted = [("status", "416")];
    side.ask(
        "bytes, range bytes=6-",
        get(&media).header("range", "bytes=6-"),
        &wanted,
    )
    .await;
    let wanted = [("status", "404"), ("body", "No such object: BUCKET/none")];
    side.ask(
        "bytes that are not there",
        get("/storage/v1/b/BUCKET/o/none?alt=media"),
        &wanted,
    )
    .await;
}

/// What was uploaded compressed is sent plain to those that do not take gzip.
async fn compressed(side: &mut Side) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, b"hello").unwrap();
    let upload = post(&format!("{UPLOAD}=media&name=packed&contentEncoding=gzip"))
        .header("content-type", "text/plain")
        .body(gzip.finish().unwrap());
    side.ask(
        "upload compressed",
        upload,
        &[("status", "200"), ("/contentEncoding", "gzip")],
    )
    .await;
    let media = get("/storage/v1/b/BUCKET/o/packed?alt=media");
    let wanted = [
        ("status", "200"),
        ("body", "hello"),
        ("header content-encoding", "absent"),
        ("header x-goog-stored-content-encoding", "gzip"),
    ];
    side.ask("bytes, decompressed", media, &wanted).await;
    let media = get("/storage/v1/b/BUCKET/o/packed?alt=media").header("accept-encoding", "gzip");
    side.ask(
        "bytes, compressed",
        media,
        &[("status", "200"), ("header content-encoding", "gzip")],
    )
    .await;
}

async fn lists(side: &mut Side) {
    let list = |query: &str| get(&format!("/storage/v1/b/BUCKET/o?{query}"));
    for name in ["l/1", "l/2", "l/d/3", "l/d/4", "l/e/", "l/é"] {
        let upload = post(&format!("{UPLOAD}=media&name={name}"))
            .header("content-type", "text/plain")
            .body("x");
        side.ask("upload for lists", upload, &[("status", "200")]).await;
    }
    let everything = "l/1 l/2 l/d/3 l/d/4 l/e/ l/é";
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#objects"),
        ("names /items", everything),
        ("/prefixes", "absent"),
        ("/nextPageToken", "absent"),
        ("/items/0/kind", "storage#object"),
        ("/items/0/generation", "present"),
    ];
    side.ask("a list, prefix", list("prefix=l/"), &wanted).await;
    let prefixes = r#"["l/d/","l/e/"]"#;
    for (call, query, items, folded) in [
        (
            "a list, prefix and delimiter",
            "prefix=l/&delimiter=/",
            "l/1 l/2 l/é",
            prefixes,
        ),
        (
            "a list, a prefix that is a folder",
            "prefix=l/d&delimiter=/",
            "absent",
            r#"["l/d/"]"#,
        ),
        (
            "a list, includeTrailingDelimiter",
            "prefix=l/&delimiter=/&includeTrailingDelimiter=true",
            "l/1 l/2 l/e/ l/é",
            prefixes,
        ),
        (
            "a list, startOffset and endOffset",
            "startOffset=l/2&endOffset=l/e",
            "l/2 l/d/3 l/d/4",
            "absent",
        ),
        ("a list, a prefix of nothing", "prefix=nothing", "absent", "absent"),
        ("a list, matchGlob *", "matchGlob=l/*", "l/1 l/2 l/é", "absent"),
        ("a list, matchGlob **", "matchGlob=l/**/[34]", "l/d/3 l/d/4", "absent"),
        (
            "a list, matchGlob {}",
            "matchGlob=l/%7B1,d/%3F%7D",
            "l/1 l/d/3 l/d/4",
            "absent",
        ),
    ] {
        let wanted = [("status", "200"), ("names /items", items), ("/prefixes", folded)];
        side.ask(call, list(query), &wanted).await;
    }
    let wanted = [
        ("status", "200"),
        ("names /items", "l/1 l/2"),
        ("/nextPageToken", "present"),
    ];
    let page = side
        .ask("a list, the first page", list("prefix=l/&maxResults=2"), &wanted)
        .await;
    side.name("TOKEN", page.look("/nextPageToken"));
    let rest = list("prefix=l/&pageToken={TOKEN}");
    side.ask(
        "a list, the page after it",
        rest,
        &[("status", "200"), ("names /items", "l/d/3 l/d/4 l/e/ l/é")],
    )
    .await;
    let wanted = [
        ("names /items", "l/1 l/2 l/é"),
        ("/prefixes", r#"["l/d/"]"#),
        ("/nextPageToken", "present"),
    ];
    let folded = list("prefix=l/&delimiter=/&startOffset=l/1&maxResults=3");
    let wanted = [("names /items", "l/1 l/2"), wanted[1], wanted[2]];
    side.ask("a list, a page with a prefix", folded, &wanted).await;
    let wanted = [("status", "404")];
    side.ask("a list of no bucket", get("/storage/v1/b/contract-nowhere/o"), &wanted)
        .await;
    let fields = get(&format!("{A}?fields=name,size"));
    let wanted = [("/name", "a"), ("/size", "6"), ("/generation", "absent")];
    side.ask("a resource, fields", fields, &wanted).await;
    let fields = list("prefix=l/&fields=items(name),nextPageToken");
    let wanted = [
        ("names /items", everything),
        ("/kind", "absent"),
        ("/items/0/size", "absent"),
    ];
    side.ask("a list, fields", fields, &wanted).await;
    let patched = patch(&format!("{A}?fields=metageneration&ifMetagenerationMatch=7"));
    side.ask("an error, fields", patched.json(&serde_json::json!({})), REFUSED)
        .await;
}
