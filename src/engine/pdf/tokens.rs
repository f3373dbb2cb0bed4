//! Goes through a PDF from its first byte to its last, one token at a time, with bounded memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::time::Instant;

use super::protect::{Cipher, hex};
use super::{PdfError, Result};

/// The most that one object takes without its stream, in bytes: the tree of structure of ten thousand pages takes five
/// million.
const LARGEST: usize = 16 << 20;
/// Containers in each other: ISO 32000-2 has no limit, and LibreOffice needs nine.
const DEEPEST: usize = 100;

const TOO_LARGE: PdfError = PdfError::Malformed("an object is too large");

/// A file, where it is read, and until when.
pub(super) struct Tokens {
    reader: BufReader<File>,
    /// The offset of the next byte.
    pub(super) at: u64,
    deadline: Instant,
}

/// What stands next, without the space before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// `<<`
    OpenDictionary,
    /// `>>`
    CloseDictionary,
    /// `[`
    OpenArray,
    /// `]`
    CloseArray,
    /// A name without its slash, as it is written.
    Name(Vec<u8>),
    /// The bytes that a string stands for.
    Text(Vec<u8>),
    /// A number or a keyword.
    Word(Vec<u8>),
}

/// An object, written anew: with its strings encrypted, if they are to be.
pub(super) enum Object {
    /// Its entries by name, in their order.
    Dictionary(Vec<(Vec<u8>, Vec<u8>)>),
    /// Anything else.
    Other(Vec<u8>),
}

impl Tokens {
    pub(super) fn new(file: File, at: u64, deadline: Instant) -> Result<Self> {
        let mut reader = BufReader::with_capacity(256 << 10, file);
        reader.seek(SeekFrom::Start(at))?;
        Ok(Self { reader, at, deadline })
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        Ok(self.reader.fill_buf()?.first().copied())
    }

    fn skip(&mut self) {
        self.reader.consume(1);
        self.at += 1;
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.peek()?.ok_or(PdfError::Malformed("it ends inside an object"))?;
        self.skip();
        Ok(byte)
    }

    /// Goes to the next token. Comments are space.
    pub(super) fn skip_space(&mut self) -> Result<()> {
        let mut comment = false;
        while let Some(byte) = self.peek()? {
            comment = match byte {
                b'\n' | b'\r' => false,
                b'%' => true,
                _ if comment || is_space(byte) => comment,
                _ => return Ok(()),
            };
            self.skip();
        }
        Ok(())
    }

    pub(super) fn next(&mut self) -> Result<Token> {
        self.skip_space()?;
        Ok(match self.byte()? {
            b'<' if self.peek()? == Some(b'<') => {
                self.skip();
                Token::OpenDictionary
            }
            b'>' if self.peek()? == Some(b'>') => {
                self.skip();
                Token::CloseDictionary
            }
            b'[' => Token::OpenArray,
            b']' => Token::CloseArray,
            b'/' => Token::Name(self.regular(None)?),
            b'(' => Token::Text(self.literal()?),
            b'<' => Token::Text(self.hexadecimal()?),
            byte if is_regular(byte) => Token::Word(self.regular(Some(byte))?),
            _ => return Err(PdfError::Malformed("a token is none")),
        })
    }

    pub(super) fn number(&mut self) -> Result<u64> {
        match self.next()? {
            Token::Word(word) => digits(&word),
            _ => Err(PdfError::Malformed("a number is not where it should be")),
        }
    }

    pub(super) fn word(&mut self, wanted: &[u8]) -> Result<()> {
        match self.next()? {
            Token::Word(word) if word == wanted => Ok(()),
            _ => Err(PdfError::Malformed("a keyword is not where it should be")),
        }
    }

