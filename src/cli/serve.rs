//! `platen serve`: reads the environment, starts the worker, and says in one message all that is wrong with either.

use std::net::{Ipv4Addr, SocketAddr};

use super::Failure;
use crate::config::{Config, Environment, Problems};
use crate::serve::StartError;
use crate::telemetry::{self, LogFormat};

/// Run the worker: Pub/Sub push in, results out. Configured by the environment; the README lists its variables.
///
/// Example: PORT=8080 OUTPUT_BUCKET=out RESULT_TOPIC=results INPUT_BUCKETS=in PUSH_AUTH=oidc
/// PUSH_AUDIENCE=https://worker.example PUSH_SERVICE_ACCOUNT=push@p.iam.gserviceaccount.com platen serve
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    let (format, config) = match (LogFormat::load(&Environment), Config::load(&Environment)) {
        (Ok(format), Ok(config)) => (format, config),
        (format, config) => {
            let mut all = format.err().map(|Problems(problems)| problems).unwrap_or_default();
            all.extend(config.err().map(|Problems(problems)| problems).unwrap_or_default());
            return Err(Problems(all).into());
        }
    };
    telemetry::start(format, &Environment);
    crate::sandbox::harden_worker().map_err(|error| Failure::Work(Some(error.to_string())))?;
    super::runtime()?.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.port));
        let service = crate::serve::start(config).await.map_err(|error| match error {
            StartError::Configuration(message) => Failure::Usage(message),
            StartError::Unavailable(message) => Failure::Work(Some(message)),
        })?;
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|error| Failure::Work(Some(format!("{address} cannot be bound: {error}; set PORT"))))?;
        tracing::info!("listening on {address}, {}", service.context.engine.version());
        crate::serve::serve(listener, service)
            .await
            .map_err(|error| Failure::Work(Some(format!("signals cannot be listened to: {error}"))))
    })
}
