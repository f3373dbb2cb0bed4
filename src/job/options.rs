//! The options of an output: JSON values under the names of Gotenberg's LibreOffice route, checked and normalised.
//!
//! Only what differs from the defaults is kept: naming a default is the same as naming nothing, in the output and in
//! the job's identity. No option is accepted and ignored: what would have no effect is refused.

mod schema;
mod table;
mod values;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use table::{DEFINITIONS, Definition, Shape};
use table::{Literal, Must, RULES, Rule};

pub(super) use schema::options_by_format;
pub use values::{Metadata, PaperSize};

use super::{Format, SecretName};
use crate::error::{Failure, FailureCode};

/// The longest list of pages, in bytes.
const LONGEST_PAGES: usize = 200;

/// The value of one option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// Of [`Shape::Switch`].
    Switch(bool),
    /// Of [`Shape::Number`] and [`Shape::Choice`].
    Number(i32),
    /// Of [`Shape::Secret`].
    Secret(SecretName),
    /// Of [`Shape::Metadata`].
    Metadata(Metadata),
    /// Of the others.
    Text(String),
}

impl OptionValue {
    fn to_json(&self) -> Value {
        match self {
            Self::Switch(value) => Value::from(*value),
            Self::Number(value) => Value::from(*value),
            Self::Secret(name) => name.to_json(),
            Self::Metadata(value) => value.to_json(),
            Self::Text(value) => Value::from(value.as_str()),
        }
    }
}

/// An output's options: those that differ from their defaults, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<&'static str, OptionValue>);

impl Options {
    /// Checks the options that a job gives an output of this format.
    ///
    /// # Errors
    /// `option.invalid`: an unknown name, a value out of its range, or options that do not go together.
    pub fn parse(format: Format, given: &Map<String, Value>) -> Result<Self, Failure> {
        let mut options = Self::default();
        for (name, value) in given {
            let definition = definition(name, format)?;
            let value = definition.shape.read(value).ok_or_else(|| {
                invalid(
                    definition.name,
                    format!("The option {:?} takes {}.", definition.name, definition.shape.allowed()),
                )
            })?;
            if value != definition.shape.default() {
                options.0.insert(definition.name, value);
            }
        }
        match RULES.iter().find(|rule| !options.obeys(rule)) {
            None => Ok(options),
            Some(rule) => Err(invalid(rule.option, rule.sentence()).with("other", rule.other)),
        }
    }

    /// Checks options that a command line gives as `name=value`: the value is literal where the option is a text, else
    /// JSON. `passwords` are the options whose values come from files.
    ///
    /// # Errors
    /// As [`Options::parse`], and for what is no `name=value`, is no JSON, or is given twice.
    pub fn parse_arguments(format: Format, arguments: &[String], passwords: &[&str]) -> Result<Self, Failure> {
        let mut given: Map<String, Value> = passwords
            .iter()
            .map(|&name| (name.to_owned(), json!({"secret": "a file"})))
            .collect();
        for argument in arguments {
            let (name, text) = argument.split_once('=').ok_or_else(|| {
                invalid(
                    argument,
                    format!("{argument:?} is no option: write NAME=VALUE, such as quality=50."),
                )
            })?;
            let definition = definition(name, format)?;
            if definition.shape == Shape::Secret {
                return Err(invalid(
                    definition.name,
                    format!(
                        "{name:?} is a password, and every process could read it here: write it in a file and name that with --user-password-file or --owner-password-file."
                    ),
                ));
            }
            let is_text = matches!(definition.shape.default(), OptionValue::Text(_));
            let is_switched = definition.shape == Shape::Fit && matches!(text, "true" | "false");
            let value = if is_text && !is_switched {
                Value::from(text)
            } else {
                // What is no JSON is no value of any shape, and is told the range like one.
                serde_json::from_str(text).unwrap_or(Value::Null)
            };
            if given.insert(name.to_owned(), value).is_some() {
                return Err(invalid(name, format!("The option {name:?} is given twice.")));
            }
        }
        Self::parse(format, &given)
    }

    /// The options that differ from their defaults, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OptionValue)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The value of one option, if it is not its default.
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.0.get(name)
    }

    /// The value of an option that is a number.
    pub fn number(&self, name: &str) -> Option<i32> {
        match self.get(name) {
            Some(OptionValue::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The value of an option that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(OptionValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The character sets that the option `charset` takes.
    pub fn charsets() -> impl Iterator<Item = &'static str> {
        values::CHARSETS.iter().copied()
    }

    /// As a job writes them, and for its identity: the same for everything that makes the same output.
    pub(crate) fn to_json(&self) -> Value {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.to_json()))
            .collect::<Map<_, _>>()
            .into()
    }

    fn obeys(&self, rule: &Rule) -> bool {
        if !self.0.contains_key(rule.option) {
            return true;
        }
        let default = || definition_of(rule.other).map(|definition| definition.shape.default());
        let other = self.0.get(rule.other);
        let is = |wanted: Literal| {
            other
                .cloned()
                .or_else(default)
                .is_some_and(|value| value == wanted.value())
        };
        match rule.must {
            Must::Be(wanted) => is(wanted),
            Must::NotBe(unwanted) => !is(unwanted),
            Must::BeSet => other.is_some(),
            Must::BeUnset => other.is_none(),
        }
    }
}

