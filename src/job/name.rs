//! How an output is named: a template over the source's name.

use sha2::{Digest, Sha256};

/// The longest object name Cloud Storage takes, in bytes of UTF-8.
const LONGEST: usize = 1024;

/// A template such as `{dir}{stem}.{ext}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate(String);

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct NameValues<'a> {
    /// The source's bucket.
    pub bucket: &'a str,
    /// The source object's whole name.
    pub object: &'a str,
    /// The source's generation.
    pub generation: i64,
    /// The output's extension.
    pub extension: &'a str,
    /// The job's identity.
    pub job_id: &'a str,
}

const PLACEHOLDERS: [&str; 7] = ["bucket", "dir", "stem", "name", "generation", "ext", "jobId"];

impl Default for NameTemplate {
    fn default() -> Self {
        Self("{dir}{stem}.{ext}".to_owned())
    }
}

impl NameTemplate {
    /// Checks a template.
    ///
    /// # Errors
    /// A sentence part that names the placeholder that is not one, or what else is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(['\r', '\n']) {
            return Err("it is empty or has a line break".to_owned());
        }
        for piece in pieces(text) {
            match piece {
                Piece::Placeholder(name) if !PLACEHOLDERS.contains(&name) => {
                    return Err(format!("{{{name}}} is none of {{{}}}", PLACEHOLDERS.join("} {")));
                }
                Piece::Unclosed => return Err("a '{' has no '}'".to_owned()),
                Piece::Placeholder(_) | Piece::Text(_) => {}
            }
        }
        let constant = pieces(text).all(|piece| matches!(piece, Piece::Text(_)));
        if constant && !super::is_object_name(text) {
            return Err("Cloud Storage takes no object of that name".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for these values. One that is too long for Cloud Storage is cut and gets a hash of the whole, so that
    /// two long names stay two.
    pub fn fill(&self, values: &NameValues<'_>) -> String {
        let (directory, name) = match values.object.rfind('/') {
            Some(slash) => values.object.split_at(slash + 1),
            None => ("", values.object),
        };
        // A dot that opens the name is no extension's: `.profile` is all stem.
        let stem = match name.rfind('.') {
            Some(dot) if dot > 0 => &name[..dot],
            _ => name,
        };
        let filled: String = pieces(&self.0)
            .map(|piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Placeholder("bucket") => values.bucket.to_owned(),
                Piece::Placeholder("dir") => directory.to_owned(),
                Piece::Placeholder("stem") => stem.to_owned(),
                Piece::Placeholder("name") => name.to_owned(),
                Piece::Placeholder("generation") => values.generation.to_string(),
                Piece::Placeholder("ext") => values.extension.to_owned(),
                Piece::Placeholder("jobId") => values.job_id.to_owned(),
                Piece::Placeholder(_) | Piece::Unclosed => String::new(),
            })
            .collect();
        shorten(filled, values.extension)
    }
}

fn shorten(name: String, extension: &str) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let digest = Sha256::digest(name.as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let ending = format!("-{hash}.{extension}");
    let mut keep = LONGEST - ending.len();
    while !name.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}{ending}", &name[..keep])
}

enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
    Unclosed,
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match rest.strip_prefix('{') {
            None => {
                let (head, tail) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
                rest = tail;
                Some(Piece::Text(head))
            }
            Some(after) => match after.split_once('}') {
                Some((name, tail)) => {
                    rest = tail;
                    Some(Piece::Placeholder(name))
                }
                None => {
                    rest = "";
                    Some(Piece::Unclosed)
                }
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, object: &str) -> String {
        let values = NameValues {
            bucket: "in",
            object,
            generation: 7,
            extension: "pdf",
            job_id: "0123456789abcdef0123456789abcdef",
        };
        NameTemplate::parse(template).unwrap().fill(&values)
    }

    #[test]
    fn placeholders_stand_for_the_sources_parts() {
        assert_eq!(fill("{dir}{stem}.{ext}", "reports/q3.docx"), "reports/q3.pdf");
        assert_eq!(fill("{dir}{stem}.{ext}", "q3.docx"), "q3.pdf");
        assert_eq!(fill("{dir}{name}.{ext}", "a/b/q3.final.docx"), "a/b/q3.final.docx.pdf");
        assert_eq!(
            fill("{bucket}/{dir}{stem}-{generation}.{ext}", "a/q3.docx"),
            "in/a/q3-7.pdf"
        );
        assert_eq!(fill("{stem}", "a/.profile"), ".profile");
        assert_eq!(fill("{jobId}", "a"), "0123456789abcdef0123456789abcdef");
        assert_eq!(fill("{dir}{stem}.{ext}", "a//../b/ü.docx"), "a//../b/ü.pdf");
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_and_stays_its_own() {
        let one = fill("{dir}{stem}.{ext}", &format!("{}1.docx", "ü".repeat(509)));
        let two = fill("{dir}{stem}.{ext}", &format!("{}2.docx", "ü".repeat(509)));
        assert_eq!(one, format!("{}1.pdf", "ü".repeat(509)));
        let long = fill("{dir}{name}.{ext}", &format!("{}1.docx", "ü".repeat(509)));
        let other = fill("{dir}{name}.{ext}", &format!("{}2.docx", "ü".repeat(509)));
        assert!(long.len() <= 1024 && other.len() <= 1024);
        assert_ne!(long, other);
        assert_ne!(one, two);
        assert!(long.ends_with(".pdf"));
    }

    #[test]
    fn wrong_templates_are_refused() {
        for text in ["", "{year}.pdf", "{stem", "a\nb", ".", ".."] {
            assert!(NameTemplate::parse(text).is_err(), "{text}");
        }
    }
}
