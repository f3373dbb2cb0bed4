//! Takes bodies of RFC 2046 apart.

use axum::body::Bytes;

/// One part.
pub(super) struct Part {
    headers: Vec<(String, String)>,
    pub(super) content: Bytes,
}

impl Part {
    /// The first value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The boundary that a content type names.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    content_type
        .split(';')
        .filter_map(|parameter| parameter.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
        // Single quotes are gcloud's.
        .map(|(_, boundary)| boundary.trim_matches(['"', '\'']))
        .filter(|boundary| !boundary.is_empty())
}

/// Splits a body of RFC 2046. `None` where it does not end with the closing boundary. A line may end with a line feed alone, as
/// gcloud writes them and Google takes them.
pub(super) fn parts(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\n--{boundary}");
    let opening = &delimiter.as_bytes()[1..];
    let mut at = if body.starts_with(opening) {
        opening.len()
    } else {
        find(body, 0, delimiter.as_bytes())?.1
    };
    let mut parts = Vec::new();
    loop {
        if body[at..].starts_with(b"--") {
            return Some(parts);
        }
        let start = find(body, at, b"\n")?.1;
        let (end, next) = find(body, start.saturating_sub(1), delimiter.as_bytes())?;
        let end = if end > start && body[end - 1] == b'\r' {
            end - 1
        } else {
            end
        };
        parts.push(part(&body.slice(start.min(end)..end)));
        at = next;
    }
}

fn find(body: &[u8], from: usize, needle: &[u8]) -> Option<(usize, usize)> {
    let at = from
        + body
            .get(from..)?
            .windows(needle.len())
            .position(|window| window == needle)?;
    Some((at, at + needle.len()))
}

/// Headers, an empty line, content. What has no headers begins with the empty line.
pub(super) fn message(bytes: &Bytes) -> (String, Bytes) {
    let empty = |line: &[u8]| bytes.starts_with(line).then_some((0, line.len()));
    let ends = [find(bytes, 0, b"\r\n\r\n"), find(bytes, 0, b"\n\n")];
    let (end, start) = empty(b"\r\n")
        .or_else(|| empty(b"\n"))
        .or_else(|| ends.into_iter().flatten().min())
        .unwrap_or((bytes.len(), bytes.len()));
    (
        String::from_utf8_lossy(&bytes[..end]).into_owned(),
        bytes.slice(start..),
    )
}

fn part(bytes: &Bytes) -> Part {
    let (head, content) = message(bytes);
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    Part {
        headers: headers.collect(),
        content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(body: &'static [u8]) -> Option<Vec<(Option<String>, Bytes)>> {
        let parts = parts(&Bytes::from_static(body), "b")?;
        Some(
            parts
                .into_iter()
                .map(|part| (part.header("content-type").map(str::to_owned), part.content))
                .collect(),
        )
    }

    #[test]
    fn lines_end_as_the_rfc_says_or_with_a_line_feed_alone() {
        let expected = vec![
            (Some("a/b".to_owned()), Bytes::from_static(b"{}")),
            (None, Bytes::from_static(b"x\n\ny\r\n")),
        ];
        let of_the_rfc = b"--b\r\nContent-Type: a/b\r\n\r\n{}\r\n--b\r\n\r\nx\n\ny\r\n\r\n--b--\r\n";
        assert_eq!(taken_apart(of_the_rfc), Some(expected.clone()));
        let of_gcloud = b"--b\ncontent-type: a/b\nMIME-Version: 1.0\n\n{}\n--b\n\nx\n\ny\r\n\n--b--";
        assert_eq!(taken_apart(of_gcloud), Some(expected));
        assert_eq!(taken_apart(b"--b\r\n\r\nx"), None);
    }
}
