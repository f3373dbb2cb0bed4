//! Sends what may be large, and ends it when nothing moves. reqwest's own read time-out cannot: it runs while a body is
//! sent and is not reset by what the peer takes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::io::ReaderStream;

use crate::google::flight::locked;
use crate::google::{Error, Kind};

/// What is read from the file at a time.
const CHUNK: usize = 64 * 1024;

/// When the connection last took a chunk.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn mark(&self) {
        *locked(&self.0) = Instant::now();
    }

    /// The call's outcome, or an error when nothing has moved for `patience`. After the last chunk that is the time for
    /// the whole answer.
    pub(super) async fn watch<T>(
        &self,
        patience: Duration,
        operation: &'static str,
        resource: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            outcome = call => outcome,
            () = self.stalled(patience) => {
                let message = format!("no progress for {} s", patience.as_secs_f32());
                Err(Error::new(Kind::Unavailable, operation, resource, message))
            }
        }
    }

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

/// The bytes of a file from `offset` on, read as they are asked for.
///
/// # Errors
/// `Invalid` when it cannot be read, or is not as long as was said.
pub(super) async fn bytes_of(
    path: &Path,
    size: u64,
    offset: u64,
    operation: &'static str,
    resource: &str,
) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, Error> {
    let unreadable = |error: std::io::Error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Error::new(Kind::Invalid, operation, resource, message)
    };
    let mut file = File::open(path).await.map_err(unreadable)?;
    let found = file.metadata().await.map_err(unreadable)?.len();
    if found != size {
        let message = format!("the file has {found} bytes instead of {size}");
        return Err(Error::new(Kind::Invalid, operation, resource, message));
    }
    if offset > 0 {
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
    }
    Ok(ReaderStream::with_capacity(file.take(size - offset), CHUNK))
}
