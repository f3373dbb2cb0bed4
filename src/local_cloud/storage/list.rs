//! Lists of objects: prefixes, folding by delimiter, pages.

use std::collections::BTreeSet;

use axum::{http::StatusCode, response::Response};
use serde_json::json;

use super::{
    super::{
        Refusal, World, base64_of_google,
        server::{Request, json as json_answer},
        to_base64,
    },
    glob::Glob,
    parameters::number,
    resource,
};

pub(super) fn objects(world: &World, request: &Request, bucket: &str) -> Result<Response, Refusal> {
    let prefix = request.parameter("prefix").unwrap_or_default();
    let delimiter = request.parameter("delimiter").filter(|delimiter| !delimiter.is_empty());
    // Python's client says "True".
    let versions = request
        .parameter("versions")
        .is_some_and(|versions| versions.eq_ignore_ascii_case("true"));
    let start = request.parameter("startOffset").unwrap_or_default();
    let trailing = request
        .parameter("includeTrailingDelimiter")
        .is_some_and(|trailing| trailing.eq_ignore_ascii_case("true"));
    let glob = match request.parameter("matchGlob").filter(|pattern| !pattern.is_empty()) {
        Some(pattern) => Some(
            Glob::read(&pattern).ok_or_else(|| Refusal::invalid(format!("Invalid value for matchGlob: {pattern}")))?,
        ),
        None => None,
    };
    let end = request.parameter("endOffset").filter(|end| !end.is_empty());
    let after = request
        .parameter("pageToken")
        .map(|token| page_token(&token))
        .transpose()?;
    let most = match number(request, "maxResults")? {
        None => 1000,
        Some(most) => usize::try_from(most)
            .ok()
            .filter(|most| *most > 0)
            .map_or(1000, |most| most.min(1000)),
    };
    let store = world.storage.look();
    let mut items = Vec::new();
    let mut prefixes = BTreeSet::new();
    // The page ends after this entry: an object's name, or a prefix that stands for all that begin with it.
    let mut last = None;
    let mut next = None;
    for (name, generations) in &store.bucket(bucket)?.objects {
        if !name.starts_with(&prefix) || *name < start || end.as_ref().is_some_and(|end| name >= end) {
            continue;
        }
        if glob.as_ref().is_some_and(|glob| !glob.matches(name)) {
            continue;
        }
        let folded = delimiter.as_ref().and_then(|delimiter| {
            let at = name[prefix.len()..].find(delimiter.as_str())?;
            Some(&name[..prefix.len() + at + delimiter.len()])
        });
        let entry = folded.unwrap_or(name);
        if after.as_deref().is_some_and(|after| entry <= after) || last == Some(entry) && folded.is_some() {
            continue;
        }
        let shown: Vec<_> = generations
            .iter()
            .filter(|object| versions || object.deleted.is_none())
            .collect();
        if shown.is_empty() {
            continue;
        }
        if items.len() + prefixes.len() >= most {
            next = last;
            break;
        }
        if let Some(prefix) = folded {
            prefixes.insert(prefix);
        }
        // The object that a folder's placeholder is, beside the prefix that it is folded into.
        if folded.is_none() || trailing && folded == Some(name) {
            items.extend(shown.into_iter().map(|object| resource::object(world, bucket, object)));
        }
        last = Some(entry);
    }
    let mut list = json!({"kind": "storage#objects"});
    if !prefixes.is_empty() {
        list["prefixes"] = json!(prefixes);
    }
    if !items.is_empty() {
        list["items"] = json!(items);
    }
    if let Some(next) = next {
        list["nextPageToken"] = json!(to_base64(next.as_bytes()));
    }
    Ok(json_answer(StatusCode::OK, &list))
}

fn page_token(token: &str) -> Result<String, Refusal> {
    base64_of_google(token)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::invalid("Invalid pageToken"))
}
