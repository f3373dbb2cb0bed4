//! What a child takes while it runs: memory of its own, processor time, threads, and files that have no name any more.
//!
//! The kernel's own limits stand behind these. They cannot say what this says: `RLIMIT_AS` counts addresses, not memory,
//! and an allocation that it refuses is not always noticed; `RLIMIT_CPU` counts whole seconds; `RLIMIT_NPROC` counts
//! users. Looking costs some microseconds, and what happens between two looks is missed: a child that fills its memory as
//! fast as it can is some tens of MiB over its limit when it is killed.
//!
//! `statm` and `stat` may be read of every process (proc_pid_statm(5), proc_pid_stat(5)), which matters here: a child
//! has another user and is not dumpable, so `smaps_rollup`, which knows the pages that are really its own, is root's
//! with CAP_SYS_PTRACE alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::conversion::{Exceeded, Limit};
use super::memory;

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at open files, each of which takes a system call.
const LOOK_AT_FILES: Duration = Duration::from_millis(250);
/// Longer than any `statm` or `stat`: some fifty numbers.
const LINE: usize = 2048;

/// How much a child may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// Bytes of memory of its own.
    pub(super) memory: u64,
    /// Milliseconds of processor time.
    pub(super) processor_ms: u64,
    /// Threads at once.
    pub(super) threads: u64,
    /// Bytes of files without a name.
    pub(super) nameless_files: u64,
}

/// Looks at one child, for as long as it is not reaped and longer: the files are of this process for good, whoever gets
/// its number.
#[derive(Debug)]
pub(super) struct Watch {
    statm: File,
    stat: File,
    descriptors: String,
    /// The memory of its own and the processor time that the child had when its watch began.
    inherited: Inherited,
    allowed: Allowed,
    most_memory: u64,
    files_looked_at: Instant,
}

impl Watch {
    /// Begins to watch a child of which nothing was reaped. What it has taken until now counts as its parent's.
    ///
    /// # Errors
    /// Its entry in /proc cannot be read: it is gone, or /proc is not mounted, or hides processes (`hidepid`).
    pub(super) fn begin(child: Pid, allowed: Allowed) -> io::Result<Self> {
        let statm = File::open(format!("/proc/{child}/statm"))?;
        let stat = File::open(format!("/proc/{child}/stat"))?;
        let inherited = Inherited {
            memory: anonymous(&statm)?,
            processor_ms: used(&stat)?.processor_ms,
        };
        Ok(Self {
            statm,
            stat,
            descriptors: format!("/proc/{child}/fd"),
            inherited,
            allowed,
            most_memory: 0,
            files_looked_at: Instant::now(),
        })
    }

    /// The first limit that the child is over now, if there is one.
    pub(super) fn look(&mut self) -> Option<Exceeded> {
        let memory = anonymous(&self.statm)
            .unwrap_or(0)
            .saturating_sub(self.inherited.memory);
        self.most_memory = self.most_memory.max(memory);
        let Used { processor_ms, threads } = used(&self.stat).unwrap_or_default();
        let processor_ms = processor_ms.saturating_sub(self.inherited.processor_ms);
        let allowed = &self.allowed;
        let mut measured = vec![
            (Limit::Memory, allowed.memory, memory),
            (Limit::ProcessorTime, allowed.processor_ms, processor_ms),
            (Limit::Threads, allowed.threads, threads),
        ];
        if self.files_looked_at.elapsed() >= LOOK_AT_FILES {
            self.files_looked_at = Instant::now();
            measured.push((
                Limit::DiskSize,
                self.allowed.nameless_files,
                nameless_files(&self.descriptors),
            ));
        }
        measured
            .into_iter()
            .map(|(limit, allowed, measured)| Exceeded {
                limit,
                allowed,
                measured,
            })
            .find(|exceeded| exceeded.measured > exceeded.allowed)
    }

    /// The most memory of its own that was seen, in bytes.
    pub(super) fn most_memory(&self) -> u64 {
        self.most_memory
    }
}

/// What a child has when it gets its job: the pages that it shares with its parent, and what it has made of them while it
/// waited. What it has beyond that is its document's.
///
/// Pages that are shared until they are written are not told from their copies: a child may hold as many bytes more as
/// its parent has.
#[derive(Debug)]
struct Inherited {
    memory: u64,
    processor_ms: u64,
}

