//! `platen doctor`: every right and every endpoint that the worker's configuration needs, tried with its credentials.

mod endpoints;
mod identity;
mod links;
mod memory;
mod objects;
mod patient;
mod report;
mod sealed;
mod settings;

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;

use super::Failure;
use super::cloud;
use super::output::say;
use crate::config::{self, Config, Environment, Fonts, Problems};
use crate::secrets;
use patient::{Patient, Reach};
use report::{Line, Report, State};

/// Check a deployment with the worker's environment and credentials, a line for each right and endpoint that it needs.
///
/// Example: gcloud run jobs create platen-doctor --image=IMAGE --args=doctor --service-account=WORKER --execute-now ...
/// Example: platen doctor --impersonate platen@p.iam.gserviceaccount.com --subscription platen-push
///
/// ok: tried, and so. missing: a right, with the role and the command that grants it. wrong: anything else. warning:
/// works, and is better otherwise. unseen: not tried; (operator) is what a worker may not see. Nothing is published,
/// and what is written in the output bucket (.platen-doctor/...) is removed again. Exit code 0 when nothing is
/// missing or wrong, else 1.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Check as this service account, on which the credentials need roles/iam.serviceAccountTokenCreator. What it may
    /// not see is looked at with the credentials themselves.
    #[arg(long, value_name = "EMAIL")]
    impersonate: Option<String>,
    /// The subscription that pushes to the worker [default: found through the notifications of the input buckets].
    #[arg(long, value_name = "NAME")]
    subscription: Option<String>,
    /// How long one check may take.
    #[arg(long, value_name = "DUR", default_value = "10s", value_parser = crate::units::duration)]
    timeout: Duration,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let sealed = config::sealed(&Environment).map_err(with_logging)?;
    // What the object may hold is not missing yet.
    let config = match &sealed {
        Some(_) => match config::problems_of_what_is_set(&Environment) {
            problems if problems.is_empty() => None,
            problems => return Err(with_logging(Problems(problems)).into()),
        },
        None => Some(Config::load(&Environment).map_err(with_logging)?),
    };
    let cloud = cloud::configure()?;
    super::runtime()?.block_on(async {
        let mut interrupted = pin!(super::interrupted()?);
        let mut report = Report::default();
        let credentials = cloud.credentials.clone();
        let connecting = Reach::new(cloud, arguments.impersonate.as_deref(), arguments.timeout);
        let connecting = tokio::time::timeout(arguments.timeout * 2, connecting);
        let reach = tokio::select! {
            reach = connecting => reach.map_err(|_| no_credentials(arguments))??,
            () = &mut interrupted => return Err(stopped()),
        };
        say(&identity::described(&reach));
        let before = async {
            let (lines, usable) = identity::lines(&reach, &credentials).await;
            report.print(lines);
            if !usable {
                return Ok(None);
            }
            match (config, &sealed) {
                (Some(config), _) => Ok(Some(config)),
                (None, Some((sealed, _))) => of_object(&reach, sealed, &mut report).await,
                (None, None) => Ok(None),
            }
        };
        let config = tokio::select! {
            config = before => config?,
            () = &mut interrupted => return Err(stopped()),
        };
        let Some(config) = config else {
            return verdict(&report);
        };
        let patient = Patient::new(config, reach).await?;
        let outcome = tokio::select! {
            lines = check(&patient, arguments) => {
                report.print(lines);
                Ok(())
            }
            () = &mut interrupted => Err(stopped()),
        };
        report.print(objects::clean_up(&patient).await.into_iter().collect());
        outcome.and_then(|()| verdict(&report))
    })
}

/// What is wrong with how to log belongs to what is wrong with everything else.
fn with_logging(Problems(mut problems): Problems) -> Problems {
    problems.extend(crate::telemetry::problems(&Environment));
    Problems(problems)
}

fn no_credentials(arguments: &Arguments) -> Failure {
    let seconds = (arguments.timeout * 2).as_secs_f32();
    Failure::Work(Some(format!(
        "whoever has the credentials does not answer within {seconds} s: see GOOGLE_APPLICATION_CREDENTIALS and \
         GCE_METADATA_HOST"
    )))
}

fn stopped() -> Failure {
    Failure::Work(Some("stopped before everything was checked".to_owned()))
}

fn verdict(report: &Report) -> Result<(), Failure> {
    report.verdict().map_err(|why| Failure::Work(Some(why)))
}

/// The configuration with what its object holds; without the object, what the environment alone says, if that is
/// enough.
async fn of_object(reach: &Reach, sealed: &config::Sealed, report: &mut Report) -> Result<Option<Config>, Failure> {
    let (lines, opened) = sealed::open(reach, sealed).await;
    report.print(lines);
    let Some(opened) = opened else {
        let config = Config::load(&Environment);
        if let Err(Problems(problems)) = &config {
            let names: Vec<&str> = problems.iter().map(|problem| problem.variable).collect();
            let why = format!("{} may be in {}, which is not open", names.join(", "), sealed.object);
            report.print(vec![Line::new(State::Unseen, "everything else", why)]);
        }
        return Ok(config.ok());
    };
    let place = format!("{}#{}", sealed.object, opened.generation);
    let contents =
        secrets::contents(&place, &opened.plaintext).map_err(|error| Failure::Usage(Some(error.to_string())))?;
    secrets::check(&Environment, &contents.environment)
        .map(Some)
        .map_err(Failure::from)
}

/// All at once, as each may have to wait for its time-out; told in order.
async fn check(patient: &Patient, arguments: &Arguments) -> Vec<Line> {
    let (config, reach) = (&patient.config, &patient.reach);
    let inputs = join_all(config.input_buckets.iter().map(|bucket| objects::input(reach, bucket)));
    let fonts = async {
        match &config.engine.fonts {
            Some(Fonts::Bucket { bucket, prefix }) => objects::fonts(reach, bucket, prefix).await,
            _ => Vec::new(),
        }
    };
    let (inputs, fonts, output, signature, publish, keys, settings) = tokio::join!(
        inputs,
        fonts,
        objects::output(patient),
        links::signature(patient),
        endpoints::publish(patient),
        endpoints::keys(reach),
        settings::look(patient, arguments.subscription.as_deref()),
    );
    let mut lines = inputs;
    lines.extend(fonts);
    lines.extend(output);
    lines.extend([signature, publish, keys]);
    lines.extend(memory::memory(&config.engine));
    lines.extend(settings);
    lines
}
