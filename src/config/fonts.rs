//! `FONTS`: where more fonts than the system's are.

use std::path::PathBuf;

use crate::job::is_bucket_name;
use crate::units::Parsed;

/// Where fonts are read from before the engine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fonts {
    /// A directory, and those in it.
    Directory(PathBuf),
    /// The objects of a bucket whose names begin with a prefix.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The prefix; empty: all objects.
        prefix: String,
    },
}

pub(super) fn fonts(text: &str) -> Parsed<Fonts> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Fonts::Directory(PathBuf::from(text)));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if scheme == "gs" && is_bucket_name(bucket) && prefix.len() <= 1024 && !prefix.contains(char::is_control) {
        Ok(Fonts::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    } else {
        Err(format!("is '{text}', neither a directory nor gs://BUCKET/PREFIX"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_a_bucket() {
        let bucket = |bucket: &str, prefix: &str| Fonts::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(fonts("/srv/fonts"), Ok(Fonts::Directory("/srv/fonts".into())));
        assert_eq!(fonts("fonts"), Ok(Fonts::Directory("fonts".into())));
        assert_eq!(fonts("gs://brand/fonts/"), Ok(bucket("brand", "fonts/")));
        assert_eq!(fonts("gs://brand"), Ok(bucket("brand", "")));
        for wrong in [
            "gs://",
            "gs:///fonts",
            "gs://B!/x",
            "https://host/fonts",
            "s3://brand/x",
        ] {
            assert!(fonts(wrong).is_err(), "{wrong}");
        }
    }
}
