//! What a configuration object holds once it is open: JSON with `passwords` and `environment`, read so that no error can
//! repeat any of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::google::secret::Secret;

/// The longest password that is of use, in bytes: LibreOffice takes 255 characters.
pub const LONGEST_PASSWORD: usize = 1024;
/// The longest name of a password that a job can write, in bytes.
const LONGEST_NAME: usize = 256;

/// The fields of a configuration object.
#[derive(Clone, Default)]
pub struct Contents {
    /// Passwords by name, in the order in which they are tried.
    pub passwords: HashMap<String, Vec<Secret>>,
    /// Variables of `platen serve`.
    pub environment: BTreeMap<String, Secret>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passwords' names, {} variables",
            self.passwords.len(),
            self.environment.len()
        )
    }
}

impl Contents {
    /// Reads the JSON. What is wrong is told all at once, as rests of sentences that begin with what the JSON is.
    ///
    /// # Errors
    /// Anything but an object with `passwords` (each a string, or a list of strings) and `environment` (each a string).
    /// The sentences name fields and places, never a value.
    pub fn parse(json: &[u8]) -> Result<Self, Vec<String>> {
        // Of serde's messages the position alone holds nothing of the text.
        let root: Node = serde_json::from_slice(json).map_err(|error| {
            vec![format!(
                "is not JSON at line {} column {}",
                error.line(),
                error.column()
            )]
        })?;
        let mut contents = Self::default();
        let mut problems = Vec::new();
        for (name, node) in fields(root, "", &mut problems) {
            match name.as_str() {
                "passwords" => {
                    for (name, node) in fields(node, "passwords", &mut problems) {
                        if name.len() > LONGEST_NAME || name.contains(char::is_control) {
                            problems.push(format!(
                                "has a password under a name that no job can write: at most {LONGEST_NAME} bytes, no \
                                 control characters"
                            ));
                            continue;
                        }
                        let path = format!("passwords.{}", name.escape_debug());
                        let values = passwords(node, &path, &mut problems);
                        contents.passwords.insert(name, values);
                    }
                }
                "environment" => {
                    for (name, node) in fields(node, "environment", &mut problems) {
                        let path = format!("environment.{}", name.escape_debug());
                        if let Some(value) = text(node, &path, &mut problems) {
                            contents.environment.insert(name, value);
                        }
                    }
                }
                _ => problems.push(format!("has the field {name:?}: allowed are passwords and environment")),
            }
        }
        if problems.is_empty() {
            Ok(contents)
        } else {
            Err(problems)
        }
    }
}

/// An object's fields, each name once.
fn fields(node: Node, path: &str, problems: &mut Vec<String>) -> Vec<(String, Node)> {
    let shown = if path.is_empty() { "the whole" } else { path };
    let Node::Object(fields) = node else {
        problems.push(format!("has {} where {shown} has to be an object", node.kind()));
        return Vec::new();
    };
    let mut seen = HashSet::new();
    for (name, _) in &fields {
        if name.is_empty() {
            problems.push(format!("has a field without a name in {shown}"));
        }
        if !seen.insert(name.as_str()) {
            problems.push(format!("has the field {name:?} twice in {shown}"));
        }
    }
    fields
}

fn passwords(node: Node, path: &str, problems: &mut Vec<String>) -> Vec<Secret> {
    let nodes = match node {
        Node::Array(nodes) if nodes.is_empty() => {
            problems.push(format!("has no password in the list {path}"));
            return Vec::new();
        }
        Node::Array(nodes) => nodes,
        Node::Text(_) => vec![node],
        other => {
            problems.push(format!(
                "has {} in {path}: a password is a string, or a list of strings",
                other.kind()
            ));
            return Vec::new();
        }
    };
    let mut values = Vec::with_capacity(nodes.len());
    for node in nodes {
        match text(node, path, problems) {
            Some(value) if value.expose().is_empty() => problems.push(format!("has an empty password in {path}")),
            Some(value) if value.expose().len() > LONGEST_PASSWORD => problems.push(format!(
                "has a password in {path} that opens nothing: it has more than {LONGEST_PASSWORD} bytes"
            )),
            Some(value) => values.push(value),
            None => {}
        }
    }
    values
}

fn text(node: Node, path: &str, problems: &mut Vec<String>) -> Option<Secret> {
    match node {
        Node::Text(text) => Some(text),
        other => {
            problems.push(format!("has {} in {path} where a string has to be", other.kind()));
            None
        }
    }
}

/// Any JSON, its texts as secrets. It keeps repeated names, which a map would lose.
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Text(Secret),
    Other(&'static str),
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Self::Object(_) => "an object",
            Self::Array(_) => "a list",
            Self::Text(_) => "a string",
            Self::Other(kind) => kind,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other("a truth value"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other("null"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Secret::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Node::Array(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            nodes.push(entry);
        }
        Ok(Node::Object(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_string_or_a_list_in_its_order() {
        let json = br#"{"passwords":{"a":"one","b":["new","old"]},"environment":{"MAX_PAGES":"7"}}"#;
        let contents = Contents::parse(json).unwrap();
        let of = |name: &str| contents.passwords[name].iter().map(Secret::expose).collect::<Vec<_>>();
        assert_eq!((of("a"), of("b")), (vec!["one"], vec!["new", "old"]));
        assert_eq!(contents.environment["MAX_PAGES"].expose(), "7");
        assert!(!format!("{contents:?}").contains("new"));
        assert!(Contents::parse(b"{}").unwrap().passwords.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_at_once_and_without_a_value() {
        let json = br#"{"passwords":{"a":"canary-1","a":"canary-2","b":[],"c":["canary-3",4],"d":null,"e":"","":"x","f\n":"y"},
                        "environment":{"PORT":8080,"X":{"y":"canary-4"}},"password":"canary-5"}"#;
        let problems = Contents::parse(json).err().unwrap().join("; ");
        for expected in [
            "the field \"a\" twice in passwords",
            "no password in the list passwords.b",
            "a number in passwords.c",
            "null in passwords.d",
            "an empty password in passwords.e",
            "without a name in passwords",
            "under a name that no job can write",
            "a number in environment.PORT",
            "an object in environment.X",
            "the field \"password\"",
        ] {
            assert!(problems.contains(expected), "{expected}: {problems}");
        }
        assert!(!problems.contains("canary"), "{problems}");
    }

    #[test]
    fn a_password_that_is_too_long_for_anything_is_named() {
        let json = |length: usize| format!(r#"{{"passwords":{{"long":["x","{}"]}}}}"#, "y".repeat(length));
        assert!(Contents::parse(json(LONGEST_PASSWORD).as_bytes()).is_ok());
        let problems = Contents::parse(json(LONGEST_PASSWORD + 1).as_bytes()).err().unwrap();
        assert!(
            problems[0].contains("passwords.long") && !problems[0].contains("yy"),
            "{problems:?}"
        );
    }

    #[test]
    fn text_that_is_no_json_is_not_repeated() {
        for text in [
            "canary",
            "{\"passwords\": canary}",
            "{\"passwords\": {\"a\": \"canary}",
            "[\"canary\"]",
            "\"canary\"",
            "",
            "{\"passwords\":\"canary\"}",
            "{} canary",
            "{\"passwords\":{\"a\":\"\\ucanary\"}}",
        ] {
            let problems = Contents::parse(text.as_bytes()).err().unwrap().join("; ");
            assert!(
                !problems.is_empty() && !problems.contains("canary"),
                "{text}: {problems}"
            );
        }
    }
}
