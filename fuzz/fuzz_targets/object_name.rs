//! Object names: what is signed is the name and nothing but the name, byte for byte, and what a browser is told to save
//! it as cannot end the header or climb out of its directory.
#![no_main]

use std::time::Duration;

use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use platen::deliver::disposition::content_disposition;
use platen::deliver::sign::{Endpoint, Request, Style, prepare};
use platen::job::{Disposition, NameTemplate, NameValues, is_object_name};

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte)
}

fn signed(name: &str) {
    let disposition = content_disposition(Disposition::Attachment, name);
    let query = [("response-content-disposition".to_owned(), disposition.clone())];
    let endpoint = Endpoint::default();
    for style in [Style::Path, Style::VirtualHosted, Style::BucketBound] {
        let request = Request {
            method: "GET",
            bucket: "out",
            object: Some(name),
            headers: &[],
            query: &query,
            style,
            endpoint: &endpoint,
            at: DateTime::from_timestamp(1_795_303_686, 0).expect("a time"),
            ttl: Duration::from_secs(3600),
        };
        let unsigned = prepare(&request, "s@p.iam.gserviceaccount.com").expect("every name can be signed");
        let lines: Vec<&str> = unsigned.canonical_request.split('\n').collect();
        assert_eq!(lines.len(), 7, "a name added a line");
        let path = if matches!(style, Style::Path) {
            lines[1].strip_prefix("/out/")
        } else {
            lines[1].strip_prefix('/')
        };
        let path = path.expect("the path begins with its place");
        assert!(path.bytes().all(|byte| is_plain(byte) || byte == b'%'));
        assert_eq!(percent_decode_str(path).decode_utf8().expect("UTF-8"), name);
        let url = unsigned.with(&[1, 2]);
        let (before, after) = url.expose().split_once('?').expect("a query");
        assert!(before.ends_with(lines[1]) && !after.contains('?') && !url.expose().contains('#'));
        assert!(after.starts_with(lines[2]) && after.ends_with("&X-Goog-Signature=0102"));
    }
    assert!(disposition.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let kept = disposition.strip_prefix("attachment").expect("the kind comes first");
    let Some(kept) = kept.strip_prefix("; filename=\"") else {
        assert!(kept.is_empty());
        return;
    };
    let (plain, extended) = kept.split_once('"').expect("the quote is closed");
    assert!(!plain.contains(['\\', '/', '%']) && plain != "." && plain != "..");
    if let Some(extended) = extended.strip_prefix("; filename*=UTF-8''") {
        let decoded = percent_decode_str(extended).decode_utf8().expect("UTF-8");
        assert!(!decoded.contains(['/', '\\']) && !decoded.chars().any(char::is_control));
        assert!(decoded.len() <= 200);
    } else {
        assert!(extended.is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (template, name) = text.split_once('\n').unwrap_or(("", text));
    if name.is_empty() {
        return;
    }
    signed(name);
    let template = NameTemplate::parse(template).unwrap_or_default();
    if is_object_name(name) {
        let values = NameValues {
            bucket: "in",
            object: name,
            generation: 17,
            extension: "pdf",
            job_id: "0123456789abcdef0123456789abcdef",
        };
        let filled = template.fill(&values);
        assert!(
            filled.len() <= 1024,
            "Cloud Storage takes no name of {} bytes",
            filled.len()
        );
        if !filled.is_empty() {
            signed(&filled);
        }
    }
});
