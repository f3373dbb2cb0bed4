//! What all jobs together may take of this machine, and what one takes: counted once, at the start, and said there.

use std::io;
use std::path::{Path, PathBuf};

use super::machine;
use crate::config::EngineConfig;
use crate::engine::{self, Footprint};

/// Bytes of request bodies that are held at once, see `serve`. Part of what the worker takes.
pub const BODIES: u64 = 64 << 20;
/// By how much a zygote may grow before it is replaced.
const GROWTH: u64 = 64 << 20;
/// What is in nobody's account: connections, the child that waits, the kernel's own for us.
const MARGIN: u64 = 128 << 20;
/// What a child is over its memory when it is killed: it is looked at every 20 ms.
const OVERSHOOT: u64 = 64 << 20;

/// The numbers that admission decides by. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Budget {
    /// Jobs at once.
    pub(super) slots: usize,
    /// Memory for all jobs.
    pub(super) memory: u64,
    /// Memory that the worker and the engine keep for themselves.
    pub(super) held: u64,
    /// Memory of one job, without its files.
    pub(super) job_memory: u64,
    /// Where jobs have their files.
    pub(super) directory: PathBuf,
    /// Whether these are memory, too.
    pub(super) files_are_memory: bool,
    /// What may be written there; none where it is not counted.
    pub(super) disk: Option<u64>,
    /// Files of the smallest job.
    pub(super) least_disk: u64,
}

impl Budget {
    /// Measures this machine and the engine, which is warm and has no job yet. Blocks for a moment.
    pub(super) fn measure(config: &EngineConfig, footprint: &Footprint, on_cloud_run: bool) -> io::Result<Self> {
        let directory = std::env::temp_dir();
        let files_are_memory = machine::is_memory(&directory, on_cloud_run)?;
        let total = machine::memory(Path::new("/"))?;
        let held = held(footprint, files_are_memory);
        Ok(Self {
            slots: config.concurrency,
            memory: total.saturating_sub(held),
            held,
            // Pages of the zygote that a child writes to are counted to neither.
            job_memory: config
                .limits
                .memory
                .saturating_add(footprint.zygote_own)
                .saturating_add(OVERSHOOT),
            disk: machine::room(&directory)?,
            directory,
            files_are_memory,
            least_disk: engine::most_on_disk(0, 1, config.limits.output_size),
        })
    }

    /// The memory that a job with so many bytes of files may take.
    pub(super) fn memory_of(&self, disk: u64) -> u64 {
        let files = if self.files_are_memory { disk } else { 0 };
        self.job_memory.saturating_add(files)
    }

    /// How many of the smallest jobs there is memory for, and disk.
    fn fitting(&self) -> (u64, u64) {
        let memory = self.memory / self.memory_of(self.least_disk).max(1);
        let disk = self.disk.map_or(u64::MAX, |disk| disk / self.least_disk.max(1));
        (memory, disk)
    }

    /// Says at the start what there is, and warns when `CONVERT_CONCURRENCY` can never be used in full.
    pub(super) fn say(&self) {
        let (in_memory, on_disk) = self.fitting();
        let slots = u64::try_from(self.slots).unwrap_or(u64::MAX);
        let fitting = in_memory.min(on_disk);
        tracing::info!(
            slots = self.slots,
            memoryMiB = self.memory >> 20,
            heldMiB = self.held >> 20,
            jobMemoryMiB = self.memory_of(self.least_disk) >> 20,
            diskMiB = self.disk.map(|disk| disk >> 20),
            jobDiskMiB = self.least_disk >> 20,
            diskIsMemory = self.files_are_memory,
            "jobs at once: {} at most",
            slots.min(fitting.max(1))
        );
        if let Some(warning) = self.too_small() {
            tracing::warn!("{warning}");
        }
    }

    /// The warning that `CONVERT_CONCURRENCY` can never be used in full, where it cannot.
    pub(super) fn too_small(&self) -> Option<String> {
        let (in_memory, on_disk) = self.fitting();
        let slots = u64::try_from(self.slots).unwrap_or(u64::MAX);
        (in_memory.min(on_disk) < slots).then(|| self.warning(in_memory, on_disk))
    }

