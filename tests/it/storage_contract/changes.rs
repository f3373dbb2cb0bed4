//! Metadata, copies, deletion, versions, notifications and buckets. `a` is `hello!`, of the generation SECOND.

use serde_json::json;

use super::side::{Side, delete, get, patch, post, put};
use super::uploads::{REFUSED, UPLOAD};

const A: &str = "/storage/v1/b/BUCKET/o/a";

pub(super) async fn all(side: &mut Side) {
    metadata(side).await;
    copies(side).await;
    composed(side).await;
    deletion(side).await;
    versions(side).await;
    notifications(side).await;
    buckets(side).await;
}

async fn metadata(side: &mut Side) {
    let change = |change: serde_json::Value| patch(A).json(&change);
    let wanted = [
        ("status", "200"),
        ("/metageneration", "2"),
        ("/generation", "{SECOND}"),
        ("/metadata", r#"{"gone":"soon","who":"me"}"#),
        ("/contentType", "text/plain"),
    ];
    side.ask(
        "patch",
        change(json!({"metadata": {"who": "me", "gone": "soon"}})),
        &wanted,
    )
    .await;
    let wanted = [
        ("/metageneration", "3"),
        ("/metadata", r#"{"who":"me"}"#),
        ("/contentLanguage", "de"),
    ];
    let removed = change(json!({"metadata": {"gone": null}, "contentLanguage": "de"}));
    side.ask("patch, a key taken away", removed, &wanted).await;
    let wanted = [("/metageneration", "4"), ("/contentLanguage", "absent")];
    side.ask(
        "patch, a field taken away",
        change(json!({"contentLanguage": null})),
        &wanted,
    )
    .await;
    let conditional = patch(&format!("{A}?ifMetagenerationMatch=1")).json(&json!({"contentType": "x/y"}));
    side.ask("patch, ifMetagenerationMatch of another", conditional, REFUSED)
        .await;
    let conditional = patch(&format!("{A}?ifMetagenerationNotMatch=4")).json(&json!({"contentType": "x/y"}));
    side.ask("patch, ifMetagenerationNotMatch of it", conditional, REFUSED)
        .await;
    let wanted = [
        ("status", "200"),
        ("/metadata", "absent"),
        ("/contentType", "x/y"),
        ("/metageneration", "5"),
    ];
    let replaced = put(&format!("{A}?ifMetagenerationMatch=4")).json(&json!({"contentType": "x/y"}));
    side.ask("update replaces all", replaced, &wanted).await;
    let nothing = patch("/storage/v1/b/BUCKET/o/none").json(&json!({}));
    side.ask("patch what is not there", nothing, &[("status", "404")]).await;
}

async fn copies(side: &mut Side) {
    let to = |verb: &str, target: &str| post(&format!("{A}/{verb}/b/BUCKET/o/{target}"));
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#rewriteResponse"),
        ("/done", "true"),
        ("/totalBytesRewritten", "6"),
        ("/objectSize", "6"),
        ("/resource/name", "c/1"),
        ("/resource/contentType", "x/y"),
        ("/resource/metageneration", "1"),
    ];
    side.ask("rewrite", to("rewriteTo", "c%2F1?ifGenerationMatch=0"), &wanted)
        .await;
    let wanted = [
        ("status", "200"),
        ("/resource/contentType", "text/z"),
        ("/resource/size", "6"),
    ];
    let body = to("rewriteTo", "c%2F2").json(&json!({"contentType": "text/z"}));
    side.ask("rewrite with metadata", body, &wanted).await;
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#object"),
        ("/name", "c/3"),
        ("/size", "6"),
    ];
    side.ask("copy", to("copyTo", "c%2F3"), &wanted).await;
    for (call, query) in [
        ("rewrite over an object, ifGenerationMatch 0", "ifGenerationMatch=0"),
        (
            "rewrite, ifSourceGenerationMatch of another",
            "ifSourceGenerationMatch=7",
        ),
        (
            "rewrite, ifSourceGenerationNotMatch of it",
            "ifSourceGenerationNotMatch={SECOND}",
        ),
        (
            "rewrite, ifSourceMetagenerationMatch of another",
            "ifSourceMetagenerationMatch=7",
        ),
    ] {
        side.ask(call, to("rewriteTo", &format!("c%2F1?{query}")), REFUSED)
            .await;
    }
    let nothing = post("/storage/v1/b/BUCKET/o/none/rewriteTo/b/BUCKET/o/c%2F4");
    side.ask("rewrite what is not there", nothing, &[("status", "404")])
        .await;
    let generation = to("rewriteTo", "c%2F4?sourceGeneration={FIRST}");
    side.ask("rewrite a generation that is gone", generation, &[("status", "404")])
        .await;
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#object"),
        ("/name", "c/moved"),
        ("/contentType", "x/y"),
    ];
    let moved = post("/storage/v1/b/BUCKET/o/c%2F1/moveTo/o/c%2Fmoved?ifGenerationMatch=0");
    side.ask("move", moved, &wanted).await;
    side.ask(
        "what was moved",
        get("/storage/v1/b/BUCKET/o/c%2F1"),
        &[("status", "404")],
    )
    .await;
}

