//! `matchGlob` of lists: the patterns that Google documents (`*` and `?` within one folder, `**` across folders, `[a-z]`, `[!a-z]`,
//! `{a,b}`, and a backslash before what is meant as it is).

/// Patterns that braces stand for, at most.
const MOST_ALTERNATIVES: usize = 1000;
/// Characters of a pattern, and of all that its braces stand for: every name of a bucket is compared with each.
const LONGEST: usize = 1024;
const LONGEST_EXPANDED: usize = 16 * LONGEST;

enum Token {
    Character(char),
    /// `?`
    One,
    /// `*`
    Some,
    /// `**`
    Any,
    /// `[...]`: whether it is negated, and ranges with both ends.
    Class(bool, Vec<(char, char)>),
}

impl Token {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Character(wanted) => *wanted == character,
            Self::One | Self::Some => character != '/',
            Self::Any => true,
            Self::Class(negated, ranges) => {
                let within = ranges.iter().any(|(first, last)| (*first..=*last).contains(&character));
                within != *negated && character != '/'
            }
        }
    }

    fn repeats(&self) -> bool {
        matches!(self, Self::Some | Self::Any)
    }
}

/// A pattern; a name that any of its alternatives takes matches.
pub(super) struct Glob(Vec<Vec<Token>>);

impl Glob {
    /// `None` for a bracket or brace without its end, and for what is too long or has too many alternatives.
    pub(super) fn read(pattern: &str) -> Option<Self> {
        if pattern.len() > LONGEST {
            return None;
        }
        let alternatives = expanded(pattern)?;
        if alternatives.iter().map(String::len).sum::<usize>() > LONGEST_EXPANDED {
            return None;
        }
        let tokens = alternatives.iter().map(|alternative| tokens(alternative));
        tokens.collect::<Option<_>>().map(Self)
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        self.0.iter().any(|tokens| matches(tokens, &name))
    }
}

/// Steps through the tokens with all ends that the name can have been read to, so that no pattern takes long.
fn matches(tokens: &[Token], name: &[char]) -> bool {
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for token in tokens {
        let mut next = vec![false; name.len() + 1];
        for end in 0..=name.len() {
            let after_another = end > 0 && token.takes(name[end - 1]);
            next[end] = if token.repeats() {
                ends[end] || after_another && next[end - 1]
            } else {
                after_another && ends[end - 1]
            };
        }
        ends = next;
    }
    ends.last() == Some(&true)
}

/// The first braces taken apart, and then those in what that gives.
fn expanded(pattern: &str) -> Option<Vec<String>> {
    let mut waiting = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(pattern) = waiting.pop() {
        match braces(&pattern)? {
            None => done.push(pattern),
            Some((before, alternatives, after)) => waiting.extend(
                alternatives
                    .iter()
                    .map(|alternative| format!("{before}{alternative}{after}")),
            ),
        }
        if done.len() + waiting.len() > MOST_ALTERNATIVES {
            return None;
        }
    }
    Some(done)
}

/// What is before the first braces, their alternatives, what is after them.
type Braces<'a> = (&'a str, Vec<&'a str>, &'a str);

/// `None` for braces that do not end.
fn braces(pattern: &str) -> Option<Option<Braces<'_>>> {
    let (mut depth, mut start, mut cut, mut escaped) = (0_usize, 0, 0, false);
    let mut alternatives = Vec::new();
    for (at, character) in pattern.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => {
                if depth == 0 {
                    (start, cut) = (at, at + 1);
                }
                depth += 1;
            }
            ',' if depth == 1 => {
                alternatives.push(&pattern[cut..at]);
                cut = at + 1;
            }
            '}' if depth == 1 => {
                alternatives.push(&pattern[cut..at]);
                return Some(Some((&pattern[..start], alternatives, &pattern[at + 1..])));
            }
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (depth == 0).then_some(None)
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut characters = pattern.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '\\' => Token::Character(characters.next()?),
            '?' => Token::One,
            '*' if characters.next_if_eq(&'*').is_some() => Token::Any,
            '*' => Token::Some,
            '[' => {
                let negated = characters.next_if(|next| "!^".contains(*next)).is_some();
                let mut ranges = Vec::new();
                loop {
                    let first = match characters.next()? {
                        ']' if !ranges.is_empty() => break,
                        first => first,
                    };
                    let mut rest = characters.clone();
                    let last = match (rest.next(), rest.next()) {
                        (Some('-'), Some(last)) if last != ']' => {
                            characters = rest;
                            last
                        }
                        _ => first,
                    };
                    ranges.push((first, last));
                }
                Token::Class(negated, ranges)
            }
            character => Token::Character(character),
        });
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_google_documents() {
        for (pattern, taken, left) in [
            ("foo*bar", &["foobar", "foodbar"][..], &["foo/bar", "foobars"][..]),
            ("foo**bar", &["foobar", "foo/a/bar"], &["fobar"]),
            ("f?o", &["foo", "fäo"], &["f/o", "fo"]),
            ("[a-cx]1", &["a1", "c1", "x1"], &["d1", "-1"]),
            ("[!a-c]1", &["d1"], &["a1", "/1"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("{a,b/{c,d}}.txt", &["a.txt", "b/d.txt"], &["b.txt", "{a.txt"]),
            (r"\*\{", &["*{"], &["a{"]),
            ("**", &["", "a/b"], &[]),
        ] {
            let glob = Glob::read(pattern).unwrap();
            assert!(taken.iter().all(|name| glob.matches(name)), "{pattern}");
            assert!(!left.iter().any(|name| glob.matches(name)), "{pattern}");
        }
        for pattern in ["[a", "{a", "a\\", &"{0,1}".repeat(10)] {
            assert!(Glob::read(pattern).is_none(), "{pattern}");
        }
        let slow = Glob::read(&"*a".repeat(200)).unwrap();
        assert!(!slow.matches(&"a".repeat(150)));
    }
}
