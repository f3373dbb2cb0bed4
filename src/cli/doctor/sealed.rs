//! The sealed configuration object: whether it can be read, and opened.

use super::patient::Reach;
use super::report::{Line, State};
use crate::config::Sealed;
use crate::google::Kind;
use crate::google::grant::Grant;
use crate::google::kms::Kms;
use crate::secrets::{Opened, Store};

/// A line for the object and one for its key; what was sealed, when it could be opened.
pub(super) async fn open(reach: &Reach, sealed: &Sealed) -> (Vec<Line>, Option<Opened>) {
    let (object, key) = (&sealed.object, &sealed.key);
    let read = format!("read {object}");
    let open = format!("open it with {key}");
    let resource = object.to_string();
    let storage = reach.storage();
    let looked = reach
        .within(&resource, storage.metadata(&object.bucket, &object.name, None))
        .await;
    let mut lines = vec![match &looked {
        Ok(_) => Line::good(read),
        Err(error) => Line::failed(read, error, Grant::read_configuration(&object.bucket), &reach.member),
    }];
    let kms = Kms::new(reach.http.clone(), &reach.cloud.endpoints.kms, reach.tokens.clone()).within(&reach.budget());
    // Any bytes do to see whether the key may be used: what it did not make is refused in other words.
    let tried = reach.within(key, kms.decrypt(key, b"platen doctor", &[])).await;
    match tried {
        Err(error) if error.kind != Kind::Invalid => {
            lines.push(Line::failed(open, &error, Grant::decrypt(key), &reach.member));
            return (lines, None);
        }
        _ if looked.is_err() => {
            lines.push(Line::good(format!("use {key}")));
            return (lines, None);
        }
        _ => {}
    }
    let store = Store::new(sealed, storage, kms, reach.tokens.clone());
    let opened = match tokio::time::timeout(reach.limit, store.open()).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", reach.limit.as_secs_f32())),
    };
    match opened {
        Ok(opened) => {
            lines.push(Line::good(open));
            (lines, Some(opened))
        }
        Err(why) => {
            lines.push(Line::new(State::Wrong, open, why));
            (lines, None)
        }
    }
}
