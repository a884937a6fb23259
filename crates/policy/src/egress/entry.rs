//! One entry of an `allow` or `deny` list: `HOST[:PORT]`, `*.HOST[:PORT]`, `ADDRESS/PREFIX:PORT`, `preset:NAME`.

use super::{HostPattern, NameError, Network};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where an entry says no port.
pub const DEFAULT_PORT: u16 = 443;

/// Ports of an entry that denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ports {
    /// Every port.
    All,
    /// This port.
    One(u16),
}

impl Ports {
    /// Whether this port is among them.
    pub const fn contain(self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == port,
        }
    }
}

/// What is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Allow {
    /// Names, at one port.
    Host(HostPattern, u16),
    /// Addresses, at one port.
    Network(Network, u16),
    /// A list that comes with the product or from the host's configuration.
    Preset(String),
}

/// What is denied, whatever allows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum Deny {
    /// Names.
    Host(HostPattern, Ports),
    /// Addresses.
    Network(Network, Ports),
}

/// Text that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The address.
    #[error("{0}")]
    Network(String),
    /// The port.
    #[error("{text:?}: {port:?} is no port: 1 to 65535")]
    Port {
        /// The entry.
        text: String,
        /// Where the port should be.
        port: String,
    },
    /// Addresses need a port.
    #[error("{0:?}: say which port: {0}:443, or [{0}]:443 for IPv6")]
    PortMissing(String),
    /// Not in a `deny` list.
    #[error("{0:?}: a preset can only be allowed")]
    PresetDenied(String),
}

enum Where {
    Host(HostPattern),
    Network(Network),
}

fn port(text: &str, port: &str) -> Result<u16, EntryError> {
    let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|number| digits && *number != 0);
    number.ok_or_else(|| EntryError::Port { text: text.to_owned(), port: port.to_owned() })
}

fn split(text: &str) -> Result<(Where, Option<u16>), EntryError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(|| EntryError::Network(format!("{text:?}: a ']' is missing")))?;
        let network = address.parse().map_err(EntryError::Network)?;
        let given = if rest.is_empty() { None } else { Some(port(text, rest.strip_prefix(':').unwrap_or(rest))?) };
        return Ok((Where::Network(network), given));
    }
    // More than one colon without brackets: an IPv6 address alone.
    if text.bytes().filter(|byte| *byte == b':').count() > 1 {
        return Ok((Where::Network(text.parse().map_err(EntryError::Network)?), None));
    }
    let (host, given) = match text.rsplit_once(':') {
        Some((host, digits)) if !digits.starts_with("//") => (host, Some(port(text, digits)?)),
        _ => (text, None),
    };
    let numeric = host.split('/').next().is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok());
    let place = if numeric { Where::Network(host.parse().map_err(EntryError::Network)?) } else { Where::Host(host.parse()?) };
    Ok((place, given))
}

impl FromStr for Allow {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        if let Some(name) = text.strip_prefix("preset:") {
            return Ok(Self::Preset(name.to_owned()));
        }
        match split(text)? {
            (Where::Host(host), port) => Ok(Self::Host(host, port.unwrap_or(DEFAULT_PORT))),
            (Where::Network(network), Some(port)) => Ok(Self::Network(network, port)),
            (Where::Network(_), None) => Err(EntryError::PortMissing(text.to_owned())),
        }
    }
}

impl FromStr for Deny {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        if text.starts_with("preset:") {
            return Err(EntryError::PresetDenied(text.to_owned()));
        }
        let (place, port) = split(text)?;
        let ports = port.map_or(Ports::All, Ports::One);
        Ok(match place {
            Where::Host(host) => Self::Host(host, ports),
            Where::Network(network) => Self::Network(network, ports),
        })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Network(network, port) => write_network(f, *network, Ports::One(*port)),
            Self::Preset(name) => write!(f, "preset:{name}"),
        }
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host, Ports::All) => write!(f, "{host}"),
            Self::Host(host, Ports::One(port)) => write!(f, "{host}:{port}"),
            Self::Network(network, ports) => write_network(f, *network, *ports),
        }
    }
}

fn write_network(f: &mut fmt::Formatter<'_>, network: Network, ports: Ports) -> fmt::Result {
    let text = network.to_string();
    let text = if text.contains(':') { format!("[{text}]") } else { text };
    match ports {
        Ports::All => f.write_str(&text),
        Ports::One(port) => write!(f, "{text}:{port}"),
    }
}

macro_rules! as_text {
    ($kind:ty) => {
        impl TryFrom<String> for $kind {
            type Error = EntryError;

            fn try_from(text: String) -> Result<Self, EntryError> {
                text.parse()
            }
        }

        impl From<$kind> for String {
            fn from(entry: $kind) -> Self {
                entry.to_string()
            }
        }
    };
}

as_text!(Allow);
as_text!(Deny);

/// Whether a pattern is the name of the host's loopback.
pub fn is_host_loopback(pattern: &HostPattern) -> bool {
    matches!(pattern, HostPattern::Exact(name) if name.as_str() == super::HOST_LOOPBACK)
}
