//! A streaming look at XML: how deep, whether complete, and its start tags one by one.
//!
//! Not a parser: LibreOffice has one. It holds one tag at a time and never a document, so that a part of any size
//! costs the same memory.

use std::borrow::Cow;

/// A longer tag is cut for the visitor; what is looked for is far shorter.
const LONGEST_TAG: usize = 16 << 10;

/// Scans one XML document, fed in chunks.
pub(super) struct Scanner {
    encoding: Encoding,
    state: State,
    /// The tag being read, from after its `<`.
    tag: Vec<u8>,
    last: u8,
    depth: usize,
    limit: usize,
    elements: bool,
    entities: bool,
}

/// The document goes deeper than allowed.
#[derive(Debug)]
pub(super) struct TooDeep;

/// A start tag.
pub(super) struct Tag<'a>(&'a [u8]);

enum Encoding {
    Unknown,
    /// UTF-8 and everything else in which markup is ASCII.
    Narrow,
    /// UTF-16, with a byte left over from the chunk before.
    Wide {
        big_endian: bool,
        half: Option<u8>,
    },
}

#[derive(Clone, Copy)]
enum State {
    Text,
    Markup,
    Quoted(u8),
    Comment,
    Cdata,
    Instruction,
    Doctype { depth: usize, quote: u8 },
}

