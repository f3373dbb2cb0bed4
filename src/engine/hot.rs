//! The pages of the zygote's memory that nearly every conversion writes: found by conversions of samples, and made a
//! child's own in one go before its document is there, instead of one fault at a time.
#![expect(unsafe_code, reason = "fork and madvise have no safe wrapper")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getpid, getppid, pipe2};

use super::memory::{self, Mapping};

const PAGE: usize = 4096;
/// `MADV_POPULATE_WRITE` (Linux 5.14).
const MADV_POPULATE_WRITE: libc::c_int = 23;
/// Bits of an entry of `/proc/self/pagemap`: the page is there, is a file's, is nobody else's.
const PRESENT: u64 = 1 << 63;
const OF_A_FILE: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;

/// Ranges of addresses, in order.
#[derive(Default)]
pub(super) struct HotPages(Vec<Range<usize>>);

/// What was seen of samples so far.
#[derive(Default)]
pub(super) struct Lessons {
    /// How many conversions wrote each page.
    counts: BTreeMap<usize, usize>,
    conversions: usize,
}

impl Lessons {
    /// Runs a conversion in a fork and sees what it writes. The process must have one thread. Where the kernel does not
    /// tell, nothing is learned: conversions are slower then, and nothing else.
    pub(super) fn take(&mut self, conversion: impl Fn()) {
        if memory::has_small_pages()
            && let Ok(pages) = written_by(conversion)
        {
            self.conversions += 1;
            for page in pages {
                *self.counts.entry(page).or_default() += 1;
            }
        }
    }

    /// The pages that at least half of the conversions wrote.
    pub(super) fn learned(self) -> HotPages {
        // A page that only a child had mapped cannot be asked for before it has.
        let ours = memory::mappings().unwrap_or_default();
        let hot = self
            .counts
            .into_iter()
            .filter(|&(_, count)| count * 2 >= self.conversions)
            .map(|(page, _)| page)
            .filter(|page| {
                ours.iter()
                    .any(|mapping| mapping.is_written() && mapping.range.contains(page))
            });
        HotPages(joined(hot))
    }
}

impl HotPages {
    /// Whether nothing was learned.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the pages this process's own. For a child, before it has a document.
    pub(super) fn populate(&self) {
        for range in &self.0 {
            // SAFETY: changes which memory the pages are in, never what they hold; failing leaves it to faults.
            unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), MADV_POPULATE_WRITE) };
        }
    }
}

/// Neighbours as one range.
fn joined(pages: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for page in pages {
        match ranges.last_mut() {
            Some(last) if last.end == page => last.end += PAGE,
            _ => ranges.push(page..page + PAGE),
        }
    }
    ranges
}

/// The pages that a fork has written when it is done with a conversion.
fn written_by(conversion: impl Fn()) -> io::Result<Vec<usize>> {
    let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
    let parent = getpid();
    // SAFETY: the caller has one thread, so the child may do all that its parent may.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(from);
            // It is no child that anybody else ends.
            if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != parent {
                // SAFETY: as below.
                unsafe { libc::_exit(1) }
            }
            // Else its own page map belongs to root. There is no secret and no document of anybody's in this process.
            // SAFETY: PR_SET_DUMPABLE takes a number.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
            conversion();
            let done = report(&File::from(to)).is_ok();
            // SAFETY: ends the process without running LibreOffice's destructors.
            unsafe { libc::_exit(i32::from(!done)) }
        }
        ForkResult::Parent { child } => {
            drop(to);
            let mut said = Vec::new();
            let read = File::from(from).read_to_end(&mut said);
            let ended = waitpid(child, None)?;
            read?;
            if ended != nix::sys::wait::WaitStatus::Exited(child, 0) {
                return Err(io::Error::other("a sample's conversion ended early"));
            }
            let pages = said.as_chunks().0.iter().map(|bytes| usize::from_ne_bytes(*bytes));
            Ok(pages.collect())
        }
    }
}

/// Writes the addresses of the pages that are this process's alone.
fn report(mut to: &File) -> io::Result<()> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut pages = Vec::new();
    for mapping in memory::mappings()?.iter().filter(|mapping| mapping.is_written()) {
        for (number, entry) in entries(&pagemap, mapping)?.into_iter().enumerate() {
            if entry & PRESENT != 0 && entry & EXCLUSIVE != 0 && entry & OF_A_FILE == 0 {
                pages.extend((mapping.range.start + number * PAGE).to_ne_bytes());
            }
        }
    }
    to.write_all(&pages)
}

fn entries(pagemap: &File, mapping: &Mapping) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; mapping.range.len() / PAGE * 8];
    pagemap.read_exact_at(&mut bytes, (mapping.range.start / PAGE * 8) as u64)?;
    Ok(bytes
        .as_chunks()
        .0
        .iter()
        .map(|entry| u64::from_ne_bytes(*entry))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let pages = [0x1000, 0x2000, 0x5000, 0x7000, 0x8000, 0x9000];
        assert_eq!(
            joined(pages.into_iter()),
            [0x1000..0x3000, 0x5000..0x6000, 0x7000..0xa000]
        );
        assert!(joined(std::iter::empty()).is_empty());
    }
}
