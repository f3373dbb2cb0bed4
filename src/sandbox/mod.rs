//! How to run what we do not trust. Knows no office and no Google.
//!
//! A parent prepares a [`Jail`], forks, and the child enters it. From then on the child holds the descriptors it was
//! left, reads what it was given, writes in one directory, and can reach neither a network nor another process.
//! One mechanism a file; none trusts the next one, so that a hole in one is still closed by another:
//!
//! | what is kept away | by |
//! |---|---|
//! | files | `landlock.rs`, or `private_root.rs` where it is missing; another uid where the parent may change it (`identity.rs`) |
//! | network | `seccomp.rs` (no socket), `landlock.rs` (TCP), `identity.rs` (network namespace) |
//! | other processes | `seccomp.rs`, `landlock.rs` (signals, from ABI 6), `identity.rs` |
//! | what the parent had open | `descriptors.rs` |
//! | memory, processor, disk | `limits.rs` |
//! | programs, kernel interfaces | `seccomp.rs` (no exec, an allow list) |

mod descriptors;
mod identity;
mod landlock;
mod layers;
mod limits;
mod parent;
mod private_root;
mod seccomp;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use private_root::PrivateRoot;

pub use identity::Identity;
pub use layers::{Layers, Missing, probe};
pub use limits::{Limits, harden_worker};
pub use parent::end_with_parent;

/// What to do when this machine cannot give every required layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Refuse to run without seccomp, `no_new_privs`, and landlock or a private root in its place.
    #[default]
    Required,
    /// Run with what there is.
    BestEffort,
}

/// What one child may have. Everything that is not named here is kept from it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Files and directories (with all below them) the child may read. A path that does not exist is skipped.
    pub readable: Vec<PathBuf>,
    /// The one directory the child may also write in. It must exist, and belong to [`Plan::identity`] when there is one.
    pub writable: PathBuf,
    /// Descriptors the child keeps. Standard input, output and error become `/dev/null` when they are not among them;
    /// every other descriptor is closed.
    pub keep: Vec<RawFd>,
    /// What the child may use up.
    pub limits: Limits,
    /// Who the child becomes; needs [`Layers::identity`]. Without one it stays who the parent is.
    pub identity: Option<Identity>,
    /// Whether a missing layer is an error.
    pub mode: Mode,
}

/// A sandbox that is ready to be entered: all that can fail early has been done by [`Jail::prepare`].
#[derive(Debug)]
pub struct Jail {
    keep: Vec<RawFd>,
    limits: Limits,
    identity: Option<Identity>,
    layers: Layers,
    mode: Mode,
    ruleset: Option<OwnedFd>,
    private_root: Option<PrivateRoot>,
    parent: Pid,
}

impl Jail {
    /// Prepares a jail in the process that will fork. It costs the parent one descriptor until it is dropped.
    ///
    /// # Errors
    /// A required layer is missing, the identity cannot be taken, or the writable directory cannot be opened.
    pub fn prepare(plan: Plan) -> Result<Self, PrepareError> {
        let layers = probe();
        layers.check(plan.mode)?;
        match (&plan.identity, &layers.identity) {
            (Some(identity), Err(why)) => {
                return Err(PrepareError::Identity {
                    uid: identity.uid,
                    why: why.clone(),
                });
            }
            (Some(identity), Ok(())) if identity.uid == 0 || identity.gid == 0 => return Err(PrepareError::StillRoot),
            (None, _) if plan.mode == Mode::Required && nix::unistd::geteuid().is_root() => {
                return Err(PrepareError::StillRoot);
            }
            _ => {}
        }
        let ruleset = match layers.landlock {
            Ok(_) => Some(landlock::ruleset(&plan.readable, &plan.writable)?),
            Err(_) => None,
        };
        let private_root = match layers.private_root {
            Some(Ok(())) => {
                let prepared = PrivateRoot::prepare(&plan.readable, &plan.writable);
                Some(prepared.map_err(|source| PrepareError::Path {
                    path: plan.writable.clone(),
                    source,
                })?)
            }
            _ => None,
        };
        Ok(Self {
            keep: plan.keep,
            limits: plan.limits,
            identity: plan.identity,
            layers,
            mode: plan.mode,
            ruleset,
            private_root,
            parent: getpid(),
        })
    }

    /// Names the process whose end must be the child's, when the child itself has called [`Jail::prepare`].
    #[must_use]
    pub fn of_parent(mut self, parent: Pid) -> Self {
        self.parent = parent;
        self
    }

