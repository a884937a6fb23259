//! The gate's own side: resolve an allowed name, check every address, connect to exactly what was checked.

use crate::protocol::Outside;
use crate::resolver::{Asker, Resolver};
use crate::upstream::Upstream;
use cofferdam_policy::egress::{AddressClass, HOST_LOOPBACK, HostName, Permit, Policy};
use cofferdam_sys::netlink;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
const KEEP: Duration = Duration::from_secs(30);
const MOST_KEPT: usize = 4096;
/// Addresses of one name that are tried.
const MOST_TRIED: usize = 8;

/// Why nothing was connected.
#[derive(Debug)]
pub enum DialError {
    /// Nothing may be dialled.
    Denied(String),
    /// Nothing answered.
    Failed(String),
}

/// Resolves and connects, for every sandbox of a gate.
#[derive(Debug, Default)]
pub struct Dialer {
    kept: Mutex<HashMap<HostName, (Instant, Vec<IpAddr>)>>,
    askers: Mutex<Vec<Arc<Asker>>>,
}

/// How a sandbox's connections leave.
#[derive(Debug)]
pub struct WayOut {
    /// Who makes them.
    pub dialer: Arc<Dialer>,
    /// The proxy to go through.
    pub upstream: Option<Upstream>,
    /// Who is asked for names in place of the host's resolver.
    pub asker: Option<Arc<Asker>>,
    /// The host's addresses, where this gate's network is another than the host's.
    pub host: Option<Vec<IpAddr>>,
}

impl WayOut {
    /// As the host is set up. Sandboxes with the same name servers share what is known of them.
    pub fn new(dialer: &Arc<Dialer>, outside: Outside) -> io::Result<Self> {
        let asker = outside.resolver.map(|settings| dialer.asker(settings)).transpose()?;
        Ok(Self { dialer: Arc::clone(dialer), upstream: outside.upstream, asker, host: outside.host })
    }
}

impl Dialer {
    /// Connects to an allowed name; `turns` are those of the sandbox at resolving.
    pub async fn to_name(&self, way: Way<'_>, name: &HostName, port: u16, turns: &Semaphore) -> Result<TcpStream, DialError> {
        if name.as_str() == HOST_LOOPBACK {
            if way.host.is_some() {
                return Err(DialError::Denied("a sidecar has no way to this host's loopback".into()));
            }
            // Only a rule that names it leads here.
            return connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        }
        let addresses = match (self.addresses(way, name, turns).await, way.upstream) {
            (Ok(addresses), _) => addresses,
            // Only the proxy knows the internet's names: it is asked for the name, and answers for where that leads.
            (Err(_), Some(upstream)) => return through(upstream, &format!("{name}:{port}")).await,
            (Err(error), None) => return Err(error),
        };
        let mut last = DialError::Failed("the name has no address".into());
        for address in addresses.into_iter().take(MOST_TRIED) {
            match to_address(way, address, port).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn asker(&self, settings: Resolver) -> io::Result<Arc<Asker>> {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = askers.iter().find(|asker| asker.is_of(&settings)) {
            return Ok(Arc::clone(known));
        }
        // Those of sandboxes that have ended.
        askers.retain(|asker| Arc::strong_count(asker) > 1);
        let new = Arc::new(Asker::new(settings)?);
        askers.push(Arc::clone(&new));
        Ok(new)
    }

    async fn addresses(&self, way: Way<'_>, name: &HostName, turns: &Semaphore) -> Result<Vec<IpAddr>, DialError> {
        let Some(asker) = way.asker else { return self.resolve(name, turns).await };
        let _turn = turns.acquire().await;
        let found = timeout(RESOLVE_WITHIN, asker.addresses(name.as_str())).await.unwrap_or_else(|_| Err("no answer".into()));
        found.map_err(|why| DialError::Failed(format!("{name} cannot be resolved: {why}")))
    }

    async fn resolve(&self, name: &HostName, turns: &Semaphore) -> Result<Vec<IpAddr>, DialError> {
        if let Some((since, addresses)) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(name)
            && since.elapsed() < KEEP
        {
            return Ok(addresses.clone());
        }
        let _turn = turns.acquire().await;
        // The dot at the end: no search list of the host's may turn this into another name.
        let asked = format!("{name}.");
        let found = timeout(RESOLVE_WITHIN, tokio::net::lookup_host((asked.as_str(), 0))).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(DialError::Failed(format!("{name} cannot be resolved: {error}"))),
            Err(_) => return Err(DialError::Failed(format!("{name} cannot be resolved: no answer"))),
        };
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.retain(|_, (since, _)| since.elapsed() < KEEP);
        }
        if kept.len() < MOST_KEPT && !addresses.is_empty() {
            kept.insert(name.clone(), (Instant::now(), addresses.clone()));
        }
        Ok(addresses)
    }
}

