//! Sandboxes on a Docker daemon of this host.
//!
//! The daemon makes the container; from then on it is ours. Its pid 1 is our own (`sys/init/contained.rs`), executed before anything of
//! the image: it connects to its supervisor and waits. While it waits the supervisor enters the container's network from outside and
//! puts up rules and listeners, and enters its mounts and puts its files there, both as the native engine does; then processes are started
//! through pid 1, with their descriptors. Neither `docker exec` nor `docker logs` is on the way.
//!
//! Invariants: nothing of the image runs before the rules stand; an image is named by the digest of its configuration; what the
//! daemon cannot do is refused or named in [`DockerEngine::capabilities`], never dropped. No `unsafe` (see `sys`).
//! Start reading at [`DockerEngine::create`].
#![forbid(unsafe_code)]

mod address;
mod container;
mod context;
mod daemon;
mod engine;
mod files;
mod image;
mod refit;
mod sandbox;
mod sidecar;
mod starting;
mod world;

pub use address::Address;
pub use daemon::{Daemon, Facts};
pub use engine::DockerEngine;
