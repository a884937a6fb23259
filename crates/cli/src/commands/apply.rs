//! `cofferdam apply`: what a sandbox changed of a repository comes back the way the user wants it.

use crate::args::{ApplyArgs, Global};
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use crate::output::{note, one};
use crate::repository::{Branch, Changed, patch, to_branch, to_tree};
use cofferdam_model::SandboxRecord;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Serialize)]
struct Applied {
    files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
}

/// Does it.
pub fn run(global: Global, arguments: &ApplyArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let record = Context::find(&mut context.store()?, &arguments.sandbox)?;
    let changed = Changed::of(&context, &record)?;
    changed.tell_left_out();
    if changed.differences.is_empty() {
        note!("cofferdam: nothing differs");
        return Ok(ExitCode::SUCCESS);
    }
    let files = changed.differences.len();
    if let Some(file) = &arguments.patch {
        return write_patch(&changed, file);
    }
    if arguments.tree {
        to_tree(&changed, arguments.force)?;
        let applied = Applied { files, branch: None, commit: None };
        one(context.global.output, &applied, |out| writeln!(out, "{files} files in {}", changed.source.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let branch = arguments.branch.clone().unwrap_or_else(|| format!("cofferdam/{}", called(&record)));
    let Branch { commit, left_out } = branch_of(&context, &changed, &record, &branch, arguments.message.as_deref())?;
    let files = files - left_out.len();
    let applied = Applied { files, branch: Some(branch.clone()), commit: Some(commit.clone()) };
    one(context.global.output, &applied, |out| writeln!(out, "{files} files on branch {branch} ({})", &commit[..12.min(commit.len())]))?;
    all_there(&left_out).map(|()| ExitCode::SUCCESS)
}

/// What a branch lacks is no detail.
pub fn all_there(left_out: &[PathBuf]) -> Result<(), Failure> {
    if left_out.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = left_out.iter().map(|path| path.display().to_string()).collect();
    let message = format!("in a submodule, and not on the branch: {}", names.join(", "));
    Err(Failure::new(FAILED, "submodule", message).remedy("--tree and --patch bring everything back"))
}

fn called(record: &SandboxRecord) -> String {
    record.name.as_ref().map_or_else(|| record.id.short(), ToString::to_string)
}

/// Puts the changes on a branch; the commit says where they come from.
pub fn branch_of(
    context: &Context,
    changed: &Changed,
    record: &SandboxRecord,
    branch: &str,
    message: Option<&str>,
) -> Result<Branch, Failure> {
    let scratch = tempfile::Builder::new().prefix("apply-").tempdir_in(context.data.path())?;
    let own = format!("{}\n\nWhat sandbox {} changed.\n", record.command.join(" ").chars().take(72).collect::<String>(), record.id);
    to_branch(changed, branch, message.unwrap_or(&own), scratch.path())
}

fn write_patch(changed: &Changed, file: &Path) -> Result<ExitCode, Failure> {
    let (text, binary) = patch(&changed.differences);
    if file == Path::new("-") {
        std::io::stdout().write_all(text.as_bytes())?;
    } else {
        std::fs::write(file, text).map_err(|error| Failure::new(FAILED, "io", format!("{}: {error}", file.display())))?;
    }
    if binary.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let message = format!("no text, and not in the patch: {}", binary.join(", "));
    Err(Failure::new(FAILED, "binary", message).remedy("--branch and --tree bring everything back"))
}
