//! Passwords that commands read from files: an argument or a variable would show them to every process.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::Failure;
use crate::google::secret::Secret;
use crate::secrets::LONGEST_PASSWORD;

const LONGEST: u64 = LONGEST_PASSWORD as u64;

/// Reads a password: the one line of a file, or of stdin for `-`, without the line's end.
///
/// # Errors
/// The file cannot be read, is empty, is longer than a password or has a second line.
pub(super) fn read(path: &Path) -> Result<Secret, Failure> {
    let name = if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    };
    let unreadable =
        |error: std::io::Error| Failure::Usage(Some(format!("no password can be read from {name}: {error}")));
    let file: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    // With room for all of it, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * usize::try_from(LONGEST).unwrap_or(0)));
    file.take(LONGEST + 3).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&bytes).map_err(|what| Failure::Usage(Some(format!("{name} {what}: write one password on one line"))))
}

fn parse(bytes: &[u8]) -> Result<Secret, &'static str> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        _ if line.len() as u64 > LONGEST => Err("is longer than a password may be (1,024 bytes)"),
        Err(_) => Err("is not UTF-8"),
        Ok("") => Err("is empty"),
        Ok(text) if text.contains(['\n', '\r', '\0']) => Err("has more than one line"),
        Ok(text) => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        for bytes in [&b" p w "[..], b" p w \n", b" p w \r\n"] {
            assert_eq!(parse(bytes).unwrap().expose(), " p w ");
        }
        for (bytes, what) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"one\ntwo\n", "more than one line"),
            (b"one\n\n", "more than one line"),
            (b"\xff", "UTF-8"),
            (&[b'x'; 1025], "longer"),
        ] {
            assert!(parse(bytes).unwrap_err().contains(what), "{bytes:?}");
        }
    }
}
