//! Conditions on the object that is there.

use axum::http::Method;

use super::{super::Refusal, object::Object};

/// The four conditions that a request can set, and nothing where it set none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Preconditions {
    pub(super) generation_match: Option<i64>,
    pub(super) generation_not_match: Option<i64>,
    pub(super) metageneration_match: Option<i64>,
    pub(super) metageneration_not_match: Option<i64>,
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
            (true, _) => Ok(()),
            (false, true) => Err(Refusal::not_modified()),
            (false, false) => Err(Refusal::precondition()),
        }
    }
}
