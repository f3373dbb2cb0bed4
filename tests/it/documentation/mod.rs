//! What the documentation says is so: its commands run or are parsed, its examples fit the schemas, and each failure is
//! what `docs/failures.md` says.

mod commands;
mod examples;
mod failures;

use std::path::{Path, PathBuf};

/// A fenced block of a page.
pub(super) struct Block {
    /// The page, from the project's root.
    pub(super) page: String,
    /// The line of its first fence.
    pub(super) line: usize,
    /// The heading above it.
    pub(super) heading: String,
    /// `sh`, `json` or `text`.
    pub(super) language: String,
    pub(super) text: String,
}

impl Block {
    /// Where it is, for whoever mends it.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md, all pages of docs/ and that of deploy/gke, by name.
pub(super) fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), "deploy/gke/README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            pages.push(format!("docs/{name}"));
        }
    }
    pages.sort();
    pages
}

pub(super) fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The fenced blocks of a page.
pub(super) fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut open, mut heading) = (Vec::new(), None::<Block>, String::new());
    for (index, line) in read(page).lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                open = Some(Block {
                    page: page.to_owned(),
                    line: index + 1,
                    heading: heading.clone(),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, None) => {
                if let Some(text) = line.strip_prefix('#') {
                    heading = text.trim_start_matches('#').trim().to_owned();
                }
            }
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    blocks
}

pub(super) fn all_blocks() -> Vec<Block> {
    pages().iter().flat_map(|page| blocks(page)).collect()
}

/// `PATH` with the binary under test in front.
pub(super) fn path() -> std::ffi::OsString {
    let binaries: PathBuf = Path::new(env!("CARGO_BIN_EXE_platen")).parent().unwrap().to_owned();
    let rest = std::env::var_os("PATH").unwrap();
    std::env::join_paths(std::iter::once(binaries).chain(std::env::split_paths(&rest))).unwrap()
}
