//! The journal: a text file of records, appended to, and written anew when most of it is out of date.
//!
//! The first line says what it is. Each line after it is one change, whole or not at all: the CRC32C of what follows in eight
//! hexadecimal digits, a space, and a JSON object of records by key, `null` for one that is gone. A line is on the disk before
//! the change is answered. Only the last one can be torn, and is then dropped.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    super::server::lock,
    kept::{Change, NotKept},
    sync_directory,
};

/// What the first line begins with.
const WHAT: &str = "data of platen local, format ";
pub(super) const VERSION: &str = "1";
/// The file that becomes the journal when it is whole.
pub(super) const UNFINISHED: &str = "journal.new";
/// `xxxxxxxx ` before each change.
const CHECKSUM: usize = 9;
/// What may be out of date, beside as much as is current, before the journal is written anew.
const SLACK: u64 = 4 << 20;

/// Why a journal is not read.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Damaged(String),
    Version(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether a file begins like a journal, of any version.
pub(super) fn is_one(path: &Path) -> io::Result<bool> {
    let mut start = vec![0; WHAT.len()];
    match File::open(path)?.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == WHAT.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// All records that are kept, on the disk; here is where each of them is.
#[derive(Debug)]
pub(in super::super) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
    /// Held for as long as this lives.
    _lock: File,
}

#[derive(Debug)]
struct State {
    file: File,
    length: u64,
    records: BTreeMap<String, Range<u64>>,
    /// The bytes of all records that are current.
    current: u64,
    /// Why nothing more is written: what is on the disk is no longer known.
    broken: Option<String>,
}

/// What is appended.
struct Line {
    text: Vec<u8>,
    /// Where in it each new record is.
    places: Vec<(String, Range<u64>)>,
    removed: Vec<String>,
}

impl Journal {
    pub(super) fn open(path: &Path, lock: File) -> Result<Self, Unreadable> {
        let state = match File::options().read(true).write(true).open(path) {
            Ok(file) => State::read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State {
                file: write_anew(path, None, &BTreeMap::new())?.0,
                length: header().len() as u64,
                records: BTreeMap::new(),
                current: 0,
                broken: None,
            },
            Err(error) => return Err(error.into()),
        };
        let journal = Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            _lock: lock,
        };
        sync_directory(journal.directory())?;
        Ok(journal)
    }

    /// The records whose keys begin like this, in the order of their keys, without that beginning.
    pub(in super::super) fn read<V: DeserializeOwned>(&self, prefix: &str) -> io::Result<Vec<(String, V)>> {
        let state = lock(&self.state);
        let found = state.records.range(prefix.to_owned()..);
        found
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, place)| {
                let record = serde_json::from_slice(&bytes_at(&state.file, place)?)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("record {key}: {error}")))?;
                Ok((key[prefix.len()..].to_owned(), record))
            })
            .collect()
    }

    /// Writes changes down, all of them or none.
    pub(super) fn append(&self, changes: Vec<Change>) -> Result<(), NotKept> {
        let mut state = lock(&self.state);
        if let Some(why) = &state.broken {
            return Err(NotKept(why.clone()));
        }
        let Line { text, places, removed } = state.line(changes);
        if places.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let at = state.length;
        if let Err(error) = state.file.write_all_at(&text, at) {
            // What came to be on the disk of it goes again.
            if let Err(again) = state.file.set_len(at) {
                state.broken = Some(format!("{error}, and then {again}; start again"));
            }
            return Err(NotKept(error.to_string()));
        }
        if let Err(error) = state.file.sync_data() {
            // Whether it is there, nobody can say: the system reports such a failure once.
            let why = format!("{error}; start again when the disk is well");
            state.broken = Some(why.clone());
            return Err(NotKept(why));
        }
        state.length += text.len() as u64;
        for key in removed {
            if let Some(old) = state.records.remove(&key) {
                state.current -= size(&old);
            }
        }
        for (key, place) in places {
            let place = at + place.start..at + place.end;
            state.current += size(&place);
            if let Some(old) = state.records.insert(key, place) {
                state.current -= size(&old);
            }
        }
        if state.length > 2 * state.current + SLACK
            && let Err(error) = self.compact(&mut state)
        {
            tracing::warn!(%error, "the journal of the data directory cannot be written anew, and grows on");
        }
        Ok(())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn compact(&self, state: &mut State) -> io::Result<()> {
        let (file, records, length) = write_anew(&self.path, Some(&state.file), &state.records)?;
        (state.file, state.records, state.length) = (file, records, length);
        // The name stands for the new file from now on, and for the old one perhaps after a loss of power.
        sync_directory(self.directory()).inspect_err(|error| state.broken = Some(format!("{error}; start again")))
    }
}

