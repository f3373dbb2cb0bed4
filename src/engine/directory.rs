//! The directories that conversions work in: one of this process, one of each job inside it. All of it goes when its
//! owner goes, and what a killed worker left is swept by the next one.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the directory of each process begins with.
const PREFIX: &str = "platen-";
/// The file in it that its owner holds locked while it lives.
const LOCK: &str = "lock";
/// The first user id for children. systemd hands out 61184 to 65519 to services for as long as they run, so no account
/// has one of them; they also exist in a container that maps only 65,536 ids.
const FIRST_USER: u32 = 61184;
/// The longest file name that every file system takes is 255 bytes; LibreOffice puts some of its own around one.
const LONGEST_NAME: usize = 200;

/// The directory of this process.
#[derive(Debug)]
pub(super) struct WorkDirectory {
    path: PathBuf,
    /// Held locked: tells the next worker that this directory is in use.
    _lock: File,
    /// Whether each job gets a user of its own.
    users: bool,
    /// Which numbers are taken; a job's user is the first one plus its number.
    slots: Mutex<BTreeSet<u32>>,
    next: AtomicU64,
}

impl WorkDirectory {
    /// Makes this process's directory under `parent` and removes those of dead processes.
    pub(super) fn create(parent: &Path, users: bool) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        // One process at a time comes and sweeps, so that nobody sweeps a directory that is not locked yet.
        let entrance = File::open(parent)?;
        entrance.lock()?;
        sweep(parent)?;
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = File::create_new(directory.path().join(LOCK))?;
        lock.try_lock()?;
        // Children of another user pass through to their own directory; they cannot list this one.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711))?;
        // LibreOffice is told absolute paths.
        let path = fs::canonicalize(directory.keep())?;
        Ok(Self {
            path,
            _lock: lock,
            users,
            slots: Mutex::default(),
            next: AtomicU64::new(1),
        })
    }

    /// A new directory for a zygote, readable by its children.
    pub(super) fn zygote(&self) -> io::Result<Directory> {
        Directory::create(self.unique("zygote"), 0o711)
    }

    /// A new directory for a job.
    pub(super) fn job(self: &Arc<Self>) -> io::Result<JobDirectory> {
        let number = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let number = (0..).find(|number| !slots.contains(number)).unwrap_or_default();
            slots.insert(number);
            number
        };
        let slot = Slot {
            number,
            work: self.clone(),
        };
        let directory = Directory::create(self.unique("job"), 0o700)?;
        let user = self.users.then(|| FIRST_USER + slot.number);
        if let Some(user) = user {
            std::os::unix::fs::chown(&directory.0, Some(user), Some(user))?;
        }
        Ok(JobDirectory(Arc::new(Owned {
            directory,
            user,
            _slot: slot,
        })))
    }

    fn unique(&self, what: &str) -> PathBuf {
        self.path
            .join(format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes the directories of processes that are gone.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let dead = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            // It died before it made the file.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if dead {
            remove(&entry.path());
        }
    }
    Ok(())
}

/// A directory that goes with its owner.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    fn create(path: PathBuf, mode: u32) -> io::Result<Self> {
        DirBuilder::new().mode(mode).create(&path)?;
        let directory = Self(path);
        // Whatever the umask is.
        fs::set_permissions(&directory.0, Permissions::from_mode(mode))?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a directory and all in it, whatever rights a child has left on what is its own.
fn remove(path: &Path) {
    let removed = match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock(path);
            fs::remove_dir_all(path)
        }
        other => other,
    };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!(directory = %path.display(), %error, "cannot remove a work directory: remove it by hand");
    }
}

/// Makes directories listable again. Follows no link; what cannot be changed shows when it is removed.
fn unlock(directory: &Path) {
    drop(fs::set_permissions(directory, Permissions::from_mode(0o700)));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unlock(&entry.path());
        }
    }
}

/// A directory for one job: its document, LibreOffice's temporary files, its outputs. Nobody but the worker and the
/// job's child can look into it. It goes with everything in it when this is dropped and the job's child is gone,
/// whatever comes later.
#[derive(Debug)]
pub struct JobDirectory(Arc<Owned>);

#[derive(Debug)]
pub(super) struct Owned {
    directory: Directory,
    user: Option<u32>,
    _slot: Slot,
}

