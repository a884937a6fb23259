//! The life of sandboxes and tasks: data directory, supervision, logs, control socket, sweep, attempts.
//!
//! Invariants: nothing here knows a concrete engine, HTTP or a command line; every sandbox has one supervisor, which
//! holds its lock for as long as it lives; what is recorded as running and has no supervisor is ended by the sweep.
//! Start reading at [`supervisor`].
#![forbid(unsafe_code)]

pub mod build;
pub mod control;
pub mod data;
pub mod gating;
pub mod log;
pub mod publish;
pub mod pump;
pub mod records;
pub mod suite;
pub mod supervisor;
pub mod sweep;
pub mod task;
pub mod usage;
pub mod volume;

pub use data::{DataDir, DataError};
pub use supervisor::{Outcome, Request, Supervisor, SupervisorError};
