//! Loopback up, and routes that make every address local: packets go to the output hook and nowhere else.
//!
//! Loopback has a second address. The GNU C library answers who asks for addresses of one family "as far as this host has some"
//! (`AI_ADDRCONFIG`) with nothing where 127.0.0.1 is the only one, for `localhost` too.

use cofferdam_sys::{Result, netlink};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST_ACK: u16 = 0x5;
const NLM_F_CREATE_REPLACE: u16 = 0x500;
const LOOPBACK_INDEX: u32 = 1;
const RTA_OIF: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const SECOND: [u8; 4] = [127, 0, 0, 2];
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `ip link set lo up; ip addr add 127.0.0.2/32 dev lo scope host; ip route add local 0.0.0.0/0 dev lo; ip -6 route add local ::/0 dev lo`, in one batch.
pub fn set_up() -> Result<()> {
    let mut link = [0u8; 16];
    link[4..8].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    link[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    link[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    let mut batch = message(RTM_NEWLINK, NLM_F_REQUEST_ACK, &link);
    let mut address = vec![AF_INET, 32, 0, RT_SCOPE_HOST];
    address.extend(LOOPBACK_INDEX.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        address.extend(8u16.to_ne_bytes());
        address.extend(attribute.to_ne_bytes());
        address.extend(SECOND);
    }
    batch.extend(message(RTM_NEWADDR, NLM_F_REQUEST_ACK | NLM_F_CREATE_REPLACE, &address));
    for (family, scope) in [(AF_INET, RT_SCOPE_HOST), (AF_INET6, 0)] {
        let mut body = vec![family, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, scope, RTN_LOCAL, 0, 0, 0, 0];
        body.extend(8u16.to_ne_bytes());
        body.extend(RTA_OIF.to_ne_bytes());
        body.extend(LOOPBACK_INDEX.to_ne_bytes());
        batch.extend(message(RTM_NEWROUTE, NLM_F_REQUEST_ACK | NLM_F_CREATE_REPLACE, &body));
    }
    netlink::transact(netlink::open(netlink::ROUTE)?, &batch, 4)
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend((16 + body.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}
