//! Ways to a network or to a socket.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Attempt, Free, Targets, Tried, done, raw};

pub(super) fn all(targets: &Targets) -> Vec<Attempt<'_>> {
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

fn connect_to(address: SocketAddr) -> Tried {
    raw(TcpStream::connect_timeout(&address, Duration::from_secs(1)))
}

fn datagram(to: SocketAddr) -> Tried {
    raw(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(b"secret", to)))
}
