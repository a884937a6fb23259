//! What an operator configures, and the file that describes a suite.

use crate::task::LimitChanges;
use crate::{Limits, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `config.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// No sandbox gets more, whoever asks.
    pub ceilings: LimitChanges,
    /// Controls that every sandbox must have enforced, as with `run --require`.
    pub require: Vec<String>,
    /// Web addresses of package registries, besides those that the host's package managers name.
    pub registries: Vec<String>,
    /// Name servers that the gate asks for allowed names [default: the host's own resolver].
    pub resolver: Option<NameServers>,
    /// Where Debian packages of images come from [default: what apt is configured for].
    pub debian: DebianMirrors,
    /// Of the engine docker.
    pub docker: Docker,
    /// How long sandboxes are kept for their owners (`run --owner`).
    pub lifecycle: Lifecycle,
    /// What things cost.
    pub costs: Costs,
}

/// How long sandboxes are kept for their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lifecycle {
    /// After a release, before they end.
    pub grace: Span,
    /// Unused, before they end.
    pub idle: Span,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { grace: Span::seconds(30), idle: Span::seconds(300) }
    }
}

/// Of the engine docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Docker {
    /// Where the gate of a sandbox is.
    pub gate: GatePlace,
    /// Which of the daemon's runtimes makes the containers, by its name in `docker info` [default: the daemon's own choice].
    pub runtime: Option<String>,
}

/// Where the gate of a sandbox on a daemon is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GatePlace {
    /// On this host, one for every sandbox: what is allowed leaves from the host's own network.
    #[default]
    Host,
    /// In a container beside each sandbox: what is allowed leaves from the daemon's bridge, under whatever rules the host has for its containers.
    Sidecar,
}

/// Name servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameServers {
    /// Their addresses: `IP`, `IP:PORT`, `[IP]:PORT`; the port is 53, or 853 with `tls`. The host's file of names is not looked at.
    pub servers: Vec<String>,
    /// The name in their certificate: they are asked over TLS (RFC 7858), and not otherwise.
    pub tls: Option<String>,
    /// A file of certificates (PEM), one of which must have signed theirs [default: those that the host trusts].
    pub ca: Option<PathBuf>,
}

/// URLs of Debian archives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DebianMirrors {
    /// Of the archive.
    pub mirror: Option<String>,
    /// Of the archive of security updates; without it there are none.
    pub security: Option<String>,
}

/// Rates, in any currency.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// Its name, for reports.
    pub currency: Option<String>,
    /// An hour of a sandbox.
    pub container_hour: f64,
    /// A gigabyte (10^9 bytes) kept for a month of 30 days.
    pub gb_month: f64,
    /// A gigabyte that leaves a sandbox.
    pub egress_gb: f64,
}

impl Config {
    /// Defaults that nobody asked for, brought down to the ceilings.
    pub fn bound(&self, limits: Limits) -> Limits {
        fn least<T: Ord>(limit: T, ceiling: Option<T>) -> T {
            match ceiling {
                Some(ceiling) => limit.min(ceiling),
                None => limit,
            }
        }
        let ceilings = &self.ceilings;
        Limits {
            memory: least(limits.memory, ceilings.memory),
            cpus: least(limits.cpus, ceilings.cpus),
            disk: limits.disk.map(|disk| least(disk, ceilings.disk)),
            pids: least(limits.pids, ceilings.pids),
            open_files: limits.open_files,
            timeout: limits.timeout.map_or(ceilings.timeout, |timeout| Some(least(timeout, ceilings.timeout))),
        }
    }
}

/// A suite file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SuiteFile {
    /// Of the format: 1.
    pub version: u32,
    /// Tasks, relative to the file: task files, directories of one task, or directories of many.
    pub tasks: Vec<PathBuf>,
    /// Who attempts them: oracle, nop, or a command.
    pub agent: Option<String>,
    /// Attempts at each.
    pub attempts: Option<u32>,
    /// Attempts at once.
    pub parallel: Option<usize>,
}
