//! What a document that has taken over the child would try, each by the system call itself.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
type Tried = Result<(), c_int>;

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
        network(targets),
        files(scene),
        processes(targets),
        programs(scene),
        resources(scene, targets),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn network(targets: &Targets) -> Vec<Attempt<'_>> {
    let tcp = targets.tcp.local_addr().unwrap();
    let tcp6 = targets
        .tcp6
        .as_ref()
        .map_or((Ipv6Addr::LOCALHOST, 80).into(), |it| it.local_addr().unwrap());
    let udp = targets.udp.local_addr().unwrap();
    let inside = libc::EPERM;
    vec![
        Attempt::new("connect to the metadata server", Free::Depends, inside, || {
            connect_to(([169, 254, 169, 254], 80).into())
        }),
        Attempt::new("connect to a port of the worker", Free::Works, inside, move || {
            connect_to(tcp)
        }),
        Attempt::new("connect to ::1", Free::Depends, inside, move || connect_to(tcp6)),
        Attempt::new("connect to an abstract socket", Free::Works, inside, || {
            raw(UnixStream::connect_addr(&targets.abstract_address))
        }),
        Attempt::new("send a datagram", Free::Works, inside, move || datagram(udp)),
        Attempt::new("ask a name server", Free::Works, inside, || {
            datagram((Ipv4Addr::LOCALHOST, 53).into())
        }),
        Attempt::call(
            "open a raw socket",
            Free::WorksForRoot,
            inside,
            libc::SYS_socket,
            [2, 3, 1, 0],
        ),
        Attempt::call(
            "open a netlink socket",
            Free::Works,
            inside,
            libc::SYS_socket,
            [16, 3, 0, 0],
        ),
        Attempt::new("make a pair of sockets", Free::Works, inside, || {
            let mut pair = [0; 2];
            // SAFETY: the kernel writes two numbers.
            done(unsafe {
                libc::syscall(
                    libc::SYS_socketpair,
                    libc::AF_UNIX,
                    libc::SOCK_STREAM,
                    0,
                    pair.as_mut_ptr(),
                )
            })
        }),
        Attempt::new("set io_uring up", Free::Depends, inside, || {
            let mut parameters = [0_u64; 32];
            // SAFETY: the structure has 120 bytes, and all zero is a valid one.
            done(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
        }),
    ]
}

