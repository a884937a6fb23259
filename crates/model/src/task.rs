//! The task file (`task.yaml`).

mod cleanup;
mod form;
mod harbor;
mod metadata;
mod service;

pub use cleanup::Cleanup;
pub use form::{Carried, Environment, Form, Harbor};
pub use harbor::{HarborError, HarborFiles};
pub use metadata::Metadata;
pub use service::{During, Ready, Service};

use crate::yaml::{self, YamlError};
use crate::{Bytes, Cpus, Difficulty, ImageRef, Limits, Name, NetworkLevel, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The submitted unit: image, command, workspace, limits, policy, verifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Version of the file's form: 1.
    pub version: Version,
    /// Its id.
    pub id: Name,
    /// What the agent is asked to do.
    pub instruction: String,
    /// How much it is given.
    #[serde(default)]
    pub difficulty: Difficulty,
    /// What it starts from.
    #[serde(default = "host")]
    pub image: ImageRef,
    /// What it may reach.
    #[serde(default)]
    pub network: NetworkLevel,
    /// Destinations allowed, with `package_only` or `limited_web`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// A policy file beside the task file, in place of `allow`.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Toolchains of the host that are mounted read-only.
    #[serde(default)]
    pub toolchains: Vec<String>,
    /// Source and tests.
    #[serde(default)]
    pub workspace: Workspace,
    /// Processes that run beside the agent, started before it.
    #[serde(default)]
    pub services: Vec<Service>,
    /// The agent's own command.
    #[serde(default)]
    pub agent: Option<Command>,
    /// How the result is judged.
    pub verify: Verify,
    /// The reference solution, for the built-in agent `oracle`.
    #[serde(default)]
    pub solution: Option<Command>,
    /// What is collected from `/workspace`.
    #[serde(default)]
    pub artifacts: Vec<String>,
    /// Limits that win over the difficulty's.
    #[serde(default)]
    pub limits: LimitChanges,
    /// When and how it is cleaned up.
    #[serde(default)]
    pub cleanup: Cleanup,
    /// What a dataset says about it.
    #[serde(default)]
    pub metadata: Metadata,
    /// Where its parts are inside; not a key of the file.
    #[serde(skip)]
    pub form: Form,
}

/// Version 1 of the file's form; no other is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(with = "u32")]
pub struct Version;

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        if number == 1 { Ok(Self) } else { Err(format!("version {number} is not known; this release reads version 1")) }
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

const fn host() -> ImageRef {
    ImageRef::Host
}

/// Directories beside the task file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Copied to `/workspace/src`.
    pub src: Option<PathBuf>,
    /// Copied to `/workspace/tests`, in the verifier's sandbox only.
    pub tests: Option<PathBuf>,
}

/// A command inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User inside the sandbox.
    #[serde(default)]
    pub user: Option<String>,
}

/// The verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// Program and arguments, run in `/workspace`.
    pub command: Vec<String>,
    /// Tests that must fail before and pass after.
    #[serde(default)]
    pub fail_to_pass: Vec<String>,
    /// Tests that must pass before and after.
    #[serde(default)]
    pub pass_to_pass: Vec<String>,
    /// What the verifier may reach.
    #[serde(default)]
    pub network: NetworkLevel,
    /// Destinations allowed, with `package_only` or `limited_web`; the task's own where none are named.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// User inside: root of the sandbox, so that tests and reward are not the candidate's.
    #[serde(default)]
    pub user: Option<String>,
    /// Limits that win over the task's.
    #[serde(default)]
    pub limits: LimitChanges,
}

/// Limits that a task sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitChanges {
    /// Memory.
    pub memory: Option<Bytes>,
    /// CPUs.
    pub cpus: Option<Cpus>,
    /// Disk.
    pub disk: Option<Bytes>,
    /// Processes.
    pub pids: Option<u32>,
    /// Wall time.
    pub timeout: Option<Span>,
}

impl LimitChanges {
    /// These over those.
    pub fn over(&self, base: Limits) -> Limits {
        Limits {
            memory: self.memory.unwrap_or(base.memory),
            cpus: self.cpus.unwrap_or(base.cpus),
            disk: self.disk.or(base.disk),
            pids: self.pids.unwrap_or(base.pids),
            open_files: base.open_files,
            timeout: self.timeout.or(base.timeout),
        }
    }
}

