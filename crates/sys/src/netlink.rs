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
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// What the kernel fills at most for one answer.
const DUMP_BYTES: usize = 32 << 10;

/// Flags of a message that is to be acknowledged.
pub const ACKNOWLEDGED: u16 = NLM_F_REQUEST | 0x4;
/// The same, of one that makes something, or replaces it.
pub const CREATED: u16 = ACKNOWLEDGED | 0x500;

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
                let errno = errno_of(body);
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

/// Asks for all there is of something (`NLM_F_DUMP`): the bodies of the messages of type `kind` that come back.
pub fn dump(socket: impl AsFd, request: u16, kind: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
    let message = message(request, NLM_F_REQUEST | NLM_F_DUMP, body);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(|e| Error::new("send(AF_NETLINK)", e))?;
    let mut found = Vec::new();
    let mut buffer = vec![0u8; DUMP_BYTES];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(|e| Error::new("recv(AF_NETLINK)", e))?;
        for (came, body) in messages(&buffer[..length]) {
            match came {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    let source = std::io::Error::from_raw_os_error(-errno_of(body));
                    return Err(Error::new(format!("netlink dump {request}"), source));
                }
                _ if came == kind => found.push(body.to_vec()),
                _ => {}
            }
        }
    }
}

/// One message with its header.
pub fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(NLMSG_HEADER_BYTES + body.len());
    bytes.extend(((NLMSG_HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Appends an attribute, padded.
pub fn put_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((ATTRIBUTE_HEADER_BYTES + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The attributes in a body: type without its flags, and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let header = bytes.get(..ATTRIBUTE_HEADER_BYTES)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn errno_of(body: &[u8]) -> i32 {
    body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_the_links() {
        const RTM_NEWLINK: u16 = 16;
        const RTM_GETLINK: u16 = 18;
        const IFLA_IFNAME: u16 = 3;
        const LINK_BYTES: usize = 16;
        let links = dump(open(ROUTE).expect("opens"), RTM_GETLINK, RTM_NEWLINK, &[0; LINK_BYTES]).expect("answers");
        let names: Vec<Vec<u8>> = links
            .iter()
            .filter_map(|link| attributes(&link[LINK_BYTES..]).find(|(kind, _)| *kind == IFLA_IFNAME).map(|(_, name)| name.to_vec()))
            .collect();
        assert!(names.contains(&b"lo\0".to_vec()), "{names:?}");
    }

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut body = Vec::new();
        put_attribute(&mut body, 3, b"abc");
        put_attribute(&mut body, 4, &[]);
        put_attribute(&mut body, 5, &[1, 2, 3, 4]);
        let read: Vec<(u16, &[u8])> = attributes(&body).collect();
        assert_eq!(read, [(3, &b"abc"[..]), (4, &[]), (5, &[1, 2, 3, 4])]);
        assert_eq!(attributes(&body[..6]).count(), 0, "cut off");
    }
}
