//! Ends a program with the one that started it, however that ends.
#![expect(unsafe_code, reason = "the compiler cannot check what runs between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// Has the kernel send SIGTERM to the program when the thread that starts it ends. Start it from a thread that lives as
/// long as the process.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure runs in the child after fork: it makes one system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
    }
}
