//! Addresses by what they lead to. Sources: IANA's special-purpose registries (RFC 6890, RFC 8190) for IPv4 and IPv6, the
//! providers' documentation for metadata services.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressClass {
    /// The internet.
    Public,
    /// Private networks (RFC 1918, RFC 4193, shared address space).
    Private,
    /// The machine itself.
    Loopback,
    /// The link only.
    LinkLocal,
    /// A cloud provider's metadata service: never allowed.
    Metadata,
    /// Nobody, everybody, groups, documentation, the future: never allowed.
    Reserved,
}

impl AddressClass {
    /// The class. An address that carries another one (mapped, compatible, translated, tunnelled) has the class of what it carries.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::Reserved => "reserved",
        }
    }
}

const METADATA_V4: &[Ipv4Addr] = &[
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: &[Ipv6Addr] = &[Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

fn of_v4(address: Ipv4Addr) -> AddressClass {
    let [a, b, c, _] = address.octets();
    if METADATA_V4.contains(&address) {
        return AddressClass::Metadata;
    }
    match (a, b, c) {
        (127, ..) => AddressClass::Loopback,
        (10, ..) | (192, 168, _) | (172, 16..=31, _) | (100, 64..=127, _) => AddressClass::Private,
        (169, 254, _) => AddressClass::LinkLocal,
        // "This" network, groups, the future; protocol assignments, documentation, 6to4 relays; benchmarking.
        (0 | 224.., ..) | (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (192, 88, 99) | (198, 18 | 19, _) => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> AddressClass {
    if METADATA_V6.contains(&address) {
        return AddressClass::Metadata;
    }
    if address.is_loopback() {
        return AddressClass::Loopback;
    }
    let mut classes = carried(address).map(of_v4).peekable();
    if classes.peek().is_some() {
        // Where it carries two, the worse counts.
        return classes.find(|class| *class != AddressClass::Public).unwrap_or(AddressClass::Public);
    }
    let s = address.segments();
    match s[0] {
        // Unique local, and the site-local of old times.
        0xfc00..=0xfdff | 0xfec0..=0xfeff => AddressClass::Private,
        0xfe80..=0xfebf => AddressClass::LinkLocal,
        // Documentation, benchmarking, ORCHID.
        0x2001 if s[1] == 0xdb8 || (s[1] == 2 && s[2] == 0) || s[1] & 0xffe0 == 0x20 || s[1] & 0xfff0 == 0x10 => AddressClass::Reserved,
        0x3fff if s[1] < 0x1000 => AddressClass::Reserved,
        0x2000..=0x3fff => AddressClass::Public,
        // Only 2000::/3 is given out.
        _ => AddressClass::Reserved,
    }
}

/// The IPv4 addresses that an IPv6 address may stand for, in every form that something on the way might translate.
fn carried(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let s = address.segments();
    let at = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    // Compatible (`::` itself is nobody) and mapped; translated (SIIT); NAT64: the well-known prefix, and the one for local use.
    let translated =
        matches!(s[..6], [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..]);
    // ISATAP, below any prefix.
    let tunnelled = matches!(s[4..6], [0 | 0x200, 0x5efe]);
    // 6to4. Teredo has the client's address, inverted.
    let (relayed, teredo) = (s[0] == 0x2002, s[..2] == [0x2001, 0]);
    [(translated || tunnelled).then(|| at(s[6], s[7])), relayed.then(|| at(s[1], s[2])), teredo.then(|| at(!s[6], !s[7]))]
        .into_iter()
        .flatten()
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A block of addresses (CIDR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// One address.
    pub const fn one(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether an address lies in it. Addresses of the other family never do.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (bits(self.address), bits(address)) {
            ((own, width), (other, other_width)) if width == other_width => {
                self.prefix == 0 || (own ^ other) >> (width - u32::from(self.prefix)) == 0
            }
            _ => false,
        }
    }

    /// The classes of its first and last address: if they differ from public, the block is not all public.
    pub fn ends(&self) -> [AddressClass; 2] {
        let (first, width) = bits(self.address);
        let span = if self.prefix == 0 { u128::MAX } else { (1u128 << (width - u32::from(self.prefix))) - 1 };
        let last = first | if width == 32 { span & u128::from(u32::MAX) } else { span };
        let last = if width == 32 { IpAddr::V4(Ipv4Addr::from_bits(last as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(last)) };
        [AddressClass::of(self.address), AddressClass::of(last)]
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr =
            address.parse().map_err(|_| format!("{text:?} is no address or block: write 192.0.2.0/24 or 2001:db8::/32"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or_else(|| format!("{text:?}: a prefix of 0 to {width} is wanted"))?,
        };
        let network = Self { address, prefix };
        let (own, width) = bits(address);
        let shift = width - u32::from(prefix);
        let base = if shift >= 128 { 0 } else { own >> shift << shift };
        if base != own {
            let base = if width == 32 { IpAddr::V4(Ipv4Addr::from_bits(base as u32)) } else { IpAddr::V6(Ipv6Addr::from_bits(base)) };
            return Err(format!("{text:?} has bits behind its prefix; write {base}/{prefix}"));
        }
        Ok(network)
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