impl Rule {
    fn sentence(&self) -> String {
        let Self { option, other, .. } = self;
        match self.must {
            Must::Be(wanted) => format!(
                "The option {option:?} works only with {other:?}: {}.",
                wanted.value().to_json()
            ),
            Must::NotBe(unwanted) => format!(
                "The option {option:?} does not go together with {other:?}: {}.",
                unwanted.value().to_json()
            ),
            Must::BeSet => format!("The option {option:?} works only together with {other:?}."),
            Must::BeUnset => format!("The options {option:?} and {other:?} exclude each other."),
        }
    }
}

impl Literal {
    fn value(self) -> OptionValue {
        match self {
            Self::Switch(value) => OptionValue::Switch(value),
            Self::Number(value) => OptionValue::Number(value),
            Self::Word(word) => OptionValue::Text(word.to_owned()),
        }
    }
}

impl Shape {
    /// What holds without the option.
    fn default(&self) -> OptionValue {
        match *self {
            Self::Switch { default } => OptionValue::Switch(default),
            Self::Number { default, .. } | Self::Choice { default, .. } => OptionValue::Number(default),
            Self::Level { default, .. } | Self::Text { default, .. } => OptionValue::Text(default.to_owned()),
            Self::Metadata => OptionValue::Metadata(Metadata::default()),
            Self::Word { .. } | Self::Pages | Self::Paper | Self::Fit | Self::Separator | Self::Secret => {
                OptionValue::Text(String::new())
            }
        }
    }

    /// What the option takes, as the end of a sentence.
    fn allowed(&self) -> String {
        match *self {
            Self::Switch { .. } => "true or false".to_owned(),
            Self::Number { least, most, .. } => format!("a whole number from {least} to {most}"),
            Self::Choice { allowed, .. } => {
                let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                format!("one of the numbers {}", allowed.join(", "))
            }
            Self::Word { allowed } | Self::Level { allowed, .. } => format!("one of \"{}\"", allowed.join("\", \"")),
            Self::Text { longest, .. } => format!("a line of text of at most {longest} bytes"),
            Self::Secret => SecretName::ALLOWED.to_owned(),
            Self::Paper => PaperSize::allowed(),
            Self::Fit => format!("true, false, or one of \"{}\"", values::FIT.join("\", \"")),
            Self::Separator => {
                "one character: an ASCII punctuation mark that is no quote, a space, or a tab, which may be spelled \"tab\"".to_owned()
            }
            Self::Metadata => Metadata::allowed(),
            Self::Pages => format!(
                "pages such as \"1-3,5,8-\": numbers from 1, each pair in ascending order, at most {LONGEST_PAGES} bytes"
            ),
        }
    }

    /// The value, if it is one of this shape.
    fn read(&self, value: &Value) -> Option<OptionValue> {
        let number = || value.as_i64().and_then(|number| i32::try_from(number).ok());
        match *self {
            Self::Switch { .. } => value.as_bool().map(OptionValue::Switch),
            Self::Number { least, most, .. } => number()
                .filter(|number| (least..=most).contains(number))
                .map(OptionValue::Number),
            Self::Choice { allowed, .. } => number()
                .filter(|number| allowed.contains(number))
                .map(OptionValue::Number),
            Self::Word { allowed } => value
                .as_str()
                .filter(|word| word.is_empty() || allowed.contains(word))
                .map(|word| OptionValue::Text(word.to_owned())),
            Self::Level { allowed, .. } => value
                .as_str()
                .filter(|word| allowed.contains(word))
                .map(|word| OptionValue::Text(word.to_owned())),
            Self::Text { longest, .. } => value
                .as_str()
                .filter(|text| text.len() <= longest && !text.contains(char::is_control))
                .map(|text| OptionValue::Text(text.to_owned())),
            Self::Secret => SecretName::read(value).map(OptionValue::Secret),
            Self::Pages => pages(value.as_str()?).map(OptionValue::Text),
            Self::Metadata => Metadata::parse(value.as_object()?).map(OptionValue::Metadata),
            Self::Fit => match value {
                Value::Bool(false) => Some(String::new()),
                Value::Bool(true) => Some(values::FIT[0].to_owned()),
                other => other
                    .as_str()
                    .filter(|word| word.is_empty() || values::FIT.contains(word))
                    .map(str::to_owned),
            }
            .map(OptionValue::Text),
            Self::Paper | Self::Separator => match value.as_str()? {
                "" => Some(String::new()),
                text if matches!(self, Self::Paper) => PaperSize::spelled(text),
                text => values::separator(text),
            }
            .map(OptionValue::Text),
        }
    }
}

