//! `cofferdam wait`.

use crate::args::{Form, Global, SandboxesArg};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::one;
use cofferdam_lifecycle::control::{Client, Request};
use cofferdam_model::SandboxRecord;
use cofferdam_store::Store;
use std::process::ExitCode;
use std::time::Duration;

/// Between looks at a sandbox whose end is not recorded yet.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(serde::Serialize)]
struct Ended {
    id: cofferdam_model::SandboxId,
    exit_code: Option<i32>,
}

/// Waits for each; prints the exit statuses in the order asked for.
pub fn run(global: Global, arguments: &SandboxesArg) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let mut ended = Vec::new();
    for reference in &arguments.sandboxes {
        let record = Context::find(&mut store, reference)?;
        let record = until_final(&context, &mut store, record)?;
        if context.global.output == Form::Table {
            println!("{}", record.exit_code.map_or_else(|| record.phase.to_string(), |code| code.to_string()));
        }
        ended.push(Ended { id: record.id, exit_code: record.exit_code });
    }
    if context.global.output != Form::Table {
        one(context.global.output, &ended, |_| Ok(()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The record once the sandbox has ended.
pub fn until_final(context: &Context, store: &mut Store, mut record: SandboxRecord) -> Result<SandboxRecord, Failure> {
    while !record.phase.is_final() {
        if let Ok(client) = Client::connect(&context.data.sandbox(record.id)) {
            // Its answer, or its end: either way the record tells.
            let _ = client.ask(&Request::Wait);
        } else {
            context.sweep(store)?;
        }
        std::thread::sleep(PAUSE);
        record = store.sandbox_get(record.id)?.unwrap_or(record);
    }
    Ok(record)
}
