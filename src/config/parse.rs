//! How one variable's value is written: lists, names, URLs. Each error says what is allowed.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Topic;
use crate::job::is_bucket_name;
use crate::units::{Parsed, duration};

pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(text: &str, range: &RangeInclusive<T>) -> Parsed<T> {
    match text.parse::<T>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!(
            "is '{text}', not a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

pub(super) fn list(text: &str) -> Parsed<Vec<String>> {
    let items: Vec<String> = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect();
    if items.is_empty() {
        Err("is an empty list: write values with commas between them".to_owned())
    } else {
        Ok(items)
    }
}

/// A bucket's name.
pub(super) fn bucket(text: &str) -> Parsed<String> {
    if is_bucket_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "has '{text}', not a bucket's name: write it without gs://, in lower case"
        ))
    }
}

pub(super) fn buckets(text: &str) -> Parsed<Vec<String>> {
    list(text)?.iter().map(|item| bucket(item)).collect()
}

/// A service account's address.
///
/// # Errors
/// A sentence part that follows the variable's name.
pub(crate) fn email(text: &str) -> Parsed<String> {
    let parts: Vec<&str> = text.split('@').collect();
    if parts.len() == 2
        && parts.iter().all(|part| !part.is_empty())
        && text.chars().all(|c| c.is_ascii_graphic() && !"/?#%:\"\\".contains(c))
    {
        Ok(text.to_owned())
    } else {
        Err(format!("has '{text}', not a service account's email"))
    }
}

pub(super) fn emails(text: &str) -> Parsed<Vec<String>> {
    list(text)?.iter().map(|item| email(item)).collect()
}

/// `projects/P/topics/T` or `T`.
pub(super) fn topic(text: &str) -> Parsed<Topic> {
    let segment =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~+%:".contains(c));
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        [name] if segment(name) => Ok(Topic::Short(text.to_owned())),
        ["projects", project, "topics", name] if segment(project) && segment(name) => Ok(Topic::Full(text.to_owned())),
        _ => Err(format!(
            "is '{text}', not a topic: write projects/PROJECT/topics/TOPIC, or TOPIC alone"
        )),
    }
}

/// `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
pub(super) fn kms_key(text: &str) -> Parsed<String> {
    if super::is_kms_key(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is '{text}', not a Cloud KMS key: write projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY, without a version"
        ))
    }
}

pub(super) fn signed_url_ttl(text: &str) -> Parsed<Duration> {
    let ttl = duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_hours(7 * 24)).contains(&ttl) && ttl.subsec_nanos() == 0 {
        Ok(ttl)
    } else {
        Err(format!(
            "is '{text}': allowed are whole seconds from 1s to 12h, or to 7d with a key file"
        ))
    }
}

pub(super) fn ack_deadline(text: &str) -> Parsed<Duration> {
    let deadline = duration(text)?;
    if (Duration::from_secs(10)..=Duration::from_secs(600)).contains(&deadline) {
        Ok(deadline)
    } else {
        Err(format!("is '{text}': Pub/Sub allows 10s to 600s"))
    }
}

/// A POSIX locale's name, such as `de_DE.UTF-8`. Only its form is checked: LibreOffice brings its own locales, and takes
/// English for one that it does not know.
pub(super) fn locale(text: &str) -> Parsed<String> {
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.@".contains(c)) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is '{text}', not a POSIX locale: write one such as C.UTF-8 or de_DE.UTF-8"
        ))
    }
}

/// Comma-separated globs. `*` also matches `/`: `*.docx` means every docx, in whatever folder.
pub(super) fn globs(text: &str) -> Parsed<GlobSet> {
    let mut set = GlobSetBuilder::new();
    let patterns = patterns(text);
    if patterns.is_empty() {
        // It would match nothing, and so leave out every object.
        return Err("is an empty list: write globs with commas between them".to_owned());
    }
    for pattern in patterns {
        let glob = GlobBuilder::new(&pattern)
            .literal_separator(false)
            .build()
            .map_err(|error| format!("has '{pattern}', not a glob: {}", error.kind()))?;
        set.add(glob);
    }
    set.build()
        .map_err(|error| format!("is not a list of globs: {}", error.kind()))
}

/// Cuts at commas, but not at those between braces: `*.{docx,xlsx}` is one pattern.
fn patterns(text: &str) -> Vec<String> {
    let (mut patterns, mut depth) = (vec![String::new()], 0_u32);
    for character in text.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (character, patterns.last_mut()) {
            (',', _) if depth == 0 => patterns.push(String::new()),
            (_, Some(last)) => last.push(character),
            (_, None) => {}
        }
    }
    patterns
        .iter()
        .map(|pattern| pattern.trim().to_owned())
        .filter(|pattern| !pattern.is_empty())
        .collect()
}

/// `host:port`, with or without `http://` before it, as Google's own clients read it.
pub(super) fn emulator_host(text: &str) -> Parsed<String> {
    if text.contains("://") {
        base_url(text)
    } else {
        base_url(&format!("http://{text}"))
    }
}

/// `host` or `host:port`.
///
/// # Errors
/// A sentence part that follows the variable's name.
pub(crate) fn host(text: &str) -> Parsed<String> {
    base_url(&format!("http://{text}"))
        .ok()
        .filter(|_| !text.contains(['/', '?', '@']))
        .map(|_| text.to_owned())
        .ok_or_else(|| format!("is '{text}', not a host: write HOST or HOST:PORT"))
}

/// A project's id: what it may hold, not whether there is one.
pub(super) fn project(text: &str) -> Parsed<String> {
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte))
    {
        Ok(text.to_owned())
    } else {
        Err(format!("is '{text}', not a project's id"))
    }
}

/// An http or https URL without a slash at its end.
pub(super) fn base_url(text: &str) -> Parsed<String> {
    let wrong = || format!("is '{text}', not a URL: write it with http:// or https:// and a host");
    let url = reqwest::Url::parse(text).map_err(|_| wrong())?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none() && url.query().is_none();
    if ["http", "https"].contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty()) && plain {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulator_hosts_come_with_and_without_scheme() {
        assert_eq!(emulator_host("localhost:9000").as_deref(), Ok("http://localhost:9000"));
        assert_eq!(
            emulator_host("http://127.0.0.1:9000/").as_deref(),
            Ok("http://127.0.0.1:9000")
        );
        assert!(emulator_host("ftp://127.0.0.1:9000").is_err());
        assert!(emulator_host("user@host:1").is_err());
        assert!(
            base_url("https://kms.example?key=1").is_err(),
            "paths are put behind it"
        );
    }

    #[test]
    fn globs_match_across_folders() {
        let set = globs("*.docx, reports/**").unwrap();
        assert!(set.is_match("a/b/c.docx"));
        assert!(set.is_match("reports/q3/x.odt"));
        assert!(!set.is_match("a.odt"));
        assert!(globs("[").is_err());
        assert!(globs(" , ,").is_err(), "it would match nothing");
        let set = globs("*.{docx,xlsx},*.odt").unwrap();
        assert!(set.is_match("a.docx") && set.is_match("a.xlsx") && set.is_match("a.odt") && !set.is_match("a.xls"));
    }

    #[test]
    fn topics() {
        assert_eq!(topic("t1"), Ok(Topic::Short("t1".to_owned())));
        assert!(matches!(topic("projects/p/topics/t"), Ok(Topic::Full(_))));
        for text in ["projects/p/t", "a/b", "projects//topics/t", "t?x"] {
            assert!(topic(text).is_err(), "{text}");
        }
    }
}
