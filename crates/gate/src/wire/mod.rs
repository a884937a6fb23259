//! Rules and sockets inside a sandbox's network namespace.

mod link;
mod listeners;
mod nft;
mod refusals;
mod rules;

pub use listeners::Listeners;
pub use refusals::{Refusal, read_refusals};
pub use rules::{LISTENER_PORT, RESOLVER, SYNTHETIC_V4, SYNTHETIC_V6};

use cofferdam_sys::{Error, Result, netlink};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The sockets of a wired namespace, held outside of it. As long as they live the workload cannot take their ports.
#[derive(Debug)]
pub struct Wire {
    /// Receives the workload's DNS queries.
    pub resolver: UdpSocket,
    /// What a gate serves; None without one.
    pub listeners: Option<Listeners>,
    /// Delivers refused packets (see [`read_refusals`]).
    pub refusals: OwnedFd,
}

/// What a namespace is wired for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    #[default]
    Nothing,
    /// A gate, by synthetic addresses.
    Gate,
    /// A gate, by any address.
    OpenGate,
}

/// Whose namespace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Ours, with nothing in it.
    Own,
    /// A container's, in which a daemon may have put things.
    Container,
}

/// What to leave out, so that tests can show that they notice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unplugged {
    /// No rules are installed.
    pub rules: bool,
}

/// Makes the calling thread's network namespace a sandbox's: loopback up, every address local, rules, resolver, refusal
/// log. Call it in a namespace that no workload has entered. `proc` is the root of a proc file system. Nothing is left half
/// done that matters: on an error the namespace must be dropped.
pub fn install(reach: Reach, unplugged: Unplugged, proc: BorrowedFd<'_>) -> Result<Wire> {
    install_in(Place::Own, reach, unplugged, proc)
}

/// The same in a container's namespace that others have set up: both families are on, and the resolver that a daemon put into it is not reached.
pub fn install_beside(reach: Reach, unplugged: Unplugged, proc: BorrowedFd<'_>) -> Result<Wire> {
    for device in ["all", "default", "lo"] {
        match set(proc, &format!("sys/net/ipv6/conf/{device}/disable_ipv6")) {
            // A kernel without the protocol has nothing to turn on.
            Err(error) if error.errno() == Errno::NOENT.raw_os_error() => {}
            other => other?,
        }
    }
    install_in(Place::Container, reach, unplugged, proc)
}

/// Makes the calling thread's network namespace, which is a gate's own, deaf to neighbours that announce routes; without `with_v6` to the whole protocol.
pub fn quieten(with_v6: bool) -> Result<()> {
    let (batch, acknowledgements) = rules::quiet(with_v6);
    netlink::transact(netlink::open(netlink::NETFILTER)?, &batch, acknowledgements)
}

fn install_in(place: Place, reach: Reach, unplugged: Unplugged, proc: BorrowedFd<'_>) -> Result<Wire> {
    link::set_up()?;
    let netfilter = netlink::open(netlink::NETFILTER)?;
    if !unplugged.rules {
        match reach {
            Reach::Nothing => {
                let (batch, acknowledgements) = rules::isolated();
                netlink::transact(&netfilter, batch, acknowledgements)?;
            }
            Reach::Gate | Reach::OpenGate => {
                let (batch, acknowledgements) = rules::gated(reach == Reach::OpenGate, place);
                netlink::transact(&netfilter, &batch, acknowledgements)?;
            }
        }
    }
    refusals::subscribe(&netfilter)?;
    allow_low_ports(proc)?;
    let resolver = UdpSocket::bind(SocketAddr::from((RESOLVER, 53))).map_err(|e| Error::new("bind the resolver's address", e))?;
    resolver.set_nonblocking(true).map_err(|e| Error::new("fcntl(O_NONBLOCK)", e))?;
    let listeners = if reach == Reach::Nothing { None } else { Some(Listeners::open()?) };
    Ok(Wire { resolver, listeners, refusals: netfilter })
}

/// Inner root has no power over this namespace, so ports below 1024 are opened to everyone inside.
fn allow_low_ports(proc: BorrowedFd<'_>) -> Result<()> {
    set(proc, "sys/net/ipv4/ip_unprivileged_port_start")
}

/// Sets what is in a file of one number to 0, unless it is: a container that may not write there may have been started so.
fn set(proc: BorrowedFd<'_>, path: &str) -> Result<()> {
    let open = |how| rustix::fs::openat(proc, path, how | OFlags::CLOEXEC, Mode::empty());
    let failed = |e| Error::new(format!("write /proc/{path}"), e);
    let mut value = [0; 8];
    let read = open(OFlags::RDONLY).and_then(|file| rustix::io::read(file, &mut value)).map_err(failed)?;
    if value[..read].trim_ascii() == b"0" {
        return Ok(());
    }
    rustix::io::write(open(OFlags::WRONLY).map_err(failed)?, b"0").map(|_| ()).map_err(failed)
}
