//! Envelopes: whatever a request's headers and body are, they are refused as no event, or their content is decoded to a
//! plan, or to a failure that the contract names.
//!
//! Lines of `name: value` up to an empty one are the headers, the rest is the body.
#![no_main]

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use globset::GlobSet;
use libfuzzer_sys::fuzz_target;
use platen::accept::{Event, Plan, Rules, decode, plan, push};
use platen::error::{FailureCode, RefusalKind};
use platen::job::{NameTemplate, is_bucket_name, is_object_name};

thread_local! {
    static RULES: Rules = Rules {
        input_buckets: vec!["in".to_owned()],
        output_name: NameTemplate::default(),
        include: None,
        exclude: GlobSet::empty(),
        readable: |extension| extension == "docx",
    };
}

fn request(data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            return (headers, rest);
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii_start()),
        ) {
            headers.append(name, value);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (headers, body) = request(data);
    let message = match push(&headers, body) {
        Ok(message) => message,
        Err(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::NotAnEvent);
            return;
        }
    };
    let event = match decode(&message.payload) {
        Ok(event) => event,
        Err(failure) => {
            assert!(matches!(
                failure.code,
                FailureCode::MessageInvalid | FailureCode::OptionInvalid
            ));
            assert!(!failure.message.is_empty() && failure.message.len() < 4096);
            return;
        }
    };
    if let Event::Finalized { source, .. } = &event {
        assert!(is_bucket_name(&source.bucket) && is_object_name(&source.name));
        assert!(source.generation.is_none_or(|generation| generation > 0));
    }
    match RULES.with(|rules| plan(rules, event)) {
        Ok(Plan::Convert(job)) => {
            assert_eq!(job.source.bucket, "in", "a bucket that is not ours");
            assert!(is_object_name(&job.source.name) && !job.outputs.is_empty());
        }
        Ok(Plan::Ignore(_)) => {}
        Err(failure) => assert!(matches!(
            failure.code,
            FailureCode::MessageInvalid | FailureCode::OptionInvalid | FailureCode::SourceForbidden
        )),
    }
});
