//! Pub/Sub's filter language: which messages a subscription gets, by their attributes.
//!
//! After <https://cloud.google.com/pubsub/docs/subscription-message-filter>. What that page does not show is refused, so that
//! no filter works here and fails at Google.
//!
//! ```text
//! expression = term { "AND" term } | term { "OR" term }
//! term       = [ "NOT" | "-" ] primary
//! primary    = "(" expression ")"
//!            | "attributes" ":" key
//!            | "attributes" "." key ( "=" | "!=" ) string
//!            | "hasPrefix" "(" "attributes" "." key "," string ")"
//! key        = string | 1*( letter | digit | "-" | "_" )
//! ```

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// The longest filter, in bytes.
const LONGEST: usize = 256;

/// A filter that can be asked.
#[derive(Clone, Debug)]
pub(super) struct Filter(Expression);

#[derive(Clone, Debug)]
enum Expression {
    Has(String),
    Equals(String, String),
    HasPrefix(String, String),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Filter {
    /// Reads a filter; what is wrong with it, in a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it has {} bytes, the most is {LONGEST}", text.len()));
        }
        let mut parser = Parser {
            rest: text.chars().peekable(),
        };
        let expression = parser.expression()?;
        match parser.rest.next() {
            None => Ok(Self(expression)),
            Some(other) => Err(format!("'{other}' is not expected after a whole expression")),
        }
    }

    /// Whether a message with these attributes is delivered.
    pub(super) fn matches(&self, attributes: &BTreeMap<String, String>) -> bool {
        self.0.holds(attributes)
    }
}

impl Expression {
    fn holds(&self, attributes: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Has(key) => attributes.contains_key(key),
            Self::Equals(key, value) => attributes.get(key) == Some(value),
            Self::HasPrefix(key, prefix) => attributes.get(key).is_some_and(|value| value.starts_with(prefix)),
            Self::Not(inner) => !inner.holds(attributes),
            Self::All(terms) => terms.iter().all(|term| term.holds(attributes)),
            Self::Any(terms) => terms.iter().any(|term| term.holds(attributes)),
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn space(&mut self) {
        while self.rest.next_if(char::is_ascii_whitespace).is_some() {}
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.rest.next_if_eq(&wanted) {
            Some(_) => Ok(()),
            None => Err(match self.rest.peek() {
                Some(other) => format!("'{other}' stands where '{wanted}' is expected"),
                None => format!("it ends where '{wanted}' is expected"),
            }),
        }
    }

    /// Letters, digits, hyphens and underscores, as many as there are.
    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(letter) = self
            .rest
            .next_if(|next| next.is_ascii_alphanumeric() || "-_".contains(*next))
        {
            word.push(letter);
        }
        word
    }

    /// Ends before what is no part of it: a closing parenthesis, or the end.
    fn expression(&mut self) -> Result<Expression, String> {
        let mut terms = vec![self.term()?];
        let mut joined_by: Option<String> = None;
        loop {
            self.space();
            if matches!(self.rest.peek(), None | Some(')')) {
                break;
            }
            let operator = self.word();
            if !["AND", "OR"].contains(&operator.as_str()) {
                return Err(match self.rest.peek() {
                    Some(other) if operator.is_empty() => format!("'{other}' stands where AND or OR is expected"),
                    _ => format!("'{operator}' stands where AND or OR is expected"),
                });
            }
            if joined_by.as_ref().is_some_and(|other| *other != operator) {
                return Err("AND and OR cannot be combined without parentheses".to_owned());
            }
            joined_by = Some(operator);
            terms.push(self.term()?);
        }
        Ok(match (joined_by.as_deref(), terms.pop()) {
            (None, Some(single)) => single,
            (Some("OR"), last) => Expression::Any(terms.into_iter().chain(last).collect()),
            (_, last) => Expression::All(terms.into_iter().chain(last).collect()),
        })
    }

    fn term(&mut self) -> Result<Expression, String> {
        self.space();
        if self.rest.next_if_eq(&'-').is_some() {
            let name = self.word();
            return self.primary(&name).map(|inner| Expression::Not(Box::new(inner)));
        }
        let name = self.word();
        if name != "NOT" {
            return self.primary(&name);
        }
        self.space();
        let name = self.word();
        self.primary(&name).map(|inner| Expression::Not(Box::new(inner)))
    }

