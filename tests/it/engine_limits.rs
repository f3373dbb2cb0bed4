//! The engine when something goes wrong: limits, kills, crashes, and what is left behind (nothing).

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use platen::engine::{Engine, Exceeded, Limit, Limits, Verdict};

use crate::engine::{Bench, LIMITS, THREE_PAGES, job_directories, settings, text_of};

/// A sheet with one cell at each of its two far corners: 17 billion cells are looked at for what to print.
pub(crate) static NEVER_ENDS: &[u8] = br#"<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
  xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
  office:version="1.3" office:mimetype="application/vnd.oasis.opendocument.spreadsheet"><office:body><office:spreadsheet>
<table:table table:name="S"><table:table-row><table:table-cell office:value-type="string"><text:p>near</text:p>
</table:table-cell></table:table-row><table:table-row table:number-rows-repeated="1048574"/><table:table-row>
<table:table-cell table:number-columns-repeated="16383"/><table:table-cell office:value-type="string"><text:p>far</text:p>
</table:table-cell></table:table-row></table:table></office:spreadsheet></office:body></office:document>"#;

/// A sheet of 40 million cells in a few hundred bytes.
fn fills_memory() -> Vec<u8> {
    br#"<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
  xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
  office:version="1.3" office:mimetype="application/vnd.oasis.opendocument.spreadsheet"><office:body><office:spreadsheet>
<table:table table:name="S"><table:table-row table:number-rows-repeated="40000"><table:table-cell
  table:number-columns-repeated="1000" office:value-type="string"><text:p>cell</text:p></table:table-cell></table:table-row>
</table:table></office:spreadsheet></office:body></office:document>"#
        .to_vec()
}

/// A process of an engine: the zygote, or a child of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
}

/// The living processes whose zygote works somewhere in `work`.
pub(crate) fn processes(work: &Path) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let arguments: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        let ours = arguments
            .get(2)
            .is_some_and(|home| Path::new(std::str::from_utf8(home).unwrap()).starts_with(work));
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // pid (name) state parent ...
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        if ours && fields[0] != "Z" {
            found.push(Process {
                pid,
                parent: fields[1].parse().unwrap(),
            });
        }
    }
    found
}

/// Waits until `look` sees what it wants.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the last job directory is removed, which happens beside everything else.
pub(crate) async fn nothing_left(bench: &Bench) {
    until("the end of the job directories", || {
        bench.job_directories().is_empty().then_some(())
    })
    .await;
}

/// Waits for a child of a zygote in `work` that is not one of `before`, once it has begun to use the processor: then it
/// is inside the document.
async fn child(work: &Path, before: &[i32]) -> Process {
    // The conversion by which a zygote is tried is not the one that is looked for.
    let on_trial = || {
        job_directories(work)
            .iter()
            .any(|job| Path::new(job).join("writer.xml").exists())
    };
    until("a child that converts", || {
        if on_trial() {
            return None;
        }
        let all = processes(work);
        let is_child = |one: &&Process| all.iter().any(|other| other.pid == one.parent) && !before.contains(&one.pid);
        // Another child may wait for its job, and is not locked in yet.
        let converts = |child: &&Process| {
            std::fs::read_to_string(format!("/proc/{}/status", child.pid))
                .is_ok_and(|status| status.contains("Seccomp:\t2"))
                && processor_ticks(child.pid) >= TICKS_INSIDE
                && !on_trial()
        };
        all.iter().filter(is_child).find(converts).copied()
    })
    .await
}

/// More than the fork and the jail take (a few milliseconds), and nothing to a document that never ends: a child that has
/// used so much has said that it is confined, and is inside the document.
pub(crate) const TICKS_INSIDE: u64 = 5;

/// The processor time a process has used, in hundredths of a second.
pub(crate) fn processor_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name: state, parent, ... user and system time are the 12th and 13th.
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0)
}

