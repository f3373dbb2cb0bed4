//! A password in a job is a name: what it stands for is in the worker's configuration.

use serde_json::{Value, json};

/// The longest name, in bytes.
const LONGEST: usize = 256;

/// The name of a secret, as `{"secret": "name"}` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// What stands in place of a password, as the end of a sentence.
    pub(super) const ALLOWED: &str = "{\"secret\": \"name\"}, the name of a password in the worker's configuration; a password itself never stands in a job";

    /// Reads `{"secret": "name"}` and nothing else.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let fields = value.as_object().filter(|fields| fields.len() == 1)?;
        let name = fields.get("secret")?.as_str()?;
        let plain = (1..=LONGEST).contains(&name.len()) && !name.contains(char::is_control);
        plain.then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As JSON Schema.
    pub(super) fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {"secret": {"type": "string", "minLength": 1, "maxLength": LONGEST}},
            "required": ["secret"],
            "additionalProperties": false,
        })
    }

    /// As a job writes it.
    pub(super) fn to_json(&self) -> Value {
        json!({"secret": self.0})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_is_one() {
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(SecretName::read(&json!({"secret": "a b/c"})).unwrap().as_str(), "a b/c");
        for value in [
            json!("a"),
            json!({"secret": ""}),
            json!({"secret": 1}),
            json!({"secret": "a\nb"}),
            json!({"secret": long}),
            json!({"secret": "a", "version": 1}),
            json!({"name": "a"}),
            json!(null),
        ] {
            assert_eq!(SecretName::read(&value), None, "{value}");
        }
    }
}
