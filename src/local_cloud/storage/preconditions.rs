//! Conditions on the object that is there.

use axum::http::{HeaderMap, Method};
use chrono::{DateTime, Utc};

use super::{super::Refusal, object::Object};

/// The conditions that a request can set, and nothing where it set none.
#[derive(Clone, Debug, Default)]
pub(super) struct Preconditions {
    pub(super) generation_match: Option<i64>,
    pub(super) generation_not_match: Option<i64>,
    pub(super) metageneration_match: Option<i64>,
    pub(super) metageneration_not_match: Option<i64>,
    pub(super) etags: Etags,
    pub(super) modified_since: Option<DateTime<Utc>>,
    pub(super) unmodified_since: Option<DateTime<Utc>>,
}

impl Preconditions {
    /// Checks them against the object that is there. Generation 0 stands for "none is there".
    pub(super) fn check(&self, method: &Method, object: Option<&Object>) -> Result<(), Refusal> {
        let generation = object.map_or(0, |object| object.generation);
        let metageneration = object.map(|object| object.metageneration);
        let reads = method == Method::GET || method == Method::HEAD;
        let holds = self.generation_match.is_none_or(|wanted| wanted == generation)
            && self
                .metageneration_match
                .is_none_or(|wanted| metageneration == Some(wanted));
        if !holds {
            return Err(Refusal::precondition());
        }
        // Where nothing is, there is nothing that could be another generation.
        let differs = self
            .generation_not_match
            .is_none_or(|unwanted| object.is_some_and(|object| object.generation != unwanted))
            && self
                .metageneration_not_match
                .is_none_or(|unwanted| metageneration != Some(unwanted));
        match (differs, reads) {
            (true, _) => {}
            (false, true) => return Err(Refusal::not_modified()),
            (false, false) => return Err(Refusal::precondition()),
        }
        // Each API shows another one of the same object.
        let etags = object.map(|object| [object.etag(), object.xml_etag()]);
        self.etags.check(reads, etags.as_ref().map(|etags| &etags[..]))?;
        object.map_or(Ok(()), |object| self.check_times(object))
    }

    /// As RFC 9110 has it: to the second, and an etag counts for more.
    fn check_times(&self, object: &Object) -> Result<(), Refusal> {
        let changed_after = |time: &DateTime<Utc>| object.updated.timestamp() > time.timestamp();
        if self.etags.wanted.is_none() && self.unmodified_since.as_ref().is_some_and(changed_after) {
            return Err(Refusal::precondition());
        }
        match &self.modified_since {
            Some(time) if self.etags.unwanted.is_none() && !changed_after(time) => Err(Refusal::not_modified()),
            _ => Ok(()),
        }
    }
}

/// `If-Match` and `If-None-Match`, without quotes; `*` is what anything matches that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Etags {
    wanted: Option<Vec<String>>,
    unwanted: Option<Vec<String>>,
}

impl Etags {
    pub(super) fn of_headers(headers: &HeaderMap) -> Self {
        let all = |name: &str| {
            let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            let etags: Vec<String> = values
                .flat_map(|value| value.split(','))
                .map(|etag| bare(etag).to_owned())
                .collect();
            (!etags.is_empty()).then_some(etags)
        };
        Self {
            wanted: all("if-match"),
            unwanted: all("if-none-match"),
        }
    }

    /// Checks them against the etags of what is there; `None` where nothing is.
    ///
    /// Google looks at them when it reads, and passes over them in changes (Python's client documents it so): nobody shall rely on
    /// them here for a change that would lose another one there.
    pub(super) fn check(&self, reads: bool, there: Option<&[String]>) -> Result<(), Refusal> {
        if !reads && (self.wanted.is_some() || self.unwanted.is_some()) {
            return Err(Refusal::invalid(
                "Cloud Storage takes If-Match and If-None-Match for reads alone. Use ifGenerationMatch or \
                 ifMetagenerationMatch.",
            ));
        }
        let matches = |named: &Vec<String>| {
            there.is_some_and(|there| {
                let is_there = |named: &String| there.iter().any(|etag| bare(etag) == named);
                named.iter().any(|named| named == "*" || is_there(named))
            })
        };
        if self.wanted.as_ref().is_some_and(|wanted| !matches(wanted)) {
            return Err(Refusal::precondition());
        }
        match self.unwanted.as_ref().is_some_and(matches) {
            true => Err(Refusal::not_modified()),
            false => Ok(()),
        }
    }
}

fn bare(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}
