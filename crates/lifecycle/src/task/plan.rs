//! What an attempt is made from.

use super::artifacts::CollectError;
use super::step::Mode;
use super::workspace::DescribeError;
use crate::gating::GateRequest;
use crate::supervisor::SupervisorError;
use cofferdam_engine::EngineError;
use cofferdam_model::{AttemptId, ImageRef, Limits, Reason, Task};
use cofferdam_trust::{ImageError, UserError, VerifiedImage};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Who attempts a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The reference solution.
    Oracle,
    /// Nobody: nothing is done.
    Nop,
    /// The task's own command.
    Own,
    /// A command line for `sh`.
    Command(String),
}

impl Agent {
    /// Its name in records.
    pub fn name(&self) -> &str {
        match self {
            Self::Oracle => "oracle",
            Self::Nop => "nop",
            Self::Own => "task",
            Self::Command(_) => "command",
        }
    }
}

/// What a sandbox of an attempt starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The image, with the task's toolchains.
    pub image: VerifiedImage,
    /// Environment of every process.
    pub environment: BTreeMap<String, String>,
    /// Its limits, as far as this machine has them.
    pub limits: Limits,
    /// What it may reach, where its network is not isolated.
    pub gate: Option<GateRequest>,
}

/// An attempt to make.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub id: AttemptId,
    /// The task.
    pub task: Task,
    /// The directory of the task file.
    pub base: PathBuf,
    /// Who attempts it.
    pub agent: Agent,
    /// The agent's image as it is named.
    pub image_name: ImageRef,
    /// The agent's sandbox.
    pub execution: Start,
    /// The verifier's sandbox.
    pub verification: Start,
    /// Who asked for it.
    pub actor: String,
    /// Makes 128 random bits.
    pub random: fn() -> [u8; 16],
}

impl Plan {
    /// Whether the agent or the verifier has a network.
    pub const fn is_gated(&self) -> bool {
        self.execution.gate.is_some() || self.verification.gate.is_some()
    }

    /// What a sandbox starts from.
    pub(super) fn start(&self, mode: Mode) -> &Start {
        if mode == Mode::Execution { &self.execution } else { &self.verification }
    }
}

impl TaskRunError {
    /// Whether what was to be executed, or what it was given, is the cause: trying again is no use then.
    pub const fn is_of_the_contents(&self) -> bool {
        use cofferdam_engine::EngineError::{Directory, Invalid, NoRoom, NotExecutable, NotFound};
        matches!(
            self,
            Self::Supervisor(SupervisorError::Engine(
                NotFound { .. } | NotExecutable { .. } | Directory { .. } | Invalid { .. } | NoRoom { .. }
            ))
        )
    }

    /// Whether what was to be copied into a sandbox does not fit on its disk.
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Supervisor(SupervisorError::Engine(EngineError::NoRoom { .. })))
    }
}

/// Why an attempt could not be made. None of these is the agent's doing.
#[derive(Debug, thiserror::Error)]
pub enum TaskRunError {
    /// The task has nothing that this agent could do.
    #[error("task {task}: agent {agent} needs {what} in the task file")]
    NoCommand {
        /// The task.
        task: String,
        /// The agent.
        agent: String,
        /// What is missing.
        what: &'static str,
    },
    /// A sandbox ended for want of something that Cofferdam is to give.
    #[error("the {mode} sandbox ended: {reason}{detail}")]
    Ended {
        /// Which one.
        mode: &'static str,
        /// Why.
        reason: Reason,
        /// More about why.
        detail: String,
    },
    /// A user that the image has not.
    #[error(transparent)]
    User(#[from] UserError),
    /// The agent's result as an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The sandbox.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// Files into or out of the sandbox.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The task's description.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The artifacts.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The records.
    #[error(transparent)]
    Store(#[from] cofferdam_store::StoreError),
    /// A file of the host.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl TaskRunError {
    /// Whether the same attempt may succeed later, unchanged.
    pub const fn retryable(&self) -> bool {
        match self {
            Self::NoCommand { .. } | Self::User(_) => false,
            Self::Engine(error) | Self::Supervisor(SupervisorError::Engine(error)) => !matches!(
                error,
                EngineError::Unsupported { .. }
                    | EngineError::Invalid { .. }
                    | EngineError::NotFound { .. }
                    | EngineError::NotExecutable { .. }
                    | EngineError::Directory { .. }
            ),
            _ => true,
        }
    }
}
