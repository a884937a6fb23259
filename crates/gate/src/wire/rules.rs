//! The rules of a namespace, without a gate and with one. Without, in the words of `nft`:
//!
//! ```text
//! table inet wire {
//!   chain out {
//!     type filter hook output priority filter; policy drop;
//!     tcp flags & rst == rst accept                         # our own refusals
//!     ip saddr 127.0.0.0/8 ip daddr 127.0.0.0/8 accept      # the sandbox's own loopback
//!     ip6 saddr ::1 ip6 daddr ::1 accept
//!     ip daddr 198.18.0.1 udp dport 53 accept               # the resolver, which answers NXDOMAIN
//!     ip saddr 198.18.0.1 udp sport 53 accept
//!     limit rate 20/second burst 50 packets log group 7 snaplen 96
//!     meta l4proto tcp reject with tcp reset
//!     reject with icmpx admin-prohibited
//!   }
//! }
//! ```
//!
//! With a gate, TCP to the synthetic ranges (on an open network: to everything but the sandbox's own loopback) is let out and, since every
//! address is local, comes in again, where it is handed to the gate's listener with the address that it was meant for:
//!
//! ```text
//!   chain in {
//!     type filter hook prerouting priority mangle; policy accept;
//!     ip daddr 198.18.0.1 accept                                                  # the resolver
//!     ip daddr 198.18.0.0/15 meta l4proto tcp tproxy ip to 127.0.0.1:15001 accept
//!     ip6 daddr fd00:cafe::/64 meta l4proto tcp tproxy ip6 to [::1]:15001 accept
//!   }
//! ```
//! Nothing is tracked. The listener's own port cannot be dialled. A packet that a workload sends from a synthetic address passes the
//! output hook, and still has nowhere to go but the loopback device.

use super::Place;
use super::nft::{Batch, Header, Hook, Rest, Rule};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

/// The resolver's address inside every sandbox: in 198.18.0.0/15 (RFC 2544, benchmarking), which is never routed.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Port of the gate's listeners on the sandbox's loopback addresses.
pub const LISTENER_PORT: u16 = 15001;
/// Synthetic addresses: `198.18.0.0/15`.
pub const SYNTHETIC_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Synthetic addresses: `fd00:cafe::/64`.
pub const SYNTHETIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xcafe, 0, 0, 0, 0, 0, 0);
/// The log group that refused packets go to.
pub const LOG_GROUP: u16 = 7;
/// Bytes of a refused packet that are kept: both IP headers with ports.
pub const LOG_BYTES: u32 = 96;

/// Where Docker puts a resolver of its own into a container's network.
const EMBEDDED_RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const PREROUTING: Hook = Hook { number: 0, priority: -150 };
const INPUT: Hook = Hook { number: 1, priority: 0 };
const OUTPUT: Hook = Hook { number: 3, priority: 0 };
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;
/// RFC 4861, sections 4.2 and 4.5.
const ROUTER_ADVERTISEMENT: [u8; 1] = [134];
const REDIRECT: [u8; 1] = [137];
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const IPV6_SOURCE: u32 = 8;
const IPV6_DESTINATION: u32 = 24;
const TCP_FLAGS: u32 = 13;
const TCP_RESET: [u8; 1] = [4];
const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DNS_PORT: [u8; 2] = 53u16.to_be_bytes();

/// The transaction, serialised once per process: bytes and acknowledgements.
pub fn isolated() -> (&'static [u8], usize) {
    static BATCH: OnceLock<(Vec<u8>, usize)> = OnceLock::new();
    let (bytes, count) = BATCH.get_or_init(|| {
        let mut batch = Batch::new("wire");
        batch.chain("out", OUTPUT, Rest::Drop);
        for rule in
            [own_refusals(), loopback_v4(), loopback_v6(), to_resolver(), from_resolver(), log(), reset(), Rule::default().prohibit()]
        {
            batch.rule("out", &rule);
        }
        batch.finish()
    });
    (bytes, *count)
}

