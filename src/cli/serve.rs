//! `platen serve`: reads the environment, starts the worker, and says in one message all that is wrong with either.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use super::Failure;
use crate::config::{self, Config, Environment, Layered, Problems};
use crate::secrets::{self, Loaded};
use crate::serve::{Signals, StartError};
use crate::telemetry::{self, LogFormat};

/// Run the worker: Pub/Sub push in, results out. Configured by the environment; docs/configuration.md lists its variables.
///
/// Example: PORT=8080 OUTPUT_BUCKET=out RESULT_TOPIC=results INPUT_BUCKETS=in PUSH_AUTH=oidc
/// PUSH_AUDIENCE=https://worker.example PUSH_SERVICE_ACCOUNT=push@p.iam.gserviceaccount.com platen serve
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    // Before all that may take its time.
    let signals =
        Signals::listen().map_err(|error| Failure::Work(Some(format!("signals cannot be listened to: {error}"))))?;
    let process = LogFormat::load(&Environment);
    let loaded = loaded(process.as_ref().copied().unwrap_or(LogFormat::Text), &signals);
    if signals.is_asked() {
        return Ok(());
    }
    let environment = match &loaded {
        Ok(Some(loaded)) => loaded.contents.environment.clone(),
        _ => BTreeMap::new(),
    };
    let strings = Layered::new(&Environment, &environment);
    let format = LogFormat::load(&strings);
    telemetry::start(format.as_ref().copied().unwrap_or(LogFormat::Text), &strings);
    telemetry::log_panics();
    loaded
        .and_then(|loaded| Ok((secrets::check(&Environment, &environment)?, loaded)))
        .and_then(|(config, loaded)| serve(config, loaded, &signals))
        .map_err(|failure| said(failure, &format))
}

/// The configuration object, when there is one: it may hold what all the rest is configured with. `None` too when the
/// worker is told to end before it is there.
fn loaded(format: LogFormat, signals: &Signals) -> Result<Option<Loaded>, Failure> {
    // What is wrong with how to log belongs to what is wrong with everything else.
    let with_logging = |Problems(mut problems)| {
        problems.extend(telemetry::problems(&Environment));
        Problems(problems)
    };
    let Some((sealed, access)) = config::sealed(&Environment).map_err(with_logging)? else {
        return Ok(None);
    };
    let loading = || -> Result<_, Failure> {
        // A runtime on this thread alone: its end ends everything that the load began.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Work(Some(format!("no runtime can be started: {error}"))))?;
        let loaded = runtime.block_on(async {
            tokio::select! {
                loaded = secrets::load(&sealed, &access) => loaded.map(Some),
                () = signals.asked() => Ok(None),
            }
        });
        // A name that is still being resolved is waited for by nobody.
        runtime.shutdown_background();
        Ok(loaded)
    };
    telemetry::before_start(format, &Environment, loading)?.map_err(|error| {
        let mut message = format!("CONFIG_OBJECT cannot be loaded: {error}");
        let others = with_logging(Problems(config::problems_of_what_is_set(&Environment)));
        if !others.0.is_empty() {
            message = format!("{message}\n{others}");
        }
        if error.is_configuration {
            Failure::Usage(Some(message))
        } else {
            Failure::Work(Some(message))
        }
    })
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

fn serve(config: Config, loaded: Option<Loaded>, signals: &Signals) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let (port, metrics_port) = (config.port, config.metrics_port);
        // Told to end before it has begun: what has been started goes with its owner.
        let service = tokio::select! {
            service = crate::serve::start(config, loaded) => service,
            () = signals.asked() => return Ok(()),
        };
        let service = service.map_err(|error| match error {
            StartError::Configuration(message) => Failure::Usage(Some(message)),
            StartError::Unavailable(message) => Failure::Work(Some(message)),
        })?;
        if let Some(metrics_port) = metrics_port {
            let (listener, address) = listen(metrics_port, "METRICS_PORT").await?;
            tracing::info!("metrics are at {address}, path /metrics");
            tokio::spawn(crate::serve::serve_metrics(listener));
        }
        let (listener, address) = listen(port, "PORT").await?;
        tracing::info!("listening on {address}, {}", service.context.engine.version());
        crate::serve::serve(listener, service, signals).await;
        Ok(())
    })
}

async fn listen(port: u16, variable: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    match TcpListener::bind(address).await {
        Ok(listener) => Ok((listener, address)),
        Err(error) => Err(Failure::Work(Some(format!(
            "{address} cannot be bound: {error}; set {variable}"
        )))),
    }
}
