//! `cofferdam prune`.

use crate::args::Global;
use crate::commands::rm::remove;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::one;
use std::process::ExitCode;

#[derive(serde::Serialize)]
struct Pruned {
    removed: Vec<cofferdam_model::SandboxId>,
    ended: Vec<cofferdam_model::SandboxId>,
    left: Vec<String>,
}

/// Removes every ended sandbox and what dead supervisors left.
pub fn run(global: Global) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let swept = context.sweep(&mut store)?;
    let mut removed = Vec::new();
    for record in store.sandbox_list()? {
        if record.phase.is_final() {
            removed.push(record.id);
            remove(&context, &mut store, record)?;
        }
    }
    let pruned = Pruned { removed, ended: swept.ended, left: swept.left };
    one(context.global.output, &pruned, |out| {
        pruned.ended.iter().try_for_each(|id| writeln!(out, "ended {}", id.short()))?;
        pruned.removed.iter().try_for_each(|id| writeln!(out, "removed {}", id.short()))
    })?;
    Ok(if pruned.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(crate::exit::FAILED) })
}
