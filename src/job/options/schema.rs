//! What the table of options says, as JSON Schema: for editors, generators of clients and forms, and `platen schema job`.
//!
//! What a schema cannot say (bytes of UTF-8, ascending pages, the length of a side) is left to the worker: every job that
//! the worker takes is valid, and what is valid may still be refused with a sentence.

use schemars::Schema;
use serde_json::{Map, Value, json};

use super::table::{DEFINITIONS, Definition, Literal, Must, RULES, Rule, Shape};
use super::{LONGEST_PAGES, definition_of, values};
use crate::job::{Format, PaperSize, SecretName};

/// Says of an output which options each of its formats has.
pub(in crate::job) fn options_by_format(output: &mut Schema) {
    let conditions: Vec<Value> = formats_by_options()
        .into_iter()
        .map(|(formats, definitions)| {
            let names: Vec<&str> = formats.iter().map(|format| format.as_str()).collect();
            json!({
                "if": {"properties": {"format": {"enum": names}}, "required": ["format"]},
                "then": {"properties": {"options": options(&definitions)}},
            })
        })
        .collect();
    output.insert("allOf".to_owned(), conditions.into());
}

/// The formats that have the same options, in the order of [`Format::ALL`].
fn formats_by_options() -> Vec<(Vec<Format>, Vec<&'static Definition>)> {
    let mut groups: Vec<(Vec<Format>, Vec<&'static Definition>)> = Vec::new();
    for format in Format::ALL {
        let definitions: Vec<&Definition> = DEFINITIONS
            .iter()
            .filter(|definition| definition.formats.contains(&format))
            .collect();
        let names = |definitions: &[&Definition]| definitions.iter().map(|it| it.name).collect::<Vec<_>>();
        match groups.iter_mut().find(|(_, known)| names(known) == names(&definitions)) {
            Some((formats, _)) => formats.push(format),
            None => groups.push((vec![format], definitions)),
        }
    }
    groups
}

fn options(definitions: &[&Definition]) -> Value {
    let properties: Map<String, Value> = definitions
        .iter()
        .map(|definition| (definition.name.to_owned(), option(definition)))
        .collect();
    let rules: Vec<Value> = RULES
        .iter()
        .filter(|rule| properties.contains_key(rule.option))
        .map(condition)
        .collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !rules.is_empty() {
        schema["allOf"] = rules.into();
    }
    schema
}

fn option(definition: &Definition) -> Value {
    let mut schema = definition.shape.schema();
    schema["description"] = format!("Takes {}.", definition.shape.allowed()).into();
    if definition.shape.has_default() {
        schema["default"] = definition.shape.default().to_json();
    }
    schema
}

/// A rule between two options: it holds once the first has a value other than its default.
fn condition(rule: &Rule) -> Value {
    let default_of = |name: &str| definition_of(name).map(|definition| definition.shape.default().to_json());
    let with = |name: &str, schema: Value| json!({"properties": {name: schema}});
    let is = |literal: Literal| (default_of(rule.other), literal.value().to_json());
    let then = match rule.must {
        Must::Be(literal) => {
            let (default, value) = is(literal);
            let mut then = with(rule.other, json!({"const": value}));
            if default.as_ref() != Some(&value) {
                then["required"] = json!([rule.other]);
            }
            then
        }
        Must::NotBe(literal) => with(rule.other, json!({"not": {"const": is(literal).1}})),
        Must::BeSet => {
            let mut then = with(rule.other, json!({"not": {"const": default_of(rule.other)}}));
            then["required"] = json!([rule.other]);
            then
        }
        Must::BeUnset => with(rule.other, json!({"const": default_of(rule.other)})),
    };
    let mut set = with(rule.option, json!({"not": {"const": default_of(rule.option)}}));
    set["required"] = json!([rule.option]);
    json!({"if": set, "then": then, "$comment": rule.sentence()})
}

impl Shape {
    fn schema(&self) -> Value {
        match *self {
            Self::Switch { .. } => json!({"type": "boolean"}),
            Self::Number { least, most, .. } => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Choice { allowed, .. } => json!({"enum": allowed}),
            Self::Level { allowed, .. } => json!({"enum": allowed}),
            Self::Word { allowed } => {
                let words: Vec<&str> = std::iter::once("").chain(allowed.iter().copied()).collect();
                json!({"enum": words})
            }
            // A character has at least one byte.
            Self::Text { longest, .. } => json!({"type": "string", "maxLength": longest}),
            Self::Secret => SecretName::schema(),
            Self::Pages => json!({
                "type": "string",
                "maxLength": LONGEST_PAGES,
                "pattern": "^ *$|^[0-9 ]+(-[0-9 ]*)?(,[0-9 ]+(-[0-9 ]*)?)*$",
            }),
            Self::Paper => json!({"type": "string", "pattern": PaperSize::pattern()}),
            Self::Fit => {
                let words: Vec<Value> = [json!(true), json!(false), json!("")]
                    .into_iter()
                    .chain(values::FIT.map(Value::from))
                    .collect();
                json!({"enum": words})
            }
            Self::Separator => {
                let characters = (0..=0x7f).map(char::from).map(String::from);
                let separators: Vec<String> = ["".to_owned(), "tab".to_owned()]
                    .into_iter()
                    .chain(characters.filter(|text| values::separator(text).is_some()))
                    .collect();
                json!({"enum": separators})
            }
            Self::Metadata => {
                let line = json!({"type": "string"});
                json!({
                    "type": "object",
                    "properties": {
                        "Title": line,
                        "Author": line,
                        "Subject": line,
                        "Keywords": {"type": ["string", "array"], "items": line},
                    },
                    "additionalProperties": false,
                })
            }
        }
    }

    /// Whether what holds without the option is a value that the option takes.
    fn has_default(&self) -> bool {
        matches!(
            self,
            Self::Switch { .. } | Self::Choice { .. } | Self::Level { .. } | Self::Text { .. }
        ) || matches!(*self, Self::Number { default, least, most } if (least..=most).contains(&default))
    }
}
