//! The bytes of objects: in memory, or each in a file of its own that is never written again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
};

use axum::body::{Body, Bytes};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{
    super::{identity::random_hex, server::lock},
    NotKept, blocking, sync_directory,
    trouble::Trouble,
};

/// How long the name of a file is: random bytes in hexadecimal digits, two each.
const NAME: usize = 32;

/// How much of a file a download has in memory at a time, in bytes.
const PIECE: usize = 256 * 1024;

/// The bytes of an object. Clones are the same bytes, not twice in memory or on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Recorded", into = "Recorded")]
pub(in super::super) struct Content(Place);

#[derive(Clone, Debug)]
enum Place {
    Memory(Bytes),
    File(Arc<Stored>),
    /// As read from the journal; [`Files::adopt`] makes it a file.
    Recorded(Recorded),
}

/// What the journal says of an object's bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Recorded {
    file: String,
    size: usize,
}

impl From<Recorded> for Content {
    fn from(recorded: Recorded) -> Self {
        Self(Place::Recorded(recorded))
    }
}

impl From<Content> for Recorded {
    fn from(content: Content) -> Self {
        match content.0 {
            Place::File(stored) => Self {
                file: stored.name.clone(),
                size: stored.size,
            },
            Place::Recorded(recorded) => recorded,
            // Nobody has these both: a cloud with a directory makes all contents in it.
            Place::Memory(bytes) => Self {
                file: String::new(),
                size: bytes.len(),
            },
        }
    }
}

/// A file of the directory. When nothing refers to it any more it may go.
#[derive(Debug)]
struct Stored {
    name: String,
    size: usize,
    files: Arc<Directory>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        lock(&self.files.unused).push(self.name.clone());
    }
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    known: Mutex<BTreeMap<String, Weak<Stored>>>,
    /// Files that nothing in memory refers to. What the disk's records say is asked before one goes.
    unused: Mutex<Vec<String>>,
}

/// Where contents are made: in memory, unless there is a directory.
#[derive(Debug)]
pub(in super::super) struct Files(Arc<Directory>, Trouble);

impl Files {
    pub(super) fn new(path: PathBuf, trouble: Trouble) -> Self {
        let directory = Directory {
            path,
            known: Mutex::default(),
            unused: Mutex::default(),
        };
        Self(Arc::new(directory), trouble)
    }

    /// Writes bytes, and synchronizes them: from now on a record may name them.
    fn write(&self, bytes: &[u8]) -> Result<Arc<Stored>, NotKept> {
        let name = random_hex(NAME / 2);
        let path = self.0.path.join(&name);
        let written = blocking(|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            sync_directory(&self.0.path)
        });
        if let Err(error) = written {
            let _not_there = fs::remove_file(&path);
            return Err(self.1.found(&error));
        }
        self.1.over();
        let stored = self.stored(name.clone(), bytes.len());
        lock(&self.0.known).insert(name, Arc::downgrade(&stored));
        Ok(stored)
    }

    fn stored(&self, name: String, size: usize) -> Arc<Stored> {
        Arc::new(Stored {
            name,
            size,
            files: Arc::clone(&self.0),
        })
    }

    /// Makes content as it was read from the journal refer to its file, which must be there.
    pub(in super::super) fn adopt(&self, content: &mut Content) -> io::Result<()> {
        let Place::Recorded(Recorded { file, size }) = &content.0 else {
            return Ok(());
        };
        let mut known = lock(&self.0.known);
        let stored = match known.get(file).and_then(Weak::upgrade) {
            Some(stored) => stored,
            None => {
                let there = fs::metadata(self.0.path.join(file)).map(|metadata| metadata.len());
                if there.as_ref().ok() != Some(&(*size as u64)) {
                    let what = there.map_or_else(|error| error.to_string(), |there| format!("{there} bytes"));
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("objects/{file} should have {size} bytes: {what}"),
                    ));
                }
                let stored = self.stored(file.clone(), *size);
                known.insert(file.clone(), Arc::downgrade(&stored));
                stored
            }
        };
        content.0 = Place::File(stored);
        Ok(())
    }

    /// Removes the files that nothing refers to any more. Called when memory and disk say the same.
    pub(in super::super) fn remove_unused(&self) {
        let mut known = lock(&self.0.known);
        for name in std::mem::take(&mut *lock(&self.0.unused)) {
            if known.get(&name).is_some_and(|stored| stored.strong_count() > 0) {
                continue;
            }
            known.remove(&name);
            let _gone_or_swept_at_the_next_start = fs::remove_file(self.0.path.join(&name));
        }
    }

    /// Removes the files that no object has: what a process that was killed left behind. What someone else put there stays.
    pub(in super::super) fn sweep(&self) -> io::Result<()> {
        let known = lock(&self.0.known);
        for entry in fs::read_dir(&self.0.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = name.len() == NAME && name.bytes().all(|digit| digit.is_ascii_hexdigit());
            if is_ours && entry.file_type()?.is_file() && !known.contains_key(&*name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Content {
    /// Takes bytes, into a file where there is a directory.
    pub(in super::super) fn new(files: Option<&Files>, bytes: Bytes) -> Result<Self, NotKept> {
        Ok(Self(match files {
            Some(files) => Place::File(files.write(&bytes)?),
            None => Place::Memory(bytes),
        }))
    }

    /// Their number.
    pub(in super::super) fn len(&self) -> usize {
        match &self.0 {
            Place::Memory(bytes) => bytes.len(),
            Place::File(stored) => stored.size,
            Place::Recorded(recorded) => recorded.size,
        }
    }

    /// To read from the first byte on.
    pub(in super::super) fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match &self.0 {
            Place::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Place::File(stored) => Box::new(stored.open()?),
            Place::Recorded(recorded) => return Err(io::Error::other(format!("{} is not open", recorded.file))),
        })
    }

    /// Some of the bytes, as a body that reads them while it is sent.
    pub(in super::super) fn body(&self, range: Range<usize>) -> io::Result<Body> {
        let stored = match &self.0 {
            Place::Memory(bytes) => return Ok(Body::from(bytes.slice(range))),
            Place::File(stored) => stored,
            Place::Recorded(recorded) => return Err(io::Error::other(format!("{} is not open", recorded.file))),
        };
        let mut file = stored.open()?;
        file.seek(SeekFrom::Start(range.start as u64))?;
        let part = tokio::fs::File::from_std(file).take(range.len() as u64);
        Ok(Body::from_stream(ReaderStream::with_capacity(part, PIECE)))
    }
}

impl Stored {
    fn open(&self) -> io::Result<File> {
        File::open(self.files.path.join(&self.name))
    }
}
