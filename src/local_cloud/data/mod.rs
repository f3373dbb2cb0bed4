//! What a local cloud keeps in a directory: records in a journal, and the bytes of objects as files beside it.
//!
//! ```text
//! DIR/lock      held with flock(2) by the process that uses the directory; its id
//! DIR/journal   all records, each change of the cloud a line
//! DIR/objects/  the bytes of objects: written once, synchronized before a record names them
//! ```
//!
//! State that is kept stands in a [`Kept`], which lets nobody change it without writing down what has changed: there is no other
//! way to a `&mut`. Without a directory it is a mutex and no more.

mod files;
mod journal;
mod kept;
mod ports;
mod table;
mod trouble;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::trouble::Say;
use self::trouble::Trouble;
pub(super) use self::{
    files::{Content, Files},
    journal::Journal,
    kept::{Durable, Held, Kept, Look, Loose, NotKept, Sink, blocking, commit},
    ports::Ports,
    table::{Single, Table},
};

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const OBJECTS: &str = "objects";

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Something else is in it.
    #[error(
        "{} is not a directory of a local cloud's data: there is '{found}' in it. Name a new directory, or an empty one",
        .directory.display()
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A later version wrote it.
    #[error(
        "{} was written by another version of platen (format {version}; this one reads format {}): use that version, or \
         another directory", .directory.display(), journal::VERSION
    )]
    Version {
        /// The directory.
        directory: PathBuf,
        /// What its journal says.
        version: String,
    },
    /// Another process uses it.
    #[error("{} is in use by process {process}: end that one, or name another directory", .directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process's id, as far as it is known.
        process: String,
    },
    /// It cannot be trusted.
    #[error("{} is damaged: {what}. Put back a copy of the directory, or begin with a new one", .directory.display())]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// Where, and what is wrong.
        what: String,
    },
    /// It cannot be read or written.
    #[error("{} cannot be used: {error}", .directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A directory that this process alone uses, for as long as this or the cloud that it was given to lives.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    pub(super) journal: Arc<Journal>,
    pub(super) files: Arc<Files>,
}

impl DataDirectory {
    /// Opens a directory, which is made if it is not there. A change whose writing was cut off is dropped: nobody was told
    /// that it was done. `say` gets sentences for a person: what was dropped, that it cannot be written, that it can again.
    ///
    /// # Errors
    ///
    /// When it is not a directory of this kind, another process uses it, or it cannot be read and written.
    pub fn open(directory: &Path, say: impl Fn(&str) + Send + Sync + 'static) -> Result<Self, DataError> {
        let say: Arc<Say> = Arc::new(say);
        let io = |error| DataError::Io {
            directory: directory.to_owned(),
            error,
        };
        let damaged = |what| DataError::Damaged {
            directory: directory.to_owned(),
            what,
        };
        make(directory).map_err(io)?;
        refuse_foreign(directory)?;
        let lock = lock(directory)?;
        let objects = directory.join(OBJECTS);
        make(&objects).map_err(io)?;
        let trouble = || Trouble::of(directory, &say);
        let journal = match Journal::open(&directory.join(JOURNAL), lock, trouble()) {
            Ok(journal) => journal,
            Err(journal::Unreadable::Io(error)) => return Err(io(error)),
            Err(journal::Unreadable::Damaged(what)) => return Err(damaged(what)),
            Err(journal::Unreadable::Version(version)) => {
                return Err(DataError::Version {
                    directory: directory.to_owned(),
                    version,
                });
            }
        };
        Ok(Self {
            journal: Arc::new(journal),
            files: Arc::new(Files::new(objects, trouble())),
        })
    }
}

/// Says of what failed when the records were read where that was.
pub(super) fn unreadable(error: &io::Error) -> io::Error {
    let message = format!("the data directory does not read: {error}. Put back a copy of it, or begin with a new one");
    io::Error::new(error.kind(), message)
}

/// Nothing is written where something else is: whose directory it is shows before anything is locked or made.
fn refuse_foreign(directory: &Path) -> Result<(), DataError> {
    let io = |error| DataError::Io {
        directory: directory.to_owned(),
        error,
    };
    let foreign = |found: String| DataError::Foreign {
        directory: directory.to_owned(),
        found,
    };
    let journal = directory.join(JOURNAL);
    match journal::is_one(&journal) {
        Ok(true) => return Ok(()),
        Ok(false) => return Err(foreign(JOURNAL.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    // The journal comes last: a first start that was killed left some of these, and nothing in them.
    for entry in fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let name = name.to_string_lossy();
        if !is_of_a_first_start(directory, &name).map_err(io)? {
            return Err(foreign(name.into_owned()));
        }
    }
    Ok(())
}

fn is_of_a_first_start(directory: &Path, name: &str) -> io::Result<bool> {
    let path = directory.join(name);
    let kind = fs::symlink_metadata(&path)?.file_type();
    // As much as is ever in one, and a byte to see that there is more.
    let start = || -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        fs::File::open(&path)?.take(64).read_to_end(&mut start)?;
        Ok(start)
    };
    Ok(match name {
        LOCK if kind.is_file() => start()?.iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n'),
        journal::UNFINISHED if kind.is_file() => journal::begins_one(&start()?),
        OBJECTS if kind.is_dir() => fs::read_dir(&path)?.next().is_none(),
        _ => false,
    })
}

/// Makes a directory for its owner alone, because there are private keys in it, and those above it that are not there.
fn make(directory: &Path) -> io::Result<()> {
    let above = directory.ancestors().skip(1);
    let above: Vec<&Path> = above.take_while(|above| above.symlink_metadata().is_err()).collect();
    let is_new = directory.symlink_metadata().is_err();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for new in is_new.then_some(directory).into_iter().chain(above) {
        match new.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new("."))?,
            Some(parent) => sync_directory(parent)?,
            None => {}
        }
    }
    Ok(())
}

/// Takes the directory for this process; closing the file, or the process's end, gives it free.
fn lock(directory: &Path) -> Result<fs::File, DataError> {
    let io = |error| DataError::Io {
        directory: directory.to_owned(),
        error,
    };
    let path = directory.join(LOCK);
    let mut options = fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Not through a link: the file is written anew.
    let file = options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
    let mut file = file.open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let process = fs::read_to_string(&path).unwrap_or_default();
            let process = match process.trim() {
                "" => "(unknown)".to_owned(),
                id => id.to_owned(),
            };
            return Err(DataError::InUse {
                directory: directory.to_owned(),
                process,
            });
        }
        Err(fs::TryLockError::Error(error)) => return Err(io(error)),
    }
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

/// Makes what was created, renamed or removed in a directory outlive a loss of power.
fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}
