//! `cofferdam rm`.

use crate::args::{Global, RmArgs};
use crate::commands::wait::until_final;
use crate::context::{Context, actor};
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::control::{Client, Request};
use cofferdam_lifecycle::data::now;
use cofferdam_lifecycle::supervisor::event;
use cofferdam_model::SandboxRecord;
use cofferdam_store::{Durability, Store};
use std::process::ExitCode;

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
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::new(FAILED, "io", format!("remove {}: {error}", directory.display())));
        }
        _ => {}
    }
    let removed = SandboxRecord { removed_at: Some(now()), ..record };
    let event = event(&removed, &actor(), "sandbox.removed", None);
    store.sandbox_update(&removed, &[event], Durability::Full)?;
    Ok(())
}
