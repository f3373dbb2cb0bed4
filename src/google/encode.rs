//! Percent-encoding as Google's APIs and the V4 signature want it: every byte but the unreserved ones of RFC 3986.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const ALL_BUT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const ALL_BUT_UNRESERVED_AND_SLASH: &AsciiSet = &ALL_BUT_UNRESERVED.remove(b'/');

/// A path segment or a query value: `/` is encoded too. No Unicode normalisation, byte by byte.
pub fn component(text: &str) -> String {
    utf8_percent_encode(text, ALL_BUT_UNRESERVED).to_string()
}

/// A path of the XML API (signed URLs), where `/` stays as it is.
pub fn path(text: &str) -> String {
    utf8_percent_encode(text, ALL_BUT_UNRESERVED_AND_SLASH).to_string()
}