impl Scanner {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            encoding: Encoding::Unknown,
            state: State::Text,
            tag: Vec::new(),
            last: 0,
            depth: 0,
            limit,
            elements: false,
            entities: false,
        }
    }

    /// Whether an entity was declared, which no document format needs and every expansion attack does.
    pub(super) fn declares_entities(&self) -> bool {
        self.entities
    }

    /// Whether there was an element and every element was closed.
    pub(super) fn complete(&self) -> bool {
        self.elements && self.depth == 0 && matches!(self.state, State::Text)
    }

    /// Takes the next chunk. The first should have two bytes, which tell the encoding.
    pub(super) fn feed(&mut self, chunk: &[u8], visit: &mut dyn FnMut(&Tag<'_>)) -> Result<(), TooDeep> {
        if matches!(self.encoding, Encoding::Unknown) {
            self.encoding = match chunk {
                [0xff, 0xfe, ..] | [b'<', 0, ..] => Encoding::Wide {
                    big_endian: false,
                    half: None,
                },
                [0xfe, 0xff, ..] | [0, b'<', ..] => Encoding::Wide {
                    big_endian: true,
                    half: None,
                },
                _ => Encoding::Narrow,
            };
        }
        let narrow = self.encoding.narrow(chunk);
        let mut rest = &*narrow;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match self.state {
                State::Text => match find(b'<', byte, after) {
                    Some(after) => {
                        rest = after;
                        self.tag.clear();
                        self.state = State::Markup;
                    }
                    None => break,
                },
                State::Markup => self.markup(byte, visit)?,
                State::Quoted(quote) => {
                    self.keep(byte);
                    if byte == quote {
                        self.state = State::Markup;
                    }
                }
                State::Comment => self.end_at(byte, b"--"),
                State::Cdata => self.end_at(byte, b"]]"),
                State::Instruction => self.end_at(byte, b"?"),
                State::Doctype { depth, quote } => self.doctype(byte, depth, quote),
            }
        }
        Ok(())
    }

    fn markup(&mut self, byte: u8, visit: &mut dyn FnMut(&Tag<'_>)) -> Result<(), TooDeep> {
        match byte {
            b'>' => {
                self.state = State::Text;
                return self.element(visit);
            }
            b'"' | b'\'' if !self.tag.starts_with(b"/") => self.state = State::Quoted(byte),
            _ => {}
        }
        self.keep(byte);
        match &*self.tag {
            b"?" => self.enter(State::Instruction),
            b"!--" => self.enter(State::Comment),
            b"![CDATA[" => self.enter(State::Cdata),
            [b'!', ..] if !b"!--".starts_with(&self.tag) && !b"![CDATA[".starts_with(&self.tag) => {
                self.state = State::Doctype { depth: 1, quote: 0 };
            }
            _ => {}
        }
        Ok(())
    }

    fn element(&mut self, visit: &mut dyn FnMut(&Tag<'_>)) -> Result<(), TooDeep> {
        if self.tag.starts_with(b"/") {
            self.depth = self.depth.saturating_sub(1);
            return Ok(());
        }
        self.elements = true;
        visit(&Tag(&self.tag));
        if self.last != b'/' {
            self.depth += 1;
        }
        if self.depth > self.limit { Err(TooDeep) } else { Ok(()) }
    }

    /// Inside a document type: up to the `>` that closes it, over those of its declarations.
    fn doctype(&mut self, byte: u8, depth: usize, quote: u8) {
        self.keep_end(byte);
        if self.tag.ends_with(b"<!ENTITY") {
            self.entities = true;
        }
        let (depth, quote) = match (byte, quote) {
            (b'"' | b'\'', 0) => (depth, byte),
            (_, 0) if byte == b'<' => (depth + 1, 0),
            (_, 0) if byte == b'>' => (depth - 1, 0),
            (_, open) if open == byte => (depth, 0),
            (_, open) => (depth, open),
        };
        self.state = if depth == 0 {
            State::Text
        } else {
            State::Doctype { depth, quote }
        };
    }

    fn enter(&mut self, state: State) {
        self.tag.clear();
        self.state = state;
    }

    /// Ends a comment or its like at `>` after `terminator`.
    fn end_at(&mut self, byte: u8, terminator: &[u8]) {
        if byte == b'>' && self.tag.ends_with(terminator) {
            self.state = State::Text;
        }
        self.keep_end(byte);
    }

    fn keep(&mut self, byte: u8) {
        self.last = byte;
        if self.tag.len() < LONGEST_TAG {
            self.tag.push(byte);
        }
    }

    /// Keeps the last few bytes only.
    fn keep_end(&mut self, byte: u8) {
        if self.tag.len() >= 64 {
            self.tag.drain(..48);
        }
        self.tag.push(byte);
    }
}

/// What follows the first `wanted` in `first` and `rest`.
fn find(wanted: u8, first: u8, rest: &[u8]) -> Option<&[u8]> {
    if first == wanted {
        return Some(rest);
    }
    rest.iter().position(|&byte| byte == wanted).map(|at| &rest[at + 1..])
}

impl Encoding {
    fn narrow<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        let Self::Wide { big_endian, half } = self else {
            return Cow::Borrowed(chunk);
        };
        let mut narrow = Vec::with_capacity(chunk.len() / 2 + 1);
        for &byte in chunk {
            match half.take() {
                None => *half = Some(byte),
                Some(first) => {
                    let (high, low) = if *big_endian { (first, byte) } else { (byte, first) };
                    // Markup and every name that is looked for is ASCII.
                    narrow.push(if high == 0 && low.is_ascii() { low } else { b'_' });
                }
            }
        }
        Cow::Owned(narrow)
    }
}

impl Tag<'_> {
    /// The element's name without its prefix.
    pub(super) fn name(&self) -> &[u8] {
        local(self.prefixed_name())
    }

    /// The element's name with its prefix.
    pub(super) fn prefixed_name(&self) -> &[u8] {
        let end = self
            .0
            .iter()
            .position(|byte| byte.is_ascii_whitespace() || *byte == b'/');
        &self.0[..end.unwrap_or(self.0.len())]
    }

    /// The value of the attribute with this name (prefix aside), with the predefined entities resolved.
    pub(super) fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.0;
        loop {
            let equals = rest.iter().position(|&byte| byte == b'=')?;
            let name = rest[..equals].trim_ascii();
            let start = name.iter().rposition(u8::is_ascii_whitespace).map_or(0, |at| at + 1);
            let value = rest[equals + 1..].trim_ascii_start();
            let (&quote, value) = value.split_first()?;
            let end = value.iter().position(|&byte| byte == quote)?;
            if local(&name[start..]) == wanted.as_bytes() {
                let value = String::from_utf8_lossy(&value[..end]);
                return Some(
                    value
                        .replace("&lt;", "<")
                        .replace("&gt;", ">")
                        .replace("&quot;", "\"")
                        .replace("&apos;", "'")
                        .replace("&amp;", "&"),
                );
            }
            rest = &value[end + 1..];
        }
    }
}