    fn regular(&mut self, first: Option<u8>) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = first.into_iter().collect();
        while let Some(byte) = self.peek()?.filter(|byte| is_regular(*byte)) {
            bytes.push(byte);
            self.skip();
            // A name has at most 127 bytes, a number fewer (ISO 32000-1, annex C).
            if bytes.len() > 1024 {
                return Err(TOO_LARGE);
            }
        }
        Ok(bytes)
    }

    /// A string in parentheses (ISO 32000-2, 7.3.4.2).
    fn literal(&mut self) -> Result<Vec<u8>> {
        let (mut bytes, mut depth) = (Vec::new(), 0_usize);
        while bytes.len() <= LARGEST {
            match self.byte()? {
                b')' if depth == 0 => return Ok(bytes),
                b')' => {
                    depth -= 1;
                    bytes.push(b')');
                }
                b'(' => {
                    depth += 1;
                    bytes.push(b'(');
                }
                b'\\' => self.escaped(&mut bytes)?,
                // Whatever ends a line is a line feed.
                b'\r' => {
                    self.skip_line_feed()?;
                    bytes.push(b'\n');
                }
                byte => bytes.push(byte),
            }
        }
        Err(TOO_LARGE)
    }

    fn escaped(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        match self.byte()? {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'b' => bytes.push(8),
            b'f' => bytes.push(12),
            b'\n' => {}
            b'\r' => self.skip_line_feed()?,
            digit @ b'0'..=b'7' => {
                let mut value = digit - b'0';
                for _ in 0..2 {
                    if let Some(digit @ b'0'..=b'7') = self.peek()? {
                        // What overflows is ignored.
                        value = value.wrapping_mul(8).wrapping_add(digit - b'0');
                        self.skip();
                    }
                }
                bytes.push(value);
            }
            byte => bytes.push(byte),
        }
        Ok(())
    }

    fn skip_line_feed(&mut self) -> Result<()> {
        if self.peek()? == Some(b'\n') {
            self.skip();
        }
        Ok(())
    }

    /// A string in angle brackets (7.3.4.3).
    fn hexadecimal(&mut self) -> Result<Vec<u8>> {
        let (mut bytes, mut half) = (Vec::new(), None);
        while bytes.len() <= LARGEST {
            let value = match self.byte()? {
                b'>' => {
                    // A digit that is missing is 0.
                    bytes.extend(half.map(|high| high << 4));
                    return Ok(bytes);
                }
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                digit @ b'A'..=b'F' => digit - b'A' + 10,
                byte if is_space(byte) => continue,
                _ => return Err(PdfError::Malformed("a string is not hexadecimal")),
            };
            match half.take() {
                None => half = Some(value),
                Some(high) => bytes.push(high << 4 | value),
            }
        }
        Err(TOO_LARGE)
    }

    /// An object, and the keyword after it.
    pub(super) fn object(&mut self, cipher: Option<&Cipher>) -> Result<(Object, Vec<u8>)> {
        if Instant::now() >= self.deadline {
            return Err(PdfError::TooLong);
        }
        let begin = self.at;
        let mut containers = Vec::new();
        let mut entries: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let (mut value, mut is_dictionary) = (Vec::new(), false);
        loop {
            if self.at - begin > LARGEST as u64 {
                return Err(TOO_LARGE);
            }
            let token = self.next()?;
            let outermost = is_dictionary && containers.len() == 1;
            match &token {
                Token::OpenDictionary | Token::OpenArray => {
                    containers.push(token == Token::OpenDictionary);
                    if containers.len() > DEEPEST {
                        return Err(PdfError::Malformed("its containers are too deep"));
                    }
                    if containers.len() == 1 && value.is_empty() && entries.is_empty() && !is_dictionary {
                        is_dictionary = token == Token::OpenDictionary;
                        if is_dictionary {
                            continue;
                        }
                    }
                }
                Token::CloseDictionary | Token::CloseArray => {
                    if containers.pop() != Some(token == Token::CloseDictionary) {
                        return Err(PdfError::Malformed("its containers do not fit together"));
                    }
                    if is_dictionary && containers.is_empty() {
                        continue;
                    }
                }
                // A name is a key where a value is complete: after another key's.
                Token::Name(name) if outermost && entries.last().is_none_or(|(_, value)| !value.is_empty()) => {
                    entries.push((name.clone(), Vec::new()));
                    continue;
                }
                Token::Word(word)
                    if containers.is_empty() && matches!(word.as_slice(), b"endobj" | b"stream" | b"startxref") =>
                {
                    let object = if is_dictionary {
                        Object::Dictionary(entries)
                    } else {
                        Object::Other(value)
                    };
                    let Token::Word(word) = token else {
                        return Err(TOO_LARGE);
                    };
                    return Ok((object, word));
                }
                _ => {}
            }
            let to = if is_dictionary {
                let outside = PdfError::Malformed("a dictionary has a value without a name");
                &mut entries.last_mut().filter(|_| !containers.is_empty()).ok_or(outside)?.1
            } else {
                &mut value
            };
            token.write(to, cipher)?;
        }
    }

    /// The bytes of a stream, from the keyword on.
    pub(super) fn stream(&mut self, length: u64) -> Result<impl Read> {
        // The keyword is followed by a line feed, with or without a carriage return before it (7.3.8.1).
        if self.peek()? == Some(b'\r') {
            self.skip();
        }
        if self.byte()? != b'\n' {
            return Err(PdfError::Malformed("a stream does not begin on its own line"));
        }
        self.at = self.at.checked_add(length).ok_or(TOO_LARGE)?;
        Ok(Timed {
            reader: (&mut self.reader).take(length),
            deadline: self.deadline,
        })
    }
}

/// Reads all that there is, and no longer than to its deadline.
struct Timed<R> {
    reader: R,
    deadline: Instant,
}

impl<R: Read> Read for Timed<std::io::Take<R>> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match self.reader.read(buffer)? {
            0 if self.reader.limit() > 0 && !buffer.is_empty() => Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

impl Token {
    fn write(&self, to: &mut Vec<u8>, cipher: Option<&Cipher>) -> Result<()> {
        match self {
            Self::OpenDictionary => to.extend(b"<<"),
            Self::CloseDictionary => to.extend(b">>"),
            Self::OpenArray => to.push(b'['),
            Self::CloseArray => to.push(b']'),
            Self::Name(name) => {
                to.push(b'/');
                to.extend(name);
                if name.is_empty() {
                    // Or a number after it would be the name.
                    to.push(b' ');
                }
            }
            Self::Text(bytes) => match cipher {
                Some(cipher) => write!(to, "<{}>", hex(&cipher.string(bytes)?))?,
                None => write!(to, "<{}>", hex(bytes))?,
            },
            Self::Word(word) => {
                if to.last().is_some_and(|&last| is_regular(last)) {
                    to.push(b' ');
                }
                to.extend(word);
            }
        }
        Ok(())
    }
}

/// A whole number.
pub(super) fn digits(word: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(word).ok().filter(|text| !text.starts_with('+'));
    text.and_then(|text| text.parse().ok())
        .ok_or(PdfError::Malformed("a number is not where it should be"))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

fn is_regular(byte: u8) -> bool {
    !is_space(byte) && !b"()<>[]{}/%".contains(&byte)
}
