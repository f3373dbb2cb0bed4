//! LibreOffice in this process, behind the C interface of `office.cc`: the only foreign functions of the engine.
//!
//! Only the zygote and its children come here. Everything is single-threaded by design: LibreOffice's main loop calls
//! [`Work`] once and never gets control back.
#![expect(unsafe_code, reason = "LibreOffice is C++: UNO has no other interface")]

mod object;
mod value;

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Deserialize;

use super::protocol::MEMORY_EXHAUSTED_LINE;
use value::{RawObject, RawValue, RawValues};

pub(super) use object::{Answer, Argument, Object};
pub use value::Value;

/// The shim, compiled by build.rs.
static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libplaten_office.so"));

/// The release whose private symbols the shim calls.
const WANTED: &str = "25.2";

/// What LibreOffice said when it did not do as asked. Holds no text of the document.
#[derive(Debug, Clone, Default)]
pub(super) struct Complaint {
    /// The type names of the questions it asked.
    pub(super) asked: Vec<String>,
    /// The type name of the exception, empty without one.
    pub(super) exception: String,
    /// LibreOffice's error code (`ErrCode`), 0 without one.
    pub(super) error_code: u32,
}

/// The work that the main loop is given for good: it ends the process, it does not return.
pub(super) type Work = Box<dyn FnOnce(Office)>;

/// `platen_report`.
#[repr(C)]
struct RawReport {
    error_code: u32,
    exception: [c_char; 128],
    asked: [c_char; 512],
}

type Load = unsafe extern "C" fn(*const c_char, *const RawValue, usize, *mut RawReport) -> *mut RawObject;
type Store = unsafe extern "C" fn(
    *mut RawObject,
    *const c_char,
    *const RawValue,
    usize,
    *const RawValue,
    usize,
    *mut RawReport,
) -> bool;
type Close = unsafe extern "C" fn(*mut RawObject, *mut RawReport) -> bool;
type ForgetAuthors = unsafe extern "C" fn(*mut RawReport) -> bool;
type Start = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    extern "C" fn(*mut c_void, *const c_char) -> bool,
    extern "C" fn(*mut c_void, c_int) -> c_int,
    extern "C" fn(*mut c_void),
    extern "C" fn(),
    *mut c_void,
    *mut c_char,
    usize,
);

/// LibreOffice, started and inside its main loop.
pub(super) struct Office {
    /// As a person reads it: `LibreOffice 25.2.3.2`.
    pub(super) version: String,
    load: Load,
    store: Store,
    close: Close,
    forget_authors: ForgetAuthors,
    objects: object::Functions,
}

/// A loaded document.
pub(super) struct Document<'a> {
    object: Object<'a>,
}

/// What the main loop's callbacks share.
struct Loop {
    work: Option<Work>,
    office: Option<Office>,
    refused: Option<String>,
}

/// The event counter that ends a wait inside LibreOffice; -1 before the start.
static WAKE: AtomicI32 = AtomicI32::new(-1);
/// Where a process says that an allocation failed; -1 in the zygote itself.
static MEMORY_EXHAUSTED: AtomicI32 = AtomicI32::new(-1);

impl Office {
    /// Starts LibreOffice from its `program` directory and gives its main loop to `work`. Returns only when it fails,
    /// with a sentence.
    pub(super) fn run(program: &Path, profile: &Path, work: Work) -> String {
        match Self::start(program, profile, work) {
            Ok(never) => match never {},
            Err(sentence) => sentence,
        }
    }

