//! Fonts beside the system's: a directory of the engine's own that they are copied into before it starts.
//!
//! Copied, whether they come from a directory or from a bucket: a child may then read nothing but fonts, under its own
//! user and without following a link out of its jail, and the set stays the same for every zygote.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::claim::Claim;

/// How many fonts are taken: Google Fonts' whole library has some 3,500 files.
const MOST: usize = 4_000;
/// Bytes of all fonts together. Where the disk is memory, as on Cloud Run, it is the worker's memory.
const MOST_BYTES: u64 = 512 << 20;

/// The extensions of the fonts that LibreOffice reads: OpenType in one of its outer forms.
const EXTENSIONS: [&str; 4] = ["ttf", "otf", "ttc", "otc"];
/// How such a file begins.
const MAGIC: [[u8; 4]; 4] = [[0, 1, 0, 0], *b"OTTO", *b"ttcf", *b"true"];

/// Fonts for one engine. The directory goes with this.
#[derive(Debug)]
pub struct FontDirectory {
    claim: Claim,
    fonts: usize,
    bytes: u64,
}

/// Why fonts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FontError {
    /// A file has a font's name and is none.
    #[error("{0} is no font: TrueType and OpenType are read")]
    NoFont(String),
    /// There are too many.
    #[error(
        "there are more than {MOST} fonts: name a narrower place, or build them into the image under /usr/share/fonts"
    )]
    TooMany,
    /// They are too large.
    #[error(
        "the fonts have more than {} MiB: name a narrower place, or build them into the image under /usr/share/fonts",
        MOST_BYTES >> 20
    )]
    TooLarge,
    /// The directory cannot be written.
    #[error("fonts cannot be copied to the temporary directory: {0}; see TMPDIR")]
    Disk(#[from] io::Error),
}

/// A font that is being written.
#[derive(Debug)]
pub struct FontFile<'a> {
    directory: &'a mut FontDirectory,
    name: String,
    file: File,
    path: PathBuf,
    beginning: Vec<u8>,
}

impl FontDirectory {
    /// Makes an empty one under `parent`, where the engine's work directory is. Blocks.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(parent: &Path) -> Result<Self, FontError> {
        let claim = Claim::create(parent)?;
        let path = claim.path().join("fonts");
        DirBuilder::new().mode(0o755).create(&path)?;
        // Whatever the umask is: children have another user.
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(Self {
            claim,
            fonts: 0,
            bytes: 0,
        })
    }

    /// Whether a file of this name is taken for a font.
    pub fn is_font_name(name: &str) -> bool {
        extension(name).is_some()
    }

    /// Begins a font; `name` is its own, for errors. Write it whole, then [`FontFile::finish`].
    ///
    /// # Errors
    /// There are too many, or the file cannot be made.
    pub fn add(&mut self, name: &str) -> Result<FontFile<'_>, FontError> {
        if self.fonts >= MOST {
            return Err(FontError::TooMany);
        }
        // The owner's name never becomes a path.
        let extension = extension(name).unwrap_or("ttf");
        let path = self.path().join(format!("{:04}.{extension}", self.fonts));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        self.fonts += 1;
        Ok(FontFile {
            directory: self,
            name: name.to_owned(),
            file,
            path,
            beginning: Vec::new(),
        })
    }

    /// How many fonts there are.
    pub fn len(&self) -> usize {
        self.fonts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fonts == 0
    }

    /// Bytes of all fonts.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where they are.
    pub fn path(&self) -> PathBuf {
        self.claim.path().join("fonts")
    }
}

impl FontFile<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// All fonts together are too large, or the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FontError> {
        self.directory.bytes += bytes.len() as u64;
        if self.directory.bytes > MOST_BYTES {
            return Err(FontError::TooLarge);
        }
        let missing = 4_usize.saturating_sub(self.beginning.len()).min(bytes.len());
        self.beginning.extend_from_slice(&bytes[..missing]);
        Ok(self.file.write_all(bytes)?)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not begin as a font does.
    pub fn finish(self) -> Result<(), FontError> {
        if MAGIC.iter().any(|magic| *magic == self.beginning[..]) {
            return Ok(());
        }
        fs::remove_file(&self.path)?;
        Err(FontError::NoFont(self.name))
    }
}

fn extension(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    EXTENSIONS
        .into_iter()
        .find(|extension| ending.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_are_bounded_and_told_by_content() {
        let parent = tempfile::tempdir().unwrap();
        let mut fonts = FontDirectory::create(parent.path()).unwrap();
        let mut font = fonts.add("../../a b.TTF").unwrap();
        // A download comes in any pieces.
        for piece in [&[0][..], &[1, 0], &[0, 7, 7]] {
            font.write(piece).unwrap();
        }
        font.finish().unwrap();
        assert_eq!(fs::read(fonts.path().join("0000.ttf")).unwrap(), [0, 1, 0, 0, 7, 7]);
        assert_eq!((fonts.len(), fonts.bytes()), (1, 6));

        let mut page = fonts.add("page.otf").unwrap();
        page.write(b"<html>").unwrap();
        assert!(matches!(page.finish(), Err(FontError::NoFont(name)) if name == "page.otf"));
        let short = fonts.add("short.ttf").unwrap();
        assert!(matches!(short.finish(), Err(FontError::NoFont(_))));
        assert_eq!(fs::read_dir(fonts.path()).unwrap().count(), 1);

        let mut large = fonts.add("large.ttf").unwrap();
        let mebibyte = vec![0; 1 << 20];
        let refused = (0..=512).find_map(|_| large.write(&mebibyte).err());
        assert!(matches!(refused, Some(FontError::TooLarge)));

        fonts.fonts = MOST;
        assert!(matches!(fonts.add("one.ttf"), Err(FontError::TooMany)));
        let path = fonts.path();
        drop(fonts);
        assert!(!path.exists(), "fonts outlive their engine");
    }
}
