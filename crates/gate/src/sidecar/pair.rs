//! A network namespace made into two: the shared one, which keeps its loopback and no way out, and one of the gate's own, to which every link
//! is moved with its addresses and routes.

use crate::wire;
use cofferdam_sys::namespace::Network;
use cofferdam_sys::netlink::{self, ACKNOWLEDGED, CREATED, attributes, message, put_attribute};
use cofferdam_sys::{Error, Result};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const LINK_BYTES: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

const ADDRESS_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 2;
const SCOPE_LINK: u8 = 253;
const AF_INET6: u8 = 10;

const ROUTE_BYTES: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const TABLE_MAIN: u8 = 254;
const MADE_BY_THE_KERNEL: u8 = 2;
const UNICAST: u8 = 1;

/// Links that lead out of a container and nowhere else: a host's own has another kind, or none.
const OF_CONTAINERS: &[&str] = &["veth", "macvlan", "ipvlan"];
/// Made by the kernel in every namespace where their modules are loaded; they lead nowhere while they are down.
const FALLBACKS: &[&str] = &["ipip", "sit", "ip6tnl", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan", "vti", "vti6"];

/// A link as it is found.
struct Link {
    index: u32,
    flags: u32,
    name: String,
    kind: String,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn links(socket: &OwnedFd) -> Result<Vec<Link>> {
    let found = netlink::dump(socket, RTM_GETLINK, RTM_NEWLINK, &[0; LINK_BYTES])?;
    let read = |link: &Vec<u8>| {
        let mut this = Link { index: word(link, 4), flags: word(link, 8), name: String::new(), kind: String::new() };
        for (kind, value) in attributes(link.get(LINK_BYTES..).unwrap_or(&[])) {
            match kind {
                IFLA_IFNAME => this.name = text(value),
                IFLA_LINKINFO => {
                    this.kind =
                        attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND).map_or_else(String::new, |(_, kind)| text(kind));
                }
                _ => {}
            }
        }
        this
    };
    Ok(found.iter().map(read).collect())
}

/// The links that are to be moved; an error for a network that is no container's own, which is left as it is.
fn movable(found: Vec<Link>) -> Result<Vec<Link>> {
    let refused = |why: String| Err(Error::new("take over this network", std::io::Error::other(why)));
    let mut movable = Vec::new();
    for link in found {
        let is = |kinds: &[&str]| kinds.contains(&link.kind.as_str());
        if link.flags & IFF_LOOPBACK != 0 || (is(FALLBACKS) && link.flags & IFF_UP == 0) {
            continue;
        }
        if !is(OF_CONTAINERS) {
            let kind = if link.kind.is_empty() { "a device" } else { &link.kind };
            return refused(format!("its link {} is {kind}: it is not a container's, and may be a host's", link.name));
        }
        movable.push(link);
    }
    if movable.is_empty() {
        return refused("it has no link that leads outside".into());
    }
    Ok(movable)
}

/// An address or a route with the attributes that are kept, to be put back at a link with another index.
struct Kept {
    head: Vec<u8>,
    link: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

fn kept(found: &[u8], head: usize, link: Option<u32>, wanted: &[u16], oif: u16) -> Kept {
    let (head, rest) = found.split_at(head.min(found.len()));
    let all: Vec<(u16, Vec<u8>)> = attributes(rest).map(|(kind, value)| (kind, value.to_vec())).collect();
    let out = all.iter().find(|(kind, _)| *kind == oif).map_or(0, |(_, value)| word(value, 0));
    let attributes = all.into_iter().filter(|(kind, _)| wanted.contains(kind)).collect();
    Kept { head: head.to_vec(), link: link.unwrap_or(out), attributes }
}

fn addresses(socket: &OwnedFd) -> Result<Vec<Kept>> {
    let found = netlink::dump(socket, RTM_GETADDR, RTM_NEWADDR, &[0; ADDRESS_BYTES])?;
    // Those of one link alone are the kernel's to make.
    let asked = found.iter().filter(|address| address.len() >= ADDRESS_BYTES && !(address[0] == AF_INET6 && address[3] == SCOPE_LINK));
    Ok(asked.map(|address| kept(address, ADDRESS_BYTES, Some(word(address, 4)), &[IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST], 0)).collect())
}

fn routes(socket: &OwnedFd) -> Result<Vec<Kept>> {
    let found = netlink::dump(socket, RTM_GETROUTE, RTM_NEWROUTE, &[0; ROUTE_BYTES])?;
    let asked = found
        .iter()
        .filter(|route| route.len() >= ROUTE_BYTES && route[4] == TABLE_MAIN && route[5] != MADE_BY_THE_KERNEL && route[7] == UNICAST);
    let wanted = [RTA_DST, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC];
    let mut routes: Vec<Kept> = asked.map(|route| kept(route, ROUTE_BYTES, None, &wanted, RTA_OIF)).collect();
    // A gateway has to be on a link before something can lead to it.
    routes.sort_by_key(|route| route.attributes.iter().any(|(kind, _)| *kind == RTA_GATEWAY));
    Ok(routes)
}

/// Moves every link of the calling thread's network namespace to a new one, which the thread is in afterwards. What it left is given back: nothing
/// leads out of it.
pub fn split() -> Result<Network> {
    let shared = Network::current()?;
    let there = netlink::open(netlink::ROUTE)?;
    let moved = movable(links(&there)?)?;
    let (addresses, routes) = (addresses(&there)?, routes(&there)?);
    let own = Network::make()?;
    let here = netlink::open(netlink::ROUTE)?;
    let with_v6 = addresses.iter().any(|address| address.head[0] == AF_INET6 && moved.iter().any(|link| link.index == address.link));
    wire::quieten(with_v6)?;
    let fd = own.as_fd().as_raw_fd().to_ne_bytes();
    for link in &moved {
        let mut body = vec![0; LINK_BYTES];
        body[4..8].copy_from_slice(&link.index.to_ne_bytes());
        put_attribute(&mut body, IFLA_NET_NS_FD, &fd);
        transact(&there, &format!("move link {}", link.name), RTM_NEWLINK, ACKNOWLEDGED, &body)?;
    }
    let mut indexes = HashMap::new();
    for link in links(&here)? {
        let before = moved.iter().find(|before| before.name == link.name);
        if before.is_some() || link.flags & IFF_LOOPBACK != 0 {
            let mut body = vec![0; LINK_BYTES];
            body[4..8].copy_from_slice(&link.index.to_ne_bytes());
            body[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
            body[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
            transact(&here, &format!("set link {} up", link.name), RTM_NEWLINK, ACKNOWLEDGED, &body)?;
        }
        if let Some(before) = before {
            indexes.insert(before.index, link.index);
        }
    }
    put_back(&here, &indexes, addresses, routes)?;
    Ok(shared)
}

fn put_back(here: &OwnedFd, indexes: &HashMap<u32, u32>, addresses: Vec<Kept>, routes: Vec<Kept>) -> Result<()> {
    for Kept { mut head, link, attributes } in addresses {
        let Some(index) = indexes.get(&link) else { continue };
        // It was in use a moment ago: nobody else has it.
        head[2] = if head[0] == AF_INET6 { IFA_F_NODAD } else { 0 };
        head[4..8].copy_from_slice(&index.to_ne_bytes());
        for (kind, value) in attributes {
            put_attribute(&mut head, kind, &value);
        }
        transact(here, "give the link its address", RTM_NEWADDR, CREATED, &head)?;
    }
    for Kept { mut head, link, attributes } in routes {
        let Some(index) = indexes.get(&link) else { continue };
        // Flags are what the kernel found out.
        head[8..12].fill(0);
        put_attribute(&mut head, RTA_OIF, &index.to_ne_bytes());
        for (kind, value) in attributes {
            put_attribute(&mut head, kind, &value);
        }
        transact(here, "give the link its route", RTM_NEWROUTE, CREATED, &head)?;
    }
    Ok(())
}

fn transact(socket: &OwnedFd, what: &str, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
    netlink::transact(socket, &message(kind, flags, body), 1).map_err(|error| Error::new(what.to_owned(), error.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: &str, flags: u32) -> Link {
        Link { index: 2, flags, name: name.into(), kind: kind.into() }
    }

    #[test]
    fn a_hosts_network_is_left_alone() {
        let lo = || link("lo", "", IFF_UP | IFF_LOOPBACK);
        assert_eq!(movable(vec![lo(), link("tunl0", "ipip", 0), link("eth0", "veth", IFF_UP)]).map_or(0, |links| links.len()), 1);
        for (links, why) in [
            (vec![lo(), link("eth0", "", IFF_UP)], "eth0 is a device"),
            (vec![lo(), link("eth0", "veth", IFF_UP), link("docker0", "bridge", 0)], "docker0 is bridge"),
            (vec![lo(), link("eth0", "veth", IFF_UP), link("tunl0", "ipip", IFF_UP)], "tunl0 is ipip"),
            (vec![lo()], "no link that leads outside"),
        ] {
            let error = movable(links).map(|_| ()).expect_err(why).source.to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
