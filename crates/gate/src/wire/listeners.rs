//! The gate's listening sockets inside a sandbox's namespace. They are made there and served from outside.

use super::rules::{LISTENER_PORT, RESOLVER};
use cofferdam_sys::{Error, Result};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

const BACKLOG: i32 = 1024;

/// Sockets that are handed to a gate. As long as a duplicate of one lives, the workload cannot take its port.
#[derive(Debug)]
pub struct Listeners {
    /// Takes IPv4 connections to any address: the accepted socket's own address is the one that was dialled.
    pub tcp_v4: OwnedFd,
    /// The same for IPv6.
    pub tcp_v6: OwnedFd,
    /// DNS over TCP.
    pub dns_tcp: OwnedFd,
}

impl Listeners {
    /// Opens them in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, LISTENER_PORT));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, LISTENER_PORT));
        Ok(Self { tcp_v4: listen(v4, true)?, tcp_v6: listen(v6, true)?, dns_tcp: listen(SocketAddr::from((RESOLVER, 53)), false)? })
    }
}

fn listen(address: SocketAddr, transparent: bool) -> Result<OwnedFd> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_cloexec(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if transparent && address.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else if transparent {
            socket.set_ip_transparent_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok::<_, std::io::Error>(socket)
    };
    open().map(OwnedFd::from).map_err(|e| Error::new(format!("listen at {address} inside the sandbox"), e))
}
