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

/// Objects of one page of a list that is walked: as many as Cloud Storage gives.
const WALKED: usize = 1000;
/// What an answer of as many may have: names of 1 KiB and metadata of 8 KiB, some of it escaped.
const WALKED_LIMIT: usize = 32 * 1024 * 1024;

/// The objects behind `after`, as many as one answer has; none at the end. Where to go on is a name and not Cloud
/// Storage's page token: it holds for ever, and across changes.
pub(super) async fn page(api: &Api, bucket: &str, prefix: &str, after: Option<&str>) -> Result<Vec<Object>, Error> {
    let resource = &super::shown(bucket, prefix, None);
    super::check_bucket(LIST, bucket, resource)?;
    let base = api.url(&format!(
        "/storage/v1/b/{}/o?prefix={}&maxResults={WALKED}&startOffset={}\
         &fields=items(bucket,name,generation,size,metadata),nextPageToken",
        encode::component(bucket),
        encode::component(prefix),
        encode::component(after.unwrap_or_default())
    ));
    let mut url = base.clone();
    loop {
        let address = url.as_str();
        let page: Page = api
            .call(Idempotency::Always, |token| async move {
                let request = authorized(api.http.request(Method::GET, address), token.as_ref());
                let response = http::send(LIST, resource, request).await?;
                http::parse(
                    LIST,
                    resource,
                    &http::body(LIST, resource, response, WALKED_LIMIT).await?,
                )
            })
            .await?;
        // The offset itself is listed, and a page may be empty with others behind it.
        let mut objects = page.items;
        objects.retain(|object| after.is_none_or(|after| object.name.as_str() > after));
        match page.next_page_token {
            Some(token) if objects.is_empty() => url = format!("{base}&pageToken={}", encode::component(&token)),
            _ => return Ok(objects),
        }
    }
}

/// All objects, in the order of their names; `TooLarge` when there are more than `most`.
pub(super) async fn run(api: &Api, bucket: &str, prefix: &str, most: usize) -> Result<Vec<Object>, Error> {
    let resource = &super::shown(bucket, prefix, None);
    super::check_bucket(LIST, bucket, resource)?;
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
