//! The second wall for files, where landlock is missing: a root directory of the child's own, in user and mount namespaces
//! that need no privilege. It holds what the plan names, mounted at the same paths, and nothing else of the machine.
//!
//! What may be read is mounted read-only with all that is mounted below it; the writable directory without programs,
//! devices or set-user bits. The old root is detached, so that no path leads to it. `/proc/self/cwd` is a link to the
//! writable directory, and there is no `/proc` behind it. As long as the process has capabilities in its user namespace
//! it could undo this: they are dropped right after, and the filter denies every call that would need one.
#![expect(unsafe_code, reason = "mounts, pivot_root and namespaces have no safe wrapper here")]

use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getegid, geteuid};

/// Where the new root is put together: a directory that every machine has and no plan names.
const ASSEMBLY: &str = "/proc";

/// What the child's own root holds.
#[derive(Debug, Clone)]
pub(super) struct PrivateRoot {
    readable: Vec<PathBuf>,
    writable: PathBuf,
}

/// Whether a process of this user may have a root directory of its own. Tried once, by a process that does all that
/// [`PrivateRoot::enter`] needs the kernel for: some give out the namespaces and then refuse what is done in them
/// (AppArmor's restriction of user namespaces), or know them without `mount_setattr` (gVisor, Linux before 5.12).
pub(super) fn available() -> Result<(), String> {
    static TRIED: OnceLock<Result<(), String>> = OnceLock::new();
    TRIED.get_or_init(try_out).clone()
}

fn try_out() -> Result<(), String> {
    let refused = |what: &str, error: &dyn std::fmt::Display| {
        format!(
            "a private root (user and mount namespaces, in the place of landlock) is refused here ({what}: {error}): \
            are unprivileged user namespaces switched off or restricted (user.max_user_namespaces, \
            kernel.apparmor_restrict_unprivileged_userns), does the container runtime filter them, or is this not \
            Linux 5.12?"
        )
    };
    // SAFETY: the child makes system calls on constants and leaves by _exit: nothing that a thread of the parent could
    // have locked, and no allocation.
    match unsafe { fork() }.map_err(|error| refused("fork", &error))? {
        ForkResult::Child => {
            let failed = first_refused();
            // SAFETY: runs no code of this process.
            unsafe { libc::_exit(failed) }
        }
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, step)) => {
                let step = usize::try_from(step).unwrap_or(0).checked_sub(1);
                let what = step.and_then(|step| STEPS.get(step)).unwrap_or(&"it");
                Err(refused(what, &"not permitted, or unknown to this kernel"))
            }
            other => Err(refused("the trial", &format!("{other:?}"))),
        },
    }
}

/// What [`first_refused`] asks for, in its order.
const STEPS: [&str; 4] = ["unshare", "making mounts private", "mounting a tmpfs", "mount_setattr"];

/// Takes the steps until one is refused, and returns its number, from 1; 0 when none is. Makes system calls only.
fn first_refused() -> libc::c_int {
    let root = c"/".as_ptr();
    let place = c"/proc".as_ptr();
    let none = std::ptr::null();
    let set = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let namespaces =
        libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: flags, strings that end in zero or null where the kernel takes none, and a structure of the length that is
    // stated.
    unsafe {
        if libc::unshare(namespaces) < 0 {
            return 1;
        }
        if libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) < 0 {
            return 2;
        }
        if libc::mount(
            c"tmpfs".as_ptr(),
            place,
            c"tmpfs".as_ptr(),
            libc::MS_NOSUID,
            none.cast(),
        ) < 0
        {
            return 3;
        }
        let size = size_of::<libc::mount_attr>();
        if libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, place, 0, &raw const set, size) < 0 {
            return 4;
        }
    }
    0
}

impl PrivateRoot {
    /// Only absolute paths can be mounted at the same place.
    pub(super) fn prepare(readable: &[PathBuf], writable: &Path) -> io::Result<Self> {
        // Parents first: what is in a mounted directory is there with it.
        let mut readable: Vec<PathBuf> = readable.iter().filter(|path| path.exists()).cloned().collect();
        readable.sort();
        readable.dedup_by(|path, parent| path.starts_with(parent));
        if !writable.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        match readable.iter().find(|path| !path.is_absolute()) {
            Some(path) => Err(io::Error::other(format!("{} is not an absolute path", path.display()))),
            None => Ok(Self {
                readable,
                writable: writable.to_owned(),
            }),
        }
    }

