//! A log line in Cloud Logging's structured form: one JSON object, whose special fields become those of the log entry.
//! Source: cloud.google.com/logging/docs/structured-logging, and for bugs
//! cloud.google.com/error-reporting/docs/formatting-error-messages.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::Strings;
use crate::trace::{self, Current};

/// What entries are found by: fields of these names become labels.
const LABELS: [&str; 3] = ["jobId", "source", "code"];
/// The most of one string in a line. An entry may have 256 KiB, and a line that is longer is no JSON any more.
const LONGEST: usize = 16 << 10;

static PROJECT: OnceLock<String> = OnceLock::new();

/// The project that traces belong to, as soon as it is known. The first one stays.
pub fn set_project(project: &str) {
    let _the_first_stays = PROJECT.set(project.to_owned());
}

/// The form, for this service.
pub(super) struct CloudLogging {
    service: String,
    version: String,
}

impl CloudLogging {
    /// Named as Cloud Run names it (container contract: `K_SERVICE`, `K_REVISION`), else as this program is called.
    pub(super) fn new(strings: &dyn Strings) -> Self {
        let named = |variable: &str, else_: &str| {
            let value = strings.get(variable).filter(|value| !value.is_empty());
            value.unwrap_or_else(|| else_.to_owned())
        };
        Self {
            service: named("K_SERVICE", "platen"),
            version: named("K_REVISION", env!("CARGO_PKG_VERSION")),
        }
    }

    fn entry(&self, metadata: &Metadata<'_>, fields: Map<String, Value>, current: Option<&Current>) -> Value {
        let mut entry = fields;
        entry.insert("severity".to_owned(), severity(*metadata.level()).into());
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        entry.insert("time".to_owned(), now.into());
        if let Some(status) = entry.remove("httpStatus") {
            entry.insert("httpRequest".to_owned(), request(&status, current));
        }
        if entry.remove("bug").is_some() {
            self.report_error(metadata, &mut entry);
        }
        let mut labels = Map::new();
        let about = current.map(Current::about).unwrap_or_default();
        let known = [about.job_id, about.source, None];
        for (label, known) in LABELS.into_iter().zip(known) {
            // What the event says itself is newer.
            if let Some(value) = entry.remove(label).or_else(|| known.map(Value::String)) {
                labels.insert(label.to_owned(), value);
            }
        }
        if !labels.is_empty() {
            entry.insert("logging.googleapis.com/labels".to_owned(), labels.into());
        }
        if let Some(trace) = current.and_then(Current::trace) {
            let name = match PROJECT.get() {
                Some(project) => format!("projects/{project}/traces/{}", trace.trace_id),
                None => trace.trace_id.clone(),
            };
            entry.insert("logging.googleapis.com/trace".to_owned(), name.into());
            entry.insert("logging.googleapis.com/spanId".to_owned(), trace.span_id.clone().into());
            entry.insert("logging.googleapis.com/trace_sampled".to_owned(), trace.sampled.into());
        }
        entry.insert(
            "logging.googleapis.com/sourceLocation".to_owned(),
            json!({"file": metadata.file(), "line": metadata.line().map(|line| line.to_string())}),
        );
        entry.into()
    }

    /// Has Error Reporting take it for one: by its type, and by the place, which stands for the stack trace.
    fn report_error(&self, metadata: &Metadata<'_>, entry: &mut Map<String, Value>) {
        let file = entry.remove("bugFile").or_else(|| metadata.file().map(Value::from));
        let line = entry.remove("bugLine").or_else(|| metadata.line().map(Value::from));
        entry.insert(
            "@type".to_owned(),
            "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent".into(),
        );
        entry.insert(
            "serviceContext".to_owned(),
            json!({"service": self.service, "version": self.version}),
        );
        entry.insert(
            "context".to_owned(),
            json!({"reportLocation": {"filePath": file, "lineNumber": line, "functionName": metadata.target()}}),
        );
    }
}

impl<S, N> FormatEvent<S, N> for CloudLogging
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let current = trace::current();
        let entry = self.entry(event.metadata(), fields.0, current.as_ref().map(Arc::as_ref));
        writeln!(writer, "{entry}")
    }
}

/// The request as Cloud Logging has it. Its URL is the only one that deliveries come to, without what a query may hold.
fn request(status: &Value, current: Option<&Current>) -> Value {
    let latency = current.map(|current| format!("{:.6}s", current.elapsed().as_secs_f64()));
    json!({"requestMethod": "POST", "requestUrl": "/", "status": status, "latency": latency})
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
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut end = value.len().min(LONGEST);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        self.put(field, value.get(..end).unwrap_or_default());
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::trace::Trace;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` writes, on a service of Cloud Run's.
    fn lines(work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let strings = std::collections::HashMap::from([
            ("K_SERVICE".to_owned(), "worker".to_owned()),
            ("K_REVISION".to_owned(), "worker-00007".to_owned()),
        ]);
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(CloudLogging::new(&strings))
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_panic_is_one_line_as_error_reporting_takes_it() {
        let before = std::panic::take_hook();
        let lines = lines(|| {
            crate::telemetry::log_panics();
            std::panic::catch_unwind(|| panic!("as a test wants it")).unwrap_err();
        });
        std::panic::set_hook(before);
        // A test beside this one may have panicked on another thread, which logs nowhere.
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert_eq!(line["severity"], "ERROR");
        let type_ = "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent";
        assert_eq!(line["@type"], type_);
        assert_eq!(
            line["serviceContext"],
            json!({"service": "worker", "version": "worker-00007"})
        );
        let place = &line["context"]["reportLocation"];
        assert!(
            place["filePath"].as_str().unwrap().ends_with("cloud_logging.rs"),
            "{line}"
        );
        assert!(
            place["lineNumber"].is_u64() && place["functionName"].is_string(),
            "{line}"
        );
        assert!(
            line["message"].as_str().unwrap().contains("as a test wants it"),
            "{line}"
        );
        assert!(line.get("bug").is_none() && line.get("bugFile").is_none(), "{line}");
    }

    #[tokio::test]
    async fn what_is_noted_of_a_request_is_on_every_line_of_its_tasks() {
        let trace = Trace {
            trace_id: "c0aae0ef90d944452f56027d27af0e97".to_owned(),
            span_id: "1397c3bb3cd56200".to_owned(),
            sampled: false,
        };
        let on_a_thread = trace::within(Instant::now(), Some(trace), async {
            trace::note(|about| about.job_id = Some("job".to_owned()));
            trace::carried_to_a_thread(|| tracing::warn!(code = "a.code", "in the middle"))
        })
        .await;
        let lines = lines(|| {
            on_a_thread();
            tracing::info!("outside");
        });
        assert_eq!(
            lines[0]["logging.googleapis.com/labels"],
            json!({"jobId": "job", "code": "a.code"})
        );
        assert_eq!(lines[0]["logging.googleapis.com/trace_sampled"], false);
        assert!(lines[0].get("code").is_none(), "moved, not copied");
        assert!(lines[1].get("logging.googleapis.com/labels").is_none(), "{lines:?}");
        assert!(lines[1].get("logging.googleapis.com/spanId").is_none(), "{lines:?}");
    }
}
