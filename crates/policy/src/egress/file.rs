//! The policy file. Every key of its published form is known; those of later releases are refused by name.

use super::{Allow, CompileError, Deny, HostPattern, Network, Policy, Presets, Protocol, Rule, Source, Target};
use cofferdam_model::NetworkLevel;
use cofferdam_model::yaml::{self, YamlError};
use serde::Deserialize;
use std::str::FromStr;

/// A parsed policy file.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    name: String,
    text: String,
    source: Source,
}

/// Why a file is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// Its form.
    #[error(transparent)]
    Form(#[from] YamlError),
    /// Its meaning.
    #[error("{name}:{line}:1: {source}")]
    Meaning {
        /// The file.
        name: String,
        /// The line that it is about, as far as one can be told.
        line: usize,
        /// What is wrong.
        source: CompileError,
    },
    /// A key whose time has not come.
    #[error("{name}:{line}:1: {key} is not in this release; leave it out: a rule that cannot be enforced would not protect you")]
    NotYet {
        /// The file.
        name: String,
        /// Its line.
        line: usize,
        /// The key.
        key: &'static str,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Version,
    network: NetworkLevel,
    #[serde(default)]
    allow: Vec<Allow>,
    #[serde(default)]
    deny: Vec<Deny>,
    #[serde(default)]
    egress: Vec<Egress>,
    git: Option<serde::de::IgnoredAny>,
    budgets: Option<serde::de::IgnoredAny>,
    approvals: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    host: Host,
    #[serde(default = "default_ports")]
    ports: Vec<Port>,
    protocol: Option<Protocol>,
    tls: Option<Tls>,
    matches: Option<serde::de::IgnoredAny>,
    credential: Option<serde::de::IgnoredAny>,
    dlp: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    allow_private: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Tls {
    Passthrough,
    Intercept,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u64")]
struct Version;

impl TryFrom<u64> for Version {
    type Error = String;

    fn try_from(version: u64) -> Result<Self, String> {
        if version == 1 { Ok(Self) } else { Err(format!("version {version} is not known: this release reads version 1")) }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u64")]
struct Port(u16);

impl TryFrom<u64> for Port {
    type Error = String;

    fn try_from(port: u64) -> Result<Self, String> {
        u16::try_from(port).ok().filter(|port| *port != 0).map(Self).ok_or_else(|| format!("{port} is no port: 1 to 65535"))
    }
}

fn default_ports() -> Vec<Port> {
    vec![Port(super::entry::DEFAULT_PORT)]
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Host(Target);

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let numeric = text.split('/').next().is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok());
        if numeric {
            return Network::from_str(&text).map(Target::Network).map(Self);
        }
        HostPattern::from_str(&text).map(Target::Host).map(Self).map_err(|error| error.to_string())
    }
}

impl PolicyFile {
    /// Parses a file; `name` stands in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyFileError> {
        let document: Document = yaml::parse(name, text)?;
        let not_yet = |key: &'static str| PolicyFileError::NotYet { name: name.to_owned(), line: line_of(text, key), key };
        let Version = document.version;
        for (key, given) in
            [("git", document.git.is_some()), ("budgets", document.budgets.is_some()), ("approvals", document.approvals.is_some())]
        {
            if given {
                return Err(not_yet(key));
            }
        }
        let mut rules = Vec::new();
        for egress in document.egress {
            let later = [
                ("tls: intercept", egress.tls == Some(Tls::Intercept)),
                ("matches", egress.matches.is_some()),
                ("credential", egress.credential.is_some()),
                ("dlp", egress.dlp.is_some()),
            ];
            if let Some((key, _)) = later.iter().find(|(_, given)| *given) {
                return Err(not_yet(key));
            }
            rules.push(rule(egress));
        }
        let source = Source { level: document.network, allow: document.allow, deny: document.deny, rules };
        Ok(Self { name: name.to_owned(), text: text.to_owned(), source })
    }

    /// What it says.
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// Compiles it, with warnings for people.
    pub fn compile(&self, presets: &Presets) -> Result<(Policy, Vec<String>), PolicyFileError> {
        self.source.compile(presets).map_err(|source| {
            let about = match &source {
                CompileError::UnknownPreset { name, .. } => format!("preset:{name}"),
                CompileError::NoPackages => "packages".to_owned(),
                CompileError::Contradiction(entry) => entry.clone(),
                CompileError::Private(network) | CompileError::Never { network, .. } => network.to_string(),
                CompileError::AllowWithIsolated | CompileError::NothingAllowed | CompileError::AllowWithOpen => "network".to_owned(),
            };
            PolicyFileError::Meaning { name: self.name.clone(), line: line_of(&self.text, &about), source }
        })
    }
}

fn rule(egress: Egress) -> Rule {
    let ports: Vec<u16> = egress.ports.iter().map(|port| port.0).collect();
    let target = match &egress.host.0 {
        Target::Host(host) => host.to_string(),
        Target::Network(network) => network.to_string(),
    };
    let shown: Vec<String> = ports.iter().map(u16::to_string).collect();
    let name = format!("egress {target}:{}", shown.join(","));
    Rule { name, target: egress.host.0, ports, protocol: egress.protocol, allow_private: egress.allow_private }
}

/// The first line that holds a text; the first of all if none does.
fn line_of(text: &str, about: &str) -> usize {
    text.lines().position(|line| line.split('#').next().is_some_and(|line| line.contains(about))).map_or(1, |index| index + 1)
}
