//! What a sandbox is made from.

use crate::MountSource;
use cofferdam_model::{InstallId, Limits, SandboxId};
use cofferdam_trust::{User, VerifiedImage};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// A sandbox to make.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Its id.
    pub id: SandboxId,
    /// The installation it belongs to.
    pub install: InstallId,
    /// Directory on the host for the engine's own files of this sandbox; exists, mode 0700.
    pub directory: PathBuf,
    /// Host name inside.
    pub hostname: String,
    /// What it starts from.
    pub image: VerifiedImage,
    /// What it may use.
    pub limits: Limits,
    /// The user of its processes where nothing else is said; owns `/workspace`.
    pub user: User,
    /// Trees of the host.
    pub mounts: Vec<Mount>,
    /// A tree of the host that the sandbox changes a copy of.
    pub view: Option<View>,
    /// Directories to make inside.
    pub directories: Vec<Directory>,
    /// Files to make inside.
    pub files: Vec<File>,
    /// Controls left out, to show that tests notice. Empty in every sandbox that users get.
    pub unplugged: BTreeSet<Control>,
    /// The image as it is: no account of ours, no `/workspace`, no home directory. For building images.
    pub bare: bool,
    /// Where its network leads.
    pub wiring: Wiring,
}

/// Where a sandbox's network leads.
#[derive(Clone, Default)]
pub enum Wiring {
    /// Nowhere: every name is unknown, every packet refused.
    #[default]
    Nothing,
    /// To a gate, and nowhere else.
    Gate {
        /// Whether addresses may be dialled that no name was asked for.
        open: bool,
        /// Takes the sockets before anything runs in the sandbox; an error stops its making.
        take: Arc<dyn Fn(GateSockets) -> std::io::Result<()> + Send + Sync>,
    },
}

/// Sockets inside a sandbox's network that a gate serves from outside.
#[derive(Debug)]
pub struct GateSockets {
    /// DNS over UDP.
    pub dns_udp: OwnedFd,
    /// DNS over TCP.
    pub dns_tcp: OwnedFd,
    /// Takes connections over IPv4; an accepted socket's own address is the one that was dialled.
    pub tcp_v4: OwnedFd,
    /// The same over IPv6.
    pub tcp_v6: OwnedFd,
    /// A connection to the gate that serves this sandbox and no other ([`Engine::brings_gate`](crate::Engine::brings_gate)).
    pub gate: Option<OwnedFd>,
}

impl std::fmt::Debug for Wiring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Gate { open, .. } => write!(f, "Gate {{ open: {open} }}"),
        }
    }
}

/// A tree of the host as its user's own: what is written goes to the sandbox's disk, and the tree stays as it is.
#[derive(Clone, Debug)]
pub struct View {
    /// The tree, opened and checked.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: PathBuf,
}

/// A tree of the host inside the sandbox.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The tree, opened and checked.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Whether it may be changed.
    pub writable: bool,
}

/// A directory to make before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Absolute path inside.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// User and group inside.
    pub owner: (u32, u32),
}

/// A file to make before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path inside.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// User and group inside.
    pub owner: (u32, u32),
    /// Contents.
    pub contents: Vec<u8>,
}

/// A control of the security model that a test may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// The system call filter.
    Seccomp,
    /// Dropping capabilities.
    Capabilities,
    /// Masked and read-only paths.
    Masks,
    /// The memory, CPU and process limits.
    Limits,
    /// The network rules.
    Rules,
    /// Landlock.
    Landlock,
}

impl Control {
    /// Every control.
    pub const ALL: [Self; 6] = [Self::Seccomp, Self::Capabilities, Self::Masks, Self::Limits, Self::Rules, Self::Landlock];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Capabilities => "capabilities",
            Self::Masks => "masks",
            Self::Limits => "limits",
            Self::Rules => "rules",
            Self::Landlock => "landlock",
        }
    }
}
