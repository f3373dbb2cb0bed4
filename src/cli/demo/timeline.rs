//! A picture of the run: each document's phases on one axis of time, from the timings of its result.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The phases in their order: the member of `timings`, and the letter that draws it.
const PHASES: [(&str, char, &str); 5] = [
    ("queuedMs", 'q', "queued"),
    ("fetchMs", 'f', "fetch"),
    ("convertMs", 'C', "convert"),
    ("storeMs", 's', "store"),
    ("signMs", 'g', "sign"),
];
/// Columns of a name, and of what stands before and after a bar.
const NAME: usize = 24;
const BESIDE: usize = 11 + NAME + 1 + 12;
/// The narrowest bar that says anything.
const NARROWEST: usize = 10;

/// One document's.
struct Row {
    name: String,
    uploaded: Instant,
    /// Milliseconds of each phase.
    phases: [u64; PHASES.len()],
}

impl Row {
    fn took(&self) -> u64 {
        self.phases.iter().sum()
    }
}

/// All documents', in the order in which they ended.
#[derive(Default)]
pub(super) struct Timeline(Vec<Row>);

impl Timeline {
    pub(super) fn add(&mut self, file: &Path, uploaded: Instant, timings: &Value) {
        let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        self.0.push(Row {
            // A terminal must not obey what somebody has called a file.
            name: name.replace(char::is_control, "\u{fffd}"),
            uploaded,
            phases: PHASES.map(|(member, ..)| timings[member].as_u64().unwrap_or(0)),
        });
    }

    /// On stderr: bars as wide as the terminal, and in words where there is none, or no room.
    pub(super) fn print(&self) {
        let term = console::Term::stderr();
        let width = term.size_checked().filter(|_| term.is_term());
        let width = width.map(|(_, columns)| usize::from(columns).saturating_sub(BESIDE + 1));
        for line in self.lines(width.filter(|width| *width >= NARROWEST)) {
            eprintln!("{line}");
        }
    }

    fn lines(&self, width: Option<usize>) -> Vec<String> {
        let Some(begun) = self.0.iter().map(|row| row.uploaded).min() else {
            return Vec::new();
        };
        let after = |row: &Row| milliseconds(row.uploaded.duration_since(begun));
        let Some(width) = width else {
            let words = |row: &Row| {
                let phases = PHASES.iter().zip(row.phases);
                let phases: Vec<String> = phases.map(|((.., word), ms)| format!("{word} {ms}")).collect();
                format!(
                    "timeline   {}: from {} ms: {} ms",
                    row.name,
                    after(row),
                    phases.join(", ")
                )
            };
            return self.0.iter().map(words).collect();
        };
        let all = self
            .0
            .iter()
            .map(|row| after(row) + row.took())
            .max()
            .unwrap_or(0)
            .max(1);
        let legend: Vec<String> = PHASES
            .iter()
            .map(|(_, letter, word)| format!("{letter} {word}"))
            .collect();
        let mut lines = vec![format!("timeline   {} ms in all: {}", all, legend.join(", "))];
        let columns = u64::try_from(width).unwrap_or(u64::MAX);
        let column = |ms: u64| usize::try_from(ms * columns / all).unwrap_or(width).min(width);
        for row in &self.0 {
            let mut bar = ".".repeat(column(after(row)));
            let mut at = after(row);
            for ((_, letter, _), ms) in PHASES.iter().zip(row.phases) {
                at += ms;
                // As far as the phase's end: what is too short for a column of its own gives it to the next.
                bar.extend(std::iter::repeat_n(*letter, column(at).saturating_sub(bar.len())));
            }
            let name = console::truncate_str(&row.name, NAME, "~");
            let name = console::pad_str(&name, NAME, console::Alignment::Left, None);
            lines.push(format!("           {name} {bar:width$} {:>8} ms", row.took()));
        }
        lines
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn timeline() -> Timeline {
        let (mut timeline, begun) = (Timeline::default(), Instant::now());
        let timings =
            json!({"queuedMs": 10, "fetchMs": 10, "convertMs": 60, "storeMs": 10, "signMs": 10, "totalMs": 95});
        timeline.add(Path::new("in/a.docx"), begun, &timings);
        let later = begun + Duration::from_millis(100);
        timeline.add(
            Path::new("b\u{1b}.docx"),
            later,
            &json!({"queuedMs": 40, "convertMs": 60}),
        );
        timeline
    }

    #[test]
    fn bars_share_one_axis_and_end_within_the_width() {
        let lines = timeline().lines(Some(20));
        assert_eq!(
            lines[1],
            format!("           {:24} {:20} {:>8} ms", "a.docx", "qfCCCCCCsg", 100)
        );
        assert_eq!(
            lines[2],
            format!(
                "           {:24} {:20} {:>8} ms",
                "b\u{fffd}.docx", "..........qqqqCCCCCC", 100
            )
        );
        assert_eq!(lines[2].chars().count(), BESIDE + 20);
    }

    #[test]
    fn without_a_terminal_it_is_words() {
        let lines = timeline().lines(None);
        assert_eq!(
            lines[0],
            "timeline   a.docx: from 0 ms: queued 10, fetch 10, convert 60, store 10, sign 10 ms"
        );
        assert!(Timeline::default().lines(Some(20)).is_empty());
    }
}
