//! What the kernel ends with a signal instead of an error number, and what goes on working.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sys::signal::Signal;

use super::attempts::{c, done, open, threads};
use super::process::{Outcome, Scene, attempt, play, users};

#[test]
fn what_cannot_be_refused_is_killed() {
    for user in users() {
        let ended: BTreeMap<String, (Outcome, Outcome)> = play(user, "ends");
        let killed = |name: &str, signal: Signal| {
            assert_eq!(
                ended[name].1,
                Outcome::Killed(signal as i32),
                "{name} inside, as {user:?}"
            );
        };
        killed("use more processor time than it may", Signal::SIGXCPU);
        killed("use more and ignore the signal", Signal::SIGKILL);
        killed("write more than it may", Signal::SIGXFSZ);
        // A crash must look like one: the engine's own abort reaches itself.
        killed("abort", Signal::SIGABRT);
        if cfg!(target_arch = "x86_64") {
            killed("make an x32 call", Signal::SIGSYS);
            killed("make a 32-bit call", Signal::SIGSYS);
            for call in ["make an x32 call", "make a 32-bit call"] {
                assert!(!matches!(ended[call].0, Outcome::Killed(signal) if signal == Signal::SIGSYS as i32));
            }
        }
        assert_eq!(ended["write more than it may"].0, Outcome::Succeeded);
    }
}

pub(super) fn ends(scene: &Scene) -> BTreeMap<&'static str, (Outcome, Outcome)> {
    let spin = || {
        loop {
            std::hint::spin_loop();
        }
    };
    let ignore_and_spin = || {
        // SAFETY: ignoring a signal sets no handler.
        unsafe { libc::signal(libc::SIGXCPU, libc::SIG_IGN) };
        spin()
    };
    let large = scene.job().join("large");
    let write = || std::fs::write(&large, vec![0; 2 << 20]).map_err(|error| error.raw_os_error().unwrap());
    let abort = || std::process::abort();
    let no_end = Outcome::Silent(0);
    let both = |what: &dyn Fn() -> Result<(), i32>| {
        // Inside first: a file that root has made outside would be refused for its owner.
        let jailed = attempt(scene, true, what);
        (attempt(scene, false, what), jailed)
    };
    let mut ended = BTreeMap::from([
        (
            "use more processor time than it may",
            (no_end.clone(), attempt(scene, true, spin)),
        ),
        (
            "use more and ignore the signal",
            (no_end, attempt(scene, true, ignore_and_spin)),
        ),
        ("write more than it may", both(&write)),
        ("abort", both(&abort)),
    ]);
    #[cfg(target_arch = "x86_64")]
    {
        let x32 = || {
            // SAFETY: getpid in the x32 table; it takes nothing.
            done(unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) })
        };
        let foreign = || {
            // getpid of the 32-bit table.
            let mut answer = 20_i64;
            // SAFETY: the old entry takes its number from rax, answers there, and changes nothing else but r8 to r11.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            done(answer)
        };
        ended.insert("make an x32 call", both(&x32));
        ended.insert("make a 32-bit call", both(&foreign));
    }
    ended
}

#[test]
fn a_conversion_still_has_what_it_needs() {
    for user in users() {
        let worked: BTreeMap<String, Outcome> = play(user, "work");
        let failed: Vec<_> = worked
            .iter()
            .filter(|(_, outcome)| **outcome != Outcome::Succeeded)
            .collect();
        assert!(failed.is_empty() && worked.len() > 5, "as {user:?}: {failed:?}");
    }
}

pub(super) fn work(scene: &Scene) -> BTreeMap<&'static str, Outcome> {
    let (job, readable) = (scene.job(), scene.readable());
    let said = |error: std::io::Error| error.raw_os_error().unwrap_or(-1);
    let mut worked = BTreeMap::new();
    let mut works = |name, what: &dyn Fn() -> Result<(), i32>| worked.insert(name, attempt(scene, true, what));
    works("read a readable file", &|| {
        std::fs::read(readable.join("font")).map(drop).map_err(said)
    });
    works("list a readable directory", &|| {
        std::fs::read_dir(&readable).map(drop).map_err(said)
    });
    works("read random bytes", &|| open(Path::new("/dev/urandom"), libc::O_RDONLY));
    works("read its document", &|| {
        std::fs::read(job.join("document")).map(drop).map_err(said)
    });
    works("write, move and remove in its directory", &|| {
        std::fs::create_dir(job.join("tmp")).map_err(said)?;
        std::fs::write(job.join("tmp/draft"), "text").map_err(said)?;
        std::fs::rename(job.join("tmp/draft"), job.join("output")).map_err(said)?;
        std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(job.join("output"))
            .map_err(said)?;
        std::fs::remove_file(job.join("output")).map_err(said)?;
        std::fs::remove_dir(job.join("tmp")).map_err(said)
    });
    works("start and join a thread", &|| {
        std::thread::spawn(|| ()).join().map_err(|_| -1)
    });
    works("start a few threads", &|| threads(4));
    works("use 16 MiB", &|| {
        std::hint::black_box(vec![1_u8; 16 << 20]);
        Ok(())
    });
    works("end by exit", &|| {
        let path = c(&job);
        // SAFETY: a string that ends in zero.
        done(unsafe { libc::access(path.as_ptr(), libc::R_OK) }.into())
    });
    worked
}

#[test]
fn a_change_of_permissions_answers_success_and_changes_nothing() {
    for user in users() {
        let ((free, before), (jailed, after)): ((Outcome, u32), (Outcome, u32)) = play(user, "permissions");
        assert_eq!((free, before), (Outcome::Succeeded, 0o700), "outside as {user:?}");
        assert_eq!((jailed, after), (Outcome::Succeeded, 0o777), "inside as {user:?}");
    }
}

/// Tries to shut everybody out of another job's directory, which landlock does not prevent, and out of a readable one.
/// LibreOffice makes the call for its output and must not fail by it.
pub(super) fn permissions(scene: &Scene) -> ((Outcome, u32), (Outcome, u32)) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (other, readable) = (c(&scene.other()), scene.readable());
    let change = || {
        // SAFETY: a string that ends in zero.
        done(unsafe { libc::chmod(other.as_ptr(), 0o700) }.into())?;
        // SAFETY: as above.
        done(unsafe { libc::fchmodat(libc::AT_FDCWD, other.as_ptr(), 0o700, 0) }.into())?;
        let opened = std::fs::File::open(&readable).map_err(|error| error.raw_os_error().unwrap_or(-1))?;
        // SAFETY: an open descriptor.
        done(unsafe { libc::fchmod(opened.as_raw_fd(), 0o755) }.into())
    };
    let jailed = attempt(scene, true, change);
    assert_eq!(mode(&readable), 0o777);
    let after = mode(&scene.other());
    let free = attempt(scene, false, change);
    ((free, mode(&scene.other())), (jailed, after))
}
