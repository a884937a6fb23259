//! `cofferdam rm`.

use crate::args::{Global, RmArgs};
use crate::commands::wait::until_final;
use crate::context::{Context, actor};
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::control::{Client, Request};
use cofferdam_lifecycle::data::{now, remove_tree};
use cofferdam_lifecycle::supervisor::event;
use cofferdam_model::SandboxRecord;
use cofferdam_store::{Durability, Store};
use cofferdam_sys::lock;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Removes bytes and frees names; records stay.
pub fn run(global: Global, arguments: &RmArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    context.sweep(&mut store)?;
    for reference in &arguments.which.sandboxes {
        let mut record = Context::find(&mut store, reference)?;
        if !record.phase.is_final() {
            match Client::connect(&context.data.sandbox(record.id)) {
                Ok(_) if !arguments.force => {
                    let message = format!("sandbox {} is {}", record.id.short(), record.phase);
                    return Err(Failure::new(FAILED, "running", message).remedy("stop it first, or use rm -f"));
                }
                Ok(client) => drop(client.ask(&Request::Kill { signal: None })?),
                // Nobody listens any more: it is ending.
                Err(_) => {}
            }
            record = until_final(&context, &mut store, record)?;
        }
        remove(&context, &mut store, record)?;
        if !context.global.quiet {
            println!("{reference}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes one that has ended. Nothing happens to one that is removed already.
pub fn remove(context: &Context, store: &mut Store, record: SandboxRecord) -> Result<(), Failure> {
    if record.removed_at.is_some() {
        return Ok(());
    }
    let directory = context.data.sandbox(record.id);
    until_unlocked(&directory);
    remove_tree(&directory).map_err(|error| Failure::new(FAILED, "io", format!("remove {}: {error}", directory.display())))?;
    let removed = SandboxRecord { removed_at: Some(now()), ..record };
    let event = event(&removed, &actor(), "sandbox.removed", None);
    store.sandbox_update(&removed, &[event], Durability::Full)?;
    Ok(())
}

/// Waits for a supervisor that has recorded the end and still takes away what was the sandbox's. If it takes too long, the sweep comes after it.
fn until_unlocked(directory: &Path) {
    const WITHIN: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(2);
    let path = directory.join("lock");
    let until = Instant::now() + WITHIN;
    while path.exists() && Instant::now() < until {
        if lock::open_file(&path).and_then(|file| lock::try_lock(&file, true)).unwrap_or(true) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
