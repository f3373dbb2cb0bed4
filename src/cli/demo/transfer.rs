//! How the demo brings its files to the local cloud, and fetches what has become of them: over HTTP, as anybody would.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::super::world::{INPUT_BUCKET, USER, World, decode, json_of};

/// Uploads a file and says which generation it became.
pub(super) async fn upload(world: &World, file: &Path, name: &str) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
    let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let metadata = opened.metadata().await.map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(format!("{} is not a file", file.display()));
    }
    let size = metadata.len();
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    let url = format!(
        "{}/upload/storage/v1/b/{INPUT_BUCKET}/o?uploadType=media&name={encoded}",
        world.cloud.urls().storage
    );
    let answer = world
        .http
        .post(url)
        .bearer_auth(world.cloud.access_token(USER))
        .header("content-length", size)
        .header("content-type", "application/octet-stream")
        .body(reqwest::Body::from(opened))
        .send()
        .await
        .map_err(|error| format!("{} cannot be uploaded: {}", file.display(), error.without_url()))?;
    let object = json_of(answer)
        .await
        .map_err(|error| format!("{} cannot be uploaded: {error}", file.display()))?;
    object["generation"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("the upload of {} has no generation", file.display()))
}

/// The next result messages of a subscription.
pub(super) async fn results(world: &World, subscription: &str, patience: Duration) -> Result<Vec<Value>, String> {
    let received = tokio::select! {
        received = next(world, subscription) => received?,
        reason = world.worker.failed() => return Err(format!("not every file has its result: {reason}")),
        () = tokio::time::sleep(patience) => {
            let seconds = patience.as_secs();
            return Err(format!("no result came for {seconds} s; RUST_LOG=info shows what the worker does"));
        }
    };
    received
        .iter()
        .map(|message| {
            decode(&message["message"]["data"]).ok_or_else(|| "a message on the result topic is no result".to_owned())
        })
        .collect()
}

async fn next(world: &World, subscription: &str) -> Result<Vec<Value>, String> {
    loop {
        let received = world
            .cloud
            .receive(subscription, 10)
            .await
            .map_err(|error| error.to_string())?;
        if !received.is_empty() {
            return Ok(received);
        }
    }
}

/// Downloads what a signed URL gives to whoever holds it, and says how many bytes came.
pub(super) async fn download(world: &World, url: &str, output: &Path) -> Result<u64, String> {
    let mut answer = world
        .http
        .get(url)
        .send()
        .await
        .map_err(|error| format!("the signed URL does not answer: {}", error.without_url()))?;
    if !answer.status().is_success() {
        return Err(format!("the signed URL is answered with {}", answer.status()));
    }
    let unwritable = |error: std::io::Error| format!("{} cannot be written: {error}", output.display());
    let temporary = super::super::output::temporary_beside(output).map_err(unwritable)?;
    let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(unwritable)?);
    let mut size = 0;
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|error| format!("the signed URL breaks off: {}", error.without_url()))?
    {
        file.write_all(&chunk).await.map_err(unwritable)?;
        size += chunk.len() as u64;
    }
    file.flush().await.map_err(unwritable)?;
    super::super::output::publish(temporary, output).map_err(unwritable)?;
    Ok(size)
}
