//! Arranges a warm zygote's memory so that a fork of it is cheap and what the child does next faults little. Nothing here
//! changes what LibreOffice computes, and every step is left out where the kernel or the allocator does not have it.
//!
//! A fork copies the page tables of anonymous memory, and the child then takes a fault for each page that it writes and
//! for each sixteen pages of program text that it runs: 2,900 faults in a one-page docx, a third of its time.
#![expect(unsafe_code, reason = "memory is mapped, moved and advised by address")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr;

/// A huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;
/// What a child's first allocations are cut from. Untouched before the fork, so it takes no memory in the zygote.
const RESERVE: usize = 8 << 20;
/// `MADV_COLLAPSE` (Linux 6.1).
const MADV_COLLAPSE: c_int = 25;

/// Call it once, when everything is warm: what is allocated later in the zygote itself only makes it worse. Returns what
/// had to be left out, a clause each: conversions are slower then, and nothing else.
pub(super) fn arrange(program: &Path) -> Vec<&'static str> {
    if !has_small_pages() {
        return vec!["this machine's pages are not of 4 KiB"];
    }
    let Ok(mappings) = mappings() else {
        return vec!["/proc/self/maps cannot be read"];
    };
    // The other order would collapse the reserve, too.
    let heap = collapse_heap(&mappings);
    let arena = separate_children();
    let texts = mappings.iter().filter(|mapping| mapping.is_text_in(program));
    // All of them: `all` would stop at the first.
    let refused = texts.filter(|text| !enlarge_text(text.range.clone())).count();
    let text = if refused == 0 {
        Ok(())
    } else {
        Err("the kernel made no huge pages for program text")
    };
    [heap, arena, text].into_iter().filter_map(Result::err).collect()
}

/// Whether pages have the size that all of this counts with: aarch64 knows larger ones.
pub(super) fn has_small_pages() -> bool {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).is_ok_and(|size| size == Some(4096))
}

/// Bytes of address space in use.
pub(super) fn mapped() -> io::Result<u64> {
    statm(&fs::read_to_string("/proc/self/statm")?).map(|sizes| sizes[0])
}

/// Bytes of memory that are no file's: what a leak would make grow.
pub(super) fn own() -> io::Result<u64> {
    own_of(&fs::read_to_string("/proc/self/statm")?)
}

/// The same of any process, from its `statm`: `resident` less `shared`.
pub(super) fn own_of(text: &str) -> io::Result<u64> {
    statm(text).map(|[_, resident, shared]| resident.saturating_sub(shared))
}

/// Bytes of memory that any process has, from its `statm`: those of files, too.
pub(super) fn resident_of(text: &str) -> io::Result<u64> {
    statm(text).map(|[_, resident, _]| resident)
}

/// The first three numbers of `/proc/self/statm` in bytes: mapped, resident, resident of files.
fn statm(text: &str) -> io::Result<[u64; 3]> {
    let page_size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let page_size = u64::try_from(page_size).unwrap_or(4096);
    let mut numbers = text
        .split_ascii_whitespace()
        .map_while(|pages| pages.parse::<u64>().ok());
    let mut next = || {
        numbers
            .next()
            .map(|pages| pages * page_size)
            .ok_or(io::ErrorKind::InvalidData)
    };
    Ok([next()?, next()?, next()?])
}

/// One line of `/proc/self/maps`.
pub(super) struct Mapping {
    pub(super) range: Range<usize>,
    permissions: String,
    path: String,
}

impl Mapping {
    /// Private memory that the process writes, but for its stack.
    pub(super) fn is_written(&self) -> bool {
        self.permissions == "rw-p" && self.path != "[stack]"
    }

    fn is_heap(&self) -> bool {
        self.permissions == "rw-p" && self.path.is_empty()
    }

    fn is_text_in(&self, directory: &Path) -> bool {
        self.permissions == "r-xp" && Path::new(&self.path).starts_with(directory)
    }
}

/// What this process has mapped.
pub(super) fn mappings() -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string("/proc/self/maps")?;
    Ok(text.lines().filter_map(mapping).collect())
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(Mapping {
        range: number(start)?..number(end)?,
        permissions: words.next()?.to_owned(),
        // After the offset, the device and the inode.
        path: words.nth(3).unwrap_or_default().to_owned(),
    })
}

