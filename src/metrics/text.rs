//! The two forms in which scrapers read metrics: OpenMetrics 1.0 for those that accept it, else Prometheus's older text.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0: prometheus.io/docs/specs/om/open_metrics_spec.
    OpenMetrics,
    /// Prometheus text 0.0.4: prometheus.io/docs/instrumenting/exposition_formats.
    Prometheus,
}

impl Form {
    /// The one that an `Accept` header asks for: OpenMetrics only if it is named and not refused.
    pub fn accepted(accept: &str) -> Self {
        let is_open = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            parts.next() == Some("application/openmetrics-text")
                && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        if accept.to_ascii_lowercase().split(',').any(is_open) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn exposition(registry: &Registry, form: Form) -> String {
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        // A `String` takes every write.
        text.clear();
    }
    match form {
        Form::OpenMetrics => text,
        Form::Prometheus => older(&text),
    }
}

/// The older form names the samples where OpenMetrics names the family, and knows neither `# UNIT`, `# EOF` nor the type
/// `info`.
fn older(text: &str) -> String {
    // Of a family, what its samples' names have beyond its own; its help comes before its type.
    let suffix = |family: &str| {
        let declared = |kind: &str| {
            text.contains(&format!("\n# TYPE {family} {kind}\n"))
                || text.starts_with(&format!("# TYPE {family} {kind}\n"))
        };
        match () {
            () if declared("counter") => "_total",
            () if declared("info") => "_info",
            () => "",
        }
    };
    let mut older = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let line = match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(family), Some(help)) => format!("# HELP {family}{} {help}", suffix(family)),
            (Some("#"), Some("TYPE"), Some(family), Some(kind)) => {
                let kind = if kind == "info" { "gauge" } else { kind };
                format!("# TYPE {family}{} {kind}", suffix(family))
            }
            (Some("#"), ..) => continue,
            _ => line.to_owned(),
        };
        older.push_str(&line);
        older.push('\n');
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        for (accept, expected) in [
            ("", Form::Prometheus),
            ("*/*", Form::Prometheus),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Form::Prometheus),
            (
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                Form::OpenMetrics,
            ),
            ("text/plain, Application/OpenMetrics-Text; q=0.4", Form::OpenMetrics),
            ("application/openmetrics-text;q=0", Form::Prometheus),
        ] {
            assert_eq!(Form::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn the_older_form_names_samples() {
        let open = "# HELP a_bytes In.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 3\n# HELP b Which.\n# TYPE b info\nb_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 2\n# EOF\n";
        let older_form = "# HELP a_bytes_total In.\n# TYPE a_bytes_total counter\na_bytes_total 3\n# HELP b_info Which.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c Now.\n# TYPE c gauge\nc 2\n";
        assert_eq!(older(open), older_form);
    }
}
