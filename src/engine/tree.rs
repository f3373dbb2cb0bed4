//! Removes and measures trees that a child made, whatever their shape.
//!
//! A child may be compromised: it may nest directories as deep as the disk allows, take all rights from them, and write
//! until the moment it dies. So nothing here recurses or opens descriptors without a bound, follows a link, or uses a
//! path longer than one name.

use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::NixPath;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::conversion::{Exceeded, Limit};

/// How often a tree is tried to be removed, and the pause between: a child that was killed a moment ago may still write.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// What is measured: LibreOffice's own trees are some levels deep and have some hundred files.
const DEEPEST: u64 = 16;
const MOST_ENTRIES: u64 = 100_000;

/// Removes a directory and all in it. Blocks.
///
/// # Errors
/// Something is left. A directory that is not there is no error.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    patiently(|| {
        match open_directory(AT_FDCWD, path) {
            Err(Errno::ENOENT) => return Ok(()),
            top => empty(top?.as_fd(), None)?,
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

/// Removes all in the directory `top` but the entry `keep`. Blocks.
///
/// # Errors
/// Something is left.
pub(super) fn clear(top: BorrowedFd<'_>, keep: Option<&CStr>) -> io::Result<()> {
    patiently(|| empty(top, keep))
}

fn patiently(mut remove: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        if remove().is_ok() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    remove()
}

fn empty(top: BorrowedFd<'_>, keep: Option<&CStr>) -> io::Result<()> {
    let (mut lifted, mut failed) = (Lifted { top, count: 0 }, None);
    let mut discard = |lifted: &mut Lifted<'_>, name: &CStr| {
        if let Err(errno) = lifted.discard(name) {
            failed = Some(errno);
        }
    };
    // Opened anew: a copy would share the place in the list.
    let mut entries = Dir::openat(top, c".", DIRECTORY, Mode::empty())?;
    for entry in entries.iter() {
        let entry = entry?;
        if !is_itself_or_parent(entry.file_name()) && keep != Some(entry.file_name()) {
            discard(&mut lifted, entry.file_name());
        }
    }
    let mut next = 0;
    while next < lifted.count {
        discard(&mut lifted, &lifted_name(next));
        next += 1;
    }
    failed.map_or(Ok(()), |errno| Err(errno.into()))
}

/// The directories that were lifted from deep below up into `top`, where they wait to be removed. So a tree is removed
/// level by level with five descriptors at most and nothing to remember, however deep it is.
struct Lifted<'a> {
    top: BorrowedFd<'a>,
    /// They have names numbered from 0 up to this.
    count: u64,
}

impl Lifted<'_> {
    /// Removes one entry of the top. What it has below two levels is lifted.
    fn discard(&mut self, name: &CStr) -> nix::Result<()> {
        if discard_simple(self.top, name)? {
            return Ok(());
        }
        let directory = match open_directory(self.top, name) {
            Err(Errno::ENOENT) => return Ok(()),
            opened => opened?,
        };
        let mut failed = None;
        let mut entries = Dir::openat(&directory, c".", DIRECTORY, Mode::empty())?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if is_itself_or_parent(name) {
                continue;
            }
            let gone = match discard_simple(directory.as_fd(), name) {
                Ok(false) => self.lift(directory.as_fd(), name),
                done => done.map(drop),
            };
            failed = gone.err().or(failed);
        }
        match discard_simple(self.top, name)? {
            true => Ok(()),
            // When nothing failed, somebody still writes.
            false => Err(failed.unwrap_or(Errno::ENOTEMPTY)),
        }
    }

    fn lift(&mut self, from: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
        let mut granted = false;
        loop {
            let moved = renameat(from, name, self.top, lifted_name(self.count).as_c_str());
            match moved {
                // A directory's owner must have the right to write in it to move it elsewhere.
                Err(Errno::EACCES) if !granted => {
                    grant(from, name)?;
                    granted = true;
                }
                // The child has made something of this name. It is removed when its turn comes.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => self.count += 1,
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(errno),
                Ok(()) => {
                    self.count += 1;
                    return Ok(());
                }
            }
        }
    }
}

fn lifted_name(number: u64) -> CString {
    // A number holds no zero byte, so the name is never the empty default.
    CString::new(format!(".removed-{number}")).unwrap_or_default()
}

