//! Which objects get a job, and what that job is: what the worker would make of their notifications.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use globset::GlobSet;
use serde_json::json;

use super::tally::{Reason, Tally};
use crate::accept::{Event, Ignored, JOB_METADATA, Plan, Rules, plan};
use crate::config;
use crate::convert::inspect::is_readable_extension;
use crate::deliver::{Found, Target, judge};
use crate::error::Stop;
use crate::google::pubsub::Message;
use crate::google::storage::{Object, Storage};
use crate::google::{Error, Kind};
use crate::job::{Job, NameTemplate, NameValues, Source};

/// How many outputs are looked at at once.
const LOOKS: usize = 32;

/// The worker's rules, and what the jobs have in common.
pub(super) struct Selection {
    rules: Rules,
    revision: Option<String>,
}

/// An object that gets a job.
pub(super) struct Candidate {
    pub(super) size: u64,
    pub(super) job: Job,
    generation: i64,
}

impl Selection {
    /// # Errors
    /// Globs that, together, are none.
    pub(super) fn new(
        bucket: &str,
        output_name: NameTemplate,
        include: Option<&str>,
        exclude: Option<&str>,
        revision: Option<String>,
    ) -> Result<Self, String> {
        let rules = Rules {
            input_buckets: vec![bucket.to_owned()],
            output_name,
            include: include.map(config::globs).transpose()?,
            exclude: exclude.map_or_else(|| Ok(GlobSet::empty()), config::globs)?,
            readable: is_readable_extension,
        };
        Ok(Self { rules, revision })
    }

    /// # Errors
    /// Why there is no job for the object.
    pub(super) fn choose(&self, object: Object) -> Result<Candidate, Reason> {
        let (size, generation) = (object.size, object.generation);
        let ours = object.metadata.contains_key(JOB_METADATA);
        let source = Source {
            bucket: object.bucket,
            name: object.name,
            generation: Some(generation),
        };
        match plan(&self.rules, Event::Finalized { source, ours }) {
            Ok(Plan::Convert(job)) => Ok(Candidate {
                size,
                generation,
                job: Job {
                    revision: self.revision.clone(),
                    ..*job
                },
            }),
            Ok(Plan::Ignore(Ignored::OwnOutput)) => Err(Reason::WrittenByPlaten),
            Ok(Plan::Ignore(Ignored::FolderPlaceholder)) => Err(Reason::FolderPlaceholder),
            Ok(Plan::Ignore(Ignored::LeftOut | Ignored::OtherEvent)) | Err(_) => Err(Reason::OtherType),
        }
    }
}

impl Candidate {
    /// The job, and its object's name.
    pub(super) fn into_message(self) -> (Message, String) {
        let Source { bucket, name, .. } = self.job.source;
        let mut job = json!({"source": format!("gs://{bucket}/{name}"), "generation": self.generation.to_string()});
        if let Some(revision) = self.job.revision {
            job["revision"] = revision.into();
        }
        let message = Message {
            data: job.to_string().into_bytes(),
            ..Message::default()
        };
        (message, name)
    }

    /// Where the worker stores the job's only output.
    fn target(&self, bucket: &str) -> Option<Target> {
        let output = self.job.outputs.first()?;
        let job_id = self.job.id(Some(self.generation));
        let name = output.name.fill(&NameValues {
            bucket: &self.job.source.bucket,
            object: &self.job.source.name,
            generation: self.generation,
            extension: output.format.as_str(),
            job_id: job_id.as_str(),
        });
        Some(Target {
            bucket: bucket.to_owned(),
            name,
            format: output.format,
            disposition: self.job.disposition,
            job_id,
        })
    }

    /// Whether the worker would find this done. What stands in its way (another source's output, a newer one) is for its
    /// result to say.
    async fn is_done(&self, storage: &Storage, bucket: &str) -> Result<bool, Error> {
        let Some(target) = self.target(bucket) else {
            return Ok(false);
        };
        match storage.metadata(bucket, &target.name, None).await {
            Ok(object) => Ok(matches!(
                judge(&object, &target, &self.job.source, self.generation),
                Ok(Found::Done(_)) | Err(Stop::Superseded(_))
            )),
            // The bucket's absence is a 404 as well.
            Err(error) if error.kind == Kind::NotFound && !error.message.contains("bucket does not exist") => Ok(false),
            // A name that no object can have: the worker says so.
            Err(error) if error.kind == Kind::Invalid && error.status.is_none() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Those whose output is not there, in their order.
pub(super) async fn not_done(
    storage: &Storage,
    bucket: &str,
    candidates: Vec<Candidate>,
    tally: &mut Tally,
) -> Result<Vec<Candidate>, Error> {
    let looked_at: Vec<(Candidate, bool)> = stream::iter(candidates)
        .map(|candidate| async move {
            let is_done = candidate.is_done(storage, bucket).await?;
            Ok::<_, Error>((candidate, is_done))
        })
        .buffered(LOOKS)
        .try_collect()
        .await?;
    Ok(looked_at
        .into_iter()
        .filter_map(|(candidate, is_done)| {
            if is_done {
                tally.left_out(Reason::Done);
            }
            (!is_done).then_some(candidate)
        })
        .collect())
}