fn files(scene: &Scene) -> Vec<Attempt<'_>> {
    let (job, other, readable) = (scene.job(), scene.other(), scene.readable());
    let secret = other.join("secret");
    // SAFETY: getpid cannot fail. This process will be the parent of those that try.
    let parent = unsafe { libc::getpid() };
    let proc = |entry: &str| format!("/proc/{parent}/{entry}");
    let (landlock, seccomp) = (libc::EACCES, libc::EPERM);
    let (read, write, make) = (libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_CREAT);
    let (link, target) = (job.join("link"), secret.clone());
    let (hard, original) = (job.join("hard"), secret.clone());
    let (planted, stolen, back) = (job.join("planted-link"), job.join("stolen"), secret.clone());
    let fifo = job.join("fifo");
    let outside = c(&secret);
    let mut attempts = vec![
        Attempt::new(
            "plant a symbolic link and open through it",
            Free::Works,
            seccomp,
            move || {
                // SAFETY: two strings that end in zero.
                done(unsafe {
                    libc::syscall(
                        libc::SYS_symlinkat,
                        c(&target).as_ptr(),
                        libc::AT_FDCWD,
                        c(&link).as_ptr(),
                    )
                })?;
                open(&link, libc::O_RDONLY)
            },
        ),
        Attempt::new(
            "plant a hard link and open through it",
            Free::Works,
            seccomp,
            move || {
                let (from, to) = (c(&original), c(&hard));
                // SAFETY: two strings that end in zero.
                done(unsafe {
                    libc::syscall(
                        libc::SYS_linkat,
                        libc::AT_FDCWD,
                        from.as_ptr(),
                        libc::AT_FDCWD,
                        to.as_ptr(),
                        0,
                    )
                })?;
                open(&hard, libc::O_RDONLY)
            },
        ),
        Attempt::new(
            "move another job's file into its own directory",
            Free::Works,
            landlock,
            move || {
                // SAFETY: strings that end in zero.
                done(unsafe { libc::rename(c(&back).as_ptr(), c(&stolen).as_ptr()) }.into())?;
                // SAFETY: as above; for the attempts that follow.
                done(unsafe { libc::rename(c(&stolen).as_ptr(), c(&back).as_ptr()) }.into())
            },
        ),
        Attempt::new("make a named pipe", Free::Works, seccomp, move || {
            // SAFETY: a string that ends in zero.
            done(unsafe {
                libc::syscall(
                    libc::SYS_mknodat,
                    libc::AT_FDCWD,
                    c(&fifo).as_ptr(),
                    libc::S_IFIFO | 0o600,
                    0,
                )
            })
        }),
        Attempt::new("give another job's file away", Free::Works, seccomp, move || {
            // SAFETY: a string that ends in zero; -1 changes nothing.
            done(unsafe { libc::syscall(libc::SYS_fchownat, libc::AT_FDCWD, outside.as_ptr(), -1, -1, 0) })
        }),
        Attempt::call("watch files", Free::Works, seccomp, libc::SYS_inotify_init1, [0; 4]),
        Attempt::new("cut another job's file", Free::Works, landlock, {
            let secret = c(&secret);
            // SAFETY: a string that ends in zero. Its length stays what it is.
            move || done(unsafe { libc::truncate(secret.as_ptr(), 6) }.into())
        }),
    ];
    let opened = [
        ("read /etc/passwd", Free::Works, "/etc/passwd".into(), read),
        ("read /etc/shadow", Free::WorksForRoot, "/etc/shadow".into(), read),
        ("list /", Free::Works, "/".into(), read),
        ("list the jobs", Free::Works, scene.root.clone(), read),
        (
            "make a file beside its directory",
            Free::Works,
            scene.root.join("planted"),
            make,
        ),
        ("read another job's file", Free::Works, secret.clone(), read),
        (
            "read another job's file by ..",
            Free::Works,
            job.join("../other/secret"),
            read,
        ),
        (
            "read another job's file by a link that was there before",
            Free::Works,
            planted,
            read,
        ),
        ("write another job's file", Free::Works, secret, write),
        (
            "make a file in another job's directory",
            Free::Works,
            other.join("planted"),
            make,
        ),
        ("write a readable file", Free::Works, readable.join("font"), write),
        (
            "make a file in a readable directory",
            Free::Works,
            readable.join("planted"),
            make,
        ),
        (
            "read the parent's environment",
            Free::Works,
            proc("environ").into(),
            read,
        ),
        ("read the parent's memory", Free::Depends, proc("mem").into(), read),
        ("list the parent's descriptors", Free::Works, proc("fd").into(), read),
        (
            "read its own environment in /proc",
            Free::Works,
            "/proc/self/environ".into(),
            read,
        ),
        ("list the processes", Free::Works, "/proc".into(), read),
        (
            "open a terminal",
            Free::Depends,
            "/dev/ptmx".into(),
            libc::O_RDWR | libc::O_NOCTTY,
        ),
    ];
    for (name, free, path, flags) in opened {
        let path: PathBuf = path;
        attempts.push(Attempt::new(name, free, landlock, move || open(&path, flags)));
    }
    attempts
}

