//! Which part of the API a request is for.

use axum::{http::StatusCode, response::Response};

use super::{
    super::{
        Refusal, World,
        server::{Request, text},
    },
    access::{authorized, bucket_of, permission, permit},
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
        let wants_media = request.parameter("alt").as_deref() == Some("media");
        // The download service is not the JSON front end: its errors are bare sentences.
        if wants_media && request.method == "GET" && refusal.code != StatusCode::UNAUTHORIZED {
            return text(
                refusal.code,
                if refusal.code == StatusCode::NOT_MODIFIED {
                    ""
                } else {
                    &refusal.message
                },
            );
        }
        refusal.answer()
    })
}

pub(super) fn unknown_method() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "notFound", "Not Found")
}
