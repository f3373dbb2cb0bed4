//! What was found, by type, and how far it is: for the terminal and for the end.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::selection::Candidate;
use crate::cli::output::{note, plain, say};
use crate::google::storage::Object;

/// Types that are counted each for itself: with globs there may be as many as there are objects.
const TYPES: usize = 1000;

/// Why an object gets no job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    FolderPlaceholder,
    WrittenByPlaten,
    OtherType,
    Done,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::FolderPlaceholder => "folder placeholders",
            Self::WrittenByPlaten => "written by Platen",
            Self::OtherType => "not read or not included",
            Self::Done => "done already",
        }
    }
}

#[derive(Default)]
struct Count {
    objects: u64,
    bytes: u64,
}

/// The counts.
pub(super) struct Tally {
    seen: u64,
    published: u64,
    types: BTreeMap<String, Count>,
    left_out: BTreeMap<Reason, u64>,
    progress: ProgressBar,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            seen: 0,
            published: 0,
            types: BTreeMap::new(),
            left_out: BTreeMap::new(),
            progress: progress(),
        }
    }

    pub(super) fn seen(&mut self, object: &Object) {
        self.seen += 1;
        self.progress
            .set_message(format!("{} looked at, {}", self.seen, plain(&object.name)));
    }

    pub(super) fn left_out(&mut self, reason: Reason) {
        *self.left_out.entry(reason).or_default() += 1;
    }

    pub(super) fn chosen(&mut self, candidate: &Candidate) {
        let name = candidate.job.source.name.rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("(none)", |(_, extension)| extension);
        let mut extension = extension.to_lowercase();
        if self.types.len() >= TYPES && !self.types.contains_key(&extension) {
            "(others)".clone_into(&mut extension);
        }
        let count = self.types.entry(extension).or_default();
        count.objects += 1;
        count.bytes = count.bytes.saturating_add(candidate.size);
    }

    pub(super) fn published(&mut self, jobs: usize) {
        self.published += jobs as u64;
        self.progress.inc(jobs as u64);
    }

    /// The end: on stdout a table by type, on stderr what it means.
    pub(super) fn tell(&self, dry_run: bool, is_whole: bool, topic: &str) {
        self.progress.finish_and_clear();
        if self.seen == 0 {
            if is_whole {
                note("no object is there, or none is left");
            }
            return;
        }
        let row = |name: &str, objects: u64, bytes: u64| say(&plain(&format!("{name:<12} {objects:>12} {bytes:>16}")));
        say(&format!("{:<12} {:>12} {:>16}", "type", "objects", "bytes"));
        for (extension, count) in &self.types {
            row(extension, count.objects, count.bytes);
        }
        let (objects, bytes) = self.types.values().fold((0, 0_u64), |(objects, bytes), count| {
            (objects + count.objects, bytes.saturating_add(count.bytes))
        });
        row("total", objects, bytes);
        let left_out: Vec<String> = self
            .left_out
            .iter()
            .map(|(reason, count)| format!("{count} {}", reason.as_str()))
            .collect();
        let left_out = match &left_out[..] {
            [] => "none left out".to_owned(),
            all => format!("left out: {}", all.join(", ")),
        };
        let did = if dry_run {
            format!("{objects} jobs would be published")
        } else {
            format!("{} jobs published", self.published)
        };
        note(&format!(
            "{did} to {topic}; {} objects looked at, {left_out}",
            self.seen
        ));
    }
}

/// A line where somebody watches, else nothing. How many objects there are nobody knows before the last page.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} published  {elapsed}  {per_sec}  {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