impl Owned {
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes everything but one file: what an attempt that failed has left.
    pub(super) fn keep_only(&self, file: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            if entry.file_name() == file {
                continue;
            }
            if entry.file_type()?.is_dir() {
                remove(&entry.path());
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl JobDirectory {
    /// Where it is: an absolute path.
    pub fn path(&self) -> &Path {
        self.0.directory.path()
    }

    /// The user and group that the job's child becomes, when this process may change it.
    pub(super) fn user(&self) -> Option<u32> {
        self.0.user
    }

    /// Keeps the directory, and its user's number, until this is dropped too.
    pub(super) fn hold(&self) -> Arc<Owned> {
        self.0.clone()
    }
}

/// A number that no other job of this process has now.
#[derive(Debug)]
struct Slot {
    number: u32,
    work: Arc<WorkDirectory>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.work
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

/// A file name for a document: the last part of its object's name, because headers and footers print it, made harmless,
/// with the extension of what the document really is.
///
/// Neither a directory nor an option nor a hidden file can be named so, and it is at most 200 bytes long.
pub fn sanitised_file_name(object_name: &str, extension: &str) -> String {
    let last = object_name
        .rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let mut name: String = stem.chars().map(|c| if is_harmless(c) { c } else { '_' }).collect();
    let harmless = name.trim_start_matches(['.', '-', ' ', '~']).len();
    name.drain(..name.len() - harmless);
    let mut end = LONGEST_NAME.saturating_sub(extension.len() + 1).min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.trim().is_empty() {
        name = "document".to_owned();
    }
    format!("{name}.{extension}")
}

/// Control characters end lines in logs and headers; the others are separators, or turn text around.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '/' | '\\' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_keeps_its_name_as_far_as_it_is_harmless() {
        for (object, extension, name) in [
            ("reports/Quarter 3.docx", "docx", "Quarter 3.docx"),
            ("a/Überblick – 年報.docx", "docx", "Überblick – 年報.docx"),
            ("archive.tar.odt", "odt", "archive.tar.odt"),
            ("really-a-text.doc", "rtf", "really-a-text.rtf"),
            ("../../etc/passwd", "txt", "passwd.txt"),
            ("..", "docx", "document.docx"),
            ("-rf.docx", "docx", "rf.docx"),
            (".hidden.docx", "docx", "hidden.docx"),
            (".docx", "docx", "document.docx"),
            ("folder/", "docx", "folder.docx"),
            ("line\nfeed\u{202e}fdp.docx", "docx", "line_feed_fdp.docx"),
            ("back\\slash.docx", "docx", "back_slash.docx"),
        ] {
            assert_eq!(sanitised_file_name(object, extension), name, "{object:?}");
        }
        let long = sanitised_file_name(&"ü".repeat(400), "docx");
        assert!(
            long.len() <= 200 && long.len() > 190 && long.ends_with("ü.docx"),
            "{long}"
        );
    }

    #[test]
    fn the_next_process_sweeps_the_dead_and_spares_the_living() {
        let parent = tempfile::tempdir().unwrap();
        let living = Arc::new(WorkDirectory::create(parent.path(), false).unwrap());
        let job = living.job().unwrap();
        let dead = parent.path().join("platen-dead");
        fs::create_dir_all(dead.join("job-1/tmp")).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        fs::create_dir(parent.path().join("somebody-elses")).unwrap();
        let next = WorkDirectory::create(parent.path(), false).unwrap();
        assert!(job.path().exists() && next.path.exists() && parent.path().join("somebody-elses").exists());
        assert!(!dead.exists());
    }

    #[test]
    fn a_job_directory_goes_with_its_last_holder_and_frees_its_number() {
        let parent = tempfile::tempdir().unwrap();
        let work = Arc::new(WorkDirectory::create(parent.path(), false).unwrap());
        let (first, second) = (work.job().unwrap(), work.job().unwrap());
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = first.path().to_owned();
        let held = first.hold();
        drop(first);
        assert!(path.exists(), "a child may still write");
        drop(held);
        assert!(!path.exists());
        assert_eq!(*work.slots.lock().unwrap(), BTreeSet::from([1]));
        drop(second);
    }
}