fn local(name: &[u8]) -> &[u8] {
    name.iter()
        .position(|&byte| byte == b':')
        .map_or(name, |at| &name[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of cutting the document into two chunks gives the same.
    fn scan(document: &[u8]) -> (Vec<String>, bool, bool) {
        let whole = scan_cut(document, document.len());
        for cut in 2..document.len() {
            assert_eq!(scan_cut(document, cut), whole, "cut at {cut}");
        }
        whole
    }

    fn scan_cut(document: &[u8], cut: usize) -> (Vec<String>, bool, bool) {
        let mut scanner = Scanner::new(10);
        let mut names = Vec::new();
        let mut visit = |tag: &Tag<'_>| names.push(String::from_utf8_lossy(tag.name()).into_owned());
        scanner.feed(&document[..cut], &mut visit).unwrap();
        scanner.feed(&document[cut..], &mut visit).unwrap();
        (names, scanner.complete(), scanner.declares_entities())
    }

    #[test]
    fn sees_elements_and_nothing_else_as_elements() {
        let document =
            br#"<?xml version="1.0"?><!-- <no> -- > --><a:b x="<>/>"><![CDATA[<no></a>]]]><c/>t<d y='"'></d></a:b>"#;
        assert_eq!(
            scan(document),
            (vec!["b".to_owned(), "c".to_owned(), "d".to_owned()], true, false)
        );
    }

    #[test]
    fn an_open_element_is_not_complete() {
        assert_eq!(
            scan(b"<a><b></b>"),
            (vec!["a".to_owned(), "b".to_owned()], false, false)
        );
        assert!(!scan(b"<a></a><!-- ").1);
        assert!(!scan(b"  ").1);
    }

    #[test]
    fn entity_declarations_are_seen_and_a_plain_doctype_is_not_one() {
        assert!(scan(br#"<!DOCTYPE a [<!ELEMENT a ANY><!ENTITY % b SYSTEM "file:///x>">]><a/>"#).2);
        let (names, complete, entities) = scan(br#"<!DOCTYPE a PUBLIC "-//x//" "y.dtd"><a></a>"#);
        assert_eq!((names.len(), complete, entities), (1, true, false));
    }

    #[test]
    fn utf_16_reads_like_utf_8() {
        let text = "\u{feff}<?xml version=\"1.0\"?><æ:a 中=\"<\"><b/></æ:a>";
        for bytes in [
            text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ] {
            assert_eq!(scan(&bytes), (vec!["a".to_owned(), "b".to_owned()], true, false));
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut scanner = Scanner::new(3);
        assert!(scanner.feed(b"<a><b><c/><c></c></b>", &mut |_| {}).is_ok());
        assert!(scanner.feed(b"<b><c><d/></c></b>", &mut |_| {}).is_ok());
        assert!(scanner.feed(b"<b><c><d><e>", &mut |_| {}).is_err());
    }

    #[test]
    fn attributes_by_local_name() {
        let tag = Tag(br#"x:Override  PartName = "/a&amp;b.xml" other='=1' n:ContentType='t"t'/"#);
        assert_eq!(tag.name(), b"Override");
        assert_eq!(tag.attribute("PartName").as_deref(), Some("/a&b.xml"));
        assert_eq!(tag.attribute("ContentType").as_deref(), Some("t\"t"));
        assert_eq!(tag.attribute("Name"), None);
    }
}
