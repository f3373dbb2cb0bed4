//! What signed links are refused with, word for word.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use super::raw;
use super::signed::{sign, with_object};

/// An error document of these elements, to the byte.
fn error(elements: &[(&str, &str)]) -> String {
    let elements = elements.iter().map(|(name, text)| format!("<{name}>{text}</{name}>"));
    let elements: String = elements.collect();
    format!("<?xml version='1.0' encoding='UTF-8'?><Error>{elements}</Error>")
}

#[tokio::test]
async fn refusals_are_in_googles_words_for_all_three_kinds_of_links() {
    let cloud = with_object().await;
    let storage = &cloud.cloud.urls().storage;
    let resumable = ("x-goog-resumable", "start");
    for (method, path, headers) in [
        ("GET", "/out/dir/a%20b.pdf", &[][..]),
        ("PUT", "/out/new.pdf", &[]),
        ("POST", "/out/new.pdf", &[resumable]),
    ] {
        let target = sign(&cloud, method, path, &[], headers).await;
        let wrong = target.replace("Signature=", "Signature=00");
        let answer = raw(storage, method, &wrong, headers).await;
        let text = answer.text();
        let (before, rest) = text.split_once("<StringToSign>").unwrap();
        let (to_sign, rest) = rest.split_once("</StringToSign>").unwrap();
        let canonical = rest.strip_prefix("<CanonicalRequest>").unwrap();
        let canonical = canonical.strip_suffix("</CanonicalRequest></Error>").unwrap();
        let start = error(&[
            ("Code", "SignatureDoesNotMatch"),
            ("Message", "Access denied."),
            (
                "Details",
                "The request signature we calculated does not match the signature you provided. Check your Google \
                 secret key and signing method.",
            ),
        ]);
        assert_eq!((answer.status, before), (403, start.strip_suffix("</Error>").unwrap()));
        let canonical = canonical.replace("&amp;", "&");
        assert!(canonical.starts_with(&format!("{method}\n{path}\n")), "{canonical}");
        // The string to sign is that of the canonical request: with both, a signer finds where it differs.
        let digest = Sha256::digest(&canonical).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert!(
            to_sign.starts_with("GOOG4-RSA-SHA256\n") && to_sign.ends_with(&digest),
            "{to_sign}"
        );

        let unsigned = raw(storage, method, &target, &[headers, &[("x-goog-meta-a", "b")]].concat()).await;
        let words = error(&[
            ("Code", "MalformedSecurityHeader"),
            ("Message", "Invalid argument."),
            ("Details", "Your request has a malformed header. Header must be signed."),
            ("ParameterName", "x-goog-meta-a"),
        ]);
        assert_eq!((unsigned.status, unsigned.text()), (400, words));

        let made = cloud.cloud.clock().now();
        cloud.cloud.clock().advance(TimeDelta::seconds(600));
        let answer = raw(storage, method, &target, headers).await;
        let text = answer.text();
        let stamp = text.split_once("expired at: ").unwrap().1.split_once('<').unwrap().0;
        let expired = stamp.parse::<DateTime<Utc>>().unwrap() - made;
        assert!((57..=61).contains(&expired.num_seconds()), "{stamp}");
        let details = format!("The provided token has expired. Request signature expired at: {stamp}");
        let words = error(&[
            ("Code", "ExpiredToken"),
            ("Message", "Invalid argument."),
            ("Details", &details),
        ]);
        assert_eq!((answer.status, &text), (400, &words));
        assert!(stamp.ends_with("+00:00"), "{stamp}");
    }
    let target = sign(&cloud, "POST", "/out/new.pdf", &[], &[resumable]).await;
    let absent = raw(storage, "POST", &target, &[]).await;
    let words = error(&[
        ("Code", "MalformedSecurityHeader"),
        ("Message", "Invalid argument."),
        (
            "Details",
            "Your request has a malformed header. Header was included in signedheaders, but not in the request.",
        ),
        ("ParameterName", "x-goog-resumable"),
    ]);
    assert_eq!((absent.status, absent.text()), (400, words));
}
