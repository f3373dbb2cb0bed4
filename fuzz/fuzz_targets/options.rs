//! The option parser: JSON in; out comes either a sentence or options in one canonical form.
//!
//! The first byte chooses the door: the options of one output (the byte also chooses its format), a command line's
//! arguments (one a line), or a whole job message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use platen::error::{Failure, FailureCode};
use platen::job::{Format, NameTemplate, OptionValue, Options, Request};
use serde_json::{Map, Value};

/// A sentence is cut behind 2,048 bytes, and says so.
const LONGEST_SENTENCE: usize = 2100;

fuzz_target!(|data: &[u8]| {
    let Some((&door, rest)) = data.split_first() else {
        return;
    };
    let format = Format::ALL[usize::from(door >> 2) % Format::ALL.len()];
    match door & 3 {
        0 | 1 => {
            if let Ok(Value::Object(given)) = serde_json::from_slice(rest) {
                options(format, &given);
            }
        }
        2 => {
            if let Ok(text) = std::str::from_utf8(rest) {
                let arguments: Vec<String> = text.lines().map(str::to_owned).collect();
                match Options::parse_arguments(format, &arguments) {
                    Ok(options) => assert_canonical(format, &options),
                    Err(failure) => assert_says_what_is_wrong(&failure),
                }
            }
        }
        _ => message(rest),
    }
});

fn options(format: Format, given: &Map<String, Value>) {
    match Options::parse(format, given) {
        Ok(options) => {
            for (name, _) in options.iter() {
                assert!(given.contains_key(name), "{name} comes from nowhere");
            }
            assert_canonical(format, &options);
        }
        Err(failure) => {
            assert_says_what_is_wrong(&failure);
            assert_eq!(failure.code, FailureCode::OptionInvalid);
            let option = failure.detail.get("option").and_then(Value::as_str).unwrap_or_default();
            // It is about an option that was given. What is quoted is cut, so it may be the beginning of the name.
            let named = option.split("… (cut)").next().unwrap_or_default();
            assert!(given.keys().any(|name| name.starts_with(named)), "{failure}");
        }
    }
}

/// What was normalised is its own normal form, by either door.
fn assert_canonical(format: Format, options: &Options) {
    let json: Map<String, Value> = options
        .iter()
        .map(|(name, value)| (name.to_owned(), to_json(value)))
        .collect();
    assert_eq!(Options::parse(format, &json).as_ref(), Ok(options));
    let arguments: Vec<String> = options
        .iter()
        .map(|(name, value)| match value {
            OptionValue::Text(text) => format!("{name}={text}"),
            other => format!("{name}={}", to_json(other)),
        })
        .collect();
    assert_eq!(Options::parse_arguments(format, &arguments).as_ref(), Ok(options));
}

fn to_json(value: &OptionValue) -> Value {
    match value {
        OptionValue::Switch(value) => Value::from(*value),
        OptionValue::Number(value) => Value::from(*value),
        OptionValue::Text(value) => Value::from(value.as_str()),
    }
}

fn message(data: &[u8]) {
    let template = NameTemplate::parse("{dir}{stem}.{ext}").expect("the default is a template");
    let request = match Request::from_json(data) {
        Ok(request) => request,
        Err(failure) => return assert_says_what_is_wrong(&failure),
    };
    assert_eq!(request.provisional_id().as_str().len(), 32);
    match request.clone().into_job(&template) {
        Ok(job) => {
            assert!(!job.outputs.is_empty());
            let again = request
                .into_job(&template)
                .expect("the same request gives the same job");
            assert_eq!(job.id(Some(1)), again.id(Some(1)));
            assert_ne!(job.id(Some(1)), job.id(Some(2)));
            for output in &job.outputs {
                assert_canonical(output.format, &output.options);
            }
        }
        Err(failure) => assert_says_what_is_wrong(&failure),
    }
}

fn assert_says_what_is_wrong(failure: &Failure) {
    assert!(
        !failure.message.is_empty() && failure.message.len() <= LONGEST_SENTENCE,
        "{failure}"
    );
    assert!(failure.message.ends_with('.'), "{failure}");
}