    fn start(program: &Path, profile: &Path, work: Work) -> Result<Infallible, String> {
        // The shim needs libraries of LibreOffice. With the merged library in, the loader finds them by their names,
        // wherever the installation is.
        open_library(&program.join("libmergedlo.so"))?;
        let shim = open_shim()?;
        // SAFETY: the names and types are those of office.cc, which build.rs compiled from the same tree.
        let (start, office) = unsafe {
            let start: Start = std::mem::transmute(symbol(shim, c"platen_office_start")?);
            let office = Self {
                version: String::new(),
                load: std::mem::transmute::<*mut c_void, Load>(symbol(shim, c"platen_office_load")?),
                store: std::mem::transmute::<*mut c_void, Store>(symbol(shim, c"platen_office_store")?),
                close: std::mem::transmute::<*mut c_void, Close>(symbol(shim, c"platen_office_close")?),
                forget_authors: std::mem::transmute::<*mut c_void, ForgetAuthors>(symbol(
                    shim,
                    c"platen_office_forget_authors",
                )?),
                objects: object::Functions::of(shim)?,
            };
            (start, office)
        };
        renew_wake().map_err(|error| format!("cannot make an event descriptor: {error}"))?;
        let program_c = c_path(program)?;
        let profile_url = CString::new(file_url(profile)).map_err(|_| "the profile's path holds a NUL".to_owned())?;
        let mut shared = Loop {
            work: Some(work),
            office: Some(office),
            refused: None,
        };
        let mut error: [c_char; 256] = [0; 256];
        // SAFETY: the strings and `shared` outlive the call; the callbacks are its only users and run on this thread.
        unsafe {
            start(
                program_c.as_ptr(),
                profile_url.as_ptr(),
                on_version,
                on_poll,
                on_wake,
                on_memory_exhausted,
                (&raw mut shared).cast(),
                error.as_mut_ptr(),
                error.len(),
            );
        }
        let said = text_of(&error);
        Err(match shared.refused {
            Some(version) => format!(
                "{} holds {version}; this build of Platen needs LibreOffice {WANTED}",
                program.display()
            ),
            None => format!("{said}; this build of Platen needs LibreOffice {WANTED}"),
        })
    }

    /// Loads a document, hidden and read-only as `properties` say.
    ///
    /// # Errors
    /// It does not load.
    pub(super) fn load(&self, path: &Path, properties: &[(&str, Value)]) -> Result<Document<'_>, Complaint> {
        let url = c_url(path)?;
        let properties = RawValues::of_properties(properties)?;
        let mut report = RawReport::empty();
        // SAFETY: all pointers outlive the call, and the counts are those of the arrays.
        let handle = unsafe { (self.load)(url.as_ptr(), properties.as_ptr(), properties.len(), &raw mut report) };
        match ptr::NonNull::new(handle) {
            None => Err(report.complaint()),
            Some(handle) => Ok(Document {
                object: Object::new(self, handle),
            }),
        }
    }

    /// Empties the table of authors of tracked changes that loading documents has filled.
    ///
    /// # Errors
    /// LibreOffice threw an exception.
    pub(super) fn forget_authors(&self) -> Result<(), Complaint> {
        let mut report = RawReport::empty();
        // SAFETY: the report outlives the call, and LibreOffice is started.
        if unsafe { (self.forget_authors)(&raw mut report) } {
            Ok(())
        } else {
            Err(report.complaint())
        }
    }
}

impl<'a> Document<'a> {
    /// The document as an object, with properties and methods.
    pub(super) fn object(&self) -> &Object<'a> {
        &self.object
    }

    /// Writes the document to a file. Without `filter_data` none is passed: any changes how images are written.
    ///
    /// # Errors
    /// It is not written.
    pub(super) fn store(
        &self,
        path: &Path,
        properties: &[(&str, Value)],
        filter_data: &[(&str, Value)],
    ) -> Result<(), Complaint> {
        let url = c_url(path)?;
        let properties = RawValues::of_properties(properties)?;
        let filter_data = RawValues::of_properties(filter_data)?;
        let mut report = RawReport::empty();
        // SAFETY: the handle came from `load` and is not closed; pointers outlive the call, counts are the arrays'.
        let stored = unsafe {
            (self.object.office().store)(
                self.object.handle(),
                url.as_ptr(),
                properties.as_ptr(),
                properties.len(),
                filter_data.as_ptr(),
                filter_data.len(),
                &raw mut report,
            )
        };
        if stored { Ok(()) } else { Err(report.complaint()) }
    }

    /// Closes the document and frees it. For the warm-up: a conversion's child ends with its document open.
    ///
    /// # Errors
    /// LibreOffice refuses.
    pub(super) fn close(self) -> Result<(), Complaint> {
        let mut report = RawReport::empty();
        // SAFETY: the handle came from `load`; `self` is consumed, and with it the handle is released.
        if unsafe { (self.object.office().close)(self.object.handle(), &raw mut report) } {
            Ok(())
        } else {
            Err(report.complaint())
        }
    }
}

