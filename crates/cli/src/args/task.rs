//! Arguments of `task`.

use super::TrustArgs;
use crate::engines::EngineName;
use clap::{Args, Subcommand, ValueEnum};
use cofferdam_model::Name;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum TaskVerb {
    /// Attempt a task: agent, verification in a fresh sandbox, reward.
    Run(TaskRunArgs),
    /// Show that a task is sound: the oracle earns 1, doing nothing earns 0.
    Validate {
        /// Task file, or a directory that holds task.yaml or Harbor's task.toml.
        task: PathBuf,
    },
    /// Begin a task: a directory with a small example to change.
    Init {
        /// The directory; its name becomes the task's id.
        directory: PathBuf,
    },
    /// Show an attempt with everything that is recorded of it.
    Show {
        /// Attempt: id or prefix of an id.
        attempt: String,
    },
    /// Write a task as files for those who have a daemon and nothing else.
    Render(TaskRenderArgs),
    /// Print the JSON Schema of a file, for editors.
    Schema {
        /// Which one.
        #[arg(default_value = "task", value_parser = ["task", "suite", "config", "base", "synth-task", "synth-tools", "synth-config"])]
        name: String,
    },
    /// List recorded attempts.
    List {
        /// Only of this task.
        task: Option<Name>,
    },
}

#[derive(Debug, Args)]
pub struct TaskRunArgs {
    /// Task file, or a directory that holds task.yaml or Harbor's task.toml.
    pub task: PathBuf,
    /// Who attempts it: oracle (the reference solution), nop (nothing), task (the task's own command).
    #[arg(long, default_value = "task")]
    pub agent: String,
    /// A command line to attempt it with, run by sh in /workspace.
    #[arg(long, value_name = "CMD", conflicts_with = "agent")]
    pub agent_cmd: Option<String>,
    /// What makes the sandboxes: native, docker, auto.
    #[arg(long, value_enum, default_value_t)]
    pub engine: EngineName,
    #[command(flatten)]
    pub trust: TrustArgs,
}

#[derive(Debug, Args)]
pub struct TaskRenderArgs {
    /// Task file, or a directory that holds task.yaml.
    pub task: PathBuf,
    /// What to write: compose (for docker-compose 1.29 and Compose 2).
    #[arg(long, value_enum, default_value_t)]
    pub format: RenderFormat,
    /// Directory to write into (compose.yaml, seccomp.json); made if it is missing.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,
    /// Who attempts it: oracle, nop, task.
    #[arg(long, default_value = "task")]
    pub agent: String,
    /// A command line to attempt it with, run by sh in /workspace.
    #[arg(long, value_name = "CMD", conflicts_with = "agent")]
    pub agent_cmd: Option<String>,
    #[command(flatten)]
    pub trust: TrustArgs,
}

/// What a task is written as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RenderFormat {
    /// A compose file.
    #[default]
    Compose,
}