/// Removes a file or an empty directory; false when it is a directory with something in it.
fn discard_simple(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        // What Linux and what POSIX say of a directory.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

/// Opens a directory that is to be emptied, and gives its owner the rights for it.
fn open_directory<P: ?Sized + NixPath>(parent: BorrowedFd<'_>, name: &P) -> nix::Result<OwnedFd> {
    let opened = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            grant(parent, name)?;
            openat(parent, name, DIRECTORY, Mode::empty())?
        }
        opened => opened?,
    };
    if !Mode::from_bits_truncate(fstat(&opened)?.st_mode).contains(Mode::S_IRWXU) {
        // Whoever may not do this may be allowed to remove without: if not, that shows.
        let _ = fchmod(&opened, Mode::S_IRWXU);
    }
    Ok(opened)
}

/// Gives its owner all rights on a directory that may not even be opened. Never follows a link.
fn grant<P: ?Sized + NixPath>(parent: BorrowedFd<'_>, name: &P) -> nix::Result<()> {
    let found = openat(parent, name, DIRECTORY | OFlag::O_PATH, Mode::empty())?;
    // A descriptor of a mere path takes no fchmod, but the kernel's link to it does.
    fs::set_permissions(
        format!("/proc/self/fd/{}", found.as_raw_fd()),
        Permissions::from_mode(0o700),
    )
    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EACCES)))
}

fn is_itself_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// What a tree takes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// So many bytes, in whole blocks.
    Bytes(u64),
    /// More levels or entries than are looked at, or a directory that is closed to its owner: nothing that LibreOffice
    /// makes.
    Beyond(Exceeded),
}

/// Measures a tree that somebody else changes meanwhile. Blocks. Files without a name are not seen.
///
/// # Errors
/// The tree cannot be looked at now: no descriptors, no such directory.
pub(super) fn allocated(path: &Path) -> io::Result<Size> {
    let mut seen = Seen { entries: 0, bytes: 0 };
    let top = openat(AT_FDCWD, path, DIRECTORY, Mode::empty())?;
    // A directory that is closed may have any number of levels.
    let too_deep = Size::Beyond(Exceeded {
        limit: Limit::DiskLevels,
        allowed: DEEPEST,
        measured: DEEPEST + 1,
    });
    match seen.add(&top, DEEPEST) {
        Ok(true) => Ok(Size::Bytes(seen.bytes)),
        Ok(false) if seen.entries > MOST_ENTRIES => Ok(Size::Beyond(Exceeded {
            limit: Limit::DiskEntries,
            allowed: MOST_ENTRIES,
            measured: seen.entries,
        })),
        Ok(false) | Err(Errno::EACCES) => Ok(too_deep),
        Err(errno) => Err(errno.into()),
    }
}

struct Seen {
    entries: u64,
    bytes: u64,
}

