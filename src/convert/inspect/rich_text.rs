//! Rich text: every group must be closed, or the file was cut.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::{DocumentKind, Format, Subject};
use crate::error::Step;

/// The longest control word is `\bin` with ten digits or some thirty letters; a longer one is skipped all the same.
const LONGEST_WORD: usize = 48;

pub(super) fn inspect(subject: &Subject<'_>, file: File) -> Step<DocumentKind> {
    let mut reader = BufReader::new(file);
    let mut groups = Groups::default();
    loop {
        let chunk = reader.fill_buf().map_err(|error| subject.unreadable(&error))?;
        if chunk.is_empty() {
            break;
        }
        let length = chunk.len();
        for &byte in chunk {
            groups.take(byte);
            if groups.depth > subject.limits.nesting {
                return Err(subject.too_deep("nests its groups too deep"));
            }
            if groups.closed {
                // What follows is not read by anyone.
                return Ok(DocumentKind::new(Format::Rtf));
            }
        }
        reader.consume(length);
    }
    Err(subject.corrupt("is cut short: its closing brace is missing"))
}

/// Counts the open groups (Rich Text Format 1.9.1, "Syntax").
#[derive(Default)]
struct Groups {
    depth: usize,
    closed: bool,
    escape: bool,
    word: Vec<u8>,
    /// Bytes of `\bin` data that are left.
    binary: u64,
}

impl Groups {
    fn take(&mut self, byte: u8) {
        if self.binary > 0 {
            self.binary -= 1;
            return;
        }
        if self.escape {
            self.escape = false;
            if byte.is_ascii_alphabetic() {
                self.word.push(byte);
            }
            return;
        }
        if !self.word.is_empty() {
            let numeric = byte.is_ascii_digit() || byte == b'-';
            if numeric || byte.is_ascii_alphabetic() {
                if self.word.len() < LONGEST_WORD {
                    self.word.push(byte);
                }
                return;
            }
            self.binary = binary_length(&self.word);
            self.word.clear();
            if self.binary > 0 {
                // One space may end the word; any other byte is data already.
                if byte != b' ' {
                    self.binary -= 1;
                }
                return;
            }
        }
        match byte {
            b'\\' => self.escape = true,
            b'{' => self.depth += 1,
            b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.closed = self.depth == 0;
            }
            _ => {}
        }
    }
}

fn binary_length(word: &[u8]) -> u64 {
    word.strip_prefix(b"bin")
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &[u8]) -> bool {
        let mut groups = Groups::default();
        text.iter().any(|&byte| {
            groups.take(byte);
            groups.closed
        })
    }

    #[test]
    fn braces_that_are_text_or_data_do_not_count() {
        assert!(closed(br"{\rtf1 {\b bold}}"));
        assert!(!closed(br"{\rtf1 {\b bold}"));
        assert!(!closed(br"{\rtf1 \}"));
        assert!(closed(br"{\rtf1 \{}"));
        assert!(!closed(br"{\rtf1 \bin3 }}}"));
        assert!(closed(br"{\rtf1 \bin3 }}}}"));
        assert!(closed(br"{\rtf1 \par}"));
        assert!(!closed(br"{\rtf1 \\\}"));
        assert!(closed(br"{\rtf1 \\}"));
    }
}
