//! JSON as Google's APIs read it (protobuf's JSON mapping): members in two spellings, null for what is not there, numbers in
//! strings. <https://protobuf.dev/programming-guides/json/>

use serde_json::{Map, Value};

/// Members whose own members are a client's.
const MAPS: [&str; 2] = ["attributes", "labels"];
/// Members that are whole numbers.
const NUMBERS: [&str; 3] = ["ackDeadlineSeconds", "maxDeliveryAttempts", "maxMessages"];

/// A body in the spelling that this cloud reads.
pub(super) fn ours(body: Value) -> Value {
    match body {
        Value::Object(members) => Value::Object(members.into_iter().filter_map(member).collect::<Map<_, _>>()),
        Value::Array(values) => values.into_iter().map(ours).collect(),
        other => other,
    }
}

fn member((name, value): (String, Value)) -> Option<(String, Value)> {
    let name = camel(&name);
    let value = match value {
        Value::Null => return None,
        Value::String(text) if NUMBERS.contains(&name.as_str()) => text.parse::<i64>().map_or(text.into(), Value::from),
        map if MAPS.contains(&name.as_str()) => map,
        other => ours(other),
    };
    Some((name, value))
}

/// `ack_deadline_seconds` as `ackDeadlineSeconds`: members and masks come in both spellings.
pub(super) fn camel(field: &str) -> String {
    let mut upper = false;
    field
        .chars()
        .filter_map(|letter| {
            if letter == '_' {
                upper = true;
                return None;
            }
            let shown = if upper { letter.to_ascii_uppercase() } else { letter };
            upper = false;
            Some(shown)
        })
        .collect()
}
