//! Partial answers: of a resource only what the parameter `fields` names, `a,b/c,d(e,f)` with `*` for every key.

use std::collections::BTreeMap;

use axum::{
    body::{Body, to_bytes},
    http::{StatusCode, header},
    response::Response,
};
use futures_util::FutureExt as _;
use serde_json::{Map, Value};

use super::super::{Refusal, server::json as json_answer};

/// What is wanted below each key; nothing below one is all that it has.
#[derive(Debug, Default, PartialEq)]
struct Mask(BTreeMap<String, Mask>);

/// Levels of a mask. No resource has as many, and each takes some of the stack.
const DEEPEST: usize = 32;

/// The same answer with the fields that are asked for. Errors and bytes of objects are not cut.
pub(super) fn select(answer: Response, fields: &str) -> Result<Response, Refusal> {
    let is_json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if answer.status() != StatusCode::OK || !is_json || answer.headers().contains_key("x-goog-stored-content-length") {
        return Ok(answer);
    }
    let mask = Mask::read(fields).ok_or_else(|| Refusal::invalid(format!("Invalid field selection {fields}")))?;
    let (parts, body) = answer.into_parts();
    // It is in memory whole: nothing is waited for.
    let bytes = to_bytes(body, usize::MAX).now_or_never().and_then(Result::ok);
    let bytes = bytes.unwrap_or_default();
    Ok(match serde_json::from_slice(&bytes) {
        Ok(value) => json_answer(StatusCode::OK, &mask.of(value)),
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    })
}

impl Mask {
    /// `None` for parentheses that do not match.
    fn read(fields: &str) -> Option<Self> {
        let mut mask = Self::default();
        let mut rest = fields;
        mask.add(&mut rest, DEEPEST)?;
        rest.is_empty().then_some(mask)
    }

    /// Reads up to the parenthesis that closes this level, and no deeper than so many more.
    fn add(&mut self, rest: &mut &str, deepest: usize) -> Option<()> {
        loop {
            let end = rest.find([',', '(', ')']).unwrap_or(rest.len());
            let (path, after) = rest.split_at(end);
            *rest = after;
            let mut below = &mut *self;
            let mut left = deepest;
            for key in path.split('/').map(str::trim) {
                if key.is_empty() {
                    return None;
                }
                left = left.checked_sub(1)?;
                below = below.0.entry(key.to_owned()).or_default();
            }
            if let Some(inner) = rest.strip_prefix('(') {
                *rest = inner;
                below.add(rest, left)?;
                *rest = rest.strip_prefix(')')?;
            }
            match rest.strip_prefix(',') {
                Some(more) => *rest = more,
                None => return Some(()),
            }
        }
    }

    fn of(&self, value: Value) -> Value {
        if self.0.is_empty() {
            return value;
        }
        match value {
            Value::Array(values) => values.into_iter().map(|value| self.of(value)).collect(),
            Value::Object(entries) => {
                let kept = entries.into_iter().filter_map(|(key, value)| {
                    let below = self.0.get(&key).or_else(|| self.0.get("*"))?;
                    Some((key, below.of(value)))
                });
                Value::Object(kept.collect::<Map<_, _>>())
            }
            value => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn masks_keep_what_they_name() {
        let whole =
            json!({"items": [{"name": "a", "size": "1"}, {"name": "b"}], "next": "x", "m": {"k": {"l": 1, "n": 2}}});
        for (fields, kept) in [
            ("next", json!({"next": "x"})),
            (
                "items/name,next",
                json!({"items": [{"name": "a"}, {"name": "b"}], "next": "x"}),
            ),
            (
                "items(size, name)",
                json!({"items": [{"name": "a", "size": "1"}, {"name": "b"}]}),
            ),
            ("m/*/l,nothing", json!({"m": {"k": {"l": 1}}})),
            ("m(k(n))", json!({"m": {"k": {"n": 2}}})),
            ("*", whole.clone()),
        ] {
            assert_eq!(Mask::read(fields).unwrap().of(whole.clone()), kept, "{fields}");
        }
        for fields in ["", "a(b", "a)", "a,,b", "a//b"] {
            assert_eq!(Mask::read(fields), None, "{fields}");
        }
    }
}