fn definition_of(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name)
}

fn definition(name: &str, format: Format) -> Result<&'static Definition, Failure> {
    let known = definition_of(name);
    let allowed: Vec<&str> = DEFINITIONS
        .iter()
        .filter(|definition| definition.formats.contains(&format))
        .map(|definition| definition.name)
        .collect();
    match known {
        Some(definition) if definition.formats.contains(&format) => Ok(definition),
        _ => {
            let there_are = if allowed.is_empty() {
                "it has none".to_owned()
            } else {
                format!("there are {}", allowed.join(", "))
            };
            let what = if known.is_some() {
                "not an option of"
            } else {
                "no option of"
            };
            Err(invalid(
                name,
                format!("{name:?} is {what} the format {:?}: {there_are}.", format.as_str()),
            )
            .with("allowed", allowed))
        }
    }
}

/// A list of pages in one spelling: without spaces, and with an open end only at its end.
fn pages(text: &str) -> Option<String> {
    if text.len() > LONGEST_PAGES {
        return None;
    }
    let text: String = text.chars().filter(|character| *character != ' ').collect();
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| digits && *number > 0)
    };
    let is_range = |part: &str| match part.split_once('-') {
        None => number(part).is_some(),
        Some((from, "")) => number(from).is_some(),
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
    };
    (text.is_empty() || text.split(',').all(is_range)).then_some(text)
}

