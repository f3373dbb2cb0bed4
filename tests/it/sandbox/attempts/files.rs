//! Ways to files outside of the job directory.

use std::path::PathBuf;

use super::{Attempt, Free, Scene, c, done, open};

pub(super) fn all(scene: &Scene) -> Vec<Attempt<'_>> {
    let (job, other, readable) = (scene.job(), scene.other(), scene.readable());
    let secret = other.join("secret");
    // SAFETY: getpid cannot fail. This process will be the parent of those that try.
    let parent = unsafe { libc::getpid() };
    let proc = |entry: &str| format!("/proc/{parent}/{entry}");
    let (landlock, seccomp) = (libc::EACCES, libc::EPERM);
    let (read, write, make) = (libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_CREAT);
    let (link, target) = (job.join("link"), secret.clone());
    let (hard, original) = (job.join("hard"), secret.clone());
    let (planted, stolen, back) = (job.join("planted-link"), job.join("stolen"), secret.clone());
    let fifo = job.join("fifo");
    let outside = c(&secret);
    let mut attempts = vec![
        Attempt::new(
            "plant a symbolic link and open through it",
            Free::Works,
            seccomp,
            move || {
                // SAFETY: two strings that end in zero.
                done(unsafe {
                    libc::syscall(
                        libc::SYS_symlinkat,
                        c(&target).as_ptr(),
                        libc::AT_FDCWD,
                        c(&link).as_ptr(),
                    )
                })?;
                open(&link, libc::O_RDONLY)
            },
        ),
        Attempt::new(
            "plant a hard link and open through it",
            Free::Works,
            seccomp,
            move || {
                let (from, to) = (c(&original), c(&hard));
                // SAFETY: two strings that end in zero.
                done(unsafe {
                    libc::syscall(
                        libc::SYS_linkat,
                        libc::AT_FDCWD,
                        from.as_ptr(),
                        libc::AT_FDCWD,
                        to.as_ptr(),
                        0,
                    )
                })?;
                open(&hard, libc::O_RDONLY)
            },
        ),
        Attempt::new(
            "move another job's file into its own directory",
            Free::Works,
            landlock,
            move || {
                // SAFETY: strings that end in zero.
                done(unsafe { libc::rename(c(&back).as_ptr(), c(&stolen).as_ptr()) }.into())?;
                // SAFETY: as above; for the attempts that follow.
                done(unsafe { libc::rename(c(&stolen).as_ptr(), c(&back).as_ptr()) }.into())
            },
        ),
        Attempt::new("make a file without a name", Free::Works, seccomp, {
            let job = job.clone();
            move || open(&job, libc::O_RDWR | libc::O_TMPFILE)
        }),
        Attempt::new("make a named pipe", Free::Works, seccomp, move || {
            // SAFETY: a string that ends in zero.
            done(unsafe {
                libc::syscall(
                    libc::SYS_mknodat,
                    libc::AT_FDCWD,
                    c(&fifo).as_ptr(),
                    libc::S_IFIFO | 0o600,
                    0,
                )
            })
        }),
        Attempt::new("give another job's file away", Free::Works, seccomp, move || {
            // SAFETY: a string that ends in zero; -1 changes nothing.
            done(unsafe { libc::syscall(libc::SYS_fchownat, libc::AT_FDCWD, outside.as_ptr(), -1, -1, 0) })
        }),
        Attempt::new("keep others from opening a file", Free::Depends, seccomp, {
            let path = c(&job.join("document"));
            move || {
                // SAFETY: a string that ends in zero, then numbers.
                done(
                    unsafe {
                        libc::fcntl(
                            libc::open(path.as_ptr(), libc::O_RDONLY),
                            libc::F_SETLEASE,
                            libc::F_RDLCK,
                        )
                    }
                    .into(),
                )
            }
        }),
        // Not every file system reads so: then it fails outside, too.
        Attempt::new(
            "have an open file read in whole blocks alone",
            Free::Depends,
            seccomp,
            {
                let path = c(&job.join("document"));
                move || {
                    // SAFETY: a string that ends in zero, then numbers.
                    done(
                        unsafe {
                            libc::fcntl(libc::open(path.as_ptr(), libc::O_RDONLY), libc::F_SETFL, libc::O_DIRECT)
                        }
                        .into(),
                    )
                }
            },
        ),
        Attempt::call("watch files", Free::Works, seccomp, libc::SYS_inotify_init1, [0; 4]),
        Attempt::new("cut another job's file", Free::Works, landlock, {
            let secret = c(&secret);
            // SAFETY: a string that ends in zero. Its length stays what it is.
            move || done(unsafe { libc::truncate(secret.as_ptr(), 6) }.into())
        }),
    ];
    let opened = [
        ("read /etc/passwd", Free::Works, "/etc/passwd".into(), read),
        ("read /etc/shadow", Free::WorksForRoot, "/etc/shadow".into(), read),
        ("list /", Free::Works, "/".into(), read),
        ("list the jobs", Free::Works, scene.root.clone(), read),
        (
            "make a file beside its directory",
            Free::Works,
            scene.root.join("planted"),
            make,
        ),
        ("read another job's file", Free::Works, secret.clone(), read),
        (
            "read another job's file by ..",
            Free::Works,
            job.join("../other/secret"),
            read,
        ),
        (
            "read another job's file by a link that was there before",
            Free::Works,
            planted,
            read,
        ),
        ("write another job's file", Free::Works, secret, write),
        (
            "make a file in another job's directory",
            Free::Works,
            other.join("planted"),
            make,
        ),
        ("write a readable file", Free::Works, readable.join("font"), write),
        (
            "make a file in a readable directory",
            Free::Works,
            readable.join("planted"),
            make,
        ),
        (
            "read the parent's environment",
            Free::Works,
            proc("environ").into(),
            read,
        ),
        ("read the parent's memory", Free::Depends, proc("mem").into(), read),
        ("list the parent's descriptors", Free::Works, proc("fd").into(), read),
        (
            "read its own environment in /proc",
            Free::Works,
            "/proc/self/environ".into(),
            read,
        ),
        ("list the processes", Free::Works, "/proc".into(), read),
        (
            "open a terminal",
            Free::Depends,
            "/dev/ptmx".into(),
            libc::O_RDWR | libc::O_NOCTTY,
        ),
    ];
    for (name, free, path, flags) in opened {
        let path: PathBuf = path;
        attempts.push(Attempt::new(name, free, landlock, move || open(&path, flags)));
    }
    attempts
}
