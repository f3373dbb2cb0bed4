//! A multipart upload whose second part is read from a file while it is sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, header};
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::io::ReaderStream;

use super::object::encode_crc32c;
use super::{Object, check_names, shown};
use crate::google::api::{Api, authorized};
use crate::google::flight::locked;
use crate::google::{Error, Kind, encode, http};

const INSERT: &str = "storage.objects.create";
const CHUNK: usize = 64 * 1024;

/// A new object. The precondition is not optional: without one a retry could overwrite what somebody else wrote.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// Where to.
    pub bucket: &'a str,
    /// The name, at most 1,024 bytes of UTF-8.
    pub name: &'a str,
    /// `Content-Type` that it is served with.
    pub content_type: &'a str,
    /// `Content-Disposition` that it is served with.
    pub content_disposition: Option<&'a str>,
    /// Custom metadata.
    pub metadata: &'a BTreeMap<String, String>,
    /// What to send.
    pub file: &'a Path,
    /// The file's length in bytes.
    pub size: u64,
    /// The file's CRC32C.
    pub crc32c: u32,
    /// The generation that must be there now; 0: none.
    pub if_generation_match: i64,
}

pub(super) async fn run(api: &Api, upload: &Upload<'_>) -> Result<Object, Error> {
    check_names(INSERT, upload.bucket, upload.name)?;
    let resource = shown(upload.bucket, upload.name, None);
    let url = api.url(&format!(
        "/upload/storage/v1/b/{}/o?uploadType=multipart&name={}&ifGenerationMatch={}",
        encode::component(upload.bucket),
        encode::component(upload.name),
        upload.if_generation_match,
    ));
    let boundary = boundary(&resource)?;
    let (url, resource, boundary) = (url.as_str(), resource.as_str(), boundary.as_str());
    let object: Object = api
        .call(|token| async move {
            let progress = Progress::default();
            let (length, body) = body(upload, boundary, resource, progress.clone()).await?;
            let request = authorized(api.http.upload(url), token.as_ref())
                .header(header::CONTENT_TYPE, format!("multipart/related; boundary={boundary}"))
                .header(header::CONTENT_LENGTH, length)
                .body(body);
            let answer = async { http::json(INSERT, resource, http::send(INSERT, resource, request).await?).await };
            let patience = api.http.progress_timeout();
            tokio::select! {
                answer = answer => answer,
                () = progress.stalled(patience) => {
                    let message = format!("no progress for {} s", patience.as_secs_f32());
                    Err(Error::new(Kind::Unavailable, INSERT, resource, message))
                }
            }
        })
        .await?;
    if object.size != upload.size || object.crc32c.is_some_and(|stored| stored != upload.crc32c) {
        return Err(Error::new(
            Kind::Corrupt,
            INSERT,
            shown(upload.bucket, upload.name, Some(object.generation)),
            format!(
                "{} bytes were stored, {} were sent, or their CRC32C differs",
                object.size, upload.size
            ),
        ));
    }
    Ok(object)
}

/// The length and the stream of all three pieces: metadata part, file, end.
async fn body(upload: &Upload<'_>, boundary: &str, resource: &str, progress: Progress) -> Result<(u64, Body), Error> {
    let unreadable = |error: std::io::Error| {
        let message = format!("{} cannot be read: {error}", upload.file.display());
        Error::new(Kind::Invalid, INSERT, resource, message)
    };
    let file = File::open(upload.file).await.map_err(unreadable)?;
    let found = file.metadata().await.map_err(unreadable)?.len();
    if found != upload.size {
        let message = format!("the file has {found} bytes instead of {}", upload.size);
        return Err(Error::new(Kind::Invalid, INSERT, resource, message));
    }
    let mut metadata = json!({
        "name": upload.name,
        "contentType": upload.content_type,
        "crc32c": encode_crc32c(upload.crc32c),
        "metadata": upload.metadata,
    });
    if let Some(disposition) = upload.content_disposition {
        metadata["contentDisposition"] = disposition.into();
    }
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{metadata}\r\n\
         --{boundary}\r\nContent-Type: {}\r\n\r\n",
        upload.content_type
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + upload.size + tail.len() as u64;
    let chunks = stream::once(async { Ok(Bytes::from(head)) })
        .chain(ReaderStream::with_capacity(file.take(upload.size), CHUNK))
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

/// When the connection last took a chunk.
#[derive(Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Progress {
    fn mark(&self) {
        *locked(&self.0) = Instant::now();
    }

    /// Ends when nothing has moved for `patience`. After the last chunk that is the time for the answer.
    async fn stalled(&self, patience: Duration) {
        loop {
            let deadline = *locked(&self.0) + patience;
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
