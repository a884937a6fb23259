//! Sandboxes on this host with no daemon: our own containers on `clone3`.
//!
//! Invariants: a sandbox's network namespace is never owned by its user namespace and holds a loopback device only; its
//! rules stand before its first process exists; whatever a sandbox made ends with it; every path inside a sandbox is
//! resolved by the kernel inside that sandbox's root. No `unsafe` here (see `sys`).
//! Start reading at [`launch`], the order in which a sandbox comes to be, then [`sandbox`].
#![forbid(unsafe_code)]

mod engine;
mod launch;
mod lease;
mod sandbox;
mod trees;

pub use cofferdam_engine_host::cgroup::Hierarchies;
pub use engine::{Host, NativeEngine};
pub use launch::Ahead;
