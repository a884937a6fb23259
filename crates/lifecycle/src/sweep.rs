//! The sweep: ends what a dead supervisor left.
//!
//! Takes no input, is idempotent, waits for nobody but a gate that writes down its last counts. A sandbox is dead if its lock can be taken: its supervisor holds it
//! from before anything is made until everything is gone.

use crate::data::{DataDir, is_as_good_as_gone, now, remove_tree};
use crate::gating::leftover_record;
use cofferdam_engine::Engine;
use cofferdam_model::{NewEvent, Phase, Reason, SandboxId, SandboxRecord};
use cofferdam_store::{Durability, Store, StoreError};
use cofferdam_sys::lock;
use std::fs;
use std::path::Path;

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Sandboxes whose supervisor had gone.
    pub ended: Vec<SandboxId>,
    /// What could not be removed, with the reason.
    pub left: Vec<String>,
}

/// Sweeps every dead sandbox of the data directory.
pub async fn run(data: &DataDir, engine: &dyn Engine, store: &mut Store) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    for record in store.sandbox_list_live()? {
        let path = data.sandbox(record.id);
        if let Some(lock) = take_dead(&path) {
            sweep_one(data, engine, store, record, &mut swept).await?;
            drop(lock);
            remove_rest(&path);
        }
    }
    for entry in fs::read_dir(data.sandboxes()).into_iter().flatten().flatten() {
        if is_abandoned(&entry) {
            remove_directory(&entry.path(), &mut swept);
        }
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<SandboxId>().ok()) else { continue };
        let recorded = store.sandbox_get(id)?;
        let wanted = recorded.as_ref().is_some_and(|record| record.removed_at.is_none());
        if !wanted && let Some(lock) = take_dead(&entry.path()) {
            clean(engine, id, &mut swept).await;
            remove_directory(&entry.path(), &mut swept);
            drop(lock);
            remove_rest(&entry.path());
        }
    }
    for entry in fs::read_dir(data.volumes()).into_iter().flatten().flatten().filter(is_abandoned) {
        remove_directory(&entry.path(), &mut swept);
    }
    // A supervisor that failed before it could record or remove anything leaves neither directory nor record.
    if let Some(_nobody) = data.nobody_unrecorded() {
        for id in engine.present() {
            if let Some(_lock) = take_dead(&data.sandbox(id)) {
                clean(engine, id, &mut swept).await;
            }
        }
    }
    Ok(swept)
}

/// Whether there is any sandbox directory: without one, and with nothing recorded as live, there is nothing to sweep.
pub fn has_directories(data: &DataDir) -> bool {
    fs::read_dir(data.sandboxes()).is_ok_and(|mut entries| entries.next().is_some())
}

/// A directory whose maker ended before it could be locked under its name.
pub(crate) fn is_abandoned(entry: &fs::DirEntry) -> bool {
    const SETTLED_SECONDS: u64 = 60;
    let name = entry.file_name();
    let Some(maker) = name.to_str().and_then(|name| name.strip_prefix(crate::data::MAKING_PREFIX)) else { return false };
    let pid = maker.split('-').next().unwrap_or_default();
    let gone = !Path::new("/proc").join(pid).exists();
    // The pid may be somebody else's by now.
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    gone || modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > SETTLED_SECONDS))
}

/// The sandbox's lock if nobody else holds it. A directory that is gone has no supervisor either.
fn take_dead(path: &Path) -> Option<Option<std::os::fd::OwnedFd>> {
    if !path.is_dir() {
        return Some(None);
    }
    let file = lock::open_file(&path.join("lock")).ok()?;
    lock::try_lock(&file, true).ok()?.then_some(Some(file))
}

async fn sweep_one(
    data: &DataDir,
    engine: &dyn Engine,
    store: &mut Store,
    record: SandboxRecord,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let id = record.id;
    clean(engine, id, swept).await;
    let keep = record.kept;
    let time = now();
    let ended = SandboxRecord {
        phase: Phase::Failed,
        reason: Some(Reason::SupervisorLost),
        detail: Some("the process that supervised it ended first".into()),
        ended_at: Some(time),
        removed_at: if keep { record.removed_at } else { Some(time) },
        ..record
    };
    let event = NewEvent {
        time,
        actor: "cofferdam".into(),
        subject: format!("sandbox:{id}"),
        kind: "sandbox.failed".into(),
        rule: None,
        reason: Some(Reason::SupervisorLost.name().into()),
        data: serde_json::Value::Null,
    };
    let mut events = leftover_record(&data.sandbox(id), &event.subject);
    events.push(event);
    store.sandbox_update(&ended, &events, Durability::Full)?;
    if !keep {
        remove_directory(&data.sandbox(id), swept);
    }
    swept.ended.push(id);
    Ok(())
}

async fn clean(engine: &dyn Engine, id: SandboxId, swept: &mut Swept) {
    if let Err(error) = engine.sweep(id).await {
        swept.left.push(error.to_string());
    }
}

fn remove_directory(path: &Path, swept: &mut Swept) {
    if let Err(error) = remove_tree(path) {
        swept.left.push(format!("{}: {error}", path.display()));
    }
}

/// What removing it while its lock was held has left (NFS).
fn remove_rest(path: &Path) {
    if is_as_good_as_gone(path) {
        // Else the next sweep.
        let _ = fs::remove_dir_all(path);
    }
}
