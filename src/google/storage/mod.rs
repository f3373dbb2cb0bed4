//! Cloud Storage's JSON API: one object's metadata, its exact bytes, and a new object under a precondition.

mod download;
mod list;
mod multipart;
mod object;
mod progress;
mod resumable;
mod upload;

use reqwest::Method;

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::token::Tokens;
use super::{Error, Kind, encode};
pub use download::Download;
pub use object::Object;
pub use upload::Upload;

/// Google's own base URL.
pub const BASE_URL: &str = "https://storage.googleapis.com";

const GET: &str = "storage.objects.get";
const DELETE: &str = "storage.objects.delete";

/// The API, with credentials.
#[derive(Debug, Clone)]
pub struct Storage(Api);

impl Storage {
    /// The API at `base_url`, without credentials when `tokens` is `None`.
    pub fn new(http: Http, base_url: &str, tokens: Option<Tokens>) -> Self {
        Self(Api::new(http, base_url, tokens))
    }

    /// Who calls, as policies name members; asked for once, and waited for no longer than a second.
    pub async fn member(&self) -> String {
        self.0.member().await
    }

    /// The same, drawing its retries from `budget`.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        Self(self.0.within(budget))
    }

    /// The object's metadata: of this generation, or of the newest.
    ///
    /// # Errors
    /// `NotFound` when the object or the generation is not there, `Forbidden` without storage.objects.get.
    pub async fn metadata(&self, bucket: &str, name: &str, generation: Option<i64>) -> Result<Object, Error> {
        let resource = shown(bucket, name, generation);
        let mut url = self.object_url("/storage/v1", GET, bucket, name)?;
        if let Some(generation) = generation {
            url.push_str(&format!("?generation={generation}"));
        }
        let (url, resource) = (url.as_str(), resource.as_str());
        self.0
            .call(Idempotency::Always, |token| async move {
                let request = authorized(self.0.http.request(Method::GET, url), token.as_ref());
                http::json(GET, resource, http::send(GET, resource, request).await?).await
            })
            .await
            .map_err(absent)
    }

    /// Opens the stored bytes of exactly this generation. They come as they are stored, a `Content-Encoding: gzip`
    /// included, so that length and CRC32C hold.
    ///
    /// # Errors
    /// `NotFound` when that generation is gone, `Forbidden` without storage.objects.get.
    pub async fn download(&self, bucket: &str, name: &str, generation: i64) -> Result<Download, Error> {
        let resource = shown(bucket, name, Some(generation));
        let base = self.object_url("/download/storage/v1", GET, bucket, name)?;
        let url = format!("{base}?alt=media&generation={generation}");
        Download::open(self.0.clone(), url, resource).await.map_err(absent)
    }

    /// The objects whose names begin with `prefix`, at most `most`, in the order of their names.
    ///
    /// # Errors
    /// `TooLarge` when there are more, `Forbidden` without storage.objects.list.
    pub async fn list(&self, bucket: &str, prefix: &str, most: usize) -> Result<Vec<Object>, Error> {
        list::run(&self.0, bucket, prefix, most).await
    }

    /// The objects whose names begin with `prefix` and come after `after`, as many as one answer of Cloud Storage has, in
    /// the order of their names; none when there are no more.
    ///
    /// # Errors
    /// `NotFound` without that bucket, `Forbidden` without storage.objects.list.
    pub async fn page(&self, bucket: &str, prefix: &str, after: Option<&str>) -> Result<Vec<Object>, Error> {
        list::page(&self.0, bucket, prefix, after).await
    }

    /// Writes a new object from a file, which is read as it is sent: in one request, or, above
    /// 8 MiB, in a session that goes on where it broke off. The server checks our CRC32C before
    /// it keeps anything, and we check its answer.
    ///
    /// # Errors
    /// `PreconditionFailed` when another generation is there than `if_generation_match`; after a retry that may be our
    /// own first attempt, whose answer was lost: the caller reads back and decides. `Corrupt` when the stored bytes are
    /// others than the file's.
    pub async fn upload(&self, upload: &Upload<'_>) -> Result<Object, Error> {
        upload::run(&self.0, upload).await
    }

    /// Removes exactly this generation of an object.
    ///
    /// # Errors
    /// `NotFound` when it is not there, also after a retry whose first attempt removed it; `Forbidden` without
    /// storage.objects.delete.
    pub async fn delete(&self, bucket: &str, name: &str, generation: i64) -> Result<(), Error> {
        let resource = &shown(bucket, name, Some(generation));
        let base = self.object_url("/storage/v1", DELETE, bucket, name)?;
        let url = &format!("{base}?generation={generation}");
        self.0
            .call(Idempotency::ByPrecondition, |token| async move {
                let request = authorized(self.0.http.request(Method::DELETE, url), token.as_ref());
                http::send(DELETE, resource, request).await.map(drop)
            })
            .await
    }

    /// `.../b/BUCKET/o/NAME`, every byte of the name encoded but the unreserved ones.
    fn object_url(&self, api: &str, operation: &'static str, bucket: &str, name: &str) -> Result<String, Error> {
        check_names(operation, bucket, name)?;
        Ok(self.0.url(&format!(
            "{api}/b/{}/o/{}",
            encode::component(bucket),
            encode::component(name)
        )))
    }
}

/// Refuses what would become another URL.
fn check_bucket(operation: &'static str, bucket: &str, resource: &str) -> Result<(), Error> {
    match bucket {
        "" | "." | ".." => Err(Error::new(Kind::Invalid, operation, resource, "that is no bucket name")),
        _ => Ok(()),
    }
}

/// Says `NotFound` of an object that Cloud Storage only hints at. Whoever may not list a bucket is not told with a 404 that
/// an object is absent: the 403 then names `storage.objects.list`, a right that reading never needs, and only then. Without
/// the right to read, it names `storage.objects.get`. The worker has no right to list; were this 403 taken for a
/// missing right, a source that is gone would never come to its result.
fn absent(error: Error) -> Error {
    if error.kind == Kind::Forbidden && error.message.contains("storage.objects.list") {
        return Error {
            kind: Kind::NotFound,
            ..error
        };
    }
    error
}

/// Refuses what cannot be an object, so that it never becomes another URL: `.` and `..` are resolved away by every URL
/// parser, encoded or not, and Google has no objects of these names (cloud.google.com/storage/docs/objects#naming).
fn check_names(operation: &'static str, bucket: &str, name: &str) -> Result<(), Error> {
    let why = match (bucket, name) {
        ("" | "." | "..", _) => "that is no bucket name",
        (_, "") => "an object name has at least one byte",
        (_, "." | "..") => "no object can have that name",
        (_, name) if name.len() > 1024 => "an object name has at most 1,024 bytes",
        (_, name) if name.contains(['\r', '\n']) => "an object name holds no line break",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Invalid, operation, shown(bucket, name, None), why))
}

/// How an object is named in errors: one line, bounded.
fn shown(bucket: &str, name: &str, generation: Option<i64>) -> String {
    let name: String = name.chars().take(300).flat_map(char::escape_debug).collect();
    match generation {
        Some(generation) => format!("gs://{bucket}/{name}#{generation}"),
        None => format!("gs://{bucket}/{name}"),
    }
}
