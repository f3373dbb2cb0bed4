//! One run of a job: from a look at what is under its outputs' names to the last output's being there.
//!
//! All deliveries of a job that come while it runs share it ([`super::flight`]): it knows nothing of the messages that
//! asked for it, and says how it went in a value that each of them reports for itself.

use std::fmt;
use std::sync::Arc;

use tokio::time::timeout_at;

use super::admission::{Admitted, GivenBack, most_on_disk};
use super::deadline::Deadline;
use super::phase::Timed;
use super::{Context, Google, passwords};
use crate::convert::{self, ConvertedFile, SourceObject, Wanted};
use crate::deliver::{self, Found, Place, Stored, Target, Timings};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::failpoint::failpoint;
use crate::job::{Job, JobId, NameValues, SecretName, Source, is_object_name};
use crate::metrics;

/// What deliveries must have in common to share a run. The password is not part of the job's identity, but decides how
/// the run ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    job: JobId,
    generation: i64,
    password: Option<SecretName>,
}

impl Key {
    pub(super) fn of(job: &Job, generation: i64) -> Self {
        Self {
            job: job.id(Some(generation)),
            generation,
            password: job.password.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.job.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// Of fetching, converting and storing, as far as it came.
    pub(super) timings: Timings,
    /// The outputs, in the order they were asked for: all of them, or none.
    pub(super) outputs: Step<Vec<Stored>>,
}

/// What a run works with.
pub(super) struct Run {
    pub(super) context: Arc<Context>,
    /// With the retries of the delivery that started it.
    pub(super) google: Google,
    pub(super) job: Job,
    pub(super) deadline: Deadline,
    /// The place that its delivery has taken for it.
    pub(super) admitted: Option<Arc<Admitted>>,
}

impl Run {
    /// The job's outputs: those that are there already, and the rest made now. Ends at its deadline at the latest; what is
    /// stored by then is found by the next run.
    pub(super) async fn make(mut self, source: SourceObject) -> Made {
        let mut timings = Timings::default();
        let (admitted, mut place) = (self.admitted.take(), None);
        let making = self.find_or_make(&source, admitted, &mut place, &mut timings);
        let outputs = timeout_at(self.deadline.run, making)
            .await
            .unwrap_or_else(|_| Err(late(&source.source)));
        // However it ended, and outside of its time: what is made is made.
        if let Some(place) = place {
            place.free().await;
        }
        Made { timings, outputs }
    }

    /// The outputs of a job whose source is gone, if an earlier delivery made them all.
    ///
    /// `gone` is what is said where they are not.
    pub(super) async fn find_all(self, generation: i64, gone: String) -> Made {
        let outputs = match timeout_at(self.deadline.run, self.all_there(generation)).await {
            Ok(Ok(Some(stored))) => Ok(stored),
            Ok(Ok(None)) => Err(Stop::Superseded(gone)),
            Ok(Err(stop)) => Err(stop),
            Err(_) => Err(late(&self.job.source)),
        };
        Made {
            timings: Timings::default(),
            outputs,
        }
    }

    async fn find_or_make(
        &self,
        source: &SourceObject,
        admitted: Option<Arc<Admitted>>,
        place: &mut Option<GivenBack>,
        timings: &mut Timings,
    ) -> Step<Vec<Stored>> {
        failpoint!("find.before");
        let mut outputs: Vec<Option<Stored>> = Vec::with_capacity(self.job.outputs.len());
        let mut missing = Vec::new();
        let targets = targets(&self.context, &self.job, source.generation)?;
        for (wanted, target) in self.job.outputs.iter().zip(targets) {
            match deliver::find(&self.google.storage, &target, &source.source, source.generation).await? {
                Found::Done(output) => outputs.push(Some(output)),
                Found::Room(place) => {
                    outputs.push(None);
                    let wanted = Wanted {
                        format: wanted.format,
                        options: wanted.options.clone(),
                        passwords: passwords::of_output(&self.context.secrets, &wanted.options).await?,
                    };
                    missing.push((wanted, target, place));
                }
            }
        }
        failpoint!("find.after");
        if !missing.is_empty() {
            let admitted = self.begin(source, admitted, missing.len())?;
            *place = Some(admitted.given_back());
            let made = self.convert_and_store(source, admitted, &missing, timings).await?;
            for (gap, output) in outputs.iter_mut().filter(|output| output.is_none()).zip(made) {
                *gap = Some(output);
            }
        }
        Ok(outputs.into_iter().flatten().collect())
    }

    async fn all_there(&self, generation: i64) -> Step<Option<Vec<Stored>>> {
        let mut outputs = Vec::with_capacity(self.job.outputs.len());
        for target in targets(&self.context, &self.job, generation)? {
            match deliver::find(&self.google.storage, &target, &self.job.source, generation).await {
                Ok(Found::Done(output)) => outputs.push(output),
                Ok(Found::Room(_)) | Err(Stop::Failed(_) | Stop::Superseded(_)) => return Ok(None),
                Err(refused) => return Err(refused),
            }
        }
        Ok(Some(outputs))
    }

    /// A slot, for a conversion that can end in time.
    fn begin(&self, source: &SourceObject, admitted: Option<Arc<Admitted>>, outputs: usize) -> Step<Arc<Admitted>> {
        let context = &self.context;
        // The engine asks again when it begins: a fetch may take any time.
        if !self.deadline.has_room_for(context.limits.time) {
            return Err(Refusal::new(
                RefusalKind::Unavailable,
                format!(
                    "the conversion of {} could end after the delivery's deadline: the next delivery has a whole one",
                    source.source.display()
                ),
            )
            .into());
        }
        if !*context.engine.warm().borrow() {
            return Err(Refusal::new(RefusalKind::Unavailable, "the engine is not warm yet").into());
        }
        let disk = most_on_disk(source, outputs, &context.limits);
        Ok(context.admission.begin(admitted, disk)?)
    }

    /// The part that needs a slot: fetch, convert, store. What is left of it when this ends goes with the last process
    /// that could write in its directory, and then the place.
    async fn convert_and_store(
        &self,
        source: &SourceObject,
        admitted: Arc<Admitted>,
        missing: &[(Wanted, Target, Place)],
        timings: &mut Timings,
    ) -> Step<Vec<Stored>> {
        let context = &self.context;
        failpoint!("slot.taken");
        let fetching = Timed::fetch();
        let directory = context.engine.job_directory_keeping(admitted).map_err(|error| {
            Refusal::new(
                RefusalKind::Unavailable,
                format!("no job directory can be made: {error}; see TMPDIR"),
            )
        })?;
        failpoint!("fetch.before");
        let fetched = convert::fetch(&self.google.storage, source, directory, &context.limits).await;
        timings.fetch_ms = fetching.end();
        let mut document = fetched?;
        metrics::fetched(source.size);
        failpoint!("fetch.after");

        let converting = Timed::convert();
        let wanted: Vec<_> = missing.iter().map(|(wanted, ..)| wanted.clone()).collect();
        let (name, password) = (&source.source.name, self.job.password.as_ref());
        let converted =
            passwords::convert_with(context, name, &mut document, password, &wanted, self.deadline.work).await;
        timings.convert_ms = converting.end();
        let files = converted?;
        failpoint!("convert.after");

        // One after the other, so that what is stored when the time is over is whole, and the next delivery has less to do.
        let storing = Timed::store();
        let stored = self.store(source, missing, &files).await;
        timings.store_ms = storing.end();
        stored
    }

    async fn store(
        &self,
        source: &SourceObject,
        missing: &[(Wanted, Target, Place)],
        files: &[ConvertedFile],
    ) -> Step<Vec<Stored>> {
        let mut stored = Vec::with_capacity(missing.len());
        for ((_, target, place), file) in missing.iter().zip(files) {
            failpoint!("store.before");
            stored.push(deliver::store(&self.google.storage, target, source, file, *place).await?);
            metrics::stored(file.size);
            failpoint!("store.after");
        }
        Ok(stored)
    }
}

fn late(source: &Source) -> Stop {
    let message = format!(
        "{} was not fetched, converted and stored within ACK_DEADLINE: the next delivery goes on with the outputs that are there",
        source.display()
    );
    Refusal::new(RefusalKind::Unavailable, message).into()
}

/// Where each output goes.
///
/// # Errors
/// `message.invalid` for a name that Cloud Storage does not take, and for two outputs of one name.
pub(super) fn targets(context: &Context, job: &Job, generation: i64) -> Result<Vec<Target>, Failure> {
    let invalid = |message| Failure::new(FailureCode::MessageInvalid, message);
    let job_id = job.id(Some(generation));
    let mut targets: Vec<Target> = Vec::with_capacity(job.outputs.len());
    for output in &job.outputs {
        let name = output.name.fill(&NameValues {
            bucket: &job.source.bucket,
            object: &job.source.name,
            generation,
            extension: output.format.as_str(),
            job_id: job_id.as_str(),
        });
        if !is_object_name(&name) {
            return Err(invalid(format!(
                "The output name {:?} makes {name:?} of this source, which Cloud Storage does not take.",
                output.name.as_str()
            )));
        }
        if targets.iter().any(|target| target.name == name) {
            return Err(invalid(format!(
                "Two outputs of the job have the name {name:?}: give each its own."
            )));
        }
        targets.push(Target {
            bucket: context.output_bucket.clone(),
            name,
            format: output.format,
            disposition: job.disposition,
            job_id: job_id.clone(),
        });
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{NameTemplate, Request};

    fn key(fields: &str, generation: i64) -> Key {
        let json = format!(r#"{{"source": "gs://in/a.docx"{fields}}}"#);
        let request = Request::from_json(json.as_bytes()).unwrap();
        Key::of(&request.into_job(&NameTemplate::default()).unwrap(), generation)
    }

    #[test]
    fn what_changes_no_output_shares_a_run_and_nothing_else_does() {
        let plain = key("", 1);
        for same in [
            r#", "generation": "1""#,
            r#", "userData": 5"#,
            r#", "signedUrl": {"ttl": "60s", "disposition": "inline"}"#,
        ] {
            assert_eq!(key(same, 1), plain, "{same}");
        }
        for other in [
            r#", "revision": "2""#,
            r#", "outputs": [{"format": "txt"}]"#,
            r#", "outputs": [{"format": "pdf", "options": {"landscape": true}}]"#,
            r#", "password": {"secret": "contracts"}"#,
        ] {
            assert_ne!(key(other, 1), plain, "{other}");
        }
        assert_ne!(key("", 2), plain);
    }
}
