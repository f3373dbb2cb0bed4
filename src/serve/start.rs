//! Builds the worker from its configuration: everything is made and checked before the port is bound.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Service;
use crate::accept::Rules;
use crate::accept::verify::{Mode, Verifier, VerifyRules};
use crate::config::{Config, EngineConfig, PushAuth, Topic};
use crate::deliver::sign::{Endpoint, Signer};
use crate::deliver::{Links, NoSigner, Results};
use crate::engine::{self, Engine, Footprint};
use crate::error::FailureCode;
use crate::google::http::Http;
use crate::google::keys::KeySet;
use crate::google::kms::Kms;
use crate::google::pubsub::Publisher;
use crate::google::storage::Storage;
use crate::google::token::Tokens;
use crate::google::{self, Kind};
use crate::metrics;
use crate::pipeline::{Admission, Context, DeliveryAttempts, Google, Runs};
use crate::secrets::{Loaded, Secrets, Store};
use crate::telemetry;

/// Where Debian's packages put LibreOffice.
const LIBREOFFICE: &str = "/usr/lib/libreoffice/program";

/// Why the worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work as it is.
    #[error("{0}")]
    Configuration(String),
    /// Something it needs is not there.
    #[error("{0}")]
    Unavailable(String),
}

impl StartError {
    pub(super) fn unavailable(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Unavailable(format!("{what}: {error}"))
    }
}

/// Makes every part and starts the engine. `loaded` is what the configuration object held, where there is one.
///
/// # Errors
/// One sentence that says what is missing.
pub async fn start(mut config: Config, loaded: Option<Loaded>) -> Result<Arc<Service>, StartError> {
    metrics::failure_codes(FailureCode::ALL.iter().map(|(code, _)| code.as_str()));
    let http = Http::new().map_err(|error| StartError::unavailable("no HTTP client can be made", error))?;
    let tokens = Tokens::discover(http.clone(), &config.credentials)
        .await
        .map_err(|error| match (error.kind, &config.credentials.credentials_file) {
            // A file that is not there, or not credentials.
            (Kind::Invalid | Kind::NotFound, Some(file)) => StartError::Configuration(format!(
                "GOOGLE_APPLICATION_CREDENTIALS names {}: {error}",
                file.display()
            )),
            _ => StartError::unavailable("the credentials cannot be used", error),
        })?;
    let emulators = config.endpoints.storage_is_emulator && config.endpoints.pubsub_is_emulator;
    if tokens.is_none() && !emulators {
        return Err(StartError::Configuration(
            "there are no credentials: run on Google Cloud with a service account, set GOOGLE_APPLICATION_CREDENTIALS, or run 'gcloud auth application-default login'"
                .to_owned(),
        ));
    }
    if tokens.is_none() && config.endpoints.iam_credentials == google::iam::BASE_URL {
        return Err(StartError::Configuration(
            "nobody can sign URLs: without credentials, IAM_CREDENTIALS_ENDPOINT must name a signBlob that takes calls without them"
                .to_owned(),
        ));
    }
    let mut universe = google::token::UNIVERSE_DOMAIN.to_owned();
    if let Some(tokens) = &tokens {
        tracing::info!("credentials: {}", tokens.source());
        universe = tokens
            .universe_domain()
            .await
            .map_err(|error| StartError::unavailable("the universe of the credentials cannot be found", error))?;
        config.endpoints = config.endpoints.in_universe(&universe);
    }
    let project = project(&config, tokens.as_ref()).await;
    if let Ok(Some(project)) = &project {
        telemetry::set_project(project);
    }
    let topic = topic(&config, project)?;
    let signer = signer(&config, &http, tokens.as_ref()).await?;
    let links = Links::new(signer, endpoint(&config, &universe), config.signed_url_ttl)
        .map_err(|error| StartError::Configuration(format!("SIGNED_URL_TTL {error}")))?;
    let storage = Storage::new(http.clone(), &config.endpoints.storage, tokens.clone());
    let engine = start_engine(&config.engine, Some(&storage)).await?;
    let admission = admission(&config.engine, &engine)?;
    let keys = KeySet::new(http.clone(), config.endpoints.jwks);
    let refreshed = keys.clone();
    tokio::spawn(async move { refreshed.keep_fresh().await });
    let storage = Storage::new(http.clone(), &config.endpoints.storage, tokens.clone());
    let secrets = match (&config.sealed, loaded) {
        (Some(sealed), Some(loaded)) => {
            let kms = Kms::new(http.clone(), &config.endpoints.kms, tokens.clone());
            let store = Store::new(sealed, storage.clone(), kms, tokens.clone());
            Secrets::of_object(loaded, store, sealed.reload)
        }
        _ => Secrets::none(),
    };
    let reloaded = secrets.clone();
    tokio::spawn(async move { reloaded.keep_fresh().await });
    let rules = VerifyRules {
        mode: match config.push_auth {
            PushAuth::Oidc => Mode::Oidc,
            PushAuth::CloudRunIam => Mode::CloudRunIam,
        },
        audiences: config.push_audiences,
        emails: config.push_service_accounts,
    };
    let attempts = DeliveryAttempts::new(
        config.max_delivery_attempts,
        http.clone(),
        &config.endpoints.pubsub,
        tokens.clone(),
    );
    let context = Context {
        verifier: Verifier::new(rules, keys.clone()),
        keys,
        rules: Rules {
            input_buckets: config.input_buckets,
            output_name: config.output_name,
            include: config.input_include,
            exclude: config.input_exclude,
            readable: crate::convert::inspect::is_readable_extension,
        },
        limits: config.engine.limits,
        ack_deadline: config.ack_deadline,
        output_bucket: config.output_bucket,
        engine,
        admission,
        google: Google {
            storage,
            links,
            results: Results {
                publisher: Publisher::new(http, &config.endpoints.pubsub, tokens),
                topic,
            },
        },
        secrets,
        runs: Runs::default(),
        attempts,
    };
    Ok(Arc::new(Service::new(context)))
}

