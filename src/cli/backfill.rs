//! `platen backfill`: a job for every object that is there already.
//!
//! Page by page: list, choose, publish, note how far it came. What is in memory is one page.

mod place;
mod selection;
mod tally;

use std::pin::{Pin, pin};
use std::time::Duration;

use serde_json::json;

use super::Failure;
use super::cloud::{Cloud, work};
use crate::config::{self, BackfillConfig, Environment};
use crate::google::http::Http;
use crate::google::pubsub::{Message, Publisher, batches};
use crate::google::retry::Budget;
use crate::google::storage::Storage;
use crate::google::{Error, Kind};
use crate::job::is_bucket_name;
use place::Place;
use selection::{Candidate, Selection};
use tally::Tally;

/// How long one page is tried for where Google does not answer. Nobody else would try again.
const PER_PAGE: Duration = Duration::from_mins(5);
/// How long a request that is under way may take after an interruption.
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// The longest revision that a job may have, in bytes.
const REVISION_LIMIT: usize = 1024;

/// Publish one job for every object under a prefix.
///
/// Example: platen backfill gs://in/reports/ --topic document-jobs --dry-run
/// Example: platen backfill gs://in --topic document-jobs --include '*.docx' --include '*.{xlsx,ods}'
/// Example: OUTPUT_BUCKET=out platen backfill gs://in/2025/ --topic document-jobs --revision fonts-2026
///
/// A job is what the notification of that generation would ask for: one PDF. Left out are folder placeholders, what
/// Platen wrote, and what the engine does not read or the globs do not match; INPUT_INCLUDE and INPUT_EXCLUDE hold as for
/// the worker, --include beats the former. With OUTPUT_BUCKET (and OUTPUT_NAME, if the worker has it) what is done
/// already is left out, too; without it the worker finds that out, converts nothing, and publishes the result again.
///
/// A run that ends early is taken up where it was by the same command. Exit code 0 when every job is published.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Where: a bucket, or what names in it begin with.
    #[arg(value_name = "gs://BUCKET/PREFIX", value_parser = prefix)]
    source: Prefix,
    /// The topic that pushes to the worker: projects/PROJECT/topics/TOPIC, or TOPIC.
    #[arg(long)]
    topic: String,
    /// Objects to take, by their whole name; '*' matches '/', too. Again for more [default: INPUT_INCLUDE, else all
    /// that the engine reads].
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    include: Vec<String>,
    /// Part of the jobs' identity: another one converts again what is done.
    #[arg(long, value_name = "TEXT", value_parser = revision)]
    revision: Option<String>,
    /// Count, by type, and publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Begin behind this object's name, whatever an earlier run did.
    #[arg(long, value_name = "NAME", conflicts_with = "restart")]
    start_after: Option<String>,
    /// Begin anew, whatever an earlier run did.
    #[arg(long)]
    restart: bool,
}

#[derive(Debug, Clone)]
struct Prefix {
    bucket: String,
    prefix: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = super::configured(BackfillConfig::load(&Environment))?;
    let include = match &arguments.include[..] {
        [] => config.include,
        globs => Some(globs.join(",")),
    };
    let selection = Selection::new(
        &arguments.source.bucket,
        config.output_name,
        include.as_deref(),
        config.exclude.as_deref(),
        arguments.revision.clone(),
    )
    .map_err(|message| Failure::Usage(Some(message)))?;
    super::runtime()?.block_on(async {
        let mut interrupted = pin!(super::interrupted()?);
        let cloud = Cloud::connect(config.cloud).await?;
        if !(cloud.endpoints.storage_is_emulator && cloud.endpoints.pubsub_is_emulator) {
            cloud.required()?;
        }
        let topic = cloud.resource("topics", &arguments.topic).await?;
        let command = json!({
            "backfill": format!("gs://{}/{}", arguments.source.bucket, arguments.source.prefix), "topic": topic,
            "include": include, "exclude": config.exclude, "revision": arguments.revision,
        });
        let mut place = match &arguments.start_after {
            Some(name) if arguments.dry_run => Place::behind(name),
            _ if arguments.dry_run && arguments.restart => Place::default(),
            _ if arguments.dry_run => Place::look(&command),
            Some(name) => Place::keep(&command, Some(name))?,
            None => Place::keep(&command, arguments.restart.then_some(""))?,
        };
        place.tell(&arguments.source.bucket);
        let http = Http::new().map_err(work)?;
        let run = Run {
            storage: Storage::new(http.clone(), &cloud.endpoints.storage, cloud.tokens.clone()),
            publisher: Publisher::new(http, &cloud.endpoints.pubsub, cloud.tokens.clone()),
            cloud: &cloud,
            source: &arguments.source,
            selection: &selection,
            output_bucket: config.output_bucket.as_deref(),
            topic: &topic,
            dry_run: arguments.dry_run,
        };
        let mut tally = Tally::new();
        let outcome = run.all(&mut place, &mut tally, interrupted.as_mut()).await;
        tally.tell(arguments.dry_run, outcome.is_ok(), &topic);
        match outcome {
            Ok(()) => {
                place.finish();
                Ok(())
            }
            Err(Failure::Work(Some(message))) => Err(Failure::Work(Some(format!(
                "{}{}",
                message.trim_end_matches('.'),
                place.advice()
            )))),
            Err(failure) => Err(failure),
        }
    })
}

