//! The task file (`task.yaml`).

use crate::yaml::{self, YamlError};
use crate::{Bytes, Cpus, Difficulty, ImageRef, Limits, Name, NetworkLevel, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The submitted unit: image, command, workspace, limits, policy, verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Toolchains of the host that are mounted read-only.
    #[serde(default)]
    pub toolchains: Vec<String>,
    /// Source and tests.
    #[serde(default)]
    pub workspace: Workspace,
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
}

/// Version 1 of the file's form; no other is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// Copied to `/workspace/src`.
    pub src: Option<PathBuf>,
    /// Copied to `/workspace/tests`, in the verifier's sandbox only.
    pub tests: Option<PathBuf>,
}

/// A command inside a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Limits that a task sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What happens to the bytes of an ended attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cleanup {
    /// Clean up after reward 1 (or exit 0 where there is no verifier).
    pub on_success: bool,
    /// Clean up after anything else.
    pub on_failure: bool,
    /// Clean up after a time-out.
    pub on_timeout: bool,
    /// Wait so long first.
    pub delay: Span,
    /// Clean up whatever it is after so long.
    pub force_after: Span,
    /// Keep the logs.
    pub keep_logs: bool,
    /// Keep the artifacts.
    pub keep_artifacts: bool,
    /// Delete what was kept after so long.
    pub retention: Span,
}

impl Default for Cleanup {
    fn default() -> Self {
        const DAY_SECONDS: u64 = 86_400;
        Self {
            on_success: true,
            on_failure: true,
            on_timeout: true,
            delay: Span::seconds(60),
            force_after: Span::seconds(DAY_SECONDS),
            keep_logs: true,
            keep_artifacts: true,
            retention: Span::seconds(30 * DAY_SECONDS),
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
        let commands = [
            ("verify.command", Some(&task.verify.command)),
            ("agent.command", task.agent.as_ref().map(|c| &c.command)),
            ("solution.command", task.solution.as_ref().map(|c| &c.command)),
        ];
        for (field, command) in commands {
            if command.is_some_and(|words| words.first().is_none_or(String::is_empty)) {
                return Err(TaskError::EmptyCommand { source_name: source_name.to_owned(), field });
            }
        }
        match task.network {
            NetworkLevel::Isolated | NetworkLevel::FullWeb if !task.allow.is_empty() => {
                Err(TaskError::AllowUnused { source_name: source_name.to_owned(), network: task.network })
            }
            NetworkLevel::LimitedWeb if task.allow.is_empty() => Err(TaskError::AllowEmpty { source_name: source_name.to_owned() }),
            _ => Ok(task),
        }
    }

    /// Its difficulty's limits under its own.
    pub fn limits(&self) -> Limits {
        self.limits.over(self.difficulty.limits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "version: 1\nid: a\ninstruction: do it\nverify: {command: [sh, tests/test.sh]}\n";

    #[test]
    fn defaults() {
        let task = Task::parse("task.yaml", SMALLEST).expect("parses");
        assert_eq!(task.limits(), Difficulty::Medium.limits());
        assert_eq!(task.image, ImageRef::Host);
        assert_eq!(task.cleanup.delay, Span::seconds(60));
    }

    #[test]
    fn own_limits_win() {
        let text = format!("{SMALLEST}limits: {{memory: 256MiB, cpus: 0.25, timeout: 10m}}\n");
        let limits = Task::parse("task.yaml", &text).expect("parses").limits();
        assert_eq!((limits.memory, limits.cpus.millis(), limits.pids), (Bytes::mebibytes(256), 250, 100));
    }

    #[test]
    fn refusals_name_the_place() {
        let cases = [
            (format!("{SMALLEST}dificulty: easy\n"), "task.yaml:5:1"),
            (SMALLEST.replace("version: 1", "version: 2"), "version 2 is not known"),
            (SMALLEST.replace("[sh, tests/test.sh]", "[]"), "verify.command is empty"),
            (format!("{SMALLEST}network: limited_web\n"), "at least one entry"),
            (format!("{SMALLEST}allow: [a.example]\n"), "no effect"),
            (format!("{SMALLEST}limits: {{memory: lots}}\n"), "\"lots\" is not a size"),
        ];
        for (text, expected) in cases {
            let message = Task::parse("task.yaml", &text).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn an_unknown_key_gets_a_suggestion() {
        let message = Task::parse("task.yaml", &format!("{SMALLEST}dificulty: easy\n")).expect_err("unknown").to_string();
        assert!(message.contains("did you mean \"difficulty\"?"), "{message}");
        assert!(message.contains("dificulty: easy"), "{message}");
    }
}
