//! Takes bodies of RFC 2046 apart.

use axum::body::Bytes;

/// One part.
pub(super) struct Part {
    pub(super) content_type: Option<String>,
    pub(super) content: Bytes,
}

/// Splits a body of RFC 2046. `None` where it does not end with the closing boundary.
pub(super) fn parts(body: &Bytes, boundary: &str) -> Option<Vec<Part>> {
    let delimiter = format!("\r\n--{boundary}");
    let opening = &delimiter.as_bytes()[2..];
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
        let start = find(body, at, b"\r\n")?.1;
        let (end, next) = find(body, start.saturating_sub(2), delimiter.as_bytes())?;
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
    let (head, content) = if bytes.starts_with(b"\r\n") {
        (Bytes::new(), bytes.slice(2..))
    } else {
        match find(bytes, 0, b"\r\n\r\n") {
            Some((end, start)) => (bytes.slice(..end), bytes.slice(start..)),
            None => (bytes.clone(), Bytes::new()),
        }
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let content_type = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type")
            .then(|| value.trim().to_owned())
    });
    Part { content_type, content }
}
