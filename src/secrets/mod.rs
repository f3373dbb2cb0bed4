//! The sealed configuration: passwords by name (what `"password": {"secret": "name"}` in a job stands for), and
//! variables.
//!
//! It is loaded before the worker's port is bound, and looked at again on the clock and when what it holds stops
//! working. A reload takes all or nothing: what a start would refuse, a reload refuses, and the old values stay. Jobs,
//! results and logs know names only.

mod contents;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::config::{self, Access, Config, Environment, Layered, Problems, Sealed, Strings};
use crate::google::secret::Secret;
use crate::metrics;
use crate::telemetry;

pub use crate::google::kms::LARGEST_PLAINTEXT as LARGEST_CONTENTS;
pub use contents::{Contents, LONGEST_PASSWORD};
pub use store::{Opened, Store, StoreError, contents};

/// The most that the load before the start may take, retries included.
const START: Duration = Duration::from_secs(60);
/// The most that one reload may take: jobs may wait for it.
const RELOAD: Duration = Duration::from_secs(30);
/// For so long a failure stands for the next attempt: jobs that wait for reloads of what is down would wait in vain.
const FAILED: Duration = Duration::from_secs(5);
/// After a reload that failed the next one comes no later than this.
const AGAIN: Duration = Duration::from_secs(60);

/// One generation of the configuration object, as it was loaded.
pub struct Loaded {
    /// Which one.
    pub generation: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What it holds.
    pub contents: Contents,
}

/// Reads the configuration object with clients of its own, before anything else is there.
///
/// # Errors
/// What is wrong with it, or what does not answer.
pub async fn load(sealed: &Sealed, access: &Access) -> Result<Loaded, StoreError> {
    let loading = async {
        let store = Store::connect(&sealed.object, &sealed.key, access).await?;
        read(&store).await
    };
    tokio::time::timeout(START, loading).await.unwrap_or_else(|_| {
        Err(StoreError {
            message: format!("{} could not be loaded within {} s", sealed.object, START.as_secs()),
            is_configuration: false,
        })
    })
}

async fn read(store: &Store) -> Result<Loaded, StoreError> {
    let opened = store.open().await?;
    let place = format!("{}#{}", store.object(), opened.generation);
    let contents = contents(&place, &opened.plaintext)?;
    tracing::info!("{place}: loaded, {contents:?}");
    Ok(Loaded {
        generation: opened.generation,
        at: Utc::now(),
        contents,
    })
}

/// What is wrong with the variables of an object under those of the process, without any of the object's values.
///
/// # Errors
/// All that a start refuses.
pub fn check(process: &dyn Strings, environment: &BTreeMap<String, Secret>) -> Result<Config, Problems> {
    let layered = Layered::new(process, environment);
    let mut problems = layered.misplaced();
    problems.extend(telemetry::problems(&layered));
    match Config::load(&layered) {
        Ok(config) if problems.is_empty() => Ok(config),
        Ok(_) => Err(Problems(problems)),
        Err(Problems(all)) => {
            problems.extend(all);
            Err(Problems(problems))
        }
    }
}

/// What is wrong with the variables of an object by itself, wherever it will be used, without any of their values.
///
/// # Errors
/// All but what is missing, which the process may set.
pub fn check_alone(environment: &BTreeMap<String, Secret>) -> Result<(), Problems> {
    let nothing = HashMap::new();
    let layered = Layered::new(&nothing, environment);
    let mut problems = layered.misplaced();
    problems.extend(telemetry::problems(&layered));
    problems.extend(config::problems_of_what_is_set(&layered));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// What `GET /health/ready` says about the configuration object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation whose values are in use.
    pub generation: Option<String>,
    /// When they were loaded, in RFC 3339.
    pub loaded_at: Option<String>,
    /// Why the last reload failed, if it did.
    pub last_error: Option<String>,
}

/// The named passwords that are loaded now. Looked up at each conversion, never kept by a job: what is loaded may be
/// replaced at any time. Clones share it.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    held: Mutex<Held>,
    source: Option<Source>,
    /// Of all who want a reload at once one asks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    passwords: HashMap<String, Vec<Secret>>,
    generation: Option<i64>,
    status: Status,
    /// Counts the looks that have ended, so that who waited for one knows that there was one.
    looks: u64,
    /// When the last look ended, if it failed.
    failed: Option<Instant>,
}

struct Source {
    store: Store,
    interval: Duration,
    /// The variables that the worker was started with.
    environment: BTreeMap<String, Secret>,
}

impl Secrets {
    /// Without any: no configuration object is set.
    pub fn none() -> Self {
        Self::default()
    }

    /// These passwords by name; each name may have several, in the order in which they are tried.
    pub fn of_passwords(passwords: HashMap<String, Vec<Secret>>) -> Self {
        let held = Mutex::new(Held {
            passwords,
            ..Held::default()
        });
        Self(Arc::new(Inner {
            held,
            ..Inner::default()
        }))
    }