/// What one page of the list comes to.
struct Page {
    messages: Vec<Message>,
    /// Their objects.
    names: Vec<String>,
    /// The last one that was listed, with or without a job.
    last: String,
}

struct Run<'a> {
    storage: Storage,
    publisher: Publisher,
    cloud: &'a Cloud,
    source: &'a Prefix,
    selection: &'a Selection,
    output_bucket: Option<&'a str>,
    topic: &'a str,
    dry_run: bool,
}

impl Run<'_> {
    async fn all(
        &self,
        place: &mut Place,
        tally: &mut Tally,
        mut interrupted: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        let stopped = || Failure::Work(Some("stopped before every job was published".to_owned()));
        loop {
            let page = tokio::select! {
                page = self.page(place.after(), tally) => page?,
                () = &mut interrupted => return Err(stopped()),
            };
            let Some(page) = page else {
                return Ok(());
            };
            let mut jobs = 0;
            for batch in batches(&page.messages) {
                if self.dry_run {
                    break;
                }
                jobs += batch.len();
                let through = page.names.get(jobs - 1).unwrap_or(&page.last);
                place.begin(batch.len(), through);
                let mut published = pin!(self.publish(batch));
                let is_last = tokio::select! {
                    outcome = &mut published => { outcome?; false }
                    () = &mut interrupted => {
                        // Cut off, it may be published all the same, and be published again.
                        match tokio::time::timeout(LAST_REQUEST, published).await {
                            Ok(outcome) => outcome?,
                            Err(_) => return Err(stopped()),
                        }
                        true
                    }
                };
                place.done(batch.len(), through);
                tally.published(batch.len());
                if is_last {
                    return Err(stopped());
                }
            }
            place.done(0, &page.last);
        }
    }

    /// The jobs of the next page; none when there are no more.
    async fn page(&self, after: Option<&str>, tally: &mut Tally) -> Result<Option<Page>, Failure> {
        let Prefix { bucket, prefix } = self.source;
        let storage = self.storage.within(&Budget::new(PER_PAGE));
        let objects = match storage.page(bucket, prefix, after).await {
            Ok(objects) => objects,
            Err(error) => return Err(self.unlisted(error).await),
        };
        let Some(last) = objects.last().map(|object| object.name.clone()) else {
            return Ok(None);
        };
        let mut chosen = Vec::with_capacity(objects.len());
        for object in objects {
            tally.seen(&object);
            match self.selection.choose(object) {
                Ok(candidate) => chosen.push(candidate),
                Err(reason) => tally.left_out(reason),
            }
        }
        if let Some(output_bucket) = self.output_bucket {
            chosen = match selection::not_done(&storage, output_bucket, chosen, tally).await {
                Ok(chosen) => chosen,
                Err(error) => {
                    let role = "roles/storage.objectViewer";
                    let message = self.cloud.granting_on_bucket(error, output_bucket, role).await;
                    return Err(Failure::Work(Some(format!(
                        "OUTPUT_BUCKET cannot be looked at: {message}"
                    ))));
                }
            };
        }
        for candidate in &chosen {
            tally.chosen(candidate);
        }
        let (messages, names) = chosen.into_iter().map(Candidate::into_message).unzip();
        Ok(Some(Page { messages, names, last }))
    }

    async fn publish(&self, batch: &[Message]) -> Result<(), Failure> {
        let publisher = self.publisher.within(&Budget::new(PER_PAGE));
        let Err(error) = publisher.publish_batch(self.topic, batch).await else {
            return Ok(());
        };
        let kind = error.kind;
        let message = self.cloud.granting(error, "topics", "roles/pubsub.publisher").await;
        Err(match (kind, self.topic.rsplit_once("/topics/")) {
            (Kind::Invalid, None) => Failure::Usage(Some(format!("--topic: {message}"))),
            (Kind::NotFound, Some((project, name))) => Failure::Work(Some(format!(
                "{message} Name the topic that pushes to the worker, or make one: gcloud pubsub topics create {name} \
                 --project={}",
                project.trim_start_matches("projects/")
            ))),
            _ => Failure::Work(Some(message)),
        })
    }

    async fn unlisted(&self, error: Error) -> Failure {
        let bucket = &self.source.bucket;
        if error.kind == Kind::NotFound {
            return Failure::Work(Some(format!(
                "{error} Check the name: gcloud storage buckets describe gs://{bucket}"
            )));
        }
        let role = "roles/storage.objectViewer";
        Failure::Work(Some(self.cloud.granting_on_bucket(error, bucket, role).await))
    }
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let wrong = || "write gs://BUCKET/PREFIX, or gs://BUCKET".to_owned();
    let rest = text.strip_prefix("gs://").ok_or_else(wrong)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !is_bucket_name(bucket) || prefix.len() > 1024 || prefix.contains(['\r', '\n']) {
        return Err(wrong());
    }
    Ok(Prefix {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    })
}

fn glob(text: &str) -> Result<String, String> {
    config::globs(text).map(|_| text.to_owned())
}

fn revision(text: &str) -> Result<String, String> {
    if text.len() <= REVISION_LIMIT {
        Ok(text.to_owned())
    } else {
        Err(format!("a revision has at most {REVISION_LIMIT} bytes"))
    }
}
