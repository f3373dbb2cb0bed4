//! The directory of one worker process, which it holds locked while it lives; and the sweeping of those whose owners
//! are dead.
//!
//! It lies beside other people's files in a directory where other users may write, so nothing is believed of a name:
//! swept is what has our lock file in it, both owned by our user and written by nobody else. Nothing here waits for a
//! lock, and nothing is opened that could block.
//!
//! A directory that is being made, or is nearly removed, has another name, and holds nothing but the lock file. Such a
//! one is removed entry by entry, never as a tree. Should its maker still live, it sees that and starts over; so no
//! lock is needed around the making.

use std::ffi::{CStr, OsStr};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::tree;

/// What the name of each process's directory begins with.
const PREFIX: &str = "platen-engine-";
/// What it ends with while it holds nothing but the lock file.
const BARE: &str = ".bare";
/// The file in it that its owner holds locked.
const LOCK: &CStr = c"lock";
/// What is in that file.
const MAGIC: &[u8] = b"This directory is a platen worker's. While no process locks this file, it may be removed.\n";
/// How often the making starts over: each time, another process swept at the same moment.
const ATTEMPTS: u32 = 100;

/// A directory that this process has locked. It goes, with all in it, when this is dropped; that blocks.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Makes a directory under `parent`: absolute, mode 0711, so that children of another user pass through to their
    /// own directory and cannot list this one.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        // LibreOffice is told absolute paths.
        let parent = fs::canonicalize(parent)?;
        for _ in 0..ATTEMPTS {
            if let Some(claim) = Self::try_create(&parent)? {
                return Ok(claim);
            }
        }
        Err(io::Error::other("other processes remove every directory made there"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `None` when it was swept while it was made.
    fn try_create(parent: &Path) -> io::Result<Option<Self>> {
        let unique = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(BARE)
            .make_in(parent, |path| DirBuilder::new().mode(0o700).create(path))?;
        let bare = unique.into_temp_path().keep()?;
        let path = bare.with_extension("");
        let lock_name = OsStr::from_bytes(LOCK.to_bytes());
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(bare.join(lock_name));
        let mut lock = match lock {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            lock => lock?,
        };
        match lock.try_lock() {
            // Whoever has the lock removes the directory.
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            locked => locked?,
        }
        lock.write_all(MAGIC)?;
        match fs::rename(&bare, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            renamed => renamed?,
        }
        // From here on nobody else removes it: that takes the lock.
        let claim = Self { path, _lock: lock };
        let (ours, there) = (
            claim._lock.metadata()?,
            fs::symlink_metadata(claim.path.join(lock_name)),
        );
        match there {
            Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {}
            // It was unlinked between the opening and the locking; dropping removes the directory.
            _ => return Ok(None),
        }
        fs::set_permissions(&claim.path, Permissions::from_mode(0o711))?;
        Ok(Some(claim))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let removed = open_directory(&self.path).and_then(|directory| remove(&self.path, &directory));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!(directory = %self.path.display(), %error, "cannot remove a work directory: the next worker tries again");
        }
    }
}

/// Removes the directories of dead processes in `parent`. What cannot be removed is logged and left.
pub(super) fn sweep(parent: &Path) {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(directory = %parent.display(), %error, "cannot look for what dead workers left");
            return;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let swept = if name.as_bytes().ends_with(BARE.as_bytes()) {
            sweep_bare(&path)
        } else {
            sweep_whole(&path)
        };
        // Without a lock file it is not ours; or another process was faster.
        if let Err(error) = swept
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %path.display(), %error, "cannot remove what a dead worker left");
        }
    }
}

fn sweep_whole(path: &Path) -> io::Result<()> {
    let Some(directory) = open_ours(path)? else {
        return Ok(());
    };
    // Held until the directory is gone.
    let Some(_lock) = dead_lock(&directory, |content| content == MAGIC)? else {
        return Ok(());
    };
    remove(path, &directory)
}

