//! Just enough of the syntax of a PDF.

use super::{PdfError, Result};

/// Goes through bytes from one token to the next, as ISO 32000-2, 7.2 and 7.3 have them.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    /// Where it is in them.
    pub(super) at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at.min(self.bytes.len())..]
    }

    pub(super) fn skip_space(&mut self) {
        loop {
            match self.rest().first() {
                Some(b'%') => {
                    self.at += self
                        .rest()
                        .iter()
                        .take_while(|&&byte| byte != b'\n' && byte != b'\r')
                        .count();
                }
                Some(0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ') => self.at += 1,
                _ => return,
            }
        }
    }

    pub(super) fn word(&mut self, word: &[u8]) -> Result<()> {
        self.skip_space();
        if !self.rest().starts_with(word) {
            return Err(PdfError::Malformed("a keyword is not where it should be"));
        }
        self.at += word.len();
        Ok(())
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        self.skip_space();
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&self.rest()[..digits]).unwrap_or_default();
        let number = text
            .parse()
            .map_err(|_| PdfError::Malformed("a number is not where it should be"))?;
        self.at += digits;
        Ok(number)
    }

    /// `12 0 R`, of which only the object number matters.
    pub(super) fn reference(&mut self) -> Result<u64> {
        let number = self.number()?;
        self.number()?;
        self.word(b"R")?;
        Ok(number)
    }

    /// `[1 2 3]`, at most 4,096 of them.
    pub(super) fn numbers(&mut self) -> Result<Vec<u64>> {
        self.word(b"[")?;
        let mut numbers = Vec::new();
        while self.word(b"]").is_err() {
            if numbers.len() == 4096 {
                return Err(PdfError::Malformed("an array is too long"));
            }
            numbers.push(self.number()?);
        }
        Ok(numbers)
    }

    pub(super) fn name(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        let rest = self.rest().strip_prefix(b"/")?;
        let length = rest.iter().take_while(|&&byte| is_regular(byte)).count();
        self.at += 1 + length;
        Some(&rest[..length])
    }

    /// Goes to the value of a key of the dictionary that begins here.
    pub(super) fn entry(mut self, key: &[u8]) -> Result<Self> {
        const ABSENT: PdfError = PdfError::Malformed("a dictionary lacks a key");
        self.word(b"<<")?;
        while let Some(name) = self.name() {
            if name == key {
                return Ok(self);
            }
            self.skip_value()?;
        }
        Err(ABSENT)
    }

    /// Where the bytes of the stream begin whose dictionary begins here.
    pub(super) fn stream_data(&mut self) -> Result<u64> {
        self.skip_value()?;
        self.word(b"stream")?;
        if self.rest().starts_with(b"\r\n") {
            self.at += 2;
        } else {
            self.at += 1;
        }
        Ok(self.at as u64)
    }

    /// Skips one value. Brackets are counted, not recursed into, so that depth costs no stack.
    fn skip_value(&mut self) -> Result<()> {
        const CUT: PdfError = PdfError::Malformed("an object does not end");
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            let rest = self.rest();
            match rest {
                [] => return Err(CUT),
                [b'<', b'<', ..] | [b'>', b'>', ..] => {
                    self.at += 2;
                    depth = if rest[0] == b'<' {
                        depth + 1
                    } else {
                        depth.checked_sub(1).ok_or(CUT)?
                    };
                }
                [b'[', ..] => {
                    self.at += 1;
                    depth += 1;
                }
                [b']', ..] => {
                    self.at += 1;
                    depth = depth.checked_sub(1).ok_or(CUT)?;
                }
                [b'<', ..] => self.at += rest.iter().position(|&byte| byte == b'>').ok_or(CUT)? + 1,
                [b'(', ..] => self.skip_string()?,
                [b'/', ..] => {
                    self.name();
                }
                _ => {
                    // A number, a keyword, or a reference, which is three words and one value.
                    if Lexer::reference(&mut self.clone()).is_ok() {
                        self.reference()?;
                    } else {
                        let length = rest.iter().take_while(|&&byte| is_regular(byte)).count();
                        self.at += length.max(1);
                    }
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn skip_string(&mut self) -> Result<()> {
        let mut depth = 0_usize;
        let mut escaped = false;
        for (i, &byte) in self.rest().iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += i + 1;
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        Err(PdfError::Malformed("a string does not end"))
    }
}

/// Whether a byte may be part of a name or keyword.
fn is_regular(byte: u8) -> bool {
    !matches!(
        byte,
        0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ' | b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%'
    )
}