/// Starts the engine, for the worker and for `platen convert`. `storage` is where `FONTS` is fetched from if it is a bucket.
///
/// # Errors
/// When LibreOffice or a layer of the sandbox is missing.
pub async fn start_engine(config: &EngineConfig, storage: Option<&Storage>) -> Result<Engine, StartError> {
    let temporary = std::env::temp_dir();
    if !temporary.is_dir() {
        return Err(StartError::Configuration(format!(
            "{} is no directory: TMPDIR must name one for the jobs' files",
            temporary.display()
        )));
    }
    let fonts = match &config.fonts {
        Some(fonts) => Some(Arc::new(super::fonts::provide(fonts, &temporary, storage).await?)),
        None => None,
    };
    Engine::start(engine::Settings {
        program: PathBuf::from(LIBREOFFICE),
        locale: config.locale.clone(),
        work_directory: temporary,
        sandbox: config.sandbox,
        fonts,
        executable: None,
    })
    .await
    .map_err(|error| StartError::unavailable("the engine does not start", error))
}

/// Measures what there is for jobs, for the worker and for `platen convert`. The engine has no job yet.
///
/// # Errors
/// The machine does not say what it has.
pub fn admission(config: &EngineConfig, engine: &Engine) -> Result<Admission, StartError> {
    Admission::measure(config, engine, on_cloud_run())
        .map_err(|error| StartError::unavailable("what there is for jobs cannot be measured", error))
}

/// The warning that a worker of this configuration would begin with here because fewer jobs fit than it is to take, for
/// `platen doctor`. No engine is started: it is counted with what one typically takes.
///
/// # Errors
/// The machine does not say what it has.
pub fn foreseen(config: &EngineConfig) -> io::Result<Option<String>> {
    Admission::foreseen(config, &Footprint::TYPICAL, on_cloud_run())
}

/// Cloud Run sets one for services and one for jobs (container contract).
fn on_cloud_run() -> bool {
    ["K_SERVICE", "CLOUD_RUN_JOB"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

async fn project(config: &Config, tokens: Option<&Tokens>) -> Result<Option<String>, google::Error> {
    match (&config.project, tokens) {
        (Some(project), _) => Ok(Some(project.clone())),
        (None, Some(tokens)) => tokens.project_id().await,
        (None, None) => Ok(None),
    }
}

fn topic(config: &Config, project: Result<Option<String>, google::Error>) -> Result<String, StartError> {
    let name = match &config.result_topic {
        Topic::Full(name) => return Ok(name.clone()),
        Topic::Short(name) => name,
    };
    let project = project.map_err(|error| StartError::unavailable("the worker's project cannot be found", error))?;
    let project = project.ok_or_else(|| {
        StartError::Configuration(format!(
            "RESULT_TOPIC is '{name}' alone and the project is not known: write projects/PROJECT/topics/{name}, or set GOOGLE_CLOUD_PROJECT"
        ))
    })?;
    Ok(format!("projects/{project}/topics/{name}"))
}

async fn signer(config: &Config, http: &Http, tokens: Option<&Tokens>) -> Result<Signer, StartError> {
    let named = config.signer_service_account.as_deref();
    Signer::choose(http.clone(), tokens, &config.endpoints.iam_credentials, named)
        .await
        .map_err(|error| match error {
            NoSigner::NoCredentials => StartError::Configuration(
                "nobody can sign URLs: set SIGNER_SERVICE_ACCOUNT, or run with credentials".to_owned(),
            ),
            NoSigner::Google(error) => {
                StartError::unavailable("the worker's own service account cannot be found", error)
            }
        })
}

fn endpoint(config: &Config, universe: &str) -> Endpoint {
    if config.endpoints.storage_is_emulator {
        Endpoint::parse(&config.endpoints.storage, "http")
    } else {
        Endpoint::universe(universe)
    }
}
