//! The child holds no descriptor but those it was left.
#![expect(
    unsafe_code,
    reason = "close_range and dup2 onto a fixed number have no safe wrapper"
)]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Descriptors 0, 1 and 2.
const STANDARD: std::ops::RangeInclusive<RawFd> = 0..=2;

/// Closes every descriptor of the process that is not in `keep`.
///
/// A standard descriptor that is not kept becomes `/dev/null`, so that no later `open` takes its number and receives
/// what some library prints.
///
/// # Errors
/// `/dev/null` does not open, or the kernel has no `close_range` (Linux 5.9).
pub(super) fn keep_only(keep: &[RawFd]) -> io::Result<()> {
    if STANDARD.into_iter().any(|standard| !keep.contains(&standard)) {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        for standard in STANDARD.filter(|standard| !keep.contains(standard)) {
            // `open` may have been given this very number; a dup2 onto itself is right too.
            // SAFETY: dup2 takes two numbers; the one replaced is a standard descriptor that nobody was left.
            if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if STANDARD.contains(&null.as_raw_fd()) {
            std::mem::forget(null);
        }
    }

    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|&kept| u32::try_from(kept).ok())
        .filter(|&fd| fd > 2)
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

/// Closes all descriptors from `first` to `last`, both included.
fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: close_range takes three numbers. Owners of the descriptors that it closes exist only in the forked copy
    // of the parent's memory, and the child uses none of them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
