//! `moveTo`: another name for an object in the same bucket, all or nothing. gcloud's `mv` calls it.

use axum::{
    http::{Method, StatusCode},
    response::Response,
};

use super::{
    super::{
        Refusal, World,
        server::{Request, decode, json as json_answer},
    },
    access::{may_replace, permit},
    copy::source_preconditions,
    object::Payload,
    parameters::preconditions,
    resource,
    route::unknown_method,
};

/// `BUCKET/o/OBJECT/moveTo/o/OBJECT`
pub(super) struct Move {
    bucket: String,
    source: String,
    target: String,
}

impl Move {
    /// Reads a raw path; none if it is no move.
    pub(super) fn read(path: &str) -> Option<Self> {
        let (source, target) = path.split_once("/moveTo/o/")?;
        let (bucket, source) = source.split_once("/o/")?;
        let names = [source, target];
        let single = names.iter().all(|name| !name.is_empty() && !name.contains('/'));
        single.then(|| Self {
            bucket: decode(bucket),
            source: decode(source),
            target: decode(target),
        })
    }

    pub(super) fn handle(&self, world: &World, request: &Request, caller: Option<&str>) -> Result<Response, Refusal> {
        if request.method != "POST" {
            return Err(unknown_method());
        }
        let bucket = &self.bucket;
        permit(world, caller, "storage.objects.move", bucket)?;
        let conditions = preconditions(request)?;
        may_replace(world, caller, (bucket, &self.target), &conditions)?;
        if self.source == self.target {
            return Err(Refusal::invalid("The source and destination object names must differ."));
        }
        let of_source = source_preconditions(request)?;
        let object = world.storage.change(world, bucket, |store| {
            let source = store.object(bucket, &self.source, None)?;
            of_source.check(&Method::POST, Some(source))?;
            let (fields, content) = (source.fields.clone(), Payload::from(source));
            let (object, mut changes) =
                store.insert((bucket, &self.target), fields, content, &conditions, &world.clock)?;
            // It is still the one that was checked: nothing is left half done.
            changes.extend(store.delete(bucket, &self.source, None, &of_source, &world.clock)?);
            Ok((object, changes))
        })?;
        Ok(json_answer(StatusCode::OK, &resource::object(world, bucket, &object)))
    }
}
