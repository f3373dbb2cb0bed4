//! Where commands put the files they make: DIR/{stem}.{ext}, and DIR/{stem}-2.{ext} where two inputs make one name.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Why a line for stdout is lost, where somebody wanted it.
static LOST: OnceLock<ErrorKind> = OnceLock::new();

/// Prints a line on stdout. Nobody may be reading any more (`platen convert … | head`): then the work goes on quietly.
/// Any other failure, such as a full disk, goes on too, and [`lost`] tells it at the end.
pub(super) fn say(line: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.get_or_init(|| error.kind());
    }
}

/// Why something that [`say`] was given is not on stdout.
pub(super) fn lost() -> Option<ErrorKind> {
    LOST.get().copied()
}

/// Prints a line on stderr. Unlike `eprintln!` it does not panic where nobody reads.
pub(super) fn note(line: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{line}");
}

/// A line as a terminal may show it: names of files come from anywhere, and control characters move its cursor.
pub(super) fn plain(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for character in line.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Gives every input its own output path.
#[derive(Debug)]
pub(super) struct Paths {
    directory: PathBuf,
    taken: HashSet<PathBuf>,
}

impl Paths {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            taken: HashSet::new(),
        }
    }

    /// The path for an input, in the order of the command line.
    pub(super) fn next(&mut self, input: &Path, extension: &str) -> PathBuf {
        let stem = input.file_stem().unwrap_or(input.as_os_str());
        let mut number = 1;
        loop {
            let mut name = OsString::from(stem);
            if number > 1 {
                name.push(format!("-{number}"));
            }
            name.push(format!(".{extension}"));
            let path = self.directory.join(name);
            if self.taken.insert(path.clone()) {
                return path;
            }
            number += 1;
        }
    }
}

/// Puts a finished file in its place in one step, so that nobody sees half of it. A file there is replaced.
pub(super) fn place(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut temporary = temporary_beside(to)?;
    let mut source = std::fs::File::open(from)?;
    std::io::copy(&mut source, &mut temporary)?;
    publish(temporary, to)
}

/// A file in the directory of `to`, for [`publish`]. Its mode is an ordinary new file's, which the umask narrows: where
/// that keeps others out, they see no output either.
pub(super) fn temporary_beside(to: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let directory = to
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".platen-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(directory)
}

/// Gives a file of [`temporary_beside`] its name.
pub(super) fn publish(temporary: tempfile::NamedTempFile, to: &Path) -> std::io::Result<()> {
    temporary.persist(to).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_collide_get_numbers() {
        let mut paths = Paths::new(Path::new("out"));
        assert_eq!(paths.next(Path::new("a/q3.docx"), "pdf"), Path::new("out/q3.pdf"));
        assert_eq!(paths.next(Path::new("b/q3.xlsx"), "pdf"), Path::new("out/q3-2.pdf"));
        assert_eq!(paths.next(Path::new("q3-2.odt"), "pdf"), Path::new("out/q3-2-2.pdf"));
        assert_eq!(paths.next(Path::new("q3.odt"), "pdf"), Path::new("out/q3-3.pdf"));
    }
}
