//! Who calls, and whether the policies let them.

use axum::http::StatusCode;

use super::{
    super::{
        Refusal, World,
        policy::storage_refusal,
        server::{Request, decode},
    },
    preconditions::Preconditions,
};

/// Whose access token that is, or the JSON API's 401.
pub(super) fn authorized(world: &World, request: &Request) -> Result<Option<String>, Refusal> {
    match request.bearer() {
        None if !world.settings.demand_credentials => Ok(None),
        None => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "required",
            "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object. Permission \
             'storage.objects.get' denied on resource (or it may not exist).",
        )),
        Some(token) => world.identity.caller(token).map(Some).ok_or_else(|| {
            let message = "Invalid Credentials";
            Refusal::new(StatusCode::UNAUTHORIZED, "authError", message)
        }),
    }
}

/// Google's 403, where the policies do not let a caller do this.
pub(super) fn permit(world: &World, caller: Option<&str>, permission: &str, bucket: &str) -> Result<(), Refusal> {
    let bucket = decode(bucket);
    // That a bucket is not there anybody may know.
    if !bucket.is_empty() && world.storage.look().bucket(&bucket).is_err() {
        return Ok(());
    }
    let resource = format!("bucket/{bucket}");
    match caller {
        Some(caller) if !world.policies.allows(caller, permission, &resource) => {
            Err(storage_refusal(caller, permission))
        }
        _ => Ok(()),
    }
}

/// Marks an answer that hides from its caller that an object is not there, for those who see everything.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Hidden;

/// Whoever may not list a bucket is not told that an object is absent: the 403 that Google sends in place of a 404 for reads.
pub(super) fn hides_absence(world: &World, caller: Option<&str>, bucket: &str, refusal: &Refusal) -> Option<Refusal> {
    let (caller, list) = (caller?, "storage.objects.list");
    let may_list = world.policies.allows(caller, list, &format!("bucket/{bucket}"));
    (refusal.is_no_object() && !may_list).then(|| storage_refusal(caller, list))
}

/// Google's 403, where a caller may not make an object, or not in the place of the one that is there. One that demands that
/// nothing is there needs no right to delete.
pub(super) fn may_replace(
    world: &World,
    caller: Option<&str>,
    (bucket, name): (&str, &str),
    conditions: &Preconditions,
) -> Result<(), Refusal> {
    permit(world, caller, "storage.objects.create", bucket)?;
    let there = world.storage.look().object(bucket, name, None).is_ok();
    if there && conditions.generation_match != Some(0) {
        permit(world, caller, "storage.objects.delete", bucket)?;
    }
    Ok(())
}

/// The bucket of a raw path, which may begin with a slash.
pub(super) fn bucket_of(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// What a call of the JSON API needs.
pub(super) fn permission(request: &Request, path: &str) -> &'static str {
    let path = path.trim_start_matches('/');
    let of_object = path.contains("/o/");
    match request.method.as_str() {
        "GET" if of_object => "storage.objects.get",
        "DELETE" if of_object => "storage.objects.delete",
        _ if of_object => "storage.objects.update",
        "GET" if path.ends_with("/o") || path.ends_with("/storageLayout") => "storage.objects.list",
        "GET" if path.is_empty() => "storage.buckets.list",
        "GET" => "storage.buckets.get",
        "POST" if path.is_empty() => "storage.buckets.create",
        "DELETE" if !path.contains('/') => "storage.buckets.delete",
        _ => "storage.buckets.update",
    }
}
