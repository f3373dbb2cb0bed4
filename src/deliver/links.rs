//! The link to one stored output: pinned to its generation, its type and the name it is saved under.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;

use super::disposition::content_disposition;
use super::link_cache::{LinkCache, LinkKey};
use super::sign::{Endpoint, Request, SignError, SignedUrl, Signer, Style};
use super::store::Stored;
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step};
use crate::google::grant::Grant;
use crate::google::retry::Budget;
use crate::job::Disposition;
use crate::metrics;

/// Who signs links, where they point, and how long they last.
#[derive(Debug, Clone)]
pub struct Links {
    signer: Signer,
    endpoint: Endpoint,
    ttl: Duration,
    signed: Arc<LinkCache>,
}

impl Links {
    /// Checks the lifetime against what the signer may promise: Google may rotate the keys behind `signBlob` after
    /// 12 hours, a key file's signature holds for 7 days.
    ///
    /// # Errors
    /// The rest of a sentence that begins with the variable's name.
    pub fn new(signer: Signer, endpoint: Endpoint, ttl: Duration) -> Result<Self, String> {
        let longest = signer.longest();
        if ttl > longest {
            return Err(format!(
                "is {} s: links signed by {} last at most {} s",
                ttl.as_secs(),
                signer.email(),
                longest.as_secs()
            ));
        }
        Ok(Self {
            signer,
            endpoint,
            ttl,
            signed: Arc::default(),
        })
    }

    /// The same, with calls to Google counted against this budget.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        Self {
            signer: self.signer.within(budget),
            ..self.clone()
        }
    }

    /// How long a job's links last.
    ///
    /// # Errors
    /// `message.invalid` when the job asks for more than the signer may promise.
    pub fn ttl(&self, asked: Option<Duration>) -> Result<Duration, Failure> {
        let longest = self.signer.longest();
        match asked {
            None => Ok(self.ttl),
            Some(ttl) if ttl >= Duration::from_secs(1) && ttl <= longest && ttl.subsec_nanos() == 0 => Ok(ttl),
            Some(_) => Err(Failure::new(
                FailureCode::MessageInvalid,
                format!(
                    "signedUrl.ttl is out of range: allowed are whole seconds from 1s to {}s.",
                    longest.as_secs()
                ),
            )),
        }
    }

    /// One output's link: through signBlob one that was signed a short while ago, if there is one, else a new one.
    ///
    /// # Errors
    /// Refused when the signature cannot be had now.
    pub async fn link(&self, output: &Stored, disposition: Disposition, ttl: Duration) -> Step<SignedUrl> {
        let (target, now) = (&output.target, Utc::now());
        let query = [
            ("generation".to_owned(), output.generation.to_string()),
            (
                "response-content-type".to_owned(),
                target.format.content_type().to_owned(),
            ),
            (
                "response-content-disposition".to_owned(),
                content_disposition(disposition, target.file_name()),
            ),
        ];
        let request = Request {
            method: "GET",
            bucket: &target.bucket,
            object: Some(&target.name),
            headers: &[],
            query: &query,
            style: Style::Path,
            endpoint: &self.endpoint,
            at: now,
            ttl,
        };
        let asked = AtomicBool::new(false);
        let sign = || async {
            asked.store(true, Ordering::Relaxed);
            let signed = self.signer.sign(&request).await;
            metrics::signature(if signed.is_ok() { "made" } else { "failed" });
            signed
        };
        let signed = match &self.signer {
            Signer::Key(_) => sign().await,
            Signer::Blob { .. } => {
                let key = LinkKey {
                    bucket: target.bucket.clone(),
                    name: target.name.clone(),
                    query: query.to_vec(),
                    ttl,
                };
                self.signed.get(key, now, sign).await
            }
        };
        if signed.is_ok() && !asked.load(Ordering::Relaxed) {
            metrics::signature("reused");
        }
        signed.map_err(|error| match error {
            SignError::Google(error) => Refusal::unavailable(&error, Grant::sign_as(self.signer.email())).into(),
            // The lifetime was checked before anything was converted, so this is ours.
            SignError::Refused(message) => {
                Refusal::new(RefusalKind::Bug, format!("a link was refused: {message}")).into()
            }
        })
    }
}
