//! From what was written to a [`Policy`]: levels and presets become rules, contradictions are refused.

use super::entry::is_host_loopback;
use super::{AddressClass, Allow, Deny, HostPattern, Network, Policy, Protocol, Rule, Target};
use cofferdam_model::NetworkLevel;
use cofferdam_model::yaml::distance;
use std::collections::BTreeMap;

const BUILT_IN: &[(&str, &str)] = &[
    ("git-hosting", include_str!("../../data/presets/git-hosting.txt")),
    ("llm-providers", include_str!("../../data/presets/llm-providers.txt")),
];

/// The preset of `package_only`: its entries come from the host's own configuration.
pub const PACKAGES: &str = "packages";

/// Named lists of entries.
#[derive(Clone, Debug, Default)]
pub struct Presets(BTreeMap<String, Vec<Allow>>);

/// What was written, from all places together.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The level.
    pub level: NetworkLevel,
    /// Entries of `allow`.
    pub allow: Vec<Allow>,
    /// Entries of `deny`.
    pub deny: Vec<Deny>,
    /// Rules of a policy file.
    pub rules: Vec<Rule>,
}

/// Why it is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Isolated, and something is allowed.
    #[error("network isolated reaches nothing, so nothing can be allowed; choose network limited_web")]
    AllowWithIsolated,
    /// An empty list.
    #[error("network limited_web reaches what is listed, and nothing is; add an entry to allow, or choose network isolated")]
    NothingAllowed,
    /// An open network, and a list.
    #[error("network full_web reaches every public destination already; leave allow out, or choose network limited_web")]
    AllowWithOpen,
    /// A preset that is not there.
    #[error("preset:{name} is not known{near}; there are {known}")]
    UnknownPreset {
        /// Its name.
        name: String,
        /// The nearest, in words.
        near: String,
        /// Those that are.
        known: String,
    },
    /// The packages preset without registries.
    #[error(
        "preset:packages is empty: no package manager of this host names a registry; configure one (pip, npm, cargo), or name the registries with --allow HOST"
    )]
    NoPackages,
    /// The same entry on both lists.
    #[error("{0} is allowed and denied; remove one of the two")]
    Contradiction(String),
    /// A block that is not public.
    #[error("{0} is not all public: write it as a rule under egress with allow_private: true")]
    Private(Network),
    /// A block that nobody may have.
    #[error("{network} holds {class} addresses, which are never dialled")]
    Never {
        /// The block.
        network: Network,
        /// What it holds.
        class: AddressClass,
    },
}

impl Presets {
    /// Those that come with the product, and the registries that this host is configured for.
    pub fn with_packages(packages: Vec<Allow>) -> Self {
        let entries = |text: &str| text.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok()).collect();
        let mut presets: BTreeMap<String, Vec<Allow>> = BUILT_IN.iter().map(|(name, text)| ((*name).to_owned(), entries(text))).collect();
        presets.insert(PACKAGES.to_owned(), packages);
        Self(presets)
    }

    fn get(&self, name: &str) -> Result<&[Allow], CompileError> {
        match self.0.get(name) {
            Some(entries) if entries.is_empty() && name == PACKAGES => Err(CompileError::NoPackages),
            Some(entries) => Ok(entries),
            None => {
                let nearest = self.0.keys().map(|known| (distance(known, name), known)).min();
                let near = nearest.filter(|(distance, _)| *distance <= 3).map(|(_, known)| format!(", did you mean preset:{known}?"));
                let known: Vec<String> = self.0.keys().map(|known| format!("preset:{known}")).collect();
                Err(CompileError::UnknownPreset { name: name.to_owned(), near: near.unwrap_or_default(), known: known.join(", ") })
            }
        }
    }
}

impl Source {
    /// Compiles it, with warnings for people.
    pub fn compile(&self, presets: &Presets) -> Result<(Policy, Vec<String>), CompileError> {
        self.check_level()?;
        let mut rules = self.rules.clone();
        if self.level == NetworkLevel::PackageOnly {
            push_preset(&mut rules, PACKAGES, presets)?;
        }
        for entry in &self.allow {
            match entry {
                Allow::Preset(name) => push_preset(&mut rules, name, presets)?,
                entry => rules.push(rule_of(entry, entry.to_string())),
            }
        }
        for rule in &rules {
            check_network(rule)?;
            self.check_contradiction(rule)?;
        }
        let warnings = rules.iter().filter_map(warning).collect();
        Ok((Policy::new(self.level, rules, self.deny.clone()), warnings))
    }

    fn check_level(&self) -> Result<(), CompileError> {
        let listed = !self.allow.is_empty() || !self.rules.is_empty();
        match self.level {
            NetworkLevel::Isolated if listed => Err(CompileError::AllowWithIsolated),
            NetworkLevel::LimitedWeb if !listed => Err(CompileError::NothingAllowed),
            // A rule may still say a protocol, a private network or the host's loopback.
            NetworkLevel::FullWeb if !self.allow.iter().all(|entry| matches!(entry, Allow::Host(host, _) if is_host_loopback(host))) => {
                Err(CompileError::AllowWithOpen)
            }
            _ => Ok(()),
        }
    }

    fn check_contradiction(&self, rule: &Rule) -> Result<(), CompileError> {
        let contradicts = |deny: &&Deny| match (deny, &rule.target) {
            (Deny::Host(denied, ports), Target::Host(allowed)) => denied == allowed && rule.ports.iter().all(|port| ports.contain(*port)),
            (Deny::Network(denied, ports), Target::Network(allowed)) => {
                denied == allowed && rule.ports.iter().all(|port| ports.contain(*port))
            }
            _ => false,
        };
        match self.deny.iter().find(contradicts) {
            Some(deny) => Err(CompileError::Contradiction(deny.to_string())),
            None => Ok(()),
        }
    }
}

fn push_preset(rules: &mut Vec<Rule>, name: &str, presets: &Presets) -> Result<(), CompileError> {
    rules.extend(presets.get(name)?.iter().map(|entry| rule_of(entry, format!("preset:{name} {entry}"))));
    Ok(())
}

fn rule_of(entry: &Allow, name: String) -> Rule {
    let (target, port) = match entry {
        Allow::Host(host, port) => (Target::Host(host.clone()), *port),
        Allow::Network(network, port) => (Target::Network(*network), *port),
        // A preset within a preset: none of ours has one.
        Allow::Preset(_) => {
            return Rule { name, target: Target::Network(NOWHERE), ports: Vec::new(), protocol: None, allow_private: false };
        }
    };
    // A local model server speaks what it speaks, under whatever name.
    let protocol = matches!(&target, Target::Host(host) if is_host_loopback(host)).then_some(Protocol::Tcp);
    Rule { name, target, ports: vec![port], protocol, allow_private: false }
}

const NOWHERE: Network = Network::one(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));

fn check_network(rule: &Rule) -> Result<(), CompileError> {
    let Target::Network(network) = rule.target else { return Ok(()) };
    for class in network.ends() {
        match class {
            AddressClass::Public => {}
            AddressClass::Private if rule.allow_private => {}
            AddressClass::Private => return Err(CompileError::Private(network)),
            class => return Err(CompileError::Never { network, class }),
        }
    }
    Ok(())
}

fn warning(rule: &Rule) -> Option<String> {
    match &rule.target {
        Target::Host(pattern @ HostPattern::Below(parent)) if pattern.is_below_public_suffix() => {
            Some(format!("{pattern}: anyone can have a name directly below {parent}, an attacker too; name the hosts that are meant"))
        }
        _ => None,
    }
}