fn processes(targets: &Targets) -> Vec<Attempt<'_>> {
    let victim = c_long::from(targets.victim);
    // SAFETY: getpid cannot fail. This process will be the parent of those that try.
    let parent = c_long::from(unsafe { libc::getpid() });
    let (works, root, inside) = (Free::Works, Free::WorksForRoot, libc::EPERM);
    vec![
        Attempt::call(
            "see whether process 1 may be signalled",
            root,
            inside,
            libc::SYS_kill,
            [1, 0, 0, 0],
        ),
        Attempt::call(
            "see whether the parent may be signalled",
            works,
            inside,
            libc::SYS_kill,
            [parent, 0, 0, 0],
        ),
        Attempt::call(
            "signal a thread of the parent",
            works,
            inside,
            libc::SYS_tgkill,
            [parent, parent, 0, 0],
        ),
        Attempt::call(
            "signal a thread by its number alone",
            works,
            inside,
            libc::SYS_tkill,
            [parent, 0, 0, 0],
        ),
        Attempt::call(
            "stop a process",
            works,
            inside,
            libc::SYS_kill,
            [victim, libc::SIGSTOP.into(), 0, 0],
        ),
        Attempt::call(
            "let it go on",
            works,
            inside,
            libc::SYS_kill,
            [victim, libc::SIGCONT.into(), 0, 0],
        ),
        Attempt::call(
            "open a process as a descriptor",
            works,
            inside,
            libc::SYS_pidfd_open,
            [victim, 0, 0, 0],
        ),
        Attempt::call(
            "change a process's limits",
            works,
            inside,
            libc::SYS_prlimit64,
            [victim, 4, 0, 0],
        ),
        Attempt::new("have the kernel signal a process", works, inside, move || {
            // SAFETY: fcntl takes numbers here.
            done(unsafe { libc::fcntl(0, libc::F_SETOWN, victim) }.into())
        }),
        Attempt::new("trace a process", Free::Depends, inside, move || {
            // SAFETY: PTRACE_SEIZE reads no memory; it ends with this process.
            done(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, victim, 0, 0) })
        }),
        Attempt::new("read a process's memory", Free::Depends, inside, move || {
            let mut byte = 0_u8;
            let local = libc::iovec {
                iov_base: (&raw mut byte).cast(),
                iov_len: 1,
            };
            static THERE_TOO: u8 = 1;
            let remote = libc::iovec {
                iov_base: (&raw const THERE_TOO).cast_mut().cast(),
                iov_len: 1,
            };
            // SAFETY: one byte of a constant, at the address where the fork of this process has it too.
            done(unsafe {
                libc::syscall(
                    libc::SYS_process_vm_readv,
                    victim,
                    &raw const local,
                    1,
                    &raw const remote,
                    1,
                    0,
                )
            })
        }),
        Attempt::call("become root", root, inside, libc::SYS_setresuid, [0, 0, 0, 0]),
        Attempt::call(
            "set a user of its own again",
            works,
            inside,
            libc::SYS_setresuid,
            [-1, -1, -1, 0],
        ),
        Attempt::call(
            "become readable to others",
            works,
            inside,
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE.into(), 1, 0, 0],
        ),
        Attempt::call(
            "outlive its parent",
            works,
            inside,
            libc::SYS_prctl,
            [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0],
        ),
        Attempt::new("fork", works, inside, || {
            // SAFETY: the new process leaves at once.
            match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
                // SAFETY: as above.
                0 => unsafe { libc::_exit(0) },
                pid => done(pid),
            }
        }),
        Attempt::new("fork by clone3", works, libc::ENOSYS, || {
            let arguments = [0_u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
            // SAFETY: 64 bytes are the first version of the structure; the new process leaves at once.
            match unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) } {
                // SAFETY: as above.
                0 => unsafe { libc::_exit(0) },
                pid => done(pid),
            }
        }),
        Attempt::new("start 200 threads", works, libc::EAGAIN, || threads(200)),
    ]
}

