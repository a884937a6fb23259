//! Whether a task's tests say of its untouched base what the task says of them. Judged once for each state of the task's files.

use super::own;
use super::plan::TaskRunError;
use super::step::{Stage, ended_by_itself, io_at};
use cofferdam_store::{Store, TestOutcome};
use cofferdam_trust::content::sha256;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const DEEPEST: usize = 64;

/// Why the task is not sound, if it is not.
pub(super) async fn look(stage: &Stage<'_>, store: &mut Store) -> Result<Option<String>, TaskRunError> {
    let task = &stage.plan.task;
    if task.verify.listed().next().is_none() {
        return Ok(None);
    }
    let key = key(stage)?;
    if store.sound_known(&key)? {
        return Ok(None);
    }
    let ended = stage.run(own::sanity(stage)?).await?;
    if !ended_by_itself(&ended) {
        let reason = ended.outcome.record.reason.map_or("", |reason| reason.name());
        return Ok(Some(format!("the verifier did not end by itself on the untouched base: {reason}")));
    }
    let outcome = |test: &String| ended.tests.get(test).copied().unwrap_or(TestOutcome::Missing);
    let passing: Vec<&str> =
        task.verify.fail_to_pass.iter().filter(|test| outcome(test) == TestOutcome::Passed).map(String::as_str).collect();
    let failing: Vec<&str> =
        task.verify.pass_to_pass.iter().filter(|test| outcome(test) != TestOutcome::Passed).map(String::as_str).collect();
    let mut why = Vec::new();
    if !passing.is_empty() {
        why.push(format!("fail_to_pass passes already: {}", passing.join(", ")));
    }
    if !failing.is_empty() {
        why.push(format!("pass_to_pass does not pass: {}", failing.join(", ")));
    }
    if why.is_empty() {
        store.sound_keep(&key, task.id.as_str())?;
        return Ok(None);
    }
    Ok(Some(format!("on the untouched base {}", why.join("; "))))
}

/// Stands for everything that the judgement depends on: what the task says, its files, its image.
fn key(stage: &Stage<'_>) -> Result<String, TaskRunError> {
    let plan = stage.plan;
    let mut text = serde_json::to_string(&plan.task).unwrap_or_default();
    let _ = write!(text, "\n{}", plan.verification.image.identity());
    let workspace = &plan.task.workspace;
    let services = plan.task.services.iter().filter_map(|service| service.files.as_ref());
    for path in [&workspace.src, &workspace.tests].into_iter().flatten().chain(services) {
        describe(&plan.base.join(path), 0, &mut text)?;
    }
    Ok(sha256(text.as_bytes()).hex().to_owned())
}

/// By name, size, time and inode: what is written anew is judged anew.
fn describe(path: &Path, depth: usize, text: &mut String) -> Result<(), TaskRunError> {
    let metadata = fs::symlink_metadata(path).map_err(io_at(path))?;
    let parts = [metadata.ino(), metadata.size(), u64::from(metadata.mode()), metadata.mtime() as u64, metadata.mtime_nsec() as u64];
    let _ = write!(text, "\n{} {parts:?}", path.display());
    if metadata.is_dir() && depth < DEEPEST {
        let mut names: Vec<_> = fs::read_dir(path).map_err(io_at(path))?.flatten().map(|entry| entry.path()).collect();
        names.sort();
        return names.iter().try_for_each(|path| describe(path, depth + 1, text));
    }
    Ok(())
}
