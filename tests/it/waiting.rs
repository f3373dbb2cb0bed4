//! The child that waits for the next job: it has nothing of the jobs before, and it can be lost.
#![expect(unsafe_code, reason = "a search through 200 MB is the C library's")]

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use platen::engine::Password;

use crate::engine::Bench;
use crate::engine_limits::{Process, processes, until, zygote};

const ONE_PAGE: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" office:version="1.3"
 office:mimetype="application/vnd.oasis.opendocument.text"><office:body><office:text><text:p>text</text:p></office:text></office:body></office:document>"#;

const WITNESS: &str = "c\0o\0m\0.\0s\0u\0n\0.\0s\0t\0a\0r\0";

/// The child of the zygote of `work` that has no job: it is not locked in.
fn waits(work: &Path) -> Option<Process> {
    let zygote = zygote(work)?;
    processes(work).into_iter().find(|child| {
        child.parent == zygote.pid
            && std::fs::read_to_string(format!("/proc/{}/status", child.pid))
                .is_ok_and(|status| status.contains("Seccomp:\t0"))
            && sleeps(child.pid)
    })
}

/// Waits until the zygote has learned what it learns after its first job, which writes files and forks: then it has one
/// child, which waits, and nothing changes any more.
pub(crate) async fn settled(work: &Path) {
    const LOOKS: u32 = 20;
    let mut same = (None, 0);
    until("a zygote with nothing to do", || {
        let waiting = waits(work).filter(|child| processes(work).len() == 2 && sleeps(child.parent));
        same = match waiting {
            Some(child) if same.0 == Some(child.pid) => (same.0, same.1 + 1),
            other => (other.map(|child| child.pid), 0),
        };
        (same.1 >= LOOKS).then_some(())
    })
    .await;
}

/// Whether it waits in the kernel, and not for a processor.
fn sleeps(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|after| after.starts_with(" S")))
}

/// The C library's search: ours would take a minute for a zygote in a debug build.
fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    // SAFETY: two slices with their lengths; what is found lies in the first.
    let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), word.as_ptr().cast(), word.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

/// Which of `wanted` the process has in the memory that it may write, or `None` where nobody may look.
fn found_in(pid: i32, wanted: &[&str]) -> Option<Vec<String>> {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mappings = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut found = Vec::new();
    for line in mappings.lines().filter(|line| line.contains(" rw-p ")) {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut bytes = Vec::new();
        memory.seek(SeekFrom::Start(start)).ok()?;
        if (&memory).take(end - start).read_to_end(&mut bytes).is_err() {
            continue;
        }
        for word in wanted {
            let mut at = 0;
            while let Some(there) = find(&bytes[at..], word.as_bytes()) {
                at += there;
                let around = &bytes[at.saturating_sub(60)..(at + word.len() + 60).min(bytes.len())];
                found.push(format!("{word:?} in {line}: {:?}", String::from_utf8_lossy(around)));
                at += word.len();
            }
        }
    }
    Some(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_waits_has_nothing_of_the_jobs_before() {
    let bench = Bench::start().await;
    // A quotation mark or a line feed is written with a backslash on its way.
    let passwords = ["canary-plain-w8", "canary-\"quoted\"-w8", "canary-\u{1}control-w8"];
    for password in passwords {
        let converted = bench
            .convert_bytes("canary-name-w8.fodt", ONE_PAGE, |conversion| {
                conversion.password = Some(Password::new(password));
            })
            .await;
        converted.unwrap();
    }
    let child = until("a child that waits", || waits(bench.work.path())).await;
    for (pid, what) in [(child.parent, "the zygote"), (child.pid, "the child that waits")] {
        // A name of LibreOffice's, in UTF-16, shows that the memory is seen.
        let Some(seen) = found_in(pid, &[WITNESS, "canary-"]) else {
            println!("skipped: only root may look into a child");
            return;
        };
        let witness = format!("{WITNESS:?}");
        assert!(seen.iter().any(|one| one.starts_with(&witness)), "{what} was not read");
        let left: Vec<_> = seen.iter().filter(|one| one.starts_with("\"canary")).collect();
        assert!(left.is_empty(), "{what} still has {left:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_lost_while_it_waits_costs_no_job() {
    let bench = Bench::start().await;
    for _ in 0..3 {
        let child = until("a child that waits", || waits(bench.work.path())).await;
        kill(Pid::from_raw(child.pid), Signal::SIGKILL).unwrap();
        bench.convert_bytes("a.fodt", ONE_PAGE, |_| {}).await.unwrap();
        assert_eq!(
            zygote(bench.work.path()).map(|zygote| zygote.pid),
            Some(child.parent),
            "the zygote was replaced"
        );
    }
    until("another one that waits", || waits(bench.work.path())).await;
    bench.engine.stop().await;
    assert_eq!(processes(bench.work.path()), []);
}
