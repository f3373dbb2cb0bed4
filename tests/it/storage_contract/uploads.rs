//! Uploads in one request and in several, and every condition that they can set.

use serde_json::json;

use super::side::{Answer, Side, ask, delete, get, post, put};

pub(super) const UPLOAD: &str = "/upload/storage/v1/b/BUCKET/o?uploadType";
const CHUNK: usize = 256 * 1024;

/// The words are looked at once, in `the error of a condition`.
pub(super) const REFUSED: &[(&str, &str)] = &[("status", "412")];

pub(super) async fn all(side: &mut Side) {
    whole(side).await;
    conditions(side).await;
    related(side).await;
    sessions(side).await;
    sessions_that_fail(side).await;
}

fn text(path: &str, body: &str) -> super::side::Ask {
    post(path).header("content-type", "text/plain").body(body)
}

async fn whole(side: &mut Side) {
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#object"),
        ("/id", "present"),
        ("/name", "a"),
        ("/bucket", "BUCKET"),
        ("/size", "5"),
        ("/contentType", "text/plain"),
        ("/metageneration", "1"),
        ("/storageClass", "STANDARD"),
        ("/md5Hash", "XUFAKrxLKna5cZ2REBfFkg=="),
        ("/crc32c", "mnG7TA=="),
        ("/generation", "present"),
        ("/timeCreated", "present"),
        ("/updated", "present"),
        ("/timeStorageClassUpdated", "present"),
        ("/mediaLink", "present"),
        ("/selfLink", "BASE/storage/v1/b/BUCKET/o/a"),
        ("/etag", "present"),
        ("/timeDeleted", "absent"),
        ("/metadata", "absent"),
    ];
    let made = side
        .ask(
            "upload media",
            text(&format!("{UPLOAD}=media&name=a&ifGenerationMatch=0"), "hello"),
            &wanted,
        )
        .await;
    side.name("FIRST", made.look("/generation"));
    let nowhere = "/upload/storage/v1/b/contract-nowhere/o?uploadType=media&name=a";
    let wanted = [("status", "404")];
    side.ask("upload into no bucket", text(nowhere, "x"), &wanted).await;
    let wanted = [("status", "400")];
    side.ask("upload without a name", text(&format!("{UPLOAD}=media"), "x"), &wanted)
        .await;
    let wrong = text(&format!("{UPLOAD}=media&name=b"), "x").header("x-goog-hash", "crc32c=AAAAAA==");
    let wanted = [("status", "400")];
    side.ask("upload media with a wrong x-goog-hash", wrong, &wanted).await;
}

async fn conditions(side: &mut Side) {
    for (call, condition) in [
        ("upload over an object, ifGenerationMatch 0", "ifGenerationMatch=0"),
        (
            "upload over an object, ifGenerationMatch of another",
            "ifGenerationMatch=7",
        ),
        (
            "upload over an object, ifGenerationNotMatch of it",
            "ifGenerationNotMatch={FIRST}",
        ),
        (
            "upload over an object, ifMetagenerationMatch of another",
            "ifMetagenerationMatch=7",
        ),
        (
            "upload over an object, ifMetagenerationNotMatch of it",
            "ifMetagenerationNotMatch=1",
        ),
    ] {
        side.ask(call, text(&format!("{UPLOAD}=media&name=a&{condition}"), "x"), REFUSED)
            .await;
    }
    // Each has a name of its own: where it is taken after all, the next does not see it.
    for (name, condition) in [
        ("none1", "ifGenerationMatch=7"),
        ("none2", "ifGenerationNotMatch=0"),
        ("none3", "ifGenerationNotMatch=7"),
        ("none4", "ifMetagenerationMatch=1"),
    ] {
        let call = format!("upload where nothing is, {condition}");
        let upload = text(&format!("{UPLOAD}=media&name={name}&{condition}"), "x");
        side.ask(&call, upload, REFUSED).await;
    }
    let gone = get("/storage/v1/b/BUCKET/o/none1");
    side.ask("what was refused was not stored", gone, &[("status", "404")])
        .await;
    let wanted = [("status", "400")];
    side.ask(
        "upload, ifGenerationMatch that is no number",
        text(&format!("{UPLOAD}=media&name=none&ifGenerationMatch=x"), "x"),
        &wanted,
    )
    .await;
    let wanted = [("status", "200"), ("/size", "6"), ("/metageneration", "1")];
    let over = format!("{UPLOAD}=media&name=a&ifGenerationMatch={{FIRST}}&ifMetagenerationMatch=1");
    let made = side
        .ask("upload over an object, its generation", text(&over, "hello!"), &wanted)
        .await;
    side.name("SECOND", made.look("/generation"));
    let wanted = [("status", "404")];
    side.ask(
        "the generation before is gone",
        get("/storage/v1/b/BUCKET/o/a?generation={FIRST}"),
        &wanted,
    )
    .await;
}