    /// What was loaded before the start, and from now on reloaded from where it came from. [`Secrets::keep_fresh`] does
    /// it on the clock.
    pub fn of_object(loaded: Loaded, store: Store, interval: Duration) -> Self {
        in_use(&loaded);
        let held = Held {
            passwords: loaded.contents.passwords,
            generation: Some(loaded.generation),
            status: Status {
                generation: Some(loaded.generation.to_string()),
                loaded_at: Some(written(loaded.at)),
                last_error: None,
            },
            ..Held::default()
        };
        Self(Arc::new(Inner {
            held: Mutex::new(held),
            source: Some(Source {
                store,
                interval,
                environment: loaded.contents.environment,
            }),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// The passwords of a name in the order in which they are tried; `None` for a name that is not loaded.
    pub fn passwords(&self, name: &str) -> Option<Vec<Secret>> {
        self.held().passwords.get(name).cloned()
    }

    /// Generation, time and the last error, for a person.
    pub fn status(&self) -> Status {
        self.held().status.clone()
    }

    /// Looks at the stored configuration again, because what is loaded does not work: a name that it does not have, a
    /// password that opens nothing. Whether it holds something else now than when this was called; the caller compares
    /// what it used with what [`Secrets::passwords`] then says, which may have been replaced even before.
    ///
    /// The look is one request for metadata, and who asks while others do shares theirs; only another generation is
    /// fetched and decrypted.
    ///
    /// # Errors
    /// A sentence for the log: it could not be looked at, and what is loaded may be old.
    pub async fn reload(&self) -> Result<bool, String> {
        let Some(source) = &self.0.source else {
            // Without a configuration object there is nothing to load.
            return Ok(false);
        };
        let (before, looks) = {
            let held = self.held();
            (held.generation, held.looks)
        };
        let _turn = self.0.turn.lock().await;
        {
            let held = self.held();
            // A look that was under way at the call may have seen the time before it; a second one has not.
            match &held.status.last_error {
                Some(error) if held.failed.is_some_and(|at| at.elapsed() < FAILED) => return Err(error.clone()),
                None if held.looks > looks + 1 => return Ok(held.generation != before),
                _ => {}
            }
        }
        let outcome = tokio::time::timeout(RELOAD, self.renewed(source))
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "{} did not come within {} s",
                    source.store.object(),
                    RELOAD.as_secs()
                ))
            });
        let mut held = self.held();
        held.looks += 1;
        held.failed = outcome.is_err().then(Instant::now);
        match outcome {
            Ok(Some(loaded)) => {
                in_use(&loaded);
                held.generation = Some(loaded.generation);
                held.status = Status {
                    generation: Some(loaded.generation.to_string()),
                    loaded_at: Some(written(loaded.at)),
                    last_error: None,
                };
                held.passwords = loaded.contents.passwords;
            }
            Ok(None) => {
                if held.status.last_error.take().is_some() {
                    tracing::info!("{}: it can be read again, and has not changed", source.store.object());
                }
            }
            Err(error) => {
                metrics::configuration_failed();
                tracing::error!(
                    // What deploy/monitoring counts. A line with a message alone is no JSON any more in Cloud Logging.
                    event = "configuration_reload_failed",
                    "the configuration object could not be reloaded, the values of generation {} stay: {error}",
                    held.status.generation.as_deref().unwrap_or("none")
                );
                held.status.last_error = Some(error.clone());
                return Err(error);
            }
        }
        Ok(held.generation != before)
    }

    /// Another generation than the one held, if there is one, and if a start would take it.
    async fn renewed(&self, source: &Source) -> Result<Option<Loaded>, String> {
        let generation = source.store.generation().await.map_err(|error| error.message)?;
        if self.held().generation == Some(generation) {
            tracing::debug!(
                "{}#{generation}: has not changed since it was loaded",
                source.store.object()
            );
            return Ok(None);
        }
        let loaded = read(&source.store).await.map_err(|error| error.message)?;
        let place = format!("{}#{}", source.store.object(), loaded.generation);
        check(&Environment, &loaded.contents.environment)
            .map_err(|Problems(problems)| format!("{place} would not start a worker: {}", in_one_line(&problems)))?;
        let changed = changed(&Environment, &source.environment, &loaded.contents.environment);
        if !changed.is_empty() {
            tracing::warn!(
                "{place}: variables have changed, which takes a restart: {}. Until then the worker goes on with those \
                 it was started with",
                changed.join(", ")
            );
        }
        Ok(Some(loaded))
    }

    /// Reloads on the clock, for ever.
    pub async fn keep_fresh(&self) {
        let Some(source) = &self.0.source else { return };
        let mut pause = source.interval;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.reload().await {
                Ok(_) => source.interval,
                // It has been logged.
                Err(_) => source.interval.min(AGAIN),
            };
        }
    }

    /// Holders never panic half-way.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} names)", self.held().passwords.len())
    }
}

/// The variables that differ, less those that the process sets itself.
fn changed(process: &dyn Strings, old: &BTreeMap<String, Secret>, new: &BTreeMap<String, Secret>) -> Vec<String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| {
        let shadowed = !Layered::new(process, old).is_sealed(name) && !Layered::new(process, new).is_sealed(name);
        !shadowed && old.get(*name) != new.get(*name)
    });
    names.into_iter().cloned().collect()
}

fn in_one_line(problems: &[config::Problem]) -> String {
    let sentences: Vec<String> = problems
        .iter()
        .map(|problem| format!("{} {}", problem.variable, problem.message))
        .collect();
    sentences.join("; ")
}

fn written(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn in_use(loaded: &Loaded) {
    // Milliseconds since 1970 have 41 bits: an f64 holds them exactly.
    let seconds = loaded.at.timestamp_millis() as f64 / 1000.0;
    metrics::configuration(loaded.generation, seconds);
}
