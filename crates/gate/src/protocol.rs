//! Messages between a supervisor and the gate: JSON in sequenced packets. One connection a sandbox; when it closes, the gate lets go of
//! the sandbox.

use crate::resolver::Resolver;
use crate::upstream::Upstream;
use cofferdam_policy::egress::Policy;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Version of the messages; part of the socket's name, so that a new gate can start beside an old one.
pub const VERSION: u32 = 2;
/// Most bytes of a message.
pub const MOST_BYTES: usize = 160 << 10;

/// How this host reaches what is outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The proxy through which it reaches the internet, if it needs one.
    pub upstream: Option<Upstream>,
    /// Who is asked for names, if not the host's own resolver.
    pub resolver: Option<Resolver>,
    /// For a gate whose network is not the host's (a sidecar): the host's own addresses, which it could not know.
    #[serde(default)]
    pub host: Option<Vec<IpAddr>>,
}

/// From a supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Serve a sandbox. Descriptors, in this order: DNS over UDP, DNS over TCP, IPv4 listener, IPv6 listener, record (for
    /// appending), names (for reading and appending).
    Register {
        /// What it may reach.
        policy: Policy,
        /// How this host reaches what is outside.
        outside: Outside,
    },
    /// Replace its policy: in one step, connections that are no longer allowed are closed.
    Replace {
        /// What it may reach from now on.
        policy: Policy,
    },
    /// Write down what is counted.
    Flush,
    /// Say whether it is there.
    Health,
    /// Of a sidecar: hand out the sockets of the network that it has set up. Descriptors of the answer, in this order: DNS over UDP, DNS over TCP, IPv4
    /// listener, IPv6 listener, refused packets.
    Sockets,
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
