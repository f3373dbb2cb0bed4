//! Signed URLs: whether the signer signs, and whether what it signs gives the object.

use std::time::Duration;

use chrono::Utc;

use super::objects::hides_what_is_missing;
use super::patient::Patient;
use super::report::{Line, State};
use crate::deliver::sign::{Request, SignError, Signer, Style};
use crate::google::Kind;
use crate::google::grant::Grant;
use crate::google::inspect::fetch_signed;
use crate::google::secret::Secret;

/// How long the link to the probe lasts.
const LINK: Duration = Duration::from_secs(60);

/// The probe through a link; with nothing expected, whether the link would give it if it were there.
pub(super) async fn link(patient: &Patient, name: &str, what: String, expected: Option<&[u8]>) -> Line {
    let (reach, bucket) = (&patient.reach, &patient.config.output_bucket);
    let Ok(signer) = &patient.signer else {
        return Line::new(State::Unseen, what, "nobody signs");
    };
    let resource = format!("gs://{bucket}/{name}");
    let Ok(url) = signed(patient, signer, Some(name)).await else {
        return Line::new(
            State::Unseen,
            what,
            format!("there is no signature of {}", signer.email()),
        );
    };
    let fetched = reach
        .within(&resource, fetch_signed(&reach.http, &url, &resource))
        .await;
    match (fetched, expected) {
        (Ok(bytes), Some(expected)) if bytes == expected => Line::good(what),
        (Ok(_), _) => Line::new(State::Wrong, what, "other bytes came back than were written"),
        (Err(error), None) if error.kind == Kind::NotFound || hides_what_is_missing(&error) => Line::good(what),
        (Err(error), _) => {
            let member = format!("serviceAccount:{}", signer.email());
            Line::failed(what, &error, Grant::read_outputs(bucket), &member)
        }
    }
}

/// Whether the signer signs, and for as long as links are to last.
pub(super) async fn signature(patient: &Patient) -> Line {
    let signer = match &patient.signer {
        Ok(signer) => signer,
        Err(why) => return Line::new(State::Wrong, "sign URLs", why.as_str()),
    };
    let what = match signer {
        Signer::Key(key) => format!("sign URLs with the key of {}", key.client_email),
        Signer::Blob { email, .. } => format!("sign URLs as {email}"),
    };
    if patient.config.signed_url_ttl > signer.longest() {
        let why = format!(
            "SIGNED_URL_TTL is {} s, and what this signer signs holds {} s at most",
            patient.config.signed_url_ttl.as_secs(),
            signer.longest().as_secs()
        );
        return Line::new(State::Wrong, what, why);
    }
    if patient.reach.impersonated.as_deref() == Some(signer.email()) {
        let why = "not tried: whoever impersonates an account signs by their own right, and the worker needs one on \
                   itself; run doctor as the worker";
        return Line::new(State::Unseen, what, why);
    }
    match signed(patient, signer, None).await {
        Ok(_) => Line::good(what),
        Err(SignError::Google(error)) => {
            Line::failed(what, &error, Grant::sign_as(signer.email()), &patient.reach.member)
        }
        Err(error) => Line::new(State::Wrong, what, error.to_string()),
    }
}

async fn signed(patient: &Patient, signer: &Signer, object: Option<&str>) -> Result<Secret, SignError> {
    let request = Request {
        method: "GET",
        bucket: &patient.config.output_bucket,
        object,
        headers: &[],
        query: &[],
        style: Style::Path,
        endpoint: &patient.endpoint,
        at: Utc::now(),
        ttl: LINK,
    };
    let signing = async {
        match signer.sign(&request).await {
            Ok(signed) => Ok(Ok(signed.url)),
            Err(SignError::Google(error)) => Err(error),
            Err(refused) => Ok(Err(refused)),
        }
    };
    patient.reach.within(signer.email(), signing).await?
}
