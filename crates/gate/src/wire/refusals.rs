//! Refused packets, read from outside the namespace they were refused in.

use super::rules::{LOG_BYTES, LOG_GROUP};
use cofferdam_sys::{Result, netlink};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

const SUBSYSTEM_LOG: u16 = 4;
const MESSAGE_PACKET: u16 = SUBSYSTEM_LOG << 8;
const MESSAGE_CONFIG: u16 = (SUBSYSTEM_LOG << 8) | 1;
const ATTRIBUTE_PAYLOAD: u16 = 9;
const COPY_PACKET: u8 = 2;

/// A packet that the rules refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Where it was to go.
    pub destination: IpAddr,
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 `ICMPv6`).
    pub protocol: u8,
    /// Destination port for TCP and UDP, else 0.
    pub port: u16,
}

impl Refusal {
    /// How records name the protocol: what has no name of ours, by its number.
    pub fn protocol_name(&self) -> Cow<'static, str> {
        match self.protocol {
            6 => "tcp".into(),
            17 => "udp".into(),
            1 | 58 => "icmp".into(),
            other => other.to_string().into(),
        }
    }
}

/// Subscribes a netlink socket made in the sandbox's namespace to the log group.
pub fn subscribe(socket: &OwnedFd) -> Result<()> {
    let range = LOG_BYTES.to_be_bytes();
    let mode = [10, 0, 2, 0, range[0], range[1], range[2], range[3], COPY_PACKET, 0, 0, 0];
    let at_once = [8, 0, 5, 0, 0, 0, 0, 1]; // queue threshold: one packet
    let mut batch = config(&[5, 0, 1, 0, 1, 0, 0, 0]); // bind
    batch.extend(config(&mode));
    batch.extend(config(&at_once));
    netlink::transact(socket, &batch, 3)
}

fn config(attribute: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + attribute.len());
    bytes.extend((20 + attribute.len() as u32).to_ne_bytes());
    bytes.extend(MESSAGE_CONFIG.to_ne_bytes());
    bytes.extend(5u16.to_ne_bytes()); // request, acknowledge
    bytes.extend([0; 8]);
    bytes.extend([0, 0]);
    bytes.extend(LOG_GROUP.to_be_bytes());
    bytes.extend(attribute);
    bytes
}

/// Reads a subscribed socket until it ends, or the task is aborted.
pub async fn read_refusals(log: &AsyncFd<OwnedFd>, each: impl Fn(&Refusal)) {
    /// One logged packet comes at a time: some 200 bytes.
    const LARGEST_BATCH: usize = 2048;
    let mut buffer = [0u8; LARGEST_BATCH];
    loop {
        let Ok(mut ready) = log.readable().await else { return };
        match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
            Ok(Ok(0)) => return,
            Ok(Ok(length)) => parse_refusals(&buffer[..length]).iter().for_each(&each),
            // ENOBUFS: the kernel dropped some for want of space; the rest is still readable.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// The refusals in one received buffer. What is no log message, or no IP packet, is left out.
fn parse_refusals(bytes: &[u8]) -> Vec<Refusal> {
    netlink::messages(bytes).filter(|(kind, _)| *kind == MESSAGE_PACKET).filter_map(|(_, body)| parse_packet(payload(body)?)).collect()
}

fn payload(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body.get(4..)?;
    loop {
        let header = rest.get(..4)?;
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3FFF;
        let value = rest.get(4..length)?;
        if kind == ATTRIBUTE_PAYLOAD {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn parse_packet(packet: &[u8]) -> Option<Refusal> {
    let (destination, protocol, transport) = match packet.first()? >> 4 {
        4 => {
            let header_bytes = usize::from(packet[0] & 0xF) * 4;
            let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (IpAddr::from(Ipv4Addr::from(address)), *packet.get(9)?, packet.get(header_bytes..)?)
        }
        6 => {
            let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (IpAddr::from(Ipv6Addr::from(address)), *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = match (protocol, transport.get(2..4)) {
        (6 | 17, Some(port)) => u16::from_be_bytes([port[0], port[1]]),
        _ => 0,
    };
    Some(Refusal { destination, protocol, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_logged_tcp_packet() {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 127, 0, 0, 1, 1, 1, 1, 1];
        packet.extend([0x10, 0, 0x01, 0xBB]);
        let mut body = vec![2, 0, 0, 7];
        body.extend((4 + packet.len() as u16).to_ne_bytes());
        body.extend(ATTRIBUTE_PAYLOAD.to_ne_bytes());
        body.extend(&packet);
        let mut bytes = Vec::new();
        bytes.extend((16 + body.len() as u32).to_ne_bytes());
        bytes.extend(MESSAGE_PACKET.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(&body);
        let expected = Refusal { destination: Ipv4Addr::new(1, 1, 1, 1).into(), protocol: 6, port: 443 };
        assert_eq!(parse_refusals(&bytes), vec![expected]);
    }

    #[test]
    fn survives_any_truncation() {
        let packet = [0x60, 0, 0, 0, 0, 8, 17, 64];
        for length in 0..packet.len() {
            assert_eq!(parse_packet(&packet[..length]), None);
            assert!(parse_refusals(&packet[..length]).is_empty());
        }
    }
}
