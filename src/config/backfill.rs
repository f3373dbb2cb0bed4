//! What `platen backfill` takes from the environment: Google, and those of the worker's variables that say what it
//! would convert and where the outcome would be.

use globset::GlobSet;

use super::{CloudConfig, Problems, Reader, Strings, parse};
use crate::job::NameTemplate;

/// The settings.
#[derive(Debug, Clone)]
pub struct BackfillConfig {
    /// Where Google is.
    pub cloud: CloudConfig,
    /// `OUTPUT_BUCKET`; none: nobody looks for what is done.
    pub output_bucket: Option<String>,
    /// `OUTPUT_NAME`.
    pub output_name: NameTemplate,
    /// `INPUT_INCLUDE`, unless a flag says it.
    pub include: Option<String>,
    /// `INPUT_EXCLUDE`.
    pub exclude: Option<String>,
}

impl BackfillConfig {
    /// Reads and checks them.
    ///
    /// # Errors
    /// All the variables that are wrong.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        let mut reader = Reader::new(strings);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let cloud = CloudConfig::read(reader);
        let output_bucket = reader.optional("OUTPUT_BUCKET", parse::bucket);
        let output_name = reader.or("OUTPUT_NAME", NameTemplate::default(), |text| {
            NameTemplate::parse(text).map_err(|error| format!("is not a name template: {error}"))
        });
        let is_globs = |text: &str| parse::globs(text).map(|_| text.to_owned());
        let include = reader.optional("INPUT_INCLUDE", is_globs);
        let exclude = reader.optional("INPUT_EXCLUDE", is_globs);
        Some(Self {
            cloud: cloud?,
            output_bucket: output_bucket?,
            output_name: output_name?,
            include: include?,
            exclude: exclude?,
        })
    }
}

/// Globs as `INPUT_INCLUDE` writes them.
///
/// # Errors
/// The rest of a sentence that begins with what they are the value of.
pub fn globs(text: &str) -> Result<GlobSet, String> {
    parse::globs(text)
}
