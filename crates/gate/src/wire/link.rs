//! Loopback up, and routes that make every address local: packets go to the output hook and nowhere else.
//!
//! Loopback has a second address. The GNU C library answers who asks for addresses of one family "as far as this host has some"
//! (`AI_ADDRCONFIG`) with nothing where 127.0.0.1 is the only one, for `localhost` too.

use cofferdam_sys::Result;
use cofferdam_sys::netlink::{self, ACKNOWLEDGED, CREATED, message, put_attribute};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
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
    let mut batch = message(RTM_NEWLINK, ACKNOWLEDGED, &link);
    let mut address = vec![AF_INET, 32, 0, RT_SCOPE_HOST];
    address.extend(LOOPBACK_INDEX.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        put_attribute(&mut address, attribute, &SECOND);
    }
    batch.extend(message(RTM_NEWADDR, CREATED, &address));
    for (family, scope) in [(AF_INET, RT_SCOPE_HOST), (AF_INET6, 0)] {
        let mut body = vec![family, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_STATIC, scope, RTN_LOCAL, 0, 0, 0, 0];
        put_attribute(&mut body, RTA_OIF, &LOOPBACK_INDEX.to_ne_bytes());
        batch.extend(message(RTM_NEWROUTE, CREATED, &body));
    }
    netlink::transact(netlink::open(netlink::ROUTE)?, &batch, 4)
}