/// A task file that says something that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It is not of the file's form.
    #[error(transparent)]
    Form(#[from] YamlError),
    /// A command without a program.
    #[error("{source_name}: {field} is empty: name a program")]
    EmptyCommand {
        /// The file.
        source_name: String,
        /// The field.
        field: &'static str,
    },
    /// A list of tests that cannot be.
    #[error("{source_name}: test {test:?} is listed twice: in fail_to_pass and pass_to_pass together a test stands once")]
    TestTwice {
        /// The file.
        source_name: String,
        /// The test.
        test: String,
    },
    /// A path that leaves the task's directory or the workspace.
    #[error("{source_name}: {field} {path:?} is refused: it is to be relative and may not contain ..")]
    PathLeaves {
        /// The file.
        source_name: String,
        /// The field.
        field: &'static str,
        /// What it says.
        path: String,
    },
    /// Two services of one name.
    #[error("{source_name}: service {name} is named twice")]
    ServiceTwice {
        /// The file.
        source_name: String,
        /// The service.
        name: Name,
    },
    /// `allow` beside `policy`.
    #[error("{source_name}: allow and policy exclude each other: write the destinations into the policy file")]
    AllowAndPolicy {
        /// The file.
        source_name: String,
    },
    /// `allow` without a level that looks at it.
    #[error("{source_name}: allow has no effect with network {network}: use limited_web or package_only")]
    AllowUnused {
        /// The file.
        source_name: String,
        /// The level.
        network: NetworkLevel,
    },
    /// No destination on a level that allows only what is listed.
    #[error("{source_name}: network limited_web needs at least one entry in allow")]
    AllowEmpty {
        /// The file.
        source_name: String,
    },
}

impl Task {
    /// Reads a task file; `source_name` stands in errors.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, TaskError> {
        let task: Self = yaml::parse(source_name, text)?;
        task.check(source_name)?;
        Ok(task)
    }

    fn check(&self, source_name: &str) -> Result<(), TaskError> {
        let source_name = || source_name.to_owned();
        let commands = [
            ("verify.command", Some(&self.verify.command)),
            ("agent.command", self.agent.as_ref().map(|c| &c.command)),
            ("solution.command", self.solution.as_ref().map(|c| &c.command)),
        ];
        let services = self.services.iter().map(|service| ("services.command", Some(&service.command)));
        for (field, command) in commands.into_iter().chain(services) {
            if command.is_some_and(|words| words.first().is_none_or(String::is_empty)) {
                return Err(TaskError::EmptyCommand { source_name: source_name(), field });
            }
        }
        let mut tests = BTreeSet::new();
        if let Some(test) = self.verify.listed().find(|test| !tests.insert(*test)) {
            return Err(TaskError::TestTwice { source_name: source_name(), test: test.to_owned() });
        }
        let mut names = BTreeSet::new();
        if let Some(service) = self.services.iter().find(|service| !names.insert(&service.name)) {
            return Err(TaskError::ServiceTwice { source_name: source_name(), name: service.name.clone() });
        }
        let globs = self.artifacts.iter().map(|glob| ("artifacts", Path::new(glob)));
        if let Some((field, path)) = self.paths().chain(globs).find(|(_, path)| leaves(path)) {
            return Err(TaskError::PathLeaves { source_name: source_name(), field, path: path.display().to_string() });
        }
        if self.policy.is_some() && !self.allow.is_empty() {
            return Err(TaskError::AllowAndPolicy { source_name: source_name() });
        }
        for (level, allow) in [(self.network, &self.allow), (self.verify.network, &self.verify.allow)] {
            if matches!(level, NetworkLevel::Isolated | NetworkLevel::FullWeb) && !allow.is_empty() {
                return Err(TaskError::AllowUnused { source_name: source_name(), network: level });
            }
        }
        if self.network == NetworkLevel::LimitedWeb && self.allow.is_empty() && self.policy.is_none() {
            return Err(TaskError::AllowEmpty { source_name: source_name() });
        }
        Ok(())
    }

    /// Directories and files beside the task file that it names.
    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let workspace = [("workspace.src", &self.workspace.src), ("workspace.tests", &self.workspace.tests), ("policy", &self.policy)];
        let named = workspace.into_iter().filter_map(|(field, path)| Some((field, path.as_deref()?)));
        named.chain(self.services.iter().filter_map(|service| Some(("services.files", service.files.as_deref()?))))
    }

    /// Its difficulty's limits under its own.
    pub fn limits(&self) -> Limits {
        self.limits.over(self.difficulty.limits())
    }
}

/// A path of the host that was resolved already may be absolute; one that a file names may not.
fn leaves(path: &Path) -> bool {
    path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
}

impl Verify {
    /// Every listed test.
    pub fn listed(&self) -> impl Iterator<Item = &str> {
        self.fail_to_pass.iter().chain(&self.pass_to_pass).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