    /// Moves the calling process, which has one thread, into its own root; its working directory is then the writable
    /// one. It has every capability in its new user namespace: drop them.
    pub(super) fn enter(&self) -> io::Result<()> {
        let (user, group) = (geteuid(), getegid());
        unshare(
            CloneFlags::CLONE_NEWUSER
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS,
        )?;
        // The maps of a process that is not dumpable belong to root.
        set_dumpable(true)?;
        let mapped = fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("{user} {user} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("{group} {group} 1")));
        set_dumpable(false)?;
        mapped?;

        // Nothing of what follows may reach the namespace that this one is a copy of.
        mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, None)?;
        let links = links_of_the_root()?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let options = c"size=256k,nr_inodes=1024,mode=0755";
        mount(
            Some(Path::new("tmpfs")),
            Path::new(ASSEMBLY),
            Some(c"tmpfs"),
            flags,
            Some(options),
        )?;
        let mut skeleton = Skeleton::default();
        for (name, target) in links {
            symlink(target, Path::new(ASSEMBLY).join(name))?;
        }
        for path in &self.readable {
            let file = fs::metadata(path)?;
            let place = skeleton.place(path, file.is_dir())?;
            mount(Some(path), &place, None, libc::MS_BIND | libc::MS_REC, None)?;
            let device = file.file_type().is_char_device();
            let devices = if device { 0 } else { libc::MOUNT_ATTR_NODEV };
            restrict(&place, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | devices)?;
        }
        let place = skeleton.place(&self.writable, true)?;
        mount(Some(&self.writable), &place, None, libc::MS_BIND | libc::MS_REC, None)?;
        restrict(
            &place,
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        )?;
        let working = skeleton.place(Path::new("/proc/self"), true)?;
        symlink(&self.writable, working.join("cwd"))?;
        skeleton.close()?;

        // The old root comes to lie on top of the new one, and is taken off.
        std::env::set_current_dir(ASSEMBLY)?;
        // SAFETY: two strings that end in zero.
        check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
        // SAFETY: a string that ends in zero.
        check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
        std::env::set_current_dir("/")?;
        set_attributes(Path::new("/"), libc::MOUNT_ATTR_RDONLY, 0)?;
        std::env::set_current_dir(&self.writable)
    }
}

/// The directories that were made to mount things in, none of which anybody need list.
#[derive(Default)]
struct Skeleton(Vec<PathBuf>);

impl Skeleton {
    /// Makes an empty directory or file for `path` under the new root.
    fn place(&mut self, path: &Path, directory: bool) -> io::Result<PathBuf> {
        let mut place = PathBuf::from(ASSEMBLY);
        let names: Vec<_> = path.components().skip(1).collect();
        for (number, name) in names.iter().enumerate() {
            place.push(name);
            let last = number + 1 == names.len();
            if place.symlink_metadata().is_ok() {
                continue;
            }
            if last && !directory {
                fs::write(&place, "")?;
            } else {
                fs::create_dir(&place)?;
                if !last {
                    self.0.push(place.clone());
                }
            }
        }
        Ok(place)
    }

    /// Takes the right to list them, deepest first. What was mounted has its own rights.
    fn close(self) -> io::Result<()> {
        for directory in self.0.iter().rev().map(PathBuf::as_path).chain([Path::new(ASSEMBLY)]) {
            fs::set_permissions(directory, Permissions::from_mode(0o111))?;
        }
        Ok(())
    }
}

/// The links in the root directory, such as `/lib` to `usr/lib`, by which libraries are found.
fn links_of_the_root() -> io::Result<Vec<(std::ffi::OsString, PathBuf)>> {
    let mut links = Vec::new();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            links.push((entry.file_name(), fs::read_link(entry.path())?));
        }
    }
    Ok(links)
}

fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(dumpable), 0, 0, 0) }.into())
}

fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let source = source.map(zero_terminated).transpose()?;
    let target = zero_terminated(target)?;
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: strings that end in zero, or null where the kernel takes none.
    check(
        unsafe {
            libc::mount(
                pointer(source.as_deref()),
                target.as_ptr(),
                pointer(kind),
                flags,
                pointer(options).cast(),
            )
        }
        .into(),
    )
}

/// Adds attributes to a mount and to all mounts below it (Linux 5.12).
fn restrict(target: &Path, attributes: u64) -> io::Result<()> {
    set_attributes(target, attributes, libc::AT_RECURSIVE)
}

fn set_attributes(target: &Path, attributes: u64, flags: libc::c_int) -> io::Result<()> {
    let target = zero_terminated(target)?;
    let set = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: a string that ends in zero, and a structure of the length that is stated.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &raw const set,
            size_of::<libc::mount_attr>(),
        )
    })
}

fn zero_terminated(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check(answer: libc::c_long) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