impl Seen {
    /// Adds what is in a directory; false when that is beyond what is looked at. Recurses `levels` deep at most.
    fn add(&mut self, directory: &OwnedFd, levels: u64) -> nix::Result<bool> {
        if levels == 0 {
            return Ok(false);
        }
        let mut entries = Dir::openat(directory, c".", DIRECTORY, Mode::empty())?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if is_itself_or_parent(name) {
                continue;
            }
            let found = match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue,
                found => found?,
            };
            self.entries += 1;
            // st_blocks counts 512 bytes, whatever the file system's own blocks are.
            let bytes = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512);
            self.bytes = self.bytes.saturating_add(bytes);
            if self.entries > MOST_ENTRIES {
                return Ok(false);
            }
            if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits() {
                continue;
            }
            let within = match openat(directory, name, DIRECTORY, Mode::empty()) {
                // Gone, or something else by now.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => true,
                within => self.add(&within?, levels - 1)?,
            };
            if !within {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::stat::mkdirat;
    use nix::unistd::{Uid, geteuid, mkfifo, setresuid};

    use super::*;

    /// Names the directory for the process that a test starts itself again as.
    const WHERE: &str = "PLATEN_TEST_TREE";

    /// A directory so many levels deep, with a file in each; every directory in it with this mode.
    fn deep(top: &Path, levels: u32, mode: Mode) {
        let mut parent: OwnedFd = fs::File::open(top).unwrap().into();
        let mut all = Vec::new();
        for _ in 0..levels {
            mkdirat(&parent, "deeper", Mode::S_IRWXU).unwrap();
            let next = openat(&parent, "deeper", DIRECTORY, Mode::empty()).unwrap();
            drop(openat(&next, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).unwrap());
            parent = next;
            if mode != Mode::S_IRWXU {
                all.push(parent.try_clone().unwrap());
            }
        }
        for directory in all {
            fchmod(directory, mode).unwrap();
        }
    }

    /// Runs this very test in a process of its own, with `WHERE` set.
    fn again(test: &str, directory: &Path) {
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("engine::tree::tests::{test}"), "--nocapture"])
            .env(WHERE, directory)
            .output()
            .unwrap();
        assert!(
            ended.status.success(),
            "{}\n{}",
            ended.status,
            String::from_utf8_lossy(&ended.stderr)
        );
    }

    #[test]
    fn a_tree_of_20000_levels_goes_with_a_few_descriptors() {
        if let Some(directory) = std::env::var_os(WHERE) {
            let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
            // One of those was the list's own; a sixth is the link in /proc.
            setrlimit(Resource::RLIMIT_NOFILE, open + 5, open + 5).unwrap();
            remove(Path::new(&directory)).unwrap();
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("job-1");
        fs::create_dir(&top).unwrap();
        deep(&top, 20_000, Mode::S_IRWXU);
        assert!(matches!(allocated(&top).unwrap(), Size::Beyond(exceeded) if exceeded.limit == Limit::DiskLevels));
        again("a_tree_of_20000_levels_goes_with_a_few_descriptors", &top);
        assert!(!top.exists());
    }

    #[test]
    fn directories_without_rights_go_too() {
        if let Some(directory) = std::env::var_os(WHERE) {
            let nobody = Uid::from_raw(65534);
            if geteuid().is_root() {
                setresuid(nobody, nobody, nobody).unwrap();
            }
            let top = Path::new(&directory).join("job-1");
            fs::create_dir(&top).unwrap();
            deep(&top, 10, Mode::empty());
            fs::create_dir(top.join("readable")).unwrap();
            deep(&top.join("readable"), 10, Mode::S_IRUSR | Mode::S_IXUSR);
            assert!(matches!(allocated(&top).unwrap(), Size::Beyond(exceeded) if exceeded.limit == Limit::DiskLevels));
            fs::set_permissions(&top, Permissions::from_mode(0o000)).unwrap();
            remove(&top).unwrap();
            assert!(!top.exists());
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o777)).unwrap();
        again("directories_without_rights_go_too", parent.path());
    }

    #[test]
    fn every_kind_of_entry_goes_and_no_link_is_followed() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "text").unwrap();
        let top = parent.path().join("job-1");
        fs::create_dir_all(top.join("a/b/c/d")).unwrap();
        fs::create_dir_all(top.join("a/b2/c")).unwrap();
        fs::create_dir_all(top.join("a").join(OsStr::from_bytes(b"\xff\xfe/\xff/x"))).unwrap();
        // The names that the removal uses itself.
        fs::create_dir_all(top.join(".removed-0/full/x")).unwrap();
        fs::write(top.join(".removed-1"), "text").unwrap();
        symlink(&outside, top.join("link")).unwrap();
        symlink(&outside, top.join("a/b/link")).unwrap();
        mkfifo(&top.join("a/pipe"), Mode::S_IRWXU).unwrap();
        fs::write(top.join("kept"), "text").unwrap();
        clear(fs::File::open(&top).unwrap().as_fd(), Some(c"kept")).unwrap();
        let left: Vec<_> = fs::read_dir(&top)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["kept"]);
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("file").exists());
        remove(&top).expect("what is not there is no error");
    }

    #[test]
    fn a_tree_goes_that_a_dying_child_still_writes() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("job-1");
        fs::create_dir(&top).unwrap();
        let descriptor = fs::File::open(&top).unwrap();
        let (began, begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..500 {
                    let name = format!("d{number}");
                    // Fails once the top is gone.
                    if mkdirat(&descriptor, name.as_str(), Mode::S_IRWXU).is_ok()
                        && let Ok(directory) = openat(&descriptor, name.as_str(), DIRECTORY, Mode::empty())
                    {
                        let _ = mkdirat(&directory, "a", Mode::S_IRWXU);
                        let _ = mkdirat(&directory, "a/b", Mode::S_IRWXU);
                    }
                    let _ = began.send(());
                }
            });
            begun.recv().unwrap();
            remove(&top).unwrap();
        });
        assert!(!top.exists());
    }

    #[test]
    fn a_tree_is_measured_by_what_it_takes() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::write(&outside, vec![1; 1 << 20]).unwrap();
        let top = parent.path().join("job-1");
        fs::create_dir_all(top.join("tmp/lu1")).unwrap();
        symlink(&outside, top.join("tmp/link")).unwrap();
        let sparse = fs::File::create(top.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        fs::write(top.join("tmp/lu1/file"), vec![1; 100_000]).unwrap();
        let Size::Bytes(bytes) = allocated(&top).unwrap() else {
            panic!("a small tree is beyond what is looked at");
        };
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(
            allocated(&parent.path().join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
