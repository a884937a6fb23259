//! `cofferdam ps`.

use crate::args::{Global, PsArgs};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{age, one, table};
use cofferdam_lifecycle::data::now;
use cofferdam_model::{Phase, SandboxRecord};
use std::process::ExitCode;

/// Lists them.
pub fn run(global: Global, arguments: &PsArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let mut records = store.sandbox_list()?;
    records.retain(|record| arguments.all || !record.phase.is_final());
    records.retain(|record| arguments.labels.iter().all(|(key, value)| record.labels.get(key) == Some(value)));
    if context.global.quiet {
        for record in &records {
            println!("{}", record.id.short());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["ID", "NAME", "PHASE", "AGE", "IMAGE", "COMMAND"];
    one(context.global.output, &records, |out| table(out, &head, &records.iter().map(row).collect::<Vec<_>>()))?;
    Ok(ExitCode::SUCCESS)
}

fn row(record: &SandboxRecord) -> Vec<String> {
    const SHOWN: usize = 50;
    let phase = match (record.phase, record.exit_code) {
        (Phase::Completed, Some(code)) => format!("completed ({code})"),
        (phase, _) => record.reason.filter(|_| phase.is_final()).map_or_else(|| phase.to_string(), |reason| format!("{phase} ({reason})")),
    };
    let mut command = record.command.join(" ");
    if command.chars().count() > SHOWN {
        command = command.chars().take(SHOWN - 1).chain(['…']).collect();
    }
    let name = record.name.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![record.id.short(), name, phase, age(record.created_at, now()), record.image.to_string(), command]
}