fn invalid(option: &str, message: String) -> Failure {
    Failure::new(FailureCode::OptionInvalid, message).with("option", option)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Options, Failure> {
        let Value::Object(given) = serde_json::from_str(json).unwrap() else {
            panic!("{json} is no object")
        };
        Options::parse(Format::Pdf, &given)
    }

    #[test]
    fn a_default_is_the_same_as_nothing() {
        for definition in DEFINITIONS {
            // The size of an image is none of those that can be asked for, and a password has no name that is none.
            if definition.shape == Shape::Secret
                || matches!(definition.shape, Shape::Number { default, least, .. } if default < least)
                    && ["width", "dpi"].contains(&definition.name)
            {
                continue;
            }
            let given = [(definition.name.to_owned(), definition.shape.default().to_json())];
            let options = Options::parse(definition.formats[0], &given.into_iter().collect()).unwrap();
            assert_eq!(options, Options::default(), "{}", definition.name);
        }
        assert_eq!(
            parse(r#"{"nativePageRanges": " 1-3, 5"}"#),
            parse(r#"{"nativePageRanges": "1-3,5"}"#)
        );
    }

    #[test]
    fn a_value_of_another_shape_is_refused_and_the_message_names_the_range() {
        for (json, range) in [
            (r#"{"quality": 0}"#, "from 1 to 100"),
            (r#"{"quality": 101}"#, "from 1 to 100"),
            (r#"{"quality": 50.5}"#, "from 1 to 100"),
            (r#"{"quality": "50"}"#, "from 1 to 100"),
            (r#"{"quality": null}"#, "from 1 to 100"),
            (r#"{"pdfua": "true"}"#, "true or false"),
            (r#"{"pdfua": 1}"#, "true or false"),
            (r#"{"maxImageResolution": 100}"#, "75, 150, 300, 600, 1200"),
            (r#"{"openBookmarkLevels": 0}"#, "-1, 1, 2"),
            (r#"{"pdfa": "PDF/A-2a"}"#, "PDF/A-2b"),
            (r#"{"nativeWatermarkText": "a\nb"}"#, "a line of text"),
            (r#"{"nativePageRanges": "3-1"}"#, "ascending"),
            (r#"{"nativePageRanges": "0"}"#, "from 1"),
            (r#"{"nativePageRanges": "-3"}"#, "from 1"),
            (r#"{"nativePageRanges": "1,,2"}"#, "from 1"),
            (r#"{"nativePageRanges": "+1"}"#, "from 1"),
            (r#"{"nativePageRanges": "99999999999"}"#, "from 1"),
            (r#"{"nativePageRanges": 1}"#, "from 1"),
            (r#"{"userPassword": "plain"}"#, "{\"secret\": \"name\"}"),
            (r#"{"ownerPassword": {"secret": ""}}"#, "{\"secret\": \"name\"}"),
            (r#"{"permitPrinting": "some"}"#, "\"low\""),
        ] {
            let failure = parse(json).unwrap_err();
            assert_eq!(failure.code, FailureCode::OptionInvalid, "{json}");
            assert!(failure.message.contains(range), "{json}: {failure}");
            assert!(failure.detail.contains_key("option"), "{json}");
        }
        let long = format!(r#"{{"nativeWatermarkText": "{}"}}"#, "x".repeat(201));
        assert!(parse(&long).unwrap_err().message.contains("200 bytes"));
    }

    #[test]
    fn an_unknown_name_is_told_the_names_there_are() {
        let failure = parse(r#"{"pageRanges": "1"}"#).unwrap_err();
        assert!(failure.message.contains("nativePageRanges"), "{failure}");
        let of_pdf = DEFINITIONS
            .iter()
            .filter(|definition| definition.formats.contains(&Format::Pdf));
        assert_eq!(failure.detail["allowed"].as_array().unwrap().len(), of_pdf.count());
    }

    #[test]
    fn what_would_be_ignored_or_is_forbidden_is_refused() {
        for (wrong, right) in [
            (r#"{"zoom": 50}"#, r#"{"zoom": 50, "magnification": 4}"#),
            (
                r#"{"singlePageSheets": true, "nativePageRanges": "1"}"#,
                r#"{"singlePageSheets": true}"#,
            ),
            (
                r#"{"quality": 50, "losslessImageCompression": true}"#,
                r#"{"quality": 90, "losslessImageCompression": true}"#,
            ),
            (
                r#"{"maxImageResolution": 75, "reduceImageResolution": false}"#,
                r#"{"maxImageResolution": 75}"#,
            ),
            (
                r#"{"nativeWatermarkColor": 255}"#,
                r#"{"nativeWatermarkColor": 255, "nativeWatermarkText": "x"}"#,
            ),
            (
                r#"{"nativeTiledWatermarkText": "x", "nativeWatermarkText": "y"}"#,
                r#"{"nativeTiledWatermarkText": "x"}"#,
            ),
            (
                r#"{"addOriginalDocumentAsStream": true, "pdfa": "PDF/A-2b"}"#,
                r#"{"addOriginalDocumentAsStream": true, "pdfa": "PDF/A-3b"}"#,
            ),
            (
                r#"{"exportOnlyNotesPages": true}"#,
                r#"{"exportOnlyNotesPages": true, "exportNotesPages": true}"#,
            ),
            (
                r#"{"userPassword": {"secret": "a"}, "pdfa": "PDF/A-2b"}"#,
                r#"{"userPassword": {"secret": "a"}, "pdfua": true}"#,
            ),
            (
                r#"{"ownerPassword": {"secret": "a"}, "pdfa": "PDF/A-2b"}"#,
                r#"{"ownerPassword": {"secret": "a"}}"#,
            ),
            (
                r#"{"permitCopying": false, "userPassword": {"secret": "a"}}"#,
                r#"{"permitCopying": false, "ownerPassword": {"secret": "a"}}"#,
            ),
            (
                r#"{"reproducible": true, "userPassword": {"secret": "a"}}"#,
                r#"{"reproducible": true}"#,
            ),
            (
                r#"{"addOriginalDocumentAsStream": true, "userPassword": {"secret": "a"}}"#,
                r#"{"addOriginalDocumentAsStream": true}"#,
            ),
        ] {
            let failure = parse(wrong).unwrap_err();
            assert_eq!(failure.code, FailureCode::OptionInvalid, "{wrong}");
            assert!(failure.detail.contains_key("other"), "{wrong}: {failure}");
            assert!(parse(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn on_a_command_line_a_text_is_literal_and_all_else_is_json() {
        let of = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            Options::parse_arguments(Format::Pdf, &arguments, &[])
        };
        assert_eq!(
            of(&["nativeWatermarkText=1=\"2\"", "quality=50", "pdfua=true"]),
            parse(r#"{"nativeWatermarkText": "1=\"2\"", "quality": 50, "pdfua": true}"#)
        );
        for (wrong, part) in [
            (&["quality"][..], "NAME=VALUE"),
            (&["quality=high"], "from 1 to 100"),
            (&["quality="], "from 1 to 100"),
            (&["quality=1", "quality=1"], "twice"),
            (&["nope=1"], "nativePageRanges"),
            (&["userPassword={\"secret\": \"x\"}"], "--user-password-file"),
        ] {
            assert!(of(wrong).unwrap_err().message.contains(part), "{wrong:?}");
        }
    }

    #[test]
    fn rules_name_options_that_there_are() {
        for rule in RULES {
            for name in [rule.option, rule.other] {
                assert!(DEFINITIONS.iter().any(|definition| definition.name == name), "{name}");
            }
        }
    }
}
