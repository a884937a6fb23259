//! Safe, thin wrappers over the system calls that Cofferdam needs and no well-kept crate offers.
//!
//! Invariants: all `unsafe` of the workspace is in this crate, each block with its reason; nothing here knows a policy,
//! a path of ours or a configuration.
//! Start reading at [`spawner`], then `init/spawner.rs` and `init/setup.rs`: what happens in a new sandbox between being
//! cloned and executing pid 1.

pub mod bpf;
pub mod channel;
pub mod confine;
mod error;
pub mod ids;
pub mod init_wire;
pub mod lock;
pub mod loopdev;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod outer;
pub mod plan;
pub mod plan_wire;
pub mod process;
pub mod raw;
pub mod readiness;
pub mod spawner;
pub mod spec;

pub use error::{Error, Result};

/// The spawner, and pid 1 of each sandbox: a static executable for the architecture this crate was built for.
pub static INIT_PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