/// Checks that a verdict names this limit, and that more was measured than it allows.
pub(crate) fn assert_over<T>(limit: Limit, allowed: u64, verdict: Result<T, Verdict>) {
    match verdict.err() {
        Some(Verdict::TooComplex(Exceeded {
            limit: found,
            allowed: stated,
            measured,
        })) => {
            assert_eq!((found, stated), (limit, allowed));
            assert!(measured > allowed, "{limit:?}: {measured} is not over {allowed}");
        }
        other => panic!("not over {limit:?}: {other:?}"),
    }
}

/// The zygote of `work`.
pub(crate) fn zygote(work: &Path) -> Option<Process> {
    let all = processes(work);
    all.iter()
        .find(|one| all.iter().all(|other| other.pid != one.parent))
        .copied()
}

fn end(process: Process, signal: Signal) {
    kill(Pid::from_raw(process.pid), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_zygote_takes_its_children_along_and_is_replaced() {
    let bench = Bench::start().await;
    let work = bench.work.path();
    let mut warm = bench.engine.warm();
    let (verdict, child) = tokio::join!(bench.convert_bytes("hog.fods", NEVER_ENDS, |_| {}), async {
        let child = child(work, &[]).await;
        end(zygote(work).unwrap(), Signal::SIGKILL);
        child
    });
    assert!(
        matches!(verdict, Err(Verdict::EngineUnavailable(_))),
        "{:?}",
        verdict.err()
    );
    assert!(!processes(work).contains(&child), "the child outlives its zygote");
    nothing_left(&bench).await;
    warm.wait_for(|warm| *warm).await.unwrap();
    bench
        .convert_bytes("next.fodt", THREE_PAGES, |_| {})
        .await
        .expect("the next job succeeds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_never_ends_is_killed_at_the_wall_limit() {
    let bench = Bench::start().await;
    let wall = Duration::from_millis(700);
    let hog = bench.convert_bytes("hog.fods", NEVER_ENDS, |conversion| conversion.limits.wall = wall);
    let (hog, small) = tokio::join!(hog, bench.convert_bytes("small.fodt", THREE_PAGES, |_| {}));
    assert_over(Limit::Time, 700, hog);
    small.expect("a job beside it succeeds");
    nothing_left(&bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversion_that_nobody_waits_for_ends() {
    let bench = Bench::start().await;
    let work = bench.work.path();
    let child = tokio::select! {
        ended = bench.convert_bytes("hog.fods", NEVER_ENDS, |_| {}) => panic!("it ended: {:?}", ended.err()),
        child = child(work, &[]) => child,
    };
    until("the end of the child", || {
        (!processes(work).contains(&child)).then_some(())
    })
    .await;
    nothing_left(&bench).await;
    bench
        .convert_bytes("next.fodt", THREE_PAGES, |_| {})
        .await
        .expect("the same zygote goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_tried_again_in_a_fresh_process_and_then_reported() {
    let bench = Bench::start().await;
    let work = bench.work.path();
    let (verdict, zygotes) = tokio::join!(bench.convert_bytes("hog.fods", NEVER_ENDS, |_| {}), async {
        let first = child(work, &[]).await;
        end(first, Signal::SIGSEGV);
        let second = child(work, &[first.pid]).await;
        end(second, Signal::SIGSEGV);
        (first.parent, second.parent)
    });
    assert_eq!(
        verdict.err(),
        Some(Verdict::Crashed {
            signal: Some(Signal::SIGSEGV as i32)
        })
    );
    assert_ne!(zygotes.0, zygotes.1, "the second attempt runs in a fresh zygote");
    nothing_left(&bench).await;
    bench
        .convert_bytes("next.fodt", THREE_PAGES, |_| {})
        .await
        .expect("the next job succeeds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_over_a_limit_is_too_complex() {
    let bench = Bench::start().await;
    let within = async |name: &str, content: &[u8], limits: Limits| {
        let converted = bench
            .convert_bytes(name, content, |conversion| conversion.limits = limits)
            .await;
        converted.map(|(_, converted)| converted.outputs[0].pages)
    };
    let two_pages = within("pages.fodt", THREE_PAGES, Limits { pages: 2, ..LIMITS }).await;
    assert_over(Limit::Pages, 2, two_pages);
    // It is cut where it may not go on, so what is measured is the limit itself.
    let small = Limits {
        output_size: 4096,
        ..LIMITS
    };
    let cut = Exceeded {
        limit: Limit::OutputSize,
        allowed: 4096,
        measured: 4096,
    };
    assert_eq!(
        within("size.fodt", THREE_PAGES, small).await,
        Err(Verdict::TooComplex(cut))
    );
    let little = 200 << 20;
    let memory = within(
        "cells.fods",
        &fills_memory(),
        Limits {
            memory: little,
            ..LIMITS
        },
    )
    .await;
    assert_over(Limit::Memory, little, memory);
    let quick = Limits {
        processor: Duration::from_millis(300),
        ..LIMITS
    };
    assert_over(Limit::ProcessorTime, 300, within("hog.fods", NEVER_ENDS, quick).await);
    nothing_left(&bench).await;
    assert_eq!(within("fits.fodt", THREE_PAGES, LIMITS).await, Ok(Some(3)));
}

/// The files of a compromised child: each is within its limit. Written from here, because the sandbox gives no child
/// that does it, and who writes makes no difference to who measures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_fills_the_disk_with_many_files_is_ended() {
    let bench = Bench::start().await;
    let limits = Limits {
        output_size: 1 << 20,
        ..LIMITS
    };
    let fill = async {
        let child = child(bench.work.path(), &[]).await;
        let job = std::path::PathBuf::from(&bench.job_directories()[0]);
        for number in 0..300 {
            // It is ended, and its directory removed, before the last one.
            let Ok(file) = std::fs::File::create(job.join(number.to_string())) else {
                break;
            };
            nix::fcntl::posix_fallocate(&file, 0, 1 << 20).unwrap();
        }
        child
    };
    let (verdict, child) = tokio::join!(
        bench.convert_bytes("hog.fods", NEVER_ENDS, |conversion| conversion.limits = limits),
        fill
    );
    // The document, twice the output, and what LibreOffice's temporary files may take.
    let room = (2 << 20) + (256 << 20) + u64::try_from(NEVER_ENDS.len()).unwrap();
    assert_over(Limit::DiskSize, room, verdict);
    nothing_left(&bench).await;
    assert!(!processes(bench.work.path()).contains(&child), "the child goes on");
    bench
        .convert_bytes("next.fodt", THREE_PAGES, |_| {})
        .await
        .expect("the same zygote goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_nests_directories_without_end_is_ended_and_its_tree_goes() {
    let bench = Bench::start().await;
    let nest = async {
        child(bench.work.path(), &[]).await;
        let mut parent: std::os::fd::OwnedFd = std::fs::File::open(&bench.job_directories()[0]).unwrap().into();
        for _ in 0..20_000 {
            use nix::fcntl::{OFlag, openat};
            use nix::sys::stat::{Mode, mkdirat};
            // It is ended, and its tree removed, while it makes it.
            if mkdirat(&parent, "d", Mode::S_IRWXU).is_err() {
                break;
            }
            let Ok(next) = openat(&parent, "d", OFlag::O_DIRECTORY, Mode::empty()) else {
                break;
            };
            parent = next;
        }
    };
    let (verdict, ()) = tokio::join!(bench.convert_bytes("hog.fods", NEVER_ENDS, |_| {}), nest);
    assert_over(Limit::DiskLevels, 16, verdict);
    nothing_left(&bench).await;
}

/// Unmounts when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// A small disk of its own, or `None` where this user may not mount one.
    fn of(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path())
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Root without the right to give files away cannot confine a child. The worker must not start and then fail every job.
#[test]
fn a_sandbox_that_cannot_be_entered_shows_at_the_start() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root has capabilities to lose");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let document = work.path().join("pages.fodt");
    std::fs::write(&document, THREE_PAGES).unwrap();
    for capability in ["chown", "setuid"] {
        let output = Command::new("setpriv")
            .arg(format!("--bounding-set=-{capability}"))
            .arg(format!("--inh-caps=-{capability}"))
            .arg(env!("CARGO_BIN_EXE_platen"))
            .arg("convert")
            .arg(&document)
            .arg("--out")
            .arg(work.path())
            .env("SANDBOX", "required")
            .env("TMPDIR", work.path())
            .output();
        let Ok(output) = output else {
            println!("skipped: setpriv is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{capability}: {said}");
        assert!(
            !said.contains("pages.fodt"),
            "without {capability} no job is begun: {said}"
        );
    }
}

#[test]
fn the_hidden_subcommand_says_what_it_is_to_a_person() {
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .arg(platen::engine::ZYGOTE_COMMAND)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("platen serve") && said.lines().count() == 1, "{said}");
}

/// Nothing is wrong with the document, so it must come again: an acknowledged failure would lose it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_not_the_documents_fault() {
    let Some(disk) = Disk::of("12m") else {
        println!("skipped: only root may mount a small disk");
        return;
    };
    let engine = Engine::start(settings(disk.0.path())).await.unwrap();
    let directory = engine.job_directory().unwrap();
    std::fs::write(directory.path().join("pages.fodt"), THREE_PAGES).unwrap();
    let zygote_before = zygote(disk.0.path());
    // What the engine's trial conversion leaves goes a moment after the start, and would give room again.
    until("the trial's directory is gone", || {
        (job_directories(disk.0.path()).len() == 1).then_some(())
    })
    .await;
    crate::waiting::settled(disk.0.path()).await;
    let filler = disk.0.path().join("filler");
    // As much as there is, but for what the job's own small files take.
    let room = nix::sys::statvfs::statvfs(disk.0.path()).unwrap();
    let free = room.blocks_available() * room.fragment_size();
    std::fs::write(&filler, vec![1; usize::try_from(free - 8192).unwrap()]).unwrap();
    let verdict = engine
        .convert(crate::engine::conversion(&directory, "pages.fodt"))
        .await;
    assert!(
        matches!(&verdict, Err(Verdict::EngineUnavailable(why)) if why.contains("TMPDIR")),
        "{verdict:?}"
    );
    assert_eq!(
        zygote(disk.0.path()),
        zygote_before,
        "the engine is not to blame either"
    );
    std::fs::remove_file(filler).unwrap();
    engine
        .convert(crate::engine::conversion(&directory, "pages.fodt"))
        .await
        .expect("with room again the same job succeeds");
    engine.stop().await;
}

/// A page with a picture of 8,000 by 8,000 pixels, all of one colour: 190 MB in memory, 24 kB in the file.
fn large_picture() -> Vec<u8> {
    use std::io::Write;

    use base64::Engine as _;
    const SIDE: u32 = 8000;
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..SIDE {
        packed.write_all(&vec![0; 1 + 3 * SIDE as usize]).unwrap();
    }
    let packed = packed.finish().unwrap();
    let header = [&SIDE.to_be_bytes()[..], &SIDE.to_be_bytes()[..], &[8, 2, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header), (b"IDAT", &packed), (b"IEND", &Vec::new())] {
        let mut checksum = flate2::Crc::new();
        checksum.update(kind);
        checksum.update(data);
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(kind);
        png.extend(data);
        png.extend(checksum.sum().to_be_bytes());
    }
    let png = base64::engine::general_purpose::STANDARD.encode(png);
    format!("<html><body><p>before</p><img width=300 height=300 src='data:image/png;base64,{png}'></body></html>")
        .into()
}

/// LibreOffice goes on without a picture that it has no memory for, and writes a PDF that lacks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_does_not_fit_in_memory_is_not_left_out_in_silence() {
    let bench = Bench::start().await;
    let picture = large_picture();
    let with = async |memory| {
        bench
            .convert_bytes("picture.html", &picture, |conversion| conversion.limits.memory = memory)
            .await
    };
    let (_kept, whole) = with(LIMITS.memory).await.unwrap();
    let pdf = std::fs::read(&whole.outputs[0].path).unwrap();
    assert!(
        pdf.windows(14).any(|bytes| bytes == b"/Subtype/Image"),
        "with memory enough the picture is there"
    );
    let little = 128 << 20;
    assert_over(Limit::Memory, little, with(little).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_side_by_side_do_not_meet() {
    let bench = Bench::start().await;
    let texts = (0..8).map(|number| {
        let bench = &bench;
        async move {
            let content = String::from_utf8(THREE_PAGES.to_vec())
                .unwrap()
                .replace("second", &format!("number {number}"));
            let (_kept, converted) = bench
                .convert_bytes("same name.fodt", content.as_bytes(), |_| {})
                .await
                .unwrap();
            (number, text_of(&converted.outputs[0].path))
        }
    });
    for (number, text) in futures_util::future::join_all(texts).await {
        assert!(
            text.contains(&format!("number {number} page")),
            "job {number} has the text of another: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_holds_nothing_of_the_worker() {
    let bench = Bench::start().await;
    let secret = std::fs::File::open("/etc/hostname").unwrap();
    // Not close-on-exec, as a careless library would open it.
    nix::fcntl::fcntl(&secret, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let leaky = Bench::start().await;
    for (bench, what) in [(&bench, "before"), (&leaky, "after")] {
        let work = bench.work.path();
        let (descriptors, environment) = tokio::select! {
            ended = bench.convert_bytes("hog.fods", NEVER_ENDS, |_| {}) => panic!("it ended: {:?}", ended.err()),
            seen = async {
                let child = child(work, &[]).await;
                let directory = format!("/proc/{}", child.pid);
                let descriptors: Option<Vec<String>> = std::fs::read_dir(format!("{directory}/fd")).ok().map(|all| {
                    all.flatten().filter_map(|one| Some(std::fs::read_link(one.path()).ok()?.display().to_string())).collect()
                });
                (descriptors, std::fs::read(format!("{directory}/environ")).unwrap_or_default())
            } => seen,
        };
        let Some(descriptors) = descriptors else {
            println!("skipped: only root may look into a child");
            return;
        };
        for descriptor in &descriptors {
            let own = matches!(descriptor.as_str(), "/dev/null" | "/dev/urandom")
                || descriptor == "anon_inode:[eventfd]"
                || descriptor.starts_with("pipe:")
                || descriptor.starts_with("/usr/")
                || Path::new(descriptor).starts_with(work);
            assert!(
                own,
                "started {what}: the child holds {descriptor} (all: {descriptors:?})"
            );
        }
        assert_eq!(
            descriptors.iter().filter(|one| one.starts_with("pipe:")).count(),
            2,
            "{descriptors:?}"
        );
        let environment = String::from_utf8_lossy(&environment);
        for variable in environment.split('\0').filter(|variable| !variable.is_empty()) {
            let name = variable.split('=').next().unwrap();
            let known = [
                "SAL_LOK_OPTIONS",
                "SAL_USE_VCLPLUGIN",
                "LC_ALL",
                "LD_PRELOAD",
                "TMPDIR",
                "HOME",
                "CONFIGURATION_LAYERS",
            ];
            assert!(known.contains(&name), "the child's environment has {name}");
        }
    }
    drop(secret);
}

/// Set for the process that [`a_killed_worker_leaves_nothing`] kills: where it works.
const WORKER: &str = "PLATEN_TEST_WORKER";

/// No test of its own: the worker that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_is_killed() {
    let Some(work) = std::env::var_os(WORKER) else { return };
    let engine = Engine::start(settings(Path::new(&work))).await.unwrap();
    let directory = engine.job_directory().unwrap();
    std::fs::write(directory.path().join("hog.fods"), NEVER_ENDS).unwrap();
    let mut conversion = crate::engine::conversion(&directory, "hog.fods");
    conversion.limits = LIMITS;
    let _ = engine.convert(conversion).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_leaves_nothing() {
    let work = tempfile::tempdir().unwrap();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "engine_limits::worker_that_is_killed"])
        .env(WORKER, work.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child(work.path(), &[]).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("the end of zygote and child", || {
        processes(work.path()).is_empty().then_some(())
    })
    .await;
    assert_eq!(job_directories(work.path()).len(), 1, "a killed worker cannot clean up");
    let next = Engine::start(settings(work.path())).await.unwrap();
    // Its own trial conversion's directory goes as well, a moment after.
    until("the next worker cleans up", || {
        job_directories(work.path()).is_empty().then_some(())
    })
    .await;
    next.stop().await;
    assert!(processes(work.path()).is_empty(), "a stopped engine has no process");
    drop(next);
}

/// A workbook of four sheets, which LibreOffice reads with a thread for each.
fn many_sheets() -> Vec<u8> {
    use std::fmt::Write as _;
    use std::io::Write as _;
    const SHEETS: u32 = 4;
    let mut rows = String::new();
    for row in 1..=6000 {
        write!(rows, "<row r='{row}'>").unwrap();
        for column in ['A', 'B', 'C', 'D', 'E', 'F'] {
            write!(rows, "<c r='{column}{row}'><v>{row}.5</v></c>").unwrap();
        }
        rows.push_str("</row>");
    }
    let sheet = format!(
        "<worksheet xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'><sheetData>{rows}</sheetData></worksheet>"
    );
    let each = |line: &dyn Fn(u32) -> String| (1..=SHEETS).map(line).collect::<String>();
    let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let kind = "application/vnd.openxmlformats-officedocument.spreadsheetml";
    let relation = |number: u32, what: &str, target: &str| {
        format!("<Relationship Id='rId{number}' Type='{office}/{what}' Target='{target}'/>")
    };
    let relations = |all: String| {
        format!(
            "<Relationships xmlns='http://schemas.openxmlformats.org/package/2006/relationships'>{all}</Relationships>"
        )
    };
    let mut parts = vec![
        (
            "[Content_Types].xml".to_owned(),
            format!(
                "<Types xmlns='http://schemas.openxmlformats.org/package/2006/content-types'><Default Extension='rels' \
                 ContentType='application/vnd.openxmlformats-package.relationships+xml'/><Override PartName='/xl/workbook.xml' \
                 ContentType='{kind}.sheet.main+xml'/>{}</Types>",
                each(&|number| format!(
                    "<Override PartName='/xl/worksheets/sheet{number}.xml' ContentType='{kind}.worksheet+xml'/>"
                ))
            ),
        ),
        (
            "_rels/.rels".to_owned(),
            relations(relation(1, "officeDocument", "xl/workbook.xml")),
        ),
        (
            "xl/workbook.xml".to_owned(),
            format!(
                "<workbook xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main' xmlns:r='{office}'><sheets>{}\
                 </sheets></workbook>",
                each(&|number| format!("<sheet name='S{number}' sheetId='{number}' r:id='rId{number}'/>"))
            ),
        ),
        (
            "xl/_rels/workbook.xml.rels".to_owned(),
            relations(each(&|number| {
                relation(number, "worksheet", &format!("worksheets/sheet{number}.xml"))
            })),
        ),
    ];
    parts.extend((1..=SHEETS).map(|number| (format!("xl/worksheets/sheet{number}.xml"), sheet.clone())));
    let mut package = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in parts {
        package
            .start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        package.write_all(content.as_bytes()).unwrap();
    }
    package.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_starts_more_threads_than_it_may_is_too_complex() {
    let bench = Bench::start().await;
    let sheets = many_sheets();
    let with = async |threads| {
        bench
            .convert_bytes("sheets.xlsx", &sheets, |conversion| conversion.limits.threads = threads)
            .await
    };
    assert_over(Limit::Threads, 1, with(1).await);
    with(Limits::MOST_THREADS).await.expect("a few threads are ordinary");
}