async fn composed(side: &mut Side) {
    let target = "/storage/v1/b/BUCKET/o/composed/compose";
    let sources = json!([{"name": "a"}, {"name": "c/3", "objectPreconditions": {}}, {"name": "a"}]);
    let body = json!({"sourceObjects": sources, "destination": {"contentType": "text/c"}});
    let wanted = [
        ("status", "200"),
        ("/size", "18"),
        ("/componentCount", "3"),
        ("/md5Hash", "absent"),
        ("/crc32c", "MmyERw=="),
        ("/contentType", "text/c"),
    ];
    side.ask(
        "compose",
        post(&format!("{target}?ifGenerationMatch=0")).json(&body),
        &wanted,
    )
    .await;
    let wanted = [
        ("body", "hello!hello!hello!"),
        ("header x-goog-hash", "crc32c=MmyERw=="),
    ];
    side.ask(
        "bytes of what was composed",
        get("/storage/v1/b/BUCKET/o/composed?alt=media"),
        &wanted,
    )
    .await;
    side.ask(
        "compose over an object, ifGenerationMatch 0",
        post(&format!("{target}?ifGenerationMatch=0")).json(&body),
        REFUSED,
    )
    .await;
    let condition = json!({"sourceObjects": [{"name": "a", "objectPreconditions": {"ifGenerationMatch": "7"}}]});
    side.ask(
        "compose, a source's ifGenerationMatch of another",
        post(target).json(&condition),
        REFUSED,
    )
    .await;
    let nothing = json!({"sourceObjects": [{"name": "a"}, {"name": "none"}]});
    side.ask(
        "compose of what is not there",
        post(target).json(&nothing),
        &[("status", "404")],
    )
    .await;
    let many: Vec<_> = (0..33).map(|_| json!({"name": "a"})).collect();
    let many = post(target).json(&json!({"sourceObjects": many}));
    side.ask("compose of 33", many, &[("status", "400")]).await;
}

async fn deletion(side: &mut Side) {
    let target = "/storage/v1/b/BUCKET/o/c%2F3";
    for (call, query) in [
        ("delete, ifGenerationMatch of another", "ifGenerationMatch=7"),
        ("delete, ifMetagenerationMatch of another", "ifMetagenerationMatch=7"),
        ("delete, ifMetagenerationNotMatch of it", "ifMetagenerationNotMatch=1"),
    ] {
        side.ask(call, delete(&format!("{target}?{query}")), REFUSED).await;
    }
    side.ask("delete", delete(target), &[("status", "204"), ("body", "nothing")])
        .await;
    let wanted = [("status", "404")];
    side.ask("delete again", delete(target), &wanted).await;
}

async fn versions(side: &mut Side) {
    let on = patch("/storage/v1/b/BUCKET").json(&json!({"versioning": {"enabled": true}}));
    let wanted = [
        ("status", "200"),
        ("/versioning/enabled", "true"),
        ("/metageneration", "2"),
    ];
    side.ask("turn versioning on", on, &wanted).await;
    for (call, name) in [("upload a version", "V1"), ("upload another version", "V2")] {
        let upload = post(&format!("{UPLOAD}=media&name=v"))
            .header("content-type", "text/plain")
            .body(name);
        let made = side.ask(call, upload, &[("status", "200")]).await;
        side.name(name, made.look("/generation"));
    }
    let v = "/storage/v1/b/BUCKET/o/v";
    let wanted = [("status", "200"), ("body", "V1")];
    side.ask(
        "bytes of the version before",
        get(&format!("{v}?alt=media&generation={{V1}}")),
        &wanted,
    )
    .await;
    let wanted = [("status", "200"), ("/generation", "{V1}"), ("/timeDeleted", "present")];
    side.ask("the version before", get(&format!("{v}?generation={{V1}}")), &wanted)
        .await;
    let list = |query: &str| get(&format!("/storage/v1/b/BUCKET/o?prefix=v&{query}"));
    let wanted = [
        ("names /items", "v v"),
        ("/items/0/generation", "{V1}"),
        ("/items/1/generation", "{V2}"),
        ("/items/0/timeDeleted", "present"),
        ("/items/1/timeDeleted", "absent"),
    ];
    side.ask("a list of versions", list("versions=true"), &wanted).await;
    side.ask(
        "a list of the live ones",
        list("versions=false"),
        &[("names /items", "v")],
    )
    .await;
    side.ask("delete the live version", delete(v), &[("status", "2xx")])
        .await;
    side.ask("the live version is gone", get(v), &[("status", "404")]).await;
    let wanted = [("status", "200"), ("/timeDeleted", "present")];
    side.ask(
        "the live version is kept",
        get(&format!("{v}?generation={{V2}}")),
        &wanted,
    )
    .await;
    let again = post(&format!("{UPLOAD}=media&name=v&ifGenerationMatch=0"))
        .header("content-type", "text/plain")
        .body("V3");
    side.ask(
        "upload where only old versions are, ifGenerationMatch 0",
        again,
        &[("status", "200")],
    )
    .await;
    for version in ["V1", "V2"] {
        let call = format!("delete the version {version}");
        let old = delete(&format!("{v}?generation={{{version}}}"));
        side.ask(&call, old, &[("status", "2xx")]).await;
    }
    side.ask(
        "a list of what is left",
        list("versions=true"),
        &[("names /items", "v")],
    )
    .await;
}

