//! What a sandbox may reach: parse → compile → decide.
//!
//! ```text
//! policy file, flags ──▶ Source ──compile──▶ Policy ──▶ decide_name(name, port)     ──▶ Permit | Denial
//!   (entries, presets)   (what was written)             decide_address(address, port)
//!                                                        Permit::may_dial(address)   the gate asks before it dials
//! ```
//! One form of names ([`HostName`]) is used by every entry point: files, flags, DNS, TLS, HTTP. `deny` wins over `allow`. A policy that could
//! not be compiled is [`Policy::deny_all`].

mod address;
mod compile;
mod decide;
mod entry;
mod file;
mod name;
mod write;

pub use address::{AddressClass, Network};
pub use compile::{CompileError, Presets, Source};
pub use decide::{Denial, Permit, Policy, Protocol, Rule, Target};
pub use entry::{Allow, Deny, EntryError, Ports};
pub use file::{PolicyFile, PolicyFileError};
pub use name::{HostName, HostPattern, NameError};

/// The name under which a sandbox reaches ports of the host's loopback that its policy names.
pub const HOST_LOOPBACK: &str = "host.cofferdam.internal";
