//! The bytes of one generation, in chunks, checked to the last one.

use std::fmt;

use bytes::Bytes;
use reqwest::{Response, StatusCode, header};

use super::GET;
use super::object::decode_crc32c;
use crate::google::api::{Access, Api, authorized};
use crate::google::http::{self, Http};
use crate::google::retry::{Idempotency, Retries};
use crate::google::{Error, Kind};

/// An open download. Read [`Download::chunk`] to its `None`: only then length and CRC32C have been compared.
pub struct Download {
    /// What the server says the CRC32C of all bytes is; without it only the length can be checked here.
    pub crc32c: Option<u32>,
    /// How many bytes there are in all, when the server says it.
    pub size: Option<u64>,
    api: Api,
    url: String,
    resource: String,
    response: Option<Response>,
    received: u64,
    sum: u32,
    retries: Retries,
    /// What had been received at the last break.
    reached: u64,
}

impl Download {
    pub(super) async fn open(api: Api, url: String, resource: String) -> Result<Self, Error> {
        let budget = api.budget();
        let api = api.within(&budget);
        let (from_here, shown, http) = (url.as_str(), resource.as_str(), &api.http);
        let response = api
            .call(Idempotency::Always, |access| ask(http, access, from_here, shown, 0))
            .await?;
        Ok(Self {
            crc32c: announced_crc32c(&response),
            size: announced_size(&response),
            api,
            url,
            resource,
            response: Some(response),
            received: 0,
            sum: 0,
            retries: Retries::new(&budget),
            reached: 0,
        })
    }

    /// The next bytes, or `None` after the last. A transfer that breaks off is resumed where it stopped.
    ///
    /// # Errors
    /// `Corrupt` when length or CRC32C differ from what was announced: throw away what was received.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(response) = &mut self.response {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    self.received += chunk.len() as u64;
                    self.sum = crc32c::crc32c_append(self.sum, &chunk);
                    return Ok(Some(chunk));
                }
                Ok(None) => {
                    self.compare()?;
                    self.response = None;
                }
                Err(error) => {
                    let broken = http::transport(GET, &self.resource, error);
                    self.resume(broken).await?;
                }
            }
        }
        Ok(None)
    }

    /// Opens the rest. Every break costs its pause, so that a peer which always breaks off is left; one that brought
    /// nothing new makes the next pause longer.
    async fn resume(&mut self, broken: Error) -> Result<(), Error> {
        if self.size == Some(self.received) {
            self.compare()?;
            self.response = None;
            return Ok(());
        }
        if self.received > self.reached {
            self.reached = self.received;
            self.retries.progressed();
        }
        let (http, url, resource, from) = (&self.api.http, self.url.as_str(), self.resource.as_str(), self.received);
        let response = self
            .api
            .again(&mut self.retries, broken, Idempotency::Always, |access| {
                ask(http, access, url, resource, from)
            })
            .await?;
        if announced_crc32c(&response) != self.crc32c {
            return Err(self.corrupt("the rest belongs to other bytes than the beginning"));
        }
        self.response = Some(response);
        Ok(())
    }

    fn compare(&self) -> Result<(), Error> {
        match (self.size, self.crc32c) {
            (Some(size), _) if size != self.received => {
                Err(self.corrupt(&format!("{} of {size} bytes were received", self.received)))
            }
            (_, Some(crc32c)) if crc32c != self.sum => Err(self.corrupt(&format!(
                "the received bytes have CRC32C {:08x}, the stored ones {crc32c:08x}",
                self.sum
            ))),
            _ => Ok(()),
        }
    }

    fn corrupt(&self, message: &str) -> Error {
        Error::new(Kind::Corrupt, GET, self.resource.clone(), message)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("resource", &self.resource)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

async fn ask(http: &Http, access: Option<Access>, url: &str, resource: &str, from: u64) -> Result<Response, Error> {
    let mut request = authorized(http.download(url), access.as_ref())
        // Without it, an object stored with gzip encoding is decompressed on the way: other bytes, no length.
        .header(header::ACCEPT_ENCODING, "gzip");
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    let response = http::send(GET, resource, request).await?;
    let fits = if from > 0 {
        starts_at(&response, from)
    } else {
        response.status() == StatusCode::OK
    };
    if fits {
        return Ok(response);
    }
    let message = format!(
        "the answer is not the bytes from {from} on (status {})",
        response.status()
    );
    Err(Error::new(Kind::Invalid, GET, resource, message))
}

/// What comes must begin exactly where we stopped, and `Content-Range` says where it does, not the status: a server that
/// knows no ranges answers 200 without one, and Google's own testbench a rest that it breaks off with 200 and one.
fn starts_at(response: &Response, from: u64) -> bool {
    response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with(&format!("bytes {from}-")))
}

/// `x-goog-hash: crc32c=n03x6A==,md5=...`, in one header or several.
fn announced_crc32c(response: &Response) -> Option<u32> {
    response
        .headers()
        .get_all("x-goog-hash")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|hash| decode_crc32c(hash.trim().strip_prefix("crc32c=")?))
}

fn announced_size(response: &Response) -> Option<u64> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
    header("x-goog-stored-content-length").or_else(|| header("content-length"))
}
