//! A directory that cannot be written: every call that wanted to change something hears it, and the person at the terminal once.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::NotKept;

/// Where a person hears of it: a sentence, without its end of line.
pub type Say = dyn Fn(&str) + Send + Sync;

/// What fails of a directory, from the first failure to the next success.
pub(super) struct Trouble {
    directory: PathBuf,
    say: Arc<Say>,
    /// Whether it was said, and not heard since that it is over.
    is_said: AtomicBool,
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trouble")
            .field("is_said", &self.is_said)
            .finish_non_exhaustive()
    }
}

impl Trouble {
    pub(super) fn of(directory: &Path, say: &Arc<Say>) -> Self {
        Self {
            directory: directory.to_owned(),
            say: Arc::clone(say),
            is_said: AtomicBool::new(false),
        }
    }

    /// Something about the directory that is no failure of a change.
    pub(super) fn say(&self, what: &str) {
        (self.say)(&format!("{}: {what}", self.directory.display()));
    }

    /// Something was not written, and may be when it is tried again.
    pub(super) fn found(&self, error: &io::Error) -> NotKept {
        use io::ErrorKind::{FileTooLarge, NotFound, QuotaExceeded, StorageFull};
        let advice = match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => "make room",
            NotFound => "put it back, or end this and start again",
            _ => "see to the disk",
        };
        self.told(&error.to_string(), &format!("{advice}; it goes on as soon as it can"))
    }

    /// What is on the disk is not known any more, until it is read again.
    pub(super) fn for_good(&self, why: &str) -> NotKept {
        self.told(why, "end this and start again")
    }

    fn told(&self, why: &str, advice: &str) -> NotKept {
        if !self.is_said.swap(true, Ordering::Relaxed) {
            self.say(&format!(
                "cannot be written: {why}. What would change anything is answered with 503 and changes nothing: {advice}"
            ));
        }
        NotKept(why.to_owned())
    }

    /// Something was written.
    pub(super) fn over(&self) {
        if self.is_said.swap(false, Ordering::Relaxed) {
            self.say("is written again");
        }
    }
}
