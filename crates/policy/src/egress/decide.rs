//! The compiled policy and its decisions. Total: every question has an answer, and what nothing allows is denied.

use super::{AddressClass, Deny, HOST_LOOPBACK, HostName, HostPattern, Network, Ports};
use cofferdam_model::NetworkLevel;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;

/// How the first bytes of a connection are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TLS whose server name is the allowed name.
    Https,
    /// The same, for other protocols in TLS.
    Tls,
    /// HTTP whose `Host` is the allowed name.
    Http,
    /// SSH: an identification string comes first.
    Ssh,
    /// Any bytes.
    Tcp,
}

impl Protocol {
    /// What is usual at a port; anything, where nothing is.
    pub const fn usual_at(port: u16) -> Self {
        match port {
            443 => Self::Https,
            80 => Self::Http,
            22 => Self::Ssh,
            _ => Self::Tcp,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Tcp => "tcp",
        }
    }
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Names.
    Host(HostPattern),
    /// Addresses.
    Network(Network),
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// As it is named in records: the entry, with the preset that it came from.
    pub name: String,
    /// Where to.
    pub target: Target,
    /// At which ports.
    pub ports: Vec<u16>,
    /// What is spoken there; what is usual at the port if nothing is said.
    pub protocol: Option<Protocol>,
    /// Whether addresses of private networks may be dialled.
    pub allow_private: bool,
}

/// A connection may be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Permit {
    /// The rule that says so.
    pub rule: String,
    /// How its first bytes are checked.
    pub protocol: Protocol,
    /// Whether addresses of private networks may be dialled.
    pub allow_private: bool,
}

/// It may not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Denial {
    /// The rule that says so; None if nothing allows it.
    pub rule: Option<String>,
    /// Why.
    pub reason: String,
}

/// A compiled policy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct Policy {
    parts: Parts,
    /// Rules by the name, or by the name whose children they are about.
    exact: HashMap<HostName, Vec<usize>>,
    below: HashMap<HostName, Vec<usize>>,
    networks: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    open: bool,
    rules: Vec<Rule>,
    deny: Vec<Deny>,
}

impl From<Parts> for Policy {
    fn from(parts: Parts) -> Self {
        let mut policy = Self { parts, ..Self::default() };
        for (index, rule) in policy.parts.rules.iter().enumerate() {
            match &rule.target {
                Target::Host(HostPattern::Exact(name)) => policy.exact.entry(name.clone()).or_default().push(index),
                Target::Host(HostPattern::Below(name)) => policy.below.entry(name.clone()).or_default().push(index),
                Target::Network(_) => policy.networks.push(index),
            }
        }
        policy
    }
}