/// How a connection may be made.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// The policy that allowed it.
    pub policy: &'a Policy,
    /// Its permit.
    pub permit: &'a Permit,
    /// The proxy to go through.
    pub upstream: Option<&'a Upstream>,
    /// Who is asked for names in place of the host's resolver.
    pub asker: Option<&'a Asker>,
    /// The host's addresses, where this gate's network is another than the host's.
    pub host: Option<&'a [IpAddr]>,
}

/// Connects to an allowed address.
pub async fn to_address(way: Way<'_>, address: IpAddr, port: u16) -> Result<TcpStream, DialError> {
    may_dial(way, address, port)?;
    let target = SocketAddr::from((address, port));
    match way.upstream {
        // What is in the host's own network is reached without it, as everywhere.
        Some(upstream) if AddressClass::of(address) == AddressClass::Public => through(upstream, &target.to_string()).await,
        _ => connect(target).await,
    }
}

async fn through(upstream: &Upstream, target: &str) -> Result<TcpStream, DialError> {
    upstream.connect(target).await.map_err(|error| DialError::Failed(format!("{target}: {error}")))
}

fn may_dial(way: Way<'_>, address: IpAddr, port: u16) -> Result<(), DialError> {
    way.policy.may_dial(way.permit, address, port).map_err(|denial| DialError::Denied(denial.reason))?;
    if is_of_this_host(address) || way.host.is_some_and(|host| host.contains(&address)) {
        return Err(DialError::Denied(format!("{address} is an address of this host")));
    }
    Ok(())
}

/// Every address of this host's links, for a gate that has a network of its own.
pub fn addresses_of_this_host() -> cofferdam_sys::Result<Vec<IpAddr>> {
    const RTM_NEWADDR: u16 = 20;
    const RTM_GETADDR: u16 = 22;
    const HEAD_BYTES: usize = 8;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let found = netlink::dump(netlink::open(netlink::ROUTE)?, RTM_GETADDR, RTM_NEWADDR, &[0; HEAD_BYTES])?;
    let read = |address: &Vec<u8>| {
        let value =
            |wanted| netlink::attributes(address.get(HEAD_BYTES..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec());
        // Of a link with two ends the first is the other end's.
        let bytes = value(IFA_LOCAL).or_else(|| value(IFA_ADDRESS))?;
        <[u8; 4]>::try_from(&bytes[..]).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(IpAddr::from)).ok()
    };
    Ok(found.iter().filter_map(read).collect())
}

/// Only an address of this host can be bound to.
fn is_of_this_host(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

async fn connect(to: SocketAddr) -> Result<TcpStream, DialError> {
    let failed = |error: io::Error| DialError::Failed(format!("{to}: {error}"));
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(to)).await.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?;
    let stream = stream.map_err(failed)?;
    // Whatever is relayed was sent by its sender just so.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known() {
        assert!(is_of_this_host(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!is_of_this_host("192.0.2.1".parse().expect("an address")));
        let listed = addresses_of_this_host().expect("listed");
        // Who binds to an address of one link alone has to say which.
        let mut whole = listed.iter().filter(|address| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local()));
        assert!(listed.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)) && whole.all(|address| is_of_this_host(*address)), "{listed:?}");
    }
}