fn multipart(metadata: &serde_json::Value, content_type: &str, content: &str) -> super::side::Ask {
    let body = format!(
        "--xyz\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n--xyz\r\nContent-Type: {content_type}\r\n\r\n\
         {content}\r\n--xyz--\r\n"
    );
    post(&format!("{UPLOAD}=multipart"))
        .header("content-type", "multipart/related; boundary=xyz")
        .body(body)
}

async fn related(side: &mut Side) {
    let metadata = json!({
        "name": "dir/a b", "contentType": "text/x", "contentDisposition": "inline", "contentLanguage": "de",
        "cacheControl": "no-store", "metadata": {"who": "me", "gone": "soon"}, "crc32c": "mnG7TA==",
    });
    let wanted = [
        ("status", "200"),
        ("/name", "dir/a b"),
        ("/size", "5"),
        ("/contentType", "text/x"),
        ("/contentDisposition", "inline"),
        ("/contentLanguage", "de"),
        ("/cacheControl", "no-store"),
        ("/metadata/who", "me"),
        ("/selfLink", "BASE/storage/v1/b/BUCKET/o/dir/a b"),
    ];
    side.ask("upload multipart", multipart(&metadata, "text/x", "hello"), &wanted)
        .await;
    let wanted = [("status", "200"), ("/name", "dir/é"), ("/size", "5")];
    let types = json!({"name": "dir/types", "contentType": "text/x"});
    let types = multipart(&types, "text/plain", "hello");
    let first = [("status", "200"), ("/contentType", "text/x")];
    side.ask("upload multipart, another type in the first part", types, &first)
        .await;
    let other = multipart(&json!({"name": "dir/é"}), "text/plain", "hello");
    side.ask("upload multipart, a name beyond ASCII", other, &wanted).await;
    let wanted = [("status", "200"), ("/contentType", "text/plain"), ("/size", "0")];
    side.ask(
        "upload multipart, the type of the second part",
        multipart(&json!({"name": "dir/empty"}), "text/plain", ""),
        &wanted,
    )
    .await;
    for (call, hash) in [
        (
            "upload multipart with a wrong crc32c",
            json!({"name": "bad", "crc32c": "AAAAAA=="}),
        ),
        (
            "upload multipart with a wrong md5Hash",
            json!({"name": "bad", "md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}),
        ),
    ] {
        let wanted = [("status", "400")];
        side.ask(call, multipart(&hash, "text/plain", "hello"), &wanted).await;
    }
    let wanted = [("status", "404")];
    side.ask(
        "what was damaged is not stored",
        get("/storage/v1/b/BUCKET/o/bad"),
        &wanted,
    )
    .await;
}

/// The address of a session that has begun.
fn session(answer: &Answer) -> String {
    answer.look("header location")
}

async fn sessions(side: &mut Side) {
    let start = post(&format!("{UPLOAD}=resumable&name=large&ifGenerationMatch=0"))
        .header("x-upload-content-type", "application/pdf")
        .json(&json!({"metadata": {"k": "v"}}));
    let begun = side
        .ask(
            "begin a session",
            start,
            &[("status", "200"), ("header location", "present"), ("body", "nothing")],
        )
        .await;
    let url = session(&begun);
    let asking = |total: &str| put(&url).header("content-range", &format!("bytes */{total}"));
    let wanted = [("status", "308"), ("header range", "absent")];
    side.ask("how far is a session that has nothing", asking("*"), &wanted)
        .await;
    let chunk = put(&url)
        .header("content-range", &format!("bytes 0-{}/*", CHUNK - 1))
        .body(vec![b'x'; CHUNK]);
    let wanted = [("status", "308"), ("header range", "bytes=0-262143")];
    side.ask("a chunk of a session", chunk, &wanted).await;
    side.ask("how far is a session that has a chunk", asking("*"), &wanted)
        .await;
    side.ask("how far is a session, with its size", asking("262149"), &wanted)
        .await;
    let last = put(&url)
        .header("content-range", "bytes 262144-262148/262149")
        .body("hello");
    let wanted = [
        ("status", "200"),
        ("/name", "large"),
        ("/size", "262149"),
        ("/contentType", "application/pdf"),
        ("/metadata/k", "v"),
    ];
    side.ask("the last chunk of a session", last, &wanted).await;
    side.ask("how far is a session that is done", asking("262149"), &wanted)
        .await;

    let begun = side
        .ask(
            "begin a session of gcloud's",
            post("/resumable/upload/storage/v1/b/BUCKET/o?uploadType=resumable").json(&json!({"name": "by gcloud"})),
            &[("status", "200"), ("header location", "present")],
        )
        .await;
    if session(&begun) != "absent" {
        let whole = put(&session(&begun)).body("hello");
        side.ask("a session in one request", whole, &[("status", "200"), ("/size", "5")])
            .await;
        side.ask(
            "delete the one of gcloud's",
            delete("/storage/v1/b/BUCKET/o/by%20gcloud"),
            &[("status", "2xx")],
        )
        .await;
    }
}

async fn sessions_that_fail(side: &mut Side) {
    let start = |query: &str| post(&format!("{UPLOAD}=resumable&{query}"));
    side.ask(
        "begin a session where something is, ifGenerationMatch 0",
        start("name=a&ifGenerationMatch=0"),
        REFUSED,
    )
    .await;
    let begun = side
        .ask(
            "begin a session for a race",
            start("name=race&ifGenerationMatch=0"),
            &[("status", "200")],
        )
        .await;
    let racer = text(&format!("{UPLOAD}=media&name=race"), "first");
    side.ask("somebody else is quicker", racer, &[("status", "200")]).await;
    side.ask(
        "end a session that lost the race",
        put(&session(&begun)).body("second"),
        REFUSED,
    )
    .await;
    let wanted = [("status", "200"), ("body", "first")];
    side.ask(
        "who was quicker stays",
        get("/storage/v1/b/BUCKET/o/race?alt=media"),
        &wanted,
    )
    .await;
    let begun = side
        .ask(
            "begin a session to be cancelled",
            start("name=none"),
            &[("status", "200")],
        )
        .await;
    side.ask("cancel a session", delete(&session(&begun)), &[("status", "499")])
        .await;
    let further = put(&session(&begun))
        .header("content-range", "bytes 0-4/5")
        .body("hello");
    side.ask("go on with a session that was cancelled", further, &[("status", "4xx")])
        .await;
    let unknown = format!("{UPLOAD}=resumable&name=none&upload_id=0123456789abcdef");
    side.ask(
        "a session that never was",
        ask("PUT", &unknown).body("x"),
        &[("status", "404")],
    )
    .await;
    let begun = side
        .ask(
            "begin a session of an announced size",
            start("name=none").header("x-upload-content-length", "5"),
            &[("status", "200")],
        )
        .await;
    let larger = put(&session(&begun))
        .header("content-range", "bytes 0-5/6")
        .body("hello!");
    side.ask("a session of another size than announced", larger, &[("status", "400")])
        .await;
    side.ask(
        "what came to nothing was not stored",
        get("/storage/v1/b/BUCKET/o/none"),
        &[("status", "404")],
    )
    .await;
}