impl From<Policy> for Parts {
    fn from(policy: Policy) -> Self {
        policy.parts
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

fn denied(rule: Option<String>, reason: impl Into<String>) -> Denial {
    Denial { rule, reason: reason.into() }
}

impl Policy {
    /// Denies everything.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// From rules. `open` allows every public destination that nothing denies.
    pub fn new(level: NetworkLevel, rules: Vec<Rule>, deny: Vec<Deny>) -> Self {
        Parts { open: level == NetworkLevel::FullWeb, rules, deny }.into()
    }

    /// The same with more rules, and without what denies exactly their targets.
    #[must_use]
    pub fn with(&self, rules: Vec<Rule>) -> Self {
        let named = |deny: &Deny| {
            rules.iter().any(|rule| match (deny, &rule.target) {
                (Deny::Host(denied, _), Target::Host(allowed)) => denied == allowed,
                (Deny::Network(denied, _), Target::Network(allowed)) => denied == allowed,
                _ => false,
            })
        };
        let deny = self.parts.deny.iter().filter(|deny| !named(deny)).cloned().collect();
        let rules = self.parts.rules.iter().chain(&rules).cloned().collect();
        Parts { open: self.parts.open, rules, deny }.into()
    }

    /// Whether every public destination is allowed that nothing denies.
    pub const fn is_open(&self) -> bool {
        self.parts.open
    }

    /// What is allowed by name.
    pub fn rules(&self) -> &[Rule] {
        &self.parts.rules
    }

    /// What is denied by name.
    pub fn deny(&self) -> &[Deny] {
        &self.parts.deny
    }

    /// Whether a name is worth an address: something allows it at some port, and nothing denies it at all of them.
    pub fn resolves(&self, name: &HostName) -> Result<(), Denial> {
        let everywhere = |deny: &&Deny| matches!(deny, Deny::Host(pattern, Ports::All) if pattern.matches(name));
        if let Some(deny) = self.parts.deny.iter().find(everywhere) {
            return Err(denied(Some(format!("deny {deny}")), "a rule denies it"));
        }
        if self.rules_for(name).next().is_some() || (self.parts.open && !is_ours(name)) {
            return Ok(());
        }
        Err(denied(None, "no rule allows this name"))
    }

    /// A connection to a name.
    pub fn decide_name(&self, name: &HostName, port: u16) -> Result<Permit, Denial> {
        let deny = |deny: &&Deny| matches!(deny, Deny::Host(pattern, ports) if pattern.matches(name) && ports.contain(port));
        if let Some(deny) = self.parts.deny.iter().find(deny) {
            return Err(denied(Some(format!("deny {deny}")), "a rule denies it"));
        }
        let mut other_ports = Vec::new();
        for rule in self.rules_for(name) {
            if rule.ports.contains(&port) {
                return Ok(permit(rule, port));
            }
            other_ports.extend(&rule.ports);
        }
        if self.parts.open && !is_ours(name) {
            return Ok(open(port));
        }
        if other_ports.is_empty() {
            return Err(denied(None, "no rule allows this name"));
        }
        other_ports.sort_unstable();
        other_ports.dedup();
        let ports: Vec<String> = other_ports.iter().map(u16::to_string).collect();
        Err(denied(None, format!("this name is allowed at port {} only", ports.join(", "))))
    }

    /// A connection to an address that no name was asked for.
    pub fn decide_address(&self, address: IpAddr, port: u16) -> Result<Permit, Denial> {
        self.undenied(address, port)?;
        let networks = self.networks.iter().filter_map(|index| self.parts.rules.get(*index));
        for rule in networks {
            if matches!(&rule.target, Target::Network(network) if network.contains(address)) && rule.ports.contains(&port) {
                // The address is the rule: nothing in the first bytes could name it again.
                let permit = Permit { protocol: rule.protocol.unwrap_or(Protocol::Tcp), ..permit(rule, port) };
                return self.may_dial(&permit, address, port).map(|()| permit);
            }
        }
        if self.parts.open && AddressClass::of(address) == AddressClass::Public {
            return Ok(Permit { protocol: Protocol::Tcp, ..open(port) });
        }
        Err(denied(None, "no rule allows this address"))
    }

    /// Whether an address that an allowed name has may be dialled.
    pub fn may_dial(&self, permit: &Permit, address: IpAddr, port: u16) -> Result<(), Denial> {
        self.undenied(address, port)?;
        match AddressClass::of(address) {
            AddressClass::Public => Ok(()),
            AddressClass::Private if permit.allow_private => Ok(()),
            AddressClass::Private => Err(denied(
                Some(permit.rule.clone()),
                format!("{address} is in a private network, and the rule does not say allow_private"),
            )),
            class => Err(denied(Some(permit.rule.clone()), format!("{address} is {class}: it is never dialled"))),
        }
    }

    fn undenied(&self, address: IpAddr, port: u16) -> Result<(), Denial> {
        let deny = |deny: &&Deny| matches!(deny, Deny::Network(network, ports) if network.contains(address) && ports.contain(port));
        match self.parts.deny.iter().find(deny) {
            Some(deny) => Err(denied(Some(format!("deny {deny}")), "a rule denies it")),
            None => Ok(()),
        }
    }

    /// Rules about a name: those that name it first, then those of its parents, the nearest first.
    fn rules_for<'a>(&'a self, name: &'a HostName) -> impl Iterator<Item = &'a Rule> {
        let exact = self.exact.get(name).into_iter().flatten();
        let below = name.parents().filter_map(|parent| HostName::from_wire(parent).ok());
        let below = below.filter_map(|parent| self.below.get(&parent)).flatten();
        exact.chain(below).filter_map(|index| self.parts.rules.get(*index))
    }
}

fn permit(rule: &Rule, port: u16) -> Permit {
    let protocol = rule.protocol.unwrap_or_else(|| Protocol::usual_at(port));
    Permit { rule: rule.name.clone(), protocol, allow_private: rule.allow_private }
}

fn open(port: u16) -> Permit {
    Permit { rule: NetworkLevel::FullWeb.name().to_owned(), protocol: Protocol::usual_at(port), allow_private: false }
}

/// Names that only an explicit rule can allow.
fn is_ours(name: &HostName) -> bool {
    let domain = HOST_LOOPBACK.split_once('.').map_or(HOST_LOOPBACK, |(_, domain)| domain);
    name.as_str() == domain || name.parents().any(|parent| parent == domain)
}
