//! Services: processes beside the agent.

use crate::{Name, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A process that is started before the agent, or before the verifier, in the same sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, for messages and its log.
    pub name: Name,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment besides the task's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User inside; the default user's where none is named.
    #[serde(default)]
    pub user: Option<String>,
    /// Directory beside the task file that is copied to `/services/NAME`, owned by the service's user.
    #[serde(default)]
    pub files: Option<PathBuf>,
    /// When it counts as ready; at once where nothing is said.
    #[serde(default)]
    pub ready: Option<Ready>,
    /// Which sandboxes have it.
    #[serde(default = "agent_only")]
    pub during: Vec<During>,
}

fn agent_only() -> Vec<During> {
    vec![During::Agent]
}

/// A sandbox of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum During {
    /// The agent's.
    Agent,
    /// The verifier's.
    Verify,
}

/// When a service counts as ready: a port of the sandbox's loopback accepts, or a command ends with status 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// A TCP port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Program and arguments, run as the service's user.
    #[serde(default)]
    pub command: Vec<String>,
    /// Between two looks [default: 200ms].
    #[serde(default)]
    pub interval: Option<Span>,
    /// It fails the attempt when it is not ready after so long [default: 30s].
    #[serde(default)]
    pub timeout: Option<Span>,
}
