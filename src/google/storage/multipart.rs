//! An upload in one request of two parts: the object resource, and the file, read while it is sent.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, header};

use super::Object;
use super::progress::{Progress, bytes_of};
use super::upload::{INSERT, Upload};
use crate::google::api::{Api, authorized};
use crate::google::retry::Idempotency;
use crate::google::{Error, Kind, http};

pub(super) async fn run(api: &Api, upload: &Upload<'_>, resource: &str) -> Result<Object, Error> {
    let boundary = boundary(resource)?;
    let (url, boundary) = (&upload.url(api, "multipart"), boundary.as_str());
    api.call(Idempotency::ByPrecondition, |access| async move {
        let progress = Progress::new();
        let (length, body) = body(upload, boundary, resource, progress.clone()).await?;
        let request = authorized(api.http.upload(Method::POST, url), access.as_ref())
            .header(header::CONTENT_TYPE, format!("multipart/related; boundary={boundary}"))
            .header(header::CONTENT_LENGTH, length)
            .body(body);
        let answer = async { http::json(INSERT, resource, http::send(INSERT, resource, request).await?).await };
        progress
            .watch(api.http.progress_timeout(), INSERT, resource, answer)
            .await
    })
    .await
}

/// The length and the stream of all three pieces: metadata part, file, end.
async fn body(upload: &Upload<'_>, boundary: &str, resource: &str, progress: Progress) -> Result<(u64, Body), Error> {
    let file = bytes_of(upload.file, upload.size, 0, INSERT, resource).await?;
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n\
         --{boundary}\r\nContent-Type: {}\r\n\r\n",
        upload.resource(),
        upload.content_type
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + upload.size + tail.len() as u64;
    let chunks = stream::once(async { Ok(Bytes::from(head)) })
        .chain(file)
        .chain(stream::once(async { Ok(Bytes::from(tail)) }))
        .inspect(move |_| progress.mark());
    Ok((length, Body::wrap_stream(chunks)))
}

/// 128 random bits: that the file holds them is as likely as guessing a key.
fn boundary(resource: &str) -> Result<String, Error> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| Error::new(Kind::Unavailable, INSERT, resource, "the system gives no random bytes"))?;
    Ok(format!("platen-{:032x}", u128::from_be_bytes(random)))
}
