//! Takes bodies of RFC 2046 apart.

use axum::body::Bytes;

/// One part.
pub(super) struct Part {
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
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

/// Headers, an empty line, content. A part without headers begins with the empty line.
fn part(bytes: &Bytes) -> Part {
    let empty = |line: &[u8]| bytes.starts_with(line).then_some((0, line.len()));
    let ends = [find(bytes, 0, b"\r\n\r\n"), find(bytes, 0, b"\n\n")];
    let (end, start) = empty(b"\r\n")
        .or_else(|| empty(b"\n"))
        .or_else(|| ends.into_iter().flatten().min())
        .unwrap_or((bytes.len(), bytes.len()));
    let (head, content) = (bytes.slice(..end), bytes.slice(start..));
    let head = String::from_utf8_lossy(&head).into_owned();
    let content_type = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type")
            .then(|| value.trim().to_owned())
    });
    Part { content_type, content }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(body: &'static [u8]) -> Option<Vec<(Option<String>, Bytes)>> {
        let parts = parts(&Bytes::from_static(body), "b")?;
        Some(
            parts
                .into_iter()
                .map(|part| (part.content_type, part.content))
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
