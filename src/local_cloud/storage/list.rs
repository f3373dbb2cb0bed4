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
    object::Object,
    parameters::number,
    resource,
    store::Bucket,
};

/// The longest page.
pub(super) const MOST: usize = 1000;

/// Which objects, and how many of them.
pub(super) struct Selection {
    pub(super) prefix: String,
    /// What folds names into prefixes.
    pub(super) delimiter: Option<String>,
    /// Also those that are no longer live.
    pub(super) versions: bool,
    pub(super) start: String,
    pub(super) end: Option<String>,
    /// The object that a folder's placeholder is, beside the prefix that it is folded into.
    pub(super) trailing: bool,
    pub(super) glob: Option<Glob>,
    pub(super) after: Option<Place>,
    pub(super) most: usize,
}

/// Where a page ended: an object's name, or a prefix that stands for all that begin with it; and the generation that was the last one,
/// if more of the same name come after it.
pub(super) struct Place {
    entry: String,
    generation: Option<i64>,
}

#[derive(Default)]
pub(super) struct Page<'a> {
    pub(super) objects: Vec<&'a Object>,
    pub(super) prefixes: BTreeSet<&'a str>,
    /// Where it ended, if there is more.
    pub(super) next: Option<Place>,
}

impl Place {
    pub(super) fn after(entry: String) -> Self {
        Self {
            entry,
            generation: None,
        }
    }

    pub(super) fn of_token(token: &str) -> Result<Self, Refusal> {
        let text = base64_of_google(token).and_then(|bytes| String::from_utf8(bytes).ok());
        let place = text.and_then(|text| match text.split_once('\n') {
            None => Some(Self::after(text)),
            Some((entry, generation)) => Some(Self {
                entry: entry.to_owned(),
                generation: Some(generation.parse().ok()?),
            }),
        });
        place.ok_or_else(|| Refusal::invalid("Invalid pageToken"))
    }

    /// No name has a line feed in it.
    pub(super) fn token(&self) -> String {
        let generation = self.generation.map(|generation| format!("\n{generation}"));
        to_base64(format!("{}{}", self.entry, generation.unwrap_or_default()).as_bytes())
    }

    pub(super) fn entry(&self) -> &str {
        &self.entry
    }

    fn is_behind(&self, entry: &str, object: &Object) -> bool {
        match self.generation {
            Some(generation) if entry == self.entry => object.generation <= generation,
            _ => entry <= self.entry.as_str(),
        }
    }
}

impl Selection {
    fn read(request: &Request) -> Result<Self, Refusal> {
        let text = |name: &str| request.parameter(name).filter(|text| !text.is_empty());
        // Python's client says "True".
        let is_true = |name: &str| {
            request
                .parameter(name)
                .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        };
        let glob = match text("matchGlob") {
            Some(pattern) => Some(
                Glob::read(&pattern)
                    .ok_or_else(|| Refusal::invalid(format!("Invalid value for matchGlob: {pattern}")))?,
            ),
            None => None,
        };
        Ok(Self {
            prefix: request.parameter("prefix").unwrap_or_default(),
            delimiter: text("delimiter"),
            versions: is_true("versions"),
            start: request.parameter("startOffset").unwrap_or_default(),
            end: text("endOffset"),
            trailing: is_true("includeTrailingDelimiter"),
            glob,
            after: text("pageToken").map(|token| Place::of_token(&token)).transpose()?,
            most: most(request, "maxResults")?,
        })
    }

    pub(super) fn page<'a>(&self, bucket: &'a Bucket) -> Page<'a> {
        let mut page = Page::default();
        let mut last: Option<Place> = None;
        for (name, generations) in &bucket.objects {
            let is_outside = !name.starts_with(&self.prefix)
                || *name < self.start
                || self.end.as_ref().is_some_and(|end| name >= end)
                || self.glob.as_ref().is_some_and(|glob| !glob.matches(name));
            if is_outside {
                continue;
            }
            let folded = self.delimiter.as_ref().and_then(|delimiter| {
                let at = name[self.prefix.len()..].find(delimiter.as_str())?;
                Some(&name[..self.prefix.len() + at + delimiter.len()])
            });
            let entry = folded.unwrap_or(name);
            let is_folded_already = folded.is_some_and(|prefix| page.prefixes.contains(prefix));
            let is_shown = |object: &&Object| {
                (self.versions || object.deleted.is_none())
                    && !self.after.as_ref().is_some_and(|after| after.is_behind(entry, object))
            };
            let mut shown = generations.iter().filter(is_shown).peekable();
            if is_folded_already || shown.peek().is_none() {
                continue;
            }
            if let Some(prefix) = folded {
                if page.is_full(self.most) {
                    page.next = last;
                    return page;
                }
                page.prefixes.insert(prefix);
                last = Some(Place::after(prefix.to_owned()));
                if self.trailing && prefix == name {
                    page.objects.extend(shown);
                }
                continue;
            }
            for object in shown {
                if page.is_full(self.most) {
                    page.next = last;
                    return page;
                }
                page.objects.push(object);
                last = Some(Place {
                    entry: name.clone(),
                    generation: Some(object.generation),
                });
            }
        }
        page
    }
}

impl Page<'_> {
    pub(super) fn length(&self) -> usize {
        self.objects.len() + self.prefixes.len()
    }

    fn is_full(&self, most: usize) -> bool {
        self.length() >= most
    }
}

/// How long a page may be, by a parameter that need not be there.
pub(super) fn most(request: &Request, name: &str) -> Result<usize, Refusal> {
    let invalid = |given: i64| Refusal::invalid(format!("Invalid value for {name}: {given}. It must be 1 or more."));
    match number(request, name)? {
        None => Ok(MOST),
        Some(given @ ..=0) => Err(invalid(given)),
        Some(given) => Ok(usize::try_from(given).unwrap_or(MOST).min(MOST)),
    }
}

pub(super) fn objects(world: &World, request: &Request, bucket: &str) -> Result<Response, Refusal> {
    let selection = Selection::read(request)?;
    let deleted = request
        .parameter("softDeleted")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if deleted && selection.versions {
        return Err(Refusal::invalid("softDeleted and versions cannot both be true."));
    }
    let store = world.storage.look();
    let bucket_there = store.bucket(bucket)?;
    // No bucket here keeps what was deleted.
    let page = if deleted {
        Page::default()
    } else {
        selection.page(bucket_there)
    };
    let mut list = json!({"kind": "storage#objects"});
    if !page.prefixes.is_empty() {
        list["prefixes"] = json!(page.prefixes);
    }
    if !page.objects.is_empty() {
        let items = page
            .objects
            .iter()
            .map(|object| resource::object(world, bucket, object));
        list["items"] = json!(items.collect::<Vec<_>>());
    }
    if let Some(next) = page.next {
        list["nextPageToken"] = json!(next.token());
    }
    Ok(json_answer(StatusCode::OK, &list))
}