/// The huge pages that lie wholly within a range.
fn huge_pages(range: Range<usize>) -> impl Iterator<Item = usize> {
    (range.start.next_multiple_of(HUGE)..range.end)
        .step_by(HUGE)
        .take_while(move |page| page + HUGE <= range.end)
}

/// Makes huge pages of the heap's parts that are at least half there: 1 entry to copy for a fork instead of 512.
fn collapse_heap(mappings: &[Mapping]) -> Result<(), &'static str> {
    let (mut asked, mut refused) = (0, 0);
    for mapping in mappings.iter().filter(|mapping| mapping.is_heap()) {
        for page in huge_pages(mapping.range.clone()) {
            let mut there = [0_u8; HUGE / 4096];
            // SAFETY: the range is mapped, and `there` has a byte for each of its pages.
            let known = unsafe { libc::mincore(address(page), HUGE, there.as_mut_ptr()) } == 0;
            if known && there.iter().filter(|&&page| page & 1 == 1).count() * 2 >= there.len() {
                // SAFETY: changes how the kernel maps the range, never what is in it; failing changes nothing.
                let failed = unsafe { libc::madvise(address(page), HUGE, MADV_COLLAPSE) } < 0;
                asked += 1;
                refused += u32::from(failed);
            }
        }
    }
    if refused < asked || asked == 0 {
        Ok(())
    } else {
        Err("the kernel made no huge pages of the heap (MADV_COLLAPSE, Linux 6.1)")
    }
}

/// Lets what is allocated from now on come from an arena of its own: a child's objects do not fill the gaps between those
/// of the zygote, where each would cost a copied page. The arena begins with room of huge pages that nobody has touched.
fn separate_children() -> Result<(), &'static str> {
    let control = control().ok_or("the allocator is not jemalloc (Debian's libjemalloc2)")?;
    let mut arena: u32 = 0;
    let mut size = size_of::<u32>();
    // SAFETY: jemalloc's own types for these names: `arenas.create` writes an unsigned, the flush takes nothing,
    // `thread.arena` reads an unsigned.
    let switched = unsafe {
        control(c"arenas.create".as_ptr(), (&raw mut arena).cast(), &raw mut size, ptr::null_mut(), 0) == 0
            // Else the thread's cache would go on handing out what it holds of the old arena.
            && control(c"thread.tcache.flush".as_ptr(), ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0) == 0
            && control(
                c"thread.arena".as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut arena).cast(),
                size_of::<u32>(),
            ) == 0
    };
    if !switched {
        return Err("jemalloc made no arena for children");
    }
    // What is freed stays the arena's, as it is.
    let mut never: isize = -1;
    for decay in ["dirty_decay_ms", "muzzy_decay_ms"] {
        let name = format!("arena.{arena}.{decay}\0");
        // SAFETY: the name ends with a NUL; the value is a ssize_t.
        unsafe {
            control(
                name.as_ptr().cast(),
                ptr::null_mut(),
                ptr::null_mut(),
                (&raw mut never).cast(),
                size_of::<isize>(),
            );
        }
    }
    let mut reserve: *mut c_void = ptr::null_mut();
    // SAFETY: the alignment is a power of two; the memory is freed where it was allocated, untouched.
    unsafe {
        if libc::posix_memalign(&raw mut reserve, HUGE, RESERVE) == 0 {
            libc::madvise(reserve, RESERVE, libc::MADV_HUGEPAGE);
            libc::free(reserve);
        }
    }
    Ok(())
}

type Control = unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;

/// jemalloc's `mallctl`, where jemalloc is the allocator.
fn control() -> Option<Control> {
    const NAME: &CStr = c"mallctl";
    // SAFETY: looks up a name in what is loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr()) };
    // SAFETY: jemalloc is the only library that defines this name; its type is the documented one.
    (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Control>(found) })
}

