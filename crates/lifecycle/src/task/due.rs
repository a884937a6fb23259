//! What an attempt leaves, and when it goes.
//!
//! ```text
//! ended ──delay, or force_after where it is to stay──▶ working files go, logs and artifacts too unless kept ──retention──▶ the rest goes
//! ```
//! While an attempt is made, its maker holds a lock in its directory; one that is recorded as running and whose lock is free was lost.

use super::artifacts;
use crate::data::{DataDir, MAKING_PREFIX, now, remove_tree};
use crate::sweep::is_abandoned;
use cofferdam_model::task::Cleanup;
use cofferdam_model::{AttemptId, NewEvent, Phase, Reason, Span, Timestamp};
use cofferdam_store::{AttemptRecord, Due, Store, StoreError};
use cofferdam_sys::lock;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const WORKING: &str = "attempt.working";
const LOGS: &str = "attempt.logs";
const ARTIFACTS: &str = "attempt.artifacts";
const KEPT: &str = "attempt.kept";
/// So many at a time: whoever comes by is not to wait long.
const AT_ONCE: usize = 500;

/// Where an attempt's working files are.
pub fn working(data: &DataDir, id: AttemptId) -> PathBuf {
    data.path().join("attempts").join(id.to_string())
}

/// Makes the directory of an attempt and takes its lock, until the result is dropped. It appears under its name only when it is locked, so
/// that no sweep takes it for abandoned.
pub(super) fn hold(directory: &Path) -> io::Result<OwnedFd> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let making = directory.with_file_name(format!("{MAKING_PREFIX}{}-{name}", std::process::id()));
    fs::create_dir_all(&making)?;
    let file = lock::open_file(&making.join("lock")).map_err(|error| error.source)?;
    match lock::try_lock(&file, true) {
        Ok(true) => fs::rename(&making, directory).map(|()| file),
        Ok(false) => Err(io::Error::other("its lock is taken")),
        Err(error) => Err(error.source),
    }
}

/// The attempt whose directory this is, if nobody holds it; with its lock, if there is one.
fn take_free(directory: &Path) -> Option<Option<OwnedFd>> {
    match lock::open_file(&directory.join("lock")) {
        Ok(file) => lock::try_lock(&file, true).unwrap_or(false).then_some(Some(file)),
        Err(error) => (error.source.kind() == io::ErrorKind::NotFound).then_some(None),
    }
}

/// Directories that no record speaks of: their maker ended before it could write one.
fn remove_unrecorded(data: &DataDir, store: &mut Store) -> Result<(), StoreError> {
    for entry in fs::read_dir(data.path().join("attempts")).into_iter().flatten().flatten() {
        let path = entry.path();
        let abandoned = match entry.file_name().to_str().and_then(|name| name.parse::<AttemptId>().ok()) {
            Some(id) => take_free(&path).is_some() && store.attempt_get(id)?.is_none(),
            None => is_abandoned(&entry),
        };
        if abandoned {
            // What cannot be removed now is tried again by the next.
            let _ = tree(&path);
        }
    }
    Ok(())
}

/// When what an ended attempt left goes.
pub(super) fn of(record: &AttemptRecord, cleanup: &Cleanup) -> Vec<Due> {
    let soon = match record.phase {
        Phase::Timeout => cleanup.on_timeout,
        _ if record.reward.is_some_and(|reward| reward >= 1.0) => cleanup.on_success,
        _ => cleanup.on_failure,
    };
    let ended = record.ended_at.unwrap_or_else(now);
    let first = after(ended, if soon { cleanup.delay } else { cleanup.force_after });
    let due = |at, kind: &str| Due { at, kind: kind.to_owned(), subject: record.id.to_string() };
    let mut all = vec![due(first, WORKING), due(after(ended, cleanup.retention), KEPT)];
    if !cleanup.keep_logs {
        all.push(due(first, LOGS));
    }
    if !cleanup.keep_artifacts {
        all.push(due(first, ARTIFACTS));
    }
    all
}

fn after(time: Timestamp, span: Span) -> Timestamp {
    let millis = i64::try_from(span.millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(time.as_millisecond().saturating_add(millis)).unwrap_or(Timestamp::MAX)
}

/// Removes what is due, and records what was lost. Idempotent.
pub fn sweep(data: &DataDir, store: &mut Store) -> Result<(), StoreError> {
    for record in store.attempt_list_running()? {
        lost(data, store, record)?;
    }
    remove_unrecorded(data, store)?;
    let mut done = Vec::new();
    for due in store.due_list(now(), AT_ONCE)? {
        let Ok(id) = due.subject.parse::<AttemptId>() else {
            done.push(due);
            continue;
        };
        // What cannot be removed now is tried again by the next.
        if remove(data, id, &due.kind).is_ok() {
            done.push(due);
        }
    }
    if done.is_empty() { Ok(()) } else { store.due_done(&done) }
}

/// An attempt that is recorded as running and whose maker is gone.
fn lost(data: &DataDir, store: &mut Store, record: AttemptRecord) -> Result<(), StoreError> {
    let Some(_lock) = take_free(&working(data, record.id)) else { return Ok(()) };
    // Its maker may have ended it since it was listed, and only then let go of it.
    let Some(record) = store.attempt_get(record.id)?.filter(|record| !record.phase.is_final()) else { return Ok(()) };
    let time = now();
    let detail = Some("the process that made it ended first".to_owned());
    let ended = AttemptRecord { phase: Phase::Failed, reason: Some(Reason::SupervisorLost), detail, ended_at: Some(time), ..record };
    let event = NewEvent {
        time,
        actor: "cofferdam".into(),
        subject: format!("attempt:{}", ended.id),
        kind: "attempt.failed".into(),
        rule: None,
        reason: Some(Reason::SupervisorLost.name().into()),
        data: serde_json::json!({ "task": ended.task, "agent": ended.agent }),
    };
    let mut dues = of(&ended, &Cleanup::default());
    dues[0].at = time;
    store.attempt_save(&ended, &[event], &dues).map(|_| ())
}

fn remove(data: &DataDir, id: AttemptId, kind: &str) -> io::Result<()> {
    let kept = data.artifacts().join(id.to_string());
    match kind {
        WORKING => tree(&working(data, id)),
        LOGS => tree(&kept.join("logs")).and_then(|()| forget(data, &kept.join("agent"))),
        ARTIFACTS => forget(data, &kept.join(artifacts::FILES)),
        KEPT => {
            let held = ["agent", artifacts::FILES].map(|name| artifacts::manifest(&kept.join(name))).concat();
            tree(&kept)?;
            artifacts::forget(data, &held);
            Ok(())
        }
        // Of a newer release.
        _ => Ok(()),
    }
}

/// Removes kept files, and their bytes where nobody else has them.
fn forget(data: &DataDir, directory: &Path) -> io::Result<()> {
    let held = artifacts::manifest(directory);
    tree(directory)?;
    artifacts::forget(data, &held);
    tree(&artifacts::manifest_of(directory))
}

fn tree(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return remove_tree(path);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