    /// What begins with this name, which has been read; empty before a parenthesis.
    fn primary(&mut self, name: &str) -> Result<Expression, String> {
        match name {
            "" if self.rest.peek() == Some(&'(') => {
                self.expect('(')?;
                let inner = self.expression()?;
                self.expect(')')?;
                Ok(inner)
            }
            "attributes" if self.rest.peek() == Some(&'.') => {
                let key = self.member()?;
                self.space();
                let negated = self.rest.next_if_eq(&'!').is_some();
                self.expect('=')?;
                self.space();
                let equals = Expression::Equals(key, self.string()?);
                Ok(if negated {
                    Expression::Not(Box::new(equals))
                } else {
                    equals
                })
            }
            "attributes" => {
                self.space();
                self.expect(':')?;
                self.space();
                Ok(Expression::Has(self.key()?))
            }
            "hasPrefix" => {
                self.expect('(')?;
                self.space();
                if self.word() != "attributes" {
                    return Err("hasPrefix takes an attribute, as attributes.KEY".to_owned());
                }
                let key = self.member()?;
                self.space();
                self.expect(',')?;
                self.space();
                let prefix = self.string()?;
                self.space();
                self.expect(')')?;
                Ok(Expression::HasPrefix(key, prefix))
            }
            "" => Err(match self.rest.peek() {
                Some(other) => format!("'{other}' stands where an expression is expected"),
                None => "it ends where an expression is expected".to_owned(),
            }),
            other => Err(format!(
                "'{other}' stands where an expression is expected: attributes or hasPrefix"
            )),
        }
    }

    /// `.KEY`
    fn member(&mut self) -> Result<String, String> {
        self.expect('.')?;
        self.key()
    }

    fn key(&mut self) -> Result<String, String> {
        if self.rest.peek() == Some(&'"') {
            return match self.string()? {
                key if key.is_empty() => Err("no attribute has an empty key".to_owned()),
                key => Ok(key),
            };
        }
        match self.word() {
            word if word.is_empty() => Err("a key is expected; in quotes, unless it is of A-Z a-z 0-9 - _".to_owned()),
            word if ["AND", "OR", "NOT"].contains(&word.as_str()) => {
                Err(format!("the key {word} must be in quotes, as it is an operator"))
            }
            word => Ok(word),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if self.rest.next_if_eq(&'"').is_none() {
            return Err("a string in double quotes is expected".to_owned());
        }
        let mut value = String::new();
        loop {
            match self.rest.next() {
                None => return Err("a string is not closed".to_owned()),
                Some('"') => return Ok(value),
                Some('\\') => value.push(self.escaped()?),
                Some(control) if control.is_control() => {
                    return Err("a string holds a control character that is not escaped".to_owned());
                }
                Some(other) => value.push(other),
            }
        }
    }

    /// What follows a backslash: a letter, or a code point in hexadecimal or octal.
    fn escaped(&mut self) -> Result<char, String> {
        let kind = self.rest.next().ok_or("a string is not closed")?;
        let (digits, radix, first) = match kind {
            '"' | '\\' | '\'' | '?' => return Ok(kind),
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'v' => return Ok('\u{b}'),
            'x' => (2, 16, 0),
            'u' => (4, 16, 0),
            'U' => (8, 16, 0),
            '0'..='3' => (2, 8, kind.to_digit(8).unwrap_or_default()),
            other => return Err(format!("'\\{other}' is no escape sequence")),
        };
        let mut point = first;
        for _ in 0..digits {
            let digit = self.rest.next_if(|next| next.is_digit(radix));
            let digit = digit.and_then(|digit| digit.to_digit(radix));
            let digit = digit.ok_or_else(|| format!("'\\{kind}' wants {digits} more digits"))?;
            point = point.checked_mul(radix).map_or(u32::MAX, |point| point | digit);
        }
        char::from_u32(point).ok_or_else(|| format!("'\\{kind}' names no character"))
    }
}
