//! The egress gate: the only way out of a sandbox, and the record of every attempt.
//!
//! ```text
//! sandbox's namespace          │ gate process, outside                                    │ the host's network
//! name ──▶ resolver socket ────┼─▶ dns: a synthetic address, or NXDOMAIN                    │
//! connect ─▶ rules ─▶ listener ┼─▶ sandbox: whose address? decide, look at the first bytes  │
//!                              │   ledger: on record before anything is allowed            │
//!                              │   dial: resolve, check every address ────────────────────┼─▶ connect
//! ```
//! [`wire`] makes the namespace such that there is no other way. Invariants: no name is resolved before it is allowed; what is dialled is
//! exactly what was checked; nothing is allowed that could not be recorded; the gate is handed sockets and policies, never paths, and
//! knows no database. Start reading at [`sandbox`], then [`wire::install`].

pub mod attempts;
pub mod client;
pub mod confine;
mod destination;
mod dial;
pub mod dns;
pub mod head;
pub mod hello;
pub mod ledger;
mod names;
pub mod protocol;
pub mod relay;
pub mod requests;
pub mod resolver;
mod sandbox;
pub mod server;
pub mod sidecar;
pub mod upstream;
pub mod wire;

pub use dial::addresses_of_this_host;
pub use ledger::Decision;
