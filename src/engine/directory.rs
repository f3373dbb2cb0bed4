//! The directories that conversions work in: one of this process, one of each job inside it. All of it goes when its
//! owner goes, and what a killed worker left is swept by the next one that works in the same place.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

use super::claim::{self, Claim};
use super::conversion::{Exceeded, Limit};
use super::tree::{self, Size};
use super::users::Users;

/// The longest file name that every file system takes is 255 bytes; LibreOffice puts some of its own around one.
const LONGEST_NAME: usize = 200;
/// Between two looks at how large a job directory has become.
const LOOK: Duration = Duration::from_millis(250);

/// The directory of this process.
#[derive(Debug)]
pub(super) struct WorkDirectory {
    path: PathBuf,
    /// Always there until this is dropped.
    claim: Option<Claim>,
    /// Where each job gets a user of its own.
    users: Option<Users>,
    /// Which numbers are taken; a job's user follows from its number.
    slots: Mutex<BTreeSet<u32>>,
    next: AtomicU64,
}

impl WorkDirectory {
    /// Makes this process's directory under `parent` and removes those of dead processes. Blocks.
    pub(super) fn create(parent: &Path, users: bool) -> io::Result<Self> {
        fs::create_dir_all(parent)?;
        claim::sweep(parent);
        let claim = Claim::create(parent)?;
        Ok(Self {
            path: claim.path().to_owned(),
            claim: Some(claim),
            users: users.then(Users::take),
            slots: Mutex::default(),
            next: AtomicU64::new(1),
        })
    }

    /// A new directory for a zygote, readable by its children.
    pub(super) fn zygote(&self) -> io::Result<Directory> {
        Directory::create(self.unique("zygote"), 0o711, None)
    }

    /// A new directory for a job. `kept` is dropped when it is gone.
    pub(super) fn job(self: &Arc<Self>, kept: Kept) -> io::Result<JobDirectory> {
        let number = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let number = (0..).find(|number| !slots.contains(number)).unwrap_or_default();
            slots.insert(number);
            number
        };
        let slot = Slot {
            number,
            work: self.clone(),
            _kept: kept,
        };
        let directory = Directory::create(self.unique("job"), 0o700, Some(slot))?;
        let user = match &self.users {
            Some(users) => Some(
                users
                    .of(number)
                    .ok_or_else(|| io::Error::other("every user for jobs is taken"))?,
            ),
            None => None,
        };
        if let Some(user) = user {
            std::os::unix::fs::chown(&directory.path, Some(user), Some(user))?;
        }
        Ok(JobDirectory(Arc::new(Owned { directory, user })))
    }

    /// What all of it takes on the disk now, in bytes. Blocks.
    pub(super) fn allocated(&self) -> io::Result<u64> {
        match tree::allocated(&self.path)? {
            Size::Bytes(bytes) => Ok(bytes),
            Size::Beyond(_) => Err(io::Error::other("the work directory has too many files to count")),
        }
    }

    fn unique(&self, what: &str) -> PathBuf {
        self.path
            .join(format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        drop_where_it_may_block(self.claim.take());
    }
}

/// A directory that goes with its owner.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Freed when the directory is gone.
    slot: Option<Slot>,
}

impl Directory {
    fn create(path: PathBuf, mode: u32, slot: Option<Slot>) -> io::Result<Self> {
        DirBuilder::new().mode(mode).create(&path)?;
        let directory = Self { path, slot };
        // Whatever the umask is.
        fs::set_permissions(&directory.path, Permissions::from_mode(mode))?;
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop_where_it_may_block(Remains {
            path: std::mem::take(&mut self.path),
            _slot: self.slot.take(),
        });
    }
}

/// A directory whose owner is gone. Dropping it removes it, which takes as long as the tree in it is large.
struct Remains {
    path: PathBuf,
    _slot: Option<Slot>,
}

impl Drop for Remains {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.path) {
            tracing::error!(directory = %self.path.display(), %error, "cannot remove a work directory: remove it by hand");
        }
    }
}

