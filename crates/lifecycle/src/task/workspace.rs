//! The workspace of an attempt: `/workspace/.synth` read-only, `src`, `output`; `tests` while verifying only.

use cofferdam_engine::{Directory, Mount, MountError, MountSource};
use cofferdam_model::Task;
use cofferdam_model::synth::{SynthConfig, SynthTask, SynthTools};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::Path;

/// Where the workspace is inside.
pub const WORKSPACE: &str = "/workspace";
/// What of a result is never handed on.
const NOT_PART_OF_A_RESULT: &[&str] = &[".synth", "solution", "tests"];

/// The task's description for the agent: files and what is in them.
pub fn description(task: &Task, attempt: &str) -> [(&'static str, String); 4] {
    let description = SynthTask {
        version: 1,
        id: task.id.clone(),
        attempt: attempt.to_owned(),
        instruction: task.instruction.clone(),
        difficulty: task.difficulty,
        network: task.network,
        limits: task.limits(),
        artifacts: task.artifacts.clone(),
        services: task.services.iter().map(|service| service.name.clone()).collect(),
    };
    let tools = SynthTools { toolchains: task.toolchains.clone() };
    let output = format!("{WORKSPACE}/output");
    let config = SynthConfig { workspace: WORKSPACE.to_owned(), output, logs: "/logs/agent".to_owned() };
    [
        ("task.json", pretty(&description)),
        ("instruction.md", task.instruction.clone()),
        ("tools.json", pretty(&tools)),
        ("config.yaml", cofferdam_model::yaml::write(&config).unwrap_or_default()),
    ]
}

/// Writes it into a directory of the host and shows it read-only: a mount can be neither changed, renamed nor removed from inside.
pub fn describe(task: &Task, attempt: &str, directory: &Path) -> Result<Mount, DescribeError> {
    let error = |source| DescribeError::Io { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(error)?;
    for (name, contents) in description(task, attempt) {
        fs::write(directory.join(name), contents).map_err(error)?;
    }
    Ok(Mount { source: MountSource::of_own(directory)?, target: format!("{WORKSPACE}/.synth").into(), writable: false })
}

/// Why a description could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// A file of the host.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The mount.
    #[error(transparent)]
    Mount(#[from] MountError),
}

fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Directories that a sandbox of an attempt has. While verifying, `src` and `output` are what the agent left, if it left
/// them.
pub fn directories(owner: (u32, u32), verifying: bool) -> Vec<Directory> {
    let directory = |path: &str, owner| Directory { path: path.into(), mode: 0o755, owner };
    let mut directories = vec![directory("/logs", (0, 0)), directory("/logs/agent", owner), directory("/logs/verifier", (0, 0))];
    if !verifying {
        directories.extend([directory("/workspace/src", owner), directory("/workspace/output", owner)]);
    }
    directories
}

/// Takes out of a copied result what the agent had no business to leave there.
pub fn strip(result: &Path) -> io::Result<()> {
    for name in NOT_PART_OF_A_RESULT {
        let path = result.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
