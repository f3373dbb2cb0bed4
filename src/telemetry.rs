//! Logs: one line an event, for a person or for Cloud Logging. No secret has a `Debug` or `Display` that shows it, and
//! no line here holds a query string, a token or a document's text.

mod cloud_logging;

use std::io::IsTerminal;

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

use self::cloud_logging::CloudLogging;
pub use self::cloud_logging::set_project;
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
        let said = panic.payload_as_str().unwrap_or("nothing");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            bug = true,
            bugFile = panic.location().map(std::panic::Location::file),
            bugLine = panic.location().map(std::panic::Location::line),
            "a bug: panic at {place}: {said}"
        );
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
            .fmt_fields(on_one_line())
            .finish()
            .into(),
        LogFormat::Json => builder.event_format(CloudLogging::new(strings)).finish().into(),
    }
}

/// Fields for a person. A message may quote what somebody sent: a line break in it begins no line of the log, and no control
/// character reaches the terminal.
fn on_one_line() -> impl for<'writer> FormatFields<'writer> + 'static {
    let field = debug_fn(|writer, field, value| {
        if field.name() != "message" {
            return write!(writer, "{field}={value:?}");
        }
        for character in format!("{value:?}").chars() {
            if character.is_control() {
                write!(writer, "{}", character.escape_default())?;
            } else {
                writer.write_char(character)?;
            }
        }
        Ok(())
    });
    field.delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_somebody_sent_begins_no_line() {
        let lines = Arc::new(Mutex::new(Vec::<u8>::new()));
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(on_one_line())
            .with_writer(move || Lines(writer.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let sent = "x\nERROR forged \u{1b}[2J ü";
            tracing::warn!(source = sent, code = "a.b", "unknown field {sent}");
        });
        let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        let shown = r"x\nERROR forged \u{1b}[2J ü";
        assert_eq!(
            text,
            format!(" WARN unknown field {shown} source=\"{shown}\" code=\"a.b\"\n")
        );
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
