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
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{
    super::server::lock,
    kept::{Change, NotKept},
    sync_directory,
    trouble::Trouble,
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

/// Whether this is how a journal begins, or what was written of one so far.
pub(super) fn begins_one(start: &[u8]) -> bool {
    let length = start.len().min(WHAT.len());
    start[..length] == WHAT.as_bytes()[..length]
}

/// All records that are kept, on the disk; here is where each of them is.
#[derive(Debug)]
pub(in super::super) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
    trouble: Trouble,
    /// Held for as long as this lives.
    _lock: File,
}

#[derive(Debug)]
struct State {
    file: File,
    length: u64,
    records: BTreeMap<String, Range<u64>>,
    /// The bytes of a journal of the current records alone.
    current: u64,
    /// Up to this length nobody tries again to write it anew.
    least: u64,
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
    pub(super) fn open(path: &Path, lock: File, trouble: Trouble) -> Result<Self, Unreadable> {
        let state = match File::options().read(true).write(true).open(path) {
            Ok(file) => State::read(file, &trouble)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                State::empty(write_anew(path, None, &BTreeMap::new())?.0)
            }
            Err(error) => return Err(error.into()),
        };
        let journal = Self {
            path: path.to_owned(),
            state: Mutex::new(state),
            trouble,
            _lock: lock,
        };
        // Of a process that was killed while it wrote.
        match fs::remove_file(journal.path.with_file_name(UNFINISHED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
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
            return Err(self.trouble.for_good(why));
        }
        let Line { text, places, removed } = state.line(changes);
        if places.is_empty() && removed.is_empty() {
            return Ok(());
        }
        self.is_as_it_was_left(&state)
            .map_err(|error| self.trouble.found(&error))?;
        let at = state.length;
        if let Err(error) = state.file.write_all_at(&text, at) {
            // What came to be on the disk of it goes again.
            if let Err(again) = state.file.set_len(at) {
                return Err(self.broken(&mut state, format!("{error}, and then {again}")));
            }
            return Err(self.trouble.found(&error));
        }
        if let Err(error) = state.file.sync_data() {
            // Whether it is there, nobody can say: the system reports such a failure once.
            return Err(self.broken(&mut state, error.to_string()));
        }
        self.trouble.over();
        state.length += text.len() as u64;
        for key in removed {
            if let Some(old) = state.records.remove(&key) {
                state.current -= size_of_line(&key, &old);
            }
        }
        for (key, place) in places {
            let place = at + place.start..at + place.end;
            state.current += size_of_line(&key, &place);
            let old = state.records.get(&key).map(|old| size_of_line(&key, old));
            state.current -= old.unwrap_or_default();
            state.records.insert(key, place);
        }
        if state.length > (2 * state.current + SLACK).max(state.least)
            && let Err(error) = self.compact(&mut state)
        {
            // Each attempt costs as much as all there is: not with every change.
            state.least = state.length + SLACK;
            self.trouble
                .say(&format!("its journal cannot be written anew, and grows on: {error}"));
        }
        Ok(())
    }

    /// Whether memory knows what is on the disk.
    pub(super) fn is_known(&self) -> bool {
        lock(&self.state).broken.is_none()
    }

    /// Writes nothing more: what was read back is not what is there.
    pub(super) fn give_up(&self, error: &io::Error) {
        self.broken(&mut lock(&self.state), format!("it does not read: {error}"));
    }

    fn broken(&self, state: &mut State, why: String) -> NotKept {
        let why = state.broken.insert(why);
        self.trouble.for_good(why)
    }