/// Drops something on a thread that may wait for the disk. A runtime that shuts down drops it, too, and waits for it.
fn drop_where_it_may_block(what: impl Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        drop(runtime.spawn_blocking(move || drop(what)));
    }
}

/// A directory for one job: its document, LibreOffice's temporary files, its outputs. Nobody but the worker and the
/// job's child can look into it. It goes with everything in it soon after this is dropped and the job's child is gone,
/// whatever comes later.
#[derive(Debug)]
pub struct JobDirectory(Arc<Owned>);

#[derive(Debug)]
pub(super) struct Owned {
    directory: Directory,
    user: Option<u32>,
}

impl Owned {
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes everything but one file: what an attempt that failed has left. Blocks.
    pub(super) fn keep_only(&self, file: &str) -> io::Result<()> {
        let file = CString::new(file)?;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(self.path())?;
        tree::clear(File::as_fd(&directory), Some(&file))
    }

    /// Returns when the directory takes more than so many bytes of the disk, or has become what is too large to look
    /// at; else never. `RLIMIT_FSIZE` bounds each file, and this what they are together. Files that were unlinked while
    /// they are open are for [`super::watch::Watch`].
    pub(super) async fn overflows(self: Arc<Self>, allowed: u64) -> Exceeded {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let directory = self.clone();
            match tokio::task::spawn_blocking(move || tree::allocated(directory.path())).await {
                Ok(Ok(Size::Bytes(measured))) if measured > allowed => {
                    let limit = Limit::DiskSize;
                    return Exceeded {
                        limit,
                        allowed,
                        measured,
                    };
                }
                Ok(Ok(Size::Bytes(_))) => {}
                Ok(Ok(Size::Beyond(exceeded))) => return exceeded,
                Ok(Err(error)) => tracing::warn!(%error, "cannot measure a job directory"),
                // The runtime shuts down.
                Err(_) => return std::future::pending().await,
            }
        }
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

/// What a job's owner keeps for as long as the job takes any of this machine.
pub(super) type Kept = Box<dyn Any + Send + Sync>;

/// A number that no other job of this process has now.
#[derive(Debug)]
struct Slot {
    number: u32,
    work: Arc<WorkDirectory>,
    /// Its owner hears of the end only now: a field is dropped after its struct.
    _kept: Kept,
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
    fn a_job_directory_goes_with_its_last_holder_and_frees_its_number() {
        let parent = tempfile::tempdir().unwrap();
        let work = Arc::new(WorkDirectory::create(parent.path(), false).unwrap());
        let kept = Arc::new(());
        let (first, second) = (
            work.job(Box::new(kept.clone())).unwrap(),
            work.job(Box::new(())).unwrap(),
        );
        assert_eq!(fs::metadata(first.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = first.path().to_owned();
        let held = first.hold();
        drop(first);
        assert!(path.exists(), "a child may still write");
        assert_eq!(Arc::strong_count(&kept), 2, "what a child may still take is not free");
        drop(held);
        assert!(!path.exists());
        assert_eq!(Arc::strong_count(&kept), 1);
        assert_eq!(*work.slots.lock().unwrap(), BTreeSet::from([1]));
        drop(second);
    }

    #[test]
    fn a_directory_is_removed_where_it_blocks_nobody_and_frees_its_number_after() {
        let parent = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let work = Arc::new(WorkDirectory::create(parent.path(), false).unwrap());
        let job = work.job(Box::new(())).unwrap();
        fs::create_dir_all(job.path().join("a/b/c")).unwrap();
        let path = job.path().to_owned();
        // The only thread for it is busy.
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let busy = runtime.spawn_blocking(move || ended.recv().is_err());
        runtime.block_on(async move { drop(job) });
        assert!(path.exists(), "it was removed on the runtime's own thread");
        assert_eq!(*work.slots.lock().unwrap(), BTreeSet::from([0]));
        drop(end);
        assert!(runtime.block_on(busy).unwrap());
        // Also what still waits: a runtime that ends drops it.
        drop(runtime);
        assert!(!path.exists());
        assert_eq!(*work.slots.lock().unwrap(), BTreeSet::new());
    }
}
