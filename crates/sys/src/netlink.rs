//! Netlink: one socket, one batch, every acknowledgement checked.

use crate::{Error, Result};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};

/// `NETLINK_ROUTE`.
pub const ROUTE: u32 = 0;
/// `NETLINK_NETFILTER`.
pub const NETFILTER: u32 = 12;

const NLMSG_ERROR: u16 = 2;
const NLMSG_HEADER_BYTES: usize = 16;

/// A bound netlink socket in the current network namespace.
pub fn open(protocol: u32) -> Result<OwnedFd> {
    let protocol = NonZeroU32::new(protocol).map(Protocol::from_raw);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
        .map_err(|e| Error::new("socket(AF_NETLINK)", e))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(|e| Error::new("bind(AF_NETLINK)", e))?;
    Ok(socket)
}

/// Sends a batch and waits until every message that asked for an acknowledgement has one.
pub fn transact(socket: impl AsFd, batch: &[u8], acknowledgements: usize) -> Result<()> {
    sendto(&socket, batch, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(|e| Error::new("send(AF_NETLINK)", e))?;
    let mut seen = 0;
    let mut buffer = [0u8; 8192];
    while seen < acknowledgements {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(|e| Error::new("recv(AF_NETLINK)", e))?;
        for (kind, body) in messages(&buffer[..length]) {
            if kind == NLMSG_ERROR {
                let errno = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                if errno != 0 {
                    let source = std::io::Error::from_raw_os_error(-errno);
                    return Err(Error::new(format!("netlink message {seen}"), source));
                }
                seen += 1;
            }
        }
    }
    Ok(())
}

/// The messages in a received buffer: type and body.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..NLMSG_HEADER_BYTES)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = bytes.get(NLMSG_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, body))
    })
}
