//! Where commands put the files they make: DIR/{stem}.{ext}, and DIR/{stem}-2.{ext} where two inputs make one name.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Prints a line on stdout. Nobody may be reading any more (`platen convert … | head`): then the work goes on quietly.
pub(super) fn say(line: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{line}");
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
    let directory = to
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new().prefix(".platen-").tempfile_in(directory)?;
    let mut source = std::fs::File::open(from)?;
    std::io::copy(&mut source, &mut temporary)?;
    publish(temporary, to)
}

/// Gives a temporary file, in the directory of `to`, its name.
pub(super) fn publish(temporary: tempfile::NamedTempFile, to: &Path) -> std::io::Result<()> {
    // A temporary file is made for its owner alone; an output is an ordinary file.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(temporary.path(), mode)?;
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