/// Makes a new wake counter: a fork shares the one it finds.
pub(super) fn renew_wake() -> io::Result<()> {
    let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let wake: OwnedFd = wake.into();
    let old = WAKE.swap(std::os::fd::IntoRawFd::into_raw_fd(wake), Ordering::Relaxed);
    if old >= 0 {
        // SAFETY: WAKE owned it, and nothing else uses it.
        drop(unsafe { OwnedFd::from_raw_fd(old) });
    }
    Ok(())
}

/// The wake counter's descriptor, which a child must keep.
pub(super) fn wake_descriptor() -> i32 {
    WAKE.load(Ordering::Relaxed)
}

/// From now on the first allocation that fails writes [`MEMORY_EXHAUSTED_LINE`] to this descriptor, so that the parent can
/// tell a document that is too big from one that breaks LibreOffice.
pub(super) fn report_exhausted_memory(to: &OwnedFd) {
    MEMORY_EXHAUSTED.store(to.as_raw_fd(), Ordering::Relaxed);
}

extern "C" fn on_version(data: *mut c_void, json: *const c_char) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Version {
        product_name: String,
        product_version: String,
        #[serde(default)]
        product_extension: String,
    }
    // SAFETY: `data` is the `Loop` of `start`, which outlives the main loop; `json` is a C string of the shim.
    let (shared, json) = unsafe { (&mut *data.cast::<Loop>(), CStr::from_ptr(json)) };
    let Ok(version) = serde_json::from_slice::<Version>(json.to_bytes()) else {
        shared.refused = Some("a LibreOffice that does not tell its version".to_owned());
        return false;
    };
    let text = format!(
        "{} {}{}",
        version.product_name, version.product_version, version.product_extension
    );
    if version.product_version != WANTED {
        shared.refused = Some(text);
        return false;
    }
    if let Some(office) = &mut shared.office {
        office.version = text;
    }
    true
}

