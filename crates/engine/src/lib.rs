//! The port to whatever runs containers, what every adapter must do, and how that is proved.
//!
//! [`Engine`] makes sandboxes, [`Sandbox`] is one of them. Errors answer [`EngineError::kind`] and
//! [`EngineError::retryable`]. [`fake`] is an engine without containers for tests of the layers above;
//! [`conformance`] is the list of checks that every real engine passes. Start reading at [`port`].

pub mod conformance;
mod error;
pub mod fake;
pub mod mounts;
mod port;
mod process;
mod signal;
mod spec;

pub use error::{EngineError, ErrorKind};
pub use mounts::{MountError, MountSource};
pub use port::{
    CONTROLS, Capabilities, Changes, Control, Engine, EngineEvent, Observation, RefusedDestination, Root, Sandbox, Transfer,
    TransferReport, Usage,
};
pub use process::{ExitStatus, Process, ProcessSpec, Stdio};
pub use signal::{SIGNALS, signal_number};
pub use spec::{Control as UnpluggedControl, Directory, File, GateSockets, Mount, SandboxSpec, View, Wiring};
