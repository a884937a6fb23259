//! The keys of `task.toml`.
#![allow(missing_docs, reason = "the keys are Harbor's, and documented there")]

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(alias = "version")]
    pub schema_version: Option<String>,
    pub task: Option<Package>,
    #[serde(default)]
    pub metadata: toml::Table,
    #[serde(default)]
    pub verifier: Verifier,
    #[serde(default)]
    pub agent: Agent,
    #[serde(default)]
    pub environment: Place,
    #[serde(default)]
    pub solution: Solution,
    #[serde(rename = "source")]
    pub _source: Option<String>,
    pub multi_step_reward_strategy: Option<String>,
    pub steps: Option<Vec<toml::Table>>,
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: Option<String>,
    #[serde(rename = "description")]
    pub _description: Option<String>,
    #[serde(rename = "authors", default)]
    pub _authors: Vec<toml::Table>,
    #[serde(default)]
    pub keywords: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    pub timeout_sec: Option<f64>,
    pub user: Option<Account>,
    pub network_mode: Option<Mode>,
    pub allowed_hosts: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    pub timeout_sec: Option<f64>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub user: Option<Account>,
    pub environment_mode: Option<VerifierMode>,
    pub environment: Option<Place>,
    #[serde(default)]
    pub collect: Vec<toml::Table>,
    pub network_mode: Option<Mode>,
    pub allowed_hosts: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solution {
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub build_timeout_sec: Option<f64>,
    pub docker_image: Option<String>,
    pub os: Option<String>,
    pub cpus: Option<f64>,
    pub memory_mb: Option<u64>,
    pub memory: Option<String>,
    pub storage_mb: Option<u64>,
    pub storage: Option<String>,
    pub gpus: Option<u64>,
    pub gpu_types: Option<Vec<String>>,
    pub tpu: Option<toml::Table>,
    #[serde(default)]
    pub mcp_servers: Vec<toml::Table>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub skills_dir: Option<String>,
    pub healthcheck: Option<Health>,
    pub workdir: Option<String>,
    pub allow_internet: Option<bool>,
    pub network_mode: Option<Mode>,
    pub allowed_hosts: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    pub command: String,
    pub interval_sec: Option<f64>,
    pub timeout_sec: Option<f64>,
    pub start_period_sec: Option<f64>,
    #[serde(rename = "start_interval_sec")]
    pub _start_interval_sec: Option<f64>,
    pub retries: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    NoNetwork,
    Public,
    Allowlist,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum VerifierMode {
    Shared,
    Separate,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Account {
    Number(u32),
    Name(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum Artifact {
    Path(String),
    Entry(Entry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub source: String,
    pub destination: Option<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    pub service: Option<String>,
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(uid) => write!(f, "{uid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}
