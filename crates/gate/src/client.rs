//! The supervisor's side of a registration. Blocking, with short messages.

use crate::protocol::{MOST_BYTES, Reply, Request};
use crate::wire::{Listeners, Wire};
use cofferdam_sys::channel;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A connection to the gate. The gate serves the sandbox for as long as it is open.
#[derive(Debug)]
pub struct Gate {
    socket: OwnedFd,
}

impl Gate {
    /// Connects to the gate at this path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket })
    }

    /// Takes the sockets that a sidecar hands out.
    pub fn sockets(&self) -> io::Result<Wire> {
        let (_, fds) = self.converse(&Request::Sockets, &[])?;
        let fds: [OwnedFd; 5] = fds.try_into().map_err(|_| io::Error::other("the sidecar handed out something else than its sockets"))?;
        let [dns_udp, dns_tcp, tcp_v4, tcp_v6, refusals] = fds;
        Ok(Wire { resolver: dns_udp.into(), listeners: Some(Listeners { tcp_v4, tcp_v6, dns_tcp }), refusals })
    }

    /// Asks for something and waits for the answer: generation and closed connections.
    pub fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<(u64, u64)> {
        self.converse(request, fds).map(|(done, _)| done)
    }

    fn converse(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<((u64, u64), Vec<OwnedFd>)> {
        let bytes = serde_json::to_vec(request)?;
        if bytes.len() > MOST_BYTES {
            return Err(io::Error::other(format!("the policy is too long: {} bytes, {MOST_BYTES} at most", bytes.len())));
        }
        channel::send(&self.socket, &bytes, fds).map_err(|error| error.source)?;
        let mut reply = vec![0; MOST_BYTES];
        let (length, fds) = channel::receive(&self.socket, &mut reply).map_err(|error| error.source)?;
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the gate has ended"));
        }
        match serde_json::from_slice(&reply[..length])? {
            Reply::Done { generation, closed } => Ok(((generation, closed), fds)),
            Reply::Refused { why } => Err(io::Error::other(why)),
        }
    }
}

impl From<OwnedFd> for Gate {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Gate> for OwnedFd {
    fn from(gate: Gate) -> Self {
        gate.socket
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
