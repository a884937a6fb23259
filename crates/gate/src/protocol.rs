//! Messages between a supervisor and the gate: JSON in sequenced packets. One connection a sandbox; when it closes, the gate lets go of
//! the sandbox.

use crate::upstream::Upstream;
use cofferdam_policy::egress::Policy;
use serde::{Deserialize, Serialize};

/// Version of the messages; part of the socket's name, so that a new gate can start beside an old one.
pub const VERSION: u32 = 1;
/// Most bytes of a message.
pub const MOST_BYTES: usize = 160 << 10;

/// From a supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Serve a sandbox. Descriptors, in this order: DNS over UDP, DNS over TCP, IPv4 listener, IPv6 listener, record (for appending).
    Register {
        /// How many gates have served it before.
        epoch: u8,
        /// What it may reach.
        policy: Policy,
        /// The proxy through which this host reaches the internet, if it needs one.
        upstream: Option<Upstream>,
    },
    /// Replace its policy: in one step, connections that are no longer allowed are closed.
    Replace {
        /// What it may reach from now on.
        policy: Policy,
    },
    /// Write down what is counted.
    Flush,
}

/// From the gate.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// It holds; generation of the policy, from 1, and connections that were closed for it.
    Done {
        /// Generation.
        generation: u64,
        /// Connections closed.
        closed: u64,
    },
    /// It does not.
    Refused {
        /// Why.
        why: String,
    },
}
