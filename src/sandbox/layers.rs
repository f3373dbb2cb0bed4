//! What this kernel and this user grant, and whether that is enough.

use std::fmt;
use std::io;

use super::identity::{self, Capability};
use super::{Mode, landlock, private_root, seccomp};

/// The layers of the sandbox, each granted or missing with a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The kernel's landlock ABI: files from 1, TCP from 4, signals and abstract sockets from 6.
    pub landlock: Result<u32, String>,
    /// A root directory of the child's own, in the place of landlock: asked for only where that is missing.
    pub private_root: Option<Result<(), String>>,
    /// System call filters.
    pub seccomp: Result<(), String>,
    /// A process can give up ever gaining a privilege; the two above need it.
    pub no_new_privs: Result<(), String>,
    /// This process may give its child another user and group. (It must also be able to kill that child, and to own
    /// and remove its files.)
    pub identity: Result<(), String>,
    /// This process may give its child namespaces of its own.
    pub namespaces: Result<(), String>,
}

/// Asks the kernel. Changes nothing, and costs a few system calls.
#[must_use]
pub fn probe() -> Layers {
    let effective = identity::effective().unwrap_or(0);
    let lacks = |needed: &[Capability]| needed.iter().any(|&one| effective & (1 << one as u64) == 0);
    let needed = [
        Capability::Setuid,
        Capability::Setgid,
        Capability::Kill,
        Capability::Chown,
        Capability::DacOverride,
    ];
    let landlock = landlock::abi();
    Layers {
        private_root: landlock.is_err().then(private_root::available),
        landlock: landlock.map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => "landlock (which files the child sees) is switched off in this kernel: \
                add landlock to the kernel's lsm= boot parameter"
                .to_owned(),
            Some(libc::ENOSYS) => "landlock (which files the child sees) is unknown to this kernel: Linux has it from \
                5.13 on; gVisor, and with it the first generation of Cloud Run, does not. Deploy with \
                --execution-environment gen2"
                .to_owned(),
            _ => format!(
                "landlock (which files the child sees) is refused here ({error}): \
                does the container runtime filter the landlock system calls?"
            ),
        }),
        seccomp: seccomp::available().map_err(|error| {
            format!("seccomp (which system calls the child may make) is missing here ({error}): run on Linux with CONFIG_SECCOMP_FILTER")
        }),
        no_new_privs: nix::sys::prctl::get_no_new_privs()
            .map(drop)
            .map_err(|error| format!("no_new_privs is missing here ({error}): run on Linux 3.5 or later")),
        identity: if lacks(&needed) {
            Err("a user of its own for each child needs root with the capabilities setuid, setgid, kill, chown and \
                dac_override: children run as the worker's user"
                .to_owned())
        } else {
            Ok(())
        },
        namespaces: if lacks(&[Capability::SysAdmin]) {
            Err("network, ipc and uts namespaces of the child's own need root with the capability sys_admin: \
                the system call filter alone keeps the child from the network"
                .to_owned())
        } else {
            Ok(())
        },
    }
}

impl Layers {
    /// Decides whether children may run here. Returns what is missing all the same, a sentence each, to be logged.
    ///
    /// # Errors
    /// In [`Mode::Required`] without seccomp, without `no_new_privs`, or with neither landlock nor a private root in its
    /// place: that one hides the same files, and what else landlock denies (TCP, signals, sockets) the filter denies too. A child's own user and namespaces are never
    /// required: they need a root that Cloud Run services should not have, and close no hole of their own.
    pub fn check(&self, mode: Mode) -> Result<Vec<String>, Missing> {
        let replaced = matches!(self.private_root, Some(Ok(())));
        let required: Vec<String> = [
            self.landlock.as_ref().err().filter(|_| !replaced),
            self.private_root.as_ref().and_then(|root| root.as_ref().err()),
            self.seccomp.as_ref().err(),
            self.no_new_privs.as_ref().err(),
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
        if mode == Mode::Required && !required.is_empty() {
            return Err(Missing { layers: required });
        }
        let second_wall = self.landlock.as_ref().err().filter(|_| replaced).map(|landlock| {
            format!("{landlock}. In its place each child gets a private root: user and mount namespaces of its own")
        });
        let besides = [self.identity.as_ref().err(), self.namespaces.as_ref().err()];
        Ok(required
            .into_iter()
            .chain(second_wall)
            .chain(besides.into_iter().flatten().cloned())
            .collect())
    }
}

impl fmt::Display for Layers {
    /// The granted layers, for a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.landlock.as_ref().ok().map(|abi| format!("landlock (ABI {abi})"))),
            matches!(self.private_root, Some(Ok(()))).then(|| "a private root".to_owned()),
            self.seccomp.is_ok().then(|| "seccomp".to_owned()),
            self.no_new_privs.is_ok().then(|| "no_new_privs".to_owned()),
            self.identity.is_ok().then(|| "a user of its own".to_owned()),
            self.namespaces.is_ok().then(|| "namespaces".to_owned()),
        ];
        let granted: Vec<String> = named.into_iter().flatten().collect();
        f.write_str(if granted.is_empty() { "none" } else { "" })?;
        f.write_str(&granted.join(", "))
    }
}

/// A required layer is missing; nothing may run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine cannot build the required sandbox: {}. To run without, and trust every document, set SANDBOX=best-effort",
    layers.join("; ")
)]
pub struct Missing {
    /// The missing layers, a sentence each.
    pub layers: Vec<String>,
}

/// Turns the kernel's answer to a deliberately unusable request into "it knows the request".
pub(super) fn known_when(expected: i32, error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(expected) {
        Ok(())
    } else {
        Err(error)
    }
}