async fn notifications(side: &mut Side) {
    let configurations = "/storage/v1/b/BUCKET/notificationConfigs";
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#notifications"),
        ("raw /items", "absent"),
    ];
    side.ask("no notifications", get(configurations), &wanted).await;
    let topic = "//pubsub.googleapis.com/projects/local-project/topics/events";
    let asked = json!({
        "topic": topic, "payload_format": "JSON_API_V1", "event_types": ["OBJECT_FINALIZE"],
        "object_name_prefix": "in/", "custom_attributes": {"k": "v"},
    });
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#notification"),
        ("/id", "present"),
        ("/topic", topic),
        ("/payload_format", "JSON_API_V1"),
        ("/event_types", r#"["OBJECT_FINALIZE"]"#),
        ("/object_name_prefix", "in/"),
        ("/custom_attributes/k", "v"),
        ("/selfLink", "present"),
        ("/etag", "present"),
    ];
    let made = side
        .ask("create a notification", post(configurations).json(&asked), &wanted)
        .await;
    side.name("NOTIFICATION", format!("notificationConfigs/{}", made.look("/id")));
    let one = "/storage/v1/b/BUCKET/{NOTIFICATION}";
    side.ask("a notification", get(one), &wanted[..2]).await;
    side.ask("notifications", get(configurations), &[("/items/0/topic", topic)])
        .await;
    let mut without = asked.clone();
    without["payload_format"] = json!(null);
    let wanted = [("status", "400")];
    side.ask(
        "create a notification without a payload format",
        post(configurations).json(&without),
        &wanted,
    )
    .await;
    side.ask("delete a notification", delete(one), &[("status", "2xx")])
        .await;
    side.ask("delete a notification again", delete(one), &[("status", "404")])
        .await;
}

async fn buckets(side: &mut Side) {
    let bucket = "/storage/v1/b/BUCKET";
    let again = post("/storage/v1/b?project=p").json(&json!({"name": "BUCKET"}));
    side.ask("create a bucket again", again, &[("status", "409")]).await;
    let nameless = post("/storage/v1/b?project=p").json(&json!({}));
    side.ask("create a bucket without a name", nameless, &[("status", "400")])
        .await;
    let bad = post("/storage/v1/b?project=p").json(&json!({"name": "No Good"}));
    side.ask("create a bucket with a bad name", bad, &[("status", "400")])
        .await;
    let wanted = [
        ("status", "200"),
        ("/versioning/enabled", "true"),
        ("/metageneration", "2"),
        ("/etag", "present"),
    ];
    side.ask("a bucket", get(bucket), &wanted).await;
    side.ask(
        "a bucket, ifMetagenerationMatch of another",
        get(&format!("{bucket}?ifMetagenerationMatch=7")),
        REFUSED,
    )
    .await;
    let unchanged = get(&format!("{bucket}?ifMetagenerationNotMatch=2"));
    side.ask(
        "a bucket, ifMetagenerationNotMatch of it",
        unchanged,
        &[("status", "304"), ("body", "nothing")],
    )
    .await;
    let labels = patch(bucket).json(&json!({"labels": {"a": "b", "c": "d"}}));
    side.ask(
        "label a bucket",
        labels,
        &[("status", "200"), ("/labels", r#"{"a":"b","c":"d"}"#)],
    )
    .await;
    let labels = patch(bucket).json(&json!({"labels": {"c": null}}));
    side.ask(
        "take a label away",
        labels,
        &[("status", "200"), ("/labels", r#"{"a":"b"}"#)],
    )
    .await;
    let other = patch(&format!("{bucket}?ifMetagenerationMatch=1")).json(&json!({"labels": null}));
    side.ask("patch a bucket, ifMetagenerationMatch of another", other, REFUSED)
        .await;
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#buckets"),
        ("names /items", "BUCKET"),
    ];
    side.ask(
        "a list of buckets, prefix",
        get("/storage/v1/b?project=p&prefix=BUCKET"),
        &wanted,
    )
    .await;
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#storageLayout"),
        ("/bucket", "BUCKET"),
        ("/location", "US"),
        ("/hierarchicalNamespace/enabled", "false"),
    ];
    side.ask("a bucket's layout", get(&format!("{bucket}/storageLayout")), &wanted)
        .await;
    let wanted = [
        ("status", "200"),
        ("/kind", "storage#serviceAccount"),
        ("/email_address", "present"),
    ];
    side.ask(
        "the storage account",
        get("/storage/v1/projects/local-project/serviceAccount"),
        &wanted,
    )
    .await;
    let wanted = [("status", "409")];
    side.ask("delete a bucket with objects", delete(bucket), &wanted).await;
    let wanted = [("status", "404")];
    side.ask(
        "a bucket that is not there",
        get("/storage/v1/b/contract-nowhere"),
        &wanted,
    )
    .await;
}
