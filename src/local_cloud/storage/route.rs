//! Which part of the API a request is for.

use axum::{http::StatusCode, response::Response};

use super::{
    super::{
        Refusal, World,
        server::{Request, decode, text},
    },
    access::{Hidden, authorized, bucket_of, hides_absence, permission, permit},
    batch, buckets, compose, copy, fields, moves, not_here,
    objects::{media, object_api},
    signed, upload, xml,
};

pub(in super::super) fn handle(world: &World, request: &Request) -> Response {
    if signed::is_signed(request) {
        return xml::handle(world, request);
    }
    // Two addresses for uploads are in Google's description of the API; gcloud takes the second one for those in chunks.
    let uploads = ["/upload/storage/v1/b/", "/resumable/upload/storage/v1/b/"];
    let uploaded = uploads.iter().find_map(|prefix| request.path.strip_prefix(prefix));
    let result = if let Some(path) = uploaded {
        not_here::asked(request).and_then(|()| upload::handle(world, request, path))
    } else if let Some(path) = request.path.strip_prefix("/download/storage/v1/b/") {
        authorized(world, request).and_then(|caller| {
            not_here::asked(request)?;
            permit(world, caller.as_deref(), "storage.objects.get", bucket_of(path))?;
            media(world, request, path)
        })
    } else if request.path.trim_end_matches('/') == batch::PATH {
        batch::handle(world, request)
    } else if let Some(path) = request
        .path
        .strip_prefix("/storage/v1/b")
        .filter(|path| path.is_empty() || path.starts_with('/'))
    {
        authorized(world, request).and_then(|caller| {
            not_here::asked(request)?;
            let (caller, below) = (caller.as_deref(), path.trim_start_matches('/'));
            if let Some(copy) = copy::Copy::read(below) {
                return copy.handle(world, request, caller);
            }
            if let Some(relocation) = moves::Move::read(below) {
                return relocation.handle(world, request, caller);
            }
            if let Some((bucket, name)) = compose::target(below) {
                return compose::handle(world, request, caller, (&bucket, &name));
            }
            permit(world, caller, permission(request, path), bucket_of(path))?;
            match below.contains("/o/") {
                true => object_api(world, request, below),
                false => buckets::handle(world, request, path),
            }
        })
    } else if let Some(path) = request
        .path
        .strip_prefix("/storage/v1/")
        .filter(|path| path.starts_with("projects/"))
    {
        authorized(world, request).and_then(|_| buckets::service_account(world, request, path))
    } else {
        return xml::handle(world, request);
    };
    let result = match request.parameter("fields") {
        Some(fields) => result.and_then(|answer| fields::select(answer, &fields)),
        None => result,
    };
    result.unwrap_or_else(|refusal| {
        let hidden = hidden(world, request, &refusal);
        let refusal = hidden.as_ref().unwrap_or(&refusal);
        let wants_media = request.parameter("alt").as_deref() == Some("media");
        // The download service is not the JSON front end: its errors are bare sentences.
        let is_media = wants_media && request.method == "GET" && refusal.code != StatusCode::UNAUTHORIZED;
        let mut answer = match is_media {
            true if refusal.code == StatusCode::NOT_MODIFIED => text(refusal.code, ""),
            true => text(refusal.code, &refusal.message),
            false => refusal.answer(),
        };
        if hidden.is_some() {
            answer.extensions_mut().insert(Hidden);
        }
        answer
    })
}

/// What a read is answered instead, if its caller may not know that the object is not there.
fn hidden(world: &World, request: &Request, refusal: &Refusal) -> Option<Refusal> {
    let places = ["/download/storage/v1/b/", "/storage/v1/b/"];
    let below = places.iter().find_map(|place| request.path.strip_prefix(place));
    let below = below.filter(|_| request.method == "GET")?;
    let caller = authorized(world, request).ok()?;
    hides_absence(world, caller.as_deref(), &decode(bucket_of(below)), refusal)
}

pub(super) fn unknown_method() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "notFound", "Not Found")
}
