//! `platen submit`: jobs to a private service, whose answers are the results, or to a topic.

mod results;
mod service;
mod topic;

use std::pin::pin;
use std::time::Duration;

use reqwest::Url;
use serde_json::{Value, json};

use super::Failure;
use super::cloud::{self, Cloud};
use super::output::say;
use crate::job::{Format, Options, Request};

/// Options that are passwords: a command line is seen by every process of the machine.
const PASSWORDS: [&str; 3] = ["password", "userPassword", "ownerPassword"];

/// Send jobs to a worker and print their results, one message a line.
///
/// Example: platen submit gs://in/a.docx --service https://worker-abc.a.run.app --impersonate caller@p.iam.gserviceaccount.com
/// Example: platen submit gs://in/a.docx gs://in/b.xlsx --topic document-jobs --wait results-mine --to png
///
/// A service is called with an ID token, and its answer is the result. A topic takes the job and no more; with --wait
/// the results come from the result topic's subscription. Only messages of these jobs are acknowledged; all others are
/// given back at the end, so let the subscription be one of your own. A service that is busy is asked again until
/// --timeout. Exit code 0 when every job succeeded, else 1.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
#[command(group = clap::ArgGroup::new("to_whom").required(true).args(["service", "topic"]))]
pub(super) struct Arguments {
    /// Documents to convert, as gs://BUCKET/OBJECT.
    #[arg(required = true, value_name = "gs://BUCKET/OBJECT")]
    sources: Vec<String>,
    /// The worker's URL.
    #[arg(long, value_name = "URL")]
    service: Option<String>,
    /// Whom the ID token is for [default: the service's URL without a path].
    #[arg(long, value_name = "AUD", conflicts_with = "topic")]
    audience: Option<String>,
    /// Call the service as this service account.
    #[arg(long, value_name = "EMAIL", conflicts_with = "topic")]
    impersonate: Option<String>,
    /// The topic that pushes to the worker: projects/PROJECT/topics/TOPIC, or TOPIC.
    #[arg(long)]
    topic: Option<String>,
    /// What to make of each document [default: pdf].
    #[arg(long, value_name = "FORMAT")]
    to: Option<String>,
    /// How to make it: an option of docs/documents.md, its value literal for a text, else as JSON. Again for more.
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Print what comes on this subscription of the result topic: projects/PROJECT/subscriptions/NAME, or NAME.
    #[arg(long, value_name = "SUBSCRIPTION")]
    wait: Option<String>,
    /// How long all of it may take.
    #[arg(long, value_name = "DUR", default_value = "15m", value_parser = crate::units::duration)]
    timeout: Duration,
}

/// One document on its way.
struct Job {
    source: String,
    body: Value,
}

/// How many jobs brought no document. What is wrong with them has been said.
#[derive(Default)]
struct Failed(usize);

impl Failed {
    /// `why` may be somebody else's words, and quote names that others chose: a terminal must not obey them.
    fn say(&mut self, source: &str, why: &str) {
        self.0 += 1;
        let why = why.replace(char::is_control, "\u{fffd}");
        eprintln!("platen: {source}: {why}");
    }

    /// Prints a result; one that is no success is said in words, too.
    fn result(&mut self, source: &str, result: &Value) {
        say(&result.to_string());
        if result["status"] != "succeeded" {
            let status = result["status"].as_str().unwrap_or("no status");
            let code = result["error"]["code"].as_str().unwrap_or(status);
            let message = result["error"]["message"].as_str().unwrap_or("no output was made");
            self.say(source, &format!("{code}: {message}"));
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let jobs = jobs(arguments)?;
    let service = arguments.service.as_deref().map(service_url).transpose()?;
    let config = cloud::configure()?;
    super::runtime()?.block_on(async {
        let mut interrupted = pin!(super::interrupted()?);
        let cloud = Cloud::connect(config).await?;
        let deadline = tokio::time::Instant::now() + arguments.timeout;
        let mut failed = Failed::default();
        let results = match &arguments.wait {
            Some(name) => Some(results::Results::new(&cloud, name).await?),
            None => None,
        };
        let mut waiting = results::Waiting::default();
        let mut released = None;
        let submitted = async {
            if let Some(url) = &service {
                let to = service::To::new(&cloud, url, arguments).await?;
                to.send(&jobs, deadline, results.is_some(), &mut waiting, &mut failed)
                    .await?;
            } else if let Some(topic) = &arguments.topic {
                topic::publish(&cloud, topic, &jobs, &mut waiting, &mut failed).await?;
            }
            if let Some(results) = &results {
                let others = released.insert(results::Others::default());
                results.wait(deadline, &mut waiting, others, &mut failed).await?;
            }
            Ok(())
        };
        let outcome = tokio::select! {
            outcome = submitted => outcome,
            () = &mut interrupted => Err(Failure::Work(Some("stopped before every job had its result".to_owned()))),
        };
        if let (Some(results), Some(others)) = (&results, released) {
            results.release(others).await;
        }
        outcome?;
        if failed.0 == 0 {
            Ok(())
        } else {
            Err(Failure::Work(None))
        }
    })
}

/// Checks everything that can be checked here, so that nothing is sent of a command line that is wrong.
fn jobs(arguments: &Arguments) -> Result<Vec<Job>, Failure> {
    let usage = |message: String| Failure::Usage(Some(message));
    for option in &arguments.options {
        let name = option.split('=').next().unwrap_or_default();
        if PASSWORDS.contains(&name) {
            return Err(usage(format!(
                "--option {name}: a password is never an option, because others can read a command line; seal it into \
                 the worker's configuration object, and publish a job that names it as {{\"secret\": NAME}}"
            )));
        }
    }
    let outputs = if arguments.to.is_none() && arguments.options.is_empty() {
        None
    } else {
        let format =
            Format::parse(arguments.to.as_deref().unwrap_or("pdf")).map_err(|failure| usage(failure.message))?;
        let options =
            Options::parse_arguments(format, &arguments.options, &[]).map_err(|failure| usage(failure.message))?;
        Some(json!([{"format": format.as_str(), "options": options.to_json()}]))
    };
    let job = |source: &String| {
        let mut body = json!({"source": source});
        if let Some(outputs) = &outputs {
            body["outputs"] = outputs.clone();
        }
        Request::from_json(body.to_string().as_bytes())
            .and_then(|request| request.source())
            .map_err(|failure| usage(failure.message))?;
        Ok(Job {
            source: source.clone(),
            body,
        })
    };
    arguments.sources.iter().map(job).collect()
}

/// The ID token goes there: encrypted, or no further than this machine.
fn service_url(text: &str) -> Result<Url, Failure> {
    let refused = || {
        Failure::Usage(Some(format!(
            "--service {text}: write https://HOST, or http:// on this machine"
        )))
    };
    let url = Url::parse(text).map_err(|_| refused())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_here = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if plain && (url.scheme() == "https" || url.scheme() == "http" && is_here) {
        Ok(url)
    } else {
        Err(refused())
    }
}