/// One that its owner did not finish to make, or to remove.
fn sweep_bare(path: &Path) -> io::Result<()> {
    let Some(directory) = open_ours(path)? else {
        return Ok(());
    };
    match dead_lock(&directory, |content| MAGIC.starts_with(content)) {
        Ok(Some(_lock)) => unlinkat(&directory, LOCK, UnlinkatFlags::NoRemoveDir)?,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match fs::remove_dir(path) {
        // Then it is none of ours.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

/// Removes a directory that the caller has locked. The lock file goes last, under the other name: whenever this is
/// interrupted, what is left can still be told for ours.
fn remove(path: &Path, directory: &OwnedFd) -> io::Result<()> {
    tree::clear(directory.as_fd(), Some(LOCK))?;
    let mut bare = path.as_os_str().to_owned();
    bare.push(BARE);
    fs::rename(path, &bare)?;
    match unlinkat(directory, LOCK, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_dir(&bare) {
        // Another process sweeps, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    Ok(directory.into())
}

/// `None` when it is not our user's, or no directory at all.
fn open_ours(path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_directory(path) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EACCES | libc::ENOTDIR | libc::ELOOP | libc::ENOENT)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(directory) => Ok(is_ours(&directory)?.then_some(directory)),
    }
}

/// Whether a file or directory is our user's and nobody else may write in it.
fn is_ours(descriptor: &OwnedFd) -> io::Result<bool> {
    let found = File::from(descriptor.try_clone()?).metadata()?;
    Ok(found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0)
}

/// Opens and locks the lock file of a directory. `None` when its owner lives, or it is not ours.
fn dead_lock(directory: &OwnedFd, is_magic: impl FnOnce(&[u8]) -> bool) -> io::Result<Option<File>> {
    // Without blocking: anything may have this name.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let lock = match openat(directory, LOCK, flags, Mode::empty()) {
        // A link, or a socket.
        Err(Errno::ELOOP | Errno::ENXIO) => return Ok(None),
        lock => lock?,
    };
    if !is_ours(&lock)? {
        return Ok(None);
    }
    let lock = File::from(lock);
    if !lock.metadata()?.is_file() {
        return Ok(None);
    }
    match lock.try_lock() {
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        locked => locked?,
    }
    let mut content = Vec::new();
    (&lock).take(MAGIC.len() as u64 + 1).read_to_end(&mut content)?;
    Ok(is_magic(&content).then_some(lock))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::unistd::mkfifo;

    use super::*;

    /// A directory with a document in it, as a worker leaves it that was killed.
    fn dead(parent: &Path, name: &str, lock: Option<&[u8]>) -> PathBuf {
        let path = parent.join(name);
        fs::create_dir_all(path.join("job-1/tmp")).unwrap();
        fs::write(path.join("job-1/document.odt"), "text").unwrap();
        if let Some(content) = lock {
            fs::write(path.join("lock"), content).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(0o711)).unwrap();
        path
    }

    #[test]
    fn the_dead_are_swept_and_the_living_spared() {
        let parent = tempfile::tempdir().unwrap();
        let living = Claim::create(parent.path()).unwrap();
        fs::write(living.path().join("file"), "text").unwrap();
        let dead = dead(parent.path(), "platen-engine-dead", Some(MAGIC));
        sweep(parent.path());
        assert!(living.path().join("file").exists());
        assert!(!dead.exists());
        drop(living);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_provably_ours_is_spared() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path();
        let mut spared = vec![
            dead(parent, "platen-backup", Some(MAGIC)),
            dead(parent, "platen-engine-no-lock", None),
            dead(parent, "platen-engine-other-lock", Some(b"pid 7\n")),
            dead(parent, "platen-engine-empty-lock", Some(b"")),
            dead(parent, "platen-engine-longer-lock", Some(&[MAGIC, b"x"].concat())),
            dead(parent, "platen-engine-data.bare", Some(MAGIC)),
            dead(parent, "platen-engine-data-without-lock.bare", None),
        ];
        let linked = dead(parent, "platen-engine-linked-lock", None);
        fs::write(parent.join("magic"), MAGIC).unwrap();
        symlink(parent.join("magic"), linked.join("lock")).unwrap();
        let pipe = dead(parent, "platen-engine-pipe", None);
        mkfifo(&pipe.join("lock"), Mode::S_IRWXU).unwrap();
        let open = dead(parent, "platen-engine-open-to-others", Some(MAGIC));
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let elsewhere = dead(parent, "elsewhere", Some(MAGIC));
        symlink(&elsewhere, parent.join("platen-engine-link")).unwrap();
        fs::write(parent.join("platen-engine-file"), "text").unwrap();
        spared.extend([linked, pipe, open, elsewhere]);
        if geteuid().is_root() {
            let directory = dead(parent, "platen-engine-of-another", Some(MAGIC));
            std::os::unix::fs::chown(&directory, Some(12345), None).unwrap();
            let lock = dead(parent, "platen-engine-lock-of-another", Some(MAGIC));
            std::os::unix::fs::chown(lock.join("lock"), Some(12345), None).unwrap();
            spared.extend([directory, lock]);
        } else {
            println!("skipped: only root can give files away");
        }
        sweep(parent);
        for path in &spared {
            assert!(
                path.join("job-1/document.odt").exists() && path.join("job-1/tmp").exists(),
                "{} was swept",
                path.display()
            );
        }
        assert!(parent.join("platen-engine-link").exists() && parent.join("platen-engine-file").exists());
    }

    #[test]
    fn a_lock_on_the_place_itself_keeps_nobody_waiting() {
        let parent = tempfile::tempdir().unwrap();
        let somebody = File::open(parent.path()).unwrap();
        somebody.lock().unwrap();
        sweep(parent.path());
        Claim::create(parent.path()).unwrap();
    }

    #[test]
    fn what_was_not_made_to_its_end_is_swept_unless_its_maker_lives() {
        let parent = tempfile::tempdir().unwrap();
        let bare = |name: &str, lock: Option<&[u8]>| {
            let path = parent.path().join(format!("platen-engine-{name}.bare"));
            DirBuilder::new().mode(0o700).create(&path).unwrap();
            if let Some(content) = lock {
                fs::write(path.join("lock"), content).unwrap();
            }
            path
        };
        let gone = [
            bare("1", None),
            bare("2", Some(b"")),
            bare("3", Some(&MAGIC[..9])),
            bare("4", Some(MAGIC)),
        ];
        let living = bare("5", Some(MAGIC));
        let lock = File::open(living.join("lock")).unwrap();
        lock.lock().unwrap();
        sweep(parent.path());
        for path in gone {
            assert!(!path.exists(), "{} is left", path.display());
        }
        assert!(living.join("lock").exists());
    }

    #[test]
    fn making_and_sweeping_at_the_same_time_lose_nothing_and_leave_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let made = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..300 {
                            let claim = Claim::create(parent.path()).unwrap();
                            fs::write(claim.path().join("file"), "text").unwrap();
                            sweep(parent.path());
                            assert_eq!(fs::read(claim.path().join("file")).unwrap(), b"text");
                            assert_eq!(fs::read(claim.path().join("lock")).unwrap(), MAGIC);
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    while !made.load(Ordering::Relaxed) {
                        sweep(parent.path());
                    }
                });
            }
            let ended: Vec<_> = makers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            made.store(true, Ordering::Relaxed);
            for result in ended {
                result.unwrap();
            }
        });
        sweep(parent.path());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
