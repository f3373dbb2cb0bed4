//! The XML API, and signed links. `a` is `hello!`, of the generation SECOND.

use super::side::{Side, ask, delete, get, put};

const A: &str = "/BUCKET/a";

pub(super) async fn all(side: &mut Side) {
    objects(side).await;
    refusals(side).await;
    links(side).await;
}

async fn objects(side: &mut Side) {
    let wanted = [
        ("status", "200"),
        ("body", "hello!"),
        ("header content-type", "text/plain"),
        ("header x-goog-generation", "{SECOND}"),
        ("header x-goog-metageneration", "1"),
        ("header x-goog-stored-content-length", "6"),
        ("header x-goog-hash", "crc32c=jAn9Ww==,md5=Wo3TrQdWqT3tcrgjsZ3Ydw=="),
        ("header etag", "\"5a8dd3ad0756a93ded72b823b19dd877\""),
    ];
    side.ask("XML: get", get(A), &wanted).await;
    let wanted = [
        ("status", "206"),
        ("body", "ll"),
        ("header content-range", "bytes 2-3/6"),
    ];
    side.ask("XML: get, a range", get(A).header("range", "bytes=2-3"), &wanted)
        .await;
    let wanted = [("status", "200"), ("body", "nothing"), ("header content-length", "6")];
    side.ask("XML: head", ask("HEAD", A), &wanted).await;
    let wanted = [
        ("status", "200"),
        ("header x-goog-generation", "present"),
        ("header x-goog-metageneration", "1"),
        ("header x-goog-hash", "crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg=="),
        ("header etag", "\"5d41402abc4b2a76b9719d911017c592\""),
    ];
    let made = put("/BUCKET/xml/new")
        .header("content-type", "text/x")
        .header("x-goog-meta-who", "me");
    side.ask(
        "XML: put",
        made.header("x-goog-if-generation-match", "0").body("hello"),
        &wanted,
    )
    .await;
    let wanted = [("status", "200"), ("/contentType", "text/x"), ("/metadata/who", "me")];
    side.ask("what XML's put made", get("/storage/v1/b/BUCKET/o/xml%2Fnew"), &wanted)
        .await;
    let wanted = [("header x-goog-meta-who", "me"), ("header content-type", "text/x")];
    side.ask("XML: get, custom metadata", get("/BUCKET/xml/new"), &wanted)
        .await;
}

async fn refusals(side: &mut Side) {
    let no_key = [
        ("status", "404"),
        ("xml Code", "NoSuchKey"),
        ("xml Message", "The specified key does not exist."),
        ("xml Details", "No such object: BUCKET/none"),
    ];
    side.ask("XML: get what is not there", get("/BUCKET/none"), &no_key)
        .await;
    let no_bucket = [("status", "404"), ("xml Code", "NoSuchBucket")];
    side.ask("XML: get from no bucket", get("/contract-nowhere/a"), &no_bucket)
        .await;
    let refused = [
        ("status", "412"),
        ("xml Code", "PreconditionFailed"),
        (
            "xml Message",
            "At least one of the pre-conditions you specified did not hold.",
        ),
    ];
    let over = put("/BUCKET/xml/new")
        .header("x-goog-if-generation-match", "0")
        .body("x");
    side.ask("XML: put over an object, x-goog-if-generation-match 0", over, &refused)
        .await;
    let condition = ("x-goog-if-metageneration-match", "7");
    let read = get(A).header(condition.0, condition.1);
    side.ask("XML: get, x-goog-if-metageneration-match of another", read, &refused)
        .await;
    let wrong = put("/BUCKET/none")
        .header("x-goog-hash", "md5=AAAAAAAAAAAAAAAAAAAAAA==")
        .body("hello");
    side.ask(
        "XML: put with a wrong x-goog-hash",
        wrong,
        &[("status", "400"), ("xml Code", "BadDigest")],
    )
    .await;
    side.ask(
        "XML: delete",
        delete("/BUCKET/xml/new"),
        &[("status", "204"), ("body", "nothing")],
    )
    .await;
    side.ask("XML: delete again", delete("/BUCKET/xml/new"), &no_key[..2])
        .await;
}

/// Links that nobody signed: what is refused before a key is looked for, and what with it.
async fn links(side: &mut Side) {
    let now = chrono::Utc::now();
    let claim = |made: chrono::DateTime<chrono::Utc>, headers: &str| {
        let (date, time) = (made.format("%Y%m%d"), made.format("%Y%m%dT%H%M%SZ"));
        let account = crate::harness::USER.replace('@', "%40");
        get(&format!(
            "{A}?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={account}%2F{date}%2Fauto%2Fstorage%2Fgoog4_request\
             &X-Goog-Date={time}&X-Goog-Expires=60&X-Goog-SignedHeaders={headers}&X-Goog-Signature=00"
        ))
    };
    let wanted = [
        ("status", "403"),
        ("xml Code", "SignatureDoesNotMatch"),
        ("xml Message", "Access denied."),
        ("xml StringToSign", "present"),
        ("xml CanonicalRequest", "present"),
    ];
    side.ask("a link with a wrong signature", claim(now, "host"), &wanted)
        .await;
    let wanted = [
        ("status", "400"),
        ("xml Code", "ExpiredToken"),
        ("xml Message", "Invalid argument."),
    ];
    let old = now - chrono::TimeDelta::hours(1);
    side.ask("a link that has expired", claim(old, "host"), &wanted).await;
    let wanted = [
        ("status", "400"),
        ("xml Code", "MalformedSecurityHeader"),
        ("xml Message", "Invalid argument."),
        ("xml ParameterName", "x-goog-missing"),
    ];
    side.ask(
        "a link whose signed header is not sent",
        claim(now, "host%3Bx-goog-missing"),
        &wanted,
    )
    .await;
}
