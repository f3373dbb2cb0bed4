//! What the worker counts, for `GET /metrics` on `METRICS_PORT`. Below all stages: each counts what it knows, where it
//! happens. docs/observability.md has the table of names.
//!
//! One registry a process, because what is counted is a process's. A label's value is a `&'static str`: nothing that
//! somebody sends can become one, so the number of series is bounded by this program's text.

mod text;

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use text::Form;

type Label = (&'static str, &'static str);
type Counters<const LABELS: usize> = Family<[Label; LABELS], Counter>;

/// Upper bounds in seconds: from a link that is taken from the cache to a message that has waited for a day.
const BUCKETS: [f64; 17] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0, 21_600.0, 86_400.0,
];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

struct Metrics {
    registry: Registry,
    jobs: Counters<2>,
    deliveries: Counters<1>,
    ignored: Counters<1>,
    busy: Counters<1>,
    phases: Family<[Label; 1], Histogram>,
    slots: Gauge,
    slots_used: Gauge,
    engine_starts: Counter,
    engine_crashes: Counter,
    limits_exceeded: Counters<1>,
    input: Counter,
    output: Counter,
    key_fetches: Counters<1>,
    retries: Counters<2>,
    signatures: Counters<1>,
    generation: Gauge,
    loaded: Gauge<f64, AtomicU64>,
    reload_failures: Counter,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("platen");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The worker's version", build);
        let mut metrics = Self {
            registry,
            jobs: Family::default(),
            deliveries: Family::default(),
            ignored: Family::default(),
            busy: Family::default(),
            phases: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            slots: Gauge::default(),
            slots_used: Gauge::default(),
            engine_starts: Counter::default(),
            engine_crashes: Counter::default(),
            limits_exceeded: Family::default(),
            input: Counter::default(),
            output: Counter::default(),
            key_fetches: Family::default(),
            retries: Family::default(),
            signatures: Family::default(),
            generation: Gauge::default(),
            loaded: Gauge::default(),
            reload_failures: Counter::default(),
        };
        metrics.register_jobs();
        metrics.register_engine();
        metrics.register_google();
        metrics.begin_at_zero();
        metrics
    }

    /// What has not happened yet is 0 and not missing, so that its first time is seen as an increase. Calls to Google
    /// have their series once they occur.
    fn begin_at_zero(&self) {
        for status in ["succeeded", "superseded"] {
            self.jobs.get_or_create(&[("status", status), ("code", "")]).inc_by(0);
        }
        let counters: [(&Counters<1>, &'static str, &[&'static str]); 6] = [
            (
                &self.deliveries,
                "http_status",
                &["204", "401", "429", "500", "503", "none"],
            ),
            (
                &self.ignored,
                "reason",
                &["other_event", "own_output", "folder_placeholder", "left_out"],
            ),
            (
                &self.busy,
                "reason",
                &["slots", "memory", "disk", "bodies", "connections"],
            ),
            (
                &self.limits_exceeded,
                "limit",
                &[
                    "time",
                    "processor_time",
                    "memory",
                    "output_size",
                    "disk_size",
                    "disk_entries",
                    "disk_levels",
                    "pages",
                    "threads",
                ],
            ),
            (&self.key_fetches, "outcome", &["succeeded", "failed"]),
            (&self.signatures, "outcome", &["made", "reused", "failed"]),
        ];
        for (family, label, values) in counters {
            for value in values {
                family.get_or_create(&[(label, value)]).inc_by(0);
            }
        }
        for phase in ["queued", "fetch", "convert", "store", "sign", "publish", "total"] {
            drop(self.phases.get_or_create(&[("phase", phase)]));
        }
    }

    fn register_jobs(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "jobs",
            "Results published, by how the job ended and the failure's code",
            self.jobs.clone(),
        );
        registry.register(
            "deliveries",
            "Requests to the worker's root, by the status they were answered with",
            self.deliveries.clone(),
        );
        registry.register(
            "ignored_events",
            "Events acknowledged without a result, by reason",
            self.ignored.clone(),
        );
        registry.register(
            "busy_refusals",
            "Times that there was no room for a delivery or its job, by what there was none of",
            self.busy.clone(),
        );
        registry.register_with_unit(
            "job_phase_duration",
            "How long a phase of a job took, also of one that failed",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "input",
            "Documents fetched, as they are stored",
            Unit::Bytes,
            self.input.clone(),
        );
        registry.register_with_unit("output", "Outputs stored", Unit::Bytes, self.output.clone());
    }

    fn register_engine(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "conversion_slots",
            "Conversions that there may be at once",
            self.slots.clone(),
        );
        registry.register(
            "conversion_slots_used",
            "Places that are taken by jobs",
            self.slots_used.clone(),
        );
        registry.register(
            "engine_starts",
            "LibreOffice processes that became warm, the first one included",
            self.engine_starts.clone(),
        );
        registry.register(
            "engine_crashes",
            "Conversions in which LibreOffice crashed, or left an output that is none",
            self.engine_crashes.clone(),
        );
        registry.register(
            "conversion_limits_exceeded",
            "Conversions that were ended at a limit",
            self.limits_exceeded.clone(),
        );
    }

    fn register_google(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "key_fetches",
            "Fetches of the keys that verify tokens, by outcome",
            self.key_fetches.clone(),
        );
        registry.register(
            "google_retries",
            "Calls to Google that were repeated, by what was called and the status before",
            self.retries.clone(),
        );
        registry.register(
            "signatures",
            "Signed links: made, reused from the cache, or failed",
            self.signatures.clone(),
        );
        registry.register(
            "configuration_generation",
            "The generation of the configuration object whose values are in use; 0 without one",
            self.generation.clone(),
        );
        registry.register_with_unit(
            "configuration_loaded_timestamp",
            "When it was loaded, in seconds since 1970; 0 without one",
            Unit::Seconds,
            self.loaded.clone(),
        );
        registry.register(
            "configuration_reload_failures",
            "Reloads of the configuration object that failed: the old values stay",
            self.reload_failures.clone(),
        );
    }
}

