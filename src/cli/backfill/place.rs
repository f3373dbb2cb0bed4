//! How far a backfill came, in a file of its own, so that the same command goes on there after whatever ended it.
//!
//! A file a command, in the user's state directory, one JSON a line. The first line is the command; each request is
//! noted before it is sent and after it was answered, and a line that a kill cut short counts as not written. It goes
//! with the last job. The file is locked as long as the command runs: two at once would publish everything twice.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cli::Failure;
use crate::cli::output::{note, plain};

/// How far it came.
#[derive(Default)]
pub(super) struct Place {
    file: Option<(File, PathBuf)>,
    after: Option<String>,
    /// Jobs that earlier runs published.
    before: u64,
    /// Jobs that the last run had sent and had no answer for: they may be published.
    doubtful: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Line {
    /// Jobs that are about to be sent, and the name of the last one's object.
    Publishing(u64, String),
    /// Jobs that are published, and the name behind which it goes on.
    Published(u64, String),
}

impl Place {
    /// Behind this name, kept nowhere.
    pub(super) fn behind(name: &str) -> Self {
        Self {
            after: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// Where the last run of this command ended, for a look.
    pub(super) fn look(command: &Value) -> Self {
        let read = |path: &PathBuf| {
            let mut place = Self::default();
            place.read(&File::open(path)?, command)?;
            Ok::<_, std::io::Error>(place)
        };
        path(command).and_then(|path| read(&path).ok()).unwrap_or_default()
    }

    /// The same, kept from now on; or from `anew` on, a name, or nothing for the beginning.
    ///
    /// # Errors
    /// When another run of this command is under way.
    pub(super) fn keep(command: &Value, anew: Option<&str>) -> Result<Self, Failure> {
        let mut place = Self {
            after: anew.filter(|name| !name.is_empty()).map(str::to_owned),
            ..Self::default()
        };
        let Some(path) = path(command) else {
            note("platen: neither XDG_STATE_HOME nor HOME is set, so how far it came is not kept");
            return Ok(place);
        };
        match place.open(&path, command, anew) {
            Ok(file) => place.file = Some((file, path)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Failure::Work(Some(
                    "this very backfill is under way already".to_owned(),
                )));
            }
            Err(error) => note(&format!(
                "platen: {} cannot be written, so how far it came is not kept: {error}",
                path.display()
            )),
        }
        Ok(place)
    }

    fn open(&mut self, path: &Path, command: &Value, anew: Option<&str>) -> std::io::Result<File> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // Objects' names are nobody else's business.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let whole = match anew {
            None => self.read(&file, command)?,
            Some(_) => 0,
        };
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        if whole == 0 {
            writeln!(file, "{command}")?;
            if let Some(name) = &self.after {
                writeln!(file, "{}", serde_json::to_string(&Line::Published(0, name.clone()))?)?;
            }
        }
        Ok(file)
    }

    /// Reads what the file says, and gives the bytes of its whole lines; nothing, if it is another command's.
    fn read(&mut self, file: &File, command: &Value) -> std::io::Result<u64> {
        let (mut reader, mut line, mut whole) = (BufReader::new(file), Vec::new(), 0);
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            if whole == 0 && serde_json::from_slice::<Value>(&line).ok().as_ref() != Some(command) {
                return Ok(0);
            }
            match serde_json::from_slice(&line) {
                Ok(Line::Publishing(jobs, _)) => self.doubtful = jobs,
                Ok(Line::Published(jobs, name)) => {
                    (self.doubtful, self.before, self.after) = (0, self.before + jobs, Some(name));
                }
                Err(_) if whole == 0 => {}
                Err(_) => break,
            }
            whole += line.len() as u64;
            line.clear();
        }
        Ok(whole)
    }

    /// The name behind which it goes on.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Says where it begins, if that is not the beginning.
    pub(super) fn tell(&self, bucket: &str) {
        let Some(after) = &self.after else { return };
        note(&plain(&format!(
            "going on behind gs://{bucket}/{after}, {} jobs were published before; --restart begins anew",
            self.before
        )));
        if self.doubtful > 0 {
            note(&format!(
                "up to {} jobs behind it were being published when that run ended, and may come twice; no worker \
                 converts one twice",
                self.doubtful
            ));
        }
    }

    /// Notes that jobs are about to be sent, up to the one of the object `through`.
    pub(super) fn begin(&mut self, jobs: usize, through: &str) {
        self.write(&Line::Publishing(jobs as u64, through.to_owned()));
    }

    /// Notes that they are published.
    pub(super) fn done(&mut self, jobs: usize, through: &str) {
        self.after = Some(through.to_owned());
        self.write(&Line::Published(jobs as u64, through.to_owned()));
    }

    fn write(&mut self, line: &Line) {
        let Some((file, path)) = &mut self.file else { return };
        let written = serde_json::to_string(line)
            .map_err(std::io::Error::from)
            .and_then(|line| file.write_all(format!("{line}\n").as_bytes()))
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            note(&format!(
                "platen: {} takes no more, so how far it came is not kept from here on: {error}",
                path.display()
            ));
            self.file = None;
        }
    }

    /// Everything is published: the next run begins anew.
    pub(super) fn finish(self) {
        if let Some((_file, path)) = self.file
            && let Err(error) = std::fs::remove_file(&path)
        {
            note(&format!("platen: {} cannot be removed: {error}", path.display()));
        }
    }

    /// How to go on after a failure.
    pub(super) fn advice(&self) -> String {
        match (&self.file, &self.after) {
            (_, None) => String::new(),
            (Some(_), Some(_)) => ". Run the same command again to go on from there".to_owned(),
            (None, Some(after)) => {
                let after = plain(after).replace('\'', r"'\''");
                format!(". Go on with --start-after '{after}'")
            }
        }
    }
}

/// Where the command's file is.
/// Source: specifications.freedesktop.org/basedir-spec.
fn path(command: &Value) -> Option<PathBuf> {
    let directory = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    let digest = Sha256::digest(command.to_string().as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(state.join("platen").join(format!("backfill-{name}.jsonl")))
}
