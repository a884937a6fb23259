//! The two traits.

use crate::{EngineError, Process, ProcessSpec, SandboxSpec, Stdio};
use async_trait::async_trait;
use cofferdam_model::SandboxId;
use cofferdam_sys::ids::Ids;
use cofferdam_trust::layout::NewLayer;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What an engine can do beyond the trait's promises.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Its name: `native`, `docker`, `kubernetes`.
    pub name: &'static str,
    /// Whether image `host` may be used.
    pub host_image: bool,
    /// Whether [`Control::Pause`] works.
    pub pause: bool,
    /// Whether [`Sandbox::observe`] reports usage.
    pub usage: bool,
    /// Whether [`Sandbox::changes`] works.
    pub changes: bool,
    /// Controls of the security model that this host cannot enforce, each with its reason.
    pub missing: Vec<(String, String)>,
    /// Probes of the escape test that find something on this engine, each with its reason. What is not here is contained.
    pub exceptions: Vec<(String, String)>,
}

/// The controls of the security model by name, and what each promises. An engine names those that it lacks in [`Capabilities::missing`].
pub const CONTROLS: &[(&str, &str)] = &[
    ("namespaces", "seven namespaces of its own"),
    ("seccomp", "249 system calls and no other"),
    ("capabilities", "none; six for root, over its own ids"),
    ("network rules", "nothing leaves but through the gate"),
    ("masked paths", "nothing of the host in /proc and /sys"),
    ("landlock", "no device nodes, no signals across its border"),
    ("id range", "host ids that no other sandbox has"),
    ("users", "more than one user inside"),
    ("groups", "no group of its maker's"),
    ("memory limit", "the kernel's, swap off"),
    ("cpu limit", "CPU time for each second"),
    ("pids limit", "processes and threads"),
    ("disk limit", "bytes that it writes"),
    ("volume quota", "bytes in a named volume"),
    ("exec groups", "an exec ends with all that it started"),
];

/// Makes sandboxes.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What this engine can do here. Cheap; asks the host, not a version.
    fn capabilities(&self) -> Capabilities;

    /// Whether a gated sandbox comes with a gate of its own, which is handed over with its sockets.
    fn brings_gate(&self) -> bool {
        false
    }

    /// Makes a sandbox with nothing running in it. After an error nothing of it is left. Refusals of the network and
    /// the like go to `events` as they happen.
    async fn create(&self, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Arc<dyn Sandbox>, EngineError>;

    /// Sandboxes of this install of which there is anything on the host, whoever made them.
    fn present(&self) -> Vec<SandboxId>;

    /// Removes what a sandbox left on the host whose supervisor is gone: processes, mounts, cgroups, devices. Idempotent;
    /// true if there was anything.
    async fn sweep(&self, id: SandboxId) -> Result<bool, EngineError>;
}

