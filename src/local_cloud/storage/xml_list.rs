//! Lists of the XML API, in both forms: `marker`, and `list-type=2` with `continuation-token`.

use axum::{http::StatusCode, response::Response};
use chrono::SecondsFormat;

use super::{
    super::{
        Refusal, World,
        server::{Request, with_type},
    },
    list::{Place, Selection, most},
    object::Object,
    xml::escaped,
};

pub(super) fn objects(world: &World, request: &Request, bucket: &str) -> Result<Response, Refusal> {
    let text = |name: &str| request.parameter(name).filter(|text| !text.is_empty());
    let second = request.parameter("list-type").as_deref() == Some("2");
    let after = if second {
        let token = text("continuation-token")
            .map(|token| Place::of_token(&token))
            .transpose()?;
        token.or_else(|| text("start-after").map(Place::after))
    } else {
        text("marker").map(Place::after)
    };
    let selection = Selection {
        prefix: request.parameter("prefix").unwrap_or_default(),
        delimiter: text("delimiter"),
        versions: false,
        start: String::new(),
        end: None,
        trailing: false,
        glob: None,
        after,
        most: most(request, "max-keys")?,
    };
    let store = world.storage.look();
    let page = selection.page(store.bucket(bucket)?);
    let element = |name: &str, text: &str| format!("<{name}>{}</{name}>", escaped(text));
    let mut body = element("Name", bucket) + &element("Prefix", &selection.prefix);
    if let Some(delimiter) = &selection.delimiter {
        body += &element("Delimiter", delimiter);
    }
    match (&page.next, second) {
        (Some(next), true) => body += &element("NextContinuationToken", &next.token()),
        (Some(next), false) => body += &element("NextMarker", next.entry()),
        (None, _) => {}
    }
    if second {
        body += &element("KeyCount", &page.length().to_string());
    }
    body += &element("MaxKeys", &selection.most.to_string());
    body += &element("IsTruncated", &page.next.is_some().to_string());
    body.extend(page.objects.iter().map(|object| contents(object)));
    let prefixes = page.prefixes.iter().map(|prefix| element("Prefix", prefix));
    body.extend(prefixes.map(|prefix| format!("<CommonPrefixes>{prefix}</CommonPrefixes>")));
    let body = format!(
        "<?xml version='1.0' encoding='UTF-8'?>\
         <ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'>{body}</ListBucketResult>"
    );
    Ok(with_type(StatusCode::OK, "application/xml; charset=UTF-8", body))
}

fn contents(object: &Object) -> String {
    format!(
        "<Contents><Key>{}</Key><Generation>{}</Generation><MetaGeneration>{}</MetaGeneration>\
         <LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
        escaped(&object.name),
        object.generation,
        object.metageneration,
        object.updated.to_rfc3339_opts(SecondsFormat::Millis, true),
        object.xml_etag(),
        object.content.len(),
    )
}