    fn warning(&self, in_memory: u64, on_disk: u64) -> String {
        let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
        let directory = self.directory.display();
        let (why, remedy) = if on_disk < in_memory {
            (
                format!(
                    "one job may take {} of {directory}, which has {} left",
                    mebibytes(self.least_disk),
                    mebibytes(self.disk.unwrap_or_default())
                ),
                "MAX_OUTPUT_SIZE or CONVERT_CONCURRENCY, or name a larger disk with TMPDIR",
            )
        } else if self.files_are_memory {
            (
                format!(
                    "one job may take {} of the {} of memory for jobs, {} of that for its files, because {directory} is memory",
                    mebibytes(self.memory_of(self.least_disk)),
                    mebibytes(self.memory),
                    mebibytes(self.least_disk)
                ),
                "CONVERT_MEMORY, MAX_OUTPUT_SIZE or CONVERT_CONCURRENCY, or give the worker more memory",
            )
        } else {
            (
                format!(
                    "one job may take {} of the {} of memory for jobs",
                    mebibytes(self.job_memory),
                    mebibytes(self.memory)
                ),
                "CONVERT_MEMORY or CONVERT_CONCURRENCY, or give the worker more memory",
            )
        };
        let fitting = match in_memory.min(on_disk) {
            0 => "not even one fits for certain; one at a time is taken all the same".to_owned(),
            fitting => format!("only {fitting} of them fit at once"),
        };
        format!(
            "CONVERT_CONCURRENCY allows {} jobs, but {fitting}: {why}. Lower {remedy}.",
            self.slots
        )
    }
}

/// What worker and engine keep for themselves at any time: while a zygote is replaced there are two, which share their
/// files.
fn held(footprint: &Footprint, files_are_memory: bool) -> u64 {
    let files = if files_are_memory { footprint.disk } else { 0 };
    [
        footprint.worker,
        footprint.zygote,
        footprint.zygote_own,
        GROWTH,
        files,
        BODIES,
        MARGIN,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget {
            slots: 4,
            memory: 4000 << 20,
            held: 700 << 20,
            job_memory: 1000 << 20,
            directory: "/tmp".into(),
            files_are_memory: false,
            disk: Some(8000 << 20),
            least_disk: 1500 << 20,
        }
    }

    #[test]
    fn what_fits_is_the_least_of_memory_and_disk() {
        assert_eq!(budget().fitting(), (4, 5));
        let in_memory = Budget {
            files_are_memory: true,
            ..budget()
        };
        assert_eq!(
            in_memory.fitting(),
            (1, 5),
            "files are memory, and the file system has its own bound"
        );
        assert_eq!(in_memory.memory_of(10), (1000 << 20) + 10);
        let uncounted = Budget { disk: None, ..budget() };
        assert_eq!(uncounted.fitting(), (4, u64::MAX));
    }

    #[test]
    fn the_warning_names_what_to_change() {
        let warning = |budget: &Budget| {
            let (in_memory, on_disk) = budget.fitting();
            budget.warning(in_memory, on_disk)
        };
        let memory = warning(&Budget {
            memory: 2500 << 20,
            ..budget()
        });
        assert!(
            memory.contains("only 2 of them fit") && memory.contains("1000 MiB of the 2500 MiB"),
            "{memory}"
        );
        assert!(
            memory.contains("Lower CONVERT_MEMORY or CONVERT_CONCURRENCY"),
            "{memory}"
        );
        let disk = warning(&Budget {
            disk: Some(3100 << 20),
            ..budget()
        });
        assert!(
            disk.contains("only 2 of them fit") && disk.contains("MAX_OUTPUT_SIZE") && disk.contains("TMPDIR"),
            "{disk}"
        );
        let both = warning(&Budget {
            memory: 2000 << 20,
            files_are_memory: true,
            ..budget()
        });
        assert!(
            both.contains("not even one fits") && both.contains("CONVERT_MEMORY, MAX_OUTPUT_SIZE"),
            "{both}"
        );
    }

    #[test]
    fn worker_and_engine_are_counted_out_with_a_second_zygote() {
        let footprint = Footprint {
            worker: 1,
            zygote: 20,
            zygote_own: 10,
            disk: 300,
        };
        assert_eq!(held(&footprint, false), 31 + GROWTH + BODIES + MARGIN);
        assert_eq!(held(&footprint, true), 331 + GROWTH + BODIES + MARGIN);
    }
}
