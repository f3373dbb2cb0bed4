//! Logs: one line an event, for a person or for Cloud Logging. No secret has a `Debug` or `Display` that shows it, and
//! no line here holds a query string, a token or a document's text.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Problem, Problems, Strings};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, with Cloud Logging's fields.
    Json,
    /// For a person.
    Text,
}

impl LogFormat {
    /// `LOG_FORMAT`; without it JSON on Cloud Run (which sets `K_SERVICE`), else text.
    ///
    /// # Errors
    /// The variable, when it is neither.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        match strings.get("LOG_FORMAT").as_deref().map(str::trim) {
            Some("json") => Ok(Self::Json),
            Some("text") => Ok(Self::Text),
            None | Some("") => Ok(if strings.get("K_SERVICE").is_some() {
                Self::Json
            } else {
                Self::Text
            }),
            Some(other) => {
                let other = if strings.is_sealed("LOG_FORMAT") { "…" } else { other };
                Err(Problems(vec![Problem {
                    variable: "LOG_FORMAT",
                    message: format!("is '{other}', neither 'json' nor 'text'"),
                }]))
            }
        }
    }
}

/// `RUST_LOG`, checked.
///
/// # Errors
/// The variable, when it is no filter.
pub fn check_filter(strings: &dyn Strings) -> Result<(), Problems> {
    let Some(filter) = strings.get("RUST_LOG").filter(|filter| !filter.trim().is_empty()) else {
        return Ok(());
    };
    EnvFilter::try_new(&filter).map(|_| ()).map_err(|error| {
        let message = if strings.is_sealed("RUST_LOG") {
            "is not a filter such as info or platen=debug".to_owned()
        } else {
            format!("is '{filter}', not a filter such as info or platen=debug: {error}")
        };
        Problems(vec![Problem {
            variable: "RUST_LOG",
            message,
        }])
    })
}

/// What is wrong with either of the two.
pub fn problems(strings: &dyn Strings) -> Vec<Problem> {
    let loaded = [LogFormat::load(strings).map(drop), check_filter(strings)];
    let problems = loaded.into_iter().filter_map(Result::err);
    problems.flat_map(|Problems(problems)| problems).collect()
}

/// Has a panic logged like everything else: where it was, and what it said.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or("nothing");
        tracing::error!("a bug: panic at {place}: {said}");
    }));
}

/// Starts the worker's logging, on stderr. `RUST_LOG` filters; without it `info`.
pub fn start(format: LogFormat, strings: &dyn Strings) {
    start_from(format, strings, "info");
}

/// Starts logging for commands that speak for themselves: only what is wrong, unless `RUST_LOG` asks for more.
pub fn start_quiet(format: LogFormat, strings: &dyn Strings) {
    start_from(format, strings, "error");
}

fn start_from(format: LogFormat, strings: &dyn Strings, default: &str) {
    // A second start (a test in the same process) keeps the first.
    let _already_started = tracing::dispatcher::set_global_default(dispatch(format, strings, default));
}

/// Runs `work` with the worker's logging on this thread alone, before it is known how the whole process is to log.
pub fn before_start<T>(format: LogFormat, strings: &dyn Strings, work: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&dispatch(format, strings, "info"), work)
}

fn dispatch(format: LogFormat, strings: &dyn Strings, default: &str) -> Dispatch {
    let filter = strings
        .get("RUST_LOG")
        .and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .into(),
        LogFormat::Json => builder.event_format(CloudLogging).finish().into(),
    }
}

/// Cloud Logging's structured form: `severity`, `message`, `time`, and our fields beside them.
struct CloudLogging;

impl<S, N> FormatEvent<S, N> for CloudLogging
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let metadata = event.metadata();
        fields
            .0
            .insert("severity".to_owned(), severity(*metadata.level()).into());
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        fields.0.insert("time".to_owned(), now.into());
        fields.0.insert(
            "logging.googleapis.com/sourceLocation".to_owned(),
            json!({"file": metadata.file(), "line": metadata.line().map(|line| line.to_string())}),
        );
        writeln!(writer, "{}", Value::Object(fields.0))
    }
}

fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
