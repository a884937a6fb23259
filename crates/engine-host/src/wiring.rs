//! A sandbox's network, seen by its engine: where its rules lead, who serves its sockets, how its ports are reached.

use cofferdam_engine::{EngineError, GateSockets, SandboxSpec, Wiring};
use cofferdam_gate::wire::{Listeners, Reach, Wire};
use cofferdam_sys::namespace::Network;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const DIALLER_STACK_BYTES: usize = 64 << 10;

/// Where its rules are to lead.
pub const fn reach(spec: &SandboxSpec) -> Reach {
    match &spec.wiring {
        Wiring::Nothing => Reach::Nothing,
        Wiring::Gate { open: false, .. } => Reach::Gate,
        Wiring::Gate { open: true, .. } => Reach::OpenGate,
    }
}

/// The gate serves the sandbox before anything runs in it. `gate`: one of its own.
pub fn hand_to_gate(spec: &SandboxSpec, wire: &mut Wire, gate: Option<OwnedFd>) -> Result<(), EngineError> {
    let (Wiring::Gate { take, .. }, Some(listeners)) = (&spec.wiring, wire.listeners.take()) else { return Ok(()) };
    let failed = |source| EngineError::host("connect the sandbox to the gate", source);
    // The engine keeps its own resolver socket: it answers nothing, and holds the port.
    let dns_udp = wire.resolver.try_clone().map_err(failed)?.into();
    let Listeners { tcp_v4, tcp_v6, dns_tcp } = listeners;
    take(GateSockets { dns_udp, dns_tcp, tcp_v4, tcp_v6, gate }).map_err(failed)
}

/// A stream connected to a port that something inside listens at.
pub async fn connect(namespace: Arc<Network>, port: u16) -> Result<OwnedFd, EngineError> {
    let failed = |source| EngineError::host(format!("connect to port {port} of the sandbox"), source);
    // A thread of its own: it stays in the sandbox's network to its end.
    let connect = move || {
        let thread = std::thread::Builder::new().stack_size(DIALLER_STACK_BYTES).spawn(move || {
            namespace.enter().map_err(|error| error.source)?;
            TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_WITHIN)
        })?;
        thread.join().map_err(|_| std::io::Error::other("its thread panicked"))?
    };
    let connected = tokio::task::spawn_blocking(connect).await.map_err(|error| failed(std::io::Error::other(error)))?;
    connected.map(OwnedFd::from).map_err(failed)
}
