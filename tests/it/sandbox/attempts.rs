//! What a document that has taken over the child would try, each by the system call itself.

mod files;
mod network;
mod processes;
mod programs;
mod resources;

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::process::{RAN, Scene};
use libc::{c_int, c_long};

/// When an attempt works outside of the jail, which proves that it is the jail that stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Free {
    /// Always.
    Works,
    /// For root only.
    WorksForRoot,
    /// On machines that allow it; where one does not, that is printed.
    Depends,
}

/// The error number of an attempt that failed.
pub(super) type Tried = Result<(), c_int>;

/// One attempt.
pub(super) struct Attempt<'a> {
    pub(super) name: &'static str,
    pub(super) free: Free,
    /// The error number that the jail must answer with: it tells which layer answered.
    pub(super) inside: c_int,
    pub(super) run: Box<dyn Fn() -> Tried + 'a>,
}

/// Things outside of the jail to aim at.
pub(super) struct Targets {
    tcp: TcpListener,
    tcp6: Option<TcpListener>,
    udp: UdpSocket,
    abstract_address: std::os::unix::net::SocketAddr,
    _abstract_socket: UnixListener,
    /// Another process of the same user.
    pub(super) victim: c_int,
    /// An open file that the child inherits and must not keep.
    inherited: std::fs::File,
}

impl Targets {
    pub(super) fn new(scene: &Scene, victim: c_int) -> Self {
        let name = scene.root.as_os_str().as_bytes();
        let abstract_address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        Self {
            tcp: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            tcp6: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok(),
            udp: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            _abstract_socket: UnixListener::bind_addr(&abstract_address).unwrap(),
            abstract_address,
            victim,
            inherited: std::fs::File::open(scene.other().join("secret")).unwrap(),
        }
    }
}

/// All attempts.
pub(super) fn all<'a>(scene: &'a Scene, targets: &'a Targets) -> Vec<Attempt<'a>> {
    [
        network::all(targets),
        files::all(scene),
        processes::all(targets),
        programs::all(scene),
        resources::all(scene, targets),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl<'a> Attempt<'a> {
    fn new(name: &'static str, free: Free, inside: c_int, run: impl Fn() -> Tried + 'a) -> Self {
        Self {
            name,
            free,
            inside,
            run: Box::new(run),
        }
    }

    /// A system call whose arguments are all numbers.
    fn call(name: &'static str, free: Free, inside: c_int, number: c_long, arguments: [c_long; 4]) -> Self {
        let [a, b, c, d] = arguments;
        Self::new(name, free, inside, move || {
            // SAFETY: the callers pass numbers only.
            done(unsafe { libc::syscall(number, a, b, c, d) })
        })
    }
}

/// The system's error number; -1 for an error that the standard library made up.
fn raw<T>(result: io::Result<T>) -> Tried {
    result.map(drop).map_err(|error| error.raw_os_error().unwrap_or(-1))
}

pub(super) fn open(path: &Path, flags: c_int) -> Tried {
    // SAFETY: a string that ends in zero.
    done(unsafe { libc::open(c(path).as_ptr(), flags, 0o600) }.into())
}

/// Starts threads that stay, until one is refused.
pub(super) fn threads(count: usize) -> Tried {
    for _ in 0..count {
        let started = std::thread::Builder::new().stack_size(64 << 10).spawn(|| {
            loop {
                std::thread::park();
            }
        });
        started.map_err(|error| error.raw_os_error().unwrap_or(0))?;
    }
    Ok(())
}

pub(super) fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

pub(super) fn errno() -> c_int {
    nix::errno::Errno::last_raw()
}

/// What the C library answered, as a result.
pub(super) fn done(answer: c_long) -> Tried {
    if answer < 0 { Err(errno()) } else { Ok(()) }
}
