//! What an agent finds in `/workspace/.synth`.

use crate::{Difficulty, Limits, Name, NetworkLevel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `task.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SynthTask {
    /// Version of this form: 1.
    pub version: u32,
    /// The task.
    pub id: Name,
    /// The attempt.
    pub attempt: String,
    /// What is to be done.
    pub instruction: String,
    /// How much it is given.
    pub difficulty: Difficulty,
    /// What it may reach.
    pub network: NetworkLevel,
    /// What this sandbox may use.
    pub limits: Limits,
    /// What is collected from `/workspace`, as globs.
    pub artifacts: Vec<String>,
    /// Processes that run beside the agent, by name.
    pub services: Vec<Name>,
}

/// `tools.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SynthTools {
    /// Toolchains of the host that are mounted.
    pub toolchains: Vec<String>,
}

/// `config.yaml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SynthConfig {
    /// Where the agent works.
    pub workspace: String,
    /// What it leaves here is collected.
    pub output: String,
    /// Logs and trajectories (`*.jsonl`) of its own.
    pub logs: String,
}