/// The same with a gate: bytes and acknowledgements. `open`: TCP to every address goes to the gate.
pub fn gated(open: bool, place: Place) -> (Vec<u8>, usize) {
    let mut batch = Batch::new("wire");
    batch.chain("in", PREROUTING, Rest::Accept);
    let resolver = Rule::default().protocol_family(IPV4).field(Header::Network, IPV4_DESTINATION, &RESOLVER.octets());
    batch.rule("in", &resolver.accept());
    for (family, loopback) in [(IPV4, &Ipv4Addr::LOCALHOST.octets()[..]), (IPV6, &LOOPBACK_V6[..])] {
        let rule = if open { elsewhere(family) } else { synthetic(family, Side::Destination) };
        batch.rule("in", &rule.transport(TCP).tproxy(family, loopback, LISTENER_PORT).accept());
    }
    batch.chain("out", OUTPUT, Rest::Drop);
    let mut rules = vec![own_refusals()];
    if place == Place::Container {
        let logged = embedded_resolver().limit(20, 50).log(LOG_GROUP, LOG_BYTES);
        rules.extend([logged, embedded_resolver().transport(TCP).reset(), embedded_resolver().prohibit()]);
    }
    for family in [IPV4, IPV6] {
        // What the gate answers comes from the address that was dialled.
        rules.push(synthetic(family, Side::Source).accept());
        rules.push(synthetic(family, Side::Destination).transport(TCP).accept());
    }
    rules.push(to_busy_resolver());
    let port = LISTENER_PORT.to_be_bytes();
    for loopback in [loopback_pair_v4, loopback_pair_v6] {
        let to_listener = || loopback().transport(TCP).field(Header::Transport, 2, &port);
        rules.extend([to_listener().limit(20, 50).log(LOG_GROUP, LOG_BYTES), to_listener().reset()]);
    }
    rules.extend([loopback_v4(), loopback_v6()]);
    if open {
        rules.push(Rule::default().transport(TCP).accept());
    }
    rules.extend([log(), reset(), Rule::default().prohibit()]);
    for rule in &rules {
        batch.rule("out", rule);
    }
    batch.finish()
}

/// The transaction for a gate's own network: bytes and acknowledgements.
pub fn quiet(with_v6: bool) -> (Vec<u8>, usize) {
    let mut batch = Batch::new("quiet");
    for (chain, hook) in [("in", INPUT), ("out", OUTPUT)] {
        batch.chain(chain, hook, Rest::Accept);
        if !with_v6 {
            batch.rule(chain, &Rule::default().protocol_family(IPV6).drop());
        }
    }
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        batch.rule("in", &Rule::default().protocol_family(IPV6).transport(ICMP_V6).field(Header::Transport, 0, &kind).drop());
    }
    batch.finish()
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn synthetic(family: u8, side: Side) -> Rule {
    let rule = Rule::default().protocol_family(family);
    if family == IPV4 {
        let offset = if matches!(side, Side::Source) { IPV4_SOURCE } else { IPV4_DESTINATION };
        return rule.masked(Header::Network, offset, &[0xff, 0xfe], &SYNTHETIC_V4.octets()[..2]);
    }
    let offset = if matches!(side, Side::Source) { IPV6_SOURCE } else { IPV6_DESTINATION };
    rule.field(Header::Network, offset, &SYNTHETIC_V6.octets()[..8])
}

/// Everything but the sandbox's own loopback.
fn elsewhere(family: u8) -> Rule {
    let rule = Rule::default().protocol_family(family);
    if family == IPV4 {
        return rule.field_not(Header::Network, IPV4_DESTINATION, &[127]);
    }
    rule.field_not(Header::Network, IPV6_DESTINATION, &LOOPBACK_V6)
}

/// Docker's resolver asks whoever the daemon asks, for any name.
fn embedded_resolver() -> Rule {
    Rule::default().protocol_family(IPV4).field(Header::Network, IPV4_DESTINATION, &EMBEDDED_RESOLVER.octets())
}

fn own_refusals() -> Rule {
    Rule::default().transport(TCP).masked(Header::Transport, TCP_FLAGS, &TCP_RESET, &TCP_RESET).accept()
}

fn loopback_pair_v4() -> Rule {
    let rule = Rule::default().protocol_family(IPV4);
    rule.field(Header::Network, IPV4_SOURCE, &[127]).field(Header::Network, IPV4_DESTINATION, &[127])
}

fn loopback_pair_v6() -> Rule {
    let rule = Rule::default().protocol_family(IPV6).field(Header::Network, IPV6_SOURCE, &LOOPBACK_V6);
    rule.field(Header::Network, IPV6_DESTINATION, &LOOPBACK_V6)
}

fn loopback_v4() -> Rule {
    loopback_pair_v4().accept()
}

fn loopback_v6() -> Rule {
    loopback_pair_v6().accept()
}

/// So many queries a second that no program needs more; a flood is not paid by the gate.
fn to_busy_resolver() -> Rule {
    queries().limit(2000, 4000).accept()
}

fn to_resolver() -> Rule {
    queries().accept()
}

fn queries() -> Rule {
    let rule = Rule::default().protocol_family(IPV4).field(Header::Network, IPV4_DESTINATION, &RESOLVER.octets());
    rule.transport(UDP).field(Header::Transport, 2, &DNS_PORT)
}

fn from_resolver() -> Rule {
    let rule = Rule::default().protocol_family(IPV4).field(Header::Network, IPV4_SOURCE, &RESOLVER.octets());
    rule.transport(UDP).field(Header::Transport, 0, &DNS_PORT).accept()
}

fn log() -> Rule {
    Rule::default().limit(20, 50).log(LOG_GROUP, LOG_BYTES)
}

fn reset() -> Rule {
    Rule::default().transport(TCP).reset()
}
