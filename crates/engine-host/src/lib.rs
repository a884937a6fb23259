//! What engines on this host share: the supervisor's side of pid 1, control groups, copies in and out, the record of refusals.
//!
//! Engines are siblings and never import each other; what both need and is no port stands here. No `unsafe` (see `sys`).
//! Start reading at [`pid_one`].
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod copied;
mod data;
pub mod device;
pub mod disk;
pub mod masks;
pub mod overlay;
pub mod pid_one;
pub mod processes;
pub mod refused;
pub mod seccomp;
pub mod staging;
pub mod transfer;
pub mod upper;
pub mod upperside;
pub mod view;
pub mod watch;
pub mod wiring;