impl State {
    fn read(file: File) -> Result<Self, Unreadable> {
        let mut reader = BufReader::new(file.try_clone()?);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if line != header() {
            let version = String::from_utf8_lossy(line.get(WHAT.len()..).unwrap_or_default());
            return Err(Unreadable::Version(version.trim().to_owned()));
        }
        let mut state = Self {
            file,
            length: line.len() as u64,
            records: BTreeMap::new(),
            current: 0,
            broken: None,
        };
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let Some(records) = records_of(&line) else {
                if !reader.fill_buf()?.is_empty() {
                    return Err(Unreadable::Damaged(format!(
                        "its journal does not read from byte {}",
                        state.length
                    )));
                }
                tracing::warn!(
                    bytes = line.len(),
                    "a change that was not written to its end is dropped"
                );
                state.file.set_len(state.length)?;
                state.file.sync_all()?;
                break;
            };
            for (key, value) in records {
                match value {
                    Some(place) => {
                        let place = state.length + place.start..state.length + place.end;
                        state.records.insert(key, place);
                    }
                    None => drop(state.records.remove(&key)),
                }
            }
            state.length += line.len() as u64;
        }
        state.current = state.records.values().map(size).sum();
        Ok(state)
    }

    /// The line of these changes. A record that is there already, just so, is left out.
    fn line(&self, changes: Vec<Change>) -> Line {
        let (mut text, mut places, mut removed) = (vec![b'{'], Vec::new(), Vec::new());
        for Change { key, record } in changes {
            let there = self.records.get(&key);
            let is_so = match (&record, there) {
                (None, there) => there.is_none(),
                (Some(record), Some(there)) => {
                    size(there) == record.len() as u64
                        && bytes_at(&self.file, there).is_ok_and(|old| old == record.as_bytes())
                }
                (Some(_), None) => false,
            };
            if is_so {
                continue;
            }
            if text.len() > 1 {
                text.push(b',');
            }
            text.extend(serde_json::Value::from(key.as_str()).to_string().as_bytes());
            text.push(b':');
            let start = (CHECKSUM + text.len()) as u64;
            match record {
                Some(record) => {
                    text.extend(record.as_bytes());
                    places.push((key, start..(CHECKSUM + text.len()) as u64));
                }
                None => {
                    text.extend(b"null");
                    removed.push(key);
                }
            }
        }
        text.push(b'}');
        Line {
            text: framed(&text),
            places,
            removed,
        }
    }
}

fn header() -> Vec<u8> {
    format!("{WHAT}{VERSION}\n").into_bytes()
}

fn framed(text: &[u8]) -> Vec<u8> {
    let mut line = format!("{:08x} ", crc32c::crc32c(text)).into_bytes();
    line.extend(text);
    line.push(b'\n');
    line
}

fn size(place: &Range<u64>) -> u64 {
    place.end - place.start
}

fn bytes_at(file: &File, place: &Range<u64>) -> io::Result<Vec<u8>> {
    let size = usize::try_from(size(place)).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, place.start)?;
    Ok(bytes)
}

/// The records of a line, and where in it they are; none for a line that is not as it was written.
fn records_of(line: &[u8]) -> Option<BTreeMap<String, Option<Range<u64>>>> {
    let (checksum, text) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM)?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?, 16).ok()?;
    if checksum != crc32c::crc32c(text) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let records: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let place = |value: &RawValue| {
        let start = CHECKSUM + (value.get().as_ptr().addr() - text.as_ptr().addr());
        (value.get() != "null").then(|| start as u64..(start + value.get().len()) as u64)
    };
    Some(records.into_iter().map(|(key, value)| (key, place(value))).collect())
}

/// Writes a journal of these records alone in place of what is there, which the caller has to make sure of; the file, where they are in it, and its length.
fn write_anew(
    path: &Path,
    from: Option<&File>,
    records: &BTreeMap<String, Range<u64>>,
) -> io::Result<(File, BTreeMap<String, Range<u64>>, u64)> {
    let unfinished = path.with_file_name(UNFINISHED);
    let write = || -> io::Result<_> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut writer = io::BufWriter::new(options.open(&unfinished)?);
        writer.write_all(&header())?;
        let mut length = header().len() as u64;
        let mut places = BTreeMap::new();
        for (key, place) in records {
            let Some(from) = from else { break };
            let mut text = format!("{{{}:", serde_json::Value::from(key.as_str())).into_bytes();
            let start = length + (CHECKSUM + text.len()) as u64;
            text.extend(bytes_at(from, place)?);
            text.push(b'}');
            places.insert(key.clone(), start..start + size(place));
            let line = framed(&text);
            writer.write_all(&line)?;
            length += line.len() as u64;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok((file, places, length))
    };
    let written = write();
    if written.is_err() {
        // The next attempt would replace it; a full disk wants it gone now.
        let _left_behind = fs::remove_file(&unfinished);
    }
    written
}
