//! What the worker and its zygote say to each other: one JSON object a packet, on a `SOCK_SEQPACKET` pair.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use nix::sys::socket::{MsgFlags, recv, send};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Exceeded, Export, Finding, Import, Kind, Password};
use crate::sandbox;

/// The largest packet: a request of as many outputs and options as a job may have takes about 120 KiB, and a socket's
/// buffer 208 KiB.
pub(super) const LARGEST_PACKET: usize = 160 * 1024;

/// From the worker. The zygote reads of a job what it must know of it ([`JobLimits`]), and its child reads all.
#[derive(Serialize, Deserialize)]
pub(super) enum Request<J = Box<Job>> {
    /// The first packet: how to start.
    Start(Start),
    /// Convert a document in a child of its own.
    Convert(J),
    /// Convert without a child, for the benchmark.
    #[cfg(feature = "floor")]
    Measure(super::floor::Measure),
    /// End a conversion that nobody waits for any more.
    Cancel {
        /// The job's number.
        job: u64,
    },
}

/// How a zygote starts.
#[derive(Serialize, Deserialize)]
pub(super) struct Start {
    /// LibreOffice's `program` directory.
    pub(super) program: PathBuf,
    /// The zygote's own directory; its working directory, too.
    pub(super) home: PathBuf,
    /// More fonts, which children may read.
    pub(super) fonts: Option<PathBuf>,
    /// Whether a missing layer of the sandbox is an error.
    pub(super) sandbox: SandboxMode,
}

/// [`sandbox::Mode`] on the wire.
#[derive(Serialize, Deserialize, Clone, Copy)]
pub(super) enum SandboxMode {
    Required,
    BestEffort,
}

/// One conversion.
#[derive(Serialize, Deserialize)]
pub(super) struct Job {
    /// Its number, unique in one zygote.
    pub(super) number: u64,
    /// The job directory: absolute, existing, the child's own.
    pub(super) directory: PathBuf,
    /// The user and group the child becomes.
    pub(super) user: Option<u32>,
    /// The document's file name in the directory.
    pub(super) document: String,
    /// How it is read.
    pub(super) import: Import,
    /// What opens it.
    pub(super) password: Option<Password>,
    /// What is written.
    pub(super) exports: Vec<Export>,
    /// Wall time in milliseconds.
    pub(super) wall_ms: u64,
    /// Processor time in milliseconds.
    pub(super) processor_ms: u64,
    /// Bytes of memory that it does not share with the zygote.
    pub(super) memory: u64,
    /// Bytes of one file.
    pub(super) file_size: u64,
    /// Bytes of all its files.
    pub(super) disk: u64,
    /// Threads at once.
    pub(super) threads: u64,
}

/// What the zygote reads of a [`Job`]: numbers. Every later child is a copy of the zygote's memory, what it has freed
/// included, so neither a password nor a name may ever be in it.
#[derive(Deserialize)]
pub(super) struct JobLimits {
    pub(super) number: u64,
    pub(super) wall_ms: u64,
    pub(super) processor_ms: u64,
    pub(super) memory: u64,
    pub(super) disk: u64,
    pub(super) threads: u64,
}

/// From the zygote.
#[derive(Serialize, Deserialize)]
pub(super) enum Event {
    /// Warm, tested, and waiting for jobs.
    Ready {
        /// As a person reads it.
        version: String,
    },
    /// It cannot start; a sentence. The last packet.
    Refused(String),
    /// What a [`Request::Measure`] took, or a sentence.
    #[cfg(feature = "floor")]
    Measured(Result<super::floor::Measured, String>),
    /// A job's child is gone, and nothing of it writes any more.
    Finished {
        /// The job's number.
        job: u64,
        /// How the child ended.
        ending: Ending,
        /// What it used.
        usage: Usage,
        /// Bytes of memory that the zygote itself has now, beyond those it had when it was warm.
        grown: u64,
    },
}

/// How a child ended.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(super) enum Ending {
    /// It said so itself; whether an allocation had failed before. It may be compromised: the worker checks the outputs.
    Reported {
        report: Report,
        memory_exhausted: bool,
        findings: Vec<Finding>,
    },
    /// A signal, without a report; whether an allocation had failed before.
    Signalled { signal: i32, memory_exhausted: bool },
    /// It exited, without a report; whether an allocation had failed before.
    Exited { status: i32, memory_exhausted: bool },
    /// Killed at its wall limit.
    TimedOut,
    /// Killed at another limit.
    OverLimit(Exceeded),
    /// Killed on request.
    Cancelled,
    /// It did not come as far as opening the document; a sentence of the zygote's.
    NotStarted(String),
}

/// What a child writes once it is locked in and before it opens the document. What it says from then on may be an
/// attacker's.
pub(super) const CONFINED_LINE: &[u8] = b"confined\n";
/// What a child writes when an allocation has failed.
pub(super) const MEMORY_EXHAUSTED_LINE: &[u8] = b"memory\n";