/// One sandbox. Dropping the last handle kills it.
#[async_trait]
pub trait Sandbox: Send + Sync {
    /// Starts the main process; the sandbox ends with it. Once only.
    async fn start(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError>;

    /// Starts one more process, as confined as the main one. It and everything it starts end when [`Control::End`] is
    /// asked for it, or with the sandbox.
    async fn exec(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError>;

    /// Signals, stops, kills, pauses or resumes. Idempotent; an ended sandbox takes everything and does nothing.
    async fn control(&self, control: Control) -> Result<(), EngineError>;

    /// Copies files in or out, from the host's side, safe against a workload that changes them meanwhile. Works on an
    /// ended sandbox until it is deleted.
    async fn transfer(&self, transfer: Transfer) -> Result<TransferReport, EngineError>;

    /// A stream connected to a port that something inside listens at, on the sandbox's own loopback. Made from outside: what is
    /// inside cannot tell it from a neighbour's connection.
    async fn connect(&self, port: u16) -> Result<OwnedFd, EngineError>;

    /// Writes what differs from its image as a layer's archive. Works on an ended sandbox until it is deleted; of one that runs, it
    /// is what the files were while they were read.
    async fn changes(&self, wanted: Changes) -> Result<NewLayer, EngineError>;

    /// Its files, for somebody who serves them from outside.
    async fn root(&self) -> Result<Root, EngineError>;

    /// What it uses and what has been refused so far. Works on an ended sandbox until it is deleted.
    async fn observe(&self) -> Result<Observation, EngineError>;

    /// Kills it if it lives, and removes everything of it from the host. Idempotent.
    async fn delete(&self) -> Result<(), EngineError>;
}

/// What may be asked of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// A signal to a process (by [`Process::id`]).
    Signal {
        /// The process.
        process: u32,
        /// The signal's number.
        number: i32,
    },
    /// TERM to the main process, KILL to everything after the grace period.
    Stop {
        /// How long it may take.
        grace: Duration,
    },
    /// KILL to everything.
    Kill,
    /// Ends an exec'd process and everything it started.
    End {
        /// The process.
        process: u32,
    },
    /// Nobody listens to an exec'd process any more: HUP to it, and to what it has not set free (`setsid`, `nohup`).
    HangUp {
        /// The process.
        process: u32,
    },
    /// Nothing more is wanted of an exec'd process that has ended: what it started may go on.
    Release {
        /// The process.
        process: u32,
    },
    /// Stops every instruction.
    Pause,
    /// Goes on.
    Resume,
}

/// A sandbox's files. Paths are to be resolved within, by the kernel (`openat2`): what runs inside may change them at any moment.
#[derive(Debug)]
pub struct Root {
    /// The root of what is mounted there.
    pub mount: OwnedFd,
    /// Which of the host's ids are which inside.
    pub ids: Ids,
}

/// Files in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// From the host into the sandbox.
    In {
        /// File or directory on the host.
        source: PathBuf,
        /// Absolute path inside.
        target: PathBuf,
        /// Owner inside: user and group.
        owner: (u32, u32),
    },
    /// From the sandbox to the host.
    Out {
        /// Absolute path inside.
        source: PathBuf,
        /// Path on the host; its parent exists.
        target: PathBuf,
        /// Most bytes.
        most_bytes: u64,
    },
}

/// Where changes go, and how.
#[derive(Debug)]
pub struct Changes {
    /// Where they are written.
    pub out: std::fs::File,
    /// No file's time is later (seconds since 1970).
    pub epoch: i64,
    /// Left out with everything below: paths inside, without the first `/`.
    pub leave_out: Vec<PathBuf>,
    /// What differs from the view's tree instead of the image.
    pub of_view: bool,
}

/// What a transfer did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TransferReport {
    /// Regular files copied.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was left out, with the reason: devices, sockets, pipes, what the budget did not cover. At most 100 are named.
    pub left_out: Vec<String>,
}

/// Something that happened in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A destination was refused for the first time.
    Refused(RefusedDestination),
}

/// A destination that was refused, with how often.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RefusedDestination {
    /// Host name or address.
    pub host: String,
    /// Port, 0 where there is none.
    pub port: u16,
    /// `tcp`, `udp`, `icmp`, `dns` or the protocol's number.
    pub protocol: String,
    /// How often.
    pub count: u64,
}

/// What a sandbox uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Memory now, bytes.
    pub memory_bytes: u64,
    /// Most memory so far, bytes; 0 where the kernel does not tell.
    pub memory_peak_bytes: u64,
    /// CPU time, microseconds.
    pub cpu_micros: u64,
    /// Processes and threads now.
    pub pids: u64,
}

/// What is known of a sandbox from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Observation {
    /// Usage.
    pub usage: Usage,
    /// Processes that the kernel killed for want of memory.
    pub out_of_memory_kills: u64,
    /// Refused destinations with counts, at most 256.
    pub refused: Vec<RefusedDestination>,
    /// Refusals beyond those destinations.
    pub refused_unnamed: u64,
}