/// Resident pages that are of no file and of no shared memory, in bytes.
fn anonymous(statm: &File) -> io::Result<u64> {
    memory::own_of(&line(statm)?)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Used {
    processor_ms: u64,
    threads: u64,
}

fn used(stat: &File) -> io::Result<Used> {
    of_stat(&line(stat)?, configured(SysconfVar::CLK_TCK, 100)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name in its parentheses may hold anything, also a parenthesis.
fn of_stat(line: &str, ticks_a_second: u64) -> Option<Used> {
    let (_, fields) = line.rsplit_once(')')?;
    // The 3rd field is the state; the 14th and 15th are user and system time in ticks, the 20th is the number of threads.
    let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)?.saturating_add(field(15)?);
    Some(Used {
        processor_ms: ticks.saturating_mul(1000) / ticks_a_second.max(1),
        threads: field(20)?,
    })
}

/// Bytes of the regular files that a process has open and that have no name: nobody else can measure them. 0 where this
/// process may not look.
fn nameless_files(descriptors: &str) -> u64 {
    let Ok(entries) = fs::read_dir(descriptors) else {
        return 0;
    };
    let mut seen = Vec::new();
    let mut bytes: u64 = 0;
    for file in entries.flatten().filter_map(|entry| fs::metadata(entry.path()).ok()) {
        let identity = (file.dev(), file.ino());
        if file.is_file() && file.nlink() == 0 && !seen.contains(&identity) {
            seen.push(identity);
            bytes = bytes.saturating_add(file.blocks().saturating_mul(512));
        }
    }
    bytes
}

fn line(file: &File) -> io::Result<String> {
    let mut buffer = [0; LINE];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn configured(variable: SysconfVar, usual: u64) -> u64 {
    let value = sysconf(variable).ok().flatten();
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const PLENTY: Allowed = Allowed {
        memory: 1 << 40,
        processor_ms: 1 << 40,
        threads: 1 << 20,
        nameless_files: 1 << 40,
    };

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn watch(command: &mut Command, allowed: Allowed) -> (Running, Watch) {
        let child = Running(command.spawn().unwrap());
        let pid = Pid::from_raw(child.0.id().try_into().unwrap());
        let mut watch = Watch::begin(pid, allowed).unwrap();
        watch.files_looked_at -= LOOK_AT_FILES;
        (child, watch)
    }

    fn until_over(watch: &mut Watch) -> Exceeded {
        let began = Instant::now();
        loop {
            if let Some(exceeded) = watch.look() {
                return exceeded;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "never over a limit");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_file_without_a_name_is_counted_once() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let mut sleeper = Command::new("sleep");
        // Twice the same file, and one that has a name.
        sleeper.arg("600").stdin(file.try_clone().unwrap()).stdout(file);
        sleeper.stderr(File::open("/proc/self/exe").unwrap());
        let (_child, mut watch) = watch(
            &mut sleeper,
            Allowed {
                nameless_files: 1 << 19,
                ..PLENTY
            },
        );
        let exceeded = until_over(&mut watch);
        assert_eq!((exceeded.limit, exceeded.allowed), (Limit::DiskSize, 1 << 19));
        assert!((1 << 20..3 << 19).contains(&exceeded.measured), "{exceeded:?}");
    }

    #[test]
    fn processor_time_is_measured() {
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]).stdout(Stdio::null());
        let (_child, mut watch) = watch(
            &mut busy,
            Allowed {
                processor_ms: 100,
                ..PLENTY
            },
        );
        let exceeded = until_over(&mut watch);
        assert_eq!(exceeded.limit, Limit::ProcessorTime);
        assert!(exceeded.measured > 100, "{exceeded:?}");
    }

    #[test]
    fn only_what_is_taken_after_the_watch_began_counts() {
        let text = |bytes: u64| format!("$(head -c {bytes} /dev/zero | tr '\\0' x)");
        let script = format!("a={}; echo; read go; b={}; read end", text(48 << 20), text(160 << 20));
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Running(shell.spawn().unwrap());
        let waits = BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut String::new());
        assert_eq!(waits.unwrap(), 1);
        let pid = Pid::from_raw(child.0.id().try_into().unwrap());
        let allowed = Allowed {
            memory: 32 << 20,
            ..PLENTY
        };
        let mut watch = Watch::begin(pid, allowed).unwrap();
        let before = watch.inherited.processor_ms;
        assert!(watch.inherited.memory >= 48 << 20 && before > 0, "{watch:?}");
        watch.allowed.processor_ms = before - 1;
        assert_eq!(watch.look(), None);
        watch.allowed.processor_ms = PLENTY.processor_ms;
        writeln!(child.0.stdin.as_ref().unwrap()).unwrap();
        let exceeded = until_over(&mut watch);
        assert_eq!((exceeded.limit, exceeded.allowed), (Limit::Memory, 32 << 20));
        assert_eq!(watch.most_memory(), exceeded.measured);
    }

    #[test]
    fn a_name_cannot_forge_the_numbers() {
        let line = "7 (x) R 9 9 9 (y) S 1 2 3 4 5 6 7 8 9 10 30 20 0 0 20 0 5 0 100";
        let seen = Used {
            processor_ms: 500,
            threads: 5,
        };
        assert_eq!(of_stat(line, 100), Some(seen));
        assert_eq!(of_stat("7 (x) R 1 2", 100), None);
    }
}