/// Moves the whole huge pages of a program text into anonymous memory of the same content at the same address. A fork
/// then copies one entry for each, and the child takes no fault at all where it took one for each sixteen small pages.
/// False where the kernel does not do it.
fn enlarge_text(text: Range<usize>) -> bool {
    let Some(start) = huge_pages(text.clone()).next() else {
        return true;
    };
    let length = huge_pages(text).count() * HUGE;
    // SAFETY: the copy is made in memory of our own, and moved over the original by one call, which runs no code of the
    // process. This process has one thread, and it runs code of this program and of the C library here, never the text
    // that is replaced. Should the kernel run out of memory within that call, the text may be gone: then the zygote dies
    // as soon as it returns there, before it is ready, and is started again.
    unsafe {
        let room = libc::mmap(
            ptr::null_mut(),
            length + HUGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if room == libc::MAP_FAILED {
            return false;
        }
        let begin = room as usize;
        let copy = begin.next_multiple_of(HUGE);
        // In small pages the copy would cost more than it brings: a fork would copy all their entries.
        let moved = libc::madvise(address(copy), length, libc::MADV_HUGEPAGE) == 0 && {
            ptr::copy_nonoverlapping(start as *const u8, copy as *mut u8, length);
            libc::madvise(address(copy), length, MADV_COLLAPSE) == 0
                && libc::mprotect(address(copy), length, libc::PROT_READ | libc::PROT_EXEC) == 0
                && libc::mremap(
                    address(copy),
                    length,
                    length,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    address(start),
                ) != libc::MAP_FAILED
        };
        // The margins, and the copy when it was not moved.
        if moved {
            if copy > begin {
                libc::munmap(room, copy - begin);
            }
            if begin + HUGE > copy {
                libc::munmap(address(copy + length), begin + HUGE - copy);
            }
        } else {
            libc::munmap(room, length + HUGE);
        }
        moved
    }
}

fn address(number: usize) -> *mut c_void {
    number as *mut c_void
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_understood() {
        let text = mapping("7f0000201000-7f0000a01000 r-xp 00f2b000 fd:01 131 /usr/lib/libreoffice/program/libswlo.so");
        let text = text.unwrap();
        assert_eq!(text.range, 0x7f00_0020_1000..0x7f00_00a0_1000);
        assert!(text.is_text_in(Path::new("/usr/lib/libreoffice/program")) && !text.is_written());
        let heap = mapping("7f0000000000-7f0000200000 rw-p 00000000 00:00 0 ").unwrap();
        assert!(heap.is_heap() && heap.is_written());
        assert!(
            !mapping("7ffe000-7fff000 rw-p 00000000 00:00 0   [stack]")
                .unwrap()
                .is_written()
        );
    }

    #[test]
    fn own_memory_is_what_no_file_backs() {
        let page = u64::try_from(
            nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
                .unwrap()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(statm("10 5 2 1 0 3 0").unwrap(), [10 * page, 5 * page, 2 * page]);
        assert!(statm("10 5").is_err() && statm("a b c").is_err());
        let before = own().unwrap();
        // So much that what other tests give back meanwhile does not hide it.
        let held = vec![1_u8; 128 << 20];
        assert!(
            own().unwrap() >= before + (64 << 20),
            "{} bytes were not seen",
            held.len()
        );
    }

    #[test]
    fn what_is_left_out_is_said() {
        // The tests' allocator is the C library's.
        let left_out = separate_children();
        assert!(left_out.is_err_and(|what| what.contains("not jemalloc")));
        // Addresses where nothing is mapped can be made no huge page.
        let nothing = mapping("7ffe00000000-7ffe00400000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(collapse_heap(&[nothing]), Ok(()), "what is not there is not asked for");
    }

    #[test]
    fn only_whole_huge_pages_count() {
        let pages = |range| huge_pages(range).collect::<Vec<_>>();
        assert_eq!(pages(1..3 * HUGE), [HUGE, 2 * HUGE]);
        assert_eq!(pages(HUGE..2 * HUGE), [HUGE]);
        assert_eq!(pages(HUGE..2 * HUGE - 1), [0; 0]);
        assert_eq!(pages(1..HUGE), [0; 0]);
    }

    #[test]
    fn a_text_that_was_moved_is_the_same_where_it_was() {
        let length = 5 * HUGE;
        // SAFETY: memory of this test's own, read and executed by nobody else.
        unsafe {
            let room = libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            let bytes = std::slice::from_raw_parts_mut(room.cast::<u64>(), length / 8);
            for (number, byte) in bytes.iter_mut().enumerate() {
                *byte = number as u64;
            }
            libc::mprotect(room, length, libc::PROT_READ | libc::PROT_EXEC);
            enlarge_text(room as usize..room as usize + length);
            let after = std::slice::from_raw_parts(room.cast::<u64>(), length / 8);
            assert!(after.iter().enumerate().all(|(number, &byte)| byte == number as u64));
            libc::munmap(room, length);
        }
    }
}
