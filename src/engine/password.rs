//! A password on its way through the engine: it shows nowhere, and its memory is overwritten when it is done with.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Bytes that the longest password of use takes: LibreOffice knows 255 characters.
const ROOM: usize = 1024;

/// What opens a document, or protects a PDF.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that uses it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// For the packet that goes to the zygote, and for nothing else. As numbers: a text with a quotation mark would be put
/// together in a buffer of the parser's, which nobody overwrites, and every later child of the zygote would inherit it.
impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Bytes)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Password;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a password")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Password, A::Error> {
        // With room for all of it, so that growing leaves no copy behind.
        let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
        while let Some(byte) = bytes.next_element::<u8>()? {
            text.push(byte);
        }
        let text = std::str::from_utf8(&text).map_err(|_| A::Error::custom("a password is no text"))?;
        Ok(Password::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_arrives_as_it_is_and_no_parser_has_to_put_it_together() {
        for text in [
            "",
            "plain",
            "quo\"te and back\\slash",
            "Gr\u{fc}\u{df}e \u{1f600}",
            "\u{7}\n",
        ] {
            let sent = serde_json::to_string(&Password::new(text)).unwrap();
            assert!(!sent.contains(['"', '\\']), "{sent}");
            let arrived: Password = serde_json::from_str(&sent).unwrap();
            assert_eq!(arrived.expose(), text);
        }
        for wrong in ["[255]", "[256]", "\"text\""] {
            assert!(serde_json::from_str::<Password>(wrong).is_err(), "{wrong}");
        }
    }
}