/// Why a child did not come as far as the document: said instead of [`CONFINED_LINE`], believed only without it.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
pub(super) struct NotConfined {
    pub(super) step: Preparation,
    /// The system's error number, 0 when there is none.
    pub(super) errno: i32,
}

/// What a child does before it opens the document.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
pub(super) enum Preparation {
    /// Goes into its job directory and makes LibreOffice's folders there.
    JobDirectory,
    /// Enters its jail.
    Jail(sandbox::Step),
}

impl std::fmt::Display for NotConfined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match self.step {
            Preparation::JobDirectory => write!(f, "the job directory cannot be used: {error}; see TMPDIR"),
            Preparation::Jail(step) => write!(f, "the sandbox could not {step}: {error}"),
        }
    }
}

/// What a child says about its conversion. Comes from a process that may be compromised: a closed set of words, never
/// text of the document.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(super) enum Report {
    /// Every output is written.
    Done,
    /// The document did not load.
    NotLoaded {
        /// LibreOffice asked for a password.
        password_wanted: bool,
    },
    /// The document loaded, and is of no kind that the wanted format can be made of.
    NoExportFilter,
    /// The document is of a kind that LibreOffice makes no such format of.
    FormatNotOfKind {
        /// Which export's.
        export: usize,
        /// What the document is.
        kind: Kind,
    },
    /// The document is of a kind that an option is not for.
    OptionNotOfKind {
        /// Which export's.
        export: usize,
        /// Which of its limited options.
        option: usize,
        /// What the document is.
        kind: Kind,
    },
    /// The document has none of the pages that were asked for.
    NoSuchPages,
    /// The document has no such page.
    NoSuchPage {
        /// Which export's.
        export: usize,
    },
    /// The paper that was asked for has no room between the margins of a page.
    PaperTooSmall,
    /// The image that was asked for has too many pixels.
    ImageTooLarge,
    /// The output was not written.
    NotStored {
        /// LibreOffice's error code, 0 when unknown.
        error_code: u32,
    },
}

/// What a child used.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Wall time from when the child got its job, in milliseconds.
    pub wall_ms: u64,
    /// Processor time, user and system, in milliseconds: from the fork, so with what the child did before it had a job.
    pub cpu_ms: u64,
    /// Peak resident memory in bytes, counting what is shared with the warm engine.
    pub peak_memory: u64,
    /// The most memory of its own that was seen, in bytes; 0 for a conversion too short to be looked at.
    pub own_memory: u64,
}

impl From<sandbox::Mode> for SandboxMode {
    fn from(mode: sandbox::Mode) -> Self {
        match mode {
            sandbox::Mode::Required => Self::Required,
            sandbox::Mode::BestEffort => Self::BestEffort,
        }
    }
}

impl From<SandboxMode> for sandbox::Mode {
    fn from(mode: SandboxMode) -> Self {
        match mode {
            SandboxMode::Required => Self::Required,
            SandboxMode::BestEffort => Self::BestEffort,
        }
    }
}

/// Sends one packet.
///
/// # Errors
/// The other side is gone, or (without blocking) its queue is full: `WouldBlock`.
pub(super) fn send_packet(socket: BorrowedFd<'_>, packet: &impl Serialize) -> io::Result<()> {
    // It may hold a password: what is written is overwritten, and a buffer that is large enough leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_PACKET));
    serde_json::to_writer(&mut *bytes, packet).map_err(io::Error::other)?;
    if bytes.len() > LARGEST_PACKET {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a job's description is over 160 KiB",
        ));
    }
    Packet(bytes).send(socket)
}

/// One packet as it is on the wire. It is overwritten when it is done with.
pub(super) struct Packet(Zeroizing<Vec<u8>>);

impl Packet {
    /// Receives one, or `None` when the other side is gone.
    ///
    /// # Errors
    /// The socket fails.
    pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        use std::os::fd::AsRawFd;
        let mut bytes = Zeroizing::new(vec![0; LARGEST_PACKET]);
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) | Err(nix::errno::Errno::ECONNRESET) => Ok(None),
            Ok(length) => {
                bytes.truncate(length);
                Ok(Some(Self(bytes)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// It is none of ours.
    pub(super) fn read<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.0).map_err(io::Error::other)
    }

    /// Sends it, or sends it on: whole or not at all.
    ///
    /// # Errors
    /// As of [`send_packet`].
    pub(super) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        send(socket.as_raw_fd(), &self.0, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

/// Receives one packet, or `None` when the other side is gone.
///
/// # Errors
/// The socket fails, or the packet is none of ours.
pub(super) fn receive_packet<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<T>> {
    Packet::receive(socket)?.map(|packet| packet.read()).transpose()
}