    /// Whether the journal still has its name, and nobody else has written to it. The lock cannot know: a directory can be removed
    /// with it, and be made again.
    fn is_as_it_was_left(&self, state: &State) -> io::Result<()> {
        let (named, held) = (fs::metadata(&self.path)?, state.file.metadata()?);
        if (named.dev(), named.ino()) != (held.dev(), held.ino()) {
            let message = "another journal is there, which this process does not know";
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        if held.len() != state.length {
            let message = format!(
                "its journal has {} bytes, of which this process wrote {}",
                held.len(),
                state.length
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(())
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn compact(&self, state: &mut State) -> io::Result<()> {
        let (file, records, length) = write_anew(&self.path, Some(&state.file), &state.records)?;
        (state.file, state.records, state.length, state.least) = (file, records, length, 0);
        // The name stands for the new file from now on, and for the old one perhaps after a loss of power.
        sync_directory(self.directory()).inspect_err(|error| {
            self.broken(state, error.to_string());
        })
    }
}

impl State {
    /// Of a file that has its first line and no other.
    fn empty(file: File) -> Self {
        Self {
            file,
            length: header().len() as u64,
            records: BTreeMap::new(),
            current: 0,
            least: 0,
            broken: None,
        }
    }

    fn read(file: File, trouble: &Trouble) -> Result<Self, Unreadable> {
        let mut reader = BufReader::new(file.try_clone()?);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if line != header() {
            let version = String::from_utf8_lossy(line.get(WHAT.len()..).unwrap_or_default());
            return Err(Unreadable::Version(version.trim().to_owned()));
        }
        let mut state = Self::empty(file);
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
                let bytes = line.len();
                trouble.say(&format!(
                    "a change that was not written to its end ({bytes} bytes) is dropped"
                ));
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
        state.current = state.records.iter().map(|(key, place)| size_of_line(key, place)).sum();
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

/// Of the line that a record is when it is alone in it.
fn size_of_line(key: &str, place: &Range<u64>) -> u64 {
    // `{"":}` and the end of the line; what a key has to escape is little.
    (CHECKSUM + key.len() + 6) as u64 + size(place)
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
        if let Err(error) = fs::remove_file(&unfinished)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::body::Bytes;

    use super::*;
    use crate::local_cloud::data::{Content, DataDirectory, Durable, Files, Kept, Sink};

    fn change(key: String, record: &str) -> Vec<Change> {
        let record = Some(record.to_owned());
        vec![Change { key, record }]
    }

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    /// Long keys of short values: what is left after it was written anew is not out of date.
    #[test]
    fn what_is_current_is_not_written_anew_with_every_change() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(directory.path(), |_| {}).unwrap();
        for many in 0..30 {
            let keys = (0..1000).map(|number| format!("{:0300}", many * 1000 + number));
            let changes = keys.flat_map(|key| change(key, "1"));
            data.journal.append(changes.collect()).unwrap();
        }
        let path = directory.path().join("journal");
        let before = inode(&path);
        for value in ["2", "3"] {
            data.journal.append(change("a".to_owned(), value)).unwrap();
            assert_eq!(inode(&path), before);
        }
    }

    /// It is tried again after as much more as is worth while, and said each time.
    #[test]
    fn what_cannot_be_written_anew_is_not_tried_with_every_change() {
        let directory = tempfile::tempdir().unwrap();
        let said = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&said);
        let data = DataDirectory::open(directory.path(), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let data = data.unwrap();
        fs::create_dir(directory.path().join(UNFINISHED)).unwrap();
        let long = |number: usize| format!("\"{}\"", number.to_string().repeat(20_000));
        let mut written = 0;
        for number in 100..500 {
            let long = long(number);
            written += long.len();
            data.journal.append(change("a".to_owned(), &long)).unwrap();
        }
        let attempts = written / usize::try_from(SLACK).unwrap();
        assert!(
            (1..=attempts).contains(&said.load(Ordering::SeqCst)),
            "{said:?} of {attempts}"
        );
        fs::remove_dir(directory.path().join(UNFINISHED)).unwrap();
        for number in 500..600 {
            data.journal.append(change("a".to_owned(), &long(number))).unwrap();
        }
        let length = fs::metadata(directory.path().join("journal")).unwrap().len();
        assert!(length < 2 * SLACK, "{length}");
    }

    struct One(Option<Content>, Arc<Files>);

    impl Durable for One {
        fn drain(&mut self, at: &str, sink: &mut Sink) {
            if let Some(content) = &self.0 {
                sink.put(at, content);
            }
        }

        fn restore(&mut self, at: &str, journal: &Journal) -> io::Result<()> {
            self.0 = journal.read(at)?.pop().map(|(_, content)| content);
            Ok(())
        }

        fn settled(&mut self) {
            self.1.remove_unused();
        }
    }

    /// `/dev/null` takes a line and cannot synchronize it: the line is perhaps there, so the file that it names has to be.
    #[test]
    fn what_a_line_in_doubt_names_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let say: Arc<super::super::Say> = Arc::new(|_: &str| {});
        let trouble = || Trouble::of(directory.path(), &say);
        let null = || File::options().read(true).write(true).open("/dev/null").unwrap();
        let mut state = State::empty(null());
        state.length = 0;
        let journal = Arc::new(Journal {
            path: "/dev/null".into(),
            state: Mutex::new(state),
            trouble: trouble(),
            _lock: null(),
        });
        let files = Arc::new(Files::new(directory.path().to_owned(), trouble()));
        let kept = Kept::new(Some(&journal), "one", One(None, Arc::clone(&files)));
        let content = Content::new(Some(&files), Bytes::from_static(b"bytes")).unwrap();
        let put = kept.change(|one| {
            one.0 = Some(content);
            Ok::<_, NotKept>(())
        });
        put.unwrap_err();
        // A change of nothing is as good as any.
        kept.change(|_| Ok::<_, NotKept>(())).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        kept.change(|one| {
            one.0 = Some(Content::new(Some(&files), Bytes::new())?);
            Ok::<_, NotKept>(())
        })
        .unwrap_err();
    }
}
