//! `platen local`: a small Google Cloud with the worker, to use and to break, with a page and an API to do both.

mod advice;
mod control;
mod guide;
mod jobs;
mod page;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::Failure;
use super::output::say;
use super::world::{self, Style, World};
use crate::local_cloud::{DataDirectory, DataError};
use control::Control;
use jobs::Jobs;

/// A small Google Cloud on this machine with the worker, and a web page to use it and to break it.
///
/// Example: platen local
/// Example: platen local --port 8090
/// Example: platen local --data ~/platen-data
/// Example: platen local --pubsub-emulator localhost:8085
///
/// Starts storage with notifications, Pub/Sub with authenticated push, OIDC keys, a metadata server, IAM signBlob and
/// Cloud KMS on loopback, and the worker as 'platen serve' against them, held to the rights that deploy/setup.sh gives.
/// The first line of stdout is a JSON object of URLs; what follows says how to use them from another terminal. Runs until
/// it is interrupted; a second interrupt ends it at once. All is in memory and gone then, unless --data names a directory.
/// Limits, SANDBOX, FONTS, DOCUMENT_LOCALE, LOG_FORMAT and RUST_LOG come from the environment, as for 'platen serve', and so
/// does MAX_DELIVERY_ATTEMPTS (5).
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Port of the web page, on loopback; 0 picks a free one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
    /// Directory that keeps buckets, topics and keys across restarts; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Google's own Pub/Sub emulator, running on this machine, in place of the Pub/Sub of this cloud; its pushes get their
    /// tokens here. It neither filters nor says deliveryAttempt, and keeps nothing: not together with --data.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, conflicts_with = "data")]
    pubsub_emulator: Option<String>,
}

/// `HOST:PORT`, as PUBSUB_EMULATOR_HOST has it.
fn host_and_port(text: &str) -> Result<String, String> {
    let authority: Option<axum::http::uri::Authority> = text.parse().ok();
    let whole = |authority: &axum::http::uri::Authority| authority.port_u16().is_some() && !text.contains('@');
    authority
        .filter(whole)
        .map(|_| text.to_owned())
        .ok_or_else(|| "wanted is HOST:PORT, as localhost:8085".to_owned())
}

/// The worker's log is what a person watches here.
const STYLE: Style = Style {
    log: "info",
    revive: true,
};

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    world::configuration()?;
    let open = |directory: &Path| {
        DataDirectory::open(directory, |what| {
            // Where stderr is a file on that disk, it is full as well.
            let _unheard = writeln!(std::io::stderr(), "data       {what}");
        })
    };
    let data = arguments.data.as_deref().map(open).transpose();
    let data = data.map_err(|error| match error {
        DataError::Foreign { .. } => Failure::Usage(Some(format!("--data: {error}"))),
        _ => work(format!("--data: {error}")),
    })?;
    super::runtime()?.block_on(async {
        let mut interrupted = pin!(super::interrupted()?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
        let listener = TcpListener::bind(address).await.map_err(|error| {
            work(format!(
                "the page cannot listen on {address}: {error}; --port 0 picks a free one"
            ))
        })?;
        let world = tokio::select! {
            world = World::start(STYLE, arguments.pubsub_emulator.clone(), data) => world.map_err(work)?,
            () = &mut interrupted => return Ok(()),
        };
        let page = listener
            .local_addr()
            .map_err(|error| work(format!("the page's port is not known: {error}")))?;
        let jobs = Arc::new(Jobs::of_project(&world.cloud.settings().project));
        let mut watching = jobs::watch(&jobs, &world).map_err(work)?;
        let control = Arc::new(Control::new(world, jobs, page));
        let guide = guide::Guide::new(&control);
        say(&serde_json::to_string(&guide.urls()).map_err(|error| Failure::Bug(error.to_string()))?);
        say(&guide.text());
        let served = tokio::select! {
            served = page::serve(listener, Arc::clone(&control)) => {
                served.map_err(|error| work(format!("the page ended: {error}")))
            }
            () = &mut interrupted => Ok(()),
        };
        watching.abort_all();
        eprintln!("ending     the worker; another Ctrl-C ends it at once");
        let second = super::interrupted()?;
        control.world().worker.end(second).await;
        served
    })
}

fn work(message: String) -> Failure {
    Failure::Work(Some(message))
}