fn programs(scene: &Scene) -> Vec<Attempt<'_>> {
    let (works, inside) = (Free::Works, libc::EPERM);
    let (root, job) = (c(Path::new("/")), c(&scene.job()));
    let arguments = [
        c(Path::new("sh")),
        c(Path::new("-c")),
        c(Path::new(&format!("exit {RAN}"))),
    ];
    let again = arguments.clone();
    vec![
        Attempt::new("run a program", works, inside, move || {
            let list = [
                arguments[0].as_ptr(),
                arguments[1].as_ptr(),
                arguments[2].as_ptr(),
                std::ptr::null(),
            ];
            // SAFETY: a path, and a list of strings that ends in null.
            done(unsafe {
                libc::syscall(
                    libc::SYS_execve,
                    c"/bin/sh".as_ptr(),
                    list.as_ptr(),
                    [std::ptr::null::<u8>()].as_ptr(),
                )
            })
        }),
        Attempt::new("run a program by execveat", works, inside, move || {
            let list = [
                again[0].as_ptr(),
                again[1].as_ptr(),
                again[2].as_ptr(),
                std::ptr::null(),
            ];
            let none = [std::ptr::null::<u8>()];
            // SAFETY: as above.
            done(unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    libc::AT_FDCWD,
                    c"/bin/sh".as_ptr(),
                    list.as_ptr(),
                    none.as_ptr(),
                    0,
                )
            })
        }),
        Attempt::new("make a file in memory to run", works, inside, || {
            // SAFETY: a string that ends in zero.
            done(unsafe { libc::syscall(libc::SYS_memfd_create, c"program".as_ptr(), 0) })
        }),
        Attempt::call(
            "make a user namespace",
            Free::Depends,
            inside,
            libc::SYS_unshare,
            [libc::CLONE_NEWUSER.into(), 0, 0, 0],
        ),
        Attempt::new("clone into a user namespace", Free::Depends, inside, || {
            let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
            // SAFETY: the new process leaves at once.
            match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
                // SAFETY: as above.
                0 => unsafe { libc::_exit(0) },
                pid => done(pid),
            }
        }),
        Attempt::new("change its root", Free::WorksForRoot, inside, move || {
            // SAFETY: a string that ends in zero.
            done(unsafe { libc::syscall(libc::SYS_chroot, root.as_ptr()) })
        }),
        Attempt::new("mount over its directory", Free::Depends, inside, move || {
            // Outside of the jail, nobody else may see the mount.
            // SAFETY: strings that end in zero, or null where the call allows it.
            unsafe {
                if libc::unshare(libc::CLONE_NEWNS) == 0 {
                    let flags = libc::MS_REC | libc::MS_PRIVATE;
                    done(
                        libc::mount(
                            std::ptr::null(),
                            c"/".as_ptr(),
                            std::ptr::null(),
                            flags,
                            std::ptr::null(),
                        )
                        .into(),
                    )?;
                }
                let tmpfs = c"tmpfs".as_ptr();
                done(libc::mount(tmpfs, job.as_ptr(), tmpfs, 0, std::ptr::null()).into())
            }
        }),
    ]
}

fn resources<'a>(scene: &'a Scene, targets: &'a Targets) -> Vec<Attempt<'a>> {
    let works = Free::Works;
    let large = scene.job().join("large");
    vec![
        Attempt::new("map more memory than it may", works, libc::ENOMEM, || {
            let (protection, flags) = (
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            );
            // SAFETY: a new mapping at an address of the kernel's choice.
            match unsafe { libc::mmap(std::ptr::null_mut(), 4 << 30, protection, flags, -1, 0) } {
                libc::MAP_FAILED => Err(errno()),
                _ => Ok(()),
            }
        }),
        Attempt::new("write more into a file than it may", works, libc::EFBIG, move || {
            use std::os::unix::fs::FileExt as _;
            // SAFETY: ignoring a signal sets no handler. By default it ends the process.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            raw(std::fs::File::create(&large).and_then(|file| file.write_at(b"x", 2 << 20)))
        }),
        Attempt::new("open more descriptors than it may", works, libc::EMFILE, || {
            // SAFETY: dup takes and returns numbers; the process ends soon.
            (0..100).try_for_each(|_| done(unsafe { libc::dup(0) }.into()))
        }),
        Attempt::new("read a file that the parent had open", works, libc::EBADF, || {
            let mut byte = 0_u8;
            // SAFETY: one byte to write to.
            done(unsafe { libc::pread(targets.inherited.as_raw_fd(), (&raw mut byte).cast(), 1, 0) } as c_long)
        }),
    ]
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

fn connect_to(address: SocketAddr) -> Tried {
    raw(TcpStream::connect_timeout(&address, Duration::from_secs(1)))
}

fn datagram(to: SocketAddr) -> Tried {
    raw(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(b"secret", to)))
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
