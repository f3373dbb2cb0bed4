//! What doctor says: one line for each thing that was tried.

use std::fmt;

use super::super::output::{plain, say};
use crate::google::grant::Grant;
use crate::google::{Error, Kind};

/// How a thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As it has to be.
    Good,
    /// A right is missing.
    Missing,
    /// Something else is not as it has to be.
    Wrong,
    /// It could not be tried.
    Unseen,
    /// It works, and something about it is better otherwise.
    Warning,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Unseen => "unseen",
            Self::Warning => "warning",
        }
    }

    fn fails(self) -> bool {
        matches!(self, Self::Missing | Self::Wrong)
    }
}

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) state: State,
    /// What was tried.
    what: String,
    /// What was found, and what to do; empty when there is nothing to say.
    why: String,
    /// Whether only an operator may see it.
    operator: bool,
}

impl Line {
    pub(super) fn new(state: State, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            state,
            what: what.into(),
            why: why.into(),
            operator: false,
        }
    }

    pub(super) fn good(what: impl Into<String>) -> Self {
        Self::new(State::Good, what, "")
    }

    /// A right that is not there, and that `member` needs.
    pub(super) fn missing(what: impl Into<String>, said: &str, grant: &Grant, member: &str) -> Self {
        let said = said.trim_end_matches('.');
        Self::new(State::Missing, what, format!("{said}. {}", grant.remedy(member)))
    }

    /// What a call of Google's ended with that `member` made.
    pub(super) fn failed(what: impl Into<String>, error: &Error, grant: Grant, member: &str) -> Self {
        match error.kind {
            Kind::Forbidden if grant.is_about(error) => {
                Self::missing(what, &error.to_string(), &grant.named_by(error), member)
            }
            Kind::NotFound => Self::new(State::Wrong, what, format!("{error}. See that what it names exists")),
            _ => Self::new(State::Wrong, what, error.to_string()),
        }
    }

    /// The same, which an operator sees and the worker need not.
    pub(super) fn for_operators(self) -> Self {
        Self { operator: true, ..self }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.operator { "(operator) " } else { "" };
        write!(f, "{:8} {operator}{}", self.state.word(), self.what)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        Ok(())
    }
}

/// Counts lines as it prints them.
#[derive(Debug, Default)]
pub(super) struct Report {
    printed: usize,
    failed: usize,
}

impl Report {
    pub(super) fn print(&mut self, lines: Vec<Line>) {
        for line in lines {
            self.printed += 1;
            self.failed += usize::from(line.state.fails());
            // Names and Google's words come from elsewhere: a terminal must not obey them.
            say(&plain(&line.to_string()));
        }
    }

    /// What is wrong with it all, in a sentence.
    pub(super) fn verdict(&self) -> Result<(), String> {
        match self.failed {
            0 => Ok(()),
            failed => Err(format!("{failed} of {} checks failed", self.printed)),
        }
    }
}
