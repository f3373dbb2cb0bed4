//! Ways to use more than allowed, or what was left open.

use std::os::fd::AsRawFd as _;

use libc::c_long;

use super::{Attempt, Free, Scene, Targets, done, errno, raw};

pub(super) fn all<'a>(scene: &'a Scene, targets: &'a Targets) -> Vec<Attempt<'a>> {
    let works = Free::Works;
    let large = scene.job().join("large");
    vec![
        Attempt::new("map more memory than it may", works, libc::ENOMEM, || {
            let (protection, flags) = (
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            );
            // SAFETY: a new mapping at an address of the kernel's choice.
            match unsafe { libc::mmap(std::ptr::null_mut(), 4 << 30, protection, flags, -1, 0) } {
                libc::MAP_FAILED => Err(errno()),
                _ => Ok(()),
            }
        }),
        Attempt::new("write more into a file than it may", works, libc::EFBIG, move || {
            use std::os::unix::fs::FileExt as _;
            // SAFETY: ignoring a signal sets no handler. By default it ends the process.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            raw(std::fs::File::create(&large).and_then(|file| file.write_at(b"x", 2 << 20)))
        }),
        Attempt::new("open more descriptors than it may", works, libc::EMFILE, || {
            // SAFETY: dup takes and returns numbers; the process ends soon.
            (0..100).try_for_each(|_| done(unsafe { libc::dup(0) }.into()))
        }),
        Attempt::new("read a file that the parent had open", works, libc::EBADF, || {
            let mut byte = 0_u8;
            // SAFETY: one byte to write to.
            done(unsafe { libc::pread(targets.inherited.as_raw_fd(), (&raw mut byte).cast(), 1, 0) } as c_long)
        }),
    ]
}
