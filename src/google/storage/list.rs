//! Lists the objects whose names begin with a prefix, page by page.

use reqwest::Method;
use serde::Deserialize;

use super::Object;
use crate::google::api::{Api, authorized};
use crate::google::retry::Idempotency;
use crate::google::{Error, Kind, encode, http};

const LIST: &str = "storage.objects.list";
/// Objects of one page: with metadata of 8 KiB each, an answer stays below its limit.
const PAGE: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Object>,
    next_page_token: Option<String>,
}

/// All objects, in the order of their names; `TooLarge` when there are more than `most`.
pub(super) async fn run(api: &Api, bucket: &str, prefix: &str, most: usize) -> Result<Vec<Object>, Error> {
    let resource = &super::shown(bucket, prefix, None);
    if let "" | "." | ".." = bucket {
        return Err(Error::new(Kind::Invalid, LIST, resource, "that is no bucket name"));
    }
    let base = api.url(&format!(
        "/storage/v1/b/{}/o?prefix={}&maxResults={PAGE}",
        encode::component(bucket),
        encode::component(prefix)
    ));
    let mut objects = Vec::new();
    let mut url = base.clone();
    loop {
        let address = url.as_str();
        let page: Page = api
            .call(Idempotency::Always, |token| async move {
                let request = authorized(api.http.request(Method::GET, address), token.as_ref());
                http::json(LIST, resource, http::send(LIST, resource, request).await?).await
            })
            .await?;
        objects.extend(page.items);
        if objects.len() > most {
            let message = format!("there are more than {most} objects");
            return Err(Error::new(Kind::TooLarge, LIST, resource, message));
        }
        match page.next_page_token {
            Some(token) => url = format!("{base}&pageToken={}", encode::component(&token)),
            None => return Ok(objects),
        }
    }
}