/// The codes that failures may have: each is 0 from the start, so that the first of its kind is seen as an increase.
pub fn failure_codes(codes: impl IntoIterator<Item = &'static str>) {
    for code in codes {
        METRICS
            .jobs
            .get_or_create(&[("status", "failed"), ("code", code)])
            .inc_by(0);
    }
}

/// All of it, as a scraper reads it.
pub fn exposition(form: Form) -> String {
    text::exposition(&METRICS.registry, form)
}

/// A result is on the topic. `code` is the failure's, if it is one.
pub fn job(status: &'static str, code: Option<&'static str>) {
    let labels = [("status", status), ("code", code.unwrap_or_default())];
    METRICS.jobs.get_or_create(&labels).inc();
}

/// A delivery was answered.
pub fn delivery(status: u16) {
    let labels = [("http_status", status_label(Some(status)))];
    METRICS.deliveries.get_or_create(&labels).inc();
}

/// A delivery has no answer: its caller hung up.
pub fn hung_up() {
    METRICS.deliveries.get_or_create(&[("http_status", "none")]).inc();
}

/// An event was acknowledged without a result.
pub fn ignored(reason: &'static str) {
    METRICS.ignored.get_or_create(&[("reason", reason)]).inc();
}

/// There was no room.
pub fn busy(reason: &'static str) {
    METRICS.busy.get_or_create(&[("reason", reason)]).inc();
}

/// A phase of a job has ended, well or badly.
pub fn phase(phase: &'static str, took: Duration) {
    METRICS
        .phases
        .get_or_create(&[("phase", phase)])
        .observe(took.as_secs_f64());
}

/// How many conversions there may be at once.
pub fn slots(total: usize) {
    METRICS.slots.set(i64::try_from(total).unwrap_or(i64::MAX));
}

/// How many places are taken now.
pub fn slots_used(used: usize) {
    METRICS.slots_used.set(i64::try_from(used).unwrap_or(i64::MAX));
}

/// A LibreOffice process is warm.
pub fn engine_started() {
    METRICS.engine_starts.inc();
}

/// LibreOffice crashed on a document.
pub fn engine_crashed() {
    METRICS.engine_crashes.inc();
}

/// A conversion was ended at a limit.
pub fn limit_exceeded(limit: &'static str) {
    METRICS.limits_exceeded.get_or_create(&[("limit", limit)]).inc();
}

/// So many bytes of documents were fetched.
pub fn fetched(bytes: u64) {
    METRICS.input.inc_by(bytes);
}

/// So many bytes of outputs were stored.
pub fn stored(bytes: u64) {
    METRICS.output.inc_by(bytes);
}

/// The keys that verify tokens were asked for.
pub fn keys_fetched(well: bool) {
    let outcome = if well { "succeeded" } else { "failed" };
    METRICS.key_fetches.get_or_create(&[("outcome", outcome)]).inc();
}

/// A call to Google is made again after an answer of this status, or after none.
pub fn retried(operation: &'static str, status: Option<u16>) {
    let labels = [("operation", operation), ("status", status_label(status))];
    METRICS.retries.get_or_create(&labels).inc();
}

/// What became of a link: `made`, `reused` or `failed`.
pub fn signature(outcome: &'static str) {
    METRICS.signatures.get_or_create(&[("outcome", outcome)]).inc();
}

/// These values of the configuration object are in use, loaded so many seconds after 1970.
pub fn configuration(generation: i64, loaded: f64) {
    METRICS.generation.set(generation);
    METRICS.loaded.set(loaded);
}

/// The configuration object could not be loaded again.
pub fn configuration_failed() {
    METRICS.reload_failures.inc();
}

/// The statuses that the worker answers with, and those after which it calls again.
fn status_label(status: Option<u16>) -> &'static str {
    const KNOWN: [(u16, &str); 18] = [
        (200, "200"),
        (204, "204"),
        (400, "400"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (408, "408"),
        (412, "412"),
        (413, "413"),
        (429, "429"),
        (431, "431"),
        (500, "500"),
        (501, "501"),
        (502, "502"),
        (503, "503"),
        (504, "504"),
        (507, "507"),
    ];
    let Some(status) = status else { return "none" };
    KNOWN
        .iter()
        .find_map(|(known, label)| (*known == status).then_some(*label))
        .unwrap_or("other")
}
