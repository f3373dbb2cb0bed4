//! Wrong usage, told at once. clap stops at the first problem: each is taken out of the arguments, and the rest read again.

use std::ffi::OsString;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Reads the arguments, the program's name first.
///
/// # Errors
/// What was asked for instead (help, the version), or every problem.
pub(super) fn read<T: Parser>(arguments: Vec<OsString>) -> Result<T, Wrong> {
    T::try_parse_from(&arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Wrong::Said(error)
        }
        _ => Wrong::Problems(problems::<T>(arguments, error)),
    })
}

/// Why no command runs.
pub(super) enum Wrong {
    /// What clap prints: help, the version.
    Said(clap::Error),
    /// What is wrong with the arguments, a sentence each.
    Problems(Vec<String>),
}

fn problems<T: Parser>(mut arguments: Vec<OsString>, mut error: clap::Error) -> Vec<String> {
    let (mut problems, mut taken_out, mut doubtful) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let argument = context(&error, ContextKind::InvalidArg);
        let value = context(&error, ContextKind::InvalidValue).into_iter().next();
        if error.kind() == ErrorKind::MissingRequiredArgument {
            // What was given and wrong is not missing.
            let missing: Vec<String> = argument
                .into_iter()
                .filter(|name| !taken_out.iter().any(|out: &String| name.contains(out.as_str())))
                .collect();
            if !missing.is_empty() {
                problems.push(format!("required and not given: {}", missing.join(", ")));
            }
            return problems;
        }
        let argument = argument.into_iter().next().unwrap_or_default();
        let is_flag = argument.starts_with('-');
        let word = value.as_deref().unwrap_or(&argument);
        // What follows a flag that there is not may be its value.
        if is_flag || !doubtful.iter().any(|doubtful| doubtful == word) {
            problems.push(sentence(&error));
        }
        let place = match error.kind() {
            ErrorKind::UnknownArgument if is_flag => {
                let place = find(&arguments, &argument, None);
                let next = place.as_ref().and_then(|place| arguments.get(place.end));
                doubtful.extend(
                    next.map(|next| next.to_string_lossy().into_owned())
                        .filter(|next| !next.starts_with('-')),
                );
                place
            }
            ErrorKind::InvalidValue | ErrorKind::ValueValidation if is_flag => find(
                &arguments,
                &argument,
                value.as_deref().filter(|value| !value.is_empty()),
            ),
            ErrorKind::ArgumentConflict | ErrorKind::UnknownArgument => find(&arguments, &argument, None),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => find(&arguments, word, None),
            _ => None,
        };
        let Some(place) = place else { return problems };
        arguments.drain(place);
        taken_out.push(argument);
        match T::try_parse_from(&arguments) {
            Err(next) if next.use_stderr() && next.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                error = next;
            }
            _ => return problems,
        }
    }
}

/// What clap knows about an error, as it shows it: `--ttl <DUR>`.
fn context(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Said(_) => f.write_str("name one of the commands"),
            Self::Problems(problems) => match &problems[..] {
                [one] => write!(f, "{one}; see --help"),
                all => write!(
                    f,
                    "wrong usage, {} problems; see --help:\n  {}",
                    all.len(),
                    all.join("\n  ")
                ),
            },
        }
    }
}

/// Where an argument stands that clap shows like this: the last one, with this value if one is named, and with the one
/// that it takes.
fn find(arguments: &[OsString], shown: &str, value: Option<&str>) -> Option<std::ops::Range<usize>> {
    let (name, takes) = shown
        .split_once(' ')
        .filter(|_| shown.starts_with('-'))
        .unwrap_or((shown, ""));
    let joined = format!("{name}=");
    let text = |at: usize| arguments.get(at).map(|text| text.to_string_lossy());
    (1..arguments.len()).rev().find_map(|at| {
        let word = text(at)?;
        let is_value = |found: &str| value.is_none_or(|value| value == found);
        if word == name && value.is_none() {
            let end = if takes.is_empty() { at + 1 } else { at + 2 };
            return Some(at..end.min(arguments.len()));
        }
        if word == name && text(at + 1).is_some_and(|next| is_value(&next)) {
            return Some(at..at + 2);
        }
        word.strip_prefix(&joined).filter(|found| is_value(found))?;
        Some(at..at + 1)
    })
}

/// clap's message without its frame.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let kept: Vec<&str> = text
        .split("\n\n")
        .take_while(|paragraph| !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information"))
        .flat_map(str::lines)
        .map(str::trim)
        .collect();
    kept.join("; ")
}
