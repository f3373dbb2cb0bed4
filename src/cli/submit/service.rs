//! Jobs to a private service: several at once, and again where it is busy.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Url;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::super::Failure;
use super::super::cloud::{self, Cloud};
use super::results::Waiting;
use super::{Arguments, Failed, Job};
use crate::google::cloud_run::{CallError, Refused, Service};

/// Jobs that are out at once. A worker that has fewer slots answers 429, and the rest is asked again.
const AT_ONCE: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Where nobody answers, a wrong URL is likelier than a pause.
const CONNECTION_TRIES: u32 = 4;

/// The service as this command calls it.
pub(super) struct To {
    service: Service,
    url: Url,
    /// Whether the URL is one that Cloud Run gives.
    is_run_app: bool,
}

impl To {
    pub(super) async fn new(cloud: &Cloud, url: &Url, arguments: &Arguments) -> Result<Self, Failure> {
        let tokens = cloud.tokens_as(arguments.impersonate.as_deref()).await?;
        let audience = arguments
            .audience
            .clone()
            .unwrap_or_else(|| url.origin().ascii_serialization());
        let http = cloud::patient(arguments.timeout)?;
        let service = Service::new(http, url.as_str(), tokens, &audience);
        service.authenticate().await.map_err(cloud::work)?;
        Ok(Self {
            service,
            url: url.clone(),
            is_run_app: url.host_str().is_some_and(|host| host.ends_with(".run.app")),
        })
    }

    /// Sends all, and prints each result as it comes, or, where results are waited for, notes which they are.
    pub(super) async fn send(
        &self,
        jobs: &[Job],
        deadline: Instant,
        wait: bool,
        waiting: &mut Waiting,
        failed: &mut Failed,
    ) -> Result<(), Failure> {
        let calls = jobs
            .iter()
            .map(|job| async move { (job, self.one(job, deadline).await) });
        let mut answers = futures_util::stream::iter(calls).buffer_unordered(AT_ONCE);
        while let Some((job, answer)) = answers.next().await {
            match answer {
                Ok(Some(result)) if wait => match result["jobId"].as_str() {
                    Some(id) => waiting.job(id, &job.source),
                    None => failed.say(&job.source, "the answer is no result message: is the service a worker?"),
                },
                Ok(Some(result)) => failed.result(&job.source, &result),
                Ok(None) => failed.say(
                    &job.source,
                    "the worker ignored it: it is no document, or one that Platen wrote",
                ),
                Err(why) => failed.say(&job.source, &why),
            }
        }
        Ok(())
    }

    async fn one(&self, job: &Job, deadline: Instant) -> Result<Option<Value>, String> {
        let (mut longest, mut unanswered) = (FIRST_PAUSE, 0);
        loop {
            let answer = tokio::time::timeout_at(deadline, self.service.call(&job.body)).await;
            let (wait, why) = match answer {
                Err(_) => return Err("no answer came in time; raise --timeout".to_owned()),
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(CallError::Google(error))) => {
                    unanswered += 1;
                    if !error.is_transient() || unanswered >= CONNECTION_TRIES {
                        return Err(error.to_string());
                    }
                    (error.retry_after, error.to_string())
                }
                Ok(Err(CallError::Refused(refused))) => {
                    let why = self.explain(&refused);
                    if !matches!(refused.status, 429 | 502..=504) {
                        return Err(why);
                    }
                    (refused.retry_after, why)
                }
            };
            let pause = wait.unwrap_or(longest).max(Duration::from_millis(100));
            longest = (longest * 2).min(LONGEST_PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(format!("{why}; no time is left to try again, raise --timeout"));
            }
            tracing::info!("{}: {why}; trying again in {} s", job.source, pause.as_secs_f32());
            sleep(pause).await;
        }
    }

    /// Who refused, why, and what to do. Google's front end and the worker refuse for different reasons.
    fn explain(&self, refused: &Refused) -> String {
        let (status, url) = (refused.status, self.url.as_str());
        let (email, audience) = (&refused.caller.email, &refused.caller.aud);
        match (status, &refused.service) {
            (401, None) => {
                let own = if self.is_run_app {
                    "Name one of them with --audience"
                } else {
                    "The name of a load balancer or a custom domain is none of these: name the service's own URL with \
                     --audience"
                };
                format!(
                    "Cloud Run's front end refused the token (HTTP 401), the worker has not seen it: its audience is \
                     {audience}, and Cloud Run takes a service's own URL (gcloud run services describe SERVICE \
                     --region=REGION --format='value(status.url)') and the custom audiences set on it. {own}"
                )
            }
            (403, None) => format!(
                "Cloud Run's front end refused the caller (HTTP 403), the worker has not seen the request: {email} needs \
                 roles/run.invoker on the service: gcloud run services add-iam-policy-binding SERVICE --region=REGION \
                 --member=serviceAccount:{email} --role=roles/run.invoker"
            ),
            (401, Some((code, message))) => format!(
                "the worker refused the token (HTTP 401, {code}: {message}): a private Cloud Run service needs \
                 PUSH_AUTH=cloud-run-iam, any other host PUSH_AUTH=oidc"
            ),
            (403, Some((code, message))) => format!(
                "the worker refused the caller (HTTP 403, {code}: {message}): its PUSH_SERVICE_ACCOUNT must list {email} \
                 and its PUSH_AUDIENCE {audience}"
            ),
            (404, None) => format!(
                "there is no service at {url} (HTTP 404), or its ingress setting keeps callers from outside away"
            ),
            (300..=399, _) => {
                format!("{url} redirects (HTTP {status}), and a token follows no redirect: name the service itself")
            }
            (_, Some((code, message))) => format!("the worker answered HTTP {status}, {code}: {message}"),
            (_, None) => format!("{url} answered HTTP {status} without a worker's words"),
        }
    }
}
