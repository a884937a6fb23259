//! `cofferdam task render`: a task as files for a daemon alone.

use super::{Prepared, agent};
use crate::args::{Global, RenderFormat, TaskRenderArgs};
use crate::context::{Context, random};
use crate::exit::{FAILED, Failure};
use crate::output::one;
use cofferdam_lifecycle::task::{Given, RenderError, render as compose};
use cofferdam_model::AttemptId;
use cofferdam_sys::process;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `RLIMIT_NOFILE`.
const OPEN_FILES: u32 = 7;
/// In the first line of what may be written over.
const OURS: &str = "rendered by `cofferdam task render`";

/// Writes the files, and says which.
pub fn render(global: Global, arguments: &TaskRenderArgs) -> Result<ExitCode, Failure> {
    let agent = agent(&arguments.agent, arguments.agent_cmd.as_deref())?;
    let context = Context::open(global)?;
    let prepared = Prepared::of(&context, &arguments.task, &arguments.trust)?;
    let mut plan = prepared.plan(agent, AttemptId::from_random(random()));
    plan.base = fs::canonicalize(&plan.base)?;
    let files = match arguments.format {
        RenderFormat::Compose => {
            let gate = if plan.is_gated() { Some(context.gate_image()?) } else { None };
            let gate = gate.map(|record| (record.reference.to_string(), record.config_digest.to_string()));
            let gate = gate.as_ref().map(|(name, digest)| (&**name, &**digest));
            compose(&plan, Given { most_files: process::hard_limit(OPEN_FILES), gate }).map_err(refused)?
        }
    };
    fs::create_dir_all(&arguments.to)?;
    // Only compose files say whose they are; what stands beside one of ours is ours.
    let ours = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.lines().next().is_some_and(|line| line.contains(OURS)));
    let again = ours(&arguments.to.join("compose.yaml"));
    let taken = files.keys().map(|name| arguments.to.join(name)).find(|path| path.exists() && !again);
    if let Some(path) = taken {
        let message = format!("{} is there and not of this command", path.display());
        return Err(Failure::new(FAILED, "exists", message).remedy("move it away, or name another directory with --to"));
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for (name, text) in &files {
        let path = arguments.to.join(name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&path, text)?;
        written.push(path);
    }
    one(context.global.output, &written, |out| written.iter().try_for_each(|path| writeln!(out, "{}", path.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn refused(error: RenderError) -> Failure {
    let remedy = match &error {
        RenderError::HostLoopback { .. } | RenderError::Harbor { .. } => "use cofferdam task run --engine docker",
        RenderError::NoImage { .. } => "name an image in the task file (image: python:3.12), or make one of it (cofferdam image import)",
        RenderError::User(_) | RenderError::Task(_) | RenderError::Form(_) => "see the task file",
    };
    Failure::new(FAILED, "unsupported", error.to_string()).remedy(remedy)
}
