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
    let format = LogFormat::load(&Environment);
    let loaded = (
        &format,
        telemetry::check_filter(&Environment),
        Config::load(&Environment),
    );
    telemetry::start(format.as_ref().copied().unwrap_or(LogFormat::Text), &Environment);
    telemetry::log_panics();
    let config = match loaded {
        (Ok(_), Ok(()), Ok(config)) => config,
        (format, filter, config) => {
            let mut all = format
                .as_ref()
                .err()
                .map(|Problems(problems)| problems.clone())
                .unwrap_or_default();
            all.extend(filter.err().map(|Problems(problems)| problems).unwrap_or_default());
            all.extend(config.err().map(|Problems(problems)| problems).unwrap_or_default());
            return Err(said(Failure::from(Problems(all)), format));
        }
    };
    serve(config).map_err(|failure| said(failure, &format))
}

/// Where every line is one object of JSON, the sentence that ends the worker is one as well.
fn said(failure: Failure, format: &Result<LogFormat, Problems>) -> Failure {
    if !matches!(format, Ok(LogFormat::Json)) {
        return failure;
    }
    match failure {
        Failure::Work(Some(message)) => {
            tracing::error!("{message}");
            Failure::Work(None)
        }
        Failure::Usage(Some(message)) => {
            tracing::error!("{message}");
            Failure::Usage(None)
        }
        other => other,
    }
}

fn serve(config: Config) -> Result<(), Failure> {
    crate::sandbox::harden_worker().map_err(|error| Failure::Work(Some(error.to_string())))?;
    super::runtime()?.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.port));
        let interrupted = super::interrupted()?;
        // Told to end before it has begun: what has been started goes with its owner.
        let service = tokio::select! {
            service = crate::serve::start(config) => service,
            () = interrupted => return Ok(()),
        };
        let service = service.map_err(|error| match error {
            StartError::Configuration(message) => Failure::Usage(Some(message)),
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
