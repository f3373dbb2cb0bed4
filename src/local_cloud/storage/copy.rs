//! Copies within the store: `copyTo`, which Google's older clients use, and `rewriteTo`, which says how far it is. Both are done at
//! once here, as Google does within one location and storage class.

use axum::{http::StatusCode, response::Response};
use serde_json::json;

use super::{
    super::{
        Refusal, World,
        server::{Request, decode, json as json_answer},
    },
    access::{may_replace, permit},
    object::{Fields, Payload},
    objects::fields_of,
    parameters::{body, number, preconditions},
    preconditions::Preconditions,
    resource,
    route::unknown_method,
};

/// `BUCKET/o/OBJECT/copyTo/b/BUCKET/o/OBJECT`, and the same with `rewriteTo`.
pub(super) struct Copy {
    source: (String, String),
    target: (String, String),
    /// Whether the answer is the one of `rewriteTo`.
    rewrites: bool,
}

impl Copy {
    /// Reads a raw path; none if it is no copy.
    pub(super) fn read(path: &str) -> Option<Self> {
        let (source, target, rewrites) = match (path.split_once("/copyTo/b/"), path.split_once("/rewriteTo/b/")) {
            (Some((source, target)), _) => (source, target, false),
            (_, Some((source, target))) => (source, target, true),
            _ => return None,
        };
        let address = |path: &str| {
            let (bucket, object) = path.split_once("/o/")?;
            (!object.is_empty() && !object.contains('/')).then(|| (decode(bucket), decode(object)))
        };
        Some(Self {
            source: address(source)?,
            target: address(target)?,
            rewrites,
        })
    }

    pub(super) fn handle(&self, world: &World, request: &Request, caller: Option<&str>) -> Result<Response, Refusal> {
        if request.method != "POST" {
            return Err(unknown_method());
        }
        let (bucket, name) = (&self.target.0, &self.target.1);
        permit(world, caller, "storage.objects.get", &self.source.0)?;
        let conditions = preconditions(request)?;
        may_replace(world, caller, (bucket, name), &conditions)?;
        let of_source = source_preconditions(request)?;
        let object = world.storage.change(world, bucket, |store| {
            let generation = number(request, "sourceGeneration")?;
            let source = store.object(&self.source.0, &self.source.1, generation)?;
            of_source.check(&axum::http::Method::POST, Some(source))?;
            let content = Payload::from(source);
            // A body takes the place of all that the source says about itself. The storage class is the target's in any case.
            let fields = match request.body.iter().all(u8::is_ascii_whitespace) || request.body.as_ref() == b"{}" {
                true => Fields {
                    storage_class: None,
                    ..source.fields.clone()
                },
                false => fields_of(&body(request)?)?,
            };
            store.insert((bucket, name), fields, content, &conditions, &world.clock)
        })?;
        let resource = resource::object(world, bucket, &object);
        if !self.rewrites {
            return Ok(json_answer(StatusCode::OK, &resource));
        }
        let size = object.content.len().to_string();
        Ok(json_answer(
            StatusCode::OK,
            &json!({
                "kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": true,
                "resource": resource,
            }),
        ))
    }
}

/// The conditions on the object that is copied or moved.
pub(super) fn source_preconditions(request: &Request) -> Result<Preconditions, Refusal> {
    Ok(Preconditions {
        generation_match: number(request, "ifSourceGenerationMatch")?,
        generation_not_match: number(request, "ifSourceGenerationNotMatch")?,
        metageneration_match: number(request, "ifSourceMetagenerationMatch")?,
        metageneration_not_match: number(request, "ifSourceMetagenerationNotMatch")?,
        ..Preconditions::default()
    })
}