/// The first poll is ours for good. LibreOffice polls again from inside a load: that one must really wait, and answer
/// whether something came; an error would end the application.
extern "C" fn on_poll(data: *mut c_void, timeout_us: c_int) -> c_int {
    // SAFETY: `data` is the `Loop` of `start`, which outlives the main loop; calls do not overlap: the reference ends
    // before the work begins.
    let (work, office) = unsafe {
        let shared = &mut *data.cast::<Loop>();
        (shared.work.take(), shared.office.take())
    };
    if let (Some(work), Some(office)) = (work, office) {
        work(office);
    }
    let mut wake = libc::pollfd {
        fd: WAKE.load(Ordering::Relaxed),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = libc::timespec {
        tv_sec: libc::time_t::from(timeout_us / 1_000_000),
        tv_nsec: libc::c_long::from(timeout_us % 1_000_000) * 1000,
    };
    let limit = if timeout_us < 0 { ptr::null() } else { &raw const limit };
    let mut count = 0_u64;
    // SAFETY: one pollfd, a time that lives on this stack, and eight bytes for the counter.
    unsafe {
        if libc::ppoll(&raw mut wake, 1, limit, ptr::null()) <= 0 {
            return 0;
        }
        libc::read(wake.fd, (&raw mut count).cast(), 8);
    }
    1
}

extern "C" fn on_wake(_: *mut c_void) {
    let one = 1_u64;
    // SAFETY: eight bytes, as an event counter wants. It is full only when a wake is already waiting.
    unsafe { libc::write(WAKE.load(Ordering::Relaxed), (&raw const one).cast(), 8) };
}

/// Called when an allocation has failed: must not allocate.
extern "C" fn on_memory_exhausted() {
    note_exhausted_memory();
}

/// Says once that an allocation has failed, where [`report_exhausted_memory`] told: a document that asks ten thousand
/// times in vain must leave room in the pipe for the report.
pub(super) fn note_exhausted_memory() {
    let to = MEMORY_EXHAUSTED.swap(-1, Ordering::Relaxed);
    if to >= 0 {
        // SAFETY: a constant of that length. The pipe does not block, and it has room.
        unsafe { libc::write(to, MEMORY_EXHAUSTED_LINE.as_ptr().cast(), MEMORY_EXHAUSTED_LINE.len()) };
    }
}

impl RawReport {
    fn empty() -> Self {
        Self {
            error_code: 0,
            exception: [0; 128],
            asked: [0; 512],
        }
    }

    fn complaint(&self) -> Complaint {
        Complaint {
            asked: text_of(&self.asked).lines().map(str::to_owned).collect(),
            exception: text_of(&self.exception),
            error_code: self.error_code,
        }
    }
}

impl Complaint {
    /// Something that this side could not even ask.
    fn of_ours(what: &str) -> Self {
        Self {
            exception: format!("platen.{what}"),
            ..Self::default()
        }
    }
}

/// A path as the `file:` URL that LibreOffice reads: anything but unreserved characters is percent-encoded.
pub(super) fn file_url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    const ENCODED: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    format!(
        "file://{}",
        percent_encoding::percent_encode(path.as_os_str().as_bytes(), &ENCODED)
    )
}

fn c_url(path: &Path) -> Result<CString, Complaint> {
    CString::new(file_url(path)).map_err(|_| Complaint::of_ours("path"))
}

fn c_path(path: &Path) -> Result<CString, String> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| format!("{} holds a NUL", path.display()))
}

/// The text of a C string in a fixed array.
fn text_of(array: &[c_char]) -> String {
    let bytes: Vec<u8> = array
        .iter()
        .take_while(|&&byte| byte != 0)
        .map(|&byte| byte.cast_unsigned())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Opens the shim from memory: it is part of this binary and needs no file beside it.
fn open_shim() -> Result<*mut c_void, String> {
    let failed = |error: io::Error| format!("cannot open the engine's shim from memory: {error}");
    let memory = memfd_create(c"platen-office", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = std::fs::File::from(memory);
    io::Write::write_all(&mut file, SHIM).map_err(failed)?;
    open_library(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn open_library(path: &Path) -> Result<*mut c_void, String> {
    let name = c_path(path)?;
    // SAFETY: opening runs the library's initialisers: LibreOffice's own, or the shim's, which has none that matter.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        return Err(format!(
            "cannot open {} ({}): Platen needs LibreOffice {WANTED}; 'deploy/packages.sh engine' installs it",
            path.display(),
            last_loader_error()
        ));
    }
    Ok(handle)
}

fn last_loader_error() -> String {
    // SAFETY: dlerror returns null or a C string that is valid until the next call of the loader.
    unsafe {
        let error = libc::dlerror();
        if error.is_null() {
            String::new()
        } else {
            CStr::from_ptr(error).to_string_lossy().into_owned()
        }
    }
}

fn symbol(library: *mut c_void, name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: `library` came from dlopen and is never closed.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    if found.is_null() {
        Err(format!("the engine's shim has no symbol {}", name.to_string_lossy()))
    } else {
        Ok(found)
    }
}
