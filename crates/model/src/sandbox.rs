//! A sandbox as it is recorded and shown.

use crate::{ImageRef, Limits, Name, NetworkLevel, Phase, Reason, SandboxId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A port of a sandbox that can be reached from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Where the host listens.
    pub host: SocketAddr,
    /// The port inside.
    pub port: u16,
}

/// A tree of the host that a sandbox changes a copy of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewOf {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is inside.
    pub target: PathBuf,
}

/// A named volume in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUse {
    /// The volume.
    pub name: Name,
    /// Where it is inside.
    pub target: PathBuf,
    /// Whether it may be changed.
    pub writable: bool,
}

/// What is known of a sandbox; it outlives the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// Its name, if it was given one.
    pub name: Option<Name>,
    /// The engine that runs it.
    pub engine: String,
    /// What it started from.
    pub image: ImageRef,
    /// The command.
    pub command: Vec<String>,
    /// What it may reach.
    pub network: NetworkLevel,
    /// What it may use.
    pub limits: Limits,
    /// Whether its bytes stay until they are removed on request; else they go when it ends.
    pub kept: bool,
    /// Controls of the security model that this host could not enforce for whoever made it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unenforced: Vec<String>,
    /// Published ports: where the host listens, and the port inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PublishedPort>,
    /// The tree of the host that it changes a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewOf>,
    /// Named volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeUse>,
    /// The policy file that it was given, which is followed as it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<PathBuf>,
    /// Labels given by the user.
    pub labels: BTreeMap<String, String>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// More about why, in words.
    pub detail: Option<String>,
    /// The main process's exit status as a shell gives it (128 + signal).
    pub exit_code: Option<i32>,
    /// Accepted.
    pub created_at: Timestamp,
    /// Main process executed.
    pub started_at: Option<Timestamp>,
    /// Ended.
    pub ended_at: Option<Timestamp>,
    /// Bytes deleted, name freed.
    pub removed_at: Option<Timestamp>,
}
