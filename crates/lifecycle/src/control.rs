//! The control socket of a running sandbox: `control.sock` in its directory, sequenced packets.
//!
//! A message is JSON (it begins with `{`), descriptors beside it, or a piece of a stream: one byte (0 input, 1 output,
//! 2 error output) and the bytes. The directory is its owner's alone (0700), so whoever can connect may do everything.

mod client;
mod server;
mod short_path;

pub use client::{Client, ClientError, Incoming};
pub use server::{Defaults, Server, Surroundings, serve};
pub use short_path::short_path;

use cofferdam_engine::{Observation, Transfer, TransferReport};
use cofferdam_policy::egress::Policy;
use cofferdam_trust::layout::NewLayer;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The socket's name in a sandbox's directory.
pub const SOCKET_NAME: &str = "control.sock";
/// Largest message.
pub const LARGEST_MESSAGE: usize = 128 << 10;
/// First byte of a piece of input.
pub const PIECE_INPUT: u8 = 0;
/// First byte of a piece of output.
pub const PIECE_OUTPUT: u8 = 1;
/// First byte of a piece of error output.
pub const PIECE_ERROR: u8 = 2;

/// What the supervisor itself is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// TERM, then KILL after the grace period.
    Stop {
        /// How long it may take.
        grace: Duration,
    },
    /// KILL.
    Kill,
    /// A signal to the main process.
    Signal(i32),
    /// The terminal has another size.
    Resize(u16, u16),
    /// Stop every instruction.
    Pause,
    /// Go on.
    Resume,
}

/// A request over the socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Stop.
    Stop {
        /// Grace period, milliseconds.
        grace_ms: u64,
    },
    /// Kill, or signal the main process.
    Kill {
        /// Signal number; None kills everything.
        signal: Option<i32>,
    },
    /// Pause.
    Pause,
    /// Resume.
    Resume,
    /// What it uses.
    Observe,
    /// What it may reach from now on.
    Replace {
        /// The policy.
        policy: Policy,
    },
    /// Start one more process; three descriptors come along unless it wants a terminal. It ends when the connection does.
    Exec(Exec),
    /// Speak SSH over the two descriptors that come along: what is read, what is written.
    Ssh {
        /// The host key, as OpenSSH writes it.
        host_key: String,
    },
    /// Follow the main process's streams.
    Attach,
    /// The attached terminal has another size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Copy files into the sandbox.
    CopyIn {
        /// On the host, absolute.
        source: PathBuf,
        /// Inside, absolute.
        target: PathBuf,
    },
    /// Copy files out of the sandbox.
    CopyOut {
        /// Inside, absolute.
        source: PathBuf,
        /// On the host, absolute.
        target: PathBuf,
    },
    /// Write what differs from the image, as a layer's archive, to the descriptor that comes along.
    Changes {
        /// No file's time is later (seconds since 1970).
        epoch: i64,
        /// What differs from the view's tree instead of the image.
        of_view: bool,
    },
    /// Answer when it has ended.
    Wait,
    /// Of a sandbox that is kept for one owner: it is used until this connection ends. Hung up without an answer when it is over.
    Use,
    /// The same: its owner has done with it, unless it is used again within the grace.
    Release {
        /// Milliseconds.
        grace_ms: u64,
    },
}

/// One more process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value` entries that win over the sandbox's own.
    pub environment: Vec<String>,
    /// Working directory; None for the main process's.
    pub directory: Option<String>,
    /// User; None for the main process's.
    pub user: Option<String>,
    /// Rows and columns of a terminal of its own.
    pub terminal: Option<(u16, u16)>,
    /// Ends it after so many milliseconds.
    pub timeout_ms: Option<u64>,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done,
    /// The process runs; its terminal comes along if it wanted one.
    Started,
    /// The process has ended; exit status as a shell gives it.
    Exited {
        /// The status.
        code: i32,
        /// Whether its time limit ended it.
        timed_out: bool,
    },
    /// What it uses.
    Observed(Observation),
    /// The policy is in force.
    Replaced {
        /// Its generation.
        generation: u64,
        /// Connections that it closed.
        closed: u64,
    },
    /// What was copied.
    Copied(TransferReport),
    /// The changes are written.
    Changed(NewLayer),
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
        /// Exit status that the command line gives: 125, 126 or 127.
        code: i32,
    },
}

impl Request {
    /// The engine's form of a copy, for a user inside.
    fn transfer(&self, owner: (u32, u32)) -> Option<Transfer> {
        match self {
            Self::CopyIn { source, target } => Some(Transfer::In { source: source.clone(), target: target.clone(), owner }),
            Self::CopyOut { source, target } => {
                Some(Transfer::Out { source: source.clone(), target: target.clone(), most_bytes: u64::MAX })
            }
            _ => None,
        }
    }
}
