//! The bytes of an object: ranges, hashes, and Google's decompressive transcoding.

use std::{
    io::{self, Read},
    ops::Range,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use flate2::read::MultiGzDecoder;
use futures_util::stream;
use tokio::sync::mpsc;

use super::{
    super::{
        data::{Content, blocking},
        server::{Request, text},
    },
    object::{Object, STANDARD_CLASS},
};

/// How much is unpacked at once.
const PIECE: usize = 64 * 1024;

/// What the query of a signed URL puts in place of the object's own headers.
#[derive(Default)]
pub(super) struct Overrides {
    pub(super) content_type: Option<String>,
    pub(super) content_disposition: Option<String>,
}

/// The answer to a GET or HEAD for the object's content.
pub(super) fn answer(request: &Request, object: &Object, overrides: &Overrides) -> Response {
    let fields = &object.fields;
    let gzipped = fields.content_encoding.as_deref() == Some("gzip");
    let accepts_gzip = request.header("accept-encoding").is_some_and(accepts_gzip);
    let no_transform = fields
        .cache_control
        .as_deref()
        .is_some_and(|control| control.contains("no-transform"));
    let transcode = gzipped && !accepts_gzip && !no_transform;
    let mut answer = if transcode {
        // Google sends the whole of it, whatever range was asked for, and no length.
        let mut answer = match unpacked(&object.content) {
            Ok(plain) => Response::new(plain),
            Err(_) => return text(StatusCode::SERVICE_UNAVAILABLE, "Unable to gunzip the stored content."),
        };
        set(&mut answer, "warning", "214 UploadServer gunzipped");
        answer
    } else {
        let size = object.content.len();
        match request.header("range").and_then(|range| byte_range(range, size)) {
            None => whole(&object.content, 0..size),
            Some(Some(range)) => {
                let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let mut answer = whole(&object.content, range);
                if answer.status() == StatusCode::OK {
                    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                    set(&mut answer, header::CONTENT_RANGE.as_str(), &value);
                }
                answer
            }
            Some(None) => {
                let mut answer = text(
                    StatusCode::RANGE_NOT_SATISFIABLE,
                    "The requested range cannot be satisfied.",
                );
                set(
                    &mut answer,
                    "content-range",
                    &format!("bytes */{}", object.content.len()),
                );
                return answer;
            }
        }
    };
    if gzipped && !transcode {
        set(&mut answer, "content-encoding", "gzip");
    } else if let Some(encoding) = fields.content_encoding.as_deref().filter(|_| !gzipped) {
        set(&mut answer, "content-encoding", encoding);
    }
    set(
        &mut answer,
        "content-type",
        overrides.content_type.as_deref().unwrap_or(object.content_type()),
    );
    let disposition = overrides
        .content_disposition
        .as_deref()
        .or(fields.content_disposition.as_deref());
    for (name, value) in [
        ("content-disposition", disposition),
        ("content-language", fields.content_language.as_deref()),
        (
            "cache-control",
            Some(fields.cache_control.as_deref().unwrap_or("private, max-age=0")),
        ),
    ] {
        if let Some(value) = value {
            set(&mut answer, name, value);
        }
    }
    stored_headers(&mut answer, object);
    answer
}

/// The content without its compression, taken off while it is sent: little can unpack to very much. What is not compressed at all is
/// an error now; what turns out to be damaged further on breaks the answer off.
fn unpacked(content: &Content) -> io::Result<Body> {
    let mut packed = MultiGzDecoder::new(content.reader()?);
    let first = blocking(|| piece(&mut packed))?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut next = Ok(first);
        loop {
            let ends = next.as_ref().map_or(true, Bytes::is_empty);
            // Whoever asked may have gone.
            if sender.blocking_send(next).is_err() || ends {
                break;
            }
            next = piece(&mut packed);
        }
    });
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece: io::Result<Bytes> = receiver.recv().await?;
        Some((piece, receiver))
    });
    Ok(Body::from_stream(pieces))
}

/// The next bytes; none at the end.
fn piece(packed: &mut impl Read) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(PIECE);
    packed.take(PIECE as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// The headers that tell what is stored, on every answer about an object.
fn stored_headers(answer: &mut Response, object: &Object) {
    set(answer, "x-goog-generation", &object.generation.to_string());
    set(answer, "x-goog-metageneration", &object.metageneration.to_string());
    set(
        answer,
        "x-goog-storage-class",
        object.fields.storage_class.as_deref().unwrap_or(STANDARD_CLASS),
    );
    let encoding = object.fields.content_encoding.as_deref().unwrap_or("identity");
    set(answer, "x-goog-stored-content-encoding", encoding);
    set(
        answer,
        "x-goog-stored-content-length",
        &object.content.len().to_string(),
    );
    set(answer, "x-goog-hash", &object.hashes());
    if let Some(components) = object.components {
        set(answer, "x-goog-component-count", &components.to_string());
    }
    set(answer, "etag", &object.etag());
    let modified = object.updated.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    set(answer, "last-modified", &modified);
    set(answer, "accept-ranges", "bytes");
}

/// Sets a header, and drops a value that HTTP cannot carry.
pub(super) fn set(answer: &mut Response, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
        answer.headers_mut().insert(name, value);
    }
}

fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|coding| {
        let (coding, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = matches!(parameters.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        matches!(coding.trim(), "gzip" | "x-gzip") && !refused
    })
}

/// RFC 9110: `None` where the header is to be ignored, `Some(None)` where no byte of it exists.
fn byte_range(header: &str, size: usize) -> Option<Option<Range<usize>>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        let length: usize = last.parse().ok()?;
        size.saturating_sub(length)..size
    } else {
        let first: usize = first.parse().ok()?;
        let end = if last.is_empty() {
            size
        } else {
            last.parse::<usize>().ok()?.saturating_add(1)
        };
        if end <= first && !last.is_empty() {
            return None;
        }
        first..end.min(size)
    };
    Some((range.start < range.end).then_some(range))
}

/// Some of the bytes, with their number: a body that is read from a file does not know it.
fn whole(content: &Content, range: Range<usize>) -> Response {
    let length = range.len();
    match content.body(range) {
        Ok(body) => {
            let mut answer = Response::new(body);
            set(&mut answer, header::CONTENT_LENGTH.as_str(), &length.to_string());
            answer
        }
        Err(error) => {
            tracing::error!(%error, "an object's file does not open");
            text(StatusCode::SERVICE_UNAVAILABLE, "The object's bytes cannot be read.")
        }
    }
}
