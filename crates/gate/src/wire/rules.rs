//! The rules of a namespace without a gate. In the words of `nft`:
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

use super::nft::{Batch, Header, Hook, Rule};
use std::net::Ipv4Addr;
use std::sync::OnceLock;

/// The resolver's address inside every sandbox: in 198.18.0.0/15 (RFC 2544, benchmarking), which is never routed.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The log group that refused packets go to.
pub const LOG_GROUP: u16 = 7;
/// Bytes of a refused packet that are kept: both IP headers with ports.
pub const LOG_BYTES: u32 = 96;

const OUTPUT: Hook = Hook { number: 3, priority: 0 };
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
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
        batch.chain("out", OUTPUT);
        for rule in
            [own_refusals(), loopback_v4(), loopback_v6(), to_resolver(), from_resolver(), log(), reset(), Rule::default().prohibit()]
        {
            batch.rule("out", &rule);
        }
        batch.finish()
    });
    (bytes, *count)
}

fn own_refusals() -> Rule {
    Rule::default().transport(TCP).masked(Header::Transport, TCP_FLAGS, &TCP_RESET, &TCP_RESET).accept()
}

fn loopback_v4() -> Rule {
    let rule = Rule::default().protocol_family(IPV4);
    rule.field(Header::Network, IPV4_SOURCE, &[127]).field(Header::Network, IPV4_DESTINATION, &[127]).accept()
}

fn loopback_v6() -> Rule {
    let rule = Rule::default().protocol_family(IPV6).field(Header::Network, IPV6_SOURCE, &LOOPBACK_V6);
    rule.field(Header::Network, IPV6_DESTINATION, &LOOPBACK_V6).accept()
}

fn to_resolver() -> Rule {
    let rule = Rule::default().protocol_family(IPV4).field(Header::Network, IPV4_DESTINATION, &RESOLVER.octets());
    rule.transport(UDP).field(Header::Transport, 2, &DNS_PORT).accept()
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
