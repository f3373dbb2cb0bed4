//! Drives LibreOffice: fast, because one warm process is forked per document; safely, because each fork is locked in
//! before it opens the document; and with exactly stock LibreOffice's output. Knows no Google.
//!
//! ```text
//! worker (tokio, tokens)            zygote (one thread, LibreOffice warm)         child (one document)
//! Engine -> supervisor -> process  ==socket==>  zygote -> office  ==fork==>  child -> sandbox::Jail -> office
//!                                                                                  -> outputs in the job directory
//! outcome <- pdf (checks outputs) <==socket==  how it ended  <==pipe, wait4==
//! ```
//!
//! What must always hold:
//! - The worker never maps LibreOffice, and never believes a child: an output counts when it was read here.
//! - A child has entered its jail before it opens the document.
//! - While the worker lives, whatever happens to zygote or child, nothing of a document stays on the disk. What a killed
//!   worker leaves is removed by the next one that starts with the same work directory.

mod child;
mod children;
mod claim;
mod complete;
mod configuration;
mod conversion;
mod deadline;
mod directory;
mod export;
mod finding;
#[cfg(feature = "floor")]
mod floor;
mod fonts;
mod footprint;
mod format;
mod glyphs;
mod hot;
mod image;
mod look;
mod memory;
mod office;
mod outcome;
mod page_layout;
mod password;
mod pdf;
mod process;
mod protocol;
mod setup;
mod supervisor;
mod tree;
mod users;
mod warm;
mod watch;
mod zygote;

pub use conversion::{
    Conversion, Converted, Exceeded, Export, Fit, Image, ImageSize, Import, Limit, Limited, Limits, Output, Pages,
    Paper, Setup, Verdict,
};
pub use directory::{JobDirectory, sanitised_file_name};
pub use finding::Finding;
#[cfg(feature = "floor")]
pub use floor::{Floor, Measured};
pub use fonts::{FontDirectory, FontError, FontFile};
pub use footprint::{Footprint, most_on_disk};
pub use format::{Format, Kind};
pub use image::MOST_PIXELS;
pub use office::Value;
pub use password::Password;
pub use pdf::{Changes, Finish, Permissions, Printing, Protection};
pub use protocol::Usage;
pub use supervisor::{CHECK_GRACE, Engine, Settings, StartError};

/// The hidden subcommand under which this program is the engine's zygote.
pub const ZYGOTE_COMMAND: &str = "engine-zygote";

/// Runs the zygote. `main` calls it before the process has a second thread.
pub fn zygote() -> std::process::ExitCode {
    zygote::run()
}
