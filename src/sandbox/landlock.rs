//! The files the child sees: what it may read, one directory to write in, nothing else. Also no TCP (from ABI 4) and
//! no signal or abstract socket beyond itself (from ABI 6).
#![expect(
    unsafe_code,
    reason = "the crate hides the ruleset's descriptor, which must survive the closing of all others"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use nix::sys::stat::{SFlag, fstat};

use super::PrepareError;

/// The newest landlock this crate knows. Best effort takes from it what the kernel has.
const NEWEST: ABI = ABI::V10;

/// The kernel's landlock ABI.
///
/// # Errors
/// `ENOSYS` when the kernel does not know landlock, `EOPNOTSUPP` when it was not switched on at boot.
pub(super) fn abi() -> io::Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the kernel reads no attribute and makes no ruleset; it answers a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    if abi < 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(abi).map_err(io::Error::other)
}

/// Makes the rules and returns their descriptor. All that the kernel can refuse is refused, and then `readable` and
/// `writable` get a part of it back.
pub(super) fn ruleset(readable: &[PathBuf], writable: &Path) -> Result<OwnedFd, PrepareError> {
    ruleset_of(NEWEST, readable, writable)
}

/// The rules that a kernel with this ABI can make. The first one is required; what the later ones add, the system call
/// filter denies as well: TCP, device commands, signals and sockets by their calls, and cutting files by their names
/// where the ABI is below 3.
fn ruleset_of(newest: ABI, readable: &[PathBuf], writable: &Path) -> Result<OwnedFd, PrepareError> {
    let mut attributes = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?;
    // The crate takes an empty set for a mistake.
    let (tcp, scopes) = (AccessNet::from_all(newest), Scope::from_all(newest));
    if !tcp.is_empty() {
        attributes = attributes.handle_access(tcp)?;
    }
    if !scopes.is_empty() {
        attributes = attributes.scope(scopes)?;
    }
    let mut ruleset = attributes.create()?;
    for path in readable {
        ruleset = allow(ruleset, path, AccessFs::ReadFile | AccessFs::ReadDir)?.0;
    }
    // Regular files and directories only: no device, socket, pipe or symbolic link can be made, nothing can be run.
    let work = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let work = work & AccessFs::from_all(newest);
    let (ruleset, found) = allow(ruleset, writable, work)?;
    let missing = |kind: io::ErrorKind| PrepareError::Path {
        path: writable.to_owned(),
        source: kind.into(),
    };
    if !found {
        return Err(missing(io::ErrorKind::NotFound));
    }
    let descriptor: Option<OwnedFd> = ruleset.into();
    descriptor.ok_or_else(|| missing(io::ErrorKind::Unsupported))
}

/// Restricts the calling process to the rules, for good. Needs `no_new_privs`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the descriptor is closed here: the child must not keep it"
)]
pub(super) fn restrict(ruleset: OwnedFd) -> io::Result<()> {
    // SAFETY: landlock_restrict_self takes a descriptor, which is open here, and no flags.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Grants `access` to `path` and to all below it; says whether it exists. The kernel refuses (`EINVAL`) rights of
/// directories on a file, so a file is given only those that files have.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<(RulesetCreated, bool), PrepareError> {
    let refused = |source| PrepareError::Path {
        path: path.to_owned(),
        source,
    };
    let opened = match PathFd::new(path) {
        Ok(opened) => opened,
        Err(PathFdError::OpenCall { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok((ruleset, false));
        }
        Err(PathFdError::OpenCall { source, .. }) => return Err(refused(source)),
        Err(other) => return Err(refused(io::Error::other(other))),
    };
    let mode = fstat(opened.as_fd()).map_err(|errno| refused(errno.into()))?.st_mode;
    let directory = mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let access = if directory {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    };
    Ok((ruleset.add_rule(PathBeneath::new(opened, access))?, true))
}

#[cfg(test)]
mod tests {
    //! Landlock alone, without the filter that stops most of this before: in a thread, because without all others it
    //! restricts only the one that asks.

    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::getppid;

    use super::*;

    /// Runs `what` free and restricted, and returns both error numbers.
    fn both(what: impl Fn() -> io::Result<()> + Sync) -> [Option<Errno>; 2] {
        both_of(NEWEST, what)
    }

    fn both_of(newest: ABI, what: impl Fn() -> io::Result<()> + Sync) -> [Option<Errno>; 2] {
        let directory = tempfile::tempdir().unwrap();
        let number = |result: io::Result<()>| result.err().map(|error| Errno::from_raw(error.raw_os_error().unwrap()));
        let free = number(what());
        let restricted = std::thread::scope(|scope| {
            let restricted = scope.spawn(|| {
                nix::sys::prctl::set_no_new_privs().unwrap();
                restrict(ruleset_of(newest, &[], directory.path()).unwrap()).unwrap();
                number(what())
            });
            restricted.join().unwrap()
        });
        [free, restricted]
    }

    fn has(wanted: u32, what: &str) -> bool {
        let abi = abi().unwrap_or(0);
        if abi < wanted {
            println!("skipped: {what} needs landlock ABI {wanted}, this kernel has {abi}");
        }
        abi >= wanted
    }

    #[test]
    fn keeps_from_files() {
        if has(1, "files") {
            let read = || {
                std::fs::read("/etc/hostname")
                    .or_else(|_| std::fs::read("/etc/passwd"))
                    .map(drop)
            };
            assert_eq!(both(read), [None, Some(Errno::EACCES)]);
            // The least that is accepted does it too, also for writing.
            assert_eq!(both_of(ABI::V1, read), [None, Some(Errno::EACCES)]);
            let elsewhere = tempfile::NamedTempFile::new().unwrap();
            let write = || std::fs::write(elsewhere.path(), "x");
            assert_eq!(both_of(ABI::V1, write), [None, Some(Errno::EACCES)]);
        }
    }

    #[test]
    fn keeps_from_tcp() {
        if has(4, "TCP") {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let connect = || TcpStream::connect(listener.local_addr()?).map(drop);
            assert_eq!(both(connect), [None, Some(Errno::EACCES)]);
            let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop);
            assert_eq!(both(bind), [None, Some(Errno::EACCES)]);
        }
    }

    #[test]
    fn keeps_from_abstract_sockets_and_signals() {
        if has(6, "scopes") {
            let name = SocketAddr::from_abstract_name(format!("platen-landlock-{}", std::process::id())).unwrap();
            let _listener = UnixListener::bind_addr(&name).unwrap();
            assert_eq!(
                both(|| UnixStream::connect_addr(&name).map(drop)),
                [None, Some(Errno::EPERM)]
            );
            assert_eq!(both(|| Ok(kill(getppid(), None)?)), [None, Some(Errno::EPERM)]);
        }
    }
}
