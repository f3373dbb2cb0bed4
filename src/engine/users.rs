//! The users that children become: a range of numbers that no other worker in this network namespace has.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The first number. systemd hands out 61184 to 65519 to services for as long as they run, so no account has one of them;
/// they also exist in a container that maps only 65,536 ids. A service of systemd's may have the same number: see
/// [`crate::sandbox::Identity`].
const FIRST: u32 = 61184;
/// How many numbers a worker has, and how many workers find some.
const OF_ONE_WORKER: u32 = 256;
const WORKERS: u32 = 16;

/// A worker's numbers. Dropping this gives them back.
#[derive(Debug)]
pub(super) struct Users {
    first: u32,
    /// An abstract name is held by one socket of a network namespace, goes with it however the process ends, and is no
    /// file. Nobody listens on it.
    _name: Option<UnixDatagram>,
}

impl Users {
    /// Takes numbers that nobody has. Where all are taken, or names cannot be, it shares the first ones: the sandbox
    /// holds without, and this only keeps two workers' children from being counted together.
    pub(super) fn take() -> Self {
        let taken = (0..WORKERS)
            .map(|number| FIRST + number * OF_ONE_WORKER)
            .find_map(|first| {
                let name = SocketAddr::from_abstract_name(format!("platen-users-{first}")).ok()?;
                Some((first, UnixDatagram::bind_addr(&name).ok()?))
            });
        match taken {
            Some((first, name)) => Self {
                first,
                _name: Some(name),
            },
            None => {
                tracing::warn!("the users of conversions are shared with another worker on this host");
                Self {
                    first: FIRST,
                    _name: None,
                }
            }
        }
    }

    /// The user of a job's number, if there is one.
    pub(super) fn of(&self, job: u32) -> Option<u32> {
        (job < OF_ONE_WORKER).then_some(self.first + job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_have_no_user_in_common_and_one_that_ends_gives_its_own_back() {
        let (one, other) = (Users::take(), Users::take());
        assert_ne!(one.of(0), other.of(0));
        assert_eq!(one.of(255).unwrap() - one.of(0).unwrap(), 255);
        assert_eq!(one.of(256), None);
        let first = one.first;
        drop(one);
        let name = SocketAddr::from_abstract_name(format!("platen-users-{first}")).unwrap();
        UnixDatagram::bind_addr(&name).expect("the name is free again");
    }
}