    /// Locks the calling process in, for good. Call it in the forked child, which must have one thread only.
    ///
    /// The order matters: each step needs something that a later one takes away.
    ///
    /// # Errors
    /// The step that the kernel refused. The process is then half locked in: report and `_exit`.
    pub fn enter(self) -> Result<(), EnterError> {
        let mut keep = self.keep;
        keep.extend(self.ruleset.as_ref().map(AsRawFd::as_raw_fd));
        descriptors::keep_only(&keep).map_err(EnterError::at(Step::Descriptors))?;

        if self.layers.no_new_privs.is_ok() {
            prctl::set_no_new_privs().map_err(EnterError::at(Step::NoNewPrivileges))?;
        }
        self.limits.apply().map_err(EnterError::at(Step::Limits))?;

        if self.layers.namespaces.is_ok() {
            match identity::leave_namespaces().map_err(EnterError::at(Step::Namespaces)) {
                Err(error) if self.mode == Mode::Required => return Err(error),
                _ => {}
            }
        }
        identity::drop_capability_bounds().map_err(EnterError::at(Step::CapabilityBounds))?;
        if let Some(identity) = self.identity {
            identity.assume().map_err(EnterError::at(Step::Identity))?;
        }
        if let Some(private_root) = &self.private_root {
            // As the user that the child has become: the namespace gives it every capability anew.
            private_root.enter().map_err(EnterError::at(Step::PrivateRoot))?;
            identity::drop_capability_bounds().map_err(EnterError::at(Step::CapabilityBounds))?;
        }
        identity::drop_capabilities().map_err(EnterError::at(Step::Capabilities))?;
        // After the last change of user and capabilities: each sets it to what `fs.suid_dumpable` says, and where that is
        // 2 and cores go to a program, the limit on cores holds none back.
        limits::hide_memory().map_err(EnterError::at(Step::Memory))?;

        // After the change of user, because the kernel forgets the death signal there. A parent that died before is
        // noticed by the child having another one now.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(EnterError::at(Step::DeathSignal))?;
        if getppid() != self.parent {
            return Err(EnterError {
                step: Step::DeathSignal,
                source: io::ErrorKind::NotFound.into(),
            });
        }

        if let Some(ruleset) = self.ruleset {
            landlock::restrict(ruleset).map_err(EnterError::at(Step::Landlock))?;
        }
        if self.layers.seccomp.is_ok() {
            // The right to cut a file by its name is judged by landlock from ABI 3 on; a private root shows no other's.
            let walled = self.private_root.is_some() || self.layers.landlock.is_ok_and(|abi| abi >= 3);
            seccomp::install(walled).map_err(EnterError::at(Step::Seccomp))?;
        }
        Ok(())
    }
}

/// Why a jail cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The machine lacks a required layer.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The plan wants another user, and this process may not become one.
    #[error("the sandbox cannot run its child as uid {uid}: {why}")]
    Identity {
        /// The wanted user.
        uid: u32,
        /// What is missing, for a person.
        why: String,
    },
    /// The child would be root.
    #[error("the sandbox would run its child as root: give the plan a uid and gid other than 0")]
    StillRoot,
    /// The file rules could not be made.
    #[error("the sandbox cannot make its landlock rules: {0}")]
    Landlock(#[from] ::landlock::RulesetError),
    /// A path of the plan could not be opened.
    #[error("the sandbox cannot open {} for its landlock rules: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A step of [`Jail::enter`], so that a child can say without a word of its own where it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Step {
    /// Close what it inherited.
    Descriptors,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// Resource limits.
    Limits,
    /// Namespaces of its own.
    Namespaces,
    /// The bounding set of capabilities.
    CapabilityBounds,
    /// User and groups.
    Identity,
    /// A root directory of its own.
    PrivateRoot,
    /// All other capabilities.
    Capabilities,
    /// No core file, and no look into its memory.
    Memory,
    /// To die with its parent.
    DeathSignal,
    /// The file rules.
    Landlock,
    /// The system call filter.
    Seccomp,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "close the inherited descriptors",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::Limits => "set the resource limits",
            Self::Namespaces => "leave the network, ipc and uts namespaces",
            Self::CapabilityBounds => "drop the bounding set of capabilities",
            Self::Identity => "change user and groups",
            Self::PrivateRoot => "move into a root directory of its own",
            Self::Capabilities => "drop all capabilities",
            Self::Memory => "hide its memory",
            Self::DeathSignal => "ask to die with the parent",
            Self::Landlock => "restrict itself with landlock",
            Self::Seccomp => "install the system call filter",
        })
    }
}

/// The kernel refused a step that [`probe`] had promised.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox could not {step}: {source}")]
pub struct EnterError {
    /// What was being done.
    pub step: Step,
    /// What the system said.
    pub source: io::Error,
}

impl EnterError {
    fn at<E: Into<io::Error>>(step: Step) -> impl FnOnce(E) -> Self {
        move |source| Self {
            step,
            source: source.into(),
        }
    }
}
