//! Ways to run a program or to get a world of its own.

use std::path::Path;

use super::{Attempt, Free, RAN, Scene, c, done};

pub(super) fn all(scene: &Scene) -> Vec<Attempt<'_>> {
    let (works, inside) = (Free::Works, libc::EPERM);
    let (root, job) = (c(Path::new("/")), c(&scene.job()));
    let arguments = [
        c(Path::new("sh")),
        c(Path::new("-c")),
        c(Path::new(&format!("exit {RAN}"))),
    ];
    let again = arguments.clone();
    vec![
        Attempt::new("run a program", works, inside, move || {
            let list = [
                arguments[0].as_ptr(),
                arguments[1].as_ptr(),
                arguments[2].as_ptr(),
                std::ptr::null(),
            ];
            // SAFETY: a path, and a list of strings that ends in null.
            done(unsafe {
                libc::syscall(
                    libc::SYS_execve,
                    c"/bin/sh".as_ptr(),
                    list.as_ptr(),
                    [std::ptr::null::<u8>()].as_ptr(),
                )
            })
        }),
        Attempt::new("run a program by execveat", works, inside, move || {
            let list = [
                again[0].as_ptr(),
                again[1].as_ptr(),
                again[2].as_ptr(),
                std::ptr::null(),
            ];
            let none = [std::ptr::null::<u8>()];
            // SAFETY: as above.
            done(unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    libc::AT_FDCWD,
                    c"/bin/sh".as_ptr(),
                    list.as_ptr(),
                    none.as_ptr(),
                    0,
                )
            })
        }),
        Attempt::new("make a file in memory to run", works, inside, || {
            // SAFETY: a string that ends in zero.
            done(unsafe { libc::syscall(libc::SYS_memfd_create, c"program".as_ptr(), 0) })
        }),
        Attempt::call(
            "make a user namespace",
            Free::Depends,
            inside,
            libc::SYS_unshare,
            [libc::CLONE_NEWUSER.into(), 0, 0, 0],
        ),
        Attempt::new("clone into a user namespace", Free::Depends, inside, || {
            let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
            // SAFETY: the new process leaves at once.
            match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
                // SAFETY: as above.
                0 => unsafe { libc::_exit(0) },
                pid => done(pid),
            }
        }),
        Attempt::new("change its root", Free::WorksForRoot, inside, move || {
            // SAFETY: a string that ends in zero.
            done(unsafe { libc::syscall(libc::SYS_chroot, root.as_ptr()) })
        }),
        Attempt::new("mount over its directory", Free::Depends, inside, move || {
            // Outside of the jail, nobody else may see the mount.
            // SAFETY: strings that end in zero, or null where the call allows it.
            unsafe {
                if libc::unshare(libc::CLONE_NEWNS) == 0 {
                    let flags = libc::MS_REC | libc::MS_PRIVATE;
                    done(
                        libc::mount(
                            std::ptr::null(),
                            c"/".as_ptr(),
                            std::ptr::null(),
                            flags,
                            std::ptr::null(),
                        )
                        .into(),
                    )?;
                }
                let tmpfs = c"tmpfs".as_ptr();
                done(libc::mount(tmpfs, job.as_ptr(), tmpfs, 0, std::ptr::null()).into())
            }
        }),
    ]
}
