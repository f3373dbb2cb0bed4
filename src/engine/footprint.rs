//! What the engine takes of a machine: all the time, and at most for one job. Who decides how many jobs run at once counts
//! with it.

use std::fs;
use std::io;

use super::directory::WorkDirectory;
use super::memory;

/// What a job directory may take beyond its document and twice its outputs: LibreOffice's temporary files.
const TEMPORARY_FILES: u64 = 256 << 20;

/// What worker and engine hold while no job runs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory of this process, that of its program's file included.
    pub worker: u64,
    /// Resident memory of the warm zygote, LibreOffice's files included.
    pub zygote: u64,
    /// The part of it that is no file's. A child that writes to all of it has a copy.
    pub zygote_own: u64,
    /// Files of the engine: fonts, profile, caches.
    pub disk: u64,
}

impl Footprint {
    /// What a warm engine with the image's fonts takes about, for a sum that is made without one. Measured with
    /// LibreOffice 25.2; a test holds it to a real start, so that it neither promises room that there is not nor cries
    /// wolf. Fonts of `FONTS` come on top.
    pub const TYPICAL: Self = Self {
        worker: 48 << 20,
        zygote: 320 << 20,
        zygote_own: 176 << 20,
        disk: 8 << 20,
    };

    pub(super) fn measure(zygote: u32, work: &WorkDirectory) -> io::Result<Self> {
        let of_zygote = fs::read_to_string(format!("/proc/{zygote}/statm"))?;
        Ok(Self {
            worker: memory::resident_of(&fs::read_to_string("/proc/self/statm")?)?,
            zygote: memory::resident_of(&of_zygote)?,
            zygote_own: memory::own_of(&of_zygote)?,
            disk: work.allocated()?,
        })
    }
}

/// What the directory of a job with a document of so many bytes may take on the disk before the job is ended: the document,
/// each output twice (LibreOffice writes some beside their end, and a PDF that is protected is written anew), and temporary
/// files.
///
/// [`super::Engine::convert`] holds jobs to it (`diskSize` in docs/limits.md).
pub fn most_on_disk(document: u64, outputs: usize, output_size: u64) -> u64 {
    let outputs = u64::try_from(outputs).unwrap_or(u64::MAX);
    output_size
        .saturating_mul(2)
        .saturating_mul(outputs)
        .saturating_add(document)
        .saturating_add(TEMPORARY_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_may_take_its_document_its_outputs_twice_and_temporary_files() {
        assert_eq!(most_on_disk(7, 2, 100), 7 + 400 + (256 << 20));
        assert_eq!(most_on_disk(7, usize::MAX, u64::MAX), u64::MAX);
    }
}
